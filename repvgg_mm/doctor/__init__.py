"""What works on this machine: versions, operators, devices, room, a training step and a conversion."""

from .finding import Check, Finding
from .machine_checks import MACHINE_CHECKS
from .trial import TRIALS
from .versions import VERSION_CHECKS

CHECKS: tuple[Check, ...] = (*VERSION_CHECKS, *MACHINE_CHECKS, *TRIALS)

__all__ = ["CHECKS", "Check", "Finding"]
