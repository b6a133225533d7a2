"""Layers that compute with rounded numbers while they train; their gradients pass the rounding as if it were not there.

A layer is what becomes one operation of an exported file: a RepVGG block by its equivalent kernel, mmcv's
``ConvModule`` with its batch normalisation folded in, any other convolution or linear layer. The input lies on a grid
that was chosen from training images, the kernel on one grid an output channel, which follows it and leaves room for
sums of 16 bits (`pairs`), the bias on that of their products: what is trained holds on every processor. Statistics are
fixed.

The class of a module is changed in its place: parameters, their names, optimizers and DDP stay as they are. The one
buffer that a module gets, ``input_end``, says where the grid of its input ends.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks import wrappers
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from ..checkpoint.rounded import INPUT_END
from ..reparam import ConvBNBlock, QARepVGGBlock, RepVGGBlock
from ..reparam.branches import bn_params
from ..reparam.fuse import fold_norm
from .grid import fake_quantize, quantize, round_bias, scale_of, top
from .pairs import roomy_scale

Products = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class _Rounding(torch.autograd.Function):
    """Round forward; backward the gradient of what was not cut off."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, narrow: bool) -> Tensor:
        ctx.save_for_backward(x.abs() <= scale * (top() + 0.5))
        return fake_quantize(x, scale, narrow=narrow)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return grad * inside, None, None


class _Rounded:
    """What all these layers do.

    Attributes:
        input_end: where the grid of the input ends, float32, shape ().
        rounding: False computes as the layer was built, to look at what passes through it.
    """

    input_end: Tensor
    rounding = True

    def compute(self, run: Products, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        """Compute with rounded numbers.

        Where no gradient is asked for, the products are those of integers, which float32 and TF32 hold. Their sums are
        the same in any order (up to 2**24), as they are in the exported file.

        Args:
            run: the convolution or linear layer.
            x: its input.
            kernel: each output channel (axis 0) gets a grid of its own.
            bias: gets the grid of the products.

        Returns:
            What the layer makes.
        """
        step = scale_of(self.input_end)
        scale = roomy_scale(kernel.detach(), None if bias is None else bias.detach(), step)
        steps = step * scale.flatten()
        if not torch.is_grad_enabled():
            whole = None if bias is None else (bias / steps).round()
            with torch.autocast(x.device.type, enabled=False):  # float16 ends at 65504, which sums of integers pass
                x = x.to(torch.promote_types(x.dtype, torch.float32))
                out = run(quantize(x, step), quantize(kernel, scale, narrow=True), whole)
            return out * steps.view(-1, *[1] * (kernel.ndim - 2))
        if bias is not None:
            rounded = round_bias(bias.detach(), steps)
            bias = rounded + (bias - bias.detach())  # the numbers of the one, the gradient of the other
        return run(_Rounding.apply(x, step, False), _Rounding.apply(kernel, scale, True), bias)


class FakeQuantBlock(_Rounded, RepVGGBlock):
    """A RepVGG block, in training or deployed form, by its rounded equivalent kernel."""

    def _forward(self, x: Tensor) -> Tensor:
        if not self.rounding:
            return super()._forward(x)
        kernel, bias = self.get_equivalent_kernel_bias()
        conv = self.rbr_reparam if self.deployed else self.convs()[0]
        out = self.compute(conv._conv_forward, x, kernel, bias)
        return self.post_se(self.nonlinearity(self.se(out)))


class FakeQuantQABlock(FakeQuantBlock, QARepVGGBlock):
    """The same for a QARepVGG block."""


class FakeQuantConvBNBlock(FakeQuantBlock, ConvBNBlock):
    """The same for a deployed block with batch normalisation put in."""


class FakeQuantConvModule(_Rounded, ConvModule):
    """mmcv's convolution, batch normalisation and activation."""

    def forward(self, x: Tensor, activate: bool = True, norm: bool = True) -> Tensor:
        """Compute as ``ConvModule`` does, the batch normalisation folded into the kernel with its statistics fixed."""
        if not self.rounding:
            return super().forward(x, activate, norm)
        if self.with_explicit_padding:
            x = self.padding_layer(x)
        bn = folded_norm(self) if norm else None
        kernel, bias = fold(self.conv, bn)
        out = self.compute(self.conv._conv_forward, x, kernel, bias)
        if norm and self.with_norm and bn is None:
            out = self.norm(out)
        return self.activate(out) if activate and self.with_activation else out


class FakeQuantConv2d(_Rounded, nn.Conv2d):
    """A convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve: (N, C_in, H, W) -> (N, C_out, H', W')."""
        if not self.rounding:
            return super().forward(x)
        return self.compute(self._conv_forward, x, self.weight, self.bias)


class FakeQuantLinear(_Rounded, nn.Linear):
    """A linear layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Multiply: (..., C_in) -> (..., C_out)."""
        if not self.rounding:
            return super().forward(x)
        return self.compute(nn.functional.linear, x, self.weight, self.bias)


_CLASSES: dict[type, type] = {
    RepVGGBlock: FakeQuantBlock,
    QARepVGGBlock: FakeQuantQABlock,
    ConvBNBlock: FakeQuantConvBNBlock,
    ConvModule: FakeQuantConvModule,
    nn.Conv2d: FakeQuantConv2d,
    wrappers.Conv2d: FakeQuantConv2d,
    nn.Linear: FakeQuantLinear,
    wrappers.Linear: FakeQuantLinear,
}
_PLAIN: dict[type, type] = {fake: plain for plain, fake in reversed(_CLASSES.items())}


def candidates(model: nn.Module, prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, nn.Module]]:
    """Find the layers of a model that can be rounded; nothing inside of one is another.

    Args:
        model: any model.
        prefix: of the names.
        seen: ids of modules that were found already, in another place.

    Yields:
        Name and module of each, under the first of its names.
    """
    seen = set() if seen is None else seen
    for name, module in model.named_children():
        if id(module) in seen:
            continue
        seen.add(id(module))
        if type(module) in _CLASSES and (not isinstance(module, ConvModule) or _is_plain(module)):
            yield f"{prefix}{name}", module
        elif not isinstance(module, _Rounded):
            yield from candidates(module, f"{prefix}{name}.", seen)


