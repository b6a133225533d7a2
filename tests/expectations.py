"""What tests of several files expect of an error, and of two tensors."""

import pytest
import torch


def one_line(error: pytest.ExceptionInfo[BaseException], *parts: str) -> None:
    message = str(error.value)
    assert message and "\n" not in message and len(message) < 400, message
    for part in parts:
        assert part in message, message


def equal(left: torch.Tensor, right: torch.Tensor) -> bool:
    """To the bit, NaN included."""
    same = left.dtype == right.dtype and left.shape == right.shape and left.stride() == right.stride()
    as_bytes = [t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (left, right)]
    return same and torch.equal(*as_bytes)
