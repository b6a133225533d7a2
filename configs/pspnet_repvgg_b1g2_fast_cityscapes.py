# tools/dist_train.sh configs/pspnet_repvgg_b1g2_fast_cityscapes.py 8
# PSPNet on RepVGG-B1g2, dilated only in its last five layers. Recipe: RepVGG paper, section 4.4 (arXiv:2101.03697).
# Not trained here (needs Cityscapes and GPUs).
_base_ = "pspnet_repvgg_b1g2_cityscapes.py"
model = dict(backbone=dict(dilations=(1, 1, (1,) * 12 + (2,) * 4, (4,))))
