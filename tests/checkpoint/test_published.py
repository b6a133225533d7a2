"""Published weights by name, from a server on the loopback address in place of the hub and the release pages."""

import copy
import hashlib
import json
import socket
import sys
from pathlib import Path

import pytest
import torch
from file_server import FileServer
from helpers import SMALL_ARCH, randomize_bn
from mmengine.logging import MMLogger

from repvgg_mm import RepVGG, RepVGGClassifier
from repvgg_mm.checkpoint import published
from repvgg_mm.checkpoint.download import hash_in_name
from repvgg_mm.checkpoint.errors import CheckpointError
from repvgg_mm.checkpoint.key_layouts import from_ours
from repvgg_mm.checkpoint.pretrained import load_pretrained
from repvgg_mm.convert.convert_checkpoint import convert_checkpoint, rename_checkpoint
from repvgg_mm.engine.gate import open_model
from repvgg_mm.engine.safe_loader import Loader

GOLDEN = Path("/work/shared/golden/published_weights.json")


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict:
    """A copy of the table, to be changed."""
    changed = copy.deepcopy(published.published_weights())
    monkeypatch.setattr(published, "published_weights", lambda: changed)
    return changed


@pytest.fixture
def model() -> RepVGGClassifier:
    torch.manual_seed(0)
    return randomize_bn(RepVGGClassifier(SMALL_ARCH, 10)).eval()


def log_of(tmp_path: Path) -> Path:
    MMLogger.get_instance(f"test_published_{tmp_path.name}", log_file=str(tmp_path / "log.txt"), log_level="INFO")
    return tmp_path / "log.txt"


def assert_filled(backbone: RepVGG, model: RepVGGClassifier) -> None:
    expected = {key: tensor for key, tensor in model.state_dict().items() if not key.startswith("linear.")}
    torch.testing.assert_close(dict(backbone.state_dict()), expected, rtol=0, atol=0)


def test_timms_weights_come_from_the_hub(
    server: FileServer, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: RepVGGClassifier
) -> None:
    pytest.importorskip("huggingface_hub")
    save = pytest.importorskip("safetensors.torch").save
    content = save({key: t.contiguous() for key, t in from_ours(model.state_dict(), "timm").items()})
    path = "/timm/repvgg_a2.rvgg_in1k/resolve/main/model.safetensors"
    server.files[path] = content
    server.headers[path] = {"ETag": hashlib.sha256(content).hexdigest(), "X-Repo-Commit": "a" * 40}
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        backbone = RepVGG(SMALL_ARCH)
        backbone.init_cfg = {"type": "Pretrained", "checkpoint": "timm://repvgg_a2.rvgg_in1k"}
        backbone.init_weights()
        assert_filled(backbone, model)
    assert server.requests.count(path) == 1
    with pytest.raises(CheckpointError) as error:
        load_pretrained(RepVGG(SMALL_ARCH), "timm://repvgg_a0.rvgg_in1k")
    assert str(error.value).startswith("cannot download timm/repvgg_a0.rvgg_in1k from the hub: ")
    assert "404" in str(error.value) and "\n" not in str(error.value)


def test_a_hub_out_of_reach_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # that library waits 23 s between its attempts
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(
            CheckpointError, match=r"^cannot download timm/repvgg_a0\.rvgg_in1k from the hub: .+refused.*$"
        ):
            load_pretrained(RepVGG(SMALL_ARCH), "timm://repvgg_a0.rvgg_in1k")


@pytest.mark.parametrize(
    ("name", "layout", "said"),
    [
        (
            "openmmlab://repvgg-A2_8xb32_in1k",
            "mmpretrain",
            "repvgg-A2_8xb32_in1k of OpenMMLab, top-1 76.49 as published",
        ),
        ("zcls://repvgg_a2_train", "zcls", "repvgg_a2_train of ZCls"),
        ("zcls://repvgg_a2_infer", "zcls", "repvgg_a2_infer of ZCls"),
    ],
)
def test_names_lead_to_addresses(
    server: FileServer,
    hub: Path,
    tmp_path: Path,
    table: dict,
    model: RepVGGClassifier,
    name: str,
    layout: str,
    said: str,
) -> None:
    deployed = name.endswith("_infer")
    if deployed:
        model.switch_to_deploy()
    torch.save({"model": from_ours(model.state_dict(), layout)}, tmp_path / "w.pth")
    server.files["/w.pth"] = (tmp_path / "w.pth").read_bytes()
    scheme, _, entry = name.partition("://")
    table[scheme][entry]["address"] = f"{server.address}/w.pth"
    log, backbone = log_of(tmp_path), RepVGG(SMALL_ARCH, deploy=deployed)
    load_pretrained(backbone, name)
    assert_filled(backbone, model)
    assert f"{name}: {said}\n" in log.read_text()


def test_what_is_not_the_published_file_is_refused(server: FileServer, hub: Path, table: dict) -> None:
    name = table["openmmlab"]["repvgg-A0_8xb32_in1k"]["address"].rpartition("/")[2]
    server.files[f"/{name}"] = b"something else"
    table["openmmlab"]["repvgg-A0_8xb32_in1k"]["address"] = f"{server.address}/{name}"
    with pytest.raises(CheckpointError, match="its name says SHA-256 60ae8e23, the file received has "):
        load_pretrained(RepVGG(SMALL_ARCH), "openmmlab://repvgg-A0_8xb32_in1k")


