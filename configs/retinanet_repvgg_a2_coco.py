# tools/dist_train.sh configs/retinanet_repvgg_a2_coco.py 8
# RetinaNet on RepVGG-A2 with FPN. Recipe: MMDetection's 1x schedule and augmentation.
# Not trained here (needs COCO and GPUs).
_base_ = [
    "_base_/det_retinanet.py",
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
optim_wrapper = dict(optimizer=dict(lr=0.01))
