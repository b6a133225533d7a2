"""Data: image classification from folders; ``digits`` makes the demo data set from what scikit-learn ships."""

from .images import ImageFolder, collate_images
from .sampling import ReplaySampler, SeedTransforms

__all__ = ["ImageFolder", "ReplaySampler", "SeedTransforms", "collate_images"]
