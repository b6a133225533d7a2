"""How large a model may be that a file describes: about as large as the file.

A few letters of a stored config could ask for terabytes, or for a million blocks. A file that fills a model holds at
least a byte for each of its numbers, and some hundred for each tensor, so more than that is refused while it is built:
torch reports each tensor when it becomes part of a module, before its memory is touched.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from ..checkpoint.errors import CheckpointError

_COST = 1000  # of a tensor beside its numbers: a module takes time to build, too
_SLACK = 2**22  # for small files, models built in two forms, and tensors that an exported file has folded away


@contextmanager
def models_no_larger_than(size: int) -> Iterator[None]:
    """Refuse to build models with more numbers than a file has bytes.

    Args:
        size: of the file, bytes.

    Raises:
        CheckpointError: in the context, by whatever builds the tensor that is too much.
    """
    left = size + _SLACK

    def charge(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal left
        left -= 0 if tensor is None else tensor.numel() + _COST
        if left < 0:
            raise CheckpointError(
                f"stored config: its model is far larger than the weights in a file of {size:,} bytes; "
                "give a config of your own"
            )

    handles = [
        register_module_parameter_registration_hook(charge),
        register_module_buffer_registration_hook(charge),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
