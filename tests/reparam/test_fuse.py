import pytest
import torch
import torch.nn.functional as F
from helpers import image, randomize_bn
from torch import nn

from repvgg_mm.reparam import fuse
from repvgg_mm.reparam.fuse import BNParams, bn_scale_shift, fold_norm, fuse_branches, scaled_kernel


def params(bn: nn.BatchNorm2d) -> BNParams:
    return BNParams(bn.running_mean, bn.running_var, bn.weight, bn.bias, bn.eps)


@pytest.fixture(params=[True, False], ids=["affine", "not_affine"])
def bn(request: pytest.FixtureRequest) -> nn.BatchNorm2d:
    return randomize_bn(nn.BatchNorm2d(6, eps=1e-3, affine=request.param)).double().eval()


def test_bn_scale_shift_is_the_batch_norm(bn: nn.BatchNorm2d) -> None:
    x = image(2, 6, 5, 7, dtype=torch.float64)
    scale, shift = bn_scale_shift(params(bn))
    torch.testing.assert_close(x * scale[:, None, None] + shift[:, None, None], bn(x), rtol=1e-12, atol=1e-12)


def test_fuse_branches_is_the_sum_of_the_branches(bn: nn.BatchNorm2d) -> None:
    x = image(2, 6, 5, 7, dtype=torch.float64)
    dense, pointwise = image(6, 2, 3, 3, dtype=torch.float64, seed=1), image(6, 2, 1, 1, dtype=torch.float64, seed=2)
    kernel, bias = fuse_branches((dense, params(bn)), (pointwise, params(bn)), params(bn))
    expected = bn(F.conv2d(x, dense, padding=1, groups=3)) + bn(F.conv2d(x, pointwise, groups=3)) + bn(x)
    torch.testing.assert_close(F.conv2d(x, kernel, bias, padding=1, groups=3), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("grad", [False, True])
def test_fuse_branches_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch, grad: bool) -> None:
    """Kernels with many numbers are fused some rows at a time."""
    norm = params(randomize_bn(nn.BatchNorm2d(6)))
    branches = ((image(6, 2, 3, 3), norm), (image(6, 2, 1, 1, seed=1), norm), norm)
    whole = fuse_branches(*branches)
    for numbers in (1, 4 * 2 * 9):  # one row; four rows, then two
        monkeypatch.setattr(fuse, "_NUMBERS_AT_ONCE", numbers)
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(fuse_branches(*branches), whole, rtol=0, atol=0)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("rows", [1, 3, 8])
def test_identity_kernel_is_the_identity(groups: int, rows: int) -> None:
    x, zero, one = image(2, 8, 5, 7, dtype=torch.float64), torch.zeros(rows), torch.ones(rows)
    dense, pointwise = torch.ones(rows, 8 // groups, 3, 3), torch.ones(rows, 8 // groups, 1, 1)
    parts = [
        scaled_kernel(dense, pointwise, (zero, zero, one), torch.float64, first_row=first)[: 8 - first]
        for first in range(0, 8, rows)
    ]
    torch.testing.assert_close(F.conv2d(x, torch.cat(parts), padding=1, groups=groups), x, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_fuse_branches_gives_the_dtype_back(dtype: torch.dtype) -> None:
    bn = randomize_bn(nn.BatchNorm2d(4)).to(dtype)
    kernel, bias = fuse_branches(
        (image(4, 4, 3, 3, dtype=dtype), params(bn)), (image(4, 4, 1, 1, dtype=dtype), params(bn)), None
    )
    assert kernel.dtype == bias.dtype == dtype


def test_fuse_branches_computes_in_float64() -> None:
    """In float32 the rounding of the sum would show: the fused kernel must be the rounded exact one."""
    bn = randomize_bn(nn.BatchNorm2d(4))
    dense, pointwise = image(4, 4, 3, 3), image(4, 4, 1, 1, seed=1)
    kernel, bias = fuse_branches((dense, params(bn)), (pointwise, params(bn)), params(bn))
    bn = bn.double()
    exact, exact_bias = fuse_branches((dense.double(), params(bn)), (pointwise.double(), params(bn)), params(bn))
    assert torch.equal(kernel, exact.float()) and torch.equal(bias, exact_bias.float())


def test_fuse_branches_gradcheck() -> None:
    def f(
        dense: torch.Tensor, pointwise: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        bn = BNParams(torch.full((4,), 0.3).double(), torch.full((4,), 1.7).double(), weight, bias, 1e-5)
        return fuse_branches((dense, bn), (pointwise, bn), bn)

    shapes = [(4, 2, 3, 3), (4, 2, 1, 1), (4,), (4,)]
    inputs = [image(*shape, dtype=torch.float64, seed=i).requires_grad_() for i, shape in enumerate(shapes)]
    assert torch.autograd.gradcheck(f, inputs)


def test_a_norm_behind_a_convolution_with_a_bias(bn: nn.BatchNorm2d) -> None:
    conv, x = nn.Conv2d(4, 6, 3).double(), image(2, 4, 5, 7, dtype=torch.float64)
    kernel, bias = fold_norm(conv.weight, params(bn), conv.bias)
    torch.testing.assert_close(F.conv2d(x, kernel, bias), bn(conv(x)), rtol=1e-12, atol=1e-12)
