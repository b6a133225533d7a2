"""Which images a classification data set has, and of which class each is."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from .imagenet_devkit import list_ground_truth

Samples = list[tuple[str, int]]  # path relative to the split's folder, class index
_SHOWN = 3


def read_classes(data_root: Path, classes: Sequence[str] | str | None) -> tuple[str, ...] | None:
    """Find the names of the classes.

    Args:
        data_root: folder of the data set.
        classes: the names; or a text file with one a line, or a folder with one folder a class, below ``data_root``.

    Returns:
        The names in the order of their indices; None for None.

    Raises:
        FileNotFoundError: if the file or folder is missing.
        ValueError: if a name comes twice.
    """
    if classes is None:
        return None
    if isinstance(classes, str):
        source = data_root / classes
        if not source.exists():
            raise FileNotFoundError(
                f"{source} does not exist: classes={classes!r} must be a list, a text file or a folder of class folders"
            )
        names = _folders(source) if source.is_dir() else tuple(source.read_text().split("\n"))
        classes = [name.strip() for name in names if name.strip()]
    twice = sorted({name for name in classes if classes.count(name) > 1})
    if twice:
        raise ValueError(f"classes: {_some(twice)} more than once")
    return tuple(classes)


def list_folders(root: Path, classes: tuple[str, ...] | None) -> tuple[tuple[str, ...], Samples]:
    """List the images of a folder with one folder a class.

    Args:
        root: the folder.
        classes: the classes; None takes the folders, sorted.

    Returns:
        The classes and the images.

    Raises:
        FileNotFoundError: if a class folder holds no image.
        ValueError: if the class folders are not the classes.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    found = _folders(root)
    if not found:
        raise ValueError(f"{root} holds no class folders: give ann_file=..., a list of lines 'path index'")
    names = found if classes is None else classes
    missing, others = sorted(set(names) - set(found)), sorted(set(found) - set(names))
    if missing or others:
        raise ValueError(
            f"the folders of {root} are not the {len(names)} classes: missing {_some(missing)}, unknown {_some(others)}"
        )
    index_of = {name: index for index, name in enumerate(names)}
    images = make_dataset(root, index_of, extensions=IMG_EXTENSIONS)
    return names, [(str(Path(path).relative_to(root)), label) for path, label in images]


def list_file(path: Path, root: Path, classes: tuple[str, ...] | None) -> tuple[tuple[str, ...], Samples]:
    """Read a list of images, one line ``path index`` each; or of bare numbers, as ImageNet's development kit has it.

    Args:
        path: the text file.
        root: folder of the images.
        classes: the classes; an index is a position in them, from 0.

    Returns:
        The classes and the images.

    Raises:
        FileNotFoundError: if the file is missing, or for bare numbers ``meta.mat`` beside it.
        ValueError: if there are no classes, or a line is not of that kind; shows it.
    """
    if classes is None:
        raise ValueError(f"ann_file={path} needs classes=...: the names that its indices stand for")
    if not path.is_file():
        raise FileNotFoundError(f"list of images {path} does not exist")
    lines = path.read_text().splitlines()
    if all(line.isdecimal() for line in lines):
        return classes, list_ground_truth(path, [int(line) for line in lines], root, classes)
    samples: Samples = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, _, index = line.strip().rpartition(" ")
        if not name or not index.isdecimal() or int(index) >= len(classes):
            raise ValueError(f"{path}, line {number}: {line!r} is not 'path index' with an index below {len(classes)}")
        samples.append((name.strip(), int(index)))
    return classes, samples


def _folders(root: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in root.iterdir() if entry.is_dir()))


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return (", ".join(names[:_SHOWN]) or "none") + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
