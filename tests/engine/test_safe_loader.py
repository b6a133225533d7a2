"""Our loader in the place of mmengine's: nothing in a checkpoint runs, and what is resumed is what was saved."""

import uuid
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attacks import Gadget, plain_config, write
from command_lines import losses
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader, load_checkpoint
from torch import nn

from repvgg_mm.checkpoint import CheckpointError
from repvgg_mm.checkpoint.unpickle import Placeholder
from repvgg_mm.cli.command import InputError, run
from repvgg_mm.cli.train import main
from repvgg_mm.engine.limits import safe_loading
from repvgg_mm.engine.safe_loader import Loader, check_state


def gadget(path: Path, marker: Path, **state: Any) -> str:
    torch.save({"state_dict": nn.Linear(2, 3).state_dict(), "args": Gadget(marker), **state}, path)
    return str(path)


class TestLoading:
    """Of weights, whoever asks mmengine for them."""

    def test_load_checkpoint(self, tmp_path: Path) -> None:
        marker, module = tmp_path / "RAN", nn.Linear(2, 3)
        path = gadget(tmp_path / "a.pth", marker)
        with safe_loading():
            loaded = load_checkpoint(module, path)
        torch.testing.assert_close(module.state_dict(), loaded["state_dict"], rtol=0, atol=0)
        assert not marker.exists()
        with safe_loading(trust=True):
            load_checkpoint(module, path)
        assert marker.exists()  # the danger is real

    def test_pretrained_on_any_module(self, tmp_path: Path) -> None:
        class Neck(BaseModule):
            def __init__(self, path: str) -> None:
                super().__init__(init_cfg={"type": "Pretrained", "checkpoint": path})
                self.layer = nn.Linear(2, 3)

        marker, source = tmp_path / "RAN", Neck("")
        torch.save({"state_dict": source.state_dict(), "args": Gadget(marker)}, tmp_path / "a.pth")
        neck = Neck(str(tmp_path / "a.pth"))
        with safe_loading():
            neck.init_weights()
        torch.testing.assert_close(neck.state_dict(), source.state_dict(), rtol=0, atol=0)
        assert not marker.exists()

    @pytest.mark.parametrize(
        "address", ["s3://a/b.pth", "pavi://a", "open-mmlab://no_such", "x:s3://a/b.pth", "mmcls://vgg11"]
    )
    def test_other_addresses_are_refused(self, address: str) -> None:
        with safe_loading(), pytest.raises(CheckpointError, match=r"is unknown: choose a path|no_such"):
            CheckpointLoader.load_checkpoint(address)

    def test_names_of_mmengine_are_looked_up(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MMENGINE_HOME", str(tmp_path))
        path = gadget(tmp_path / "a.pth", tmp_path / "RAN")
        (tmp_path / "open_mmlab.json").write_text(f'{{"mine": "{path}"}}')
        with safe_loading():
            assert set(CheckpointLoader.load_checkpoint("open-mmlab://mine")) == {"state_dict", "args"}
        assert not (tmp_path / "RAN").exists()

    def test_mmengine_has_its_own_back(self) -> None:
        before = dict(CheckpointLoader._schemes)
        with pytest.raises(KeyError), safe_loading():
            assert CheckpointLoader._schemes != before
            raise KeyError
        assert CheckpointLoader._schemes == before


class TestTrainingState:
    """What mmengine needs to resume."""

    def test_numbers_come_back_to_the_bit(self, tmp_path: Path) -> None:
        generator = np.random.default_rng(0)
        numbers = {
            "float": np.float64(0.1),
            "half": np.float16(0.1),
            "int": np.int32(-3),
            "bool": np.bool_(True),
            "complex": np.complex64(1 + 2j),
            "matrix": generator.normal(size=(3, 5)),
            "fortran": np.asfortranarray(generator.normal(size=(3, 5)).astype(np.float32)),
            "empty": np.zeros((0, 2), np.uint8),
            "nan": np.array([np.nan, -0.0, np.inf]),
        }
        history = HistoryBuffer(generator.normal(size=7), np.arange(7), max_length=9)
        hub = {"log_scalars": OrderedDict(loss=history), "runtime_info": numbers, "resumed_keys": {}}
        path = tmp_path / "a.pth"
        torch.save({"meta": {}, "optimizer": {}, "message_hub": hub}, path)
        loaded = Loader(trust=False, resume=True).load(str(path))["message_hub"]
        for name, number in numbers.items():
            found = loaded["runtime_info"][name]
            assert np.asarray(found).astype(number.dtype).tobytes("A") == number.tobytes("A"), name
            assert np.shape(found) == number.shape, name
        got = loaded["log_scalars"]["loss"]
        assert type(loaded["log_scalars"]) is OrderedDict and type(got) is HistoryBuffer and got.max_length == 9
        for mine, theirs in zip(got.data, history.data, strict=True):
            assert mine.dtype == theirs.dtype and mine.tobytes() == theirs.tobytes()
        got.update(1.5)
        assert got.statistics("mean", 8) == pytest.approx((history.data[0].sum() + 1.5) / (history.data[1].sum() + 1))

    @pytest.mark.parametrize("place", ["meta", "message_hub", "optimizer", "param_schedulers"])
    def test_what_needs_code_is_refused_by_name(self, place: str, tmp_path: Path) -> None:
        hub = {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}}
        state = {"meta": {"epoch": 1}, "optimizer": {}, "param_schedulers": [], "message_hub": hub}
        state[place] = [{"x": Gadget(tmp_path / "RAN")}] if place == "param_schedulers" else {**state[place]}
        if place != "param_schedulers":
            state[place]["x"] = [Gadget(tmp_path / "RAN")]
        torch.save(state, tmp_path / "a.pth")
        with pytest.raises(CheckpointError, match=rf"{place}.* holds '\w+\.system'.*trust=True"):
            Loader(trust=False, resume=True).load(str(tmp_path / "a.pth"))
        assert Loader(trust=False, resume=False).load(str(tmp_path / "a.pth"))[place]  # for its weights, it serves
        assert not (tmp_path / "RAN").exists()

    @pytest.mark.parametrize("broken", ["object", "date", "big", "length", "inner", "self"])
    def test_what_is_not_quite_a_number_stays_a_placeholder(self, broken: str, tmp_path: Path) -> None:
        history = HistoryBuffer([1.0], [1], max_length=9)
        if broken == "length":
            history.max_length = "9"
        if broken == "inner":
            history._log_history = [1.0]
        if broken == "self":
            history._log_history = history
        values = {"object": np.array([None]), "date": np.array(["2020-01-01"], "M8[D]"), "big": np.array([1], ">i4")}
        torch.save({"meta": {}, "optimizer": {}, "message_hub": values.get(broken, history)}, tmp_path / "a.pth")
        loaded = Loader(trust=False, resume=False).load(str(tmp_path / "a.pth"))
        assert "not loaded" in repr(loaded["message_hub"])


