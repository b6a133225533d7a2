# Photos of playing cards, 296 / 67 of 270 x 480, six ranks; $PLAYING_CARDS or --cfg-options data_root=... says where.
data_root = "{{$PLAYING_CARDS:data/playing_cards}}"
classes = ("ace", "jack", "king", "nine", "queen", "ten")
palette = [(220, 20, 60), (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233)]
metainfo = dict(classes=classes, palette=palette)
train_pipeline = [
    dict(type="SeedTransforms"),
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomResize", scale=(320, 240), ratio_range=(0.8, 1.5), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(320, 192), allow_negative_crop=True),
    dict(type="RandomFlip", prob=0.5, direction="diagonal"),  # half a turn: letters are not mirrored
    dict(type="PhotoMetricDistortion"),
    dict(type="Pad", size=(320, 192)),  # one shape for all batches
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(320, 240), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackDetInputs"),
]
tta_meta = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")
tta_model = dict(type="DetTTAModel", tta_cfg=dict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=100))
tta_pipeline = [  # test --tta: each image as it is and turned by half
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="Resize", scale=(320, 240), keep_ratio=True)],
            [dict(type="RandomFlip", prob=prob, direction="diagonal") for prob in (0.0, 1.0)],
            [dict(type="LoadAnnotations", with_bbox=True)],
            [dict(type="PackDetInputs", meta_keys=tta_meta)],
        ],
    ),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="ReplaySampler"),
    dataset=dict(
        type="CocoDataset",
        data_root=data_root,
        metainfo=metainfo,
        ann_file="annotations/train.json",
        data_prefix=dict(img="images/train"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=2,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CocoDataset",
        data_root=data_root,
        metainfo=metainfo,
        ann_file="annotations/test.json",
        data_prefix=dict(img="images/test"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="CocoMetric", ann_file=data_root + "/annotations/test.json", metric="bbox")
test_evaluator = val_evaluator
