"""tools/convert.py end to end on files: what it converts, proves, keeps, refuses."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import SMALL_ARCH, image, randomize_bn
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from repvgg_mm import RepVGGClassifier
from repvgg_mm.checkpoint import load_checkpoint
from repvgg_mm.convert.convert_checkpoint import Conversion, convert_checkpoint, same_bits, write_conversion
from repvgg_mm.reparam.difference import Difference

ROOT = Path(__file__).parents[2]
MODEL = {
    "type": "EncoderDecoder",
    "backbone": {"type": "RepVGG", "arch": SMALL_ARCH, "norm_cfg": {"type": "BN", "eps": 1e-3}},
    "decode_head": {
        "type": "PSPHead",
        "in_channels": 64,
        "in_index": 3,
        "channels": 8,
        "num_classes": 5,
        "norm_cfg": {"type": "BN"},
        "align_corners": False,
    },
}
CONFIG = {"default_scope": "mmseg", "custom_imports": {"imports": ["repvgg_mm"]}, "model": MODEL}


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "tools" / "convert.py", *arguments]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT)


def segmentor() -> nn.Module:
    torch.manual_seed(0)
    init_default_scope("mmseg")
    return randomize_bn(MODELS.build(copy.deepcopy(MODEL))).eval()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """As mmengine writes it: config text in meta, optimizer, message hub."""
    model = segmentor()
    meta = {"cfg": Config(CONFIG).pretty_text, "dataset_meta": {"classes": ["a", "b"]}, "epoch": 3}
    optimizer = torch.optim.SGD(model.parameters(), 0.1).state_dict()
    content = {"meta": meta, "state_dict": model.state_dict(), "optimizer": optimizer, "message_hub": {}}
    torch.save(content, tmp_path / "trained.pth")
    return tmp_path / "trained.pth"


def test_the_config_inside_builds_the_deployed_model_as_it_is(checkpoint: Path, tmp_path: Path) -> None:
    conversion = convert_checkpoint(str(checkpoint))
    write_conversion(conversion, str(tmp_path / "deployed.pth"))
    assert conversion.blocks == 7 and not conversion.failed and not conversion.notes
    assert conversion.difference.relative < 1e-5 and conversion.difference.absolute > 0  # really two computations
    written = torch.load(tmp_path / "deployed.pth")
    assert sorted(written) == ["meta", "state_dict"]
    assert written["meta"]["dataset_meta"] == {"classes": ["a", "b"]} and written["meta"]["epoch"] == 3
    deployed = MODELS.build(Config.fromstring(written["meta"]["cfg"], ".py").model)
    deployed.load_state_dict(written["state_dict"], strict=True)
    with torch.no_grad():
        expected = segmentor()(image(1, 3, 64, 96))
        torch.testing.assert_close(deployed.eval()(image(1, 3, 64, 96)), expected, rtol=1e-4, atol=1e-5)


def test_heads_are_identical_to_the_bit(checkpoint: Path, tmp_path: Path) -> None:
    conversion = convert_checkpoint(str(checkpoint))
    write_conversion(conversion, str(tmp_path / "deployed.pth"))
    written, before = load_checkpoint(tmp_path / "deployed.pth")["state_dict"], segmentor().state_dict()
    heads = [key for key in before if key.startswith("decode_head")]
    assert sorted(conversion.untouched) == sorted(heads) and len(heads) > 30
    assert all(same_bits(written[key], before[key]) for key in heads)


def test_eps_of_the_config_is_used(tmp_path: Path) -> None:
    """No state dict holds eps: with the wrong one the proof fails, and nothing is written."""
    torch.save(segmentor().state_dict(), tmp_path / "bare.pth")
    config = tmp_path / "config.py"
    config.write_text(Config(CONFIG).pretty_text)
    assert not convert_checkpoint(str(tmp_path / "bare.pth"), config=str(config)).failed
    done = run(tmp_path / "bare.pth", tmp_path / "out.pth", "-a", "A0")
    assert done.returncode == 2 and "a RepVGG of its own arch in training form" in done.stderr


def test_a_difference_above_tolerance_exits_with_1_and_writes_nothing(checkpoint: Path, tmp_path: Path) -> None:
    """A variance at the edge of float32: the branches overflow where the fused kernel does not."""
    content = torch.load(checkpoint, weights_only=False)
    content["state_dict"]["backbone.stage0.rbr_dense.bn.weight"].fill_(3e38)
    torch.save(content, checkpoint)
    done = run(checkpoint, tmp_path / "out.pth")
    assert done.returncode == 1 and "the two forms differ" in done.stdout
    assert not (tmp_path / "out.pth").exists()


def test_bare_state_dicts_stay_bare(tmp_path: Path) -> None:
    model = randomize_bn(RepVGGClassifier("A0", 10)).eval()
    torch.save({"module." + key: tensor for key, tensor in model.state_dict().items()}, tmp_path / "ddp.pth")
    done = run(tmp_path / "ddp.pth", tmp_path / "out.pth", "-a", "RepVGG-A0")
    assert done.returncode == 0, done.stderr
    assert "converted 22 RepVGG blocks; 2 other tensors identical to the bit" in done.stdout
    deployed = RepVGGClassifier("A0", 10, deploy=True).eval()
    deployed.load_state_dict(torch.load(tmp_path / "out.pth"))
    with torch.no_grad():
        torch.testing.assert_close(deployed(image(1, 3, 64, 96)), model(image(1, 3, 64, 96)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {key: t.to(dtype) for key, t in randomize_bn(RepVGGClassifier("A0", 10)).state_dict().items()}
    torch.save(state, tmp_path / "half.pth")
    conversion = convert_checkpoint(str(tmp_path / "half.pth"), arch="A0")
    assert not conversion.failed and {t.dtype for t in conversion.content.values()} == {dtype}


def test_nan_is_a_difference() -> None:
    conversion = Conversion({}, 1, {}, tolerance=1.0, difference=Difference(float("nan"), float("nan")))
    assert conversion.failed


def refusals(tmp_path: Path, checkpoint: Path) -> dict[str, tuple[list, str]]:
    state = torch.load(checkpoint, weights_only=False)["state_dict"]
    files = {
        "no_block": {"linear.weight": torch.ones(2)},
        "deployed": {"stage0.rbr_reparam.weight": torch.ones(8, 3, 3, 3), "stage0.rbr_reparam.bias": torch.ones(8)},
        "missing_tensor": {k: v for k, v in state.items() if k != "backbone.stage1.0.rbr_1x1.bn.running_var"},
        "negative_variance": {k: -v if k == "backbone.stage0.rbr_1x1.bn.running_var" else v for k, v in state.items()},
    }
    for name, content in files.items():
        torch.save(content, tmp_path / f"{name}.pth")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    (tmp_path / "exists.pth").write_text("precious")
    out = tmp_path / "out.pth"
    return {
        "missing_file": ([tmp_path / "nope.pth", out], "no such checkpoint file"),
        "not_a_checkpoint": ([tmp_path / "text.pth", out], "not a torch checkpoint"),
        "no_block": ([tmp_path / "no_block.pth", out], "no RepVGG block"),
        "deployed": ([tmp_path / "deployed.pth", out], "already deployed"),
        "missing_tensor": ([tmp_path / "missing_tensor.pth", out], "stage1.0.rbr_1x1.bn.running_var is missing"),
        "negative_variance": ([tmp_path / "negative_variance.pth", out], "negative or non-finite variance"),
        "output_exists": ([checkpoint, tmp_path / "exists.pth"], "exists: choose another name or use --force"),
        "no_folder": ([checkpoint, tmp_path / "nowhere" / "out.pth"], "no such folder"),
        "wrong_arch": ([checkpoint, out, "-a", "A0"], "it looks like a RepVGG of its own arch"),
        "unknown_arch": ([checkpoint, out, "-a", "C3"], "arch='C3' is unknown: choose one of A0"),
        "missing_config": ([checkpoint, out, "--config", "nope.py"], "config nope.py does not exist"),
        "no_ema": ([checkpoint, out, "--ema"], "no EMA weights"),
    }


REFUSALS = [
    "missing_file", "not_a_checkpoint", "no_block", "deployed", "missing_tensor", "negative_variance",
    "output_exists", "no_folder", "wrong_arch", "unknown_arch", "missing_config", "no_ema",
]  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_bad_input_gets_one_line_exit_code_2_and_no_file(case: str, checkpoint: Path, tmp_path: Path) -> None:
    arguments, message = refusals(tmp_path, checkpoint)[case]
    before = sorted(path.name for path in tmp_path.iterdir())
    done = run(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ") and message in done.stderr and done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "exists.pth").read_text() == "precious"


def test_force_overwrites(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "exists.pth").write_text("old")
    assert run(checkpoint, tmp_path / "exists.pth", "--force").returncode == 0
    assert "state_dict" in torch.load(tmp_path / "exists.pth")


def test_ema_weights_on_request(checkpoint: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=False)
    averaged = {f"module.{key}": tensor * 2 for key, tensor in content["state_dict"].items()}
    torch.save({**content, "ema_state_dict": averaged}, tmp_path / "ema.pth")
    plain = convert_checkpoint(str(tmp_path / "ema.pth")).content["state_dict"]
    ema = convert_checkpoint(str(tmp_path / "ema.pth"), ema=True).content["state_dict"]
    key = "decode_head.conv_seg.weight"
    torch.testing.assert_close(ema[key], plain[key] * 2, rtol=0, atol=0)


def test_a_stored_config_never_runs(checkpoint: Path, tmp_path: Path) -> None:
    content, marker = torch.load(checkpoint, weights_only=False), tmp_path / "ran"
    content["meta"]["cfg"] = f"open({str(marker)!r}, 'w')\n" + content["meta"]["cfg"]
    torch.save(content, checkpoint)
    conversion = convert_checkpoint(str(checkpoint))
    assert not marker.exists() and "cfg" not in conversion.content["meta"]
    assert "config inside the checkpoint is left out" in conversion.notes[0]
