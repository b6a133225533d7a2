"""The demo: the whole mission on a small data set, in two acts, each of them commands that a user would type."""

from .act import Act, run_act
from .commands import StepFailed
from .detection import DETECTION
from .segmentation import SEGMENTATION

__all__ = ["DETECTION", "SEGMENTATION", "Act", "StepFailed", "run_act"]