def round_layers(model: nn.Module, names: Iterable[str]) -> None:
    """Let layers of a model compute with rounded numbers, in place.

    Args:
        model: any model.
        names: of the layers, out of `candidates`. Where their grids end is 0 until it is set.

    Raises:
        ValueError: if there is no such layer; names it.
    """
    known = dict(candidates(model))
    for name in names:
        if name not in known:
            raise ValueError(f"{type(model).__name__} has no layer {name} that could be rounded")
        module = known[name]
        module.__class__ = _CLASSES[type(module)]
        device = next(module.parameters()).device
        module.register_buffer(INPUT_END, torch.zeros((), device=device))


def rounded_layers(model: nn.Module) -> dict[str, Any]:
    """Find the layers that compute with rounded numbers: name -> module."""
    return {name: module for name, module in model.named_modules() if isinstance(module, _Rounded)}


def unround(model: nn.Module) -> dict[str, float]:
    """Make plain layers of rounded ones, in place, whose kernels are those that were rounded, to the bit.

    RepVGG blocks become deployed; batch normalisation behind other convolutions goes into them.

    Args:
        model: with rounded layers.

    Returns:
        Name of each convolution or linear layer -> where the grid of its input ends.
    """
    ends = {}
    for name, module in rounded_layers(model).items():
        end = float(module.input_end)
        del module._buffers[INPUT_END]
        module.__class__ = _PLAIN[type(module)]
        if isinstance(module, RepVGGBlock):
            module.switch_to_deploy()
            name = f"{name}.rbr_reparam"
        elif isinstance(module, ConvModule):
            _fold_in_place(module)
            name = f"{name}.conv"
        ends[name] = end
    return ends


def fold(conv: nn.Conv2d, bn: _BatchNorm | None) -> tuple[Tensor, Tensor | None]:
    """Return the kernel and bias of a convolution and the batch normalisation behind it, if there is one."""
    return (conv.weight, conv.bias) if bn is None else fold_norm(conv.weight, bn_params(bn), conv.bias)


def folded_norm(module: ConvModule) -> _BatchNorm | None:
    """Return the batch normalisation of a ``ConvModule`` that can be folded into its convolution, if it has one."""
    norm = module.norm if module.with_norm else None
    return norm if isinstance(norm, _BatchNorm) and norm.running_mean is not None else None


def _fold_in_place(module: ConvModule) -> None:
    """A new convolution takes the place of the old one, which several modules may share."""
    bn, old = folded_norm(module), module.conv
    if bn is None:
        return
    with torch.no_grad():
        kernel, bias = fold(old, bn)
    geometry: Mapping[str, Any] = {
        name: getattr(old, name) for name in ("stride", "padding", "dilation", "groups", "padding_mode")
    }
    conv = nn.Conv2d(old.in_channels, old.out_channels, old.kernel_size, device="meta", **geometry)
    assert bias is not None
    conv.weight, conv.bias = nn.Parameter(kernel), nn.Parameter(bias)
    module.conv = conv.train(module.training)
    setattr(module, module.norm_name, nn.Identity())


def _is_plain(module: ConvModule) -> bool:
    """Whether a ``ConvModule`` is a convolution, then a normalisation, then an activation."""
    spectral = getattr(module, "with_spectral_norm", False)
    return (
        module.order == ("conv", "norm", "act") and type(module.conv) in (nn.Conv2d, wrappers.Conv2d) and not spectral
    )
