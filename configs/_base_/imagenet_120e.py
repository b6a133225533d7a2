# Recipe of the paper for light and middle weights: 120 epochs, cosine from 0.1 to 0, weight decay 1e-4 by the rule.
_base_ = "imagenet.py"
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="RepVGGOptimWrapperConstructor",
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=1e-4),
)
param_scheduler = [dict(type="CosineAnnealingLR", eta_min=0, T_max=120, by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=120, val_interval=1)
