"""Hostile checkpoints through every command that takes one: none runs, none is converted wrongly, none hangs.

It runs in a process of its own (``python -m trust.attacks``), for what it fends off would run in this one.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from command_lines import CLS, ROOT
from helpers import SMALL_ARCH, randomize_bn
from mmengine.config import Config
from mmengine.registry import MODELS

from repvgg_mm.cli.convert import main as convert_main
from repvgg_mm.cli.export import main as export_main
from repvgg_mm.cli.infer import main as infer_main
from repvgg_mm.cli.test import main as test_main
from repvgg_mm.cli.train import main as train_main
from repvgg_mm.data.digits import make_digits

from .outcome import Outcome, every_seconds, run_command

LIMIT = 20  # seconds that a command may take; what it works on has a dozen images
_WALL = 6 * LIMIT  # by the clock, for the machine may have other work: only what waits for ever takes as long


class Gadget:
    """Unpickling it makes a file."""

    def __init__(self, mark: Path) -> None:
        """Say which."""
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        """Name what to call."""
        return os.system, (f"touch {self._mark}",)


def _config() -> Config:
    cfg = Config.fromfile(ROOT / CLS)
    cfg.model.backbone.update(arch=SMALL_ARCH, init_cfg=None)
    return cfg


def hostile_configs(folder: Path) -> dict[str, str]:
    """What is added to a stored config, by name; each tries to make the file ``RAN_<name>``."""

    def mark(name: str) -> str:
        return f"{folder}/RAN_{name}"

    hub = folder / "hub"
    hub.mkdir()
    (hub / "hubconf.py").write_text(f"open({mark('hub')!r}, 'w')\ndef boom(*a, **k): raise KeyError('x')\n")
    (folder / "annotations.pkl").write_bytes(pickle.dumps(Gadget(folder / "RAN_annotations")))
    torch.save({"state_dict": Gadget(folder / "RAN_teacher")}, folder / "teacher.pth")
    (folder / "evil_module.py").write_text(f"open({mark('imports')!r}, 'w')\n")
    loader = "batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False)"
    call = f"dict(type='subprocess.call', args='touch {mark('pipeline')}', shell=True)"
    data = "type='mmdet.BaseDetDataset'"
    where = f"repo_or_dir='{hub}', model='boom', source='local', trust_repo=True"
    return {
        "pipeline": f"test_dataloader = dict({loader}, dataset=dict({data}, pipeline=[{call}]))\n"
        f"train_dataloader = dict({loader}, dataset=dict({data}, pipeline=[{call}]))",
        "hub": f"custom_hooks = [dict(type='EMAHook', ema_type='torch.hub.load', {where})]",
        "annotations": f"test_dataloader = dict({loader}, dataset=dict({data}, ann_file='{folder}/annotations.pkl'))",
        "evaluator": "test_evaluator = dict(type='mmengine.evaluator.DumpResults', "
        f"out_file_path='{mark('evaluator')}.pkl')",
        "visualizer": f"visualizer = dict(type='subprocess.call', args='touch {mark('visualizer')}', shell=True)",
        "imports": "custom_imports = dict(imports=['evil_module'])",
        "code": f"__import__('os').system('touch {mark('code')}')",
        "teacher": f"model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='{folder}/teacher.pth')))",
        "backbone": f"model = dict(data_preprocessor=dict(type='subprocess.call', args='touch {mark('backbone')}', "
        "shell=True, _delete_=True))",
        "wide": "model = dict(backbone=dict(arch=dict(width_multiplier=(500.0,) * 4)))",
        "deep": "model = dict(backbone=dict(arch=dict(num_blocks=(1, 10**7, 1, 1))))",
        "large": f"test_dataloader = dict({loader}, dataset=dict(type='ImageFolder', data_root='{folder}/digits', "
        "split='classification/val', transforms=[dict(type='Resize', size=(100_000, 100_000))]))",
        "many": f"test_dataloader = dict({loader.replace('num_workers=0', 'num_workers=100_000')}, "
        f"dataset=dict(type='ImageFolder', data_root='{folder}/digits', split='classification/val', transforms=[]))",
        "endless": f"test_dataloader = dict({loader}, dataset=dict({data}, ann_file='{folder}/pipe.json'))",
        "environment": f"env_cfg = dict(cudnn_benchmark=open('{mark('environment')}', 'w'))",
    }


def trained(folder: Path) -> dict[str, Any]:
    """Train for an epoch; return what the training saved, history and all."""
    options = [*_small(folder), "train_cfg.max_epochs=1"]
    ran = run_command(train_main, [ROOT / CLS, "--work-dir", folder / "trained", "--cfg-options", *options])
    assert ran.code == 0, ran
    return torch.load(folder / "trained" / "epoch_1.pth", weights_only=False)  # our own


def _with(text: str, more: str) -> str:
    """Add to a config's text: a call or an assignment as it is, but ``model`` merged, as a config with a base does."""
    if not more.startswith("model = "):
        return f"{text}\n{more}"
    cfg = Config.fromstring(text, ".py")
    cfg.merge_from_dict(Config.fromstring(more, ".py").to_dict())
    return cfg.pretty_text


