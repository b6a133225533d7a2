# tools/dist_train.sh configs/repvgg_b2g4_imagenet.py 8
# RepVGG-B2g4 on ImageNet-1K.
# Recipe: RepVGG paper, section 4.1 (arXiv:2101.03697), and the authors' README.
# Not trained here (needs ImageNet and GPUs).
_base_ = "_base_/imagenet_120e.py"
model = dict(backbone=dict(arch="B2g4"))
