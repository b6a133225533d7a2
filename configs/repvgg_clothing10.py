# CLOTHING10=/path/to/clothing10 python tools/train.py configs/repvgg_clothing10.py
# RepVGG-A0 from scratch on real photos of clothes, 10 classes, 128 px, so that a CPU can train it.
# Not trained here to the end. Recipe: our own.
_base_ = "_base_/imagenet.py"
data_root = "{{$CLOTHING10:data/clothing10}}"
model = dict(num_classes=10, label_smoothing=0.1, mix=[dict(type="MixUp", alpha=0.2)], backbone=dict(arch="A0"))
train_dataloader = dict(
    num_workers=1,
    pin_memory=False,
    dataset=dict(
        data_root=data_root,
        transforms=[
            dict(type="RandomResizedCrop", size=128, scale=(0.4, 1.0)),
            dict(type="RandomHorizontalFlip"),
            dict(type="ColorJitter", brightness=0.3, contrast=0.3, saturation=0.3),
        ],
    ),
)
val_dataloader = dict(
    num_workers=1,
    pin_memory=False,
    dataset=dict(data_root=data_root, transforms=[dict(type="Resize", size=144), dict(type="CenterCrop", size=128)]),
)
test_dataloader = val_dataloader
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="RepVGGOptimWrapperConstructor",
    optimizer=dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=5e-4),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=0, T_max=58, by_epoch=True, begin=2, end=60, convert_to_iter_based=True),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=60, val_interval=5)
