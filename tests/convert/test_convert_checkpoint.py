"""tools/convert.py end to end on files: what it converts, proves, keeps, refuses."""

import contextlib
import copy
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SMALL_ARCH, image, randomize_bn
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from repvgg_mm import RepVGGBlock, RepVGGClassifier, convert_state_dict, create_RepVGGplus_by_name
from repvgg_mm.checkpoint import CheckpointError, load_checkpoint
from repvgg_mm.cli import command, convert
from repvgg_mm.convert import convert_checkpoint as convert_module
from repvgg_mm.convert.convert_checkpoint import Conversion, convert_checkpoint, same_bits, write_conversion
from repvgg_mm.convert.model_pair import pair_from_config
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
    """Run the command line in this process; one test starts a real one."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr("logging.raiseExceptions", False)  # mmengine's logger keeps the stdout of an earlier test
        with pytest.raises(SystemExit) as left:
            command.run(lambda: convert.main([str(part) for part in arguments]))
    return subprocess.CompletedProcess(arguments, left.value.code, out.getvalue(), err.getvalue())


def run_process(*arguments: object) -> subprocess.CompletedProcess:
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
    done = run_process(tmp_path / "ddp.pth", tmp_path / "out.pth", "-a", "RepVGG-A0")
    assert done.returncode == 0, done.stderr
    assert "converted 22 RepVGG blocks; 2 other tensors bit-identical" in done.stdout
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


def test_half_precision_files_of_whole_models_keep_their_limit(checkpoint: Path) -> None:
    """The counters in the heads are integers: they do not ask for the precision of float32."""
    content = torch.load(checkpoint, weights_only=False)
    content["state_dict"] = {k: t.half() if t.is_floating_point() else t for k, t in content["state_dict"].items()}
    torch.save(content, checkpoint)
    conversion = convert_checkpoint(str(checkpoint))
    assert conversion.difference and conversion.tolerance == 1e-2 and not conversion.failed


def test_nan_is_a_difference() -> None:
    conversion = Conversion({}, 1, {}, tolerance=1.0, difference=Difference(float("nan"), float("nan")))
    assert conversion.failed


def refusals(tmp_path: Path, checkpoint: Path) -> dict[str, tuple[list, str]]:
    state, block = torch.load(checkpoint, weights_only=False)["state_dict"], "backbone.stage2.1"
    files = {
        "no_block": {"linear.weight": torch.ones(2)},
        "deployed": {"stage0.rbr_reparam.weight": torch.ones(8, 3, 3, 3), "stage0.rbr_reparam.bias": torch.ones(8)},
        "missing_tensor": {k: v for k, v in state.items() if k != "backbone.stage1.0.rbr_1x1.bn.running_var"},
        "both": {**state, f"{block}.rbr_reparam.weight": torch.ones(16, 16, 3, 3)},
        "integers": {**state, f"{block}.rbr_dense.conv.weight": torch.ones(16, 16, 3, 3, dtype=torch.int32)},
        "nan": {**state, f"{block}.rbr_1x1.conv.weight": torch.full((16, 16, 1, 1), float("nan"))},
        "conv_bias": {**state, f"{block}.rbr_dense.conv.bias": torch.ones(16)},
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
        "both": ([tmp_path / "both.pth", out], "the block holds both forms"),
        "integers": ([tmp_path / "integers.pth", out], "stage2.1.rbr_dense.conv.weight is torch.int32"),
        "nan": ([tmp_path / "nan.pth", out], "stage2.1.rbr_1x1.conv.weight holds NaN or infinity"),
        "conv_bias": ([tmp_path / "conv_bias.pth", out], "stage2.1.rbr_dense.conv.bias is no tensor of a RepVGG block"),
        "bad_eps": ([tmp_path / "nan.pth", out, "--eps", "-1"], "eps=-1.0: give what"),
        "output_exists": ([checkpoint, tmp_path / "exists.pth"], "exists: choose another name or give --force"),
        "no_folder": ([checkpoint, tmp_path / "nowhere" / "out.pth"], "no such folder"),
        "wrong_arch": ([checkpoint, out, "-a", "A0"], "it looks like a RepVGG of its own arch"),
        "unknown_arch": ([checkpoint, out, "-a", "C3"], "arch='C3' is unknown: choose one of A0"),
        "missing_config": ([checkpoint, out, "--config", "nope.py"], "config nope.py does not exist"),
        "no_ema": ([checkpoint, out, "--ema"], "no EMA weights"),
    }


REFUSALS = [
    "missing_file", "not_a_checkpoint", "no_block", "deployed", "missing_tensor", "negative_variance",
    "both", "integers", "nan", "conv_bias", "bad_eps",
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


def bare_file(folder: Path, **changes: torch.Tensor) -> tuple[Path, dict[str, torch.Tensor]]:
    """Weights alone, nothing that tells the model."""
    state = {key.removeprefix("backbone."): t for key, t in segmentor().state_dict().items() if key[0] == "b"}
    state |= {key.replace("__", "."): tensor for key, tensor in changes.items()}
    torch.save(state, folder / "bare.pth")
    return folder / "bare.pth", state


def test_weights_alone_are_proven_and_the_worst_block_is_named(tmp_path: Path) -> None:
    source, _ = bare_file(tmp_path)
    done = run(source, tmp_path / "out.pth")
    assert done.returncode == 0 and "not compared" not in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("every block on a random input")]
    assert re.search(r"worst is stage\S+, relative error [1-9]\S+ in float64 \(limit 8e-06\), ", line)
    assert re.search(r"[1-9]\S+ in float32 \(limit 1e-04\)", line)


def test_a_block_that_is_converted_wrongly_is_named_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = bare_file(tmp_path)

    def convert_wrongly(*arguments: Any) -> Any:
        converted = convert_state_dict(*arguments)
        converted["stage2.1.rbr_reparam.weight"][3, 2, 0, 1] *= 1.01
        return converted

    monkeypatch.setattr(convert_module, "convert_state_dict", convert_wrongly)
    done = run(source, tmp_path / "out.pth")
    assert done.returncode == 1 and "worst is stage2.1, " in done.stdout and "were not" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare.pth"]


def test_eps_is_said_where_it_is_assumed_and_taken_where_it_is_given(tmp_path: Path) -> None:
    source, state = bare_file(tmp_path)
    done = run(source, tmp_path / "assumed.pth")
    assert "eps=1e-05 is assumed" in done.stdout
    done = run(source, tmp_path / "given.pth", "--eps", "1e-3")
    assert done.returncode == 0 and "assumed" not in done.stdout
    for name, eps in (("assumed", 1e-5), ("given", 1e-3)):
        torch.testing.assert_close(torch.load(tmp_path / f"{name}.pth"), convert_state_dict(state, eps), rtol=0, atol=0)


def test_eps_against_the_config_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    done = run(checkpoint, tmp_path / "out.pth", "--eps", "1e-5")
    assert (
        done.returncode == 2
        and "eps=1e-05, but the batch normalisations of the config's model have eps=0.001" in done.stderr
    )
    assert run(checkpoint, tmp_path / "out.pth", "--eps", "1e-3").returncode == 0


def test_eps_of_an_architecture_by_name(tmp_path: Path) -> None:
    torch.save(randomize_bn(RepVGGClassifier("A0", 10)).state_dict(), tmp_path / "a0.pth")
    conversion = convert_checkpoint(str(tmp_path / "a0.pth"), arch="A0", eps=1e-3)
    assert conversion.difference and not conversion.failed and not conversion.notes


def test_a_config_that_can_not_be_built_still_tells_the_eps(checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=False)
    content["meta"]["cfg"] = content["meta"]["cfg"].replace("type='PSPHead'", "type='HeadFromElsewhere'")
    torch.save(content, checkpoint)
    conversion = convert_checkpoint(str(checkpoint))
    (note,) = conversion.notes
    assert "blocks are compared, not the whole model" in note and conversion.proofs and conversion.difference is None
    wanted = convert_state_dict(content["state_dict"], 1e-3)
    torch.testing.assert_close(dict(conversion.content["state_dict"]), dict(wanted), rtol=0, atol=0)


def spoil(state: dict[str, torch.Tensor], key: str) -> None:
    state[key] = state[key].clone(memory_format=torch.contiguous_format)
    state[key].view(-1).view(torch.uint8)[0] ^= 1  # one bit


HEAD = "decode_head.conv_seg.bias"
SPOILERS = {
    "another tensor": lambda state: spoil(state, HEAD),
    "fused kernel": lambda state: spoil(state, "backbone.stage1.0.rbr_reparam.weight"),
    "tensor missing": lambda state: state.pop(HEAD),
    "tensor added": lambda state: state.update(extra=torch.ones(1)),
    "another dtype": lambda state: state.update({HEAD: state[HEAD].double()}),
}


@pytest.mark.parametrize("hashed", [False, True], ids=["plain", "publish"])
@pytest.mark.parametrize("kind", SPOILERS)
def test_a_file_that_reads_back_differently_is_not_written(
    kind: str, hashed: bool, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is sound, its checksums are right: only comparing tells."""
    conversion, save = convert_checkpoint(str(checkpoint)), torch.save

    def save_wrongly(content: Any, file: Any) -> None:
        state = dict(content.get("state_dict", content))
        SPOILERS[kind](state)
        save({**content, "state_dict": state} if "state_dict" in content else state, file)

    monkeypatch.setattr(torch, "save", save_wrongly)
    (tmp_path / "out.pth").write_text("old")
    with pytest.raises(CheckpointError, match="was not written: 1 tensors changed on the way"):
        write_conversion(conversion, str(tmp_path / "out.pth"), force=True, hash_in_name=hashed)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.pth", "trained.pth"]
    assert (tmp_path / "out.pth").read_text() == "old"


