"""yapf, which formats a text once a process.

mmengine has it format the config of a run for its log, its copy, its visualizer and every checkpoint: most of the time
that a short run takes.
"""

import functools
from typing import Any

from yapf.yapflib import yapf_api

_format = yapf_api.FormatCode
_KNOWN: dict[str, Any] = {}


@functools.wraps(_format)
def format_once(text: str, style_config: Any = None, **options: Any) -> Any:
    key = repr((text, style_config, options))
    if key not in _KNOWN:
        _KNOWN[key] = _format(text, style_config=style_config, **options)
    return _KNOWN[key]


def as_written(text: str, **options: Any) -> tuple[str, bool]:
    """In place of yapf, where nobody reads the text."""
    return text, False
