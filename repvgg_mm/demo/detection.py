"""The second act: Mask R-CNN finds boxes and masks of the same digits."""

from typing import Any

import numpy as np
import torch

from ..convert.model_pair import ModelPair
from ..reparam.difference import by_branches, fixed_input
from ..report import DetectionExample, Objects
from .act import Act, Metric
from .measure import Sights, predict, time_both

_EXAMPLES = 6
_SURE = 0.5  # objects with less score are not drawn


def look(pair: ModelPair, batch: dict[str, Any]) -> Sights:
    """Find the objects of the first images with both forms, and time them, the backbone alone as well.

    Args:
        pair: both forms of a detector with masks.
        batch: of its test data.

    Returns:
        Pictures and times.
    """
    x = fixed_input((1, 3, 128, 128))
    backbones = [model.get_submodule("backbone") for model in (pair.train, pair.deploy)]
    truths = [_truth(sample.gt_instances) for sample in batch["data_samples"][:_EXAMPLES]]
    with torch.inference_mode(), by_branches(pair.train):
        before, after = (predict(model, batch, _EXAMPLES) for model in (pair.train, pair.deploy))
        latencies = {
            "one 128 x 128 image": time_both(
                lambda: predict(pair.train, batch, 1), lambda: predict(pair.deploy, batch, 1)
            ),
            "its backbone": time_both(lambda: backbones[0](x), lambda: backbones[1](x)),
        }
    detections = [
        DetectionExample(
            image=np.ascontiguousarray(image.permute(1, 2, 0).numpy()[..., ::-1]),  # BGR -> RGB
            truth=truth,
            before=_found(first.pred_instances),
            after=_found(second.pred_instances),
        )
        for image, truth, first, second in zip(batch["inputs"], truths, before, after, strict=False)
    ]
    return Sights(latencies, detections=detections)


def _truth(instances: Any) -> Objects:
    """Take over what the data set says; mmdet wraps its boxes."""
    boxes = getattr(instances.bboxes, "tensor", instances.bboxes)
    return Objects(boxes.numpy(), instances.labels.numpy(), masks=instances.masks.masks.astype(bool))


def _found(instances: Any) -> Objects:
    """Take over what a model is sure of."""
    sure = instances[instances.scores >= _SURE]
    return Objects(sure.bboxes.numpy(), sure.labels.numpy(), sure.scores.numpy(), sure.masks.numpy())


DETECTION = Act(
    command="make demo-detection",
    config="configs/mask_rcnn_repvgg_digits.py",
    processes=2,
    finetuning="finetune Mask R-CNN on two processes",
    metrics=(
        Metric("coco/bbox_mAP", "bbox mAP on held-out digits", floor=0.4, tolerance=0.002, digits=3),
        Metric("coco/segm_mAP", "mask mAP on held-out digits", floor=0.4, tolerance=0.002, digits=3),
    ),
    metric_step="epoch",
    outputs="output",
    look=look,
)
