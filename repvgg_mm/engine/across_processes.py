"""What all processes of a run must know alike, so that none waits for one that has stopped."""

from mmengine.dist import all_reduce
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn, tensor


def highest(value: int | Tensor) -> int:
    """Return the highest of all processes' numbers; every process must ask.

    Args:
        value: this process's number, as an int or a tensor of one element, on any device.

    Returns:
        The highest; with one process its own.
    """
    own = value.detach().reshape(1).int() if isinstance(value, Tensor) else tensor([value])
    all_reduce(own, "max")
    return int(own)


def bare_model(runner: Runner) -> nn.Module:
    """Return a runner's model without its wrapper for several processes."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
