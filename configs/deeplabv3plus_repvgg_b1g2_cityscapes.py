# tools/dist_train.sh configs/deeplabv3plus_repvgg_b1g2_cityscapes.py 8
# DeepLabV3+ on RepVGG-B1g2. Recipe: that of PSPNet in the RepVGG paper, section 4.4 (arXiv:2101.03697).
# Not trained here (needs Cityscapes and GPUs).
_base_ = [
    "_base_/deeplabv3plus.py",
    "_base_/cityscapes.py",
    "_base_/schedule_pspnet_40e.py",
    "_base_/seg_runtime.py",
]
model = dict(
    backbone=dict(
        arch="B1g2",
        init_cfg=dict(type="Pretrained", checkpoint="pretrained/RepVGG-B1g2-train.pth"),
    ),
    decode_head=dict(in_channels=2048, c1_in_channels=128),
    auxiliary_head=dict(in_channels=512),
    test_cfg=dict(mode="slide", crop_size=(713, 713), stride=(476, 476)),
)
