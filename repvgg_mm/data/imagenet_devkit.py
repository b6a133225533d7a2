"""The ground truth of ImageNet's flat validation folder, in the two files that its development kit has for it."""

import os
from collections.abc import Sequence
from pathlib import Path

_META = "meta.mat"


def list_ground_truth(
    path: Path, numbers: Sequence[int], root: Path, classes: tuple[str, ...]
) -> list[tuple[str, int]]:
    """Give the images of a folder, in the order of their names, the classes that a list of ILSVRC numbers says.

    The numbers have an order of their own; ``meta.mat``, beside the list in the kit, says which WordNet ID each means.

    Args:
        path: ``ILSVRC2012_validation_ground_truth.txt`` of the development kit.
        numbers: its lines.
        root: folder with the images.
        classes: WordNet IDs (``n01440764``) in the order of their indices.

    Returns:
        File name and class index of each image.

    Raises:
        FileNotFoundError: if ``meta.mat`` is not beside the list.
        ValueError: if there are more or fewer images than numbers, or a number means none of the classes.
    """
    from scipy.io import loadmat

    meta = path.with_name(_META)
    if not meta.is_file():
        raise FileNotFoundError(f"{path} holds bare numbers: put the development kit's {_META} beside it")
    synsets = loadmat(str(meta), squeeze_me=True)["synsets"]
    wordnet_id = dict(zip(synsets["ILSVRC2012_ID"].tolist(), synsets["WNID"].tolist(), strict=True))
    with os.scandir(root) as entries:
        images = sorted(entry.name for entry in entries if entry.is_file())
    if len(images) != len(numbers):
        raise ValueError(f"{path} has {len(numbers)} numbers, but {root} {len(images)} images")
    index_of = {name: index for index, name in enumerate(classes)}
    unknown = sorted({number for number in numbers if wordnet_id.get(number) not in index_of})
    if unknown:
        raise ValueError(f"{path}: number {unknown[0]} ({wordnet_id.get(unknown[0])}) is none of the classes")
    return [(image, index_of[wordnet_id[number]]) for image, number in zip(images, numbers, strict=True)]
