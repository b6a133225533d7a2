"""RoIAlign (average pooling) with mmcv's calling conventions: results are written into tensors that mmcv hands over.

Source: He et al., Mask R-CNN (https://arxiv.org/abs/1703.06870), section 3.
"""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor

from .float32 import at_least_float32

_MAX_MODE = 0


def _refuse_max_mode(pool_mode: int) -> None:
    if pool_mode == _MAX_MODE:
        raise NotImplementedError(
            "mmcv operator 'roi_align' with pool_mode='max' needs mmcv's compiled extension (torchvision has average "
            "pooling only): use pool_mode='avg', or build mmcv from source with MMCV_WITH_OPS=1"
        )


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``output`` with the features of every region, averaged in a grid of bins.

    Args:
        input: Feature map, (N, C, H, W).
        rois: Regions, (K, 5): image index, x1, y1, x2, y2 in pixels of the image.
        output: (K, C, aligned_height, aligned_width), overwritten.
        argmax_y: Not used when averaging.
        argmax_x: Not used when averaging.
        aligned_height: Rows of bins.
        aligned_width: Columns of bins.
        spatial_scale: Feature map pixels for one image pixel, such as 1/16.
        sampling_ratio: Samples along each side of a bin; 0 takes as many as the bin has pixels.
        pool_mode: 1 for average, 0 for max.
        aligned: Whether a pixel's centre, not its corner, is its coordinate.

    Raises:
        NotImplementedError: For max pooling.
    """
    _refuse_max_mode(pool_mode)
    pooled = torchvision.ops.roi_align(
        at_least_float32(input),
        at_least_float32(rois),
        (aligned_height, aligned_width),
        spatial_scale,
        sampling_ratio,
        aligned,
    )
    output.copy_(pooled)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient of the feature map to ``grad_input`` (N, C, H, W); the other arguments as in the forward.

    Raises:
        NotImplementedError: For max pooling.
    """
    _refuse_max_mode(pool_mode)
    grad = torch.ops.torchvision._roi_align_backward(
        at_least_float32(grad_output),
        at_least_float32(rois),
        spatial_scale,
        aligned_height,
        aligned_width,
        *grad_input.shape,
        sampling_ratio,
        aligned,
    )
    grad_input.add_(grad)