def test_a_byte_that_changes_on_the_way_to_disk(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversion, save = convert_checkpoint(str(checkpoint)), torch.save

    def flip_a_byte(content: Any, file: Any) -> None:
        save(content, file)
        file.flush()
        numbers = content["state_dict"][HEAD].numpy().tobytes()
        file.seek(Path(file.name).read_bytes().index(numbers))
        file.write(bytes([numbers[0] ^ 1]))

    monkeypatch.setattr(torch, "save", flip_a_byte)
    with pytest.raises(CheckpointError, match="was not written: it can't be read back"):
        write_conversion(conversion, str(tmp_path / "out.pth"))
    assert [path.name for path in tmp_path.iterdir()] == ["trained.pth"]


@pytest.mark.parametrize("name", ["out.pth", "out.safetensors"])
def test_a_full_disk_is_one_line_and_exit_code_2(name: str, tmp_path: Path) -> None:
    source, _ = bare_file(tmp_path)
    code = (
        "import resource, signal, sys; from repvgg_mm.cli import command, convert; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
        "command.run(lambda: convert.main(sys.argv[1:]))"
    )
    command_line = [sys.executable, "-c", code, str(source), str(tmp_path / name)]
    done = subprocess.run(command_line, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2, done.stderr
    assert done.stderr == f"error: [Errno 27] File too large: '{tmp_path / name}'\n"
    assert [path.name for path in tmp_path.iterdir()] == ["bare.pth"]


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


def test_same_bits_of_another_dtype_are_not_the_same() -> None:
    half = torch.tensor([1.0, -0.0, float("nan")], dtype=torch.float16)
    assert same_bits(half, half.clone()) and not same_bits(half, half.view(torch.bfloat16))
    assert not same_bits(half, torch.tensor([1.0, 0.0, float("nan")], dtype=torch.float16))
    assert not same_bits(half, half[None])


def test_what_only_training_needs_is_left_out_and_said(tmp_path: Path) -> None:
    model = randomize_bn(create_RepVGGplus_by_name("RepVGGplus-L2pse"))
    torch.save(model.state_dict(), tmp_path / "plus.pth")
    conversion = convert_checkpoint(str(tmp_path / "plus.pth"))
    count = sum("_aux." in name for name in model.state_dict())
    assert count and f"{count} tensors of auxiliary heads left out: only training needs them" in conversion.notes


def test_meta_that_is_no_plain_data_is_left_out_and_said(checkpoint: Path) -> None:
    content = torch.load(checkpoint)
    content["meta"]["when"] = Path("a")
    torch.save(content, checkpoint)
    (note,) = convert_checkpoint(str(checkpoint)).notes
    assert note == "not plain data, left out of meta: when"


def test_bits_of_complex_numbers() -> None:
    a = torch.tensor([1 + 2j, complex("nan")])
    assert same_bits(a, a.clone()) and not same_bits(a, a.conj().resolve_conj())


def test_one_eps_for_all_blocks(tmp_path: Path) -> None:
    pair = pair_from_config(CONFIG, None)
    next(module for module in pair.train.modules() if isinstance(module, RepVGGBlock)).rbr_1x1.bn.eps = 0.1
    with pytest.raises(ValueError, match=r"the eps \[0\.001, 0\.1\]: exactly one value"):
        _ = pair.eps


def test_a_config_without_a_repvgg(tmp_path: Path) -> None:
    other = {"type": "mmseg.ResNetV1c", "depth": 18, "num_stages": 4, "out_indices": (3,)}
    with pytest.raises(CheckpointError, match="no model with type='RepVGG'"):
        pair_from_config({**CONFIG, "model": {**MODEL, "backbone": other}}, None)


def test_a_given_config_that_can_not_be_built_is_an_error(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text(f"model = {dict(MODEL, type='EncoderDecodr')!r}\ndefault_scope = 'mmseg'\n")
    done = run(checkpoint, tmp_path / "out.pth", "--config", tmp_path / "config.py")
    assert done.returncode == 2 and "EncoderDecodr" in done.stderr and not (tmp_path / "out.pth").exists()
