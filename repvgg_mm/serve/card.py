"""What a model says about itself to those who use the service."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import __version__
from ..inference.exported import ExportedPredictor
from .body import Limits

_SAID = ("classes", "palette", "task", "preprocess", "sealed")  # elsewhere on the card, or of no use to a reader
_LEFT_OUT = ("config", "dataset_meta", *_SAID)  # the first two name folders of another machine


def describe_model(predictor: ExportedPredictor, limits: Limits) -> dict[str, Any]:
    """Collect the model's card.

    Args:
        predictor: the model.
        limits: of the service.

    Returns:
        Plain data: file, task, classes, colours, limits, and what the file says about itself, but for its config.
    """
    about = {key: value for key, value in predictor.model.about.items() if key not in _LEFT_OUT}
    return {
        "file": Path(predictor.model.path).name,
        "task": predictor.task,
        "classes": predictor.classes,
        "palette": predictor.palette,
        "max_bytes": limits.max_bytes,
        "max_pixels": limits.max_pixels,
        "served_by": f"repvgg_mm {__version__}",
        **about,
    }


def card_rows(card: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and value of what stands in a table on the page.

    Args:
        card: from `describe_model`.
    """
    for key, value in card.items():
        if key in ("classes", "palette") or value is None:
            continue
        name = key.replace("_", " ").replace("sha256", "SHA-256")
        if isinstance(value, dict):
            yield from (
                (f"{name}: {inner}".replace("_", " "), _text(one)) for inner, one in value.items() if one is not None
            )
        else:
            yield name, _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
