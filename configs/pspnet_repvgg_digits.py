# tools/dist_train.sh configs/pspnet_repvgg_digits.py 2      (after configs/repvgg_digits.py)
# PSPNet on a small RepVGG segments handwritten digits: the main act of `make demo`. Recipe: the Cityscapes one, shorter.
# Measured: see the README's demo table.
_base_ = ["_base_/pspnet.py", "_base_/digits_seg.py", "_base_/seg_runtime.py"]
model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(
        arch=dict(num_blocks=(1, 2, 4, 1), width_multiplier=(0.5, 0.5, 0.5, 0.5)),
        init_cfg=dict(type="Pretrained", checkpoint="work_dirs/repvgg_digits/epoch_8.pth"),
    ),
    decode_head=dict(in_channels=256, channels=64, num_classes=11),
    auxiliary_head=dict(in_channels=128, channels=64, num_classes=11),
)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=1e-4))
param_scheduler = [dict(type="PolyLR", eta_min=0, power=0.9, begin=0, end=300, by_epoch=False)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=300, val_interval=300)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
