# tools/dist_train.sh configs/repvgg_a0_imagenet_shards.py 8
# RepVGG-A0 on ImageNet-1K in tar shards (repvgg-mm make-shards), read from a folder or, with
# IMAGENET_SHARDS=https://... or s3://..., copied to SHARD_CACHE once on each machine: it needs room for all of them.
# Recipe: RepVGG paper, section 4.1 (arXiv:2101.03697), and the authors' README.
# Not trained here (needs ImageNet and GPUs).
_base_ = "_base_/imagenet_120e.py"
model = dict(backbone=dict(arch="A0"))
shards = dict(
    _delete_=True,
    type="ImageShards",
    data_root="{{$IMAGENET_SHARDS:data/imagenet_shards}}",
    cache_dir="{{$SHARD_CACHE:data/shard_cache}}",
)
train_dataloader = dict(
    sampler=dict(type="ShardSampler"),
    dataset=dict(
        split="train",
        transforms=[dict(type="RandomResizedCrop", size=224), dict(type="RandomHorizontalFlip")],
        **shards,
    ),
)
val_dataloader = dict(
    dataset=dict(
        split="val",
        classes="train",
        transforms=[dict(type="Resize", size=256), dict(type="CenterCrop", size=224)],
        **shards,
    ),
)
del shards
test_dataloader = val_dataloader
