"""Test a checkpoint with the metrics of its config, in training or deployed form.

The same as ``repvgg-mm test``.
"""

from repvgg_mm.cli.command import run
from repvgg_mm.cli.test import main

if __name__ == "__main__":
    run(main)
