"""The pieces of the GPU's check, run on the CPU as far as it has them; those that it has not are told as faults."""

import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from command_lines import ROOT, environment
from helpers import SMALL_ARCH

from repvgg_mm.cli import check_gpu
from repvgg_mm.cli.command import InputError
from repvgg_mm.device import process_backend, seconds_of
from repvgg_mm.doctor import gpu_pieces as pieces
from repvgg_mm.doctor import sync_bn
from repvgg_mm.doctor.gpu import describe_gpu, gpu_checks

TRIAL = pieces.Trial(torch.device("cpu"), SMALL_ARCH, batch=4, side=32)


@pytest.mark.parametrize("fixed", [False, True])
def test_steps_and_their_gradients(fixed: bool) -> None:
    assert "in float64" in pieces.gradients(TRIAL, fixed)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert "in 12 steps" in pieces.training(TRIAL, fixed, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_both_layouts(dtype: torch.dtype) -> None:
    assert "ms (channels_last / NCHW), relative error" in pieces.inference(TRIAL, dtype)


def test_forms_conversion_and_processes() -> None:
    assert "folded, deployed against three branches" in pieces.forms(TRIAL)
    assert "against the CPU" in pieces.conversion(TRIAL)
    assert pieces.processes(TRIAL) == "gloo" and process_backend(torch.device("cuda")) == "nccl"


def test_a_complete_file() -> None:
    assert pieces.complete_file(TRIAL, ".onnx").endswith(" MiB")


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU they work")
def test_what_a_cpu_has_not_is_told_as_a_fault() -> None:
    checks = {check.args[0]: check for check in gpu_checks(TRIAL)}  # type: ignore[attr-defined]
    for name in ("SyncBN", "CUDA graphs"):
        finding = checks[name]()
        assert finding.fix and finding.found.count("\n") == 0, name
    assert not torch.distributed.is_initialized()


def test_what_amp_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.match(r"(BFloat16|Amp)OptimWrapper, [\d.]+ ms, loss .* in 12 steps", pieces.amp(TRIAL))
    monkeypatch.setattr("repvgg_mm.engine.mixed_precision.enable_amp", lambda cfg: None)
    with pytest.raises(RuntimeError, match="OptimWrapper computes in float32"):
        pieces.amp(TRIAL)


@pytest.mark.parametrize("fixed", [True, False])
def test_sync_bn_is_held_against_bn_on_the_whole_batch(fixed: bool) -> None:
    """BN on halves has the statistics of each; fixed ones are those of the whole."""
    models = [TRIAL.model() for _ in range(3)]
    for model in models:
        for module in model.modules():
            if fixed and isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
                module.train = lambda mode, module=module: module
    images = TRIAL.images()
    whole, *halves = map(sync_bn.train, models, [images, *images.chunk(2)])
    if fixed:
        assert "in float64" in sync_bn.compare(whole, halves)
        halves[1]["stage0.rbr_dense.bn.running_mean"] += 1
    what = "running statistics" if fixed else "outputs"
    with pytest.raises(RuntimeError, match=f"SyncBN's {what} differ from BN's by"):
        sync_bn.compare(whole, halves)


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="it is installed")
def test_tensorrt_may_be_missing() -> None:
    assert pieces.complete_file(TRIAL, ".engine") == "not installed"


@pytest.mark.parametrize("flags", [["--batch", "1"], ["--batch", "-1"], ["--side", "0"]], ids=str)
def test_numbers_that_are_too_small_are_refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        check_gpu.main(flags)
    assert f"{' '.join(flags)}: must be at least" in capsys.readouterr().err.splitlines()[-1]


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(InputError, match="arch='A9' is unknown"):
        check_gpu.main(["--arch", "A9"])


def test_wrong_numbers_are_faults() -> None:
    class Broken(pieces.Trial):
        def model(self) -> torch.nn.Module:
            model = super().model()
            model.stage1[0].rbr_dense.bn.register_buffer("running_var", torch.full((8,), float("nan")))
            return model

    (forms,) = (check for check in gpu_checks(Broken(*TRIAL.__dict__.values())) if check.args[0] == "forms")
    assert "differs from the branches on the CPU by nan" in forms().found and forms().fix


def test_description_and_clock() -> None:
    assert f"torch {torch.__version__}" in describe_gpu(TRIAL)
    assert seconds_of(lambda: torch.ones(100).sum(), TRIAL.device) > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line() -> None:
    env = environment(ROOT, PYTHON=sys.executable)
    done = subprocess.run([ROOT / "tools/check_gpu.sh"], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.splitlines() == ["error: there is no GPU that PyTorch sees: repvgg-mm doctor says why"]
