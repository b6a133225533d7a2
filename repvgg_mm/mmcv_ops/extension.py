"""What ``import mmcv._ext`` gives where mmcv has no compiled one: every operator that torchvision can stand in for.

Python loads this file as the package ``mmcv._ext`` (see ``finder``), and the files beside it as its modules, so they
import each other relatively. While it is imported, mmcv asks for more than a hundred functions by ``hasattr``. All of
them exist here; those not served raise NotImplementedError when they are called, not before, so that a model which
never calls them runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import torchvision

from .deform_conv import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from .focal_loss import sigmoid_focal_loss_backward, sigmoid_focal_loss_forward
from .nms import nms, softnms
from .roi_align import roi_align_backward, roi_align_forward

__all__ = [
    "deform_conv_backward_input",
    "deform_conv_backward_parameters",
    "deform_conv_forward",
    "get_compiler_version",
    "get_compiling_cuda_version",
    "modulated_deform_conv_backward",
    "modulated_deform_conv_forward",
    "nms",
    "roi_align_backward",
    "roi_align_forward",
    "sigmoid_focal_loss_backward",
    "sigmoid_focal_loss_forward",
    "softnms",
]


def get_compiler_version() -> str:
    """Say where the operators come from; mmcv's ``collect_env`` writes it into the log of a run."""
    return f"none, operators served by torchvision {torchvision.__version__}"


def get_compiling_cuda_version() -> str:
    """Say the same as mmcv's own build without CUDA does."""
    return "not available"


def __getattr__(name: str) -> Callable[..., NoReturn]:
    """Return a function for an operator that is not served; calling it says how to get the compiled one.

    Args:
        name: The attribute that was not found above.

    Returns:
        A function that raises NotImplementedError.

    Raises:
        AttributeError: For names with a leading underscore. No operator has one, but Python and its tools probe for
            many (``__wrapped__``).
    """
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def not_served(*args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(
            f"mmcv operator {name!r} needs mmcv's compiled extension, and this mmcv has none (torchvision stands in "
            "for nms, soft_nms, roi_align, sigmoid_focal_loss and deformable convolution only): build mmcv from source "
            "with MMCV_WITH_OPS=1; from torch 2.14 on, first replace -std=c++17 by -std=c++20 in its setup.py"
        )

    return not_served
