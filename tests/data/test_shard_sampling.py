"""The order of shards: exact epochs, few shards at a time, none shared, the same after a resume."""

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from repvgg_mm.data import ImageShards, ShardSampler
from repvgg_mm.data.shard_writer import make_shards

IMAGES, WINDOW = 205, 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ImageShards:
    """205 images in more than 20 shards."""
    root = tmp_path_factory.mktemp("data")
    (root / "folder/a").mkdir(parents=True)
    for number in range(IMAGES):
        Image.new("L", (2, 2), number).save(root / f"folder/a/{number}.png")
    make_shards(root / "folder", root / "train", shard_bytes=690)
    data = ImageShards(str(root), "train", [])
    assert len(data.index.names) > 20
    return data


def deal(data: ImageShards, monkeypatch: pytest.MonkeyPatch, ranks: int, epoch: int = 0) -> list[list[int]]:
    parts = []
    for rank in range(ranks):
        monkeypatch.setattr("repvgg_mm.data.sampling.get_dist_info", lambda rank=rank: (rank, ranks))
        sampler = ShardSampler(data, seed=0, window=WINDOW)
        sampler.set_epoch(epoch)
        parts.append(list(sampler))
    return parts


@pytest.mark.parametrize("ranks", [1, 3, 5])
def test_processes_share_an_epoch(data: ImageShards, monkeypatch: pytest.MonkeyPatch, ranks: int) -> None:
    for epoch in range(2):
        parts = deal(data, monkeypatch, ranks, epoch)
        assert {len(part) for part in parts} == {-(-IMAGES // ranks)}
        dealt = [draw for part in parts for draw in part]
        assert set(dealt) == set(range(IMAGES)) and len(dealt) - IMAGES < ranks
        assert len({draw.seed for draw in dealt}) == len(dealt)


def test_processes_read_different_shards(data: ImageShards, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [set(data.index.shard_of(np.array(part)).tolist()) for part in deal(data, monkeypatch, 3)]
    assert sum(map(len, parts)) <= len(data.index.names) + 3  # one is cut at each border


def test_new_shards_are_needed_one_at_a_time(data: ImageShards) -> None:
    shards = data.index.shard_of(np.array(list(ShardSampler(data, seed=0, window=WINDOW)))).tolist()
    open_at = [{s for s in set(shards[:at]) & set(shards[at:])} for at in range(len(shards))]
    assert WINDOW <= max(map(len, open_at)) <= WINDOW + 3
    assert shards != sorted(shards, key=shards.index)  # mixed


def test_epochs_differ(data: ImageShards, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,), (second,) = (deal(data, monkeypatch, 1, epoch) for epoch in range(2))
    assert first != second


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_stream_continues(data: ImageShards, workers: int) -> None:
    def stream(skipped: int, count: int, workers: int = 0) -> list[tuple[int, int]]:
        sampler = ShardSampler(data, seed=0, infinite=True, window=WINDOW)
        sampler.skip(skipped)
        loader = iter(DataLoader(data, sampler=sampler, batch_size=None, num_workers=workers))
        return [int(next(loader)["inputs"][0, 0, 0]) for _ in range(count)]

    whole = stream(0, IMAGES + 30)
    assert stream(IMAGES - 40, 70, workers) == whole[IMAGES - 40 :]


def test_what_it_can_not_deal_is_refused(data: ImageShards) -> None:
    with pytest.raises(TypeError, match="needs ImageShards, not range: take ReplaySampler"):
        ShardSampler(range(4), seed=0)
    with pytest.raises(ValueError, match="window=0"):
        ShardSampler(data, seed=0, window=0)
