"""Listing a folder: torchvision's images in torchvision's order, in a fraction of the memory."""

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

from repvgg_mm.data.listing import Listing, list_folders


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def by_torchvision(root: Path, names: tuple[str, ...]) -> list[tuple[str, int]]:
    images = make_dataset(root, {name: index for index, name in enumerate(names)}, IMG_EXTENSIONS)
    return [(str(Path(path).relative_to(root)), label) for path, label in images]


def everything(listing: Listing) -> list[tuple[str, int]]:
    return [(listing.path(index), int(listing.labels[index])) for index in range(len(listing))]


def test_folders_are_listed_in_torchvisions_order(tmp_path: Path) -> None:
    root = touch(
        tmp_path / "train",
        *("b/2.png", "b/10.JPEG", "b/1.webp", "b/Z.jpg", "b/ä.jpg", "b/notes.txt", "b/.hidden.png"),
        *("a/sub/deep/1.jpg", "a/sub/1.jpg", "a/sub.jpg", "a/sub-b/1.jpg", "a b/1.TIFF"),
    )
    touch(tmp_path / "elsewhere", "linked.jpg")
    (root / "a/link").symlink_to(tmp_path / "elsewhere")
    names, listing = list_folders(root, None)
    assert names == ("a", "a b", "b") and len(listing) == 12
    assert everything(listing) == by_torchvision(root, names)


def test_given_classes_set_the_order(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.jpg", "b/1.jpg")
    _, listing = list_folders(root, ("b", "a"))
    assert everything(listing) == [("b/1.jpg", 0), ("a/1.jpg", 1)]


def test_a_class_without_an_image_is_named(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.jpg", "b/1.txt", "c/1.gif")
    with pytest.raises(FileNotFoundError, match=r"no image of b, c: files must end in \.jpg"):
        list_folders(root, None)


def test_a_listing_takes_a_fraction_of_torchvisions_memory(tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"n{10**7 + index % 3}/n{10**7 + index % 3}_{index}.JPEG" for index in range(600)))
    names, _ = list_folders(root, None)  # what is kept for good: imports, the suffixes

    def kept(make: Any) -> int:
        tracemalloc.start()
        listing = make()
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert len(listing) in (2, 600)
        return size

    assert kept(lambda: list_folders(root, None)) < 0.5 * kept(lambda: by_torchvision(root, names))
