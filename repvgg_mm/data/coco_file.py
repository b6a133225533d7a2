"""COCO json files that are what they should be: mmdet drops annotations of unknown categories without a word.

mmdet's data sets name the class that reads a json, ``COCOAPI``; while they are built ours stands there, which looks at
the json once it is read. So nothing is read twice.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..names import nearest
from .data_error import DataError

_FIELDS = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area"),
    "categories": ("id", "name"),
}

Say = Callable[[str], None]


@contextmanager
def checked_json(dataset_classes: Sequence[Any], say: Say) -> Iterator[dict[str, list[str]]]:
    """While the context lasts, data sets of the given classes check the json that they read.

    Args:
        dataset_classes: classes of mmdet's data sets; those that read no COCO json are left alone.
        say: called with a line for everything that is wrong but does not keep the data set from being built.

    Yields:
        A dict that gets the names of the categories of every json that is read, in its order.
    """
    categories: dict[str, list[str]] = {}
    before = {cls: cls.COCOAPI for cls in dataset_classes if _reads_coco(cls)}
    try:
        for cls, api in before.items():
            cls.COCOAPI = _checked(api, say, categories)
        yield categories
    finally:
        for cls, api in before.items():
            cls.COCOAPI = api


def check_categories(path: str, categories: Sequence[str], classes: Sequence[str]) -> Iterator[str]:
    """Hold the categories of a json against the classes of a data set.

    mmdet numbers the classes in the order of the json, and names them in the order of ``classes``.

    Args:
        path: the json, for messages.
        categories: names in the order of the json.
        classes: names in the order of the class indices.

    Yields:
        A line for each problem.
    """
    twice = [name for name, count in Counter(categories).items() if count > 1 and name in classes]
    if twice:
        yield f"{path} names category {twice[0]!r} twice: give each category one id"
    absent = [name for name in classes if name not in categories]
    if absent:
        others = [name for name in categories if name not in classes]
        yield (
            f"{path} has no category {absent[0]!r}, which classes names{nearest(absent[0], others)}: "
            f"its categories are {_shown(categories)}"
        )
    elif not twice and [name for name in categories if name in classes] != list(classes):
        ordered = [name for name in categories if name in classes]
        yield (
            f"{path} lists its categories in another order than classes, and mmdet numbers them by the json: "
            f"set metainfo.classes to {_shown(ordered, len(ordered))}"
        )


def _reads_coco(cls: type) -> bool:
    api = getattr(cls, "COCOAPI", None)
    return api is not None and any(base.__name__ == "COCO" for base in api.__mro__)


def _checked(api: Any, say: Say, categories: dict[str, list[str]]) -> Any:
    class Checked(api):
        """Reads a json, and looks at it."""

        def __init__(self, annotation_file: str) -> None:
            try:
                super().__init__(annotation_file)
            except OSError:
                raise  # names the file
            except Exception as error:  # whatever a parser makes of a damaged file
                reason = _structure(getattr(self, "dataset", None)) or f"{type(error).__name__}: {error}"
                raise DataError(f"{annotation_file} is no COCO json: {reason}") from error
            problem = _structure(self.dataset)
            if problem:
                raise DataError(f"{annotation_file}: {problem}")
            for line in _references(self.dataset):
                say(f"{annotation_file}: {line}")
            categories[annotation_file] = [entry["name"] for entry in self.dataset["categories"]]

    return Checked


def _structure(content: Any) -> str | None:
    """Return what keeps a json from being read as COCO's, None if there is nothing."""
    if not isinstance(content, Mapping) or not content:
        return None
    for part, fields in _FIELDS.items():
        entries = content.get(part)
        if not isinstance(entries, list):
            return f"it has no list {part!r}"
        for index, entry in enumerate(entries):
            missing = [field for field in fields if field not in entry]
            if missing:
                return f"{part}[{index}] has no {missing[0]!r}"
    for index, annotation in enumerate(content["annotations"]):
        box = annotation["bbox"]
        if not isinstance(box, list) or len(box) != 4 or not all(isinstance(value, (int, float)) for value in box):
            return f"annotations[{index}] has bbox={box!r}: four numbers x, y, width, height in pixels are needed"
    return None


def _references(content: Mapping[str, Any]) -> Iterator[str]:
    images = {image["id"] for image in content["images"]}
    categories = {category["id"] for category in content["categories"]}
    if not images:
        yield "it lists no image"
    if not content["annotations"]:
        yield "it holds no annotation"
    for field, known in (("category_id", categories), ("image_id", images)):
        strange = Counter(annotation[field] for annotation in content["annotations"] if annotation[field] not in known)
        if strange:
            value, part = next(iter(strange)), "categories" if field == "category_id" else "images"
            yield f"{strange.total()} annotations have a {field} that {part} does not list, the first one {value!r}"


def _shown(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(map(repr, names[:most])) + (", ..." if len(names) > most else "")
