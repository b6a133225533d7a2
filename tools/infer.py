"""Run a checkpoint on images: pictures with classes, masks or boxes, and one JSON file with all results.

The same as ``repvgg-mm infer``.
"""

from repvgg_mm.cli.command import run
from repvgg_mm.cli.infer import main

if __name__ == "__main__":
    run(main)
