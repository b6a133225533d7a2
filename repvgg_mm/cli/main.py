"""``repvgg-mm COMMAND ...``: one door to every command; ``tools/COMMAND.py ...`` is another to the same function."""

import sys
from importlib import import_module

from .. import __version__
from .command import BAD_INPUT, run

COMMANDS = {
    "train": "train a classifier, segmentor or detector by its config",
    "test": "test a checkpoint or an exported file with the metrics of its config",
    "convert": "convert the RepVGG blocks of a checkpoint into plain 3x3 convolutions, and prove it",
    "insert-bn": "put batch normalisation in behind deployed convolutions, to train them on",
    "export": "write a checkpoint for ONNX Runtime, TensorRT or OpenVINO, and compare",
    "sensitivity": "measure what each layer of a checkpoint loses in 8 bits",
    "bits": "compare ways to 8, 6 and 4 bits on a checkpoint, and where they hurt",
    "compare": "export a checkpoint in several formats, test and time each",
    "infer": "run a checkpoint or an exported file on images",
    "serve": "serve an exported file over HTTP, with a page to try it",
    "benchmark": "measure speed and memory",
    "demo": "run the whole mission on handwritten digits",
    "make-digits": "make the demo's data set",
    "make-shards": "write an image folder into tar shards, to train from",
    "doctor": "find out what works on this machine, and how to fix what does not",
    "check-gpu": "run what only a GPU runs, and print a table",
}
USAGE = "\n".join(
    [
        "usage: repvgg-mm COMMAND ...",
        "",
        "RepVGG as an OpenMMLab backbone: pretrain, finetune, convert, prove, deploy.",
        "",
        *(f"  {name:12} {text}" for name, text in COMMANDS.items()),
        "",
        "  --version    print the version",
        "  --traceback  with any command: where an error came up",
        "",
        "repvgg-mm COMMAND --help tells more. python -m repvgg_mm COMMAND does the same.",
    ]
)


def main() -> None:
    """Run the command that the command line names; exits with its code."""
    name, rest = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("--help", [])
    if name in ("-h", "--help"):
        print(USAGE)
    elif name == "--version":
        print(f"repvgg_mm {__version__}")
    elif name in COMMANDS:
        sys.argv = [f"repvgg-mm {name}", *rest]  # argparse names the program by it
        run(import_module(f".{name.replace('-', '_')}", __package__).main)
    else:
        print(f"error: unknown command {name!r}: choose one of {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(BAD_INPUT)
