"""Export a checkpoint in several formats, test each with the metric of its config, time each, and show one table.

The same as ``repvgg-mm compare``.
"""

from repvgg_mm.cli.command import run
from repvgg_mm.cli.compare import main

if __name__ == "__main__":
    run(main)
