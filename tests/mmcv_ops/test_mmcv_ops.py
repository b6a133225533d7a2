"""torchvision's operators in place of mmcv's compiled extension, through mmcv's own public functions.

``golden/mmcv_ops.npz`` holds inputs and what the compiled operators of onedl-mmcv 2.3.6 return for them on a CPU.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck
from torch.testing import assert_close

from repvgg_mm.mmcv_ops.finder import install

pytest.importorskip("mmcv")  # and not mmcv.ops: that one missing is a failure
install()
ops = importlib.import_module("mmcv.ops")
ext = sys.modules["mmcv._ext"]

ROOT = Path(__file__).parents[2]
served = pytest.mark.skipif(
    Path(str(ext.__file__)).name != "extension.py", reason="this mmcv has its compiled extension, nothing is served"
)


@cache
def golden() -> dict[str, Tensor]:
    with np.load(Path(__file__).parents[1] / "golden" / "mmcv_ops.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def leaf(name: str) -> Tensor:
    return golden()[name].clone().requires_grad_()


def random(*shape: int, seed: int = 0, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Float64, for gradcheck."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, dtype=torch.float64, generator=generator) * (high - low) + low


def run_python(code: str, *arguments: str) -> None:
    """Run code in a fresh interpreter, which has imported nothing yet."""
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- the import hook


def test_install_imports_nothing_and_appends_one_finder() -> None:
    # Loaded from its file, so that the package around it cannot import anything either.
    run_python(
        """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("mmcv_ops", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
before = list(sys.meta_path)
module.install()
module.install()
assert sys.meta_path[:-1] == before, sys.meta_path
assert "repvgg" in (sys.meta_path[-1].find_spec("mmcv._ext").origin), sys.meta_path
assert sys.meta_path[-1].find_spec("mmcv.other") is None
heavy = {"torch", "torchvision", "mmengine", "mmcv", "mmdet"} & set(sys.modules)
assert not heavy, heavy
""",
        str(ROOT / "repvgg_mm" / "mmcv_ops" / "finder.py"),
    )


@served
def test_mmengine_finds_the_extension_without_importing_it() -> None:
    run_python(
        """
import importlib.util, sys
from repvgg_mm.mmcv_ops.finder import install
install()
from mmengine.utils.dl_utils import mmcv_full_available
already = "mmcv._ext" in sys.modules
assert mmcv_full_available()
spec = importlib.util.find_spec("mmcv._ext")
assert spec.name == "mmcv._ext" and spec.origin.endswith("extension.py"), spec
assert already or "mmcv._ext" not in sys.modules
import mmcv._ext
assert mmcv._ext.__spec__.name == "mmcv._ext"
"""
    )


def test_a_compiled_extension_wins(tmp_path: Path) -> None:
    (tmp_path / "_ext.py").write_text("compiled = True\n")
    run_python(
        """
import sys
from repvgg_mm.mmcv_ops.finder import install
install()
import mmcv
sys.modules.pop("mmcv._ext", None)
mmcv.__path__.insert(0, sys.argv[1])  # as if the module lay in mmcv's own folder
import mmcv._ext
assert vars(mmcv._ext).get("compiled") is True, mmcv._ext
""",
        str(tmp_path),
    )


def test_the_model_packages_import() -> None:
    run_python(
        """
from repvgg_mm.mmcv_ops.finder import install
install()
import mmseg.models
import mmdet.models
from mmengine.registry import MODELS
import mmdet.registry
assert mmdet.registry.MODELS.get("MaskRCNN") is not None
"""
    )


@served
def test_the_log_of_a_run_names_torchvision() -> None:
    assert "torchvision" in ops.get_compiler_version()
    assert ops.get_compiling_cuda_version() == "not available"


@served
@pytest.mark.parametrize(
    ("operator", "call"),
    [
        ("roi_pool_forward", lambda: ops.roi_pool(torch.ones(1, 1, 4, 6), torch.tensor([[0, 0, 0, 2, 2.0]]), 2)),
        ("box_iou_rotated", lambda: ops.box_iou_rotated(torch.ones(2, 5), torch.ones(2, 5))),
        ("softmax_focal_loss_forward", lambda: ops.softmax_focal_loss(torch.ones(2, 3), torch.tensor([0, 1]))),
        ("nms_match", lambda: ops.nms_match(torch.ones(2, 5), 0.5)),
    ],
)
def test_an_operator_that_is_not_served_names_itself_and_the_mend(operator: str, call: Any) -> None:
    with pytest.raises(NotImplementedError, match=f"'{operator}'.*MMCV_WITH_OPS=1.*-std=c\\+\\+20"):
        call()


@served
@pytest.mark.parametrize("name", ["__wrapped__", "_private"])
def test_underscore_names_are_missing_as_usual(name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(ext, name)


# --- nms


@pytest.mark.parametrize("threshold", [3, 5, 7])
@pytest.mark.parametrize("offset", [0, 1])
def test_nms_matches_compiled(offset: int, threshold: int) -> None:
    dets, keep = ops.nms(golden()["nms_boxes"], golden()["nms_scores"], threshold / 10, offset=offset)
    assert_close(keep, golden()[f"nms_keep_off{offset}_thr{threshold}"])
    assert_close(dets, golden()[f"nms_dets_off{offset}_thr{threshold}"])


def test_nms_with_score_threshold_and_limit_matches_compiled() -> None:
    boxes, scores = golden()["nms_boxes"], golden()["nms_scores"]
    _, keep = ops.nms(boxes, scores, 0.5, score_threshold=0.2, max_num=10)
    assert_close(keep, golden()["nms_keep_score2_max10"])


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_soft_nms_matches_compiled(method: str, offset: int) -> None:
    dets, keep = ops.soft_nms(golden()["nms_boxes"], golden()["nms_scores"], method=method, offset=offset)
    assert_close(keep, golden()[f"soft_nms_keep_{method}_off{offset}"])
    assert_close(dets, golden()[f"soft_nms_dets_{method}_off{offset}"])


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("batched_nms", {"type": "nms", "iou_threshold": 0.5}),
        ("batched_soft_nms", {"type": "soft_nms", "iou_threshold": 0.5, "min_score": 0.05}),
    ],
)
def test_batched_nms_matches_compiled(name: str, config: dict[str, Any]) -> None:
    boxes, scores, ids = (golden()[f"nms_{part}"] for part in ("boxes", "scores", "ids"))
    dets, keep = ops.batched_nms(boxes, scores, ids, config)
    assert_close(keep, golden()[f"{name}_keep"])
    assert_close(dets, golden()[f"{name}_dets"])


def test_nms_keeps_an_overlap_that_equals_the_threshold() -> None:
    # 3 of 10 pixels overlap: 0.3 in float32 is above 0.3 in float64, and mmcv compares in float32.
    boxes = torch.tensor([[0.0, 0.0, 10.0, 1.0], [0.0, 0.0, 3.0, 1.0]])
    _, keep = ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.3)
    assert keep.tolist() == [0, 1]


@pytest.mark.parametrize("function", [ops.nms, ops.soft_nms])
def test_nms_of_no_boxes(function: Any) -> None:
    dets, keep = function(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert dets.shape == (0, 5)
    assert keep.shape == (0,) and keep.dtype == torch.int64


@served
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_nms_in_half_precision(dtype: torch.dtype) -> None:
    boxes = torch.tensor([[0, 0, 8, 4], [0, 0, 8, 3], [20, 0, 24, 4]], dtype=dtype)
    dets, keep = ops.nms(boxes, torch.tensor([0.5, 0.75, 0.25], dtype=dtype), 0.5)
    assert keep.tolist() == [1, 2]
    assert dets.dtype == dtype


# --- sigmoid focal loss


def focal_loss_by_definition(logits: Tensor, target: Tensor, gamma: float, alpha: float) -> Tensor:
    """Equation 5 of the paper, one entry after the other."""
    loss = torch.zeros_like(logits)
    for row, column in np.ndindex(*logits.shape):
        probability = 1 / (1 + np.exp(-logits[row, column].item()))
        if column == target[row]:
            loss[row, column] = -alpha * (1 - probability) ** gamma * np.log(probability)
        else:
            loss[row, column] = -(1 - alpha) * probability**gamma * np.log(1 - probability)
    return loss


@pytest.fixture
def logits() -> Tensor:
    return random(5, 3, low=-4, high=4)


TARGET = torch.tensor([0, 2, 3, 1, 3])  # 3 of 3 classes: background
FOREGROUND = torch.tensor([0, 2, 1, 1, 2])


@served  # the compiled one knows CUDA tensors only
@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.0, 0.5), (0.5, 0.9)])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_focal_loss_is_the_papers(logits: Tensor, gamma: float, alpha: float, reduction: str) -> None:
    loss = ops.sigmoid_focal_loss(logits, TARGET, gamma, alpha, None, reduction)
    expected = focal_loss_by_definition(logits, TARGET, gamma, alpha)
    reduced = {"none": expected, "sum": expected.sum(), "mean": expected.sum() / len(logits)}
    assert_close(loss, reduced[reduction])


@served
def test_focal_loss_weighs_a_row_by_its_class(logits: Tensor) -> None:
    weight = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    loss = ops.sigmoid_focal_loss(logits, FOREGROUND, 2.0, 0.25, weight, "none")
    expected = focal_loss_by_definition(logits, FOREGROUND, 2.0, 0.25)
    assert_close(loss, expected * torch.tensor([1.0, 5.0, 2.0, 2.0, 5.0], dtype=torch.float64)[:, None])


@served
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("weighted", [False, True])
def test_focal_loss_gradient(logits: Tensor, gamma: float, reduction: str, weighted: bool) -> None:
    weight = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64) if weighted else None
    target = FOREGROUND if weighted else TARGET

    def loss(value: Tensor) -> Tensor:
        return ops.sigmoid_focal_loss(value, target, gamma, 0.25, weight, reduction)

    assert gradcheck(loss, (logits.requires_grad_(),))


@served
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_of_certain_answers_is_finite(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    loss = ops.sigmoid_focal_loss(logits, torch.tensor([0, 0]), gamma, 0.25, None, "none")
    loss.sum().backward()
    assert_close(loss, torch.tensor([[0.0, 0.0], [0.25 * 200, 0.75 * 200]]))
    assert_close(logits.grad, torch.tensor([[0.0, 0.0], [-0.25, 0.75]]))


# --- roi_align


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("aligned", [0, 1])
def test_roi_align_matches_compiled(aligned: int, sampling_ratio: int) -> None:
    features = leaf("roi_x")
    out = ops.roi_align(features, golden()["roi_rois"], (3, 5), 0.25, sampling_ratio, "avg", bool(aligned))
    out.backward(golden()["roi_grad_out"])
    assert_close(out, golden()[f"roi_align_avg_al{aligned}_sr{sampling_ratio}"])
    assert_close(features.grad, golden()[f"roi_align_avg_grad_al{aligned}_sr{sampling_ratio}"])


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("aligned", [False, True])
def test_roi_align_gradient(aligned: bool, sampling_ratio: int) -> None:
    rois = torch.tensor([[0, 1, 2, 13, 9], [1, 4, 0, 20, 11], [1, 3, 3, 3, 3]], dtype=torch.float64)

    def pool(features: Tensor) -> Tensor:
        return ops.roi_align(features, rois, (2, 3), 0.25, sampling_ratio, "avg", aligned)

    assert gradcheck(pool, (random(2, 2, 3, 5).requires_grad_(),))


def test_roi_align_of_no_regions() -> None:
    features = random(1, 2, 3, 5).float().requires_grad_()
    out = ops.roi_align(features, torch.zeros(0, 5), (2, 3), 0.25, 0, "avg", True)
    assert out.shape == (0, 2, 2, 3)
    out.sum().backward()
    assert_close(features.grad, torch.zeros(1, 2, 3, 5))


@served
def test_roi_align_max_is_not_served() -> None:
    with pytest.raises(NotImplementedError, match=r"'roi_align' with pool_mode='max'.*MMCV_WITH_OPS=1"):
        ops.roi_align(golden()["roi_x"], golden()["roi_rois"], (3, 5), 0.25, 0, "max", True)


@served
def test_roi_align_in_bfloat16() -> None:  # what --amp means on a CPU
    features = golden()["roi_x"].bfloat16().requires_grad_()
    out = ops.roi_align(features, golden()["roi_rois"].bfloat16(), (3, 5), 0.25, 2, "avg", True)
    out.backward(golden()["roi_grad_out"].bfloat16())
    assert out.dtype == features.grad.dtype == torch.bfloat16
    wide = features.detach().float().requires_grad_()
    expected = ops.roi_align(wide, golden()["roi_rois"].bfloat16().float(), (3, 5), 0.25, 2, "avg", True)
    expected.backward(golden()["roi_grad_out"].bfloat16().float())
    assert_close(out, expected.bfloat16())
    assert_close(features.grad, wide.grad.bfloat16())


# --- deformable convolution


def test_deform_conv_matches_compiled() -> None:
    x, weight, offset = leaf("dc_x"), leaf("dc_w"), leaf("dc_off")
    out = ops.deform_conv2d(x, offset, weight, 1, 1)
    out.backward(golden()["dc_grad_out"])
    for value, name in [(out, "y"), (x.grad, "gx"), (offset.grad, "goff"), (weight.grad, "gw")]:
        assert_close(
            value, golden()[f"dcn_{name}"], rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_modulated_deform_conv_matches_compiled() -> None:
    x, weight, offset, mask, bias = (leaf(f"dc_{name}") for name in ("x", "w", "off", "mask", "bias"))
    out = ops.modulated_deform_conv2d(x, offset, mask, weight, bias, 1, 1)
    out.backward(golden()["dc_grad_out"])
    leaves = {"gx": x, "goff": offset, "gmask": mask, "gw": weight, "gb": bias}
    for name, value in {"y": out, **{name: tensor.grad for name, tensor in leaves.items()}}.items():
        expected = golden()[f"dcnv2_{name}"]
        assert_close(value, expected, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


# Every pair differs between height and width, so that swapping them anywhere shows.
GEOMETRY = ((2, 1), (1, 2), (1, 2), 2, 2)  # stride, padding, dilation, groups, offset groups
X_SHAPE, WEIGHT_SHAPE, OUT_HW = (2, 4, 5, 7), (6, 2, 3, 2), (3, 9)


def deformable_operands() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Input, offset, mask, weight, bias; every sample stays clear of pixel centres, where the gradient jumps."""
    taps = 2 * WEIGHT_SHAPE[2] * WEIGHT_SHAPE[3]
    return (
        random(*X_SHAPE, seed=1).requires_grad_(),
        random(2, 2 * taps, *OUT_HW, seed=2, low=0.2, high=0.8).requires_grad_(),
        random(2, taps, *OUT_HW, seed=3, low=0.2, high=1).requires_grad_(),
        random(*WEIGHT_SHAPE, seed=4).requires_grad_(),
        random(WEIGHT_SHAPE[0], seed=5).requires_grad_(),
    )


def test_deform_conv_gradient() -> None:
    x, offset, _, weight, _ = deformable_operands()
    assert gradcheck(lambda *leaves: ops.deform_conv2d(*leaves, *GEOMETRY), (x, offset, weight), fast_mode=True)


@pytest.mark.parametrize("with_bias", [True, False])
def test_modulated_deform_conv_gradient(with_bias: bool) -> None:
    leaves = deformable_operands() if with_bias else deformable_operands()[:-1]

    def convolve(*leaves: Tensor) -> Tensor:
        bias = leaves[4] if with_bias else None
        return ops.modulated_deform_conv2d(*leaves[:4], bias, *GEOMETRY)

    assert gradcheck(convolve, leaves, fast_mode=True)


def test_without_offsets_it_is_a_convolution() -> None:
    x, offset, mask, weight, bias = (tensor.detach() for tensor in deformable_operands())
    stride, padding, dilation, groups, _ = GEOMETRY
    expected = F.conv2d(x, weight, None, stride, padding, dilation, groups)
    assert_close(ops.deform_conv2d(x, offset * 0, weight, *GEOMETRY), expected)
    modulated = ops.modulated_deform_conv2d(x, offset * 0, mask * 0 + 0.5, weight, bias, *GEOMETRY)
    assert_close(modulated, expected / 2 + bias[:, None, None])


@served
def test_deform_conv_in_bfloat16() -> None:
    half = [tensor.detach().bfloat16().requires_grad_() for tensor in deformable_operands()]
    wide = [tensor.detach().float().requires_grad_() for tensor in half]
    out, expected = (
        ops.modulated_deform_conv2d(x, offset, mask, weight, bias, *GEOMETRY)
        for x, offset, mask, weight, bias in (half, wide)
    )
    out.sum().backward()
    expected.sum().backward()
    assert_close(out, expected.bfloat16())
    for got, want in zip(half, wide, strict=True):
        assert_close(got.grad, want.grad.bfloat16())


# --- mmcv's buffers: forwards overwrite, gradients shared by many outputs are added to what is there


@served
def test_roi_align_fills_mmcvs_buffers() -> None:
    rois, out, grad = golden()["roi_rois"], torch.full((7, 4, 3, 5), 9.0), torch.full((2, 4, 12, 17), 9.0)
    empty = torch.zeros(0)
    ext.roi_align_forward(golden()["roi_x"], rois, out, empty, empty, 3, 5, 0.25, 2, 1, True)
    ext.roi_align_backward(golden()["roi_grad_out"], rois, empty, empty, grad, 3, 5, 0.25, 2, 1, True)
    assert_close(out, golden()["roi_align_avg_al1_sr2"])
    assert_close(grad, golden()["roi_align_avg_grad_al1_sr2"] + 9)


@served
def test_deform_conv_adds_the_scaled_weight_gradient() -> None:
    x, offset, grad_out, grad = (golden()[f"dc_{name}"] for name in ("x", "off", "grad_out", "w"))
    grad = torch.full_like(grad, 9.0)
    scratch = torch.zeros(0)
    ext.deform_conv_backward_parameters(
        x, offset, grad_out, grad, scratch, scratch, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, scale=0.5, im2col_step=2
    )
    assert_close(grad, golden()["dcn_gw"] * 0.5 + 9, rtol=1e-5, atol=1e-5)


@served
def test_softnms_fills_the_first_rows() -> None:
    dets = torch.full((60, 5), 9.0)
    keep = ext.softnms(golden()["nms_boxes"], golden()["nms_scores"], dets, 0.3, 0.5, 1e-3, 0, 0)
    assert_close(dets[: len(keep)], golden()["soft_nms_dets_naive_off0"])
    assert len(keep) < 60
