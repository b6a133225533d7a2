# Digit scenes, 128 x 128, boxes and masks (tools/make_digits.py data/digits); $DIGITS or --cfg-options data_root=...
data_root = "{{$DIGITS:data/digits}}"
classes = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
palette = [
    (229, 72, 77),
    (247, 144, 54),
    (250, 208, 64),
    (150, 204, 74),
    (30, 150, 96),
    (64, 206, 216),
    (64, 116, 232),
    (142, 92, 224),
    (230, 112, 204),
    (170, 116, 76),
]
metainfo = dict(classes=classes, palette=palette)
train_pipeline = [
    dict(type="SeedTransforms"),
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomResize", scale=(128, 128), ratio_range=(1.0, 1.25), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(128, 128), allow_negative_crop=True),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(128, 128), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="PackDetInputs"),
]
tta_meta = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")
tta_model = dict(type="DetTTAModel", tta_cfg=dict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=100))
tta_pipeline = [  # test --tta: each image as it is and mirrored
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="Resize", scale=(128, 128), keep_ratio=True)],
            [dict(type="RandomFlip", prob=prob) for prob in (0.0, 1.0)],
            [dict(type="LoadAnnotations", with_bbox=True)],
            [dict(type="PackDetInputs", meta_keys=tta_meta)],
        ],
    ),
]
train_dataloader = dict(
    batch_size=4,  # for each of two processes
    num_workers=0,
    sampler=dict(type="ReplaySampler"),
    dataset=dict(
        type="CocoDataset",
        data_root=data_root,
        metainfo=metainfo,
        ann_file="detection/train.json",
        data_prefix=dict(img="segmentation/images/train"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=20,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CocoDataset",
        data_root=data_root,
        metainfo=metainfo,
        ann_file="detection/val.json",
        data_prefix=dict(img="segmentation/images/val"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="CocoMetric", ann_file=data_root + "/detection/val.json", metric="bbox")
test_evaluator = val_evaluator
