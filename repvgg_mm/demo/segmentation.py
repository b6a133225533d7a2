"""The first act: PSPNet, finetuned on two processes."""

from typing import Any

import numpy as np
import torch

from ..convert.model_pair import ModelPair
from ..reparam.difference import by_branches, fixed_input
from ..report import Example
from .act import Act, Metric
from .measure import Sights, predict, time_both

_EXAMPLES = 6


def look(pair: ModelPair, batch: dict[str, Any]) -> Sights:
    """Predict the first images with both forms and time them.

    Args:
        pair: both forms of a segmentor.
        batch: of its test data.

    Returns:
        Pictures and times.
    """
    x = fixed_input((1, 3, 128, 128))
    with torch.inference_mode(), by_branches(pair.train):
        before, after = (predict(model, batch, _EXAMPLES) for model in (pair.train, pair.deploy))
        latency = time_both(lambda: pair.train(x, mode="tensor"), lambda: pair.deploy(x, mode="tensor"))
    examples = [
        Example(
            image=np.ascontiguousarray(image.permute(1, 2, 0).numpy()[..., ::-1]),  # BGR -> RGB
            truth=sample.gt_sem_seg.data[0].numpy(),
            before=first.pred_sem_seg.data[0].numpy(),
            after=second.pred_sem_seg.data[0].numpy(),
        )
        for image, sample, first, second in zip(batch["inputs"], batch["data_samples"], before, after, strict=False)
    ]
    return Sights({"one 128 x 128 image": latency}, examples=examples)


SEGMENTATION = Act(
    command="make demo",
    config="configs/pspnet_repvgg_digits.py",
    processes=2,
    finetuning="finetune PSPNet on two processes",
    metrics=(Metric("mIoU", "mIoU on held-out digits", floor=65, tolerance=0.01, digits=2),),
    metric_step="iteration",
    outputs="output",
    look=look,
)
