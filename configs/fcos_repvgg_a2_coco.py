# tools/dist_train.sh configs/fcos_repvgg_a2_coco.py 8
# FCOS on RepVGG-A2 with FPN. Recipe: MMDetection's 1x schedule and augmentation.
# Not trained here (needs COCO and GPUs).
_base_ = [
    "_base_/det_fcos.py",
    "_base_/coco.py",
    "_base_/det_schedule_1x.py",
    "_base_/det_runtime.py",
]
model = dict(
    backbone=dict(
        arch="A2",
        init_cfg=dict(type="Pretrained", checkpoint="pretrained/RepVGG-A2-train.pth"),
    ),
    neck=dict(in_channels=[96, 192, 384, 1408]),
)
optim_wrapper = dict(
    optimizer=dict(lr=0.01),
    paramwise_cfg=dict(bias_lr_mult=2.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=35, norm_type=2),
)
