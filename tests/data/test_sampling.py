import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.registry import DATA_SAMPLERS, TRANSFORMS
from torch.utils.data import DataLoader, Dataset

from repvgg_mm.data.sampling import Draw, ReplaySampler


class Noise(Dataset):
    """Returns the index and what numpy, random and torch draw for it."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple:
        index.seed_everything()
        return int(index), np.random.rand(), random.random(), float(torch.rand(()))


def stream(sampler: ReplaySampler, count: int, workers: int = 0) -> list:
    loader = iter(DataLoader(Noise(), sampler=sampler, batch_size=None, num_workers=workers))
    return [next(loader) for _ in range(count)]


def test_an_epoch_has_every_sample_once() -> None:
    sampler = ReplaySampler(range(10), seed=0)
    epochs = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_augmentation_differs_between_epochs() -> None:
    """Peer: with a seed, mmengine's workers draw the same numbers every epoch."""
    draws = stream(ReplaySampler(range(10), seed=0, infinite=True), 30)
    assert len({tuple(draw[1:]) for draw in draws}) == 30


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_stream_continues(workers: int) -> None:
    whole = stream(ReplaySampler(range(10), seed=0, infinite=True), 25)
    sampler = ReplaySampler(range(10), seed=0, infinite=True)
    sampler.skip(13)
    assert stream(sampler, 12, workers) == whole[13:]


def test_processes_share_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = []
    for rank in range(3):
        monkeypatch.setattr("repvgg_mm.data.sampling.get_dist_info", lambda rank=rank: (rank, 3))
        parts.append(list(ReplaySampler(range(10), seed=0)))
    assert [len(part) for part in parts] == [4, 4, 4]
    assert set().union(*parts) == set(range(10))
    assert len({draw.seed for part in parts for draw in part}) == 12


def test_a_draw_is_an_index_and_survives_pickling() -> None:
    draw = pickle.loads(pickle.dumps(Draw(3, 7)))
    assert draw == 3 and draw.seed == 7 and ["a", "b", "c", "d"][draw] == "d"


def test_seed_transforms_seeds_from_the_sample_index() -> None:
    transform, drawn = TRANSFORMS.build({"type": "SeedTransforms"}), []
    for seed in (1, 2, 1):
        transform({"sample_idx": Draw(0, seed)})
        drawn.append((np.random.rand(), random.random(), float(torch.rand(()))))
    assert drawn[0] == drawn[2] != drawn[1]
    assert transform({"sample_idx": 5}) == {"sample_idx": 5}


def test_configs_find_the_sampler() -> None:
    sampler = DATA_SAMPLERS.build({"type": "ReplaySampler", "dataset": range(4), "seed": 1})
    assert len(sampler) == 4
