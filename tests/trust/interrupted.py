"""Kills at random moments, and full disks: a file is whole, or as it was, or not there; the next run works.

It runs in a process of its own (``python -m trust.interrupted``), for it forks.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from command_lines import CLS, ROOT
from export_models import save
from helpers import SMALL_ARCH

from repvgg_mm.checkpoint import find_state_dict, load_checkpoint
from repvgg_mm.cli.convert import main as convert_main
from repvgg_mm.cli.export import main as export_main
from repvgg_mm.cli.train import main as train_main
from repvgg_mm.data.digits import make_digits
from repvgg_mm.export.exported_file import open_exported
from repvgg_mm.reparam.difference import fixed_input

from .forked import Main, ended, kill_after, start
from .outcome import Outcome, Ran, every_seconds, leftovers

SHAPE = (1, 3, 32, 32)
JOBS = ("convert", "export", "train")


def check(paths: Sequence[str]) -> int:
    """Open files to their end, as a command line, for what opens them may start threads."""
    for path in paths:
        if path.endswith(".xml"):
            open_exported(path)(fixed_input(SHAPE))
        else:
            find_state_dict(load_checkpoint(path))
    return 0


class Job:
    """A command that writes, in a folder of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        """Make what it reads."""
        self.name, self.folder, self._said = name, folder / "out", folder / "said"
        self.folder.mkdir()
        self.main: Main = {"convert": convert_main, "export": export_main, "train": train_main}[name]
        save(CLS, folder / "model.pth")
        if name == "convert":
            state = torch.load(folder / "model.pth", weights_only=True)["state_dict"]
            state["ballast"] = torch.randn(6_000_000)  # so that writing takes a while
            torch.save(state, folder / "model.pth")
            self.arguments = [folder / "model.pth", self.folder / "out.pth", "--force"]
        elif name == "export":
            self.arguments = [folder / "model.pth", self.folder / "out.xml", "--size", *SHAPE[2:], "--force"]
        else:
            make_digits(folder / "digits", train_scenes=1, val_scenes=1, train_images=70, val_images=10)
            arch = [f"model.backbone.arch.{key}={value}".replace(" ", "") for key, value in SMALL_ARCH.items()]
            rest = ["train_cfg.val_interval=100000", "default_hooks.logger.interval=1000"]
            options = [f"data_root={folder / 'digits'}/classification", *rest, *arch]
            self.arguments = [ROOT / CLS, "--work-dir", self.folder, "--resume", "--cfg-options", *options]

    def files(self) -> list[Path]:
        """List what is there of what it writes."""
        return sorted(path for path in self.folder.iterdir() if path.suffix in (".pth", ".xml"))

    def newest(self) -> int:
        """Return the last epoch that a training saved."""
        return max([0, *(int(number) for path in self.files() for number in re.findall(r"epoch_(\d+)", path.name))])

    def start(self, epochs: int = 10**6, largest_file: int | None = None) -> int:
        """Start it."""
        more = [f"train_cfg.max_epochs={epochs}"] if self.name == "train" else []
        return start(self.main, [*self.arguments, *more], self._said, largest_file)

    def run(self, largest_file: int | None = None) -> Ran:
        """Run it to its end; a training for two more epochs."""
        return ended(self.start(self.newest() + 2, largest_file), self._said)

    def broken(self) -> str:
        """Say what is wrong with its files."""
        said = self._said.with_name("checked")
        ran = ended(start(check, self.files(), said), said)
        return "" if ran.code == 0 else ran.refusal.strip()[-300:]

    def kill(self, rng: random.Random, usual: float) -> bool:
        """Run it and kill it at a random moment: of ``usual`` seconds, or soon after a training saved something."""
        before, pid = self.newest(), self.start()
        if self.name == "train":
            until = time.monotonic() + 120
            while self.newest() == before and time.monotonic() < until and os.waitpid(pid, os.WNOHANG)[0] == 0:
                time.sleep(0.01)
            return kill_after(pid, rng.uniform(0, 0.5))
        return kill_after(pid, rng.uniform(0, usual))


def kills(name: str, size: int, seed: int = 0) -> Outcome:
    """Kill a command ``size`` times; then let it run."""
    outcome, rng = Outcome(f"kills of {name}"), random.Random(f"{seed} {name}")
    say = every_seconds(outcome.name, size)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(name, Path(folder))
        began = time.monotonic()
        first = job.run()
        usual = time.monotonic() - began
        if first.code:
            outcome.lost.append(f"does not run at all: {first}")
        for index in range(size):
            if name != "train" and index % 2:
                for path in job.files():
                    path.unlink()
            there = job.files()
            alive = job.kill(rng, usual)
            story = job.broken()
            if not story and name == "convert" and there and not job.files():
                story = "the old file is gone"
            outcome.add("killed" if alive else "done before", story and f"seed {seed}, kill {index}: {story}")
            say(index + 1)
        last = job.run()
        story = job.broken() or (f"exit {last.code} {last.refusal}" if last.code else "")
        if story or leftovers(job.folder):
            outcome.lost.append(f"the run after the kills: {story}, left: {leftovers(job.folder)}")
    return outcome


def full_disk(name: str, seed: int = 0) -> Outcome:
    """Run a command where no file may grow beyond a part of what it writes, first and over an old file."""
    outcome = Outcome(f"full disk while {name}ing".replace("eing", "ing"))
    with tempfile.TemporaryDirectory() as folder:
        job = Job(name, Path(folder))
        for there in (False, True):
            if there and (ran := job.run()).code:
                outcome.lost.append(f"does not run at all: {ran}")
            before = {path: path.read_bytes() for path in job.files()}
            ran = job.run(largest_file=40_000)
            whole = all(path.is_file() and path.read_bytes() == content for path, content in before.items())
            good = ran.code == 2 and ran.refusal and whole and set(job.files()) == set(before)
            left = leftovers(job.folder)
            outcome.add(f"exit {ran.code}", "" if good and not left else f"{ran}, left: {left}, old one whole: {whole}")
    return outcome


def main(arguments: Sequence[str]) -> None:
    """``kills NAME SIZE SEED`` or ``disk NAME SEED``; prints the outcome as JSON."""
    what, name, *numbers = arguments
    outcome = (kills if what == "kills" else full_disk)(name, *map(int, numbers))
    print(json.dumps(vars(outcome)))


if __name__ == "__main__":
    main(sys.argv[1:])
