"""Start a run, with several processes on a machine without GPUs, too: mmengine leaves that to the user."""

import os
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from .noise import hush_logger

_RUNS = count()


def build_runner(cfg: Config) -> Runner:
    """Build the runner that a config describes.

    mmengine names a run by the second, and keeps its log, its message hub and its visualizer under that name. So each
    run of a process behind the first gets a name of its own.

    Args:
        cfg: the run's config, with ``launcher``; `prepare_cpu_processes` changes it in place.

    Returns:
        The runner; it builds its data sets when its loops are asked for.
    """
    prepare_cpu_processes(cfg)
    number, named = next(_RUNS), bool(cfg.get("experiment_name"))
    if number and not named:
        cfg.experiment_name = f"{Path(cfg.filename or 'run').stem}_{number}"
    if number and isinstance(cfg.get("visualizer"), dict):
        cfg.visualizer.pop("name", None)  # mmseg's and mmdet's configs give all runs one: the first one's folder
    runner = RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
    if number and not named:
        for own in (cfg, runner.cfg):
            own.pop("experiment_name")
    hush_logger(runner.logger)
    return runner


def prepare_cpu_processes(cfg: Config) -> None:
    """Make a distributed config run on CPU processes; does nothing with one process or with GPUs.

    mmengine calls ``torch.cuda.set_device`` under every launcher, and hands DDP a device number. So the gloo group is
    made here (mmengine respects one that exists), DDP is told to use the CPU, and SyncBN, which refuses CPU tensors,
    becomes BN. As with GPUs, ``env_cfg.dist_cfg.timeout`` says for how many seconds a process waits for one that does
    not answer before it gives up.

    Args:
        cfg: the run's config, with ``launcher``; changed in place.

    Raises:
        ValueError: if the launcher is none that works without GPUs, its environment variables are missing, or the
            timeout is no number of seconds.
    """
    timeout = _timeout(cfg)
    if cfg.get("launcher", "none") == "none" or torch.cuda.is_available():
        return
    if cfg.launcher != "pytorch":
        raise ValueError(f"launcher={cfg.launcher!r} needs GPUs: on CPU use torchrun with launcher='pytorch'")
    if "RANK" not in os.environ:
        raise ValueError("launcher='pytorch' needs torchrun: see tools/dist_train.sh")
    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=timeout)
    cfg.model_wrapper_cfg = {"type": "MMDistributedDataParallel", "device_ids": None, "broadcast_buffers": False}
    changed = _replace_sync_bn(cfg.model)
    if changed:
        print_log(f"no GPU: SyncBN became BN in {changed} places of the model config", logger="current")


def leave_processes() -> None:
    """Leave the process group after a run that went well; does nothing with one process.

    A gloo thread gives its tensors back shortly after the work is done. If Python ends before that, the process aborts
    (torch 2.14.1). Waiting for all processes lets those threads finish.
    """
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def is_lost_process(error: BaseException) -> bool:
    """Tell whether an error means that another process of the run does not answer any more, or has ended.

    Args:
        error: what a training raised.

    Returns:
        Whether it does; torch has a class of its own for NCCL's and the store's errors, but not for gloo's.
    """
    if not dist.is_initialized():
        return False
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _timeout(cfg: Config) -> timedelta | None:
    seconds = ((cfg.get("env_cfg") or {}).get("dist_cfg") or {}).get("timeout")
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
        raise ValueError(f"env_cfg.dist_cfg.timeout={seconds!r} must be a number of seconds above 0")
    return timedelta(seconds=seconds)


def _replace_sync_bn(node: Any) -> int:
    """Turn ``type='SyncBN'`` into ``type='BN'`` everywhere below a node; return how often."""
    if isinstance(node, dict):
        here = node.get("type") == "SyncBN"
        if here:
            node["type"] = "BN"
        return int(here) + sum(_replace_sync_bn(value) for value in node.values())
    if isinstance(node, (list, tuple)):
        return sum(_replace_sync_bn(value) for value in node)
    return 0
