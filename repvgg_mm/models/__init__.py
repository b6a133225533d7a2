"""Architectures, backbone and classifiers."""

from ..archs import ARCHS, Arch
from .backbone import RepVGG
from .classifier import ImageClassifier
from .create import (
    CREATORS,
    RepVGGClassifier,
    RepVGGplusClassifier,
    create_RepVGGplus_by_name,
    func_dict,
    get_RepVGG_func_by_name,
)

__all__ = [
    "ARCHS",
    "CREATORS",
    "Arch",
    "ImageClassifier",
    "RepVGG",
    "RepVGGClassifier",
    "RepVGGplusClassifier",
    "create_RepVGGplus_by_name",
    "func_dict",
    "get_RepVGG_func_by_name",
]
