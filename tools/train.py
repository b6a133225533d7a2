"""Train what a config describes: classification, segmentation or detection.

The same as ``repvgg-mm train``.
"""

from repvgg_mm.cli.command import run
from repvgg_mm.cli.train import main

if __name__ == "__main__":
    run(main)
