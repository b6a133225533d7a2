# tools/dist_train.sh configs/retinanet_repvgg_a0_coco.py 8
# RetinaNet on RepVGG-A0 with FPN. Recipe: MMDetection's 1x schedule and augmentation.
# Not trained here (needs COCO and GPUs).
_base_ = [
    "_base_/det_retinanet.py",
    "_base_/coco.py",
    "_base_/det_schedule_1x.py",
    "_base_/det_runtime.py",
]
model = dict(
    backbone=dict(
        arch="A0",
        init_cfg=dict(type="Pretrained", checkpoint="pretrained/RepVGG-A0-train.pth"),
    ),
    neck=dict(in_channels=[48, 96, 192, 1280]),
)
optim_wrapper = dict(optimizer=dict(lr=0.01))
