"""Put batch normalisation in behind each deployed convolution, to train a deployed model on; its outputs stay.

The same as ``repvgg-mm insert-bn``.
"""

from repvgg_mm.cli.command import run
from repvgg_mm.cli.insert_bn import main

if __name__ == "__main__":
    run(main)
