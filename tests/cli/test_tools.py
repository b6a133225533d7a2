"""The command lines as a user types them, on a small data set."""

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command_lines import CLS, ROOT, SEG, environment, here, losses, metrics, run, tool
from training_runs import ITERATIONS, write_config

SHORT = ["train_cfg.max_iters=4", "train_cfg.val_interval=4", "train_dataloader.batch_size=2"]
SHORT += ["default_hooks.logger.interval=1"]


@pytest.fixture(scope="module")
def pretrained(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work_dir = tmp_path_factory.mktemp("pretrained")
    options = ["train_cfg.max_epochs=2", "train_dataloader.batch_size=10", "default_hooks.logger.interval=1"]
    options += ["default_hooks.checkpoint.max_keep_ckpts=-1", "param_scheduler.1.T_max=2"]
    done = tool("train", CLS, "--work-dir", work_dir, "--cfg-options", *options, digits=digits)
    assert done.returncode == 0, done.stderr
    return work_dir


@pytest.fixture(scope="module")
def finetuned(digits: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PSPNet after four iterations, started from the pretrained classifier."""
    work_dir = tmp_path_factory.mktemp("finetuned")
    start = f"model.backbone.init_cfg.checkpoint={pretrained / 'epoch_2.pth'}"
    options = [*SHORT, start, "default_hooks.checkpoint.interval=2"]
    arguments = ["--work-dir", work_dir, "--cfg-options", *options]
    done = run(sys.executable, "tools/train.py", SEG, *arguments, digits=digits)  # what imports say is heard, too
    assert done.returncode == 0, done.stderr
    assert re.search(r"(\d+) of \1 tensors of RepVGG matched; missing: none; unexpected: linear", done.stdout)
    assert not done.stderr and "WARNING" not in done.stdout and not re.search("^Could not", done.stdout, re.MULTILINE)
    return work_dir


@pytest.fixture(scope="module")
def deployed(digits: Path, finetuned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("deployed") / "deployed.pth"
    done = tool("convert", finetuned / "iter_4.pth", path, digits=digits)
    assert done.returncode == 0 and "converted 9 RepVGG blocks" in done.stdout, done.stderr
    return path


def test_segmentation_resumes_with_the_same_losses(digits: Path, finetuned: Path, tmp_path: Path) -> None:
    arguments = ["--resume", finetuned / "iter_2.pth", "--work-dir", tmp_path, "--cfg-options", *SHORT]
    done = tool("train", SEG, *arguments, "model.backbone.init_cfg=None", digits=digits)
    assert done.returncode == 0, done.stderr
    full, resumed = losses(finetuned), losses(tmp_path)
    assert sorted(full) == [1, 2, 3, 4] and sorted(resumed) == [3, 4]
    assert [resumed[step] for step in (3, 4)] == [full[step] for step in (3, 4)]


def test_classification_resumes_with_the_same_losses(digits: Path, pretrained: Path, tmp_path: Path) -> None:
    shutil.copy(pretrained / "epoch_1.pth", tmp_path)
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "epoch_1.pth"))
    options = ["train_cfg.max_epochs=2", "train_dataloader.batch_size=10", "default_hooks.logger.interval=1"]
    arguments = ["--resume", "--work-dir", tmp_path, "--cfg-options", *options, "param_scheduler.1.T_max=2"]
    done = tool("train", CLS, *arguments, digits=digits)
    assert done.returncode == 0, done.stderr
    full, resumed = losses(pretrained), losses(tmp_path)
    assert sorted(resumed) == [5, 6, 7, 8]
    assert [resumed[step] for step in resumed] == [full[step] for step in resumed]


def test_both_forms_and_the_converted_file_have_the_same_metrics(
    digits: Path, finetuned: Path, deployed: Path, tmp_path: Path
) -> None:
    trained = finetuned / "iter_4.pth"
    before = metrics(tool("test", SEG, trained, "--work-dir", tmp_path, digits=digits))
    in_memory = metrics(tool("test", SEG, trained, "--deploy", "--work-dir", tmp_path, digits=digits))
    from_file = metrics(tool("test", SEG, deployed, "--work-dir", tmp_path, digits=digits))
    config_inside = metrics(tool("test", deployed, "--work-dir", tmp_path, digits=digits))
    assert "mIoU" in before
    assert before == in_memory == from_file == config_inside


def test_mmseg_s_own_tools_run_config_and_converted_checkpoint(digits: Path, deployed: Path, tmp_path: Path) -> None:
    """With nothing of ours but ``custom_imports``."""
    import mmseg

    tools = Path(mmseg.__file__).parent / ".mim" / "tools"
    if not tools.is_dir():
        pytest.skip("this mmseg ships no tools")
    options = ["--cfg-options", *SHORT, "model.backbone.init_cfg=None", "train_cfg.max_iters=1"]
    done = run(sys.executable, tools / "train.py", SEG, "--work-dir", tmp_path, *options, digits=digits)
    assert done.returncode == 0, done.stderr
    options = ["--cfg-options", "model.backbone.deploy=True"]
    done = run(sys.executable, tools / "test.py", SEG, deployed, "--work-dir", tmp_path, *options, digits=digits)
    assert done.returncode == 0 and "mIoU" in done.stdout + done.stderr, done.stderr
    assert "unexpected key" not in done.stdout + done.stderr and "missing keys" not in done.stdout + done.stderr


def test_mmseg_inferencer_opens_a_converted_checkpoint_alone(digits: Path, deployed: Path) -> None:
    picture = next((digits / "segmentation/images/val").glob("*.png"))
    script = (
        "import repvgg_mm\nfrom mmseg.apis import MMSegInferencer\n"
        f"inferencer = MMSegInferencer(None, weights={str(deployed)!r}, device='cpu')\n"
        f"print(inferencer({str(picture)!r})['predictions'].shape)\n"
        "print(sum(hasattr(m, 'rbr_dense') for m in inferencer.model.modules()))"
    )
    done = run(sys.executable, "-c", script, digits=digits, TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1")
    assert done.stdout.splitlines()[-2:] == ["(128, 128)", "0"], done.stderr


def test_two_processes(digits: Path, tmp_path: Path) -> None:
    options = [*SHORT, "model.backbone.init_cfg=None", "model.backbone.frozen_stages=1"]
    options += ["optim_wrapper.constructor=RepVGGOptimWrapperConstructor"]
    done = run("tools/dist_train.sh", SEG, "2", "--work-dir", tmp_path, "--cfg-options", *options, digits=digits)
    assert done.returncode == 0, done.stderr
    assert "no GPU: SyncBN became BN" in done.stdout
    assert re.search(r"no weight decay on \d+ biases \(.*\) and 14 scales of 3x3 and 1x1 branches \(", done.stdout)
    assert len(losses(tmp_path)) == 4 and (tmp_path / "iter_4.pth").exists()


@pytest.mark.parametrize(
    "command, message",
    [
        (["train", "configs/nope.py"], "config configs/nope.py does not exist"),
        (["train", SEG, "--cfg-options", "model.backbone.type=RepVG"], "RepVG"),
        (["train", SEG, "--cfg-options", "model.backbone.arch=A9"], "arch='A9' is unknown: choose one of A0"),
        (["train", SEG, "--cfg-options", "model.backbone.archs=A0"], "unexpected keyword argument 'archs'"),
        (["train", SEG, "--cfg-options", "data_root=/nowhere"], "/nowhere"),
        (["train", CLS, "--cfg-options", "data_root=/nowhere"], "image folder /nowhere/train does not exist"),
        (["train", SEG, "--cfg-options", "model.backbone.init_cfg.checkpoint=no.pth"], "checkpoint file: no.pth"),
        (["train", SEG, "--launcher", "slurm"], "launcher='slurm' needs GPUs"),
        (["train", SEG, "--cfg-options", "optim_wrapper.type=AmpOptimWrapper"], "'AmpOptimWrapper' needs a GPU"),
        (["train", SEG, "--amp", "--cfg-options", "optim_wrapper.dtype=float16"], "dtype='float16' needs a GPU"),
        (["test", SEG, "nope.pth"], "no such checkpoint file: nope.pth"),
    ],
)  # fmt: skip
def test_typos_get_one_line_and_exit_code_2(command: list[str], message: str, digits: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available() and "GPU" in message:
        pytest.skip("there is a GPU")
    name, *arguments = command
    done = here(name, *arguments, "--work-dir", tmp_path, digits=digits)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and last.startswith("error: ") and message in last, done.stderr
    assert "Traceback" not in done.stderr


def test_test_refuses_a_checkpoint_of_another_model(digits: Path, pretrained: Path, tmp_path: Path) -> None:
    done = here("test", SEG, pretrained / "epoch_2.pth", "--work-dir", tmp_path, digits=digits)
    assert done.returncode == 2 and "tensors of EncoderDecoder; it looks like" in done.stderr


@pytest.mark.parametrize("name", ["train", "test", "convert", "demo", "make_digits"])
def test_help_shows_an_example(name: str, tmp_path: Path) -> None:
    done = here(name, "--help", digits=tmp_path)
    assert done.returncode == 0 and f"python tools/{name}.py" in done.stdout


def test_dist_train_ends_as_its_processes_do(digits: Path, tmp_path: Path) -> None:
    done = run("tools/dist_train.sh", "configs/nope.py", "2", "--work-dir", tmp_path, digits=digits)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "error: config configs/nope.py does not exist\n" in done.stderr


def test_dist_train_saves_and_stops_at_a_signal(digits: Path, tmp_path: Path) -> None:
    endless = ITERATIONS.replace("max_iters=6", "max_iters=100000")
    config = write_config(tmp_path, digits, endless)
    command = ["tools/dist_train.sh", str(config), "2", "--work-dir", str(tmp_path / "work")]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment(digits)
    )
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "work/last_checkpoint").exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    (line,) = [line for line in stderr.splitlines() if line.startswith("stopped by")]
    assert process.returncode == 143 and "Traceback" not in stderr
    assert line.endswith(f"saved {(tmp_path / 'work/last_checkpoint').read_text()}; go on with --resume")
