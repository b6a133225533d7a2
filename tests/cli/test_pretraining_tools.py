"""What pretraining needs beside a recipe, each by flag: a kill survived, EMA, several machines, weights of others."""

import signal
import socket
import sys
import time
from pathlib import Path

import pytest
import torch
from command_lines import CLS, losses, metrics, run, start, tool
from training_runs import finish, start_processes, write_config

from repvgg_mm.checkpoint import find_state_dict, from_ours, load_checkpoint

SHORT = ["train_dataloader.batch_size=10", "default_hooks.logger.interval=1", "param_scheduler.1.T_max=6"]
FLAGS = [
    *SHORT,
    "train_cfg.max_epochs=6",
    "optim_wrapper.accumulative_counts=2",
    "optim_wrapper.constructor=RepVGGOptimWrapperConstructor",
    "optim_wrapper.paramwise_cfg.custom_l2=True",
    "model.backbone.with_cp=True",
    "default_hooks.ema.type=EMAHook",
    "default_hooks.ema.momentum=0.1",
    "default_hooks.ema.update_buffers=True",
]


@pytest.fixture(scope="module")
def whole(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Work dir of a classifier after six epochs of four iterations, with everything that a flag turns on."""
    work_dir = tmp_path_factory.mktemp("whole")
    done = tool("train", CLS, "--work-dir", work_dir, "--cfg-options", *FLAGS, digits=digits)
    assert done.returncode == 0, done.stderr
    assert "custom L2: weight decay on the equivalent kernels of 9 RepVGG blocks" in done.stdout
    assert "loss_custom_l2: " in done.stdout and "no weight decay on 23 biases" in done.stdout
    return work_dir


def test_a_killed_run_goes_on_as_if_it_had_not_been_killed(whole: Path, digits: Path, tmp_path: Path) -> None:
    command = [sys.executable, "tools/train.py", CLS, "--work-dir", tmp_path, "--cfg-options", *FLAGS]
    process = start(*command, digits=digits)
    while not (tmp_path / "epoch_2.pth").exists():  # perhaps only half of it
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    done = run(*command[:3], "--resume", *command[3:], digits=digits)
    assert done.returncode == 0 and "resumed epoch: " in done.stdout, done.stderr
    assert losses(tmp_path) == losses(whole) and len(losses(whole)) == 24
    torch.testing.assert_close(weights(tmp_path / "epoch_6.pth"), weights(whole / "epoch_6.pth"), rtol=0, atol=0)


def weights(path: Path, ema: bool = False) -> dict[str, torch.Tensor]:
    return dict(find_state_dict(load_checkpoint(path), ema).state_dict)


def test_averaged_weights_are_what_is_tested_and_converted(whole: Path, digits: Path, tmp_path: Path) -> None:
    trained, deployed = whole / "epoch_6.pth", tmp_path / "deployed.pth"
    last = load_checkpoint(trained)["ema_state_dict"]
    assert not torch.equal(weights(trained)["linear.weight"], last["module.linear.weight"])
    done = tool("convert", trained, deployed, "--ema", digits=digits)
    assert done.returncode == 0 and "converted 9 RepVGG blocks" in done.stdout, done.stderr
    assert torch.equal(weights(deployed)["linear.weight"], weights(trained)["linear.weight"])
    before = metrics(tool("test", CLS, trained, "--work-dir", tmp_path, digits=digits))
    assert metrics(tool("test", deployed, "--work-dir", tmp_path, digits=digits)) == before != {}


def test_two_machines_compute_what_two_processes_of_one_do(digits: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    config = write_config(tmp_path, digits, "train_cfg = dict(max_epochs=1)")
    command = ["tools/dist_train.sh", config, "1", "--work-dir", tmp_path / "two"]
    network = {"NNODES": "2", "MASTER_ADDR": "127.0.0.1", "PORT": port}
    machines = [start(*command, digits=digits, **network, NODE_RANK=str(rank)) for rank in range(2)]
    try:
        assert [machine.wait(timeout=600) for machine in machines] == [0, 0]
    finally:
        for machine in machines:
            machine.kill()
    processes = finish(start_processes(config, tmp_path / "one", digits))
    assert [process.code for process in processes] == [0, 0], processes
    assert losses(tmp_path / "two") == losses(tmp_path / "one") and len(losses(tmp_path / "one")) == 2


def test_starting_from_weights_with_other_names_is_refused(whole: Path, digits: Path, tmp_path: Path) -> None:
    torch.save(from_ours(weights(whole / "epoch_6.pth"), "timm"), tmp_path / "timm.pth")
    start_from = f"load_from={tmp_path / 'timm.pth'}"
    done = tool("train", CLS, "--work-dir", tmp_path, "--cfg-options", start_from, digits=digits)
    assert done.returncode == 2 and done.stderr.count("error: ") == 1
    assert "timm.pth: its RepVGG is named as in timm" in done.stderr and "--to repvgg_mm" in done.stderr
