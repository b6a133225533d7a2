"""RepVGG as a first-class OpenMMLab backbone; importing this registers everything that configs may name.

Importing it alone loads nothing heavy: the classes below are imported when one is first asked for, and configs' names
are registered as soon as mmengine, whose registries hold them, is there (`openmmlab.register_with_mmengine`).
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

from .config_files import config_file
from .mmcv_ops import finder as _finder
from .openmmlab import check_installed as _check_installed
from .openmmlab import register_with_mmengine as _register_with_mmengine

if TYPE_CHECKING:
    from .models import (
        ImageClassifier,
        RepVGG,
        RepVGGClassifier,
        RepVGGplusClassifier,
        create_RepVGGplus_by_name,
        func_dict,
        get_RepVGG_func_by_name,
    )
    from .reparam import RepVGGBlock, convert_state_dict, repvgg_model_convert, whole_model_convert

_finder.install()  # before anybody can import mmcv.ops
_register_with_mmengine()

__version__ = "0.2.0"
_ALGEBRA = ("RepVGGBlock", "convert_state_dict", "repvgg_model_convert", "whole_model_convert")  # need torch only
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
    "config_file",
    "convert_state_dict",
    "create_RepVGGplus_by_name",
    "func_dict",
    "get_RepVGG_func_by_name",
    "repvgg_model_convert",
    "whole_model_convert",
    *_CREATORS,
]


def __getattr__(name: str) -> Any:
    """Import what is public when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _ALGEBRA:
        return getattr(_import_module(f"{__name__}.reparam"), name)
    _check_installed()
    models = _import_module(f"{__name__}.models")
    return models.CREATORS[name] if name in models.CREATORS else getattr(models, name)


def __dir__() -> list[str]:
    """List the names that are imported later as well."""
    return sorted({*globals(), *__all__})
