"""Tar shards: what a folder holds, in the webdataset package's format; from a store each shard is copied once."""

import io
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from file_server import FileServer, serve
from PIL import Image
from torch.utils.data import DataLoader

from repvgg_mm.data import ImageFolder, ImageShards, ShardSampler, collate_images
from repvgg_mm.data.data_error import DataError, data_message
from repvgg_mm.data.shard_index import INDEX_NAME, ShardIndex, index_shards
from repvgg_mm.data.shard_writer import make_shards

CLASSES = ("ant", "bee.fly", "cow")
PLAIN: list[dict[str, Any]] = [{"type": "Resize", "size": (8, 12)}]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """folder/train with 30 images of three classes, shards/train with the same in about ten shards."""
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for number in range(30):
        path = root / "folder/train" / CLASSES[number % 3] / f"{number}.v1{['.JPEG', '.png'][number % 2]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (12, 20, 3), dtype=np.uint8)).save(path)
    (root / "shards").mkdir()
    make_shards(root / "folder/train", root / "shards/train", shard_bytes=2000)
    return root


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """Shards to damage."""
    return Path(shutil.copytree(made / "shards", tmp_path / "shards"))


def shards(root: Path | str, **arguments: Any) -> ImageShards:
    return ImageShards(str(root), "train", **{"transforms": PLAIN, **arguments})


def contents(data: ImageFolder | ImageShards) -> list[tuple[bytes, int]]:
    return sorted((sample["inputs"].numpy().tobytes(), sample["data_samples"]) for sample in data)


def test_shards_hold_what_the_folder_holds(made: Path) -> None:
    folder = ImageFolder(str(made / "folder"), "train", PLAIN)
    data = shards(made / "shards")
    assert data.metainfo == folder.metainfo == {"classes": CLASSES}
    assert len(data.index.names) > 5
    assert contents(data) == contents(folder)


def test_the_webdataset_package_reads_the_same(made: Path) -> None:
    import webdataset

    data = shards(made / "shards")
    urls = [str(made / "shards/train" / name) for name in data.index.names]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert len(samples) == len(data)
    for image, sample in enumerate(samples):
        (suffix,) = {"jpeg", "png"} & sample.keys()
        assert data.store.read(image) == sample[suffix]
        assert data.index.labels[image] == int(sample["cls"])
        assert data.store.member_name(image).startswith(f"{sample['__key__']}.{suffix} of {made}")