def write_attacks(folder: Path, base: dict[str, Any]) -> list[Path]:
    """Write the checkpoints; the first one is harmless, so that every command is known to go through with it."""

    def put(name: str, config: str = "", **more: Any) -> Path:
        meta = {**base["meta"], "cfg": _with(base["meta"]["cfg"], config), **more}
        torch.save({**base, "meta": meta}, folder / f"{name}.pth")
        return folder / f"{name}.pth"

    written = [put("harmless"), put("pickle", x=Gadget(folder / "RAN_pickle"))]
    hub = {**base["message_hub"], "runtime_info": {"x": Gadget(folder / "RAN_history")}}
    torch.save({**base, "message_hub": hub}, folder / "history.pth")
    written += [folder / "history.pth"]
    written += [put(name, config) for name, config in hostile_configs(folder).items()]
    deep: Any = "end"
    for _ in range(5000):
        deep = [deep]
    doubled: Any = ["x"]
    for _ in range(40):
        doubled = [doubled, doubled]
    written += [put("doubled", x=doubled)]
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    written += [put("deep", x=deep)]
    sys.setrecursionlimit(limit)
    for pipe in ("pipe.pth", "pipe.json"):
        os.mkfifo(folder / pipe)
    return [*written, folder / "pipe.pth"]


def write_wrong_blocks(folder: Path) -> list[Path]:
    """Write bare weights with a block that is not what it seems: no conversion of it could be right."""
    weights = dict(randomize_bn(MODELS.build(_config().model)).state_dict())
    block = "backbone.stage1.0."
    kernel = weights[f"{block}rbr_dense.conv.weight"]
    channels, written = len(kernel), []
    for name, edit in {
        "both": {"rbr_reparam.weight": torch.ones_like(kernel), "rbr_reparam.bias": torch.ones(channels)},
        "int": {"rbr_dense.conv.weight": (kernel * 10).int()},
        "nan": {"rbr_dense.conv.weight": torch.full_like(kernel, float("nan"))},
        "inf": {"rbr_1x1.bn.weight": torch.full((channels,), float("inf"))},
        "convbias": {"rbr_dense.conv.bias": torch.ones(channels)},
        "unknown": {"rbr_3x1.conv.weight": torch.ones(channels)},
        "complex": {"rbr_dense.bn.running_mean": torch.ones(channels, dtype=torch.complex64)},
        "float8": {"rbr_dense.bn.running_var": torch.ones(channels).to(torch.float8_e4m3fn)},
        "negative": {"rbr_dense.bn.running_var": -torch.ones(channels)},
    }.items():
        torch.save({**weights, **{block + key: tensor for key, tensor in edit.items()}}, folder / f"{name}.pth")
        written.append(folder / f"{name}.pth")
    return written


