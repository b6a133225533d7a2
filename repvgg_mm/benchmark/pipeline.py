"""Images a second of the data pipeline that the ImageNet configs set up, against a bare torchvision one."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from mmengine.runner import Runner
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from ..engine.config import load_config
from .results import Result, Spread
from .timing import Work, ratio, time_in_turn

_CONFIG = Path(__file__).resolve().parents[2] / "configs" / "repvgg_a0_imagenet.py"
_WORKERS = (0, 2)
_CLASSES = 10
_SIZE = (366, 274)  # width and height, pixels
_BATCH = 32
_STANDARD = "torchvision"


def pipeline(repeats: int, images: int = 192) -> list[Result]:
    """Time epochs over generated JPEG files with the training data loader of ``configs/repvgg_a0_imagenet.py``.

    Args:
        repeats: epochs of each.
        images: number of files; they are read from the page cache.

    Returns:
        Rates, with two workers and without; ratios of rates against torchvision's ``ImageFolder`` with the standard
        transforms, which normalise each image. One more line has uint8 images from Pillow, normalised on the device as
        ours are.

    Raises:
        FileNotFoundError: if the configs are not beside the package, as in an installed wheel.
    """
    if not _CONFIG.is_file():
        raise FileNotFoundError(f"no such file: {_CONFIG}; the pipeline case needs a checkout of the project")
    results = []
    with TemporaryDirectory() as folder:
        write_photos(Path(folder, "train"), images)
        for workers in _WORKERS:
            loaders = {
                _STANDARD: torchvision_loader(
                    folder, workers, [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)]
                ),
                f"{_STANDARD}, uint8": torchvision_loader(folder, workers, []),
                "repvgg_mm": our_loader(folder, workers),
            }
            works = {name: _epoch(loader) for name, loader in loaders.items()}
            times = time_in_turn(works, repeats, torch.device("cpu"))
            for name, seconds in times.items():
                rate = Spread.of([images / second for second in seconds])
                faster = ratio(times[_STANDARD], seconds)
                goal = ">= 1.45" if name == "repvgg_mm" else ""
                results.append(Result(f"data pipeline, {workers} workers", "", name, rate, "images/s", faster, goal))
    return results


def our_loader(data_root: str, workers: int) -> DataLoader[Any]:
    """Build the training data loader of the config, as mmengine does."""
    cfg = load_config(str(_CONFIG), options={"data_root": data_root}).train_dataloader
    cfg.update(num_workers=workers, persistent_workers=workers > 0, batch_size=_BATCH, pin_memory=False)
    return Runner.build_dataloader(cfg, seed=0)


def torchvision_loader(data_root: str, workers: int, more: list[Callable[[Any], Any]]) -> DataLoader[Any]:
    """Build what a script without OpenMMLab has; ``more`` are transforms of the tensor."""
    steps = [v2.RandomResizedCrop(224), v2.RandomHorizontalFlip(), v2.ToImage(), *more]
    dataset = ImageFolder(str(Path(data_root, "train")), v2.Compose(steps))
    return DataLoader(dataset, batch_size=_BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


def write_photos(folder: Path, images: int) -> None:
    """Write JPEG files cut out of scikit-learn's two photos, in folders of classes.

    Args:
        folder: made here.
        images: how many; at least one a class.
    """
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    random = np.random.default_rng(0)
    for index in range(images):
        photo = photos[index % len(photos)]
        width = random.uniform(0.6, 0.8) * photo.width
        height = width * _SIZE[1] / _SIZE[0]
        left, top = random.uniform(0, photo.width - width), random.uniform(0, photo.height - height)
        image = np.asarray(photo.resize(_SIZE, Image.Resampling.BICUBIC, (left, top, left + width, top + height)))
        noisy = np.clip(image + random.normal(0, 8, image.shape), 0, 255).astype(np.uint8)  # upscaling made it smooth
        path = folder / f"class{index % _CLASSES}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(path, quality=90)


def _epoch(loader: DataLoader[Any]) -> Work:
    def work() -> None:
        for _ in loader:
            pass

    return work
