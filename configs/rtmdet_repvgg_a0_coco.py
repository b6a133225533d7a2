# tools/dist_train.sh configs/rtmdet_repvgg_a0_coco.py 8
# RTMDet's neck (CSPNeXtPAFPN) and head on RepVGG-A0. Recipe: MMDetection's 1x schedule and augmentation, with RTMDet's
# optimizer at its rate for 16 images; all batch normalisation is trained, over all GPUs.
# Not trained here (needs COCO and GPUs).
_base_ = [
    "_base_/det_rtmdet.py",
    "_base_/coco.py",
    "_base_/det_schedule_1x.py",
    "_base_/det_runtime.py",
]
model = dict(
    backbone=dict(
        arch="A0",
        init_cfg=dict(type="Pretrained", checkpoint="pretrained/RepVGG-A0-train.pth"),
    ),
    neck=dict(in_channels=[96, 192, 1280]),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=0.00025, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0, bias_decay_mult=0, bypass_duplicate=True),
)
