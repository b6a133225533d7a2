"""Data: the demo data set of handwritten digits on photos, made from what scikit-learn ships."""

from .digits import make_digits
from .images import ImageFolder
from .scenes import CLASSES, PALETTE

__all__ = ["CLASSES", "PALETTE", "ImageFolder", "make_digits"]
