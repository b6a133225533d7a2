# ImageNet-1K, 1,281,167 / 50,000 images, one folder a class in train/ and val/; $IMAGENET or --cfg-options data_root=
# says where. A flat val/ with a list of lines 'name index': --cfg-options val_dataloader.dataset.ann_file=val.txt
# test_dataloader.dataset.ann_file=val.txt. Leave unreadable files out: train_dataloader.dataset.broken=skip. Test at
# another size: test_dataloader.dataset.transforms.0.size=320 test_dataloader.dataset.transforms.1.size=320.
_base_ = "cls_runtime.py"
data_root = "{{$IMAGENET:data/imagenet}}"
model = dict(
    type="ImageClassifier",
    num_classes=1000,
    data_preprocessor=dict(type="ImgDataPreprocessor", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(type="RepVGG"),
)
workers = dict(num_workers=8, persistent_workers=True, pin_memory=True, collate_fn=dict(type="collate_images"))
train_dataloader = dict(
    batch_size=32,  # on each of 8 GPUs
    sampler=dict(type="ReplaySampler"),
    dataset=dict(
        type="ImageFolder",
        data_root=data_root,
        split="train",
        transforms=[dict(type="RandomResizedCrop", size=224), dict(type="RandomHorizontalFlip")],
    ),
    **workers,
)
val_dataloader = dict(
    batch_size=64,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="ImageFolder",
        data_root=data_root,
        split="val",
        classes="train",  # the same classes in the same order, or an error
        transforms=[dict(type="Resize", size=256), dict(type="CenterCrop", size=224)],
    ),
    **workers,
)
del workers
test_dataloader = val_dataloader
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
