"""From the image that an application has to the input of the network: the test pipeline of a config, as a graph.

Sizes are computed in whole numbers, so that they come out as in the libraries, and by tensors: the exporter takes each
for a number of its own, instead of carrying formulas of H and W through all that follows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..names import type_name
from .opencv_resize import resize_bytes
from .pillow_resize import resize_averaging
from .raw_shape import SIDES
from .whole_numbers import divide
from .windows import LONGEST, Windows, whole

_LOADING = ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs", "PackDetInputs")
_LONGEST_RESIZED = 2**19  # pixels, by a short side; see `Preparation.limits`


@dataclass(frozen=True)
class Preparation:
    """What is done to an image before the network sees it.

    Attributes:
        channels: ``'RGB'`` or ``'BGR'``, the order that the network was trained with.
        mean: of each channel in that order, pixel values of 0 to 255.
        std: of each channel.
        resize: None; ``('fit', long, short)``: as large as fits, keeping the ratio; ``('to', height, width)``; or
            ``('short', side)``: the shorter side, keeping the ratio.
        antialias: whether shrinking averages, as Pillow does it and OpenCV does not.
        crop: height and width of the middle that is kept, or None.
        divisor: height and width are filled up with zeros to multiples of it.
        windows: how the image is cut in slide mode, or None.
    """

    channels: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: tuple[Any, ...] | None = None
    antialias: bool = False
    crop: tuple[int, int] | None = None
    divisor: int = 1
    windows: Windows | None = None

    @property
    def fixed(self) -> bool:
        """Whether images of all sizes come out with one."""
        return self.crop is not None or (self.resize is not None and self.resize[0] == "to")

    @property
    def limits(self) -> dict[str, int]:
        """What an image may have: pixels of its ``longest`` side; its square over the shorter side, ``narrowest``.

        Resized to a short side, a narrow image becomes long: weights of each old pixel for each new one would fill the
        memory, and their whole numbers the 31 bits that OpenVINO has.
        """
        if self.resize is None or self.resize[0] != "short":
            return {"longest": LONGEST}
        return {"longest": LONGEST, "narrowest": (2**28 if self.crop else 2**26) // self.resize[1]}

    def describe(self) -> dict[str, Any]:
        """Return the same as plain data, for the file's metadata."""
        return asdict(self)


def read_preparation(cfg: Mapping[str, Any]) -> Preparation:
    """Read the test pipeline and the data preprocessor of a config.

    Args:
        cfg: config with ``model`` and ``test_dataloader``.

    Returns:
        The preparation.

    Raises:
        ValueError: if there is no test pipeline, or a step of it can't be exported; names it.
    """
    given = cfg["model"].get("data_preprocessor") or {}
    dataset = (cfg.get("test_dataloader") or {}).get("dataset") or {}
    loaded_as_bgr = "pipeline" in dataset  # by mmcv; torchvision's images are RGB
    swapped = bool(given.get("bgr_to_rgb") or given.get("rgb_to_bgr"))
    shared: dict[str, Any] = {
        "channels": "BGR" if loaded_as_bgr != swapped else "RGB",
        "mean": tuple(given.get("mean") or (0.0, 0.0, 0.0)),
        "std": tuple(given.get("std") or (1.0, 1.0, 1.0)),
        "divisor": read_divisor(cfg["model"]),
        "windows": _read_windows(cfg["model"].get("test_cfg") or {}),
    }
    if (given.get("test_cfg") or {}).get("size"):
        raise ValueError(
            f"data_preprocessor.test_cfg={given['test_cfg']!r} fills images up to one size: export the network alone"
        )
    if "transforms" in dataset:
        return Preparation(**shared, **_read_transforms(dataset["transforms"]))
    if "pipeline" not in dataset:
        raise ValueError("the config has no test_dataloader.dataset with a pipeline")
    return Preparation(**shared, resize=_read_pipeline(dataset["pipeline"]))


def read_divisor(model: Mapping[str, Any]) -> int:
    """Return what the data preprocessor of a model's config fills heights and widths up to multiples of."""
    given = model.get("data_preprocessor") or {}
    return int((given.get("test_cfg") or {}).get("size_divisor") or given.get("pad_size_divisor") or 1)


def _read_windows(given: Mapping[str, Any]) -> Windows | None:
    return Windows(*given["crop_size"], *given["stride"]) if given.get("mode") == "slide" else None


