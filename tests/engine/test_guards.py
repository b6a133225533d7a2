"""Which hooks every training gets, and how a config has its say."""

from typing import Any

import pytest
from mmengine.config import Config

from repvgg_mm.engine.guards import guard_training
from repvgg_mm.engine.launch import prepare_cpu_processes


def guarded(**cfg: Any) -> Config:
    config = Config(cfg)
    guard_training(config)
    return config


def test_a_config_without_hooks_gets_ours() -> None:
    cfg = guarded()
    assert {hook.type for hook in cfg.default_hooks.values()} == {
        *("AtomicCheckpointHook", "FiniteLossHook", "RankZeroBuffersHook", "StopSignalHook"),
    }
    assert guarded(default_hooks=dict(cfg.default_hooks)).default_hooks == cfg.default_hooks  # a dumped config, again


def test_a_config_sets_options_leaves_hooks_out_and_keeps_its_own_classes() -> None:
    hooks = {
        "finite_loss": {"skip": True},
        "rank_buffers": None,
        "checkpoint": {"type": "CheckpointHook", "interval": 3},
    }
    cfg = guarded(default_hooks=hooks, train_cfg={"type": "EpochBasedTrainLoop", "max_epochs": 3})
    assert cfg.default_hooks.finite_loss == {"type": "FiniteLossHook", "skip": True}
    assert cfg.default_hooks.checkpoint == {"type": "AtomicCheckpointHook", "interval": 3}
    assert "rank_buffers" not in cfg.default_hooks and cfg.default_hooks.stop_signals.type == "StopSignalHook"
    assert cfg.train_cfg == {"type": "ResumableEpochLoop", "max_epochs": 3}
    assert guarded(train_cfg={"by_epoch": True, "max_epochs": 3}).train_cfg == cfg.train_cfg
    own = guarded(default_hooks={"checkpoint": {"type": "MyCheckpointHook"}}, train_cfg={"type": "MyLoop"})
    assert own.default_hooks.checkpoint.type == "MyCheckpointHook" and own.train_cfg.type == "MyLoop"


@pytest.mark.parametrize("timeout", [0, -5, "soon", True, float("nan")])
def test_a_timeout_that_is_none_is_refused(timeout: Any) -> None:
    cfg = Config({"launcher": "none", "env_cfg": {"dist_cfg": {"backend": "nccl", "timeout": timeout}}})
    with pytest.raises(ValueError, match=r"env_cfg\.dist_cfg\.timeout=.* must be a number of seconds above 0"):
        prepare_cpu_processes(cfg)