def test_the_authors_files_are_known_by_their_hash(tmp_path: Path, table: dict, model: RepVGGClassifier) -> None:
    """Whatever they are called; their size is looked at first."""
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    content = (tmp_path / "mine.pth").read_bytes()
    known = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    log = log_of(tmp_path)
    table["authors"]["RepVGG-A0-train.pth"].update(known)
    load_pretrained(RepVGG(SMALL_ARCH), str(tmp_path / "mine.pth"))
    assert "mine.pth: the authors' RepVGG-A0-train.pth, top-1 72.41 as published\n" in log.read_text()
    table["authors"]["RepVGG-A0-train.pth"]["sha256"] = "0" * 64
    assert published.describe_published("mine.pth", tmp_path / "mine.pth") is None
    table["authors"]["RepVGG-D2se-200epochs-train.pth"].update(known)
    said = "the authors' RepVGG-D2se-200epochs-train.pth, top-1 83.55 at 320 px as published"
    assert published.describe_published("mine.pth", tmp_path / "mine.pth") == said


def test_every_reader_takes_names_and_says_what_they_are(
    server: FileServer, hub: Path, tmp_path: Path, table: dict, model: RepVGGClassifier
) -> None:
    """Converting, renaming, the gate of testing and exporting, and what stands in the place of mmengine's loader."""
    torch.save({"model": from_ours(model.state_dict(), "zcls")}, tmp_path / "w.pth")
    server.files["/w.pth"] = (tmp_path / "w.pth").read_bytes()
    table["zcls"]["repvgg_a2_train"]["address"] = f"{server.address}/w.pth"
    name, said = "zcls://repvgg_a2_train", "zcls://repvgg_a2_train: repvgg_a2_train of ZCls"
    for conversion in (convert_checkpoint(name), rename_checkpoint(name, "repvgg_mm")):
        assert conversion.notes[0] == said and Path(conversion.source).read_bytes() == server.files["/w.pth"]
    assert convert_checkpoint(name).blocks == 7
    config = tmp_path / "config.py"
    config.write_text("model = dict(type='RepVGG', arch='A2')")
    log = log_of(tmp_path)
    weights = open_model(name, str(config)).weights
    torch.testing.assert_close(dict(weights), from_ours(model.state_dict(), "zcls"), rtol=0, atol=0)
    Loader(trust=False, resume=False).load(name)
    assert log.read_text().count(said) == 2


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        (
            "timm://repvgg_a2",
            r"no RepVGG weights named 'repvgg_a2'; the nearest are repvgg_a2\.rvgg_in1k, repvgg_\w+\.rvgg_in1k, ",
        ),
        (
            "openmmlab://repvgg-A2",
            r"OpenMMLab has no RepVGG weights named 'repvgg-A2'; the nearest are repvgg-A2_8xb32_in1k, ",
        ),
        ("zcls://repvgg_d2se_train", "ZCls has no RepVGG weights named 'repvgg_d2se_train'; the nearest are "),
        (
            "tim://repvgg_a2",
            "tim:// is unknown: choose a path, or one of http://, https://, timm://, openmmlab://, zcls://",
        ),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(checkpoint: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as error:
        load_pretrained(RepVGG(SMALL_ARCH), checkpoint)
    assert "\n" not in str(error.value)


def test_the_table_is_complete() -> None:
    table = published.published_weights()
    assert {name: len(table[name]) for name in ("authors", "openmmlab", "timm", "zcls")} == {
        "authors": 15,
        "openmmlab": 12,
        "timm": 11,
        "zcls": 22,
    }
    assert set(table["sources"]) == set(table) - {"sources"}
    assert all(len(entry["sha256"]) == 64 and 70 < entry["top1"] < 85 for entry in table["authors"].values())
    assert all(hash_in_name(entry["address"].rpartition("/")[2]) for entry in table["openmmlab"].values())


@pytest.mark.skipif(not GOLDEN.exists(), reason="the facts that the table was made from are not here")
def test_the_table_holds_the_facts_that_it_was_made_from() -> None:
    golden, table = json.loads(GOLDEN.read_text()), published.published_weights()
    for publisher, entries in golden.items():
        assert set(table[publisher]) == set(entries)
        for name, facts in entries.items():
            assert facts.items() <= table[publisher][name].items()


def test_an_address_is_a_name_too(server: FileServer, hub: Path, tmp_path: Path, model: RepVGGClassifier) -> None:
    torch.save(model.state_dict(), tmp_path / "a.pth")
    server.files["/a.pth"] = (tmp_path / "a.pth").read_bytes()
    path = published.local_file(f"{server.address}/a.pth")
    assert Path(path).is_relative_to(hub) and Path(path).read_bytes() == server.files["/a.pth"]


def test_the_hub_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match="pip install 'repvgg_mm"):
        published.local_file("timm://repvgg_a0.rvgg_in1k")
