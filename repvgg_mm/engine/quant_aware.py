"""Training with rounded numbers, added to a finished training by its config."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..checkpoint.errors import CheckpointError
from ..data.data_error import DataError
from ..data.sampling import Draw, mix_seed
from ..quantization.fake_layers import round_layers, rounded_layers
from ..quantization.fake_ranges import layers_in_use, set_reaches
from .across_processes import bare_model


@HOOKS.register_module(force=True)
class QuantAwareTraining(Hook):
    """Train with the integers that the exported file will compute with.

    Every convolution and linear layer that the model runs when it predicts takes its input and its kernel in 8 bits, a
    RepVGG block its equivalent kernel; gradients go into the three branches as if nothing was rounded. The statistics
    of these layers are fixed. The ranges of their inputs are chosen before the first iteration, from training images,
    and stay; they are buffers of the model, so checkpoints hold them, and testing and exporting one finds them.

    Args:
        images: how many training images the ranges are chosen from.

    Raises:
        ValueError: if ``images`` is not a whole number above 0.
    """

    priority = "VERY_HIGH"  # before EMAHook copies the model

    def __init__(self, images: int = 64) -> None:
        if isinstance(images, bool) or not isinstance(images, int) or images < 1:
            raise ValueError(f"images={images!r} must be a whole number, 1 or more")
        self.images = images

    def before_run(self, runner: Runner) -> None:
        """Change the layers, before the weights are loaded; does nothing for a test."""
        if not isinstance(runner.optim_wrapper, OptimWrapper):
            return
        model = bare_model(runner)
        with _random_state_kept(), _refusing():
            names = layers_in_use(model, self._runs(runner, model)[0])
        round_layers(model, names)
        runner.logger.info(f"training with rounded numbers: {len(names)} layers, {', '.join(names[:3])}, ...")

    def before_train(self, runner: Runner) -> None:
        """Choose the ranges, unless a checkpoint has brought them."""
        model = bare_model(runner)
        layers = rounded_layers(model)
        missing = [name for name, layer in layers.items() if not layer.input_end > 0]
        if not missing:
            return
        if len(missing) < len(layers):
            raise CheckpointError(f"the checkpoint has no range for {missing[0]}: it is of another model")
        with _random_state_kept(), _refusing():
            calibrator = set_reaches(model, self._runs(runner, model))
        for layer in layers.values():
            broadcast(layer.input_end)
        runner.logger.info(f"ranges of {len(layers)} layers from {self.images} training images by {calibrator}")

    def _runs(self, runner: Runner, model: Any) -> list[Callable[[], object]]:
        """Return functions that each run the model on a training image, the same on all processes.

        One at a time, as in predicting: crops differ in size, and what a training does to batches is not wanted here.
        """
        loader = runner.train_loop.dataloader
        dataset = loader.dataset
        if len(dataset) < self.images:
            raise DataError(f"QuantAwareTraining.images={self.images}, but there are {len(dataset)} training images")

        def run(index: int) -> None:
            sample = dataset[Draw(index, mix_seed(runner.seed or 0, index))]
            data = model.data_preprocessor(loader.collate_fn([sample]), False)
            model._run_forward(data, mode="tensor")

        return [partial(run, number * len(dataset) // self.images) for number in range(self.images)]


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Augmentations draw from all of them."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


@contextmanager
def _refusing() -> Iterator[None]:
    """What rounding refuses is the weights' or the model's fault."""
    try:
        yield
    except ValueError as error:
        raise CheckpointError(str(error)) from error
