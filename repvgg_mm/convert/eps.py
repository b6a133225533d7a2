"""Which eps a conversion takes: what batch normalisation adds to the variance, which no state dict holds.

A wrong one changes outputs by as much as a third where variances are small, and nothing in the weights tells.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..names import type_name

DEFAULT_EPS = 1e-5  # torch.nn.BatchNorm2d's, which the authors, mmpretrain and timm leave as it is

# Code bases whose models set another one, by names that only theirs have. YOLOv6 (github.com/meituan/YOLOv6): its
# EfficientRep names its stages so (yolov6/models/efficientrep.py), and every BatchNorm2d of a model gets this eps
# (yolov6/utils/torch_utils.py, initialize_weights).
_KNOWN = (("YOLOv6", re.compile(r"(?:^|\.)ERBlock_\d+\."), 1e-3),)


def choose_eps(
    given: float | None, of_model: float | None, keys: Iterable[str], cfg: Mapping[str, Any] | None
) -> tuple[float, str | None]:
    """Choose the eps for the weights of one file.

    Args:
        given: what the user says.
        of_model: that of the model that the weights were loaded into, where one could be built.
        keys: names of the weights.
        cfg: config of the model as plain data, where there is one.

    Returns:
        The eps, and a line for the user where neither he nor a config says it.

    Raises:
        ValueError: if the user and the config say different things.
    """
    known = _eps_of_config(cfg) if of_model is None else of_model
    if given is not None and known is not None and given != known:
        raise ValueError(f"eps={given}, but the batch normalisations of the config's model have eps={known}")
    if given is not None or known is not None:
        return (given if given is not None else known), None  # type: ignore[return-value]
    keys = list(keys)
    for name, pattern, eps in _KNOWN:
        if any(pattern.search(key) for key in keys):
            return eps, f"eps={eps}: named as in {name}, which has this one"
    return DEFAULT_EPS, f"eps={DEFAULT_EPS} is assumed, PyTorch's own, as no weights hold it: give eps if it is another"


def _eps_of_config(cfg: Mapping[str, Any] | None) -> float | None:
    """Read the eps of a config that can't be built here; None if it says nothing, or different things."""
    found = {backbone.get("norm_cfg", {}).get("eps", DEFAULT_EPS) for backbone in _backbones(cfg)}
    return found.pop() if len(found) == 1 else None


def _backbones(value: object) -> Iterator[Mapping[str, Any]]:
    """Find every RepVGG in a config."""
    if isinstance(value, Mapping):
        if type_name(value) in ("RepVGG", "RepVGGplus"):
            yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _backbones(item)
