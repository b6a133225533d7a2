"""The cases in bfloat16: training steps, deployed inference, bytes kept for the backward pass."""

import torch
from torch import nn

from .cases import PLAIN, Prepare, Setting, compare, inference, kept_bytes, step, trainable
from .contestants import fix_statistics, ours
from .results import Result, Spread
from .timing import time_in_turn

_FLOAT32 = "plain network, float32"
_MODES: dict[str, tuple[Prepare, str]] = {
    "norm_eval": (fix_statistics, "<= 1.10"),
    "live": (nn.Module.train, "<= 1.35"),
}


def half_precision(arch: str, setting: Setting) -> list[Result]:
    """Measure everything under autocast in bfloat16, and beside it what float32 takes.

    Args:
        arch: architecture.
        setting: of the benchmark.

    Returns:
        Steps against the plain network's in bfloat16, deployed inference and kept bytes against float32's.
    """
    return [*_steps(arch, setting), *_inference(arch, setting), *_kept(arch, setting)]


def _steps(arch: str, setting: Setting) -> list[Result]:
    results = []
    for mode, (prepare, goal) in _MODES.items():
        works = {}
        for name, contestant, build in trainable(setting):
            images = contestant.images(setting.batch, setting.side, setting.device)
            if name == PLAIN:
                works[_FLOAT32] = step(prepare(build(arch)).to(setting.device), images)
            works[name] = step(prepare(build(arch)).to(setting.device), images, torch.bfloat16)
        times = time_in_turn(works, setting.repeats, setting.device)
        results += compare(f"{mode} step, bfloat16", arch, times, PLAIN, goal)
    return results


def _inference(arch: str, setting: Setting) -> list[Result]:
    model, works = ours().convert(ours().build(arch)), {}
    works["float32"] = inference(model, ours(), setting)
    works[ours().name] = inference(model, ours(), setting, torch.bfloat16)
    for peer in setting.peers:
        works[peer.name] = inference(peer.convert(peer.build(arch)), peer, setting, torch.bfloat16)
    times = time_in_turn(works, setting.repeats, setting.device)
    return compare("deployed inference, bfloat16", arch, times, "float32", "<= 0.57")


def _kept(arch: str, setting: Setting) -> list[Result]:
    results = []
    images = ours().images(setting.batch, setting.side, setting.device)
    for mode, (prepare, _) in _MODES.items():
        model = prepare(ours().build(arch)).to(setting.device)
        exact, half = (kept_bytes(model, images, precision) for precision in (torch.float32, torch.bfloat16))
        for name, size in (("float32", exact), (ours().name, half)):
            goal = "<= 0.55" if name == ours().name else ""
            mebibytes, against = Spread.of([size / 2**20]), Spread.of([size / exact])
            results.append(Result(f"kept for backward, {mode}, bfloat16", arch, name, mebibytes, "MiB", against, goal))
    return results
