"""Small files that would take hours or gigabytes: each is refused at once, with one line."""

import copy
import io
import os
import pickle
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from repvgg_mm.checkpoint import CheckpointError, load_checkpoint, parse_config
from repvgg_mm.checkpoint.torch_formats import LEGACY_MAGIC, LEGACY_PROTOCOL

SECONDS = 5.0  # alone on a core each takes well under 2


def refused(act: Callable[[], object]) -> str:
    start = time.perf_counter()
    with pytest.raises(CheckpointError) as error:
        act()
    assert time.perf_counter() - start < SECONDS
    message = str(error.value)
    assert message and "\n" not in message and len(message) < 400
    return message


def write_zip(path: Path, data: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    return path


def write_legacy(path: Path, data: bytes) -> Path:
    parts = [pickle.dumps(part, 2) for part in (LEGACY_MAGIC, LEGACY_PROTOCOL, {})]
    path.write_bytes(b"".join(parts) + data + pickle.dumps([], 2))
    return path


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


LONG = "a" * 1_000_000
TOWER = b")" + b"2\x86" * 60  # a tuple that holds the one before in it twice, sixty times
SETS = b"(" * 60 + b"(K\x01\x91" + b"".join(b"q%c(h%c\x91\x91" % (n, n) for n in range(60))  # {a, {a}}, sixty times
LISTS = b"]q\x00" + b"]q\x01h\x00ah\x00aq\x00" * 60  # the same of lists


def nested(depth: int, innermost: list) -> list:
    return nested(depth - 1, [innermost]) if depth else innermost


HALF_AS_DEEP = nested(60, [])
PICKLES = {
    "a tuple as a key": b"}" + TOWER + b"K\x01s",
    "a tuple as a key of many": b"}(" + TOWER + b"K\x01u",
    "a tuple as a key of a dict by mark": b"(" + TOWER + b"K\x01d",
    "a tuple in a set": b"\x8f(" + TOWER + b"\x90",
    "a tuple in a frozenset": b"(" + TOWER + b"\x91",
    "a tuple in a set that is called": b"cbuiltins\nset\n](" + TOWER + b"e\x85R",
    "a tuple as a key of an ordered dict": b"ccollections\nOrderedDict\n](" + TOWER + b"K\x01\x86e\x85R",
    "frozensets as keys that are equal": b"}(" + SETS + b"N" + SETS + b"Nu",
    "a tuple whose text is endless": TOWER,
    "lists whose text is endless": LISTS,
    "a reference whose text is endless": TOWER + b"Q",
    "a call of something whose text is endless": TOWER + b")R",
    "numbers that hash alike": b"}("
    + b"".join(pickle.dumps(n * (2**61 - 1), 2)[2:-1] + b"N" for n in range(99))
    + b"u",
    "one text as bytes, again and again": text(LONG)
    + b"q\x000(c_codecs\nencode\nq\x01h\x00\x85q\x020"
    + b"h\x01h\x02R0" * 50_000
    + b"l",
    "one name of a class, again and again": text(LONG) + b"q\x000(" + b"h\x00h\x00\x930" * 50_000 + b"l",
    "many arguments, again and again": b"("
    + b"N" * 1_000_000
    + b"tq\x000(cbuiltins\nset\nq\x010"
    + b"h\x01h\x00R0" * 50_000
    + b"l",
    "a long reference, again and again": b"(" + b"N" * 1_000_000 + b"tq\x000(" + b"h\x00Q0" * 50_000 + b"l",
    "lists in lists": b"]" * 100_000 + b"a" * 99_999,
    "lists in lists, half of them met before": pickle.dumps([HALF_AS_DEEP, nested(60, HALF_AS_DEEP)], 2)[2:-1],
    "a list in itself": b"]q\x00h\x00a",
}


@pytest.mark.parametrize("name", PICKLES)
@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_a_pickle(name: str, write: Callable[[Path, bytes], Path], tmp_path: Path) -> None:
    path = write(tmp_path / "a.pth", b"\x80\x04" + PICKLES[name] + b".")
    message = refused(lambda: load_checkpoint(path))
    assert "index out of range" not in message  # a sound pickle, refused for what it builds


def test_what_is_shared_a_little_is_read(tmp_path: Path) -> None:
    shared = {"a": [1, 2.5, None], "b": (True, b"c")}
    saved = {"first": shared, "again": [shared] * 20, "set": {1, "a", None}, 3: frozenset({b"b", 2.5})}
    torch.save(saved, tmp_path / "a.pth")
    assert load_checkpoint(tmp_path / "a.pth") == saved


@pytest.mark.parametrize("mapped", [False, True])
def test_records_that_share_their_bytes(mapped: bool, tmp_path: Path) -> None:
    torch.save({str(index): torch.zeros(50_000) + index for index in range(400)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as archive, zipfile.ZipFile(tmp_path / "bomb.pth", "w") as bomb:
        bomb.writestr("a/data.pkl", archive.read("a/data.pkl"))
        bomb.writestr("a/data/0", archive.read("a/data/0"))
        for index in range(1, 400):
            twin = copy.copy(bomb.getinfo("a/data/0"))
            twin.filename = f"a/data/{index}"
            bomb.filelist.append(twin)
    assert (tmp_path / "bomb.pth").stat().st_size < 300_000  # 80 MB when it was loaded
    assert "overlap" in refused(lambda: load_checkpoint(tmp_path / "bomb.pth", mapped=mapped))


def test_storages_of_the_old_format_larger_than_the_file(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save([torch.zeros(50_000) for _ in range(400)], buffer, _use_new_zipfile_serialization=False)
    (tmp_path / "bomb.pth").write_bytes(buffer.getvalue()[:1_000_000])
    assert "larger than the file" in refused(lambda: load_checkpoint(tmp_path / "bomb.pth"))


def test_one_number_as_a_huge_tensor(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1).expand(1 << 20, 1 << 18)}, tmp_path / "a.pth")
    assert "more than a file of its size" in refused(lambda: load_checkpoint(tmp_path / "a.pth"))
    torch.save({"w": torch.ones(1).expand(16, 3)}, tmp_path / "small.pth")
    torch.testing.assert_close(load_checkpoint(tmp_path / "small.pth"), {"w": torch.ones(16, 3)})


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_device_is_no_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pth" if kind == "pipe" else Path("/dev/zero")
    if kind == "pipe":
        os.mkfifo(path)
    assert "no regular file" in refused(lambda: load_checkpoint(path))
    assert "no regular file" in refused(lambda: load_checkpoint(path, trust=True))


N = 149_000
CONFIGS = {
    "brackets": "[" * N,
    "calls": "f(" * (N // 2),
    "minus": "-" * N + "1",
    "not": "not " * (N // 4) + "1",
    "attributes": "a" + ".b" * (N // 2),
    "indices": "a" + "[0]" * (N // 3),
    "sums": "1+" * (N // 2) + "1",
    "powers": "1**" * (N // 3) + "1",
    "names": "x=" * (N // 2) + "1",
    "lambdas": "lambda:" * (N // 7) + "1",
    "conditions": "1 if 1 else " * (N // 12) + "1",
    "digits": "1" * N,
    "hexadecimal": "0x" + "f" * N,
    "long": "'" + "a" * N * 2 + "'",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_stored_config(name: str) -> None:
    code = f"x = {CONFIGS[name]}"
    assert "config" in refused(lambda: parse_config(code))


def test_arrays_that_share_their_bytes(tmp_path: Path) -> None:
    from repvgg_mm.engine.safe_loader import Loader

    array = np.zeros(100_000)
    data = pickle.dumps(array, 2)[2:-1]
    assert data.startswith(b"cnumpy")
    torch.save({"meta": {"x": array}}, tmp_path / "fine.pth")
    assert isinstance(Loader(False, False).load(str(tmp_path / "fine.pth"))["meta"]["x"], np.ndarray)
    # _reconstruct(...) of each array anew, but one state for all of them
    head, state = data[: data.index(b"(K\x01")], data[data.index(b"(K\x01") :]
    body = b"}" + text("meta") + b"](" + head + state[:-1] + b"q\xc8b" + (head + b"h\xc8b") * 200 + b"es"
    write_zip(tmp_path / "bomb.pth", b"\x80\x02" + body + b".")
    assert "larger than the file" in refused(lambda: Loader(False, False).load(str(tmp_path / "bomb.pth")))


def test_little_memory(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.pth", b"\x80\x04" + PICKLES["one text as bytes, again and again"] + b".")
    script = f"""
import resource
from repvgg_mm.checkpoint import load_checkpoint
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    load_checkpoint({str(path)!r})
except ValueError:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert int(done.stdout) < 50, done.stderr  # MB
