"""The page of a run or of a comparison: numbers, pictures and curves in one HTML file that needs no network."""

from .content import Comparison, Curve, DetectionExample, Example, Objects, Report
from .curves import read_curves
from .page import write_comparison, write_report

__all__ = [
    "Comparison",
    "Curve",
    "DetectionExample",
    "Example",
    "Objects",
    "Report",
    "read_curves",
    "write_comparison",
    "write_report",
]
