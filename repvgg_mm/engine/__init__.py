"""Training and testing: configs, processes, random numbers, metrics."""

from .metrics import TopKAccuracy
from .randomness import ReplaySampler, ReplaySeedHook, SeedTransforms

__all__ = ["ReplaySampler", "ReplaySeedHook", "SeedTransforms", "TopKAccuracy"]
