"""Pages of runs and their parts, for the tests of the report."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from repvgg_mm.report import Curve, Example, Objects, Report, write_report

CLASSES = ("back", "one", "two")
PALETTE = ((10, 20, 30), (200, 0, 0), (0, 0, 200))
SHAPE = (20, 32)
VOID = {"img", "link", "meta"}


class Page(HTMLParser):
    """Reads a page as strictly as a validator would read its tags: everything that is opened is closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names))
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def make_example(differing: int = 0) -> Example:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    truth = rng.integers(0, 3, SHAPE, dtype=np.uint8)
    after = truth.copy()
    after.ravel()[:differing] = (after.ravel()[:differing] + 1) % 3
    return Example(image, truth, truth, after)


def make_objects(boxes: Sequence[Sequence[float]], labels: Sequence[int], scores: Sequence[float] | None) -> Objects:
    masks = np.zeros((len(labels), *SHAPE), dtype=bool)
    masks[:, 4:8, 4:8] = True
    given = None if scores is None else np.array(scores)
    return Objects(np.array(boxes, dtype=np.float64).reshape(-1, 4), np.array(labels, dtype=np.int64), given, masks)


def make_report(**changes: object) -> Report:
    report = Report(
        title="A run",
        summary=[("mIoU", "71.2 %", "71.3 %")],
        facts=[("Commands", "python a.py\npython b.py")],
        classes=CLASSES,
        palette=PALETTE,
        examples=[make_example(), make_example(7)],
        curves=[Curve("loss", "iteration", [(50, 2.0), (100, 1.0)])],
        layer_errors=[("stage0", 1e-7), ("stage1.0", 4.2e-6)],
    )
    return replace(report, **changes)


def write(tmp_path: Path, report: Report) -> str:
    write_report(tmp_path / "report.html", report)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def decode(uri: str | None) -> np.ndarray:
    assert uri is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))
