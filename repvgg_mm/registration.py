"""Registers what configs may name.

Most classes register themselves when they are imported. Some would drag in ``mmengine.model``, whose import takes
longer than all of mmengine. For these a function of the same name stands in the registry; when a config first names
it, it imports the class, which then takes its place (``register_module(force=True)``).
"""

from importlib import import_module
from typing import Any

from mmengine.registry import HOOKS, LOOPS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, Registry

from . import data, engine  # noqa: F401 (register themselves)

_LATER = (
    (MODELS, "RepVGG", "repvgg_mm.models.backbone"),
    (MODELS, "ImageClassifier", "repvgg_mm.models.classifier"),
    (HOOKS, "ReplaySeedHook", "repvgg_mm.engine.seed_hook"),
    (HOOKS, "QuantAwareTraining", "repvgg_mm.engine.quant_aware"),
    (HOOKS, "RankZeroBuffersHook", "repvgg_mm.engine.rank_buffers"),
    (HOOKS, "FiniteLossHook", "repvgg_mm.engine.finite"),
    (HOOKS, "AtomicCheckpointHook", "repvgg_mm.engine.saving"),
    (HOOKS, "CompileHook", "repvgg_mm.engine.compiling"),
    (HOOKS, "StopSignalHook", "repvgg_mm.engine.interrupts"),
    (LOOPS, "ResumableEpochLoop", "repvgg_mm.engine.epoch_loop"),
    (OPTIM_WRAPPERS, "BFloat16OptimWrapper", "repvgg_mm.engine.mixed_precision"),
    (OPTIM_WRAPPER_CONSTRUCTORS, "RepVGGOptimWrapperConstructor", "repvgg_mm.engine.weight_decay"),
)


def _register_later(registry: Registry, name: str, module: str) -> None:
    def build(*args: Any, **kwargs: Any) -> Any:
        return getattr(import_module(module), name)(*args, **kwargs)

    build.__name__, build.__module__ = name, module  # named in mmengine's messages
    registry.register_module(name=name, module=build)


for _entry in _LATER:
    _register_later(*_entry)
