"""Puts the page together and writes it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

from ..files import atomic_path
from .box_content import agreement_sentence, detection_rows
from .content import Report
from .error_table import EPSILON, error_table, scientific
from .line_chart import line_chart
from .markup import Markup, element, join
from .mask_content import segmentation_rows
from .pictures import labelled
from .style import STYLE

# The browser itself then refuses everything that is not in the file.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(path: str | os.PathLike[str], report: Report) -> None:
    """Write the page of a run as one HTML file that needs nothing else; it is complete or not there.

    Args:
        path: the file to write, or to replace; its folder must exist.
        report: what to show.

    Raises:
        FileNotFoundError: its folder does not exist.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(render(report), encoding="utf-8")


def render(report: Report) -> str:
    """Build the page.

    Args:
        report: what to show.

    Returns:
        HTML.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("link", rel="icon", href="data:,"),
        element("title", report.title),
        element("style", Markup(STYLE)),
    )
    top = element("header", element("h1", report.title), element("p", verdict(report), class_="lead"))
    body = element("body", element("main", top, summary_table(report), *sections(report)))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


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


def summary_table(report: Report) -> Markup:
    """Build the main table.

    Args:
        report: its summary.

    Returns:
        A table, or nothing.
    """
    if not report.summary:
        return Markup()
    heads = (element("th", text, scope="col") for text in ("Result", "Before conversion", "After conversion"))
    rows = (
        element("tr", element("th", name, scope="row"), element("td", before), element("td", after))
        for name, before, after in report.summary
    )
    return element("table", element("thead", element("tr", *heads)), element("tbody", *rows), class_="summary")


def sections(report: Report) -> Iterator[Markup]:
    """Build the sections that have something to show.

    Args:
        report: what to show.

    Yields:
        One section after the other.
    """
    if report.examples:
        note = "The training form predicts before, the deployed form after conversion."
        yield section("Segmentation", note, join(legend(report), segmentation_rows(report)))
    if report.detections:
        note = "The training form predicts before, the deployed form after conversion."
        yield section("Detection", note, join(Markup() if report.examples else legend(report), detection_rows(report)))
    if report.layer_errors:
        note = (
            "Output of each block, deployed form against training form: largest difference, relative to the largest "
            "value. Logarithmic scale."
        )
        yield section("Error block by block", note, error_table(report.layer_errors))
    if report.curves:
        charts = element("div", *map(line_chart, report.curves), class_="charts")
        yield section("Training", "First and last value at the right. Point at a curve for its values.", charts)
    if report.facts:
        entries = (join(element("dt", name), element("dd", text)) for name, text in report.facts)
        yield section("How to repeat it", "", element("dl", *entries))


def section(title: str, note: str, content: Markup) -> Markup:
    """Build one section.

    Args:
        title: its heading.
        note: what one sees there, or nothing.
        content: the rest.

    Returns:
        The section.
    """
    return element("section", element("h2", title), element("p", note, class_="note") if note else Markup(), content)


def legend(report: Report) -> Markup:
    """Name the colours.

    Args:
        report: its classes, palette and examples.

    Returns:
        A list.
    """
    names = [
        (name, "rgb({}, {}, {})".format(*colour)) for name, colour in zip(report.classes, report.palette, strict=True)
    ]
    if not all(labelled(example.truth, len(report.classes)).all() for example in report.examples):
        names.append(("not labelled", "linear-gradient(90deg, #333, #ddd)"))
    entries = (element("li", element("i", style=f"background: {colour}"), name) for name, colour in names)
    return element("ul", *entries, class_="legend")
