"""Data sets of a run: whether there is anything in them, what their files hold, and the guards that look on."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS
from torch import nn

from ...data.coco_file import check_categories
from ...data.data_error import DataError, data_message
from ...data.guard import Labels, guard, leaf_datasets, read_sample

_SAMPLE = 8  # files that are read at every start
_LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")


def take_switches(cfg: Config) -> dict[str, bool]:
    """Take ``broken='skip'`` out of the data sets of mmseg's and mmdet's kind, which don't know it.

    Args:
        cfg: the run's config; changed in place.

    Returns:
        Name of the loader -> whether to skip what can't be read.

    Raises:
        ValueError: if it is none of the choices, or asks to skip in validation: mmengine would put a random image in
            the place of the broken one, and the metric would be of other images.
    """
    skips = {}
    for name in _LOADERS:
        for node in leaf_configs((cfg.get(name) or {}).get("dataset")):
            if node.get("type") in ("ImageFolder", "ImageShards") or "broken" not in node:
                continue
            value = node.pop("broken")
            if value not in ("stop", "skip"):
                raise ValueError(f"{name}.dataset.broken={value!r} is unknown: choose 'stop' or 'skip'")
            if value == "skip" and name != "train_dataloader":
                raise ValueError(f"{name}.dataset.broken='skip' would change the metric: fix or remove the files")
            skips[name] = value == "skip"
    return skips


def leaf_configs(node: Any) -> Iterator[Any]:
    """Walk through the configs of wrapping data sets to those that wrap no other.

    Args:
        node: config of a data set.

    Yields:
        Each such config.
    """
    if not isinstance(node, Mapping):
        return
    inner = [node["dataset"]] if "dataset" in node else list(node.get("datasets") or [])
    if not inner:
        yield node
    for child in inner:
        yield from leaf_configs(child)


def dataset_classes(cfg: Config) -> list[type]:
    """Return the classes of all data sets that the config names, as far as they are registered."""
    names = [node.get("type") for loader in _LOADERS for node in leaf_configs((cfg.get(loader) or {}).get("dataset"))]
    scope, found = cfg.get("default_scope") or "mmengine", []
    for name in names:
        try:
            found.append(DATASETS.get(name if "." in name else f"{scope}.{name}") if isinstance(name, str) else name)
        except RuntimeError:  # an unknown name: building the data set says so
            continue
    return [cls for cls in dict.fromkeys(found) if isinstance(cls, type)]


def labels_of_heads(model: nn.Module, dataset: Any) -> Labels | None:
    """Find which mask ids every segmentation head of a model can be trained on.

    Args:
        model: any model.
        dataset: the data set.

    Returns:
        The ids; None if the data set has no masks of mmseg's kind.
    """
    if not any(hasattr(leaf, "reduce_zero_label") for leaf in leaf_datasets(dataset)):
        return None
    heads: list[Any] = [
        module
        for module in model.modules()
        if isinstance(getattr(module, "num_classes", None), int) and hasattr(module, "ignore_index")
    ]
    if not heads:
        return labels_of_metrics((), dataset)
    counts = [max(head.num_classes, 2) if getattr(head, "out_channels", 0) == 1 else head.num_classes for head in heads]
    return Labels(min(counts), _common(head.ignore_index for head in heads))


def labels_of_metrics(metrics: Iterable[Any], dataset: Any) -> Labels | None:
    """Find which mask ids every metric counts.

    Args:
        metrics: of an evaluator.
        dataset: the data set.

    Returns:
        The ids; None if the data set has no masks of mmseg's kind, or no classes.
    """
    for leaf in leaf_datasets(dataset):
        classes = (getattr(leaf, "metainfo", None) or {}).get("classes")
        if hasattr(leaf, "reduce_zero_label") and classes is not None:
            ignored = [metric.ignore_index for metric in metrics if hasattr(metric, "ignore_index")]
            return Labels(len(classes), _common(ignored or [leaf.ignore_index]))
    return None


def check_not_empty(loader: Any, name: str) -> Iterator[str]:
    """Find data sets without a sample, and loaders without a batch.

    Args:
        loader: a data loader.
        name: the config's name for it.

    Yields:
        A line for each.
    """
    for leaf in leaf_datasets(loader.dataset):
        if hasattr(leaf, "__len__") and not len(leaf):
            yield f"{name} has no image: {where_it_looked(leaf)}"
            return
    try:
        batches = len(loader)
    except TypeError:  # of unknown length
        return
    if not batches:
        yield (
            f"{name} gives no batch: {len(loader.dataset)} images are fewer than batch_size={loader.batch_size}, and "
            "drop_last leaves such a batch out"
        )


def check_json(dataset: Any, categories: Mapping[str, list[str]]) -> Iterator[str]:
    """Hold what the json files say against the classes of the data sets that read them.

    Args:
        dataset: wrapped or not.
        categories: path of a json -> names of its categories in its order.

    Yields:
        A line for each problem.
    """
    for leaf in leaf_datasets(dataset):
        path = getattr(leaf, "ann_file", "")
        classes = (getattr(leaf, "metainfo", None) or {}).get("classes")
        if path in categories and classes is not None:
            yield from check_categories(path, categories[path], classes)


def check_metric_json(cfg: Config, part: str) -> Iterator[str]:
    """Find a metric that compares with another json than its data set reads.

    Args:
        cfg: the run's config.
        part: ``'val'`` or ``'test'``.

    Yields:
        A line for each.
    """
    evaluator = cfg.get(f"{part}_evaluator")
    metrics = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]
    leaves = list(leaf_configs((cfg.get(f"{part}_dataloader") or {}).get("dataset")))
    read = {Path(leaf.get("data_root") or "", leaf["ann_file"]).resolve() for leaf in leaves if leaf.get("ann_file")}
    for metric in metrics:
        path = metric.get("ann_file") if isinstance(metric, Mapping) else None
        if path and len(read) == 1 and Path(path).resolve() not in read:
            yield f"{part}_evaluator.ann_file={path} is not what {part}_dataloader reads: {next(iter(read))}"


def check_files(dataset: Any, every: bool = False) -> Iterator[str | None]:
    """Read files of a data set: a few, or every one.

    Args:
        dataset: guarded, wrapped or not; files of one that skips what is broken are not read.
        every: read all.

    Yields:
        For every file None, or the line that says what is wrong with it.
    """
    for leaf in leaf_datasets(dataset):
        if getattr(getattr(leaf, "pipeline", leaf), "skip", False) and not every:
            continue
        size = len(leaf)
        step = 1 if every else max(1, size // _SAMPLE)
        for index in range(0, size, step):
            try:
                read_sample(leaf, index)
            except DataError as error:
                yield data_message(error)
            else:
                yield None


def guard_loader(loader: Any, labels: Labels | None, skip: bool, hooks: Iterable[Any] = ()) -> None:
    """Put guards into the data sets of a loader, and into the pipelines that hooks will put in their place.

    Args:
        loader: its workers must not run yet.
        labels: which ids masks may hold.
        skip: leave out what can't be read.
        hooks: of the run.
    """
    from mmengine.dataset import Compose

    guard(loader.dataset, labels, skip)
    for hook in hooks:
        if getattr(hook, "switch_pipeline", None):
            from ...data.guard import GuardedPipeline

            hook.switch_pipeline = [GuardedPipeline(Compose(hook.switch_pipeline).transforms, labels, skip)]


def _common(values: Iterable[int]) -> int | None:
    found = set(values)
    return found.pop() if len(found) == 1 else None


def where_it_looked(leaf: Any) -> str:
    """Say why a data set has no image.

    Args:
        leaf: a data set without samples.

    Returns:
        Where it looked, and what stands there.
    """
    prefix = getattr(leaf, "data_prefix", {})
    folder, suffix = prefix.get("img_path") or prefix.get("img"), getattr(leaf, "img_suffix", None)
    if getattr(leaf, "ann_file", None):
        return f"{leaf.ann_file} lists none, or filter_cfg leaves out all"
    if folder is None or suffix is None or not Path(folder).is_dir():
        return f"{type(leaf).__name__} found none in {folder}"
    others = sorted({path.suffix for path in Path(folder).rglob("*") if path.is_file()})
    return f"{folder} has no file that ends in img_suffix={suffix!r}" + (
        f"; it has {', '.join(others)}" if others else ""
    )
