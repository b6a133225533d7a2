"""What may be built from a config that came inside a file: the whole list, by kind and by argument.

Such a config is somebody else's. mmengine builds whatever its ``type`` names: data sets that unpickle their
annotations, hooks that load code from a hub, metrics that write files. So only four things are taken from it (the
model, the test data with their pipeline, the training data for calibration, the metrics), each of a kind named here
with arguments named here; an argument that is not named may be None or False, that is, ask for nothing. Hooks,
visualizer, loops and environment are our own. A model is of any registered class (`engine.limits` says of which
packages), with arguments that are numbers and names. A config file that the user names is code and not judged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import PurePosixPath
from typing import Any

from .errors import CheckpointError

SCOPES = ("mmengine", "mmseg", "mmdet", "mmpretrain")
IMPORTS = ("repvgg_mm", *(f"{scope}{part}" for scope in SCOPES[1:] for part in ("", ".models", ".datasets")))
_TYPE = re.compile(rf"(?:(?:{'|'.join(SCOPES)})\.)?([A-Za-z_]\w*)")
# Names, modes, numbers as text. Brackets, slashes and a dot before letters are what code, paths and addresses need:
# mmcv and mmdet evaluate some string arguments (nms `type`, `warp_mode`) and load some files while they build.
_NAME = re.compile(r"(?!.*\.[A-Za-z_])[\w .,+-]*")
_MAP_SIZES = ("size", "crop_size", "stride", "size_divisor", "pad_size_divisor")  # anywhere in a model
_ADDRESS = re.compile(r"^[A-Za-z][\w+.-]+:|://")  # the start alone, too: paths are put together of several values
_WEIGHT_KEYS = ("init_cfg", "pretrained")  # for init_weights() alone, which is never called: taken out
_MOST_PIXELS, _LONGEST_SIDE = 2**24, 2**14  # of an image or a map: 4096 x 4096, 1024 x 16384
_LARGEST_FACTOR, _LARGEST_BATCH, _LARGEST_COUNT = 8, 1024, 2**24
_ANNOTATIONS = ("", ".csv", ".json", ".lst", ".txt", ".xml")  # a .pkl or .yaml one runs code when it is read

Check = Callable[[Any, str], None]


@dataclass(frozen=True)
class Kind:
    """Registered classes of one sort, and the arguments that may be given to any of them.

    Attributes:
        types: Names as registered, without a scope.
        args: Name of an argument -> what looks at its value.
    """

    types: Collection[str]
    args: Mapping[str, Check] = field(default_factory=dict)

    def __call__(self, value: Any, where: str) -> None:
        """Refuse what is not of this kind.

        Args:
            value: Part of a stored config: a dict with a ``type``, and its arguments.
            where: Where it stands in the config, for the message.

        Raises:
            CheckpointError: If it is another type, or has an argument that is not listed.
        """
        if not isinstance(value, dict):
            raise refusal(where, value, "is not a dict with a type")
        name = _type(value.get("type"), f"{where}.type")
        if name not in self.types:
            raise refusal(f"{where}.type", value["type"], "is not on the list of what is built from a stored config")
        for key, item in value.items():
            if key in self.args:
                self.args[key](item, f"{where}.{key}")
            elif key == "_scope_":
                _scope(item, f"{where}.{key}")
            elif key != "type" and item is not None and item is not False:
                raise refusal(f"{where}.{key}", item, "is not an argument that is taken from a stored config")


def refusal(where: str, value: object, reason: str) -> CheckpointError:
    """Make the error that names place and value, and says what helps.

    Args:
        where: Dotted keys that lead to the value.
        value: What stands there.
        reason: Why it is refused.

    Returns:
        The error.
    """
    return CheckpointError(f"stored config: {where:.120}={value!r:.80} {reason}; give a config of your own")


def _type(value: object, where: str) -> str:
    found = _TYPE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise refusal(where, value, "is not the name of a registered class")
    return found[1]


def _scope(value: object, where: str) -> None:
    if value not in SCOPES:
        raise refusal(where, value, "is not an OpenMMLab package")


def _plain(value: Any, where: str) -> None:
    """Take numbers and names, and lists and dicts of them."""
    if isinstance(value, dict):
        for key, item in value.items():
            _plain(item, f"{where}.{key}")
    elif isinstance(value, list | tuple | set):
        for index, item in enumerate(value):
            _plain(item, f"{where}.{index}")
    elif isinstance(value, str) and not _NAME.fullmatch(value):
        raise refusal(where, value, "could be code, a path or an address")


def _size(value: Any, where: str, least: int = -1) -> None:
    """Take a size in pixels, for one side or both; a few letters must not ask for more memory than there is."""
    sides = value if isinstance(value, list | tuple) else (value, value)
    for side in sides:
        if isinstance(side, list | tuple):  # several sizes to choose from
            _size(side, where, least)
        elif side is not None and not isinstance(side, int | float):
            raise refusal(where, value, "is not a size")
    numbers = [side for side in sides if isinstance(side, int | float)]
    if not all(least <= side <= _LONGEST_SIDE for side in numbers) or prod(numbers[:2]) > _MOST_PIXELS:
        raise refusal(where, value, f"is no size up to {_MOST_PIXELS:,} pixels, {_LONGEST_SIDE:,} a side")


def _factor(value: Any, where: str) -> None:
    """Take what sizes are multiplied by, for one side or both."""
    factors = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(factor, int | float) and 0 < factor <= _LARGEST_FACTOR for factor in factors):
        raise refusal(where, value, f"is no factor up to {_LARGEST_FACTOR}")


def _batch(value: Any, where: str) -> None:
    """Take a number of images that are in memory at a time."""
    if type(value) is not int or not 0 < value <= _LARGEST_BATCH:
        raise refusal(where, value, f"is no number of images from 1 to {_LARGEST_BATCH}")


def _path(value: Any, where: str) -> None:
    """Take a place on this machine, or a dict of them; what is read there is data."""
    if isinstance(value, dict):
        for key, item in value.items():
            _path(item, f"{where}.{key}")
    elif value is not None and not (isinstance(value, str) and value.isprintable() and not _ADDRESS.search(value)):
        raise refusal(where, value, "is not a path")


def _annotations(value: Any, where: str) -> None:
    """Take the path of a file that is read as text or JSON."""
    _path(value, where)
    if value and (isinstance(value, dict) or PurePosixPath(value).suffix.lower() not in _ANNOTATIONS):
        raise refusal(where, value, f"does not end in one of {', '.join(_ANNOTATIONS[1:])}")


def check_names(value: Any, where: str) -> None:
    """Take lists of names and colours, which may have any letters; a text instead is the file they stand in.

    Args:
        value: Such a list, or a dict of them.
        where: Where it stands in the config, for the message.

    Raises:
        CheckpointError: If the file is not one that is read as text.
    """
    for key, item in (value if isinstance(value, dict) else {"": value}).items():
        place = f"{where}.{key}".rstrip(".")
        if not isinstance(item, list | tuple):
            _annotations(item, place)
        elif not all(name.isprintable() for name in item if isinstance(name, str)):
            raise refusal(place, item, "has control characters, which a terminal would obey")


def _list_of(check: Check) -> Check:
    def each(value: Any, where: str) -> None:
        if not isinstance(value, list | tuple):
            raise refusal(where, value, "is not a list")
        for index, item in enumerate(value):
            check(item, f"{where}.{index}")

    return each


def _args(names: str, check: Check = _plain) -> dict[str, Check]:
    return dict.fromkeys(names.split(), check)


_TRANSFORM_ARGS = {
    **_args("scale size size_divisor crop_size min_size max_size width height", _size),
    **_args("scale_factor", _factor),
    **_args("keep_ratio clip_object_border backend interpolation pad_to_square pad_val padding_mode mean std to_rgb"),
    **_args("with_bbox with_label with_mask with_seg poly2mask box_type reduce_zero_label imdecode_backend antialias"),
    **_args("to_float32 color_type ignore_empty meta_keys inplace fill num_output_channels min_value max_value"),
}
TRANSFORM = Kind(
    "LoadImageFromFile LoadAnnotations LoadPanopticAnnotations Resize FixScaleResize FixShapeResize ResizeToMultiple "
    "ResizeShortestEdge CenterCrop Pad Normalize Rerange RGB2Gray PackSegInputs PackDetInputs SeedTransforms".split(),
    _TRANSFORM_ARGS,
)
TORCHVISION_TRANSFORM = Kind("Resize CenterCrop Pad Grayscale RGB Normalize ToImage".split(), _TRANSFORM_ARGS)
PIPELINES = {"pipeline": _list_of(TRANSFORM), "transforms": _list_of(TORCHVISION_TRANSFORM)}

_DATASET_TYPES = (
    "ImageFolder ImageShards "
    "BaseSegDataset ADE20KDataset BDD100KDataset ChaseDB1Dataset CityscapesDataset COCOStuffDataset "
    "DarkZurichDataset DRIVEDataset HRFDataset iSAIDDataset ISPRSDataset LIPDataset LoveDADataset MapillaryDataset_v1 "
    "MapillaryDataset_v2 NightDrivingDataset PascalContextDataset PascalContextDataset59 PascalVOCDataset "
    "PotsdamDataset REFUGEDataset STAREDataset SynapseDataset BaseDetDataset CocoDataset DeepFashionDataset "
    "LVISDataset LVISV05Dataset LVISV1Dataset Objects365V1Dataset Objects365V2Dataset VOCDataset XMLDataset "
    "WIDERFaceDataset"
).split()
_DATASET_ARGS: dict[str, Check] = {
    **_args("test_mode filter_cfg indices serialize_data max_refetch ignore_index reduce_zero_label broken"),
    # A folder for copies of what lies at an address; no address gets through.
    **_args("data_root data_prefix split img_subdir ann_subdir img_suffix seg_map_suffix cache_dir", _path),
    **_args("ann_file", _annotations),
    **_args("metainfo classes palette", check_names),
    **PIPELINES,
}
DATASET = Kind(_DATASET_TYPES, _DATASET_ARGS)
_WRAPPED = Kind(
    [*_DATASET_TYPES, "ConcatDataset"],
    {**_DATASET_ARGS, "datasets": _list_of(DATASET)},
)
LOADER_ARGS: dict[str, Check] = {
    **_args("persistent_workers pin_memory drop_last"),
    "batch_size": _batch,
    "dataset": _WRAPPED,
    "sampler": Kind(["DefaultSampler"], _args("shuffle seed round_up")),
    "collate_fn": Kind("default_collate pseudo_collate collate_images".split()),
}
METRIC = Kind(
    "TopKAccuracy IoUMetric CocoMetric LVISMetric VOCMetric".split(),
    {
        **_args("metric iou_metrics ignore_index nan_to_num beta topk classwise proposal_nums iou_thrs iou_thr prefix"),
        **_args("metric_items collect_device scale_ranges eval_mode use_legacy_coordinate sort_categories"),
        **_args("ann_file", _annotations),
    },
)


def check_model(model: Any) -> dict[str, Any]:
    """Refuse a model whose building could run something else than models; return it without its pretrained weights.

    Args:
        model: Value of ``model`` in a stored config.

    Returns:
        A copy to build inside `engine.limits`.

    Raises:
        CheckpointError: If there is none; a ``type`` is not the plain name of a class (or one with the scope of an
            OpenMMLab package); a scope is of another package; or a text in it could be code, a path or an address.
    """
    if not isinstance(model, dict):
        raise CheckpointError("the stored config has no model")
    checked: dict[str, Any] = _checked_part(model, "model")
    return checked


def _checked_part(value: Any, where: str, for_weights: bool = False) -> Any:
    if isinstance(value, list | tuple | set):
        return type(value)(_checked_part(item, f"{where}.{i}", for_weights) for i, item in enumerate(value))
    if not isinstance(value, dict):
        if not for_weights:
            _plain(value, where)
            if type(value) is int and value > _LARGEST_COUNT:  # `[block] * count`, before there is a tensor to weigh
                raise refusal(where, value, f"is larger than any part of a model, {_LARGEST_COUNT:,}")
        return value
    checked = {}
    for key, item in value.items():
        place = f"{where}.{key}"
        if key in ("type", "_scope_"):
            (_type if key == "type" else _scope)(item, place)
            checked[key] = item
        else:
            if key in _MAP_SIZES:
                _size(item, place, least=1)
            checked[key] = _checked_part(item, place, for_weights or key in _WEIGHT_KEYS)
    return {key: part for key, part in checked.items() if key not in _WEIGHT_KEYS}