# ---- as a command


class Named(OrderedDict[str, torch.Tensor]):
    """A state dict of a class of one's own."""


SHORT = ["train_cfg.max_epochs=1", "default_hooks.logger.interval=1", "train_dataloader.batch_size=10"]


def train(*arguments: str) -> int:
    """Train under a name of its own: mmengine keeps loggers by name, and names a run by the second it starts in."""
    return main([*arguments, f"experiment_name={uuid.uuid4().hex}"])


@pytest.fixture
def config(digits: Path, tmp_path: Path) -> str:
    path = tmp_path / "config.py"
    Config(plain_config(digits)).dump(path)
    return str(path)


@pytest.mark.parametrize("flag", ["--resume", "load_from"])
def test_training_runs_nothing_in_the_file_it_starts_from(
    flag: str, config: str, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker, cfg = tmp_path / "RAN", plain_config(digits)
    path = write(tmp_path / "a.pth", cfg, meta={"x": Gadget(marker)})
    start = ["--resume", path] if flag == "--resume" else []
    options = [*SHORT, *([f"load_from={path}"] if not start else [])]
    arguments = [config, "--work-dir", str(tmp_path / "work"), *start, "--cfg-options", *options]
    if start:
        with pytest.raises(SystemExit) as stop:
            run(lambda: train(*arguments))
        assert stop.value.code == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert "a.pth: its 'meta' holds" in line and "--trust-checkpoint" in line
    else:
        assert train(*arguments) == 0 and len(losses(tmp_path / "work")) == 4
    assert not marker.exists()


@pytest.mark.parametrize("check", [False, True])
def test_pretrained_weights_of_any_part_run_nothing(check: bool, config: str, digits: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.pth", plain_config(digits), meta={"x": Gadget(tmp_path / "RAN")})
    options = [*SHORT, "model.init_cfg.type=Pretrained", f"model.init_cfg.checkpoint={path}"]
    arguments = [config, "--work-dir", str(tmp_path / "work"), *(["--check"] if check else [])]
    assert train(*arguments, "--cfg-options", *options) == 0
    assert not (tmp_path / "RAN").exists()


def test_trust_reaches_the_weights_of_the_backbone(config: str, digits: Path, tmp_path: Path) -> None:
    """The file needs unpickling: the first run names the flag, the second has it."""
    path = tmp_path / "a.pth"
    write(path, plain_config(digits))
    saved = torch.load(path, weights_only=False)
    saved["state_dict"] = Named(saved["state_dict"])
    torch.save(saved, path)
    options = ["model.backbone.init_cfg.type=Pretrained", f"model.backbone.init_cfg.checkpoint={path}"]
    arguments = [config, "--work-dir", str(tmp_path / "work")]
    with pytest.raises(CheckpointError, match="trust=True"):
        train(*arguments, "--cfg-options", *SHORT, *options)
    assert train(*arguments, "--trust-checkpoint", "--cfg-options", *SHORT, *options) == 0


def test_resuming_from_the_work_dir_is_as_safe(config: str, digits: Path, tmp_path: Path) -> None:
    marker, work = tmp_path / "RAN", tmp_path / "work"
    work.mkdir()
    path = write(work / "epoch_1.pth", plain_config(digits), meta={"x": Gadget(marker)})
    (work / "last_checkpoint").write_text(path)
    with pytest.raises((CheckpointError, InputError), match="trust=True"):
        train(config, "--work-dir", str(work), "--resume", "--cfg-options", *SHORT)
    assert not marker.exists()


def test_a_config_of_old_in_the_file_is_not_run(config: str, digits: Path, tmp_path: Path) -> None:
    """mmengine executes ``meta['config']``, which mmcv 1.x wrote, when it resumes."""
    marker, work = tmp_path / "RAN", tmp_path / "work"
    code = f"open({str(marker)!r}, 'w').close()"
    arguments = [config, "--work-dir", str(work), "--cfg-options", *SHORT]
    assert train(*arguments) == 0
    saved = torch.load(work / "epoch_1.pth", weights_only=False)
    saved["meta"]["config"] = code
    torch.save(saved, tmp_path / "old.pth")
    options = ["--resume", str(tmp_path / "old.pth"), "--cfg-options", *SHORT, "train_cfg.max_epochs=2"]
    assert train(config, "--work-dir", str(tmp_path / "again"), *options) == 0
    assert sorted(losses(tmp_path / "again")) == [5, 6, 7, 8]
    assert not marker.exists()
    del saved["meta"]["config"]
    saved["meta"]["x"] = Gadget(marker)
    torch.save(saved, tmp_path / "old.pth")
    assert train(config, "--work-dir", str(tmp_path / "trusted"), "--trust-checkpoint", *options) == 0
    assert losses(tmp_path / "trusted") == losses(tmp_path / "again")
    assert marker.exists()


@pytest.mark.parametrize("nest", [list, tuple, set, lambda values: {"a": {"b": values}}])
def test_what_was_not_loaded_of_a_training_state_is_found_wherever_it_is(nest: Callable[[list], Any]) -> None:
    hub = {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}}
    check_state({"message_hub": hub, "optimizer": nest([1])}, "a.pth")
    with pytest.raises(CheckpointError, match=r"a\.pth: its 'optimizer' holds 'evil\.Thing'"):
        check_state({"message_hub": hub, "optimizer": nest([1, Placeholder("evil.Thing")])}, "a.pth")
