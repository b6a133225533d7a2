# python tools/train.py configs/repvgg_digits_bn.py
# The deployed digits classifier trained on, with batch normalisation put in behind each block's convolution, after
# python tools/insert_bn.py work_dirs/repvgg_digits/epoch_10.pth work_dirs/repvgg_digits/bn.pth
# Recipe: the authors' insert_bn.py; schedule our own.
# Measured with rounded numbers on a stressed network only: see docs/quantization.md.
_base_ = "repvgg_digits.py"
model = dict(backbone=dict(arch=dict(conv_bn=True)))
load_from = "work_dirs/repvgg_digits/bn.pth"
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [dict(type="CosineAnnealingLR", eta_min=0, T_max=3, by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=3, val_interval=1)
