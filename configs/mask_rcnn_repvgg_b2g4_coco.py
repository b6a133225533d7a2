# tools/dist_train.sh configs/mask_rcnn_repvgg_b2g4_coco.py 8
# Mask R-CNN on RepVGG-B2g4 with FPN. Recipe: MMDetection's 1x schedule and augmentation.
# Not trained here (needs COCO and GPUs).
_base_ = [
    "_base_/det_mask_rcnn.py",
    "_base_/coco_instance.py",
    "_base_/det_schedule_1x.py",
    "_base_/det_runtime.py",
]
model = dict(
    backbone=dict(
        arch="B2g4",
        init_cfg=dict(type="Pretrained", checkpoint="pretrained/RepVGG-B2g4-train.pth"),
    ),
    neck=dict(in_channels=[160, 320, 640, 2560]),
)
