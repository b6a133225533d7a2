"""Find out what works on this machine: versions, operators, devices, room, a training step and a conversion.

The same as ``repvgg-mm doctor``.
"""

from repvgg_mm.cli.command import run
from repvgg_mm.cli.doctor import main

if __name__ == "__main__":
    run(main)
