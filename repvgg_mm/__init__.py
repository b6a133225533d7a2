"""RepVGG as a first-class OpenMMLab backbone; importing this registers everything."""

from typing import TYPE_CHECKING, Any

try:
    import mmengine as _mmengine  # noqa: F401
except ImportError as error:
    raise ImportError(
        "repvgg_mm needs the OpenMMLab packages: pip install 'repvgg_mm[onedl]' (or 'repvgg_mm[openmmlab]')"
    ) from error

from . import mmcv_ops as _mmcv_ops

_mmcv_ops.install()  # before anything below can import mmcv.ops

from . import data, engine  # noqa: F401 (registers)
from .models import CREATORS, ImageClassifier, RepVGG, RepVGGClassifier
from .reparam import RepVGGBlock, convert_state_dict, repvgg_model_convert, whole_model_convert

globals().update(CREATORS)  # create_RepVGG_A0 ... create_RepVGG_D2se

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


__version__ = "0.1.0"
__all__ = [
    "ImageClassifier",
    "RepVGG",
    "RepVGGBlock",
    "RepVGGClassifier",
    "convert_state_dict",
    "repvgg_model_convert",
    "whole_model_convert",
    *CREATORS,
]
