"""A signal ends a training with a checkpoint from which it goes on as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.sharedctypes import RawValue
from pathlib import Path

import pytest
import torch
from command_lines import ROOT, environment, losses
from torch.utils._pytree import tree_flatten
from training_runs import EPOCHS, ITERATIONS, Done, at, finish, start_processes, train, write_config

from repvgg_mm.engine.interrupts import _Signals

WORKERS = "train_dataloader = dict(num_workers=1)\n"


@pytest.fixture(scope="module")
def whole(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Train without a signal, once for each kind of loop."""
    found: dict[str, Path] = {}

    def run(kind: str) -> Path:
        if kind not in found:
            found[kind] = tmp_path_factory.mktemp("whole")
            done = train(write_config(found[kind], digits, kind), found[kind] / "work")
            assert done.code == 0, done.err
        return found[kind] / "work"

    return run


def assert_equal(path: Path, other: Path) -> None:
    one, two = (torch.load(file, weights_only=False) for file in (path, other))
    for key in ("state_dict", "optimizer", "param_schedulers"):
        (leaves, structure), (leaves_of_other, structure_of_other) = tree_flatten(one[key]), tree_flatten(two[key])
        assert structure == structure_of_other
        for leaf, leaf_of_other in zip(leaves, leaves_of_other, strict=True):
            assert torch.equal(leaf, leaf_of_other) if isinstance(leaf, torch.Tensor) else leaf == leaf_of_other


