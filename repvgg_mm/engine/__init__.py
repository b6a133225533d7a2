"""Training and testing: configs, processes, random numbers, metrics."""

from .metrics import TopKAccuracy
from .randomness import ReplaySampler, ReplaySeedHook, SeedTransforms
from .weight_decay import RepVGGOptimWrapperConstructor

__all__ = [
    "RepVGGOptimWrapperConstructor",
    "ReplaySampler",
    "ReplaySeedHook",
    "SeedTransforms",
    "TopKAccuracy",
]
