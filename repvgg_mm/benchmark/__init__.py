"""What tools/benchmark.py measures: RepVGG in all forms against its peers and against the machine itself."""

from .results import Result, Spread

__all__ = ["Result", "Spread"]
