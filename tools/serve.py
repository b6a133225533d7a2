"""Serve a complete exported file over HTTP: POST an image, get JSON or a picture.

The same as ``repvgg-mm serve``.
"""

from repvgg_mm.cli.command import run
from repvgg_mm.cli.serve import main

if __name__ == "__main__":
    run(main)
