# tools/dist_train.sh configs/fcn_repvgg_a2_cityscapes.py 8
# FCN on RepVGG-A2. Recipe: that of PSPNet in the RepVGG paper, section 4.4 (arXiv:2101.03697).
# Not trained here (needs Cityscapes and GPUs).
_base_ = [
    "_base_/fcn.py",
    "_base_/cityscapes.py",
    "_base_/schedule_pspnet_40e.py",
    "_base_/seg_runtime.py",
]
model = dict(
    backbone=dict(
        arch="A2",
        init_cfg=dict(type="Pretrained", checkpoint="pretrained/RepVGG-A2-train.pth"),
    ),
    decode_head=dict(in_channels=1408),
    auxiliary_head=dict(in_channels=384),
    test_cfg=dict(mode="slide", crop_size=(713, 713), stride=(476, 476)),
)