def _read_pipeline(steps: Sequence[Mapping[str, Any]]) -> tuple[Any, ...] | None:
    resize: tuple[Any, ...] | None = None
    for step in steps:
        kind = type_name(step)
        if kind == "Resize" and resize is None and isinstance(step.get("scale"), (tuple, list)):
            width, height = step["scale"]
            kept = step.get("keep_ratio", False)
            resize = ("fit", max(width, height), min(width, height)) if kept else ("to", height, width)
        elif kind not in _LOADING:
            raise ValueError(f"test pipeline: {dict(step)!r} can't be exported: export the network alone")
    return resize


def _read_transforms(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"antialias": True}
    for step in steps:
        kind, size = step.get("type"), step.get("size")
        pair = (size, size) if isinstance(size, int) else tuple(size or ())
        if kind == "Resize" and not found.keys() & {"resize", "crop"} and set(step) == {"type", "size"}:
            found["resize"] = ("short", size) if isinstance(size, int) else ("to", *pair)
        elif kind == "CenterCrop" and "crop" not in found and _covers(found.get("resize"), pair):
            found["crop"] = pair
        else:
            raise ValueError(f"test transforms: {dict(step)!r} can't be exported: export the network alone")
    return found


def _covers(resize: tuple[Any, ...] | None, crop: tuple[int, int]) -> bool:
    """Whether images that were resized are as large as the middle to cut out; torchvision fills smaller ones up."""
    if resize is None:
        return False
    least = (resize[1], resize[1]) if resize[0] == "short" else resize[1:]
    return least[0] >= crop[0] and least[1] >= crop[1]


class Prepare(nn.Module):
    """The preparation as a graph.

    Args:
        how: what to do.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, how: Preparation) -> None:
        super().__init__()
        self.how = how
        self.register_buffer("mean", torch.tensor(how.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(how.std)[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Prepare one image.

        Args:
            image: uint8, RGB, shape (H, W, 3).

        Returns:
            The network's input, shape (1, 3, H', W'), or (n, 3, h, w) in slide mode; and numbers for decoding, int64:
            H, W, and height and width before filling up; in slide mode top and left of each window behind them.
        """
        height, width = image.shape[0], image.shape[1]
        new_height, new_width = self._new_size(height, width)
        if self.how.resize is None:
            x = image.permute(2, 0, 1)[None].float()
        elif self.how.antialias:
            x = resize_averaging(image, new_height, new_width, self.how.crop)[None]
        else:
            x = resize_bytes(image, new_height, new_width)[None]
        new_height, new_width = self.how.crop or (new_height, new_width)
        if self.how.channels == "BGR":
            x = x.flip(1)
        x = (x - self.mean) / self.std
        divisor = self.how.divisor
        if divisor > 1:
            below, right = -new_height % divisor, -new_width % divisor
            x = F.pad(x, (0, right, 0, below))
        sides = (height, width, new_height, new_width)
        sizes = torch.stack([torch.scalar_tensor(side, dtype=torch.int64) for side in sides])
        if self.how.windows is None:
            return x, sizes
        x, places = self.how.windows.cut(x)
        return x, torch.cat([sizes, places.flatten()])

    def example(self) -> Tensor:
        """Return an input of the network: large enough that no map of it has a side of 1, small enough to be quick."""
        if self.how.fixed:
            return self(torch.zeros(75, 103, 3, dtype=torch.uint8))[0]
        height, width = (-(-side // self.how.divisor) * self.how.divisor for side in SIDES)
        return torch.zeros(1 if self.how.windows is None else 2, 3, height, width)

    def _new_size(self, height: int, width: int) -> tuple[int, int]:
        sides = torch.stack([torch.scalar_tensor(side, dtype=torch.int64) for side in (height, width)])
        match self.how.resize:
            case ("fit", long, short):  # the smaller of two factors, and halves rounded up
                longest, shortest = sides.max(), sides.min()
                by_long, _ = divide(2 * sides * long + longest, 2 * longest)
                by_short, _ = divide(2 * sides * short + shortest, 2 * shortest)
                new = torch.minimum(by_long, by_short).clamp(min=1)  # the libraries fail where a side gets 0
                return whole(new[0]), whole(new[1])
            case ("short", side):
                new, _ = divide(side * sides, sides.min())
                return whole(new[0], _LONGEST_RESIZED), whole(new[1], _LONGEST_RESIZED)
            case ("to", new_height, new_width):
                return new_height, new_width
            case _:
                return height, width
