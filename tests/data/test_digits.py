"""The digits data set: the same bytes every time, all or nothing, and three formats that tell the same story."""

from __future__ import annotations

import hashlib
import json
import random
import runpy
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from repvgg_mm.data.digits import make_digits, run_lengths
from repvgg_mm.data.scenes import CLASSES, PALETTE

pytest.importorskip("sklearn")
TOOL = Path(__file__).parents[2] / "tools" / "make_digits.py"
# Not square and not the default, so that a swap of height and width shows.
SMALL = {
    "train_scenes": 12,
    "val_scenes": 5,
    "train_images": 23,
    "val_images": 10,
    "scene_size": (96, 120),
    "image_size": (48, 40),
    "digit_size": (24, 40),
}


def digest(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("digits") / "small"
    make_digits(root, seed=3, **SMALL)
    return root


class TestDeterminism:
    def test_same_bytes(self, small: Path, tmp_path: Path) -> None:
        np.random.seed(1)
        make_digits(tmp_path / "again", seed=3, **SMALL)
        assert digest(tmp_path / "again") == digest(small)

    def test_seed_changes_every_picture(self, small: Path, tmp_path: Path) -> None:
        make_digits(tmp_path / "other", seed=4, **SMALL)
        ours, others = digest(small), digest(tmp_path / "other")
        assert ours.keys() == others.keys()
        assert not [name for name in ours if ours[name] == others[name]]

    def test_more_scenes_keep_the_earlier_ones(self, small: Path, tmp_path: Path) -> None:
        make_digits(tmp_path / "more", seed=3, **{**SMALL, "train_scenes": 14, "val_images": 11})
        ours, more = digest(small), digest(tmp_path / "more")
        same = {name for name in ours if more.get(name) == ours[name]}
        assert ours.keys() - same == {"digits.json", "detection/train.json"}

    def test_global_random_state_untouched(self, tmp_path: Path) -> None:
        before = (random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state())
        make_digits(tmp_path / "digits", **SMALL)
        assert random.getstate() == before[0]
        np.testing.assert_array_equal(np.random.get_state()[1], before[1])
        torch.testing.assert_close(torch.get_rng_state(), before[2], rtol=0, atol=0)


@pytest.fixture
def no_default_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the scope that a test before this one has set in the same process: names with a scope depend on it."""
    from mmengine.registry import DefaultScope

    monkeypatch.setattr(DefaultScope, "_instance_dict", OrderedDict())


@pytest.mark.usefixtures("no_default_scope")
class TestFormats:
    def test_layout(self, small: Path) -> None:
        names = set(digest(small))
        expected = {"digits.json", "detection/train.json", "detection/val.json"}
        for split, images, scenes in (("train", 23, 12), ("val", 10, 5)):
            expected |= {f"classification/{split}/{i % 10}/{i // 10:04d}.png" for i in range(images)}
            for kind in ("images", "annotations"):
                expected |= {f"segmentation/{kind}/{split}/{i:04d}.png" for i in range(scenes)}
        assert names == expected

    def test_classification_images(self, small: Path) -> None:
        for path in (small / "classification").rglob("*.png"):
            image = read(path)
            assert image.shape == (48, 40, 3) and image.dtype == np.uint8

    def test_image_folder_reads_it(self, small: Path) -> None:
        from torchvision.datasets import ImageFolder

        data = ImageFolder(str(small / "classification/train"))
        assert data.classes == list(CLASSES[1:])
        assert sorted(data.targets) == sorted(i % 10 for i in range(23))

    def test_masks_are_indices(self, small: Path) -> None:
        seen: set[int] = set()
        for path in (small / "segmentation/annotations").rglob("*.png"):
            mask = read(path)
            assert mask.shape == (96, 120) and mask.dtype == np.uint8
            values = set(np.unique(mask).tolist())
            assert 0 in values and len(values) > 1
            seen |= values
        assert seen == set(range(len(CLASSES)))

    def test_masks_show_their_colours(self, small: Path) -> None:
        assert len(PALETTE) == len(CLASSES) == len(set(PALETTE))
        path = small / "segmentation/annotations/val/0000.png"
        with Image.open(path) as mask:
            coloured = np.array(mask.convert("RGB"))
        np.testing.assert_array_equal(coloured, np.array(PALETTE, dtype=np.uint8)[read(path)])

    def test_mmseg_reads_it(self, small: Path) -> None:
        import repvgg_mm  # noqa: F401

        datasets = pytest.importorskip("mmseg.datasets")
        data = datasets.BaseSegDataset(
            data_root=str(small),
            data_prefix={"img_path": "segmentation/images/val", "seg_map_path": "segmentation/annotations/val"},
            img_suffix=".png",
            seg_map_suffix=".png",
            metainfo={"classes": CLASSES, "palette": PALETTE},
            reduce_zero_label=False,
            pipeline=[{"type": "mmseg.LoadImageFromFile"}, {"type": "mmseg.LoadAnnotations"}],
        )
        assert len(data) == 5
        sample = data[1]
        np.testing.assert_array_equal(sample["gt_seg_map"], read(small / "segmentation/annotations/val/0001.png"))
        np.testing.assert_array_equal(sample["img"][..., ::-1], read(small / "segmentation/images/val/0001.png"))

    @pytest.mark.parametrize("split", ["train", "val"])
    def test_coco_agrees_with_masks(self, small: Path, split: str) -> None:
        coco = pytest.importorskip("pycocotools.coco").COCO(str(small / f"detection/{split}.json"))
        mask_api = pytest.importorskip("pycocotools.mask")
        assert {c["id"]: c["name"] for c in coco.dataset["categories"]} == {i: CLASSES[i] for i in range(1, 11)}
        assert len(coco.imgs) == SMALL[f"{split}_scenes"]
        for image in coco.imgs.values():
            labels = read(small / "segmentation/annotations" / split / image["file_name"])
            assert (image["height"], image["width"]) == labels.shape
            assert (small / "segmentation/images" / split / image["file_name"]).is_file()
            painted = np.zeros_like(labels)
            annotations = coco.imgToAnns[image["id"]]
            assert 1 <= len(annotations) <= 4
            for annotation in annotations:
                mask = coco.annToMask(annotation).astype(bool)
                assert not painted[mask].any()  # every pixel belongs to the topmost digit alone
                painted[mask] = annotation["category_id"]
                assert annotation["area"] == mask.sum() and annotation["iscrowd"] == 0
                assert annotation["bbox"] == mask_api.toBbox(coco.annToRLE(annotation)).tolist()
            np.testing.assert_array_equal(painted, labels)

    def test_digits_stand_out(self, small: Path) -> None:
        """Ink and the ground right around it differ in brightness in nearly every scene."""
        contrasts = []
        for path in sorted((small / "segmentation/images/train").iterdir()):
            grey = read(path).mean(axis=2)
            stroke = read(small / "segmentation/annotations/train" / path.name) > 0
            contrasts.append(abs(grey[stroke].mean() - grey[~stroke].mean()))
        assert np.median(contrasts) > 50

    @pytest.mark.parametrize("corner", [False, True])
    def test_run_lengths(self, corner: bool) -> None:
        mask = np.array([[corner, 1, 0], [0, 1, 1]], dtype=bool)
        assert run_lengths(mask) == ([0, 1, 1, 2, 1, 1] if corner else [2, 2, 1, 1])


class TestFolder:
    def test_second_call_leaves_it(self, small: Path) -> None:
        before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
        make_digits(small, seed=3, **SMALL)
        assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before

    def test_empty_folder_is_filled(self, tmp_path: Path) -> None:
        make_digits(tmp_path, **SMALL)
        assert (tmp_path / "digits.json").is_file()

    def test_other_settings(self, small: Path) -> None:
        before = digest(small)
        with pytest.raises(ValueError, match=r"other settings, see digits\.json: delete it"):
            make_digits(small, seed=5, **SMALL)
        assert digest(small) == before

    def test_foreign_folder(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("years of work")
        with pytest.raises(ValueError, match="is not a digits data set: give another folder"):
            make_digits(tmp_path, **SMALL)
        assert digest(tmp_path).keys() == {"thesis.txt"}

    def test_file_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "digits").write_text("")
        with pytest.raises(ValueError, match="is not a digits data set"):
            make_digits(tmp_path / "digits", **SMALL)

    def test_file_missing(self, tmp_path: Path) -> None:
        make_digits(tmp_path, **SMALL)
        (tmp_path / "segmentation/annotations/val/0003.png").unlink()
        with pytest.raises(ValueError, match=r"annotations/val/0003\.png is missing: delete it"):
            make_digits(tmp_path, **SMALL)

    @pytest.mark.parametrize("fails_at", [1, 30, 60])
    def test_failure_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int) -> None:
        save, calls = Image.Image.save, [0]

        def full_disk(self: Image.Image, *args: object, **kwargs: object) -> None:
            calls[0] += 1
            if calls[0] == fails_at:
                raise OSError(28, "No space left on device")
            save(self, *args, **kwargs)

        monkeypatch.setattr(Image.Image, "save", full_disk)
        with pytest.raises(OSError, match="No space left"):
            make_digits(tmp_path / "digits", **SMALL)
        assert list(tmp_path.iterdir()) == []
        monkeypatch.undo()
        make_digits(tmp_path / "digits", **SMALL)
        assert [path.name for path in tmp_path.iterdir()] == ["digits"]

    def test_two_at_once(self, small: Path, tmp_path: Path) -> None:
        with ThreadPoolExecutor(2) as pool:
            for run in [pool.submit(make_digits, tmp_path / "digits", 3, **SMALL) for _ in range(2)]:
                run.result()
        assert digest(tmp_path / "digits") == digest(small)
        assert [path.name for path in tmp_path.iterdir()] == ["digits"]

    def test_readable_by_others(self, small: Path, tmp_path: Path) -> None:
        (tmp_path / "plain").mkdir()
        assert small.stat().st_mode == (tmp_path / "plain").stat().st_mode


class TestErrors:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"seed": -1}, "seed=-1: give 0 or more"),
            ({"val_scenes": 0}, "val_scenes=0: give 1 or more"),
            ({"train_images": -5}, "train_images=-5: give 1 or more"),
            ({"image_size": (64, 8)}, r"image_size=\(64, 8\)"),
            ({"digit_size": (24, 97)}, r"digit_size=\(24, 97\).*scene_size=\(96, 120\)"),
            ({"digit_size": (40, 24)}, r"digit_size=\(40, 24\)"),
            ({"digit_size": (4, 24)}, "least 8 or more"),
        ],
    )
    def test_settings(self, tmp_path: Path, change: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            make_digits(tmp_path / "digits", **{**SMALL, **change})
        assert list(tmp_path.iterdir()) == []

    def test_without_scikit_learn(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
        with pytest.raises(ImportError, match=r"^[^\n]*pip install 'repvgg_mm\[demo\]'$"):
            make_digits(tmp_path / "digits", **SMALL)
        assert list(tmp_path.iterdir()) == []


def run_tool(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", [str(TOOL), *arguments])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(TOOL), run_name="__main__")
    return stop.value.code


class TestTool:
    def test_makes_what_the_function_makes(
        self, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ["--seed", "3"]
        for name, value in SMALL.items():
            values = value if isinstance(value, tuple) else (value,)
            arguments += [f"--{name.replace('_', '-')}", *map(str, values)]
        assert run_tool(monkeypatch, str(tmp_path / "digits"), *arguments) == 0
        assert digest(tmp_path / "digits") == digest(small)
        assert capsys.readouterr().out.startswith(f"{tmp_path / 'digits'}: complete")

    def test_bad_input(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run_tool(monkeypatch, str(tmp_path / "digits"), "--seed", "-1") == 2
        assert capsys.readouterr() == ("", "error: seed=-1: give 0 or more\n")
        assert list(tmp_path.iterdir()) == []

    def test_help_names_an_example(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        assert run_tool(monkeypatch, "--help") == 0
        assert "python tools/make_digits.py data/digits" in capsys.readouterr().out


def test_detection_json_is_plain(small: Path) -> None:
    """Image and annotation ids start at 1: pycocotools takes an annotation of id 0 for no match."""
    coco = json.loads((small / "detection/train.json").read_text())
    assert [image["id"] for image in coco["images"]] == list(range(1, 13))
    assert [annotation["id"] for annotation in coco["annotations"]] == list(range(1, len(coco["annotations"]) + 1))
