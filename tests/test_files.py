"""Writing whole or not at all: failures, full disks, kills."""

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from repvgg_mm import files
from repvgg_mm.files import atomic_path, save_atomically, workplace

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "repvgg_mm"
WRITER = """
import sys, time
from repvgg_mm.files import atomic_path
with atomic_path(sys.argv[1]) as path:
    path.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""
OTHER = """
import sys
from repvgg_mm.files import atomic_path
with atomic_path(sys.argv[1]) as path:
    path.write_text("other")
"""
LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import torch
from repvgg_mm.files import save_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_atomically({"a": torch.ones(100_000)}, sys.argv[1])
except OSError as error:
    print(error.errno, error.filename)
"""


def child(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def start_writer(target: Path) -> subprocess.Popen:
    process = subprocess.Popen(child(WRITER, target), stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    return process


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="stop"), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("stop")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_file_is_not_seen_before_it_is_complete(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "file.png") as temporary:
        temporary.write_text("all of it")
        assert temporary.suffix == ".png" and not (tmp_path / "file.png").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["file.png"]
    assert (tmp_path / "file.png").read_text() == "all of it"


def test_folders_too(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "data") as temporary:
        (temporary / "train").mkdir(parents=True)
        (temporary / "train" / "a.txt").write_text("a")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert (tmp_path / "data" / "train" / "a.txt").read_text() == "a"


def test_others_may_read_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("")
    with atomic_path(tmp_path / "file.txt") as temporary:
        temporary.write_text("")
    assert (tmp_path / "file.txt").stat().st_mode == (tmp_path / "plain.txt").stat().st_mode


def test_bytes_are_on_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut may leave an empty file under the final name."""
    calls: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real: (calls.append(name), real(*args)))
    with atomic_path(tmp_path / "file.txt") as temporary:
        temporary.write_text("x")
    assert calls == ["fsync", "replace"]


def test_long_names(tmp_path: Path) -> None:
    with atomic_path(tmp_path / ("n" * 255)) as temporary:
        temporary.write_text("x")
    assert (tmp_path / ("n" * 255)).is_file()


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"), atomic_path(tmp_path / "nowhere" / "f"):
        pass
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(FileExistsError, match="fifo is no regular file"), atomic_path(tmp_path / "fifo"):
        pass
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("precious")
    with pytest.raises(OSError, match="full"), atomic_path(tmp_path / "full") as temporary:
        temporary.mkdir()
    assert (tmp_path / "full" / "file").read_text() == "precious"


def test_a_full_disk_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught, workplace(tmp_path / "out.onnx"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path / "out.onnx")


def test_errors_of_other_files_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="elsewhere"), workplace(tmp_path / "out.onnx"):
        (tmp_path / "elsewhere").read_text()


def test_torch_save_on_a_full_disk_is_an_os_error(tmp_path: Path) -> None:
    """torch says "unexpected pos 768 vs 662" and raises a RuntimeError."""
    done = subprocess.run(child(LIMITED, tmp_path / "out.pth"), capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == [str(errno.EFBIG), str(tmp_path / "out.pth")], done.stderr
    assert not list(tmp_path.iterdir())


def test_the_next_process_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    process = start_writer(target)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1 and not target.exists()
    subprocess.run(child(OTHER, tmp_path / "other.txt"), check=True, cwd=ROOT)
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]


def test_files_of_a_living_process_are_left_alone(tmp_path: Path) -> None:
    process = start_writer(tmp_path / "file.txt")
    try:
        (temporary,) = tmp_path.iterdir()
        os.utime(temporary, (0, 0))  # old, too
        subprocess.run(child(OTHER, tmp_path / "other.txt"), check=True, cwd=ROOT)
        assert (temporary / "file.txt").read_text() == "half"
    finally:
        process.kill()
        process.wait()


def test_without_locks_leftovers_go_after_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "fcntl", None)
    young, old = tmp_path / ".repvgg_mm-young.tmp", tmp_path / ".repvgg_mm-old.tmp"
    for folder in (young, old):
        folder.mkdir()
    os.utime(old, (0, 0))
    save_atomically("x", tmp_path / "file", lambda text, path: path.write_text(str(text)))
    assert sorted(path.name for path in tmp_path.iterdir()) == [young.name, "file"]


def test_it_is_the_one_place() -> None:
    """Whoever writes a temporary file and renames it does so through files.py."""
    own = re.compile(r"os\.(replace|rename)\(|mkstemp|mkdtemp|shutil\.move|uuid")
    found = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if own.search(path.read_text())}
    assert found == {"files.py"}


def test_a_folder_swept_before_it_was_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, swept = files._lock, []

    def lock_too_late(folder: Path) -> int | None:
        if not swept:
            swept.append(folder)
            folder.rmdir()  # as another process does that finds it without a lock
        return lock(folder)

    monkeypatch.setattr(files, "_lock", lock_too_late)
    with files.atomic_path(tmp_path / "a.txt") as path:
        path.write_text("whole")
    assert swept and (tmp_path / "a.txt").read_text() == "whole" and len(list(tmp_path.iterdir())) == 1
