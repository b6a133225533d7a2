"""Opening a large image folder: time and memory, each in a process of its own, against torchvision."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from .results import Result, Spread
from .timing import ratio

_CLASSES = 1000
_MEASURE = """
import gc, resource, sys, time
def kept():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20
small, large = sys.argv[1:]
{make}
first = make(small)  # what only the first folder pays for is imported now
before, start = kept(), time.perf_counter()
folder = make(large)
print(time.perf_counter() - start, kept() - before, len(folder))
"""
_MAKERS = {
    "torchvision": "from torchvision.datasets import ImageFolder\nmake = lambda root: ImageFolder(root + '/train')",
    "repvgg_mm": "from repvgg_mm.data.images import ImageFolder\nmake = lambda root: ImageFolder(root, 'train', [])",
}


def opening(repeats: int, images: int = 200_000) -> list[Result]:
    """Open a folder of empty files in 1,000 classes. Needs Linux, which tells what memory a process holds.

    Args:
        repeats: processes of each, in turn.
        images: how many files.

    Returns:
        Seconds and MiB kept, with ratios against torchvision's ``ImageFolder``.
    """
    seconds: dict[str, list[float]] = {name: [] for name in _MAKERS}
    kept: dict[str, list[float]] = {name: [] for name in _MAKERS}
    with TemporaryDirectory() as work:
        small, large = Path(work, "small"), Path(work, "large")
        _write_names(small, _CLASSES)
        _write_names(large, images)
        for _ in range(repeats):
            for name, maker in _MAKERS.items():
                command = [sys.executable, "-c", _MEASURE.replace("{make}", maker), str(small), str(large)]
                said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
                assert int(said[2]) == images
                seconds[name].append(float(said[0]))
                kept[name].append(float(said[1]))
    case, base = f"opening {images:,} files", "torchvision"
    return [
        Result(case, "", name, Spread.of(values[name]), unit, ratio(values[name], values[base]), goal)
        for values, unit, limit in ((seconds, "s", "<= 1.20"), (kept, "MiB", "< 1.00"))
        for name, goal in ((base, ""), ("repvgg_mm", limit))
    ]


def _write_names(root: Path, images: int) -> None:
    for index in range(min(images, _CLASSES)):
        folder = root / "train" / f"n{index:08}"
        folder.mkdir(parents=True)
        for number in range(index, images, _CLASSES):
            (folder / f"n{index:08}_{number}.JPEG").touch()
