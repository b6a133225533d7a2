"""Every architecture gives the numbers of the authors' code."""

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from golden_fill import fill, image
from torch import Tensor, nn

import repvgg_mm
from repvgg_mm.models import CREATORS
from repvgg_mm.reparam.difference import by_branches

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "official_repvgg.json").read_text())["archs"]
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def crc_of_keys(model: nn.Module) -> int:
    return zlib.crc32("\n".join(sorted(model.state_dict())).encode())


@contextmanager
def outputs_of(parts: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Collect what parts put out in the block."""
    outputs: dict[str, Tensor] = {}
    hooks = [
        part.register_forward_hook(lambda _part, _inputs, output, name=name: outputs.update({name: output}))
        for name, part in parts.items()
    ]
    yield outputs
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("creator", CREATORS)
def test_arch_equals_the_authors(creator: str) -> None:
    golden = GOLDEN[creator.removeprefix("create_").replace("_", "-")]
    with torch.device("meta"):  # no time for random weights: all are filled below
        model = getattr(repvgg_mm, creator)()
    model = fill(model.to_empty(device="cpu")).eval()
    assert (count(model), len(model.state_dict())) == (golden["train_params"], golden["train_keys"])
    assert crc_of_keys(model) == golden["train_keys_crc32"]
    x = image(golden["input"])
    with torch.no_grad(), by_branches(model), outputs_of(model.parts()) as outputs:
        logits = model(x)
    assert outputs.keys() == golden["stages"].keys()
    for name, output in outputs.items():
        expected = golden["stages"][name]
        assert list(output.shape) == expected["shape"]
        torch.testing.assert_close(float(output.double().mean()), expected["mean"], **TOLERANCE)
        torch.testing.assert_close(float(output.double().std()), expected["std"], **TOLERANCE)
        torch.testing.assert_close(output[0, :3, 0, 0], torch.tensor(expected["first"]), **TOLERANCE)
    torch.testing.assert_close(logits[0, :8], torch.tensor(golden["logits_first8"]), **TOLERANCE)
    model.switch_to_deploy()
    assert (count(model), len(model.state_dict())) == (golden["deploy_params"], golden["deploy_keys"])
    assert crc_of_keys(model) == golden["deploy_keys_crc32"]
    with torch.no_grad():
        torch.testing.assert_close(model(x), logits, **TOLERANCE)


@pytest.mark.parametrize("arch", ["A0", "B1g4"])
def test_built_deployed_equals_switched(arch: str) -> None:
    built = getattr(repvgg_mm, f"create_RepVGG_{arch}")(deploy=True)
    switched = getattr(repvgg_mm, f"create_RepVGG_{arch}")()
    switched.switch_to_deploy()
    shapes = [{key: tensor.shape for key, tensor in model.state_dict().items()} for model in (built, switched)]
    assert shapes[0] == shapes[1]
