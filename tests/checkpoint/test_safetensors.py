"""Weights as .safetensors."""

import os
import stat
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from repvgg_mm.checkpoint import CheckpointError, find_state_dict, load_checkpoint, save_checkpoint
from repvgg_mm.convert.convert_checkpoint import same_bits


@pytest.fixture(autouse=True)
def _needs_the_package(request: pytest.FixtureRequest) -> None:
    if "without_package" not in request.node.name:
        pytest.importorskip("safetensors")


def weights() -> dict[str, torch.Tensor]:
    shared = torch.randn(6, generator=torch.Generator().manual_seed(0))
    return {
        "conv.weight": torch.arange(54.0).reshape(2, 3, 3, 3).to(memory_format=torch.channels_last),
        "half": torch.tensor([1.5, float("nan"), -0.0], dtype=torch.float16),
        "bfloat": torch.tensor([[3.25]], dtype=torch.bfloat16),
        "double": torch.tensor([1 / 3], dtype=torch.float64),
        "bn.num_batches_tracked": torch.tensor(7),
        "mask": torch.tensor([True, False]),
        "none": torch.empty(0, 3),
        "slice": shared[1:3],
        "other": shared[2:],
        "tied": shared[2:],
        "parameter": nn.Parameter(torch.ones(2)),
    }


def assert_same_weights(loaded: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert set(loaded) == set(wanted)
    assert all(same_bits(loaded[name].detach(), tensor.detach()) for name, tensor in wanted.items())


def test_a_state_dict_comes_back_to_the_bit(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_checkpoint(weights(), path)
    assert_same_weights(load_checkpoint(path), weights())
    assert list(tmp_path.iterdir()) == [path]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_meta_comes_back_and_what_json_cannot_hold_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    meta = {"cfg": "a = 'é'\n", "epoch": 3, "dataset_meta": {"classes": ("cat", "dog")}, "odd": torch.zeros(1)}
    save_checkpoint({"meta": meta, "state_dict": weights()}, path)
    loaded = load_checkpoint(path)
    assert loaded["meta"] == {"cfg": "a = 'é'\n", "epoch": 3, "dataset_meta": {"classes": ["cat", "dog"]}}
    assert_same_weights(find_state_dict(loaded).state_dict, weights())


def test_other_programs_read_it_and_theirs_are_read(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    save_checkpoint({"meta": {}, "state_dict": weights()}, ours)
    assert_same_weights(load_file(ours), weights())
    save_file({"fc.weight": torch.ones(2)}, theirs, {"format": "pt"})
    assert_same_weights(load_checkpoint(theirs), {"fc.weight": torch.ones(2)})


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\xff" * 64, (2).to_bytes(8, "little") + b"{]"])
def test_a_damaged_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"cannot load .*weights\.safetensors: ") as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)


def test_meta_that_is_no_json_is_one_line(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "weights.safetensors"
    for text in ("{", "[" * 100_000):
        save_file({"a": torch.ones(1)}, path, {"repvgg_mm.meta": text})
        with pytest.raises(CheckpointError, match="cannot load"):
            load_checkpoint(path)


@pytest.mark.parametrize("more", [{"optimizer": {}}, {"state_dict": [1]}, {"epoch": 3}])
def test_more_than_weights_and_meta_is_refused_and_nothing_is_written(tmp_path: Path, more: dict) -> None:
    with pytest.raises(CheckpointError, match="holds weights and meta only"):
        save_checkpoint({"state_dict": weights(), "meta": {}} | more, tmp_path / "weights.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_dtype_that_the_format_lacks_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot write these weights"):
        save_checkpoint({"a": torch.ones(2, dtype=torch.complex128)}, tmp_path / "weights.safetensors")
    assert not list(tmp_path.iterdir())


def test_an_existing_file_needs_force(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_checkpoint({"a": torch.ones(1)}, path)
    with pytest.raises(FileExistsError):
        save_checkpoint({"a": torch.zeros(1)}, path)
    save_checkpoint({"a": torch.zeros(1)}, path, force=True)
    assert load_checkpoint(path)["a"] == 0


def test_without_package_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.safetensors"
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match="pip install safetensors"):
        save_checkpoint({"a": torch.ones(1)}, path)
    assert not list(tmp_path.iterdir())
    path.write_bytes(b"anything")
    with pytest.raises(ImportError, match="pip install safetensors"):
        load_checkpoint(path)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a bound on the size of files")
def test_an_error_of_the_system_stays_one(tmp_path: Path) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_checkpoint({"w": torch.zeros(9999)}, tmp_path / "a.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())
