# python tools/train.py configs/repvgg_digits.py
# A small RepVGG classifies handwritten digits on photos: the pretraining act of `make demo`. Recipe: our own.
# Measured: see the README's demo table.
_base_ = ["_base_/digits_cls.py", "_base_/cls_runtime.py"]
model = dict(
    type="ImageClassifier",
    num_classes=10,
    data_preprocessor=dict(type="ImgDataPreprocessor", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(type="RepVGG", arch=dict(num_blocks=(1, 2, 4, 1), width_multiplier=(0.5, 0.5, 0.5, 0.5))),
)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=3e-3, weight_decay=0.05))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", eta_min=0, T_max=10, by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=10, val_interval=5)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
