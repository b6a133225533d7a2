"""Convert the RepVGG blocks of a checkpoint into plain 3x3 convolutions; every other tensor stays as it is.

The same as ``repvgg-mm convert``.
"""

from repvgg_mm.cli.command import run
from repvgg_mm.cli.convert import main

if __name__ == "__main__":
    run(main)
