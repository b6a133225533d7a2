# CAMVID=/path/to/camvid python tools/train.py configs/pspnet_repvgg_a2_camvid.py
# PSPNet on RepVGG-A2, started from ImageNet weights. Recipe: the Cityscapes one, for CamVid's size.
# Not trained here (needs pretrained weights and a GPU).
_base_ = ["_base_/pspnet.py", "_base_/camvid.py", "_base_/seg_runtime.py"]
model = dict(
    data_preprocessor=dict(size=(224, 224), seg_pad_val=11),
    backbone=dict(arch="A2", init_cfg=dict(type="Pretrained", checkpoint="pretrained/RepVGG-A2-train.pth")),
    decode_head=dict(in_channels=1408, channels=128, num_classes=11, ignore_index=11),
    auxiliary_head=dict(in_channels=384, channels=64, num_classes=11, ignore_index=11),
)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=1e-4))
param_scheduler = [dict(type="PolyLR", eta_min=0, power=0.9, begin=0, end=4000, by_epoch=False)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=4000, val_interval=500)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
