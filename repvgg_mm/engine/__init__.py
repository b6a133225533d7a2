"""Training and testing: configs, processes, random numbers, metrics."""

from .metrics import TopKAccuracy
from .randomness import ReplaySeedHook, seed_worker

__all__ = ["ReplaySeedHook", "TopKAccuracy", "seed_worker"]
