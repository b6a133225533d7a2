"""Export a checkpoint for ONNX Runtime, TensorRT or OpenVINO, run the file there and compare it with the checkpoint.

The same as ``repvgg-mm export``.
"""

from repvgg_mm.cli.command import run
from repvgg_mm.cli.export import main

if __name__ == "__main__":
    run(main)
