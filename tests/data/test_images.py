"""Classification data: folders, lists, class order, broken files."""

import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS
from PIL import Image
from scipy.io import savemat
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from repvgg_mm.data.images import ImageFolder, collate_images
from repvgg_mm.data.sampling import Draw

CLASSES = ("ant", "bee", "cow")
PLAIN: list[dict[str, Any]] = [{"type": "Resize", "size": (8, 12)}]


def write(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """train/ and val/ with two images a class; flat/ with the images of val/ and no class folders."""
    for index, name in enumerate(CLASSES):
        for number in range(2):
            write(tmp_path / "train" / name / f"{number}.png", 10 * index + number)
            write(tmp_path / "val" / name / f"{number}.JPEG", 50 + 10 * index + number)
            write(tmp_path / "flat" / f"{name}{number}.JPEG", 50 + 10 * index + number)
    return tmp_path


def make(root: Path, split: str = "train", **arguments: Any) -> ImageFolder:
    return ImageFolder(str(root), split, **{"transforms": PLAIN, **arguments})


def everything(data: ImageFolder) -> list[tuple[Tensor, int]]:
    return [(data[index]["inputs"], data[index]["data_samples"]) for index in range(len(data))]


def test_images_are_what_pillow_makes_of_the_files(root: Path) -> None:
    data = make(root)
    for index, (image, label) in enumerate(everything(data)):
        path = root / "train" / CLASSES[index // 2] / f"{index % 2}.png"
        expected = v2.Compose([v2.Resize((8, 12)), v2.PILToTensor()])(Image.open(path))
        assert type(image) is Tensor and image.dtype == torch.uint8 and label == index // 2
        torch.testing.assert_close(image, expected, rtol=0, atol=0)


@pytest.mark.parametrize("split", ["train", "val"])
def test_crops_are_those_of_pillow_by_the_same_seeds(root: Path, split: str) -> None:
    """Rounded otherwise, so that a value is at most one level off."""
    steps = [{"type": "RandomResizedCrop", "size": 16}, {"type": "RandomHorizontalFlip"}]
    data = make(root, split, transforms=steps)
    pillow = v2.Compose([v2.RandomResizedCrop(16), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    paths = sorted((root / split).rglob("*.*"))
    for draw in (Draw(index, seed) for index in range(len(data)) for seed in range(4)):
        image = data[draw]["inputs"]
        draw.seed_everything()
        expected = pillow(Image.open(paths[draw]).convert("RGB"))
        torch.testing.assert_close(image.int(), expected.int(), rtol=0, atol=1)


def test_grey_and_transparent_images_become_rgb(root: Path) -> None:
    Image.new("L", (9, 9), 70).save(root / "train/ant/0.png")
    Image.new("LA", (9, 9), (70, 3)).save(root / "train/ant/1.png")
    for image, _ in everything(make(root))[:2]:
        assert image.shape == (3, 8, 12) and set(image.unique().tolist()) == {70}


def test_class_order_is_that_of_the_folders_or_the_given_one(root: Path) -> None:
    assert make(root).metainfo == {"classes": CLASSES}
    turned = make(root, classes=("cow", "ant", "bee"))
    assert turned.metainfo == {"classes": ("cow", "ant", "bee")}
    label_of = {int(image.sum()): label for image, label in everything(turned)}
    assert [label_of[int(image.sum())] for image, _ in everything(make(root))] == [1, 1, 2, 2, 0, 0]


def test_classes_come_from_another_split_or_a_text_file(root: Path) -> None:
    (root / "names.txt").write_text("bee\nant\ncow\n")
    assert make(root, "val", classes="train").metainfo == {"classes": CLASSES}
    assert make(root, "val", classes="names.txt").metainfo == {"classes": ("bee", "ant", "cow")}


def test_a_split_with_other_classes_is_refused(root: Path) -> None:
    """A missing folder would shift all later indices in silence."""
    for image in (root / "val/bee").iterdir():
        image.unlink()
    (root / "val/bee").rmdir()
    write(root / "val/dog/0.png", 1)
    assert make(root, "val").metainfo == {"classes": ("ant", "cow", "dog")}
    with pytest.raises(ValueError, match=r"val.*3 classes: missing bee, unknown dog"):
        make(root, "val", classes="train")


def test_flat_folder_with_a_list_equals_class_folders(root: Path) -> None:
    lines = [f"{name}{number}.JPEG {index}" for index, name in enumerate(CLASSES) for number in range(2)]
    (root / "val.txt").write_text("\n".join(lines) + "\n\n")
    flat = everything(make(root, "flat", classes="train", ann_file="val.txt"))
    for (image, label), (expected, index) in zip(flat, everything(make(root, "val")), strict=True):
        torch.testing.assert_close(image, expected, rtol=0, atol=0)
        assert label == index


def write_devkit(folder: Path, numbers: list[int]) -> None:
    """ImageNet's ground truth: numbers in an order of their own, which meta.mat translates; 4 is no leaf there."""
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
    synsets = np.array([(1, "cow", 0), (2, "ant", 0), (3, "bee", 0), (4, "animal", 3)], dtype=kinds)
    folder.mkdir()
    savemat(folder / "meta.mat", {"synsets": synsets.reshape(-1, 1)})
    (folder / "truth.txt").write_text("".join(f"{number}\n" for number in numbers))


def test_flat_folder_with_the_ground_truth_of_the_development_kit_equals_class_folders(root: Path) -> None:
    write_devkit(root / "devkit", [2, 2, 3, 3, 1, 1])
    flat = everything(make(root, "flat", classes="train", ann_file="devkit/truth.txt"))
    for (image, label), (expected, index) in zip(flat, everything(make(root, "val")), strict=True):
        torch.testing.assert_close(image, expected, rtol=0, atol=0)
        assert label == index


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([2, 2, 3], "has 3 numbers, but .*flat 6 images"),
        ([2, 2, 3, 3, 1, 4], r"number 4 \(animal\) is none of the classes"),
        ([2, 2, 3, 3, 1, 9], r"number 9 \(None\) is none of the classes"),
    ],
)
def test_ground_truth_that_does_not_fit_is_refused(root: Path, numbers: list[int], message: str) -> None:
    write_devkit(root / "devkit", numbers)
    with pytest.raises(ValueError, match=message):
        make(root, "flat", classes="train", ann_file="devkit/truth.txt")


def test_ground_truth_needs_its_meta_file(root: Path) -> None:
    write_devkit(root / "devkit", [2, 2, 3, 3, 1, 1])
    (root / "devkit/meta.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"meta\.mat beside it"):
        make(root, "flat", classes="train", ann_file="devkit/truth.txt")


@pytest.mark.parametrize("content", ["", " \n\n"])
def test_an_empty_list_is_refused(root: Path, content: str) -> None:
    (root / "val.txt").write_text(content)
    with pytest.raises(ValueError, match=r"val\.txt is empty: it lists no image"):
        make(root, "flat", classes=CLASSES, ann_file="val.txt")


@pytest.mark.parametrize("line", ["ant0.JPEG 3", "ant0.JPEG -1", "ant0.JPEG", "ant0.JPEG,1", "5", "ant0.JPEG bee"])
def test_wrong_line_of_a_list_is_shown(root: Path, line: str) -> None:
    (root / "val.txt").write_text(f"ant1.JPEG 0\n{line}\n")
    with pytest.raises(ValueError, match=r"val\.txt, line 2") as caught:
        make(root, "flat", classes=CLASSES, ann_file="val.txt")
    assert repr(line) in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "nowhere"}, "does not exist: set data_root"),
        ({"split": "flat"}, "holds no class folders: give ann_file"),
        ({"split": "flat", "ann_file": "val.txt"}, "needs classes"),
        ({"split": "flat", "ann_file": "val.txt", "classes": CLASSES}, "list of images .* does not exist"),
        ({"classes": "absent.txt"}, "absent.txt does not exist"),
        ({"classes": ("ant", "bee", "cow", "bee")}, "bee more than once"),
        ({"transforms": [{"type": "Resise"}]}, "'Resise' is unknown"),
        ({"broken": "ignore"}, "'ignore' is unknown: choose 'stop' or 'skip'"),
    ],
)
def test_wrong_arguments_are_named(root: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        make(root, **arguments)


def damage(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:100])
    return path


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_file_stops_with_its_path(root: Path, workers: int) -> None:
    path = damage(root / "train/bee/1.png")
    with pytest.raises(ValueError, match=str(path)):
        list(DataLoader(make(root), batch_size=2, num_workers=workers, collate_fn=collate_images))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """The log file of a run, which its workers write as well."""
    path, logger = tmp_path / "log", MMLogger.get_current_instance()
    handler = logging.FileHandler(path)
    logger.addHandler(handler)
    yield path
    logger.removeHandler(handler)
    handler.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_files_are_skipped_and_counted(root: Path, workers: int, log: Path) -> None:
    paths = [damage(root / "train/ant/0.png"), damage(root / "train/bee/1.png")]
    (root / "train/cow/0.png").write_bytes(b"")
    data = make(root, broken="skip")
    batches = list(DataLoader(data, batch_size=3, num_workers=workers, collate_fn=collate_images))
    assert [batch["data_samples"].tolist() for batch in batches] == [[0, 1], [2]]
    assert [tuple(batch["inputs"].shape) for batch in batches] == [(2, 3, 8, 12), (1, 3, 8, 12)]
    lines = log.read_text()
    assert all(f"image {path} can't be read" in lines for path in paths) and "skipped (3 so far)" in lines


def test_a_batch_without_any_readable_image_stops(root: Path) -> None:
    for number in range(2):
        damage(root / f"train/ant/{number}.png")
    with pytest.raises(ValueError, match="none of the 2 images"):
        list(DataLoader(make(root, broken="skip"), batch_size=2, collate_fn=collate_images))


def test_configs_find_it_and_workers_can_be_started_afresh(root: Path) -> None:
    data = DATASETS.build({"type": "ImageFolder", "data_root": str(root), "split": "train", "transforms": PLAIN})
    copy = pickle.loads(pickle.dumps(data))
    torch.testing.assert_close(copy[3], data[3], rtol=0, atol=0)


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
