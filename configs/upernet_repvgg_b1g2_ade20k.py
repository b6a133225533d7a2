# tools/dist_train.sh configs/upernet_repvgg_b1g2_ade20k.py 8
# UPerNet on RepVGG-B1g2. Recipe: MMSegmentation's 80k iterations.
# Not trained here (needs ADE20K and GPUs).
_base_ = [
    "_base_/upernet.py",
    "_base_/ade20k.py",
    "_base_/schedule_ade20k_80k.py",
    "_base_/seg_runtime.py",
]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        arch="B1g2",
        init_cfg=dict(type="Pretrained", checkpoint="pretrained/RepVGG-B1g2-train.pth"),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 2048], num_classes=150),
    auxiliary_head=dict(in_channels=512, num_classes=150),
)
