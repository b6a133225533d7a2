# tools/dist_train.sh configs/repvggplus_l2pse_imagenet.py 8
# RepVGGplus-L2pse on ImageNet-1K: trained at 256 px with auxiliary heads, tested at 320 px.
# Recipe: the authors' README and train/ folder (github.com/DingXiaoH/RepVGG). Theirs is a RandAugment of their own, two
# operations of random strength; here torchvision's, at the mean of that strength. EMA is our addition.
# Not trained here (needs ImageNet and GPUs).
_base_ = "_base_/imagenet.py"
model = dict(
    aux_weight=0.1,
    label_smoothing=0.1,
    mix=[dict(type="MixUp", alpha=0.2)],
    backbone=dict(arch="plus-L2pse"),
)
train_dataloader = dict(
    dataset=dict(
        transforms=[
            dict(type="RandomResizedCrop", size=256),
            dict(type="RandomHorizontalFlip"),
            dict(type="RandAugment", num_ops=2, magnitude=21),
        ],
    ),
)
val_dataloader = dict(dataset=dict(transforms=[dict(type="Resize", size=320), dict(type="CenterCrop", size=320)]))
test_dataloader = val_dataloader
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="RepVGGOptimWrapperConstructor",
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, nesterov=True, weight_decay=4e-5),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=0, T_max=295, by_epoch=True, begin=5, end=300, convert_to_iter_based=True),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=300, val_interval=1)
custom_hooks = [dict(type="ReplaySeedHook"), dict(type="EMAHook", momentum=1e-4, update_buffers=True)]
