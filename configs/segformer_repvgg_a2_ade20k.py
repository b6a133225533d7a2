# tools/dist_train.sh configs/segformer_repvgg_a2_ade20k.py 8
# The all-MLP head of SegFormer on RepVGG-A2. Recipe: MMSegmentation's 80k iterations.
# Not trained here (needs ADE20K and GPUs).
_base_ = [
    "_base_/segformer.py",
    "_base_/ade20k.py",
    "_base_/schedule_ade20k_80k.py",
    "_base_/seg_runtime.py",
]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        arch="A2",
        init_cfg=dict(type="Pretrained", checkpoint="pretrained/RepVGG-A2-train.pth"),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 1408], num_classes=150),
)
