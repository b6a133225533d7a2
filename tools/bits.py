"""Compare ways to 8, 6 and 4 bits on a checkpoint and on test beds where they hurt.

The same as ``repvgg-mm bits``.
"""

from repvgg_mm.cli.bits import main
from repvgg_mm.cli.command import run

if __name__ == "__main__":
    run(main)
