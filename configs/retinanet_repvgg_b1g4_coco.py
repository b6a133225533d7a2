# tools/dist_train.sh configs/retinanet_repvgg_b1g4_coco.py 8
# RetinaNet on RepVGG-B1g4 with FPN. Recipe: MMDetection's 1x schedule and augmentation.
# Not trained here (needs COCO and GPUs).
_base_ = [
    "_base_/det_retinanet.py",
    "_base_/coco.py",
    "_base_/det_schedule_1x.py",
    "_base_/det_runtime.py",
]
model = dict(
    backbone=dict(
        arch="B1g4",
        init_cfg=dict(type="Pretrained", checkpoint="pretrained/RepVGG-B1g4-train.pth"),
    ),
    neck=dict(in_channels=[128, 256, 512, 2048]),
)
optim_wrapper = dict(optimizer=dict(lr=0.01))
