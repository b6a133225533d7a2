"""Measure RepVGG in all its forms, in turn with timm and mmpretrain (where installed) and with the machine's own rate.

The same as ``repvgg-mm benchmark``.
"""

from repvgg_mm.cli.benchmark import main
from repvgg_mm.cli.command import run

if __name__ == "__main__":
    run(main)
