# CAMVID=/path/to/camvid python tools/train.py configs/pspnet_repvgg_a0_camvid.py
# PSPNet on the RepVGG-A0 that configs/repvgg_clothing10.py makes, narrower heads and smaller crops, so that a CPU can
# train it; from scratch: --cfg-options model.backbone.init_cfg=None. Recipe: our own.
# Measured: see the README's table of real photos.
_base_ = ["_base_/pspnet.py", "_base_/camvid.py", "_base_/seg_runtime.py"]
model = dict(
    data_preprocessor=dict(size=(224, 224), seg_pad_val=11),
    backbone=dict(arch="A0", init_cfg=dict(type="Pretrained", checkpoint="work_dirs/repvgg_clothing10/epoch_60.pth")),
    decode_head=dict(in_channels=1280, channels=128, num_classes=11, ignore_index=11),
    auxiliary_head=dict(in_channels=192, channels=64, num_classes=11, ignore_index=11),
)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=1e-4))
param_scheduler = [dict(type="PolyLR", eta_min=0, power=0.9, begin=0, end=400, by_epoch=False)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=400, val_interval=400)
default_hooks = dict(checkpoint=dict(interval=400))
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
