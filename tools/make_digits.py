"""Make the demo data set: real handwritten digits on real photos, for all three tasks, without any download.

The same as ``repvgg-mm make-digits``.
"""

from repvgg_mm.cli.command import run
from repvgg_mm.cli.make_digits import main

if __name__ == "__main__":
    run(main)
