"""The grid: the numbers that ONNX Runtime's QuantizeLinear and DequantizeLinear give, to the last bit."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from repvgg_mm.quantization.grid import channel_reach, fake_quantize, quantize, scale_of


def by_the_runtime(x: torch.Tensor, scale: torch.Tensor, axis: int) -> list[np.ndarray]:
    make, floats = onnx.helper.make_node, onnx.TensorProto.FLOAT
    stored = {"scale": scale.flatten().numpy(), "zero": np.zeros(scale.numel(), dtype=np.int8)}
    if scale.numel() == 1:
        stored = {name: array[0] for name, array in stored.items()}
    graph = onnx.helper.make_graph(
        [
            make("QuantizeLinear", ["x", "scale", "zero"], ["q"], axis=axis),
            make("DequantizeLinear", ["q", "scale", "zero"], ["y"], axis=axis),
        ],
        "g",
        [onnx.helper.make_tensor_value_info("x", floats, x.shape)],
        [
            onnx.helper.make_tensor_value_info("q", onnx.TensorProto.INT8, x.shape),
            onnx.helper.make_tensor_value_info("y", floats, x.shape),
        ],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    return list(onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x.numpy()}))


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_the_numbers_of_onnx(axis: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 5, 3, 7, generator=generator) * 3
    reach = x.abs().amax() if axis is None else channel_reach(x, axis)
    scale = scale_of(reach * 0.7)  # some numbers are cut off
    halves = (torch.randint(-130, 130, x.shape, generator=generator) + 0.5) * scale
    for numbers in (x, halves):
        wanted, back = by_the_runtime(numbers, scale, axis or 0)
        assert quantize(numbers, scale).numpy().astype(np.int8).tolist() == wanted.tolist()
        torch.testing.assert_close(fake_quantize(numbers, scale), torch.from_numpy(back), rtol=0, atol=0)


@pytest.mark.parametrize("bits, ends", [(8, 127), (6, 31), (4, 7)])
def test_where_the_grid_ends(bits: int, ends: int) -> None:
    scale = scale_of(torch.tensor(2.0), bits)
    x = torch.tensor([-9.0, -2.0, 0.0, 2.0, 9.0])
    assert quantize(x, scale, bits).tolist() == [-ends - 1, -ends, 0, ends, ends]
    assert quantize(x, scale, bits, narrow=True).tolist() == [-ends, -ends, 0, ends, ends]


def test_a_dead_channel_stays_zero() -> None:
    weight = torch.ones(2, 3, 3, 3)
    weight[1] = 0
    scale = scale_of(channel_reach(weight))
    assert scale.shape == (2, 1, 1, 1) and scale[1].item() == 1
    torch.testing.assert_close(fake_quantize(weight, scale), weight)
