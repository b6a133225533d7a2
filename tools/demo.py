"""Run the whole mission on real handwritten digits: pretrain, finetune, convert, prove, test, report.

The same as ``repvgg-mm demo``.
"""

from repvgg_mm.cli.command import run
from repvgg_mm.cli.demo import main

if __name__ == "__main__":
    run(main)
