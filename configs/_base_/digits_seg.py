# Digit scenes, 128 x 128 (tools/make_digits.py data/digits); $DIGITS or --cfg-options data_root=... says where.
_base_ = "seg_tta.py"
_base_ = "seg_tta.py"
data_root = "{{$DIGITS:data/digits}}/segmentation"
classes = ("background", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
palette = [
    [24, 24, 32],
    [229, 72, 77],
    [247, 144, 54],
    [250, 208, 64],
    [150, 204, 74],
    [30, 150, 96],
    [64, 206, 216],
    [64, 116, 232],
    [142, 92, 224],
    [230, 112, 204],
    [170, 116, 76],
]
metainfo = dict(classes=classes, palette=palette)
train_pipeline = [
    dict(type="SeedTransforms"),
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(128, 128), ratio_range=(1.0, 1.25), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(128, 128)),
    dict(type="PackSegInputs"),
]
test_pipeline = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="ReplaySampler", infinite=True),
    dataset=dict(
        type="BaseSegDataset",
        data_root=data_root,
        metainfo=metainfo,
        img_suffix=".png",
        data_prefix=dict(img_path="images/train", seg_map_path="annotations/train"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=20,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="BaseSegDataset",
        data_root=data_root,
        metainfo=metainfo,
        img_suffix=".png",
        data_prefix=dict(img_path="images/val", seg_map_path="annotations/val"),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator
