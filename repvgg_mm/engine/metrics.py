"""Top-k accuracy as an mmengine metric."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS


@METRICS.register_module()
class TopKAccuracy(BaseMetric):
    """Share of images, in percent, whose class is among the k best scores.

    Args:
        topk: the values of k.
        collect_device: as in mmengine's ``BaseMetric``.
        prefix: as in mmengine's ``BaseMetric``.

    Raises:
        ValueError: if a value of k is no whole number above 0.
    """

    default_prefix = "accuracy"

    def __init__(self, topk: Sequence[int] = (1, 5), collect_device: str = "cpu", prefix: str | None = None) -> None:
        super().__init__(collect_device, prefix)
        self.topk = tuple(topk)
        if not all(isinstance(k, int) and k > 0 for k in self.topk):
            raise ValueError(f"topk={topk!r} must be whole numbers above 0, such as (1, 5)")

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Rank the class of each image; of classes with one score the first is ahead, and NaN is ahead of all numbers.

        Args:
            data_batch: not used.
            data_samples: one dict an image, with ``scores`` (K,) and ``label``.
        """
        for sample in data_samples:
            order = sample["scores"].argsort(descending=True, stable=True)
            self.results.append(int((order == sample["label"]).nonzero()))

    def compute_metrics(self, results: list[int]) -> dict[str, float]:
        """Count ranks.

        Args:
            results: for each image, how many classes are ahead of its own.

        Returns:
            ``top1``, ``top5``, ... in percent.
        """
        ranks = torch.tensor(results)
        return {f"top{k}": float((ranks < k).double().mean() * 100) for k in self.topk}
