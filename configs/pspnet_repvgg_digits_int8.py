# python tools/train.py configs/pspnet_repvgg_digits_int8.py      (after configs/pspnet_repvgg_digits.py)
# The digits PSPNet trained on with the integers that the exported file computes with. Recipe: our own.
# Measured: see docs/quantization.md.
_base_ = "pspnet_repvgg_digits.py"
model = dict(backbone=dict(init_cfg=None))
load_from = "work_dirs/pspnet_repvgg_digits/iter_700.pth"
custom_hooks = [dict(type="ReplaySeedHook"), dict(type="QuantAwareTraining", images=64)]
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [dict(type="PolyLR", eta_min=0, power=0.9, begin=0, end=100, by_epoch=False)]
train_cfg = dict(max_iters=100, val_interval=100)