@pytest.mark.parametrize(
    "kind, where, signum, saved, last",
    [
        (ITERATIONS, 3, signal.SIGTERM, "iter_3.pth", "iter_6.pth"),
        (ITERATIONS, 4, signal.SIGINT, "iter_4.pth", "iter_6.pth"),  # where the hook saves as well
        (EPOCHS + WORKERS, 6, signal.SIGINT, "interrupted_iter_6.pth", "epoch_2.pth"),  # in the middle of an epoch
        (EPOCHS, 4, signal.SIGTERM, "interrupted_iter_4.pth", "epoch_2.pth"),  # behind its last iteration
    ],
)  # fmt: skip
def test_a_stopped_run_goes_on_bit_identically(
    digits: Path,
    tmp_path: Path,
    whole: Callable[[str], Path],
    kind: str,
    where: int,
    signum: int,
    saved: str,
    last: str,
) -> None:
    name = signal.Signals(signum).name
    work_dir, handlers = tmp_path / "work", [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    done = train(write_config(tmp_path / "stopped", digits, kind, at(where, name.lower())), work_dir)
    line = f"stopped by {name} after iteration {where}: saved {work_dir / saved}; go on with --resume\n"
    assert (done.code, done.err) == (128 + signum, line)
    assert sorted(losses(work_dir)) == list(range(1, where + 1))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    time.sleep(1)  # mmengine names a run's folder by the second
    done = train(write_config(tmp_path / "resumed", digits, kind), work_dir, "--resume")
    assert done.code == 0 and f"resuming from {work_dir / saved}" in done.out, done.err
    undisturbed = whole(kind)
    assert losses(work_dir) == losses(undisturbed)
    assert_equal(work_dir / last, undisturbed / last)


def test_a_validation_ends_and_its_weights_are_saved(
    digits: Path, tmp_path: Path, whole: Callable[[str], Path]
) -> None:
    """With EMA, whose hook exchanges the weights for a validation."""
    kind = ITERATIONS.replace("val_interval=100", "val_interval=3")
    extra = 'dict(type="EMAHook"), dict(type="ReplaySeedHook")'
    ema = kind + f"custom_hooks = [{extra}]\n"
    whole_dir = whole(ema)
    signals = kind + f'custom_hooks = [{extra}, dict(type="At", iteration=3, what="sigterm_in_validation")]\n'
    done = train(write_config(tmp_path / "stopped", digits, signals), tmp_path / "work")
    assert done.code == 143 and "after iteration 3" in done.err and "accuracy/top1" in done.out, done.err
    time.sleep(1)
    done = train(write_config(tmp_path / "resumed", digits, ema), tmp_path / "work", "--resume")
    assert done.code == 0, done.err
    assert_equal(tmp_path / "work/iter_6.pth", whole_dir / "iter_6.pth")


def started(config: Path, work_dir: Path, digits: Path, count: int) -> list:
    """Processes that wait in an iteration."""
    processes = start_processes(config, work_dir, digits, count)
    deadline = time.monotonic() + 60
    while not (work_dir / "waiting").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return processes


def test_a_second_signal_ends_at_once(digits: Path, tmp_path: Path) -> None:
    (process,) = started(write_config(tmp_path, digits, ITERATIONS, at(3, "wait")), tmp_path / "work", digits, 1)
    for pause in (0.1, 1.5, 0):  # a terminal and torchrun may both send the first one
        process.send_signal(signal.SIGTERM)
        time.sleep(pause)
    (end,) = finish([process], 10)
    assert end.code == -signal.SIGTERM and "Traceback" not in end.err


def test_workers_that_wait_end_with_the_training_however_that_ends(digits: Path, tmp_path: Path) -> None:
    """In whole processes: Python ends workers at its exit by one SIGTERM, and waits."""
    workers = "train_dataloader = dict(num_workers=1, persistent_workers=True)\n"
    ends = {"": 0, "poison_data": 1, "sigterm": 143}
    processes = {}
    for what in ends:
        config = write_config(tmp_path / f"config{what}", digits, EPOCHS + workers, at(3, what) if what else "")
        command = [sys.executable, "tests/training_runs.py", config, "--work-dir", tmp_path / f"work{what}"]
        variables = environment(digits, PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}")
        processes[what] = subprocess.Popen(
            [str(part) for part in command], cwd=ROOT, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    try:
        said = {what: process.communicate(timeout=120)[1].decode() for what, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
    assert {what: process.returncode for what, process in processes.items()} == ends, said
    assert "Traceback" not in "".join(said.values()), said


@pytest.mark.parametrize(("pauses", "code"), [((0, 0), 7), ((0, 1.2), 0)], ids=["one_wish", "a_second_wish"])
@pytest.mark.parametrize("training", [True, False])
def test_a_worker_leaves_the_first_wish_to_the_training(training: bool, pauses: tuple[float, ...], code: int) -> None:
    """A terminal and torchrun, or `timeout`, may each send the signal of one key press to a whole group."""
    pid = os.fork()
    if not pid:
        _Signals(RawValue("b", training), None)(0)
        for pause, signum in zip(pauses, (signal.SIGINT, signal.SIGTERM), strict=True):
            time.sleep(pause)
            os.kill(os.getpid(), signum)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == (code if training else 0)


def test_all_processes_stop_where_one_gets_the_signal(digits: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, digits, ITERATIONS, at(3, "sigterm", rank=1))
    ends: list[Done] = finish(start_processes(config, tmp_path / "work", digits))
    assert [end.code for end in ends] == [143, 143], ends
    assert "stopped by SIGTERM after iteration 3: saved" in ends[0].err and "Traceback" not in ends[0].err
    assert (tmp_path / "work/iter_3.pth").is_file() and sorted(losses(tmp_path / "work")) == [1, 2, 3]


def test_who_waits_for_a_stopped_process_gives_up(digits: Path, tmp_path: Path) -> None:
    parts = (ITERATIONS, "env_cfg = dict(dist_cfg=dict(timeout=5))\n", at(3, "sigstop", rank=1))
    waiting, stopped = start_processes(write_config(tmp_path, digits, *parts), tmp_path / "work", digits)
    try:
        (end,) = finish([waiting])
    finally:
        stopped.kill()
        stopped.communicate()
    assert end.code == 1 and "error: process 0 gives up waiting for another: " in end.err, end
    assert "Traceback" not in end.err
