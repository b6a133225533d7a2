"""Checkpoints: load without running code, find the weights, save atomically, read the stored config."""

from .errors import CheckpointError
from .find_weights import StateDictLocation, find_state_dict
from .io import check_writable, load_checkpoint, save_checkpoint, trusting
from .key_layouts import LAYOUTS, PEERS, from_ours, recognise, to_ours
from .placeholders import drop_placeholders
from .stored_config import (
    find_config_text,
    find_dataset_meta,
    parse_config,
    render_config,
    set_deploy,
)
from .stored_parts import take_parts

__all__ = [
    "LAYOUTS",
    "PEERS",
    "CheckpointError",
    "StateDictLocation",
    "check_writable",
    "drop_placeholders",
    "find_config_text",
    "find_dataset_meta",
    "find_state_dict",
    "from_ours",
    "load_checkpoint",
    "parse_config",
    "recognise",
    "render_config",
    "save_checkpoint",
    "set_deploy",
    "take_parts",
    "to_ours",
    "trusting",
]
