"""Where the grids of rounded layers end: chosen from what passes through the layers of a model on images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .calibrators import entropy
from .fake_layers import candidates, rounded_layers
from .histogram import Histogram

Run = Callable[[], object]
"""Runs a model once, on some images."""


def layers_in_use(model: nn.Module, run: Run) -> list[str]:
    """Find the layers that can be rounded and that a model runs; what only training needs is left out.

    Args:
        model: any model.
        run: runs it.

    Returns:
        Their names.

    Raises:
        ValueError: if a batch normalisation runs that belongs to no layer, so that nothing would fix its statistics.
    """
    layers = dict(candidates(model))
    inside = {id(part) for layer in layers.values() for part in layer.modules()}
    others = {n: m for n, m in model.named_modules() if isinstance(m, _BatchNorm) and id(m) not in inside}
    seen: list[str] = []
    with _hooks({**layers, **others}, lambda name, x: seen.append(name)), _eval(model), torch.no_grad():
        run()
    stray = [name for name in seen if name in others]
    if stray:
        raise ValueError(
            f"{stray[0]} is batch normalisation outside of a ConvModule: it can't be folded before rounding"
        )
    return [name for name in layers if name in set(seen)]


def set_reaches(model: nn.Module, runs: Sequence[Run]) -> None:
    """Choose where the grid of each rounded layer's input ends, by the least divergence on images.

    By the least squared error a few large numbers would decide: deep in A0 all others came to lie within a step of 0.
    Layers that take the same feature map get the same grid.

    Args:
        model: with rounded layers.
        runs: each runs it on some images, the same in every loop.

    Raises:
        ValueError: if nothing but zeros came to a layer, or a number that is not finite; names it.
    """
    layers = rounded_layers(model)
    for layer in layers.values():
        layer.rounding = False
    try:
        with _eval(model), torch.no_grad():
            groups = _sharing(layers, runs[0])
            histograms = {group: Histogram() for group in set(groups.values())}

            def look(name: str, x: Tensor) -> None:
                try:
                    histograms[groups[name]].add(x.float())
                except ValueError as error:
                    raise ValueError(f"what comes to {name} {error}: look at the weights") from error

            with _hooks(layers, look):
                for run in runs:
                    run()
    finally:
        for layer in layers.values():
            layer.rounding = True
    for name, layer in layers.items():
        reach = entropy(histograms[groups[name]])
        if not reach > 0:
            raise ValueError(f"nothing but zeros came to {name}: calibrate with more images, or look at the weights")
        layer.input_end.fill_(reach)


def _sharing(layers: dict[str, Any], run: Run) -> dict[str, str]:
    """Name each layer's group: the first of all layers that are linked by a feature map."""
    group = {name: name for name in layers}
    takers: dict[int, str] = {}
    alive: list[Tensor] = []  # an id is that of one tensor as long as it lives

    def join(name: str, x: Tensor) -> None:
        alive.append(x)
        old, new = group[name], group[takers.setdefault(id(x), name)]
        group.update({each: new for each, its in group.items() if its == old})

    with _hooks(layers, join):
        run()
    return group


@contextmanager
def _hooks(modules: dict[str, Any], look: Callable[[str, Tensor], object]) -> Iterator[None]:
    """Show what goes into modules."""
    handles = [
        module.register_forward_pre_hook(lambda module, args, name=name: look(name, args[0]))
        for name, module in modules.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _eval(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
