"""Mutated checkpoints through ``convert``: refused in one line, or converted to what the file says, never otherwise."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from helpers import SMALL_ARCH, randomize_bn
from torch import Tensor

from repvgg_mm import RepVGGClassifier
from repvgg_mm.checkpoint import from_ours
from repvgg_mm.cli.convert import main as convert_main

from . import oracle
from .mutations import BYTES, STATES, rewrite_records
from .outcome import Outcome, every_seconds, leftovers, run_command

CONFIG = f"""
default_scope = 'mmengine'
model = dict(type='ImageClassifier', num_classes=3, backbone=dict(type='RepVGG', arch=dict({
    ", ".join(f"{name}={value}" for name, value in SMALL_ARCH.items())
})))
"""


@dataclass(frozen=True)
class Source:
    """A checkpoint to be damaged.

    Attributes:
        suffix: of its file.
        data: its bytes.
        layout: whose names it has.
    """

    suffix: str
    data: bytes
    layout: str


def weights(seed: int = 0, groups: int = 1) -> dict[str, Tensor]:
    """Training-form weights of a small classifier, with statistics as training leaves them."""
    torch.manual_seed(seed)
    return dict(randomize_bn(RepVGGClassifier({**SMALL_ARCH, "groups": groups}, 3), seed).state_dict())


def sources(folder: Path) -> list[Source]:
    """Write one checkpoint in every format and layout."""
    import safetensors.torch

    state, found = weights(), []
    wrapped = {"meta": {"cfg": CONFIG, "epoch": 3}, "state_dict": {f"backbone.{k}": v for k, v in state.items()}}
    wrapped["state_dict"] = {k.replace("backbone.linear", "linear"): v for k, v in wrapped["state_dict"].items()}
    for name, content, legacy in [
        ("authors", state, False),
        ("authors", state, True),
        ("repvgg_mm", wrapped, False),
        ("timm", dict(from_ours(state, "timm")), False),
    ]:
        torch.save(content, folder / "source.pth", _use_new_zipfile_serialization=not legacy)
        found.append(Source(".pth", (folder / "source.pth").read_bytes(), name))
    safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, folder / "source.safetensors")
    found.append(Source(".safetensors", (folder / "source.safetensors").read_bytes(), "authors"))
    return found


def read(path: Path) -> Mapping[str, Tensor] | None:
    """Read a checkpoint by torch's own reader, or safetensors'; None if these can't."""
    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            return safetensors.torch.load_file(path)
        loaded = torch.load(path, weights_only=True)
        loaded = loaded.get("state_dict", loaded)
        return {name.removeprefix("module."): tensor for name, tensor in loaded.items()}
    except Exception:
        return None


def _mutate(source: Source, rng: random.Random, path: Path) -> str:
    """Write a mutated copy; say how it was mutated."""
    plain = source.suffix == ".pth" and source.layout == "authors" and source.data[:2] == b"PK"
    if plain and rng.random() < 0.6:
        state, names = dict(weights(groups=rng.choice([1, 1, 2]))), []
        for change in rng.sample(STATES, rng.choice([1, 1, 2])):
            if state and all(isinstance(value, Tensor) for value in state.values()):
                state = change(state, rng)
                names.append(change.__name__)
        torch.save(state, path)
        return " and ".join(names)
    change_bytes = rewrite_records if source.data[:2] == b"PK" and rng.random() < 0.3 else rng.choice(BYTES)
    path.write_bytes(change_bytes(source.data, rng))
    return change_bytes.__name__


def _judge(path: Path, source: Source, out: Path) -> tuple[str, str]:
    """Convert a file; return how that ended, and the story if a promise was broken."""
    try:
        ran = run_command(convert_main, [path, out])
    except Exception as error:
        return "crashed", f"{type(error).__name__}: {error}"
    hidden = leftovers(path.parent)
    if ran.code != 0:
        if out.exists() or hidden:
            return "left something", f"exit {ran.code}, {hidden or out.name}"
        if ran.code == 2 and not ran.refusal:
            return "refused without a line", ran.printed
        return ("refused", "") if ran.code == 2 else ("found different", "" if ran.code == 1 else f"exit {ran.code}")
    written, said = read(out), read(path)
    if hidden or written is None:
        return "wrote a broken file", str(hidden)
    if said is None:  # torch can't read what we could: then it must be the file as it was before the damage
        said = read_source(source, path)
    try:
        wanted = oracle.convert({name.removeprefix("backbone."): t for name, t in _ours(said, source).items()})
    except Exception as error:
        return "wrong numbers", f"accepted what can't be converted ({type(error).__name__}: {error})"
    story = oracle.difference(wanted, {name.removeprefix("backbone."): t for name, t in written.items()})
    return ("converted", "") if not story else ("wrong numbers", story)


def read_source(source: Source, path: Path) -> Mapping[str, Tensor]:
    """Read the file as it was before the damage."""
    whole = path.with_name(f"whole{source.suffix}")
    whole.write_bytes(source.data)
    found = read(whole)
    whole.unlink()
    assert found is not None
    return found


def _ours(state: Mapping[str, Tensor], source: Source) -> Mapping[str, Tensor]:
    """Give timm's names ours, by hand."""
    if source.layout != "timm":
        return state
    table = {"conv_kxk": "rbr_dense", "conv_1x1": "rbr_1x1", "identity": "rbr_identity", "head.fc": "linear"}
    table |= {"stages.3": "stage4", "stages.2": "stage3", "stages.1": "stage2", "stages.0": "stage1", "stem": "stage0"}
    renamed = {}
    for name, tensor in state.items():
        for theirs, ours in table.items():
            name = name.replace(theirs, ours)
        renamed[name] = tensor
    return renamed


def mutated_checkpoints(size: int, seed: int = 0) -> Outcome:
    """Convert ``size`` mutated checkpoints."""
    outcome = Outcome("mutated checkpoints converted")
    say = every_seconds(outcome.name, size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kinds = sources(folder)
        for index in range(size):
            rng = random.Random(f"{seed} {index}")
            source = kinds[index % len(kinds)]
            path, out = folder / f"in{source.suffix}", folder / "out.pth"
            how = _mutate(source, rng, path)
            end, story = _judge(path, source, out)
            outcome.add(end, story and f"seed {seed}, case {index}, {source.layout}{source.suffix}, {how}: {story}")
            path.unlink()
            out.unlink(missing_ok=True)
            say(index + 1)
    return outcome
