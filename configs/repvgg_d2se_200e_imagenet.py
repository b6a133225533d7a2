# tools/dist_train.sh configs/repvgg_d2se_200e_imagenet.py 8
# RepVGG-D2se on ImageNet-1K, tested at 320 px as the authors do (top-1 at 224 px: --cfg-options
# test_dataloader.dataset.transforms.0.size=256 test_dataloader.dataset.transforms.1.size=224).
# Not trained here (needs ImageNet and GPUs).
# Recipe: RepVGG paper, section 4.1 (arXiv:2101.03697), where AutoAugment, label smoothing
# and mixup are named, without their strengths: 0.1 and 0.2 as for RepVGGplus.
_base_ = "_base_/imagenet_200e.py"
model = dict(backbone=dict(arch="D2se"))
val_dataloader = dict(dataset=dict(transforms=[dict(type="Resize", size=320), dict(type="CenterCrop", size=320)]))
test_dataloader = val_dataloader
