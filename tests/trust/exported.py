"""Mutated exported files: refused in one line, or the very outputs of the whole file.

Runtimes are native code: the files are opened in a child process, and one that dies has lost.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from command_lines import CLS
from export_models import save

from repvgg_mm.checkpoint import CheckpointError
from repvgg_mm.export.export_checkpoint import export_checkpoint
from repvgg_mm.export.exported_file import open_exported
from repvgg_mm.reparam.difference import fixed_input

from .mutations import BYTES
from .outcome import Outcome, every_seconds, quiet

SHAPE = (1, 3, 32, 32)
BATCH = 100  # files a child opens


def change_number(data: bytes, rng: random.Random) -> bytes:
    """Change one digit."""
    places = [index for index, byte in enumerate(data) if 48 <= byte <= 57]
    if not places:
        return data[:-1]
    at = rng.choice(places)
    return data[:at] + str(rng.randrange(10)).encode() + data[at + 1 :]


def drop_line(data: bytes, rng: random.Random) -> bytes:
    """Leave a line out."""
    lines = data.splitlines(keepends=True)
    del lines[rng.randrange(len(lines))]
    return b"".join(lines)


_TEXT: tuple[Callable[[bytes, random.Random], bytes], ...] = (*BYTES, change_number, change_number, drop_line)


def whole_files(folder: Path) -> dict[str, list[Path]]:
    """Export one small classifier for both runtimes: the kind of file and its parts."""
    save(CLS, folder / "model.pth")
    found = {}
    for suffix, parts in {".onnx": (".onnx",), ".xml": (".xml", ".bin")}.items():
        with quiet():
            export_checkpoint(str(folder / "model.pth"), str(folder / f"whole{suffix}"), SHAPE[2:])
        found[suffix] = [folder / f"whole{part}" for part in parts]
    return found


def mutate(parts: list[Path], rng: random.Random, name: Path) -> str:
    """Write a copy of a file with one of its parts damaged; say how."""
    damaged = rng.randrange(len(parts))
    for index, part in enumerate(parts):
        data, how = part.read_bytes(), ""
        if index == damaged:
            change = rng.choice(_TEXT if part.suffix == ".xml" else BYTES)
            while (changed := change(data, rng)) == data:
                pass
            data, how = changed, f"{change.__name__} of {part.suffix}"
            said = how
        name.with_suffix(part.suffix).write_bytes(data)
    return said


def _open(path: str) -> list[torch.Tensor]:
    return open_exported(path)(fixed_input(SHAPE))


def child(folder: str, *paths: str) -> None:
    """Open files, and say a line for each: how it ended."""
    wanted = {suffix: _open(f"{folder}/whole{suffix}") for suffix in (".onnx", ".xml")}
    for path in paths:
        try:
            with quiet():
                got = _open(path)
        except (CheckpointError, FileNotFoundError) as error:
            end = "refused" if "\n" not in str(error) else "refused in many lines"
        except Exception as error:
            end = f"crashed: {type(error).__name__}: {error}"
        else:
            whole = wanted[Path(path).suffix]
            same = len(whole) == len(got) and all(map(torch.equal, whole, got))
            end = "same outputs" if same else "other outputs"
        print(json.dumps([path, end]), flush=True)


def _ends(folder: Path, paths: list[str]) -> dict[str, str]:
    """Open files in a child; where it dies, go on behind the file that killed it."""
    ends: dict[str, str] = {}
    while rest := [path for path in paths if path not in ends]:
        command = [sys.executable, "-m", "trust.exported", str(folder), *rest]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], timeout=300)
        ends.update(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
        if done.returncode:
            ends[next(path for path in rest if path not in ends)] = f"crashed: exit {done.returncode} {done.stderr}"
    return ends


def mutated_exports(size: int, seed: int = 0) -> Outcome:
    """Open ``size`` mutated files, of both runtimes in turn."""
    outcome = Outcome("mutated exported files opened")
    say = every_seconds(outcome.name, size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kinds = whole_files(folder)
        for start in range(0, size, BATCH):
            how: dict[str, str] = {}
            for index in range(start, min(size, start + BATCH)):
                suffix = list(kinds)[index % len(kinds)]
                path = folder / f"case{index}{suffix}"
                how[str(path)] = f"seed {seed}, case {index}, " + mutate(
                    kinds[suffix], random.Random(f"{seed} {index}"), path
                )
            for path, end in _ends(folder, list(how)).items():
                good = end in ("refused", "same outputs")
                outcome.add(end.split(":")[0], "" if good else f"{how[path]}: {end[-300:]}")
                for part in kinds[Path(path).suffix]:
                    Path(path).with_suffix(part.suffix).unlink()
            say(min(size, start + BATCH))
    return outcome


if __name__ == "__main__":
    child(*sys.argv[1:])
