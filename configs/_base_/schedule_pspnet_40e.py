# Paper, section 4.4: poly 0.9 from 0.01, weight decay 1e-4, batch 16 on 8 GPUs, 40 epochs = 7,440 iterations.
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=1e-4))
param_scheduler = [dict(type="PolyLR", eta_min=0, power=0.9, begin=0, end=7440, by_epoch=False)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=7440, val_interval=1860)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
