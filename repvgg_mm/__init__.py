"""RepVGG as a first-class OpenMMLab backbone; importing this registers everything."""

from importlib.util import find_spec as _find_spec
from typing import TYPE_CHECKING, Any

if _missing := [name for name in ("mmengine", "mmcv") if _find_spec(name) is None]:
    raise ImportError(
        f"repvgg_mm needs {' and '.join(_missing)}: pip install 'repvgg_mm[onedl]' (or 'repvgg_mm[openmmlab]')"
    )

from . import mmcv_ops as _mmcv_ops

_mmcv_ops.install()  # before anything below can import mmcv.ops

from . import data, engine  # noqa: F401 (registers)
from .models import CREATORS, ImageClassifier, RepVGG, RepVGGClassifier, RepVGGplusClassifier
from .reparam import RepVGGBlock, convert_state_dict, repvgg_model_convert, whole_model_convert

globals().update(CREATORS)  # create_RepVGG_A0 ... create_RepVGGplus_L2pse

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


__version__ = "0.1.0"
__all__ = [
    "ImageClassifier",
    "RepVGG",
    "RepVGGBlock",
    "RepVGGClassifier",
    "RepVGGplusClassifier",
    "convert_state_dict",
    "repvgg_model_convert",
    "whole_model_convert",
    *CREATORS,
]
