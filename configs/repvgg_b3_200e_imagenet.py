# tools/dist_train.sh configs/repvgg_b3_200e_imagenet.py 8
# RepVGG-B3 on ImageNet-1K.
# Recipe: RepVGG paper, section 4.1 (arXiv:2101.03697), where AutoAugment, label smoothing
# and mixup are named, without their strengths: 0.1 and 0.2 as for RepVGGplus.
# Not trained here (needs ImageNet and GPUs).
_base_ = "_base_/imagenet_200e.py"
model = dict(backbone=dict(arch="B3"))
