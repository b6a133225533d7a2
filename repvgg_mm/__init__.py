"""RepVGG as a first-class OpenMMLab backbone; importing this registers everything that configs may name."""

from importlib.util import find_spec as _find_spec
from typing import TYPE_CHECKING, Any

if _missing := [name for name in ("mmengine", "mmcv") if _find_spec(name) is None]:
    raise ImportError(
        f"repvgg_mm needs {' and '.join(_missing)}: pip install 'repvgg_mm[onedl]' (or 'repvgg_mm[openmmlab]')"
    )

from . import mmcv_ops as _mmcv_ops

_mmcv_ops.install()  # before anything below can import mmcv.ops

from . import registration  # noqa: F401
from .reparam import RepVGGBlock, convert_state_dict, repvgg_model_convert, whole_model_convert

if TYPE_CHECKING:
    from .models import ImageClassifier, RepVGG, RepVGGClassifier, RepVGGplusClassifier

__version__ = "0.1.0"
_CREATORS = [
    *("create_RepVGG_A0", "create_RepVGG_A1", "create_RepVGG_A2"),
    *("create_RepVGG_B0", "create_RepVGG_B1", "create_RepVGG_B1g2", "create_RepVGG_B1g4"),
    *("create_RepVGG_B2", "create_RepVGG_B2g2", "create_RepVGG_B2g4"),
    *("create_RepVGG_B3", "create_RepVGG_B3g2", "create_RepVGG_B3g4"),
    *("create_RepVGG_D2se", "create_RepVGGplus_L2pse"),
]
__all__ = [
    "ImageClassifier",
    "RepVGG",
    "RepVGGBlock",
    "RepVGGClassifier",
    "RepVGGplusClassifier",
    "convert_state_dict",
    "repvgg_model_convert",
    "whole_model_convert",
    *_CREATORS,
]


def __getattr__(name: str) -> Any:
    """Import the models when one is first asked for: they need ``mmengine.model``, see ``registration.py``."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import models

    return models.CREATORS[name] if name in models.CREATORS else getattr(models, name)


def __dir__() -> list[str]:
    """List the names that are imported later as well."""
    return sorted({*globals(), *__all__})
