"""A small classifier in float32, exported once."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from helpers import SMALL_ARCH, image, randomize_bn

from repvgg_mm.export.network import Network
from repvgg_mm.export.writers import write_onnx
from repvgg_mm.models import ImageClassifier
from repvgg_mm.reparam.convert import switch_to_deploy


@pytest.fixture(scope="session")
def samples() -> list[torch.Tensor]:
    return [image(1, 3, 32, 48, seed=seed) for seed in range(4)]


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory, samples: list[torch.Tensor], graphs_once: None) -> Path:
    torch.manual_seed(0)
    model = randomize_bn(ImageClassifier(backbone={"type": "RepVGG", "arch": SMALL_ARCH}, num_classes=10)).eval()
    switch_to_deploy(model)
    path = tmp_path_factory.mktemp("network") / "float32.onnx"
    write_onnx(Network(model), samples[0], ["logits"], path)
    return path


@pytest.fixture(scope="session")
def stretched(network: Path) -> Path:
    """The same function of the image, with one feature map a million times as large."""
    model = onnx.load(network)
    for tensor in model.graph.initializer:
        for layer, factor in (("stage2.0", 1e6), ("stage2.1", 1e-6)):
            if layer in tensor.name and (layer == "stage2.0" or tensor.name.endswith(".weight")):
                changed = onnx.numpy_helper.to_array(tensor) * np.float32(factor)
                tensor.CopyFrom(onnx.numpy_helper.from_array(changed, tensor.name))
    path = network.with_name("stretched.onnx")
    onnx.save(model, path)
    return path
