"""QARepVGGBlock: a RepVGG block whose equivalent kernel survives 8 bits.

Source: Chu et al., "Make RepVGG Greater Again: A Quantization-aware Approach", AAAI 2024 (arXiv:2212.01593); names as
in the authors' ``QARepVGGBlockV2``, their default (github.com/cxxgtxy/QARepVGG, MIT licence).
"""

from typing import Any

from torch import Tensor, nn

from .block import RepVGGBlock
from .branches import NormLayer, make_batch_norm
from .fuse import BNParams, qa_branch_scales


class QARepVGGBlock(RepVGGBlock):
    """3x3 with batch normalisation + 1x1 + identity without, one batch normalisation of the sum, then ReLU.

    The 1x1 and the identity branch have no batch normalisation of their own: where that one divides a channel by a
    small standard deviation, the equivalent kernel of a RepVGG block gets the large numbers that 8 bits can't hold.
    It takes plain weight decay.

    Args:
        in_channels: number of channels of the input.
        out_channels: number of channels of the output.
        **options: of ``RepVGGBlock``; ``se`` must be None.

    Raises:
        ValueError: as ``RepVGGBlock``, and for squeeze-and-excitation: the authors' stands before the outer batch
            normalisation, where nothing can be folded.

    Example:
        >>> import torch
        >>> from repvgg_mm.reparam import QARepVGGBlock
        >>> block, x = QARepVGGBlock(8, 8).eval(), torch.rand(2, 8, 5, 7)
        >>> before = block(x)
        >>> block.switch_to_deploy()
        >>> torch.allclose(block(x), before, atol=1e-6)
        True
    """

    def __init__(self, in_channels: int, out_channels: int, **options: Any) -> None:
        if options.get("se") is not None:
            raise ValueError(f"se={options['se']!r}: a QARepVGG block with squeeze-and-excitation can't be folded")
        super().__init__(in_channels, out_channels, **options)

    def _make_identity(self, channels: int, norm_layer: NormLayer) -> nn.Module:
        return nn.Identity()

    def _make_1x1(self, conv: nn.Conv2d, norm_layer: NormLayer) -> None:
        self.rbr_1x1 = conv
        self.bn = make_batch_norm(norm_layer, conv.out_channels)

    def _call_branches(self, x: Tensor) -> Tensor:
        assert self.bn is not None
        return self.bn(super()._call_branches(x))

    def convs(self) -> tuple[nn.Conv2d, ...]:
        """Return the 3x3 and the 1x1 convolution, in training form."""
        return self.rbr_dense.conv, self.rbr_1x1

    def training_names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Name what makes the training form: the kernels, 3x3 and 1x1, and the batch normalisations."""
        return ("rbr_dense.conv.weight", "rbr_1x1.weight"), ("rbr_dense.bn", "bn")

    def _scales(self, norms: list[BNParams]) -> tuple[Tensor, Tensor]:
        inner, outer = norms
        return qa_branch_scales(inner, outer, self.has_identity)

    def get_custom_L2(self) -> Tensor:
        """Refuse: the authors of QARepVGG found that this penalty makes RepVGG hard to quantise.

        Raises:
            ValueError: always.
        """
        raise ValueError("a QARepVGG block takes plain weight decay, no custom L2: that is what makes 8 bits lose")
