"""Numbers that are not finite end a training before they reach its weights or its files."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from .across_processes import bare_model, highest


class NonFiniteError(Exception):
    """A loss or weights are NaN or infinite; the message is one line."""


@HOOKS.register_module(force=True)
class FiniteLossHook(Hook):
    """Stop all processes at the first loss that is NaN or infinite, before its gradients reach the weights.

    The losses are looked at between forward and backward. On a GPU that waits for the forward; mmengine waits for the
    losses in every iteration, too, but only behind the step.

    Args:
        skip: leave such an iteration out instead: neither its gradients nor its batch statistics are kept.
    """

    priority = "LOWEST"

    def __init__(self, skip: bool = False) -> None:
        self.skip = skip
        self._training = False
        self._iteration = 0

    def before_train(self, runner: Runner) -> None:
        """Look at what the model returns from now on."""
        self._handle = bare_model(runner).register_forward_hook(self._check, with_kwargs=True)
        self._train_step = runner.model.train_step
        if self.skip:
            runner.model.train_step = self._skipping(runner)

    def after_train(self, runner: Runner) -> None:
        """Look no longer."""
        self._handle.remove()
        if self.skip:
            runner.model.train_step = self._train_step

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Remember the iteration."""
        self._training, self._iteration = True, runner.iter + 1

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Leave the losses of a validation alone."""
        self._training = False

    def _check(self, model: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if not self._training or kwargs.get("mode") != "loss" or not isinstance(output, Mapping):
            return
        losses = {
            name: total for name, value in output.items() if "loss" in name and (total := _total(value)) is not None
        }
        if losses and highest(~torch.stack([loss.isfinite() for loss in losses.values()]).all()):
            raise NonFiniteError(
                f"iteration {self._iteration}: a loss is not finite: {_named_of_all(losses)}; the weights are as they "
                "were before it. Lower the learning rate or look at the data; to leave such iterations out, set "
                "default_hooks.finite_loss.skip=True"
            )

    def _skipping(self, runner: Runner) -> Callable[..., dict[str, Tensor]]:
        model, train_step = bare_model(runner), self._train_step

        def step(*args: Any, **kwargs: Any) -> dict[str, Tensor]:
            kept = [buffer.clone() for buffer in model.buffers()]
            try:
                return train_step(*args, **kwargs)
            except NonFiniteError as error:
                with torch.no_grad():
                    for buffer, before in zip(model.buffers(), kept, strict=True):
                        buffer.copy_(before)
                check_finite(model, self._iteration)
                runner.logger.warning(f"left out: {str(error).partition(';')[0]}")
                return {}

        return step


def check_finite(model: nn.Module, iteration: int) -> None:
    """Refuse to go on with, or to save, weights that are not finite; every process must ask.

    Args:
        model: the model; its parameters must be finite, its buffers (masks hold infinity) not NaN.
        iteration: for the message.

    Raises:
        NonFiniteError: if they are not, on any process; names the first.
    """
    bad = [name for name, parameter in model.named_parameters() if not parameter.isfinite().all()]
    bad += [name for name, buffer in model.named_buffers() if buffer.isnan().any()]
    if highest(len(bad)):
        name = bad[0] if bad else "on another process"
        raise NonFiniteError(f"iteration {iteration}: weights are not finite ({name}): they are not saved")


def _total(value: Any) -> Tensor | None:
    """Sum up a loss as mmengine does: the mean of a tensor, the sum of a list."""
    if isinstance(value, Tensor):
        return value.detach().float().mean()
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, Tensor) for item in value):
        return torch.stack([item.detach().float().mean() for item in value]).sum()
    return None


def _named_of_all(losses: Mapping[str, Tensor]) -> str:
    """Name the losses; on several processes those of each that has one which is not finite."""
    named = ", ".join(f"{name}={float(loss):.6g}" for name, loss in losses.items())
    if get_world_size() == 1:
        return named
    bad = not all(bool(loss.isfinite()) for loss in losses.values())
    found = all_gather_object(named if bad else "")
    return "; ".join(f"process {rank}: {text}" for rank, text in enumerate(found) if text)
