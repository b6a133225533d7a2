"""Training and testing: configs, processes, random numbers, metrics."""

from .metrics import TopKAccuracy
from .randomness import ReplaySampler, SeedTransforms

__all__ = ["ReplaySampler", "SeedTransforms", "TopKAccuracy"]
