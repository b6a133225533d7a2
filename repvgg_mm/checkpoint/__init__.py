"""Checkpoints: load without running code, find the weights, save atomically, read the stored config."""

from .errors import CheckpointError
from .io import StateDictLocation, check_writable, drop_placeholders, find_state_dict, load_checkpoint, save_checkpoint
from .stored_config import (
    check_buildable,
    find_config_text,
    parse_config,
    registered_only,
    render_config,
    set_deploy,
)

__all__ = [
    "CheckpointError",
    "StateDictLocation",
    "check_buildable",
    "check_writable",
    "drop_placeholders",
    "find_config_text",
    "find_state_dict",
    "load_checkpoint",
    "parse_config",
    "registered_only",
    "render_config",
    "save_checkpoint",
    "set_deploy",
]
