"""Where the grids of rounded layers end: chosen from what passes through the layers of a model on images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from .calibration import JUDGES
from .calibrators import CALIBRATORS
from .fake_layers import candidates, rounded_layers
from .histogram import Histogram
from .noise_ratio import compare

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


def set_reaches(model: nn.Module, runs: Sequence[Run]) -> str:
    """Choose where the grid of each rounded layer's input ends, by the calibrator that leaves least noise.

    What counts is the mean of the noise in decibels of what the layers make: each of them tells as much as another, so
    that a second stage, which looks at other proposals as soon as one number differs, does not decide. Layers that take
    the same feature map get the same grid.

    Args:
        model: with rounded layers.
        runs: each runs it on some images, the same in every loop.

    Returns:
        The calibrator.

    Raises:
        ValueError: if nothing but zeros came to a layer, or a number that is not finite; names it.
    """
    layers = rounded_layers(model)
    groups, histograms = _observe(model, layers, runs)
    for name, group in groups.items():
        if not histograms[group].peak > 0:
            raise ValueError(f"nothing but zeros came to {name}: calibrate with more images, or look at the weights")
    found = {
        name: {group: choose(seen, 8) for group, seen in histograms.items()} for name, choose in CALIBRATORS.items()
    }
    judges = runs[:: -(-len(runs) // JUDGES)]
    noises = {}
    for calibrator, ends in found.items():
        _end(layers, groups, ends)
        noises[calibrator] = _mean_noise(model, layers, judges)
    best = min(noises, key=lambda name: noises[name])
    _end(layers, groups, found[best])
    return best


def _observe(
    model: nn.Module, layers: dict[str, Any], runs: Sequence[Run]
) -> tuple[dict[str, str], dict[str, Histogram]]:
    """Return each layer's group, by the feature map that it takes, and each group's histogram, without rounding."""
    with _eval(model), _plain(layers), torch.no_grad():
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
    return groups, histograms


def _end(layers: dict[str, Any], groups: dict[str, str], ends: dict[str, float]) -> None:
    for name, layer in layers.items():
        layer.input_end.fill_(ends[groups[name]])


def _mean_noise(model: nn.Module, layers: dict[str, Any], runs: Sequence[Run]) -> float:
    """Return the mean over the layers of the noise of what they make, in decibels: less is better."""

    def wanted() -> Iterator[dict[str, Tensor]]:
        for run in runs:
            with _plain(layers):
                made = _made(layers, run)
            yield made

    with _eval(model), torch.no_grad():
        noises = compare(wanted(), (_made(layers, run) for run in runs))
    told = [noise.decibels for noise in noises.values() if noise.signal]
    return -sum(told) / max(len(told), 1)


def _made(layers: dict[str, Any], run: Run) -> dict[str, Tensor]:
    """Return all numbers that each layer makes, in one row: a head's, of all levels; none where it does not run."""
    found: dict[str, list[Tensor]] = {name: [] for name in layers}
    with _hooks(layers, lambda name, x: found[name].append(x.flatten().clone()), behind=True):
        run()  # what follows a layer may work in place
    return {name: torch.cat(parts) if parts else torch.empty(0) for name, parts in found.items()}


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
def _hooks(modules: dict[str, Any], look: Callable[[str, Tensor], None], behind: bool = False) -> Iterator[None]:
    """Show what goes into modules, or what they make."""

    def hook(name: str, module: nn.Module) -> RemovableHandle:
        if behind:
            return module.register_forward_hook(lambda _, args, made: look(name, made))
        return module.register_forward_pre_hook(lambda _, args: look(name, args[0]))

    handles = [hook(name, module) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _plain(layers: dict[str, Any]) -> Iterator[None]:
    """Let the layers compute as they were built."""
    for layer in layers.values():
        layer.rounding = False
    try:
        yield
    finally:
        for layer in layers.values():
            layer.rounding = True


@contextmanager
def _eval(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
