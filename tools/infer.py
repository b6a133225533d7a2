"""Run a checkpoint or an exported file on images: pictures of what was found, and one JSON file.

The same as ``repvgg-mm infer``.
"""

from repvgg_mm.cli.command import run
from repvgg_mm.cli.infer import main

if __name__ == "__main__":
    run(main)
