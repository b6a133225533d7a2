# Recipe of the paper for heavy weights: 200 epochs, 5 of them warm-up, AutoAugment, label smoothing, mixup.
_base_ = "imagenet_120e.py"
model = dict(label_smoothing=0.1, mix=[dict(type="MixUp", alpha=0.2)])
train_dataloader = dict(
    dataset=dict(
        transforms=[
            dict(type="RandomResizedCrop", size=224),
            dict(type="RandomHorizontalFlip"),
            dict(type="AutoAugment"),
        ],
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=0, T_max=195, by_epoch=True, begin=5, end=200, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=200)
