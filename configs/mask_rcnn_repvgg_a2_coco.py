# tools/dist_train.sh configs/mask_rcnn_repvgg_a2_coco.py 8
# Mask R-CNN on RepVGG-A2 with FPN. Recipe: MMDetection's 1x schedule and augmentation.
# Not trained here (needs COCO and GPUs).
_base_ = [
    "_base_/det_mask_rcnn.py",
    "_base_/coco_instance.py",
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
