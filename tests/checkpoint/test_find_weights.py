"""Finding the weights in a checkpoint, averaged or not."""

import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from expectations import equal, one_line
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from repvgg_mm.checkpoint import (
    CheckpointError,
    drop_placeholders,
    find_config_text,
    find_state_dict,
    load_checkpoint,
    parse_config,
)
from repvgg_mm.checkpoint.unpickle import Placeholder


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "module.module."])
def test_wrappers_and_prefixes(wrapper: str | None, prefix: str) -> None:
    names = ["stage0.w", "head.module.weight", "module_list.0"]
    weights = OrderedDict((prefix + name, torch.ones(1)) for name in names)
    found = find_state_dict(weights if wrapper is None else {"epoch": 1, wrapper: weights, "optimizer": {}})
    assert list(found.state_dict) == names
    assert (found.wrapper, found.prefix) == (wrapper, prefix)


def test_a_prefix_that_not_every_name_has_stays() -> None:
    names = ["module.a.weight", "b.weight"]
    found = find_state_dict({name: torch.ones(1) for name in names})
    assert list(found.state_dict) == names and found.prefix == ""


def test_module_versions_follow_the_prefix() -> None:
    model = nn.Module()
    model.module = nn.Sequential(nn.BatchNorm2d(2))
    found = find_state_dict({"state_dict": model.state_dict()}).state_dict
    assert found._metadata == model.module.state_dict()._metadata
    assert found._metadata["0"] == {"version": 2}


def test_parameters_come_out_as_tensors_on_the_same_memory() -> None:
    parameter = nn.Parameter(torch.ones(2))
    tensor = find_state_dict({"w": parameter}).state_dict["w"]
    assert type(tensor) is torch.Tensor and not tensor.requires_grad and tensor.data_ptr() == parameter.data_ptr()


NOT_WEIGHTS = {
    "empty dict": {},
    "optimizer": torch.optim.SGD([torch.ones(1)], lr=0.1).state_dict(),
    "whole model (Linear)": nn.Linear(1, 1),
    "models.Net": Placeholder("models.Net"),
    "list": [torch.ones(1)],
    "a tensor": torch.ones(1),
    "'net', 'epoch'": {"net": {"w": torch.ones(1)}, "epoch": 2},
    "a whole model (Linear); save its state_dict()": {"model": nn.Linear(1, 1)},
    "'epoch' in the checkpoint is not a plain tensor but a int": {"w": torch.ones(1), "epoch": 3},
    "the key 3": {"w": torch.ones(1), 3: torch.ones(1)},
    "sparse": {"w": torch.ones(1), "s": torch.eye(2).to_sparse()},
}


@pytest.mark.parametrize("says", NOT_WEIGHTS)
def test_what_holds_no_weights_is_named(says: str) -> None:
    with pytest.raises(CheckpointError) as error:
        find_state_dict(NOT_WEIGHTS[says])
    one_line(error, says)


def test_quantized_weights_need_trust(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    path = tmp_path / "a.pth"
    torch.save({"w": quantized}, path)
    with pytest.raises(CheckpointError) as error:
        find_state_dict(load_checkpoint(path))
    one_line(error, "_rebuild_qtensor", "trust=True")


def test_averaged_weights_of_the_authors() -> None:
    checkpoint = {"model": {"w": torch.zeros(1)}, "ema": {"w": torch.ones(1)}}
    assert find_state_dict(checkpoint).state_dict["w"] == 0
    found = find_state_dict(checkpoint, ema=True)
    assert found.state_dict["w"] == 1 and found.wrapper == "ema"


def test_averaged_weights_of_timm_and_torchvision() -> None:
    averaged = torch.optim.swa_utils.AveragedModel(torch.nn.Linear(2, 3)).state_dict()
    assert {"n_averaged", "module.weight"} <= set(averaged)
    raw = {name.removeprefix("module."): tensor * 0 for name, tensor in averaged.items() if name != "n_averaged"}
    for wrapper in ("state_dict_ema", "model_ema"):
        found = find_state_dict({"state_dict": raw, wrapper: averaged, "epoch": 3}, ema=True)
        assert (found.wrapper, found.prefix, sorted(found.state_dict)) == (wrapper, "module.", ["bias", "weight"])
        assert found.state_dict["weight"].data_ptr() == averaged["module.weight"].data_ptr()


@pytest.mark.parametrize("checkpoint", [{"state_dict": {"w": torch.ones(1)}}, {"w": torch.ones(1)}, [1]])
def test_no_averaged_weights(checkpoint: object) -> None:
    with pytest.raises(CheckpointError) as error:
        find_state_dict(checkpoint, ema=True)
    one_line(error, "EMA")


# ---- checkpoints of a real mmengine Runner


@MODELS.register_module()
class TinyCheckpointModel(BaseModel):
    def __init__(self, channels: int = 4, init_cfg=None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.conv = nn.Conv2d(3, channels, 3)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, inputs, data_samples=None, mode="tensor"):
        out = self.bn(self.conv(inputs)).relu().mean((1, 2, 3))
        return {"loss": (out - 1).square().mean()} if mode == "loss" else out


@DATASETS.register_module()
class TinyCheckpointData(Dataset):
    metainfo = {"classes": ("a", "b"), "palette": [np.int64(1), 2], "offsets": np.zeros(2)}  # noqa: RUF012

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int):
        return {"inputs": torch.randn(3, 8, 12, generator=torch.Generator().manual_seed(index))}


