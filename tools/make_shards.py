"""Write the images of a folder into tar shards, shuffled, with an index: what a cluster trains from.

The same as ``repvgg-mm make-shards``.
"""

from repvgg_mm.cli.command import run
from repvgg_mm.cli.make_shards import main

if __name__ == "__main__":
    run(main)
