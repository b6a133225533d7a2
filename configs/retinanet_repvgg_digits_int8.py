# python tools/train.py configs/retinanet_repvgg_digits_int8.py      (after configs/retinanet_repvgg_digits.py)
# The digits RetinaNet trained on with the integers that the exported file computes with. Recipe: our own.
# Measured: see docs/quantization.md.
_base_ = "retinanet_repvgg_digits.py"
model = dict(backbone=dict(init_cfg=None))
load_from = "work_dirs/retinanet_repvgg_digits/epoch_2.pth"
custom_hooks = [dict(type="ReplaySeedHook"), dict(type="QuantAwareTraining", images=256)]
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [dict(type="CosineAnnealingLR", eta_min=0, T_max=1, by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=1, val_interval=1)
