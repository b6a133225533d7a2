"""Checkpoints: load without running code, find the weights, save atomically, read the stored config."""

from .errors import CheckpointError
from .io import StateDictLocation, check_writable, drop_placeholders, find_state_dict, load_checkpoint, save_checkpoint
from .key_layouts import LAYOUTS, PEERS, from_ours, recognise, to_ours
from .stored_config import (
    check_buildable,
    find_config_text,
    find_dataset_meta,
    parse_config,
    registered_only,
    render_config,
    set_deploy,
)

__all__ = [
    "LAYOUTS",
    "PEERS",
    "CheckpointError",
    "StateDictLocation",
    "check_buildable",
    "check_writable",
    "drop_placeholders",
    "find_config_text",
    "find_dataset_meta",
    "find_state_dict",
    "from_ours",
    "load_checkpoint",
    "parse_config",
    "recognise",
    "registered_only",
    "render_config",
    "save_checkpoint",
    "set_deploy",
    "to_ours",
]
