"""From a config to a training that is ready to start: everything is built and checked before the first iteration.

mmengine would pass over most of it in silence, or end in a traceback after the first epoch.
"""

from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.runner import Runner

from ..checkpoint import CheckpointError, find_state_dict, recognise
from ..data.coco_file import checked_json
from .across_processes import bare_model
from .checks import data, fit
from .checks.keys import check_keys
from .checks.kinds import check_kinds
from .checks.rounding import check_quant_aware, check_weights
from .checks.values import check_values
from .launch import build_runner
from .safe_loader import Loader, check_state


def prepare_training(cfg: Config) -> Runner:
    """Build all that a training needs, and refuse what would fail or go wrong later.

    Args:
        cfg: the run's config, which `check_config` and `check_start` have nothing against; changed in place.

    Returns:
        The runner; its data sets tell of files that they can't read or that hold other labels than the model has.

    Raises:
        ValueError: for the first thing that is wrong; it says how many there are.
        FileNotFoundError: if a file is missing.
    """
    runner, problems = build_training(cfg)
    refuse([*problems, *check_samples(runner)])
    return runner


def refuse(problems: Iterable[str]) -> None:
    """Raise the first of some problems.

    Args:
        problems: one line each.

    Raises:
        ValueError: if there is one.
    """
    found = list(dict.fromkeys(problems))
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise ValueError(found[0] + more)


def check_config(cfg: Config) -> Iterator[str]:
    """Find what is wrong with a config by itself.

    Args:
        cfg: the run's config.

    Yields:
        A line for each problem.
    """
    yield from check_keys(cfg)
    yield from check_values(cfg)
    yield from check_kinds(cfg)


def build_training(cfg: Config) -> tuple[Runner, list[str]]:
    """Build the model, the data sets, the optimizer, the schedulers and the metrics, and hold them against each other.

    mmengine builds the optimizer and the schedulers only once it trains; it takes those that are built.

    Args:
        cfg: the run's config; changed in place.

    Returns:
        The runner, and what does not fit.

    Raises:
        Exception: of any kind, by whatever could not be built.
    """
    skips = data.take_switches(cfg)
    runner = build_runner(cfg)
    problems: list[str] = []
    with checked_json(data.dataset_classes(cfg), problems.append) as categories:
        loaders = {"train_dataloader": runner.train_loop.dataloader}
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
        runner.auto_scale_lr = None  # done
        if runner.param_schedulers is not None:
            runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
        if runner.val_loop is not None:
            loaders["val_dataloader"] = runner.val_loop.dataloader
    model = bare_model(runner)
    problems += fit.check_channels(model)
    problems += fit.check_batch_norm(model, loaders["train_dataloader"], get_world_size())
    metrics = runner.val_evaluator.metrics if runner.val_loop is not None else ()
    for name, loader in loaders.items():
        problems += data.check_not_empty(loader, name)
        misfits = list(fit.check_classes(model, loader.dataset, name))
        problems += misfits
        problems += data.check_json(loader.dataset, categories)
        validates = name == "val_dataloader"
        by_data = validates or misfits  # heads with other classes say nothing of the masks
        labels = data.labels_of_metrics(metrics, loader.dataset) if by_data else None
        labels = labels or data.labels_of_heads(model, loader.dataset)
        data.guard_loader(loader, labels, skips.get(name, False), () if validates else runner.hooks)
    problems += data.check_metric_json(cfg, "val")
    return runner, problems


def check_samples(runner: Runner) -> Iterator[str]:
    """Read a few files of the training and of the validation data.

    Args:
        runner: as `build_training` returns it.

    Yields:
        A line for each file that is not what it should be.
    """
    loops = (runner.train_loop, runner.val_loop)
    for loop in loops:
        if loop is not None:
            yield from (line for line in data.check_files(loop.dataloader.dataset) if line is not None)


def check_start(cfg: Config, trust: bool = False) -> None:
    """Refuse a config that asks for a GPU's mixed precision without one, or starts from a file that does not fit.

    mmengine takes the tensors of ``load_from`` and ``--resume FILE`` by name and only warns of those that don't match:
    weights of timm, mmpretrain or the authors' classifier would leave the model as it was initialised.

    Args:
        cfg: the run's config.
        trust: unpickle the file, which may run code in it.

    Raises:
        ValueError: if AMP is asked for and there is no GPU.
        CheckpointError: if a RepVGG in the file has other names than ours, or a file to resume from has no training
            state; names the fix.
        FileNotFoundError: if there is no such file.
    """
    if (cfg.get("optim_wrapper") or {}).get("type") == "AmpOptimWrapper" and not torch.cuda.is_available():
        raise ValueError("optim_wrapper.type='AmpOptimWrapper' needs a GPU: without one take 'BFloat16OptimWrapper'")
    check_quant_aware(cfg)
    path = cfg.get("load_from")
    if path and urlsplit(path).scheme == "":  # mmengine downloads the others
        _check_checkpoint(cfg, path, trust)


def _check_checkpoint(cfg: Config, path: str, trust: bool) -> None:
    resume = bool(cfg.get("resume"))
    loaded = Loader(trust, resume=False).load(path)
    weights = find_state_dict(loaded).state_dict
    check_weights(cfg, weights, path)
    layout = recognise(weights)
    if layout not in (None, "repvgg_mm"):
        taker = "resuming" if resume else "load_from"
        raise CheckpointError(
            f"{path}: its RepVGG is named as in {layout}, which {taker} can't take: set "
            f"model.backbone.init_cfg=dict(type='Pretrained', checkpoint='{path}'), or "
            "rename it with rename_checkpoint(FILE, 'repvgg_mm')"
        )
    if not resume:
        return
    if not (isinstance(loaded, dict) and {"meta", "optimizer"} <= set(loaded)):
        raise CheckpointError(f"{path} holds weights, but no state of a training: start from it with load_from={path}")
    if not trust:
        check_state(loaded, path)
