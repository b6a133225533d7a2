"""The authors' functions: classifiers whose state-dict names are those of the published checkpoints.

Source: github.com/DingXiaoH/RepVGG (MIT licence), ``repvgg.py`` and ``repvggplus.py``, for names and signatures.
"""

import difflib
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..archs import ARCHS
from .backbone import RepVGG
from .plus import AUX_PARTS, add_auxiliary_heads, auxiliary_logits


class RepVGGClassifier(RepVGG):
    """RepVGG with global average pooling and one linear layer, named as in the authors' checkpoints.

    A RepVGGplus has auxiliary heads as well, in training form.

    Args:
        arch: see ``RepVGG``.
        num_classes: number of classes K.
        deploy: build the deployed form.
        **kwargs: further arguments of ``RepVGG``.

    Source:
        Paper, section 3.4.

    Example:
        >>> import torch
        >>> from repvgg_mm import RepVGGClassifier
        >>> RepVGGClassifier("A0", num_classes=10)(torch.rand(2, 3, 64, 96)).shape
        torch.Size([2, 10])
    """

    def __init__(self, arch: Any, num_classes: int = 1000, deploy: bool = False, **kwargs: Any) -> None:
        super().__init__(arch, out_indices=(3,), deploy=deploy, **kwargs)
        self.linear = nn.Linear(self.arch.stage_channels[-1], num_classes)
        if self.arch.plus and not deploy:
            add_auxiliary_heads(self, self.arch, num_classes)

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:  # type: ignore[override]
        """Classify images.

        Args:
            x: images, shape (N, in_channels, H, W).

        Returns:
            Logits (N, K); while the auxiliary heads of a RepVGGplus train, a dict of logits under ``'main'``,
            ``'stage1_aux'``, ``'stage2_aux'`` and ``'stage3_first_aux'``, as from the authors' model.
        """
        maps = self.forward_parts(x, [*AUX_PARTS, "stage4"] if self.training else ["stage4"])
        main = self.linear(maps["stage4"].mean(dim=(2, 3)))
        auxiliary = auxiliary_logits(self, maps) if self.training else {}
        return {"main": main, **auxiliary} if auxiliary else main

    def switch_repvggplus_to_deploy(self) -> None:
        """Turn the model into its deployed form, without auxiliary heads, in place: the authors' name for it."""
        self.switch_to_deploy()


RepVGGplusClassifier = RepVGGClassifier
"""Another name of it: the architecture alone makes the difference."""


def _creator(arch: str, name: str) -> Callable[..., RepVGGClassifier]:
    def create(deploy: bool = False, use_checkpoint: bool = False, num_classes: int = 1000) -> RepVGGClassifier:
        return RepVGGClassifier(arch, num_classes, deploy, with_cp=use_checkpoint)

    create.__name__ = create.__qualname__ = f"create_{name.replace('-', '_')}"
    create.__doc__ = f"""Build the {name} classifier, as the authors' function of this name does.

    Args:
        deploy: build the deployed form.
        use_checkpoint: recompute each block in the backward pass, to save memory.
        num_classes: number of classes K of the linear layer, and of the auxiliary heads if there are any.

    Returns:
        Model from images (N, 3, H, W) to logits (N, K), randomly initialised; see ``RepVGGClassifier``.
    """
    return create


_NAMES = {f"RepVGG{'' if arch.plus else '-'}{name}": name for name, arch in ARCHS.items()}
_BY_NAME = {name: _creator(arch, name) for name, arch in _NAMES.items()}

CREATORS: dict[str, Callable[..., RepVGGClassifier]] = {create.__name__: create for create in _BY_NAME.values()}

func_dict = {name: create for name, create in _BY_NAME.items() if not name.startswith("RepVGGplus")}
"""``'RepVGG-A0'`` -> ``create_RepVGG_A0``, and so on; as the authors have it, without RepVGGplus."""


def get_RepVGG_func_by_name(name: str) -> Callable[..., RepVGGClassifier]:
    """Return the function that builds a classifier, as the authors' function of this name does.

    Args:
        name: ``'RepVGG-A0'`` ... ``'RepVGG-D2se'``.

    Returns:
        ``create_RepVGG_A0`` ...

    Raises:
        ValueError: if there is no such name; the message has the nearest one.

    Example:
        >>> from repvgg_mm import get_RepVGG_func_by_name
        >>> model = get_RepVGG_func_by_name("RepVGG-A0")(deploy=True)
        >>> model.stage0.rbr_reparam
        Conv2d(3, 48, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))
    """
    return _look_up(name, func_dict)


def create_RepVGGplus_by_name(name: str, deploy: bool = False, use_checkpoint: bool = False) -> RepVGGClassifier:
    """Build a classifier, RepVGGplus or plain, as the authors' function of this name does.

    Args:
        name: ``'RepVGGplus-L2pse'``, ``'RepVGG-A0'`` ... ``'RepVGG-D2se'``.
        deploy: build the deployed form.
        use_checkpoint: recompute each block in the backward pass, to save memory.

    Returns:
        Model from images (N, 3, H, W) to logits (N, 1000), randomly initialised.

    Raises:
        ValueError: if there is no such name; the message has the nearest one.

    Example:
        >>> from repvgg_mm import create_RepVGGplus_by_name
        >>> create_RepVGGplus_by_name("RepVGG-A3")
        Traceback (most recent call last):
        ValueError: no RepVGG named 'RepVGG-A3'; the nearest name is 'RepVGG-B3', ...
    """
    return _look_up(name, _BY_NAME)(deploy, use_checkpoint)


def _look_up(name: str, creators: dict[str, Callable[..., RepVGGClassifier]]) -> Callable[..., RepVGGClassifier]:
    if name not in creators:
        nearest = difflib.get_close_matches(name, creators, n=1, cutoff=0)[0]
        raise ValueError(f"no RepVGG named {name!r}; the nearest name is {nearest!r}, all are {', '.join(creators)}")
    return creators[name]
