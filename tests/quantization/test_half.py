"""float16: near float32, and what it can't hold stays in float32, by name."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator

from repvgg_mm.quantization.half import halve, write_half
from repvgg_mm.quantization.layers import low_nodes

LARGE = "backbone.stage2.0.rbr_reparam"


def answer(path: Path, sample: torch.Tensor) -> torch.Tensor:
    """Compute in the numbers that stand in the file: ONNX Runtime would compute float16 in float32 on a CPU."""
    with np.errstate(all="ignore"):
        (logits,) = ReferenceEvaluator(str(path)).run(None, {"images": sample.numpy()})
    assert logits.dtype == np.float32
    return torch.from_numpy(logits)


def types(path: Path) -> dict[str, int]:
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def test_near_float32_in_half_the_bytes(network: Path, samples: list[torch.Tensor], tmp_path: Path) -> None:
    half = tmp_path / "half.onnx"
    assert halve(network, samples, half).layers == ()
    wanted = answer(network, samples[0])
    torch.testing.assert_close(answer(half, samples[0]), wanted, rtol=1e-2, atol=1e-2)
    assert set(types(half).values()) == {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64}


def test_what_overflows_stays_in_float32(stretched: Path, samples: list[torch.Tensor], tmp_path: Path) -> None:
    half = tmp_path / "half.onnx"
    found = halve(stretched, samples, half)
    assert found.first == LARGE and found.reach > 1e5
    convs = [name for name in found.layers if name.startswith("backbone")]
    assert convs == [LARGE, "backbone.stage2.1.rbr_reparam"]  # what makes the large numbers, and what takes them
    wanted = answer(stretched, samples[0])
    torch.testing.assert_close(answer(half, samples[0]), wanted, rtol=1e-2, atol=1e-2)
    kept = {name for name, kind in types(half).items() if kind == onnx.TensorProto.FLOAT}
    assert kept == {f"model.{name}.{part}" for name in convs for part in ("weight", "bias")}


def test_without_the_check_it_would_be_lost(stretched: Path, samples: list[torch.Tensor], tmp_path: Path) -> None:
    """The same conversion of every layer; else the test above shows nothing."""
    model = onnx.load(stretched)
    write_half(model, low_nodes(model), tmp_path / "half.onnx")
    assert not answer(tmp_path / "half.onnx", samples[0]).isfinite().all()


def test_a_weight_that_is_too_large(network: Path, samples: list[torch.Tensor], tmp_path: Path) -> None:
    model: Any = onnx.load(network)
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "model.linear.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(10, -1e5, dtype=np.float32), bias.name))
    onnx.save(model, tmp_path / "large.onnx")
    found = halve(tmp_path / "large.onnx", samples, tmp_path / "half.onnx")
    assert found.first == "linear" and found.layers == ("linear",)
    wanted = answer(tmp_path / "large.onnx", samples[0])
    torch.testing.assert_close(answer(tmp_path / "half.onnx", samples[0]), wanted, rtol=1e-2, atol=1e-2)
