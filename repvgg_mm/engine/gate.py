"""The one gate: from a file with weights to what is built from it, with one set of guards.

Testing, exporting, inferring and converting all read a file, find its weights, take a config (the user's, or the one
inside), set the form, build and fill. What a file of somebody else may ask for on that way is decided here:
`take_parts` for what is built, `limits` for as long as it is built and run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import MODELS, init_default_scope
from mmengine.utils import import_modules_from_strings
from torch import Tensor, nn

from ..checkpoint import (
    find_config_text,
    find_dataset_meta,
    find_state_dict,
    load_checkpoint,
    parse_config,
    set_deploy,
    take_parts,
)
from ..checkpoint.errors import CheckpointError
from ..checkpoint.pretrained import load_weights
from ..checkpoint.published import find_file
from ..checkpoint.rounded import trained_layers
from ..reparam.convert import is_deployed
from .config import apply_options, load_config
from .limits import limits
from .model_size import models_no_larger_than

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Opened:
    """A file with weights, and the config to build its model from.

    Attributes:
        path: The file, as the user named it.
        file: The one on this machine that holds its weights.
        cfg: What may be built; the model in the form of the weights.
        given: The whole config as it was given or stored, to be written on, never to be built.
        stored: Whether the config came inside the file.
        trust: Whether files that a config of the user's names are unpickled.
        dataset_meta: What the file says of its data set; may be empty.
        weights: Names and tensors; none for an exported file.
    """

    path: str
    file: str
    cfg: Config
    given: dict[str, Any]
    stored: bool
    trust: bool
    dataset_meta: dict[str, Any]
    weights: Mapping[str, Tensor]

    def limits(self) -> AbstractContextManager[None]:
        """Make the context in which everything that comes from the config runs."""
        return limits(self.stored, self.trust)

    def building(self) -> AbstractContextManager[None]:
        """Make the context in which everything that comes from the config is built."""
        return building(self.file if self.stored else None, self.trust)

    def within(self, run: Callable[_P, _T]) -> Callable[_P, _T]:
        """Wrap something that runs later, so that it runs inside `limits`.

        Args:
            run: Any function.

        Returns:
            A function that does the same.
        """

        def limited(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            with self.limits():
                return run(*args, **kwargs)

        return limited

    def fill(self, model: nn.Module) -> None:
        """Load the weights, all of them or none; what was trained with rounded numbers computes with them.

        Args:
            model: Built from the config.

        Raises:
            CheckpointError: If they don't fit.
        """
        names = trained_layers(self.weights)
        if names:
            from ..quantization.fake_layers import round_layers  # imports mmcv

            round_layers(model, names)
        load_weights(model, self.weights, self.path)

    def build(self) -> nn.Module:
        """Build the model alone, and fill it.

        Returns:
            The model, in the form of the weights.

        Raises:
            CheckpointError: If the weights don't fit.
        """
        with self.building():
            model = build_model(self.cfg)
        self.fill(model)
        return model


def open_model(
    checkpoint: str, config: str | None = None, wanted: Collection[str] = (), trust: bool = False, **flags: Any
) -> Opened:
    """Open a checkpoint with its config.

    Args:
        checkpoint: Path, address or name, as for `local_file`; trained or converted.
        config: Config file; None takes the config inside the checkpoint, as data: nothing in it is run.
        wanted: What is needed beside the model, see `take_parts`.
        trust: Unpickle the checkpoint, which may run code in it.
        flags: ``work_dir``, ``options`` and ``launcher``, as for `load_config`.

    Returns:
        Both; nothing is built yet.

    Raises:
        CheckpointError: If the checkpoint can't be used, or its config asks for what is not on the list.
        ValueError: If the config has no model.
        FileNotFoundError: If a file is missing.
    """
    path, published = find_file(checkpoint)
    if published is not None:
        print_log(published, logger="current")
    loaded = load_checkpoint(path, trust)
    weights = find_state_dict(loaded).state_dict
    opened = open_config(checkpoint, path, loaded, config, wanted, weights, trust, **flags)
    if is_deployed(weights):
        set_deploy(opened.cfg.model)
    return opened


def open_config(
    path: str,
    file: str,
    loaded: object,
    config: str | None,
    wanted: Collection[str],
    weights: Mapping[str, Tensor],
    trust: bool = False,
    work_dir: str | None = None,
    options: Mapping[str, Any] | None = None,
    launcher: str = "none",
) -> Opened:
    """Read the config that belongs to a file: the user's, or the one inside.

    Args:
        path: The file, for messages.
        file: The one on this machine that holds its weights.
        loaded: What it holds.
        config: Config file; None takes the config inside.
        wanted: As for `open_model`.
        weights: Its weights, if they are tensors.
        trust: As for `open_model`.
        work_dir: Folder for logs.
        options: ``--cfg-options``; they are the user's, and nothing that they set is judged.
        launcher: ``--launcher``.

    Returns:
        The file with its config.

    Raises:
        CheckpointError: If there is no config inside, or it asks for what is not on the list.
        ValueError: If the config has no model.
        FileNotFoundError: If the config file is missing.
    """
    if config:
        cfg = load_config(config, work_dir, options, launcher)
        given = cfg.to_dict()
    else:
        given = stored_config(loaded, path)
        cfg = Config(take_parts(given, wanted))
        apply_options(cfg, options or {})
        cfg.launcher, cfg.work_dir = launcher, work_dir or "work_dirs/test"
    if not cfg.get("model"):
        raise ValueError(f"{config} has no model: give the config of the model in {path}")
    cfg.load_from, cfg.resume = None, False
    return Opened(path, file, cfg, given, not config, trust, find_dataset_meta(loaded), weights)


def stored_config(loaded: object, path: str) -> dict[str, Any]:
    """Return the config inside a file as plain data, whatever it asks for.

    Args:
        loaded: What the file holds.
        path: The file, for the message.

    Returns:
        Name -> value.

    Raises:
        CheckpointError: If there is none, or it is more than plain values.
    """
    text = find_config_text(loaded)
    if text is None:
        raise CheckpointError(f"{path} holds no config: give a config file")
    return parse_config(text)


@contextmanager
def building(file: str | None, trust: bool = False) -> Iterator[None]:
    """Build something: as `limits` has it and, for a config out of a file, no larger than that.

    Args:
        file: Where the config came from; None for one that the user names.
        trust: As for `limits`.
    """
    with limits(file is not None, trust), models_no_larger_than(os.path.getsize(file)) if file else nullcontext():
        yield


def build_model(cfg: Config) -> nn.Module:
    """Build the model of a config, without weights; a stored config's only inside `building`.

    Args:
        cfg: With ``model``.

    Returns:
        The model.
    """
    import_modules_from_strings(**(cfg.get("custom_imports") or {"imports": []}))
    init_default_scope(cfg.get("default_scope") or "mmengine")
    model: nn.Module = MODELS.build(cfg.model)
    return model
