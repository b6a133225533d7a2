"""The data pipeline's benchmark: both sides read the same files and do the same work."""

from pathlib import Path

import torch
from PIL import Image

from repvgg_mm.benchmark.pipeline import our_loader, pipeline, torchvision_loader, write_photos


def test_photos_are_like_imagenets(tmp_path: Path) -> None:
    write_photos(tmp_path, 12)
    files = sorted(tmp_path.rglob("*.jpg"))
    assert len(files) == 12 and len({file.parent for file in files}) == 10
    assert {Image.open(file).size for file in files} == {(366, 274)}
    # ImageNet's mean is 110 kB for 400 x 350 pixels and more
    assert all(0.3 < file.stat().st_size / (366 * 274) < 1 for file in files)


def test_both_loaders_give_the_same_kind_of_batches(tmp_path: Path) -> None:
    write_photos(tmp_path / "train", 40)
    ours = list(our_loader(str(tmp_path), 0))
    theirs = list(torchvision_loader(str(tmp_path), 0, []))
    assert [len(batch["inputs"]) for batch in ours] == [len(images) for images, _ in theirs] == [32, 8]
    assert ours[0]["inputs"].shape == theirs[0][0].shape == (32, 3, 224, 224)
    assert ours[0]["inputs"].dtype == theirs[0][0].dtype == torch.uint8
    our_labels = torch.cat([batch["data_samples"] for batch in ours])
    their_labels = torch.cat([labels for _, labels in theirs])
    torch.testing.assert_close(our_labels.sort().values, their_labels.sort().values, rtol=0, atol=0)


def test_rates_with_and_without_workers() -> None:
    results = pipeline(1, 10)
    assert {result.case for result in results} == {"data pipeline, 0 workers", "data pipeline, 2 workers"}
    assert [result.name for result in results] == ["torchvision", "torchvision, uint8", "repvgg_mm"] * 2
    assert all(result.value.median > 0 for result in results)
