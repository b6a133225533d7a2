"""Data: image classification from folders; ``digits`` makes the demo data set from what scikit-learn ships."""

from .images import ImageFolder, collate_images

__all__ = ["ImageFolder", "collate_images"]
