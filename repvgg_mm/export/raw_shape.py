"""The shapes that a network alone takes: one, or any number of images, or images of any size."""

from dataclasses import dataclass
from typing import Any

from torch.export import Dim

from .windows import LONGEST

SIDES = (288, 416)  # pixels; large enough that no map of a detector has a side of 1
_OTHER_SIDES = (352, 320)


@dataclass(frozen=True)
class RawShape:
    """What an exported network takes, (N, 3, H, W).

    Attributes:
        batch: least and largest number of images.
        size: height and width, pixels; None for any.
        divisor: of any height and width.
    """

    batch: tuple[int, int]
    size: tuple[int, int] | None
    divisor: int = 1

    @property
    def fixed(self) -> bool:
        """Whether it is one shape."""
        return self.size is not None and self.batch[0] == self.batch[1]

    @property
    def example(self) -> tuple[int, int, int, int]:
        """A shape to export with: for the exporter a side of 1 is a constant."""
        least, most = self.batch
        return most if least == most else max(least, 2), 3, *(self.size or self._multiple(SIDES))

    @property
    def other(self) -> tuple[int, int, int, int]:
        """Another shape to compare with, the same if there is one only."""
        return self.batch[0], 3, *(self.size or self._multiple(_OTHER_SIDES))

    def free(self) -> dict[int, Any] | None:
        """Return the sides that are free, as ``dynamic_shapes`` of ``torch.export`` has them."""
        axes: dict[int, Any] = {}
        if self.batch[0] != self.batch[1]:
            axes[0] = Dim("N", min=self.batch[0], max=self.batch[1])
        if self.size is None:
            axes |= {2: multiple_of(self.divisor, "h"), 3: multiple_of(self.divisor, "w")}
        return axes or None

    def for_trtexec(self, name: str) -> tuple[str, ...]:
        """Return the smallest shape, one to tune for, and the largest, as trtexec has them; none if it is fixed.

        Args:
            name: of the input.
        """
        if self.fixed:
            return ()
        least, most = self.batch
        sizes = [self.size or self._multiple(sides) for sides in ((64, 64), (512, 1024), (2048, 2048))]
        return tuple(f"{name}:{n}x3x{h}x{w}" for n, (h, w) in zip((least, most, most), sizes, strict=True))

    def __str__(self) -> str:
        """Say it in a few words."""
        batch = "batch {}".format(self.batch[0] if self.batch[0] == self.batch[1] else "{} to {}".format(*self.batch))
        if self.size is not None:
            return f"{batch}, {self.size[0]} x {self.size[1]}"
        return f"{batch}, any size" + (f" that is a multiple of {self.divisor}" if self.divisor > 1 else "")

    def _multiple(self, sides: tuple[int, int]) -> tuple[int, int]:
        height, width = (-(-side // self.divisor) * self.divisor for side in sides)
        return height, width


def multiple_of(divisor: int, name: str) -> Any:
    """Return a free side for ``torch.export``.

    Args:
        divisor: the side is a multiple of it.
        name: of the side.
    """
    if divisor > 1:
        return divisor * Dim(name, min=1, max=LONGEST // divisor)
    return Dim(name, min=33, max=LONGEST)
