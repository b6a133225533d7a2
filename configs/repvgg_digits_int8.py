# python tools/train.py configs/repvgg_digits_int8.py      (after configs/repvgg_digits.py)
# The digits classifier trained on with the integers that the exported file computes with. Recipe: our own.
# Measured: see docs/quantization.md.
_base_ = "repvgg_digits.py"
load_from = "work_dirs/repvgg_digits/epoch_10.pth"
custom_hooks = [dict(type="ReplaySeedHook"), dict(type="QuantAwareTraining", images=256)]
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [dict(type="CosineAnnealingLR", eta_min=0, T_max=3, by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=3, val_interval=1)
