"""The page of a run: its numbers, pictures and curves in one HTML file that needs no network."""

from .content import Curve, DetectionExample, Example, Objects, Report
from .curves import read_curves
from .page import write_report

__all__ = ["Curve", "DetectionExample", "Example", "Objects", "Report", "read_curves", "write_report"]
