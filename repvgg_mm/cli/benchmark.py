"""Measure RepVGG in all its forms, in turn with timm and mmpretrain (where installed) and with the machine's own rate.

Example:
    python tools/benchmark.py                                          # everything; about 25 minutes on 2 cores
    python tools/benchmark.py --cases deploy eval --arch A0 --batch 1
    python tools/benchmark.py --cases deploy --compile
    python tools/benchmark.py --device cuda --batch 128
    python tools/benchmark.py --cases serve --file detector.onnx

Cases, of each architecture: deploy (deployed inference, and its efficiency), eval (evaluation of the model that is not
converted), norm_eval (finetuning step with fixed statistics), live (training step), memory (bytes kept for the backward
pass), runtimes (deployed inference by ONNX Runtime and OpenVINO, always on the CPU). Once: models (PSPNet and RetinaNet
against ResNet-50, one image), convert (a B3 checkpoint), pipeline (images read a second), startup (imports), growth
(time against image side and batch). Not by default: half (steps, inference and bytes in bfloat16), compiled (training
steps under torch.compile), sizes (images of which no two have the same size), opening (a folder of 200,000 images),
serve (2,000 requests of 8 clients to `repvgg-mm serve FILE`).
Writes benchmark.json, ratios.png and growth_*.png.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from .command import DONE, user_input
from .progress import track

if TYPE_CHECKING:
    import torch

    from repvgg_mm.benchmark import Result
    from repvgg_mm.benchmark.cases import Setting
    from repvgg_mm.benchmark.growth import Point

MODEL_CASES = {  # and the function of repvgg_mm.benchmark.cases that measures it
    "deploy": "deployed_inference",
    "eval": "evaluation",
    "norm_eval": "finetuning",
    "live": "training",
    "memory": "memory",
}
BY_DEFAULT = [*MODEL_CASES, "runtimes", "models", "convert", "pipeline", "startup", "growth"]
EXTRA = ["half", "compiled", "sizes", "opening", "serve"]
CASES = [*BY_DEFAULT, *EXTRA]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, default=BY_DEFAULT, help=f"default: all but {', '.join(EXTRA)}"
    )
    parser.add_argument("--arch", nargs="+", default=["A0", "B1"], help="architectures; growth takes the first")
    parser.add_argument("--batch", type=int, default=8, help="images a step (default 8)")
    parser.add_argument("--side", type=int, default=224, help="height and width of an image (default 224)")
    parser.add_argument("--repeats", type=int, default=10, help="measurements of each (default 10)")
    parser.add_argument("--file", help="complete exported file, for serve")
    parser.add_argument("--compile", action="store_true", help="also time deployed inference under torch.compile")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--out-dir", type=Path, default=Path("work_dirs/benchmark"), help="where files go")
    args = parser.parse_args(argv)
    for name in ("batch", "side", "repeats"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} {getattr(args, name)}: must be at least 1")
    if "serve" in args.cases and not args.file:
        parser.error("--cases serve needs --file, a complete exported file")
    return args


def say(line: str) -> None:
    """Say on stderr what goes on; the table alone goes to stdout."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def plan(args: argparse.Namespace, setting: Setting) -> dict[str, Callable[[], list[Result]]]:
    """List the chosen cases with what measures each, in the order in which they run; growth has no table."""
    from repvgg_mm.benchmark import cases
    from repvgg_mm.benchmark.bfloat16 import half_precision
    from repvgg_mm.benchmark.compiled import compiled_inference, compiled_training
    from repvgg_mm.benchmark.conversion import conversion
    from repvgg_mm.benchmark.opening import opening
    from repvgg_mm.benchmark.pipeline import pipeline
    from repvgg_mm.benchmark.runtimes import runtimes
    from repvgg_mm.benchmark.serving import serving
    from repvgg_mm.benchmark.sizes import changing_sizes
    from repvgg_mm.benchmark.startup import startup
    from repvgg_mm.benchmark.whole_models import whole_models

    def checked(measure: Callable[[str, Setting], list[Result]], arch: str) -> list[Result]:
        with user_input():
            return measure(arch, setting)

    def served(file: str) -> list[Result]:
        with user_input():
            return serving(file)

    works: dict[str, Callable[[], list[Result]]] = {}
    for arch in args.arch:
        for name in (name for name in MODEL_CASES if name in args.cases):
            works[f"{name} {arch}"] = partial(getattr(cases, MODEL_CASES[name]), arch, setting)
        if args.compile:
            works[f"compile {arch}"] = partial(checked, compiled_inference, arch)
        for name, measure in (("half", half_precision), ("compiled", compiled_training), ("sizes", changing_sizes)):
            if name in args.cases:
                works[f"{name} {arch}"] = partial(checked, measure, arch)
    others: dict[str, Callable[[], list[Result]]] = {
        "runtimes": lambda: [result for arch in args.arch for result in runtimes(arch, setting)],
        "models": lambda: whole_models(setting),
        "convert": lambda: conversion(args.repeats),
        "pipeline": lambda: pipeline(args.repeats),
        "startup": lambda: startup(args.repeats),
        "opening": lambda: opening(args.repeats),
        "serve": lambda: served(args.file),
    }
    return works | {name: work for name, work in others.items() if name in args.cases}


