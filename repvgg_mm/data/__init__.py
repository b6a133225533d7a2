"""Data: image classification from folders and tar shards; ``digits`` makes the demo data set from scikit-learn's."""

from .images import ImageFolder, collate_images
from .sampling import ReplaySampler, SeedTransforms
from .shard_sampling import ShardSampler
from .shards import ImageShards

__all__ = ["ImageFolder", "ImageShards", "ReplaySampler", "SeedTransforms", "ShardSampler", "collate_images"]
