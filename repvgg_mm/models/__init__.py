"""Architectures, backbone and classifiers."""

from ..archs import ARCHS, Arch
from .backbone import RepVGG
from .classifier import ImageClassifier
from .create import CREATORS, RepVGGClassifier
from .plus import RepVGGplusClassifier

__all__ = ["ARCHS", "CREATORS", "Arch", "ImageClassifier", "RepVGG", "RepVGGClassifier", "RepVGGplusClassifier"]
