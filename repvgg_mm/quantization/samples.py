"""The inputs that a network is looked at with."""

from collections.abc import Iterator
from typing import Any, Protocol


class Samples(Protocol):
    """Inputs of a network that can be looped over more than once, as arrays or CPU tensors: a list is one."""

    def __len__(self) -> int:
        """Count them."""

    def __iter__(self) -> Iterator[Any]:
        """Loop over them."""
