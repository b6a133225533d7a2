"""Training and testing: configs, processes, checks, metrics."""

from .metrics import TopKAccuracy

__all__ = ["TopKAccuracy"]
