# tools/dist_train.sh configs/repvgg_a0_qa_imagenet.py 8
# QARepVGG-A0 (arXiv:2212.01593) on ImageNet-1K: blocks whose kernels survive 8 bits.
# Recipe: that of RepVGG-A0 with plain weight decay, as the QARepVGG paper has it.
# Not trained here (needs ImageNet and GPUs).
_base_ = "_base_/imagenet_120e.py"
model = dict(backbone=dict(arch="A0-qa"))
