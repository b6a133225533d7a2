"""Parts of a model that must fit one another and the data: channels, classes, batch normalisation."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm

from ...data.guard import leaf_datasets
from ...models.backbone import RepVGG


def check_channels(model: nn.Module) -> Iterator[str]:
    """Hold the ``in_channels`` of necks and heads against what stands before them.

    Args:
        model: of mmseg's or mmdet's kind, on a RepVGG; others are left alone.

    Yields:
        A line for each part that does not fit; it says which numbers the arch gives.
    """
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, RepVGG):
        return
    maps = [backbone.arch.stage_channels[index] for index in backbone.out_indices]
    source = f"the backbone's out_indices={backbone.out_indices} give {maps} channels"
    neck = getattr(model, "neck", None)
    if isinstance(neck, nn.Module):
        first, last = _ends(neck)
        taken = getattr(first, "in_channels", None)
        if isinstance(taken, (list, tuple)) and list(taken) != maps:
            yield f"model.neck.in_channels={list(taken)} does not fit: {source}"
            return
        given = getattr(last, "out_channels", None)
        if not isinstance(given, int):
            return
        maps = [given] * getattr(last, "num_outs", len(maps))
        source = f"the neck gives {len(maps)} maps of {given} channels"
    for name, head in _heads(model):
        yield from _check_head(f"model.{name}", head, maps, source)


def check_classes(model: nn.Module, dataset: Any, loader: str) -> Iterator[str]:
    """Hold the number of classes of every head against the classes of a data set.

    Args:
        model: any model; what looks for objects of any class (RPN) is left alone.
        dataset: the data set, wrapped or not.
        loader: the config's name of its loader, for messages.

    Yields:
        A line for each head that has another number.
    """
    for leaf in leaf_datasets(dataset):
        classes = (getattr(leaf, "metainfo", None) or {}).get("classes")
        if isinstance(classes, str):
            yield f"{loader}: classes={classes!r} is one string: write ({classes!r},) for one class"
        if classes is None or isinstance(classes, str):
            continue
        for name, found in class_counts(model):
            if found != len(classes):
                shown = ", ".join(map(repr, classes[:3])) + (", ..." if len(classes) > 3 else "")
                yield f"model.{name}={found}, but {loader} has {len(classes)} classes ({shown})"


def class_counts(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Find how many classes each head tells apart.

    Args:
        model: any model.

    Yields:
        The config's name of the number, and the number.
    """
    linear = getattr(model, "linear", None)
    if isinstance(linear, nn.Linear) and isinstance(getattr(model, "backbone", None), RepVGG):
        yield "num_classes", linear.out_features
    for name, module in model.named_modules():
        inside = name.split(".")
        number = getattr(module, "num_classes", None)
        if isinstance(number, int) and inside[0] not in ("", "backbone", "neck") and "rpn_head" not in inside:
            if not inside[-1].startswith("loss") and type(module).__name__ != "FusedSemanticHead":
                yield f"{name}.num_classes", number


def check_batch_norm(model: nn.Module, loader: Any, processes: int) -> Iterator[str]:
    """Find batch normalisation behind pooling to one pixel, in training with a batch of one image.

    Args:
        model: any model.
        loader: the training's data loader.
        processes: how many there are: SyncBN counts the images of all.

    Yields:
        A line if there is a batch of one image.
    """
    size = loader.batch_size or 0  # none with a batch sampler
    if not size:
        return
    try:
        left = len(loader.sampler) % size if not getattr(loader.sampler, "infinite", False) else 0
    except TypeError:
        return
    alone = size == 1 or (left == 1 and not loader.drop_last)
    place = _normalised_alone(model, processes) if alone else None
    if place is None:
        return
    if size == 1:
        yield (
            f"train_dataloader.batch_size=1: {place} is BN of one value a channel, which has no variance: "
            "take 2 or more, or model.decode_head.norm_cfg.type='SyncBN' on several GPUs"
        )
    else:
        yield (
            f"train_dataloader.batch_size={size} leaves one image for an epoch's last batch, where {place} is BN of "
            "one value a channel: set train_dataloader.drop_last=True, or another batch_size"
        )


def _ends(neck: nn.Module) -> tuple[nn.Module, nn.Module]:
    parts = list(neck.children()) if isinstance(neck, nn.Sequential) else [neck]
    return parts[0], parts[-1]


def _heads(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Find the heads and extractors that take feature maps of the neck or the backbone, in the order of the data."""
    for name, module in model.named_modules():
        parts = [part for part in name.split(".") if not part.isdigit()]
        if parts in (["decode_head"], ["auxiliary_head"], ["bbox_head"], ["rpn_head"], ["mask_head"]):
            yield name, module
        if len(parts) == 2 and parts[0] == "roi_head" and parts[1].split("_", 1)[0] in ("bbox", "mask"):
            yield name, module


def _check_head(name: str, head: nn.Module, maps: Sequence[int], source: str) -> Iterator[str]:
    index = getattr(head, "in_index", None)
    key = "out_channels" if name.endswith("roi_extractor") else "in_channels"  # it gives what it takes
    taken = getattr(head, key, None)
    if taken is None or isinstance(head, nn.ModuleList):
        return
    if index is None:  # mmdet's heads take all maps alike
        if isinstance(taken, int) and taken not in maps:
            yield f"{name}.{key}={taken} does not fit: {source}"
        return
    indices = list(index) if isinstance(index, (list, tuple)) else [index]
    outside = [i for i in indices if not -len(maps) <= i < len(maps)]
    if outside:
        yield f"{name}.in_index={index} is out of reach: {source}"
        return
    expected = [maps[i] for i in indices]
    if getattr(head, "input_transform", None) == "resize_concat":
        fits = taken in (sum(expected), expected)
    else:
        fits = (list(taken) if isinstance(taken, (list, tuple)) else [taken]) == expected
    if not fits:
        need = expected if isinstance(index, (list, tuple)) else expected[0]
        yield f"{name}.in_channels={taken} does not fit in_index={index}, which needs {need}: {source}"


def _normalised_alone(model: nn.Module, processes: int) -> str | None:
    """Name the first batch normalisation in training that sees a map of one pixel."""
    for name, module in model.named_modules():
        children = list(module.children()) if isinstance(module, nn.Sequential) else []
        if len(children) < 2 or not isinstance(children[0], nn.AdaptiveAvgPool2d):
            continue
        if children[0].output_size not in (1, (1, 1)):
            continue
        for inner in module.modules():
            together = isinstance(inner, SyncBatchNorm) and processes > 1
            if isinstance(inner, _BatchNorm) and inner.training and not together:
                return f"model.{name}"
    return None
