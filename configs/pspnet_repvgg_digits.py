# tools/dist_train.sh configs/pspnet_repvgg_digits.py 2      (after configs/repvgg_digits.py)
# PSPNet on a small RepVGG segments handwritten digits: the main act of `make demo`. Recipe: our own.
# Measured: see the README's demo table.
_base_ = ["_base_/pspnet.py", "_base_/digits_seg.py", "_base_/seg_runtime.py"]
class_weight = [0.3] + [1.0] * 10  # four fifths of the pixels are background
model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(
        arch=dict(num_blocks=(1, 2, 4, 1), width_multiplier=(0.5, 0.5, 0.5, 0.5)),
        init_cfg=dict(type="Pretrained", checkpoint="work_dirs/repvgg_digits/epoch_10.pth"),
    ),
    decode_head=dict(in_channels=256, channels=64, num_classes=11, loss_decode=dict(class_weight=class_weight)),
    auxiliary_head=dict(in_channels=128, channels=64, num_classes=11, loss_decode=dict(class_weight=class_weight)),
)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=3e-3, weight_decay=0.05))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, begin=0, end=30, by_epoch=False),
    dict(type="PolyLR", eta_min=0, power=0.9, begin=0, end=700, by_epoch=False),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=700, val_interval=140)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
