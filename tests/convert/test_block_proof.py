"""Blocks proven from their tensors alone."""

import pytest
import torch
from helpers import SMALL_ARCH, randomize_bn

from repvgg_mm import RepVGGBlock, RepVGGClassifier, convert_state_dict
from repvgg_mm.convert.block_proof import _pieces, prove_blocks
from repvgg_mm.reparam.block_names import block_prefixes

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def forms(dtype: torch.dtype = torch.float32, groups: int = 1, eps: float = 1e-5) -> tuple[dict, dict]:
    torch.manual_seed(0)
    model = randomize_bn(RepVGGClassifier({**SMALL_ARCH, "groups": groups}, 3))
    weights = {key: t.to(dtype) if t.is_floating_point() else t for key, t in model.state_dict().items()}
    return weights, convert_state_dict(weights, eps)


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sound_conversions_pass(dtype: torch.dtype, groups: int) -> None:
    weights, converted = forms(dtype, groups)
    proofs = prove_blocks(weights, converted, block_prefixes(weights), 1e-5)
    assert [f"{proof.block}." for proof in proofs] == block_prefixes(weights) and len(proofs) == 7
    assert all(proof.dtype == dtype and not proof.failed and proof.exceedance < 0.3 for proof in proofs)
    assert all(proof.exact.relative > 0 for proof in proofs)  # really two computations


@pytest.mark.parametrize("name", ["rbr_reparam.weight", "rbr_reparam.bias"])
def test_every_single_number_counts(name: str) -> None:
    weights, converted = forms()
    tensor = converted[f"stage2.1.{name}"].contiguous()
    for index in range(0, tensor.numel(), 7):
        changed = {**converted, f"stage2.1.{name}": tensor.clone()}
        changed[f"stage2.1.{name}"].view(-1)[index] += 0.02
        proofs = prove_blocks(weights, changed, block_prefixes(weights), 1e-5)
        assert [proof.block for proof in proofs if proof.failed] == ["stage2.1"]


@pytest.mark.parametrize("mistake", ["flipped", "transposed", "no_identity", "wrong_eps", "nan"])
def test_typical_mistakes(mistake: str) -> None:
    weights, converted = forms()
    key = "stage2.1.rbr_reparam.weight"
    wrong = {
        "flipped": lambda: converted[key].flip(3),
        "transposed": lambda: converted[key].transpose(2, 3).contiguous(),
        "no_identity": lambda: converted[key] - torch.nn.functional.pad(torch.eye(16)[:, :, None, None], (1, 1, 1, 1)),
        "wrong_eps": lambda: convert_state_dict(weights, 1e-3)[key],
        "nan": lambda: converted[key] * float("nan"),
    }[mistake]()
    proofs = prove_blocks(weights, {**converted, key: wrong}, ["stage2.1."], 1e-5)
    assert proofs[0].failed and proofs[0].exceedance > 1


def test_branches_that_overflow_where_the_kernel_does_not() -> None:
    """Right in float64, wrong in the dtype that the file is used in."""
    weights, _ = forms()
    weights["stage0.rbr_dense.bn.weight"] = torch.full((8,), 3e38)
    (proof,) = prove_blocks(weights, convert_state_dict(weights), ["stage0."], 1e-5)
    assert proof.exact.relative < 1e-6 and proof.failed


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("channels", [(4, 4), (4, 6)])
@pytest.mark.parametrize(
    "options", [{}, {"stride": 2}, {"dilation": 2}, {"groups": 2, "padding_mode": "reflect"}], ids=str
)
def test_geometry_plays_no_part(options: dict, channels: tuple[int, int], affine: bool) -> None:
    def norm(count: int) -> torch.nn.BatchNorm2d:
        return torch.nn.BatchNorm2d(count, affine=affine)

    weights = randomize_bn(RepVGGBlock(*channels, norm_layer=norm, **options)).state_dict()
    (proof,) = prove_blocks(weights, convert_state_dict(weights), [""], 1e-5)
    assert not proof.failed and proof.block == ""


def test_half_kernels_with_float_batch_normalisation() -> None:
    weights, _ = forms()
    weights = {key: t.half() if ".conv.weight" in key else t for key, t in weights.items()}
    assert not any(p.failed for p in prove_blocks(weights, convert_state_dict(weights), block_prefixes(weights), 1e-5))


def test_the_random_state_stays() -> None:
    weights, converted = forms()
    before = torch.get_rng_state()
    first, second = (prove_blocks(weights, converted, block_prefixes(weights), 1e-5) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before) and first == second


@pytest.mark.parametrize("has_identity", [True, False])
@pytest.mark.parametrize(("channels", "per_group"), [(7, 7), (64, 1), (12, 4), (2560, 640), (1280, 1280), (30000, 3)])
def test_pieces_cover_every_channel_once(channels: int, per_group: int, has_identity: bool) -> None:
    pieces = list(_pieces(channels, per_group, has_identity))
    covered = [channel for rows, _, _ in pieces for channel in range(rows.start, rows.stop)]
    assert covered == list(range(channels))
    for rows, inputs, groups in pieces:
        assert inputs.stop - inputs.start == groups * per_group and (rows.stop - rows.start) % groups == 0
        if has_identity:  # as many channels out as in: those of a group read those of its number
            seen = {per_group * (row // per_group) for row in range(rows.start, rows.stop)}
            assert seen == set(range(inputs.start, inputs.stop, per_group))
