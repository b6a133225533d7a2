"""Mixed precision where mmengine has none: on a CPU, in bfloat16."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from ..device import best_device, device_name, has_instructions_for


def say_if_slow(device: torch.device, dtype: torch.dtype) -> None:
    """Say in one line that a device has no instructions for a precision; does nothing where it has.

    Args:
        device: where the model computes.
        dtype: bfloat16 or float16.
    """
    if not has_instructions_for(dtype, device):
        name = str(dtype).removeprefix("torch.")
        print_log(
            f"{device_name(device)} has no instructions for {name}: it will be slower than float32", logger="current"
        )


@OPTIM_WRAPPERS.register_module(force=True)
class BFloat16OptimWrapper(OptimWrapper):
    """Run the model under autocast in bfloat16, on the device of its weights; these stay float32.

    mmengine's ``AmpOptimWrapper`` refuses to be built without a GPU. bfloat16 has the range of float32, so there is no
    loss scale, and every option of ``OptimWrapper`` means what it means there: gradient accumulation, clipping.

    Args:
        **kwargs: of ``OptimWrapper``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        say_if_slow(best_device(), torch.bfloat16)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Wrap the forward of an iteration.

        Args:
            model: the model, wrapped for several processes or not.

        Yields:
            Nothing.
        """
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield


_KINDS = (OptimWrapper, AmpOptimWrapper, BFloat16OptimWrapper)


def enable_amp(cfg: Config) -> None:
    """Train with automatic mixed precision, as mmseg's and mmdet's ``--amp`` does; without a GPU, in bfloat16.

    Args:
        cfg: the config, changed in place.

    Raises:
        ValueError: if the config has no optimizer wrapper, or one of a kind that has no AMP form, or one that, without
            a GPU, asks for another dtype.
    """
    wrapper = cfg.get("optim_wrapper")
    if not isinstance(wrapper, dict):
        raise ValueError("mixed precision needs optim_wrapper=dict(type='OptimWrapper', ...) in the config")
    named = wrapper.get("type", "OptimWrapper")
    kind = named.__name__ if named in _KINDS else str(named).removeprefix("mmengine.")
    if kind not in {known.__name__ for known in _KINDS}:
        raise ValueError(f"mixed precision works with optim_wrapper.type='OptimWrapper', not {named!r}")
    if torch.cuda.is_available():
        if kind != "BFloat16OptimWrapper":
            wrapper["type"] = "AmpOptimWrapper"
            wrapper.setdefault("loss_scale", "dynamic")
        return
    if wrapper.get("dtype", "bfloat16") != "bfloat16":
        raise ValueError(f"optim_wrapper.dtype={wrapper['dtype']!r} needs a GPU: a CPU's mixed precision is bfloat16")
    wrapper["type"] = "BFloat16OptimWrapper"
    for name in ("dtype", "loss_scale"):
        wrapper.pop(name, None)
