# Single digits, 64 x 64 (tools/make_digits.py data/digits); $DIGITS or --cfg-options data_root=... says where.
data_root = "{{$DIGITS:data/digits}}/classification"
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="ReplaySampler"),
    dataset=dict(
        type="ImageFolder",
        data_root=data_root,
        split="train",
        transforms=[
            dict(type="RandomResizedCrop", size=64, scale=(0.6, 1.0)),
            dict(type="ColorJitter", brightness=0.4, contrast=0.4, saturation=0.4),
        ],
    ),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="ImageFolder", data_root=data_root, split="val", transforms=[dict(type="Resize", size=64)]),
)
test_dataloader = val_dataloader
