"""Downloads: one file an address, whole and with the hash that its name says, or one clear line and nothing kept."""

import hashlib
import socket
import threading
from pathlib import Path

import pytest
import torch
from file_server import FileServer

from repvgg_mm.checkpoint.download import download, hash_in_name
from repvgg_mm.checkpoint.errors import CheckpointError

SHA = hashlib.sha256(b"weights").hexdigest()


def kept(hub: Path) -> list[str]:
    return [path.name for path in hub.rglob("*") if path.is_file() and path.name != ".lock"]


def test_files_of_one_name_are_kept_apart(server: FileServer, hub: Path) -> None:
    """Every file of timm on a hub is called `model.safetensors`."""
    server.files = {"/a/model.safetensors": b"a", "/b/model.safetensors": b"b", "/a/model.safetensors?v=2": b"a2"}
    paths = [download(server.address + path) for path in server.files]
    assert [path.read_bytes() for path in paths] == [b"a", b"b", b"a2"]
    assert {path.name for path in paths} == {"model.safetensors"} and len(set(paths)) == 3
    assert all(path.is_relative_to(hub) for path in paths)


def test_it_is_downloaded_once(server: FileServer, hub: Path) -> None:
    server.files["/w.pth"] = b"weights"
    paths = []
    threads = [threading.Thread(target=lambda: paths.append(download(f"{server.address}/w.pth"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 1 and len(paths) == 4
    assert server.requests == ["/w.pth"]


@pytest.mark.parametrize("name", [f"w-{SHA[:8]}.pth", f"w_20221213-{SHA[:12]}.pth.tar", f"w-{SHA}.pth", f"{SHA}.bin"])
def test_the_hash_in_the_name_is_checked(server: FileServer, hub: Path, name: str) -> None:
    server.files[f"/{name}"] = b"weights"
    assert download(f"{server.address}/{name}").read_bytes() == b"weights"
    other = name.replace(SHA[:8], "0" * 8)
    server.files[f"/{other}"] = b"weights"
    with pytest.raises(CheckpointError, match=rf"{other}: its name says SHA-256 00000000\w*, .* has {SHA[:8]}"):
        download(f"{server.address}/{other}")
    assert kept(hub) == [name]


@pytest.mark.parametrize(
    "name", ["w.pth", "w-20221213.pth", "repvgg_a0_train_imagenet_2063bcbc.pth", "w-60ae8e2.pth", "w-deadbeefs.pth"]
)
def test_what_is_no_hash_is_none(name: str) -> None:
    """A date; ZCls's digits after an underscore; seven digits; a word."""
    assert hash_in_name(name) is None


def test_a_download_that_ends_early_is_not_kept(server: FileServer, hub: Path) -> None:
    server.files["/w.pth"], server.headers["/w.pth"] = b"weig", {"Content-Length": "7"}
    with pytest.raises(CheckpointError, match=r"w\.pth: it ended after 4 of 7 bytes$"):
        download(f"{server.address}/w.pth")
    assert kept(hub) == []
    server.files["/w.pth"] = b"weights"
    assert download(f"{server.address}/w.pth").read_bytes() == b"weights"


def test_what_is_not_there_is_one_line(server: FileServer, hub: Path) -> None:
    with pytest.raises(CheckpointError, match=r"^cannot download http://127\.0\.0\.1:\d+/no\.pth: HTTP Error 404: .+$"):
        download(f"{server.address}/no.pth")
    with pytest.raises(CheckpointError, match="names no file"):
        download(f"{server.address}/")
    assert kept(hub) == []


def test_an_unreachable_address_is_one_line(hub: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # nobody listens
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/w.pth"
        with pytest.raises(CheckpointError, match=rf"^cannot download {address}: .*refused.*$"):
            download(address)


def test_a_hub_folder_that_is_a_file_is_one_line(server: FileServer, hub: Path) -> None:
    hub.write_text("")
    with pytest.raises(CheckpointError, match=r"cannot download .* Not a directory"):
        download(f"{server.address}/w.pth")


def test_the_hub_folder_is_torchs(hub: Path) -> None:
    assert torch.hub.get_dir() == str(hub)


def test_what_is_there_needs_no_lock(server: FileServer, hub: Path) -> None:
    """The folder may be read-only by now."""
    server.files["/w.pth"] = b"weights"
    lock = download(f"{server.address}/w.pth").with_name(".lock")
    lock.unlink(missing_ok=True)
    lock.mkdir()
    assert download(f"{server.address}/w.pth").read_bytes() == b"weights"
