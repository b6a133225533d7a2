"""Measure what each layer of a checkpoint loses in 8 bits.

The same as ``repvgg-mm sensitivity``.
"""

from repvgg_mm.cli.command import run
from repvgg_mm.cli.sensitivity import main

if __name__ == "__main__":
    run(main)
