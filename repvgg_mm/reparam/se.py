"""Squeeze-and-excitation, as D2se and RepVGGplus have it."""

import torch
from torch import Tensor, nn


class SEBlock(nn.Module):
    """Squeeze-and-excitation: weigh each channel by a gate computed from all channel means.

    Args:
        channels: number of channels C of the input.
        hidden: number of channels between the two 1x1 convolutions.

    Source:
        Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018 (arXiv:1709.01507), figure 2.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, hidden, 1)
        self.up = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels.

        Args:
            x: shape (N, C, H, W); H and W may differ.

        Returns:
            Tensor of the same shape.
        """
        squeezed = nn.functional.adaptive_avg_pool2d(x, 1)  # (N, C, 1, 1)
        gate = self.up(nn.functional.relu(self.down(squeezed)))
        return x * torch.sigmoid(gate)
