"""The rows of segmented images: image, truth, prediction before and after conversion, difference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .content import Example, Labels, Report
from .markup import Markup, element
from .pictures import Picture, data_uri, difference, labelled, overlay


def segmentation_rows(report: Report) -> Markup:
    """Show every example as one row.

    Args:
        report: its examples, classes and palette.

    Returns:
        The rows.
    """
    rows = (_row(number, example, report.palette) for number, example in enumerate(report.examples, start=1))
    return element("div", *rows, class_="rows")


def _row(number: int, example: Example, palette: Sequence[Sequence[int]]) -> Markup:
    alt = f"example {number}, "
    shown = {
        "Image": (example.image, ""),
        "Truth": (overlay(example.image, example.truth, palette), ""),
        "Before conversion": (
            overlay(example.image, example.before, palette),
            _right(example, example.before, palette),
        ),
        "After conversion": (overlay(example.image, example.after, palette), _right(example, example.after, palette)),
        "Difference": (
            difference(example.image, example.before != example.after),
            f"{example.differing:,} of {example.truth.size:,} pixels differ",
        ),
    }
    figures = (_figure(picture, title, note, alt + title.lower()) for title, (picture, note) in shown.items())
    return element("div", *figures, class_="example five")


def _figure(picture: Picture, title: str, note: str, alt: str) -> Markup:
    height, width = picture.shape[:2]
    image = element("img", src=data_uri(picture), alt=alt, width=width, height=height)
    return element("figure", image, element("figcaption", element("b", title), element("span", note)))


def _right(example: Example, prediction: Labels, palette: Sequence[Sequence[int]]) -> str:
    """Say how much of what is labelled a prediction gets right."""
    known = labelled(example.truth, len(palette))
    if not known.any():
        return ""
    return f"{100 * np.mean(prediction[known] == example.truth[known]):.1f} % of pixels right"