@pytest.fixture(scope="module", params=["plain", "ema"])
def trained(request, tmp_path_factory) -> tuple[Runner, Path]:
    """Two iterations of training on the CPU, and the file that mmengine's CheckpointHook wrote."""
    folder = tmp_path_factory.mktemp(request.param)
    cfg = {
        "model": {"type": "TinyCheckpointModel", "channels": 5},
        "work_dir": str(folder),
        "experiment_name": f"{folder.parent.name}_{folder.name}",
        "train_dataloader": {
            "dataset": {"type": "TinyCheckpointData"},
            "batch_size": 2,
            "num_workers": 0,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
            "collate_fn": {"type": "default_collate"},
        },
        "train_cfg": {"by_epoch": False, "max_iters": 2},
        "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.5, "momentum": 0.9}},
        "param_scheduler": [{"type": "PolyLR", "by_epoch": False, "end": 9}],
        "default_hooks": {"checkpoint": {"type": "CheckpointHook", "interval": 2, "by_epoch": False}},
        "custom_hooks": [{"type": "EMAHook", "momentum": 0.25}] if request.param == "ema" else [],
        "randomness": {"seed": 0},
        "log_level": "WARNING",
    }
    runner = Runner.from_cfg(Config(cfg))
    runner.train()
    return runner, folder / "iter_2.pth"


def test_a_training_checkpoint_of_mmengine(trained: tuple[Runner, Path]) -> None:
    runner, path = trained
    loaded = load_checkpoint(path)
    trusted = load_checkpoint(path, trust=True)
    assert torch.serialization.get_unsafe_globals_in_checkpoint(path)  # what weights_only=True stumbles over
    assert list(loaded) == list(trusted)
    found, expected = find_state_dict(loaded), trusted["state_dict"]
    assert (found.wrapper, found.prefix) == ("state_dict", "")
    assert list(found.state_dict) == list(expected) == list(runner.model.state_dict())
    assert all(equal(found.state_dict[name], tensor) for name, tensor in expected.items())
    TinyCheckpointModel(5).load_state_dict(found.state_dict, strict=True)
    assert type(loaded["message_hub"]["log_scalars"]["train/loss"]) is Placeholder
    momentum = loaded["optimizer"]["state"][0]["momentum_buffer"]
    assert equal(momentum, trusted["optimizer"]["state"][0]["momentum_buffer"])


def test_the_config_and_meta_of_a_training_checkpoint(trained: tuple[Runner, Path]) -> None:
    runner, path = trained
    loaded = load_checkpoint(path)
    assert parse_config(find_config_text(loaded)) == runner.cfg.to_dict()
    assert find_config_text({**loaded, "meta": {}}) == find_config_text(loaded)  # the message hub has it too
    meta, dropped = drop_placeholders(loaded["meta"])
    assert dropped == ["dataset_meta.palette", "dataset_meta.offsets"]
    assert meta["dataset_meta"] == {"classes": ("a", "b")} and meta["iter"] == 2
    copy = path.with_name("meta.pth")
    torch.save({"meta": meta}, copy)
    assert torch.load(copy, weights_only=True)["meta"] == meta


def test_averaged_weights_of_mmengine(trained: tuple[Runner, Path]) -> None:
    runner, path = trained
    hook = next((hook for hook in runner.hooks if type(hook).__name__ == "EMAHook"), None)
    if hook is None:
        with pytest.raises(CheckpointError):
            find_state_dict(load_checkpoint(path), ema=True)
        return
    found = find_state_dict(load_checkpoint(path), ema=True)
    averaged = hook.ema_model.module.state_dict()
    assert list(found.state_dict) == list(averaged)
    assert all(equal(found.state_dict[name], tensor) for name, tensor in averaged.items())
    raw = load_checkpoint(path)["ema_state_dict"]
    assert equal(raw["module.conv.weight"], runner.model.state_dict()["conv.weight"])
    assert not equal(raw["module.conv.weight"], averaged["conv.weight"])


def test_averaged_weights_that_were_not_swapped() -> None:
    weights = {"state_dict": {"w": torch.zeros(1)}, "ema_state_dict": {"module.w": torch.ones(1)}}
    found = find_state_dict(weights, ema=True)
    assert found.state_dict == {"w": torch.ones(1)} and (found.wrapper, found.prefix) == ("ema_state_dict", "module.")
