"""What every training of our tools gets, whatever its config says: hooks and a loop under which nothing is lost."""

from mmengine.config import Config

from .saving import write_whole_files

_HOOKS = {"finite_loss": "FiniteLossHook", "rank_buffers": "RankZeroBuffersHook", "stop_signals": "StopSignalHook"}


def guard_training(cfg: Config) -> None:
    """Add our hooks to a training's config, in place.

    They stand in ``default_hooks`` under names of their own, so a config sets their options (``finite_loss.skip=True``)
    or leaves one out (``finite_loss=None``) as it does with mmengine's. mmengine's own ``CheckpointHook`` and
    ``EpochBasedTrainLoop`` become ours, which add to them; other classes stay.

    Args:
        cfg: the run's config.
    """
    write_whole_files()
    hooks = {**(cfg.get("default_hooks") or {})}
    hooks.setdefault("checkpoint", {"type": "CheckpointHook"})
    if hooks["checkpoint"] is not None and hooks["checkpoint"].get("type") == "CheckpointHook":
        hooks["checkpoint"] = {**hooks["checkpoint"], "type": "AtomicCheckpointHook"}
    for name, kind in _HOOKS.items():
        options = hooks.pop(name, {})
        if options is not None:
            hooks[name] = {"type": kind, **options}
    cfg.default_hooks = hooks
    loop = cfg.get("train_cfg") or {}
    if loop.get("type") == "EpochBasedTrainLoop" or loop.get("by_epoch") is True:
        cfg.train_cfg = {key: value for key, value in loop.items() if key != "by_epoch"} | {
            "type": "ResumableEpochLoop"
        }