def measure(args: argparse.Namespace, device: torch.device) -> tuple[list[Result], dict[str, list[Point]]]:
    """Run the chosen cases; the lines of each are shown at once: a run that is broken off has not been in vain."""
    from repvgg_mm.benchmark.cases import Setting
    from repvgg_mm.benchmark.contestants import peers
    from repvgg_mm.benchmark.growth import growth
    from repvgg_mm.benchmark.results import results_table

    works = plan(args, Setting(peers(say), args.batch, args.side, args.repeats, device))
    results: list[Result] = []
    for number, name in enumerate(track(works, len(works), "benchmark"), 1):
        say(f"{name} ({number}/{len(works)})")
        found = works[name]()
        print(results_table(found), file=sys.stderr, flush=True)
        results += found
    curves = {}
    if "growth" in args.cases:
        curves[args.arch[0]] = growth(args.arch[0], args.side, args.repeats, device, say)
    return results, curves


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the files."""
    args = parse_args(argv)
    with user_input():
        import torch

        from repvgg_mm.archs import resolve_arch
        from repvgg_mm.benchmark.record import describe_machine, write_json
        from repvgg_mm.benchmark.results import results_table

        for arch in args.arch:
            resolve_arch(arch)
        for package, use in (("matplotlib", "the charts"), ("sklearn", "the data pipeline's photos")):
            if find_spec(package) is None:
                raise ImportError(f"{use} need {package}: pip install 'repvgg_mm[demo]'")
        if args.device not in ("cpu", "cuda"):
            raise ValueError(f"--device {args.device}: choose cpu or cuda")
        if args.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device cuda: PyTorch sees no GPU here")
        args.out_dir.mkdir(parents=True, exist_ok=True)
    device = torch.device(args.device)
    # Both in true float32, so that the efficiency compares like with like.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    machine = describe_machine(device) | {"batch": args.batch, "side": args.side, "repeats": args.repeats}
    with redirect_stdout(sys.stderr):
        results, curves = measure(args, device)
    print(" ".join(f"{key}={value}" for key, value in machine.items()))
    print(results_table(results))
    points = {
        arch: [{**p._asdict(), "milliseconds": p.milliseconds._asdict()} for p in c] for arch, c in curves.items()
    }
    write_json(args.out_dir / "benchmark.json", machine, results, points)
    from repvgg_mm.benchmark.png_charts import draw_growth, draw_ratios

    if results:
        draw_ratios(args.out_dir / "ratios.png", results)
    for arch, curve in curves.items():
        draw_growth(args.out_dir / f"growth_{arch}.png", arch, curve)
    print(f"wrote {args.out_dir}")
    return DONE
