# Short enough for two CPU cores: AdamW for 2 epochs of 2,000 scenes, warm-up 50 iterations, then half a cosine.
optim_wrapper = dict(
    type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.001, weight_decay=0.05), clip_grad=dict(max_norm=10)
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", eta_min=0, T_max=2, by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=2, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
