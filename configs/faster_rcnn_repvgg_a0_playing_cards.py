# PLAYING_CARDS=/path/to/playing_cards python tools/train.py configs/faster_rcnn_repvgg_a0_playing_cards.py
# Faster R-CNN on the RepVGG-A0 that configs/repvgg_clothing10.py makes, narrow neck without stride 4, small images, so
# that a CPU can train it; from scratch: --cfg-options model.backbone.init_cfg=None. Recipe: our own.
# Measured: see the README's table of real photos.
_base_ = ["_base_/det_faster_rcnn.py", "_base_/playing_cards.py", "_base_/det_runtime.py"]
model = dict(
    backbone=dict(
        arch="A0",
        frozen_stages=-1,
        norm_eval=False,
        init_cfg=dict(type="Pretrained", checkpoint="work_dirs/repvgg_clothing10/epoch_60.pth"),
    ),
    neck=dict(in_channels=[48, 96, 192, 1280], out_channels=128, start_level=1, num_outs=4),
    rpn_head=dict(in_channels=128, feat_channels=128, anchor_generator=dict(scales=[6], strides=[8, 16, 32, 64])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=128, featmap_strides=[8, 16, 32], finest_scale=96),
        bbox_head=dict(in_channels=128, fc_out_channels=512, num_classes=6),
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=500, max_per_img=200), rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200)),
)
optim_wrapper = dict(
    type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.0005, weight_decay=0.05), clip_grad=dict(max_norm=10)
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type="CosineAnnealingLR", eta_min=0, T_max=15, by_epoch=True, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(interval=5))
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=15, val_interval=15)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
