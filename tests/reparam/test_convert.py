"""Whole models and bare state dicts."""

import copy
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from helpers import SMALL_ARCH, image, randomize_bn
from torch import nn

from repvgg_mm import RepVGG, RepVGGBlock, convert_state_dict, repvgg_model_convert, whole_model_convert
from repvgg_mm.models import RepVGGClassifier


class Segmentor(nn.Module):
    """A backbone with heads whose names try to confuse."""

    def __init__(self, deploy: bool = False, norm_cfg: dict | None = None) -> None:
        super().__init__()
        self.backbone = RepVGG(SMALL_ARCH, norm_cfg=norm_cfg or {"type": "BN"}, deploy=deploy)
        self.module = nn.Sequential(nn.Conv2d(64, 5, 1), nn.BatchNorm2d(5), nn.Conv2d(5, 5, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(self.backbone(x)[-1])


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return randomize_bn(Segmentor()).eval()


def test_convert_state_dict_equals_switching(model: nn.Module) -> None:
    converted = convert_state_dict(model.state_dict())
    deployed = whole_model_convert(model)
    assert list(converted) == list(deployed.state_dict())
    torch.testing.assert_close(converted, OrderedDict(deployed.state_dict()), rtol=0, atol=0)


def test_task_heads_are_the_very_same_tensors(model: nn.Module) -> None:
    before = model.state_dict()
    converted = convert_state_dict(before)
    heads = [key for key in before if key.startswith("module.")]
    assert len(heads) == 9 and all(converted[key] is before[key] for key in heads)


def test_the_source_stays_as_it_is(model: nn.Module) -> None:
    before, x = copy.deepcopy(model.state_dict()), image(1, 3, 64, 96)
    deployed = whole_model_convert(model)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert not any(block.deployed for block in model.modules() if isinstance(block, RepVGGBlock))
    with torch.no_grad():
        torch.testing.assert_close(deployed(x), model(x), rtol=1e-5, atol=1e-5)


def test_a_block_that_is_the_whole_model_is_converted() -> None:
    """Peer: timm's ``reparameterize_model`` never fuses the root module."""
    block = randomize_bn(RepVGGBlock(4, 4)).eval()
    assert whole_model_convert(block).deployed
    assert sorted(convert_state_dict(block.state_dict())) == ["rbr_reparam.bias", "rbr_reparam.weight"]


def test_whole_model_convert_into_a_deployed_model(model: nn.Module, tmp_path: Path) -> None:
    target, x = Segmentor(deploy=True).eval(), image(1, 3, 64, 96)
    assert whole_model_convert(model, target, tmp_path / "deployed.pth") is target
    with torch.no_grad():
        torch.testing.assert_close(target(x), model(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.load(tmp_path / "deployed.pth"), target.state_dict(), rtol=0, atol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["deployed.pth"]


def test_another_architecture_is_refused(model: nn.Module) -> None:
    with pytest.raises(ValueError, match="not the deployed form of train_model"):
        whole_model_convert(model, RepVGG(SMALL_ARCH, deploy=True))


def test_both_signatures_of_the_authors(tmp_path: Path) -> None:
    def build(deploy: bool = False) -> nn.Module:
        return RepVGGClassifier(SMALL_ARCH, 5, deploy=deploy)

    model, x = randomize_bn(build()).eval(), image(1, 3, 64, 96)
    old = repvgg_model_convert(model, build, save_path=tmp_path / "old.pth")
    new = repvgg_model_convert(model, tmp_path / "new.pth")
    assert (tmp_path / "old.pth").exists() and (tmp_path / "new.pth").exists()
    assert repvgg_model_convert(model) is not model
    with torch.no_grad():
        expected = model(x)
        for deployed in (old, new):
            torch.testing.assert_close(deployed.eval()(x), expected, rtol=1e-5, atol=1e-5)
    assert repvgg_model_convert(model, None, False) is model
    assert model.stage0.deployed


def test_converting_uses_no_random_numbers(model: nn.Module) -> None:
    state = torch.get_rng_state()
    whole_model_convert(model)
    convert_state_dict(model.state_dict())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_is_kept(model: nn.Module, dtype: torch.dtype) -> None:
    converted = convert_state_dict(model.to(dtype).state_dict())
    assert {tensor.dtype for key, tensor in converted.items() if not key.endswith("tracked")} == {dtype}


def test_eps_and_affine_false() -> None:
    model, x = (
        randomize_bn(Segmentor(norm_cfg={"type": "BN", "eps": 1e-2, "affine": False})).eval(),
        image(1, 3, 64, 96),
    )
    deployed = Segmentor(deploy=True).eval()
    deployed.load_state_dict(convert_state_dict(model.state_dict(), eps=1e-2))
    with torch.no_grad():
        torch.testing.assert_close(deployed(x), model(x), rtol=1e-5, atol=1e-5)


def test_module_versions_survive(model: nn.Module) -> None:
    """Heads such as mmcv's deformable convolutions rename tensors of files without a version."""
    metadata = convert_state_dict(model.state_dict())._metadata
    assert metadata["module.1"] == {"version": 2}
    assert not any("rbr_" in name for name in metadata)


def broken(state: dict, change: str) -> dict:
    prefix = "backbone.stage2.1."
    changes = {
        "missing": lambda: state.pop(prefix + "rbr_1x1.bn.running_mean"),
        "no_identity": lambda: [state.pop(key) for key in [*state] if key.startswith(prefix + "rbr_identity")],
        "half_affine": lambda: state.pop(prefix + "rbr_dense.bn.bias"),
        "shape": lambda: state.update({prefix + "rbr_1x1.conv.weight": torch.ones(16, 8, 1, 1)}),
        "kernel": lambda: state.update({prefix + "rbr_dense.conv.weight": torch.ones(16, 16, 5, 5)}),
        "negative": lambda: state[prefix + "rbr_dense.bn.running_var"].sub_(10),
        "nan": lambda: state[prefix + "rbr_identity.running_var"].fill_(float("nan")),
        "no_dense": lambda: state.pop(prefix + "rbr_dense.conv.weight"),
    }
    changes[change]()
    return state


@pytest.mark.parametrize(
    "change, message",
    [
        ("missing", r"backbone.stage2.1.rbr_1x1.bn.running_mean is missing"),
        ("no_identity", r"backbone.stage2.1.rbr_identity.running_mean is missing"),
        ("half_affine", r"backbone.stage2.1.rbr_dense.bn.bias is missing"),
        ("shape", r"rbr_1x1.conv.weight has shape \(16, 8, 1, 1\), not \(16, 16, 1, 1\)"),
        ("kernel", r"rbr_dense.conv.weight has shape \(16, 16, 5, 5\), not \(C_out, C_in / groups, 3, 3\)"),
        ("negative", r"rbr_dense.bn.running_var holds a negative or non-finite variance"),
        ("nan", r"rbr_identity.running_var holds a negative or non-finite variance"),
        ("no_dense", r"backbone.stage2.1.rbr_dense.conv.weight is missing"),
    ],
)
def test_damaged_blocks_are_refused(model: nn.Module, change: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert_state_dict(broken(copy.deepcopy(model.state_dict()), change))


KERNEL, POINTWISE = "rbr_dense.conv.weight", "rbr_1x1.conv.weight"
ODD_TENSORS = [
    ({KERNEL: lambda t: (t * 10).int()}, KERNEL + " is torch.int32: a block is fused in float16, bfloat16, float32"),
    ({KERNEL: lambda t: t.to(torch.complex64)}, "is torch.complex64"),
    ({"rbr_1x1.bn.running_mean": lambda t: t.to(torch.float8_e4m3fn)}, "running_mean is torch.float8_e4m3fn"),
    ({"rbr_1x1.bn.weight": lambda t: t > 0}, "is torch.bool"),
    ({POINTWISE: lambda t: t / 0}, POINTWISE + " holds NaN or infinity"),
    ({KERNEL: lambda t: t * float("nan")}, KERNEL + " holds NaN or infinity"),
    ({"rbr_identity.running_mean": lambda t: t / 0}, "rbr_identity.running_mean holds NaN or infinity"),
    ({"rbr_identity.bias": lambda t: t * float("nan")}, "rbr_identity.bias holds NaN or infinity"),
    ({"rbr_dense.bn.running_var": lambda t: t / 0}, "negative or non-finite variance"),
    ({POINTWISE: lambda t: t.half()}, r"is torch.float32, but .*rbr_1x1.conv.weight is torch.float16"),
    ({"rbr_1x1.bn.running_mean": lambda t: t.double()}, r"is torch.float32, but .*running_mean is torch.float64"),
    ({KERNEL: lambda t: t.double(), POINTWISE: lambda t: t.double()}, "its kernels are torch.float64, its batch norm"),
    ({KERNEL: lambda t: t[:0]}, r"has shape \(0, 16, 3, 3\), not \(C_out"),
    ({KERNEL: lambda t: t[:, :0]}, r"has shape \(16, 0, 3, 3\), not \(C_out"),
    ({"rbr_dense.bn.weight": lambda t: t[0]}, r"rbr_dense.bn.weight has shape \(\), not \(16,\)"),
    ({KERNEL: lambda t: t[:, :12], POINTWISE: lambda t: t[:, :12]}, "which fits no identity branch"),
    ({KERNEL: lambda t: t.to("meta")}, "is a meta tensor: it has no values"),
    ({KERNEL: lambda t: t.to_sparse()}, "is torch.sparse_coo, not a plain tensor"),
    (
        {KERNEL: lambda t: t[0, 0, 0, 0].expand(10**6, 10**6, 3, 3)},
        "claims 9000000000000 numbers, its storage holds 2304",
    ),
    ({KERNEL: lambda t: t.tolist()}, "is a list, not a tensor"),
    (
        {"rbr_dense.bn.weight": lambda t: t * 1e30, KERNEL: lambda t: t * 1e30},
        "rbr_reparam.weight as torch.float32 holds",
    ),
]
UNKNOWN = [
    ("rbr_dense.conv.bias", "rbr_dense.conv.bias is no tensor of a RepVGG block"),
    ("rbr_1x1.conv.bias", "rbr_1x1.conv.bias is no tensor of a RepVGG block"),
    ("rbr_identity.gamma", "rbr_identity.gamma is no tensor"),
    ("rbr_avg.weight", "rbr_avg.weight is no tensor"),  # YOLOv6's QARepVGGBlockV2
    ("bn.weight", "2.1.bn.weight is no tensor"),  # its batch normalisation behind the sum
    ("rbr_dense.conv.lora_A", "lora_A is no tensor"),
    ("rbr_reparam.weight", "rbr_reparam.weight stands beside the branches: the block holds both forms"),
    ("rbr_reparam.bias", "rbr_reparam.bias stands beside the branches"),
]


@pytest.mark.parametrize(("changes", "message"), ODD_TENSORS, ids=[message[:40] for _, message in ODD_TENSORS])
def test_a_block_that_is_not_what_it_seems_is_refused(model: nn.Module, changes: dict, message: str) -> None:
    state = model.state_dict()
    for name, change in changes.items():
        state[f"backbone.stage2.1.{name}"] = change(state[f"backbone.stage2.1.{name}"])
    with pytest.raises(ValueError, match=f"^backbone.stage2.1.*{message}"):
        convert_state_dict(state)


@pytest.mark.parametrize(("name", "message"), UNKNOWN)
def test_no_tensor_of_a_block_is_dropped_in_silence(model: nn.Module, name: str, message: str) -> None:
    state = {**model.state_dict(), f"backbone.stage2.1.{name}": torch.ones(16)}
    with pytest.raises(ValueError, match=message):
        convert_state_dict(state)


def test_tensors_behind_the_sum_stay(model: nn.Module) -> None:
    added = {
        f"backbone.stage2.1.{name}": torch.ones(16)
        for name in ("se.down.bias", "post_se.up.bias", "nonlinearity.weight")
    }
    converted = convert_state_dict({**model.state_dict(), **added})
    assert all(converted[key] is added[key] for key in added)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_kernels_with_float_batch_normalisation(model: nn.Module, dtype: torch.dtype) -> None:
    """As AMP leaves them."""
    state = {key: t.to(dtype) if ".conv.weight" in key else t for key, t in model.state_dict().items()}
    converted = convert_state_dict(state)
    assert converted["backbone.stage0.rbr_reparam.weight"].dtype == dtype


@pytest.mark.parametrize("eps", [-1e-5, float("nan"), float("inf")])
def test_an_impossible_eps(model: nn.Module, eps: float) -> None:
    with pytest.raises(ValueError, match=r"eps=.*: give what the batch normalisations add"):
        convert_state_dict(model.state_dict(), eps)


def test_nothing_to_convert(model: nn.Module) -> None:
    with pytest.raises(ValueError, match="no RepVGG block"):
        convert_state_dict(nn.Linear(2, 2).state_dict())
    with pytest.raises(ValueError, match="already deployed"):
        convert_state_dict(whole_model_convert(model).state_dict())
    with pytest.raises(ValueError, match="Linear: no RepVGG block"):
        whole_model_convert(nn.Linear(2, 2))


def test_in_place_with_a_file(tmp_path: Path) -> None:
    model = randomize_bn(RepVGGClassifier(SMALL_ARCH, 3)).eval()
    deployed = repvgg_model_convert(model, save_path=tmp_path / "deployed.pth", do_copy=False)
    assert deployed is model
    torch.testing.assert_close(torch.load(tmp_path / "deployed.pth"), model.state_dict(), rtol=0, atol=0)
