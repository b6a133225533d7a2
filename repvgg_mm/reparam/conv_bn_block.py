"""ConvBNBlock: a deployed block with a batch normalisation put in behind its convolution, to train on.

Source: ``insert_bn.py`` of the authors' repository, github.com/DingXiaoH/RepVGG (MIT licence), whose names it has.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .block import LEFT_OUT, RepVGGBlock
from .branches import ConvBN, NormLayer, bn_params, conv_weight, why_not_fusible
from .fuse import fold_norm


class ConvBNBlock(RepVGGBlock):
    """3x3 convolution and batch normalisation, then ReLU; folds into one convolution again.

    Args:
        *args: of ``RepVGGBlock``.
        **options: of ``RepVGGBlock``.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.has_identity = False

    def _make_branches(self, conv: nn.Conv2d, norm: _BatchNorm, norm_layer: NormLayer) -> None:
        self.rbr_reparam = ConvBN(conv, norm)

    def _call_branches(self, x: Tensor) -> Tensor:
        return self.rbr_reparam(x)

    def convs(self) -> tuple[nn.Conv2d, ...]:
        """Return the 3x3 convolution, in training form."""
        return (self.rbr_reparam.conv,)

    def training_names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Name what makes the training form: the kernel and the batch normalisation."""
        return ("rbr_reparam.conv.weight",), ("rbr_reparam.bn",)

    def get_equivalent_kernel_bias(self) -> tuple[Tensor, Tensor]:
        """Fold the batch normalisation into the convolution; see ``RepVGGBlock``."""
        if self.deployed:
            return super().get_equivalent_kernel_bias()
        self._refuse_obstacles()
        return fold_norm(conv_weight(self.rbr_reparam.conv), bn_params(self.rbr_reparam.bn))

    def why_not_deployable(self) -> str | None:
        """Say what no kernel can hold; None if nothing is in the way."""
        reason = None if self.deployed else why_not_fusible(self.rbr_reparam)
        return None if reason is None else f"rbr_reparam{reason}{LEFT_OUT}"

    def get_custom_L2(self) -> Tensor:
        """Refuse: there are no branches to weigh against each other.

        Raises:
            ValueError: always.
        """
        raise ValueError("a block of one convolution takes plain weight decay, no custom L2")


@torch.no_grad()
def conv_bn_tensors(kernel: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> dict[str, Tensor]:
    """Split a deployed convolution into one without bias and a batch normalisation that leaves its output as it is.

    Args:
        kernel: of the deployed block, shape (C_out, C_in / groups, 3, 3).
        bias: of the deployed block, shape (C_out,).
        mean: of each channel that the convolution makes without its bias, shape (C_out,).
        variance: of each channel, shape (C_out,).
        eps: what the batch normalisation adds to the variance.

    Returns:
        Name in a ``ConvBNBlock`` -> tensor.
    """
    tensors = {
        "conv.weight": kernel,
        "bn.weight": torch.sqrt(variance.double() + eps).to(kernel.dtype),
        "bn.bias": (bias.double() + mean.double()).to(kernel.dtype),
        "bn.running_mean": mean.to(kernel.dtype),
        "bn.running_var": variance.to(kernel.dtype),
        "bn.num_batches_tracked": torch.zeros((), dtype=torch.int64, device=kernel.device),
    }
    return {f"rbr_reparam.{name}": tensor for name, tensor in tensors.items()}
