"""FCOS on two gloo processes: three iterations, every combination of frozen_stages, norm_eval and with_cp.

FCOS divides its losses by the number of positive points of all processes, and takes no random samples: so its gradients
are those of one process with the whole batch, as far as the batch normalisations are fixed (norm_eval). Where they are
not, each process normalises by its own half, and what can be compared is the mean of the gradients of the two halves.
This needs as many positive points in each half, so there both have the same boxes, on other pixels.
"""

import itertools
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from forked_processes import ForkedProcess
from helpers import SMALL_ARCH, image, randomize_bn
from torch import Tensor, nn
from training_runs import finish

ITERATIONS, SIZE = 3, (64, 96)
COMBINATIONS = list(itertools.product((-1, 1), (False, True), (False, True)))  # frozen_stages, norm_eval, with_cp
BOXES = [[[4.0, 6.0, 40.0, 50.0]], [[30.0, 10.0, 90.0, 60.0], [0.0, 0.0, 20.0, 20.0]]]
UNEVEN = [*BOXES, [[8.0, 8.0, 56.0, 40.0]], []]  # the second half has fewer boxes, and an image without any
EVEN = [*BOXES, *BOXES]


def build(frozen_stages: int, norm_eval: bool, with_cp: bool) -> nn.Module:
    """The FCOS of the COCO config on a small backbone, in float64."""
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    cfg = Config.fromfile(Path(__file__).resolve().parents[2] / "configs/fcos_repvgg_a2_coco.py")
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.update(
        arch=SMALL_ARCH, init_cfg=None, frozen_stages=frozen_stages, norm_eval=norm_eval, with_cp=with_cp
    )
    cfg.model.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    cfg.model.bbox_head.update(
        num_classes=3, in_channels=16, feat_channels=16, stacked_convs=1, norm_cfg=dict(type="GN", num_groups=4)
    )
    torch.manual_seed(0)
    return randomize_bn(MODELS.build(cfg.model)).double().train()


def batch(step: int, boxes: list[list[list[float]]], part: slice) -> tuple[Tensor, list[Any]]:
    """Images and annotations of one iteration, or of a process's part of it."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    samples = []
    for of_image in boxes[part]:
        tensor = torch.tensor(of_image, dtype=torch.float64).reshape(-1, 4)
        sample = DetDataSample(metainfo=dict(img_shape=SIZE, batch_input_shape=SIZE, pad_shape=SIZE))
        sample.gt_instances = InstanceData(bboxes=tensor, labels=torch.arange(len(tensor)))
        samples.append(sample)
    return image(len(boxes), 3, *SIZE, dtype=torch.float64, seed=step)[part], samples


def train(model: nn.Module, parts: list[slice], norm_eval: bool) -> list[dict[str, Tensor]]:
    """Take three steps, each on the mean loss of the given parts of the batch; return the gradients of each step."""
    inner = model.module if hasattr(model, "module") else model
    optimizer = torch.optim.SGD([p for p in inner.parameters() if p.requires_grad], lr=0.01, momentum=0.9)
    history = []
    for step in range(ITERATIONS):
        optimizer.zero_grad()
        for part in parts:
            inputs, samples = batch(step, UNEVEN if norm_eval else EVEN, part)
            loss, _ = inner.parse_losses(model(inputs, samples, mode="loss"))
            (loss / len(parts)).backward()
        history.append({name: p.grad.clone() for name, p in inner.named_parameters() if p.grad is not None})
        optimizer.step()
    return history


def worker(rank: int, folder: Path) -> None:
    """One of the two processes: its gradients, and whether anything that is frozen moved."""
    from mmengine.model import MMDistributedDataParallel

    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = {}
    for combination in COMBINATIONS:
        model = build(*combination)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        ddp = MMDistributedDataParallel(module=model, device_ids=None, broadcast_buffers=False)
        gradients = train(ddp, [slice(2 * rank, 2 * rank + 2)], combination[1])
        moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        results[combination] = (gradients, moved)
    torch.save(results, folder / f"rank{rank}.pth")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    folder = tmp_path_factory.mktemp("gloo")
    processes = [ForkedProcess([__file__, str(rank), str(folder)], folder, os.environ) for rank in range(2)]
    assert [end.code for end in finish(processes, seconds=600)] == [0, 0]
    return [torch.load(folder / f"rank{rank}.pth") for rank in range(2)]


def test_gradients_on_two_processes_are_those_of_one(ranks: list[dict[Any, Any]]) -> None:
    for combination in COMBINATIONS:
        norm_eval = combination[1]
        parts = [slice(0, 4)] if norm_eval else [slice(0, 2), slice(2, 4)]
        wanted = train(build(*combination), parts, norm_eval)
        for rank, results in enumerate(ranks):
            for step, (got, reference) in enumerate(zip(results[combination][0], wanted, strict=True)):
                where = f"frozen_stages, norm_eval, with_cp = {combination}, rank {rank}, step {step}"
                assert got.keys() == reference.keys(), where
                for name, gradient in reference.items():
                    close = 1e-6 * float(gradient.abs().max())  # mmdet adds a float32 epsilon to each divisor
                    difference = float((got[name] - gradient).abs().max())
                    assert difference <= close, f"{where}: {name} differs by {difference:.1e}, more than {close:.1e}"


def test_what_is_frozen_stays_as_it_was(ranks: list[dict[Any, Any]]) -> None:
    for results in ranks:
        for (frozen_stages, norm_eval, with_cp), (gradients, moved) in results.items():
            frozen = tuple(f"backbone.stage{index}." for index in range(frozen_stages + 1))
            statistics = {name for name in moved if "running_" in name}
            at = (frozen_stages, norm_eval, with_cp)
            assert not [name for name in moved | gradients[-1].keys() if frozen and name.startswith(frozen)], at
            assert bool(statistics) != norm_eval, at
            assert any(name.startswith("backbone.stage2.") for name in gradients[-1]), at
            assert any(name.startswith("bbox_head.") for name in gradients[-1]), at


if __name__ == "__main__":
    worker(int(sys.argv[1]), Path(sys.argv[2]))
