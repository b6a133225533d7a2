"""Dividing whole numbers where a runtime divides them as float32: OpenVINO does, and is wrong above 2**24 (2026.4)."""

from torch import Tensor


def divide(number: Tensor, by: Tensor | int) -> tuple[Tensor, Tensor]:
    """Divide with a remainder, exactly in every runtime.

    Args:
        number: whole numbers, none negative, below 2**31: OpenVINO makes int32 of int64.
        by: above 0; the quotients stay below 2**22.

    Returns:
        Quotient and remainder, of the shape of both together.
    """
    quotient = number // by
    rest = number - quotient * by
    missing = (rest >= by).to(number.dtype) - (rest < 0).to(number.dtype)
    return quotient + missing, rest - missing * by
