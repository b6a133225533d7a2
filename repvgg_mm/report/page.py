"""Puts the page together and writes it."""

from __future__ import annotations

import math
import os
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..files import atomic_path
from .content import Comparison, Report
from .object_labels import label_objects
from .object_pairs import agreement_sentence, compare_objects, count_objects
from .pictures import data_uri, difference, labelled, overlay, overlay_objects
from .svg_charts import EPSILON, draw_bars, draw_curve, draw_errors, scientific

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,  # no name can break the page
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.globals.update(
    (function.__name__, function)
    for function in (
        compare_objects,
        count_objects,
        data_uri,
        difference,
        draw_bars,
        draw_curve,
        draw_errors,
        label_objects,
        labelled,
        overlay,
        overlay_objects,
        scientific,
    )
)


def write_report(path: str | os.PathLike[str], report: Report) -> None:
    """Write the page of a run as one HTML file that needs nothing else; it is complete or not there.

    Args:
        path: the file to write, or to replace; its folder must exist.
        report: what to show.

    Raises:
        FileNotFoundError: its folder does not exist.
    """
    _write(path, _TEMPLATES.get_template("page.html.jinja").render(report=report, verdict=verdict(report)))


def write_comparison(path: str | os.PathLike[str], comparison: Comparison) -> None:
    """Write the page of a comparison, as `write_report` does.

    Args:
        path: the file to write, or to replace; its folder must exist.
        comparison: what to show.

    Raises:
        FileNotFoundError: its folder does not exist.
    """
    _write(path, _TEMPLATES.get_template("comparison.html.jinja").render(report=comparison))


def _write(path: str | os.PathLike[str], text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def verdict(report: Report) -> str:
    """Say in words what the pictures and the bars show.

    Args:
        report: its examples, detections and layer errors.

    Returns:
        A few sentences, or nothing.
    """
    sentences = []
    if report.examples:
        differing = sum(example.differing for example in report.examples)
        pixels = sum(example.truth.size for example in report.examples)
        images = "the image" if len(report.examples) == 1 else f"the {len(report.examples)} images"
        sentences.append(f"In {images} below, {differing:,} of {pixels:,} predicted pixels differ after conversion.")
    if report.detections:
        sentences.append(agreement_sentence(report.detections))
    if report.layer_errors:
        name, error = max(report.layer_errors, key=lambda item: math.inf if math.isnan(item[1]) else item[1])
        if math.isfinite(error):
            times = f"{error / EPSILON:.2g} times float32's epsilon"
            sentences.append(
                f"The largest relative error of a block's output is {scientific(error)} ({name}), {times}."
            )
        else:
            sentences.append(f"The relative error of {name}'s output is {error}.")
    return " ".join(sentences)
