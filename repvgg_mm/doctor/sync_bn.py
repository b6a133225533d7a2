"""SyncBN in two processes on one GPU, each with half a batch, against BN on the whole.

In a group of one SyncBN is BN: torch only synchronises where there are others.
"""

from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn

from .gpu_pieces import Trial, at_most, relative_error

_IMAGES = 8  # of the batch: there are three models on one GPU


def sync_bn(trial: Trial) -> str:
    """Train a step in two processes; outputs, gradients and running statistics must be those of one.

    Args:
        trial: device and size.

    Returns:
        How far they differ.

    Raises:
        RuntimeError: if they do, or a process fails.
    """
    with TemporaryDirectory() as folder:
        try:
            multiprocessing.spawn(_train_half, (trial, folder), nprocs=2)
        except multiprocessing.ProcessRaisedException as error:
            raise RuntimeError(str(error).strip().splitlines()[-1]) from error
        halves = [torch.load(Path(folder, str(rank)), weights_only=True) for rank in range(2)]
    return compare(train(trial.model(), trial.images()[:_IMAGES]), halves)


def train(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Run a step in float64 whose loss is a sum over images, so that gradients of halves add up.

    Args:
        model: trained in place.
        images: shape (N, 3, H, W).

    Returns:
        Output, gradients and buffers, on the CPU.
    """
    output = model.double().train()(images.double())
    output.square().sum().backward()
    found = {"outputs": output.detach()}
    found |= {f"gradient of {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: tensor.cpu() for name, tensor in (found | dict(model.named_buffers())).items()}


def compare(whole: dict[str, Tensor], halves: list[dict[str, Tensor]]) -> str:
    """Hold what two processes found against what one did.

    Args:
        whole: of `train`, on all images.
        halves: of `train`, on half of them each.

    Returns:
        The largest errors.

    Raises:
        RuntimeError: if they differ.
    """
    errors = {"outputs": 0.0, "gradients": 0.0, "running statistics": 0.0}
    for name, expected in whole.items():
        parts = [half[name] for half in halves]
        if name == "outputs":
            kind, found = name, [torch.cat(parts)]
        elif name.startswith("gradient of "):
            kind, found = "gradients", [sum(parts, torch.zeros_like(expected))]
        else:
            kind, found = "running statistics", parts
        errors[kind] = max(errors[kind], *(relative_error(each, expected) for each in found))
    for kind, error in errors.items():
        at_most(error, 1e-6, f"SyncBN's {kind} differ from BN's by")
    return f"{', '.join(f'{kind} {error:.1e}' for kind, error in errors.items())} against BN, two processes, in float64"


def _train_half(rank: int, trial: Trial, folder: str) -> None:
    store, patience = f"file://{folder}/store", timedelta(minutes=2)
    dist.init_process_group("gloo", store, patience, world_size=2, rank=rank)  # nccl wants a GPU for each
    model = nn.SyncBatchNorm.convert_sync_batchnorm(trial.model())
    torch.save(train(model, trial.images()[:_IMAGES].chunk(2)[rank]), Path(folder, str(rank)))
    dist.destroy_process_group()