def _small(folder: Path) -> list[str]:
    arch = [f"model.backbone.arch.{key}={value}".replace(" ", "") for key, value in SMALL_ARCH.items()]
    return [*arch, f"data_root={folder / 'digits'}/classification"]


def _commands(folder: Path, attack: Path) -> Iterator[tuple[str, Callable[..., int], list[object]]]:
    """Every command that takes a checkpoint."""
    out = folder / "work"
    image = next((folder / "digits").rglob("*.png"))
    options = [*_small(folder), "train_cfg.max_epochs=2"]
    train = [ROOT / CLS, "--work-dir", out]
    yield "convert", convert_main, [attack, out / "c.pth", "--force"]
    yield "test", test_main, [attack, "--work-dir", out]
    yield "test with a config", test_main, [ROOT / CLS, attack, "--work-dir", out, "--cfg-options", *options]
    yield "export", export_main, [attack, out / "e.onnx", "--size", 32, 32, "--force"]
    yield "export --int8", export_main, [attack, out / "e.onnx", "--size", 64, 64, "--int8", 2, "--force"]
    yield "infer", infer_main, [image, "--checkpoint", attack, "--out-dir", out / "infer"]
    yield "train from it", train_main, [*train, "--cfg-options", f"load_from={attack}", *options]
    yield "train --resume", train_main, [*train, "--resume", attack, "--cfg-options", *options]


def _too_long(signum: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"ran for more than {_WALL} s")


def attacks(size: int = 1, seed: int = 0) -> Outcome:
    """Give every hostile checkpoint to every command.

    Args:
        size: 0 gives them to one command each, in turn.
        seed: not used.
    """
    outcome = Outcome("hostile checkpoints given to commands")
    signal.signal(signal.SIGALRM, _too_long)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "work").mkdir()
        sys.path.insert(0, str(folder))  # where a stored config's custom_imports could find a module
        make_digits(folder / "digits", train_scenes=1, val_scenes=1, train_images=70, val_images=10)
        files = write_attacks(folder, trained(folder))
        say = every_seconds(outcome.name, len(files))
        for index, attack in enumerate(files):
            commands = list(_commands(folder, attack))
            for title, main, arguments in commands if size else [commands[index % len(commands)]]:
                end, story = _attack(folder, main, arguments)
                if attack.stem == "harmless" and end != "done without it":
                    story = story or "is refused, so nothing is tried"
                outcome.add(end, story and f"{attack.stem} given to {title}: {story}")
            say(index + 1)
        for attack in write_wrong_blocks(folder):
            ran = run_command(convert_main, [attack, folder / "work" / "c.pth", "--force"])
            outcome.add(
                "refused" if ran.code == 2 else f"exit {ran.code}",
                "" if ran.code == 2 and ran.refusal else f"{attack.stem} given to convert: {ran}",
            )
    return outcome


def _attack(folder: Path, main: Callable[..., int], arguments: list[object]) -> tuple[str, str]:
    """Run one command; return how it ended, and the story if the attack got its way."""
    story, began = "", time.process_time()
    signal.alarm(_WALL)
    try:
        ran = run_command(main, arguments)
        end = {0: "done without it", 2: "refused"}.get(ran.code, f"exit {ran.code}")
        if os.environ.get("TRUST_VERBOSE"):
            print(f"{arguments[:2]} {ran.code} {ran.refusal}", file=sys.stderr)
        if ran.code == 2 and not ran.refusal:
            story = "refused without a line"
    except BaseException as error:
        end, story = "crashed", f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.alarm(0)
    for mark in folder.glob("RAN_*"):
        mark.unlink()
        end, story = "ran", mark.name
    if time.process_time() - began > LIMIT / 2:
        story = story or "took too long"
    return end, story


if __name__ == "__main__":
    print(json.dumps(vars(attacks(*map(int, sys.argv[1:])))))
