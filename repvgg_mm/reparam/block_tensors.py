"""The tensors of one block in a state dict: found by name, and refused unless they can be fused as they are.

A state dict is only names and numbers. Whatever a conversion would drop, truncate or guess at is an error here that
names the tensor.
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from .block_names import CONV_BN_KERNEL, QA_KERNEL, block_prefixes, has_identity, must_have_identity
from .fuse import BNParams, fold_norm, fuse_branches, fuse_kernels, qa_branch_scales

_OF_BN = r"\.(?:weight|bias|running_mean|running_var|num_batches_tracked)"
_KNOWN = re.compile(rf"rbr_(?:(?:dense|1x1)\.conv\.weight|(?:(?:dense|1x1)\.bn|identity){_OF_BN})")
_KNOWN_CONV_BN = re.compile(rf"rbr_reparam\.(?:conv\.weight|bn{_OF_BN})")
_KNOWN_QA = re.compile(rf"rbr_(?:dense\.conv|1x1)\.weight|(?:rbr_dense\.)?bn{_OF_BN}")
_BEHIND_THE_SUM = ("se.", "post_se.", "nonlinearity.")  # conversion does not touch it
_OF_INPUT = "input_end"  # of a block that was trained with rounded numbers: nor that
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class BlockTensors(NamedTuple):
    """What the equivalent kernel of a block is derived from.

    Attributes:
        dense: kernel (C_out, C_in / groups, 3, 3) and batch normalisation of the 3x3 branch.
        pointwise: kernel (C_out, C_in / groups, 1, 1) and batch normalisation of the 1x1 branch.
        identity: batch normalisation of the identity branch; None for a block without one.
    """

    dense: tuple[Tensor, BNParams]
    pointwise: tuple[Tensor, BNParams]
    identity: BNParams | None

    def fuse(self) -> tuple[Tensor, Tensor]:
        """Derive the equivalent kernel and bias; see `fuse_branches`."""
        return fuse_branches(*self)


class ConvBNTensors(NamedTuple):
    """What the equivalent kernel of a deployed block with batch normalisation put in is derived from.

    Attributes:
        kernel: shape (C_out, C_in / groups, 3, 3).
        bn: batch normalisation behind it.
    """

    kernel: Tensor
    bn: BNParams

    def fuse(self) -> tuple[Tensor, Tensor]:
        """Derive the equivalent kernel and bias; see `fold_norm`."""
        return fold_norm(self.kernel, self.bn)


class QABlockTensors(NamedTuple):
    """What the equivalent kernel of a QARepVGG block is derived from.

    Attributes:
        dense: kernel (C_out, C_in / groups, 3, 3) and batch normalisation of the 3x3 branch.
        pointwise: kernel (C_out, C_in / groups, 1, 1) of the 1x1 branch.
        has_identity: whether there is an identity branch.
        outer: batch normalisation of the sum.
    """

    dense: tuple[Tensor, BNParams]
    pointwise: Tensor
    has_identity: bool
    outer: BNParams

    def fuse(self) -> tuple[Tensor, Tensor]:
        """Derive the equivalent kernel and bias; see `fuse_branches`."""
        scales = qa_branch_scales(self.dense[1], self.outer, self.has_identity)
        return fuse_kernels(self.dense[0], self.pointwise, *scales)


AnyBlockTensors = BlockTensors | QABlockTensors | ConvBNTensors


def read_blocks(
    state_dict: Mapping[str, Tensor], eps: float, identities: Mapping[str, bool] = {}
) -> dict[str, AnyBlockTensors]:
    """Collect the tensors of every block in training form.

    Args:
        state_dict: names and tensors.
        eps: what the batch normalisations add to the variance.
        identities: prefix of a QARepVGG block -> whether it has an identity branch, where a model tells.

    Returns:
        Prefix of each block -> its tensors.

    Raises:
        ValueError: if a block holds both forms, lacks a tensor, has one of an unknown name, or one that can't be fused:
            of another shape than the others say, of integers, complex numbers, 8-bit floats or a mixture of dtypes,
            without values, sparse, larger than its storage, NaN or infinite; or if ``eps`` is no number from 0 up.
    """
    if not (math.isfinite(eps) and eps >= 0):
        raise ValueError(f"eps={eps}: give what the batch normalisations add to the variance, such as 1e-5")
    blocks: dict[str, dict[str, Tensor]] = {prefix: {} for prefix in block_prefixes(state_dict)}
    identity = {prefix: has_identity(state_dict, prefix, identities) for prefix in blocks}
    for key, tensor in state_dict.items():
        prefix = _owner(key, blocks)
        if prefix is not None:
            blocks[prefix][key.removeprefix(prefix)] = tensor
    with torch.no_grad():
        return {prefix: _Reader(prefix, tensors, eps).read(identity[prefix]) for prefix, tensors in blocks.items()}


def check_finite(key: str, tensor: Tensor) -> None:
    """Refuse NaN and infinity.

    Args:
        key: its name, for the message.
        tensor: any shape but an empty one.

    Raises:
        ValueError: if there is one.
    """
    tensor = tensor.detach()
    if bool(torch.isfinite(tensor.sum())):  # the sum of large numbers alone can be infinite, too
        return
    if not bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all()):  # both are NaN if one number is
        raise ValueError(f"{key} holds NaN or infinity: the training diverged or the file is damaged")


def _owner(key: str, prefixes: Mapping[str, object]) -> str | None:
    """Find the innermost block that a tensor belongs to."""
    end = len(key)
    while end > 0:
        end = key.rfind(".", 0, end - 1) + 1
        if key[:end] in prefixes:
            return key[:end]
    return None


class _Reader:
    """Reads one block; see `read_blocks`."""

    def __init__(self, prefix: str, tensors: Mapping[str, Tensor], eps: float) -> None:
        self.prefix, self.tensors, self.eps = prefix, tensors, eps

    def read(self, with_identity: bool) -> AnyBlockTensors:
        block: AnyBlockTensors
        if QA_KERNEL in self.tensors:
            self._check_names(_KNOWN_QA, ())
            block = self._read_qa(self._take_3x3("rbr_dense.conv.weight"), with_identity)
        elif CONV_BN_KERNEL in self.tensors:
            self._check_names(_KNOWN_CONV_BN, _BEHIND_THE_SUM)
            kernel = self._take_3x3(CONV_BN_KERNEL)
            block = ConvBNTensors(kernel, self._take_bn("rbr_reparam.bn.", len(kernel)))
        else:
            self._check_names(_KNOWN, _BEHIND_THE_SUM)
            block = self._read(self._take_3x3("rbr_dense.conv.weight"))
        self._check_mixture()
        return block

    def _take_3x3(self, name: str) -> Tensor:
        kernel = self._take(name, None)
        if kernel.dim() != 4 or kernel.shape[2:] != (3, 3) or not kernel.numel():
            raise ValueError(f"{self._shape(name)}, not (C_out, C_in / groups, 3, 3)")
        return kernel

    def _read(self, dense: Tensor) -> BlockTensors:
        channels, per_group = dense.shape[:2]
        pointwise = self._take("rbr_1x1.conv.weight", (channels, per_group, 1, 1))
        identity = None
        if any(name.startswith("rbr_identity.") for name in self.tensors) or must_have_identity(self.prefix):
            identity = self._take_bn("rbr_identity.", channels)
            self._check_identity(channels, per_group)
        return BlockTensors(
            (dense, self._take_bn("rbr_dense.bn.", channels)),
            (pointwise, self._take_bn("rbr_1x1.bn.", channels)),
            identity,
        )

    def _read_qa(self, dense: Tensor, with_identity: bool) -> QABlockTensors:
        channels, per_group = dense.shape[:2]
        pointwise = self._take(QA_KERNEL, (channels, per_group, 1, 1))
        if with_identity:
            self._check_identity(channels, per_group)
        inner, outer = (self._take_bn(name, channels) for name in ("rbr_dense.bn.", "bn."))
        return QABlockTensors((dense, inner), pointwise, with_identity, outer)

    def _check_identity(self, channels: int, per_group: int) -> None:
        if channels % per_group:
            raise ValueError(f"{self._shape('rbr_dense.conv.weight')}, which fits no identity branch")

    def _check_names(self, known: re.Pattern[str], others: tuple[str, ...]) -> None:
        """Refuse what conversion would drop, or what may change what the branches compute."""
        for name in self.tensors:
            if name in ("rbr_reparam.weight", "rbr_reparam.bias"):
                raise ValueError(
                    f"{self.prefix}{name} stands beside the branches: the block holds both forms, and nothing tells "
                    "which one is right; remove one of them"
                )
            if not (known.fullmatch(name) or name.startswith(others) or name == _OF_INPUT):
                raise ValueError(
                    f"{self.prefix}{name} is no tensor of a RepVGG block: what it does in there can't be known, nor be "
                    "put into one convolution"
                )

    def _take_bn(self, part: str, channels: int) -> BNParams:
        mean = self._take(part + "running_mean", (channels,))
        variance = self._take(part + "running_var", (channels,), finite=False)
        if not bool((torch.isfinite(variance) & (variance >= 0)).all()):
            raise ValueError(
                f"{self.prefix}{part}running_var holds a negative or non-finite variance: the training diverged or the "
                "file is damaged"
            )
        affine = part + "weight" in self.tensors or part + "bias" in self.tensors
        weight = self._take(part + "weight", (channels,)) if affine else None
        bias = self._take(part + "bias", (channels,)) if affine else None
        return BNParams(mean, variance, weight, bias, self.eps)

    def _take(self, name: str, shape: tuple[int, ...] | None, finite: bool = True) -> Tensor:
        key = self.prefix + name
        if name not in self.tensors:
            raise ValueError(f"{key} is missing: the file does not hold the whole block")
        tensor = self.tensors[name]
        complaint = _why_not_plain(tensor)
        if complaint is not None:
            raise ValueError(f"{key} {complaint}")
        if shape is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{self._shape(name)}, not {shape}")
        if finite and tensor.numel():
            check_finite(key, tensor)
        return tensor

    def _check_mixture(self) -> None:
        """One dtype for both kernels, one for all of batch normalisation: the same, or a wider one, as with AMP."""
        kernels: dict[object, str] = {}
        norms: dict[object, str] = {}
        devices: dict[object, str] = {}
        for name, tensor in self.tensors.items():
            if name.startswith(("rbr_", "bn.")) and not name.endswith("num_batches_tracked"):
                (kernels if ".conv." in name or name == QA_KERNEL else norms)[tensor.dtype] = name
                devices[tensor.device] = name
        for found in (kernels, norms, devices):
            if len(found) > 1:
                (one, name), (other, another) = list(found.items())[:2]
                raise ValueError(f"{self.prefix}{name} is {one}, but {self.prefix}{another} is {other}")
        kernel, norm = (self.tensors[name].dtype for found in (kernels, norms) for name in found.values())
        if torch.promote_types(kernel, norm) != norm:
            raise ValueError(
                f"{self.prefix}: its kernels are {kernel}, its batch normalisations {norm}: give them one dtype, or "
                "the latter a wider one"
            )

    def _shape(self, name: str) -> str:
        return f"{self.prefix}{name} has shape {tuple(self.tensors[name].shape)}"


def _why_not_plain(tensor: object) -> str | None:
    """Say why numbers can't be read from something as they are."""
    if not isinstance(tensor, Tensor):
        return f"is a {type(tensor).__name__}, not a tensor"
    if tensor.is_quantized or tensor.layout is not torch.strided:
        return f"is {'quantized' if tensor.is_quantized else tensor.layout}, not a plain tensor"
    if tensor.dtype not in _DTYPES:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
        return f"is {tensor.dtype}: a block is fused in {known}"
    if tensor.is_meta:
        return "is a meta tensor: it has no values"
    held = tensor.untyped_storage().nbytes() // tensor.itemsize
    if tensor.numel() > held:
        return f"claims {tensor.numel()} numbers, its storage holds {held}"
    return None