def test_the_same_seed_gives_the_same_bytes(made: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again", tmp_path / "100%d"
    make_shards(made / "folder/train", again, shard_bytes=2000)
    make_shards(made / "folder/train", other, shard_bytes=2000, seed=1)
    files = sorted(path.name for path in (made / "shards/train").iterdir())
    assert files == sorted(path.name for path in again.iterdir())
    assert all((again / name).read_bytes() == (made / "shards/train" / name).read_bytes() for name in files)
    assert (other / "000000.tar").read_bytes() != (again / "000000.tar").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"folder": "nowhere"}, "nowhere does not exist"),
        ({"out": "full"}, "full is there already: name a new folder"),
        ({"classes": ("ant", "cow")}, "unknown bee.fly"),
        ({"shard_bytes": 0}, "shard_bytes=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_what_can_not_be_written_is_refused(made: Path, tmp_path: Path, arguments: dict, message: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    places = {"folder": made / "folder/train", "out": tmp_path / "out"}
    given = {name: tmp_path / value if name in places else value for name, value in arguments.items()}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        make_shards(**{**places, **given})
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_an_empty_file_leaves_nothing_behind(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "folder/train", tmp_path / "train")
    path = tmp_path / "train/cow/2.v1.JPEG"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=f"{path} is empty"):
        make_shards(tmp_path / "train", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def damage(data: ImageShards, image: int) -> None:
    """Overwrite one image in its shard."""
    path = Path(data.store._root, str(data.index.names[data.index.shard_of(image)]))
    content = bytearray(path.read_bytes())
    at, size = int(data.index.offsets[image]), int(data.index.sizes[image])
    content[at : at + size] = bytes(size)
    path.write_bytes(content)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_stops_with_its_name_or_is_skipped(copied: Path, workers: int) -> None:
    data = shards(copied)
    damage(data, 4)
    name = data.store.member_name(4)
    with pytest.raises(DataError) as caught:
        list(DataLoader(data, batch_size=10, num_workers=workers, collate_fn=collate_images))
    assert data_message(caught.value).startswith(f"image {name} can't be read: ")
    skipping = shards(copied, broken="skip")
    batches = DataLoader(skipping, batch_size=10, num_workers=workers, collate_fn=collate_images)
    assert [len(batch["data_samples"]) for batch in batches] == [9, 10, 10]


def test_shards_that_are_not_those_of_the_index_are_named(copied: Path) -> None:
    data = shards(copied)
    path = copied / "train/000000.tar"
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(DataError, match=r"000000\.tar has \d+ bytes, its index says \d+: make the shards again"):
        data.store.read(0)
    path.unlink()
    with pytest.raises(DataError, match=r"000000\.tar can't be read: No such file"):
        data.store.read(0)


def test_other_classes_are_refused(made: Path, copied: Path) -> None:
    make_shards(made / "folder/train", copied / "val", classes=("cow", *CLASSES[:2]))
    ImageShards(str(copied), "val", PLAIN)
    with pytest.raises(ValueError, match=r"classes of .*val are not those of .*train"):
        ImageShards(str(copied), "val", PLAIN, classes="train")


def test_a_folder_without_an_index_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make-shards FOLDER"):
        shards(tmp_path)


BAD = {
    "names": lambda names: np.array(["../../etc/passwd", *names[1:]]),
    "offsets": lambda offsets: offsets + 10**6,
    "sizes": lambda sizes: sizes - sizes.max(),
    "labels": lambda labels: labels + 1,
    "ends": lambda ends: ends[:-1],
}


@pytest.mark.parametrize("field", BAD)
def test_an_index_that_contradicts_itself_or_leads_elsewhere_is_refused(copied: Path, field: str) -> None:
    index = vars(shards(copied).index)
    path = copied / "train" / INDEX_NAME
    path.unlink()
    ShardIndex(**{**index, field: BAD[field](index[field])}).save(path)
    with pytest.raises(DataError, match="damaged or of another version"):
        shards(copied)


@pytest.mark.parametrize(
    ("field", "kind"),
    [("names", int), ("classes", int), ("labels", str), ("ends", str), ("offsets", float), ("sizes", bool)],
)
def test_an_index_of_other_kinds_is_refused(copied: Path, field: str, kind: type) -> None:
    index = vars(shards(copied).index)
    path = copied / "train" / INDEX_NAME
    path.unlink()
    ShardIndex(**{**index, field: np.ones(len(index[field])).astype(kind)}).save(path)
    with pytest.raises(DataError, match="damaged or of another version"):
        shards(copied)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 and so on"])
def test_a_damaged_index_is_refused(copied: Path, content: bytes) -> None:
    (copied / "train" / INDEX_NAME).write_bytes(content)
    with pytest.raises(DataError, match=r"index\.npz is no index of shards"):
        shards(copied)


def test_an_index_with_an_object_in_it_is_not_unpickled(copied: Path) -> None:
    np.savez(copied / "train" / INDEX_NAME, format=np.array([print], dtype=object))
    with pytest.raises(DataError, match="no index of shards"):
        shards(copied)


def tar(path: Path, **members: bytes | tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            member = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name.replace("_", "."))
            if isinstance(content, bytes):
                member.size = len(content)
            file.addfile(member, io.BytesIO(content if isinstance(content, bytes) else b""))
    return path


def link(kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo("a.jpg")
    member.type, member.linkname = kind, "/etc/passwd"
    return member


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a_jpg": link(tarfile.SYMTYPE), "a_cls": b"0"}, r"a\.jpg is no regular file"),
        ({"a_jpg": link(tarfile.LNKTYPE), "a_cls": b"0"}, r"a\.jpg is no regular file"),
        ({"a_jpg": link(tarfile.FIFOTYPE), "a_cls": b"0"}, r"a\.jpg is no regular file"),
        ({"a_jpg": b"x"}, r"a has no image, or an image without its \.cls"),
        ({"a_cls": b"0"}, r"a has no image"),
        ({"a_jpg": b"x", "a_png": b"x", "a_cls": b"0"}, r"a\.png is a second file of one image"),
        ({"a_jpg": b"x", "a_cls": b"3"}, r"a\.cls holds '3', no class index below 3"),
        ({"a_jpg": b"x", "a_cls": b"-1"}, r"a\.cls holds '-1'"),
        ({}, "the shard has no image"),
    ],
)
def test_a_tar_with_anything_else_is_not_indexed(tmp_path: Path, members: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        index_shards([tar(tmp_path / "0.tar", **members)], CLASSES)


def test_what_is_no_tar_is_not_indexed(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(DataError, match=r"0\.tar is no whole tar file"):
        index_shards([tmp_path / "0.tar"], CLASSES)


@pytest.fixture
def store(made: Path) -> Iterator[FileServer]:
    """The shards behind an address."""
    if shutil.which("curl") is None:
        pytest.skip("webdataset opens addresses with curl")
    with serve() as server:
        server.files = {f"/train/{path.name}": path.read_bytes() for path in (made / "shards/train").iterdir()}
        yield server


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_copy_each_shard_once(made: Path, store: FileServer, tmp_path: Path, workers: int) -> None:
    data = shards(store.address, cache_dir=str(tmp_path))
    loader = DataLoader(data, batch_size=4, sampler=ShardSampler(data, seed=0), num_workers=workers)
    batches = [*loader, *loader]
    local = shards(made / "shards")
    expected = list(DataLoader(local, batch_size=4, sampler=ShardSampler(local, seed=0)))
    torch.testing.assert_close(batches, [*expected, *expected], rtol=0, atol=0)
    assert sorted(store.requests) == sorted(store.files)


def test_shards_made_again_are_copied_again(store: FileServer, tmp_path: Path) -> None:
    for number in range(6):  # files and shards of one size, in either order
        path = tmp_path / "folder" / "ab"[number % 2] / f"{number}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (0, number % 2, 0)).save(path)
    for seed in (0, 1):
        made = tmp_path / str(seed)
        make_shards(tmp_path / "folder", made, seed=seed)
        store.files = {f"/train/{path.name}": path.read_bytes() for path in made.iterdir()}
        data = shards(store.address, transforms=[], cache_dir=str(tmp_path / "cache"))
        assert [int(sample["inputs"][1, 0, 0]) for sample in data] == [sample["data_samples"] for sample in data]


def test_a_store_that_breaks_is_named(store: FileServer, tmp_path: Path) -> None:
    data = shards(store.address, cache_dir=str(tmp_path))
    del store.files["/train/000001.tar"]
    store.files["/train/000002.tar"] += b"more"
    store.headers["/train/000003.tar"] = {"Content-Length": "9999999"}  # the connection ends before
    for shard, reason in (
        (1, "can't be fetched"),
        (2, r"has \d+ bytes, not those of its index"),
        (3, "can't be fetched"),
    ):
        with pytest.raises(DataError, match=rf"{store.address}/train/00000{shard}\.tar {reason}"):
            data.store.read(int(data.index.ends[shard - 1]))
    assert not list(tmp_path.rglob("*.tar"))


@pytest.mark.parametrize(
    ("root", "arguments", "message"),
    [
        ("http://127.0.0.1:9", {}, "needs cache_dir"),
        ("pipe://rm", {"cache_dir": "x"}, "not read from pipe://"),
        ("http://127.0.0.1:9", {"cache_dir": "x"}, r"index\.npz can't be fetched"),
    ],
)
def test_addresses_that_are_not_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str, arguments: dict, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        shards(root, **arguments)
