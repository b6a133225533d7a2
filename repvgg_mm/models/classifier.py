"""ImageClassifier, for pretraining a backbone."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class ImageClassifier(BaseModel):
    """Backbone, global average pooling and one linear layer, trained with cross-entropy.

    Args:
        backbone: config of a backbone whose last output is the feature map to pool.
        num_classes: number of classes K.
        data_preprocessor: config; by default images pass as they are.
        init_cfg: initialisation of mmengine.

    Source:
        RepVGG paper, section 3.4 (arXiv:2101.03697).
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        num_classes: int,
        data_preprocessor: dict[str, Any] | nn.Module | None = None,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        """Build backbone and linear layer; see the class."""
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = MODELS.build(dict(backbone))
        self.linear = nn.Linear(self.backbone.arch.stage_channels[-1], num_classes)

    def forward(self, inputs: Tensor, data_samples: Tensor | None = None, mode: str = "tensor") -> Any:
        """Classify a batch.

        Args:
            inputs: preprocessed images, shape (N, 3, H, W).
            data_samples: class indices, shape (N,); needed for ``mode='loss'``.
            mode: ``'tensor'``, ``'loss'`` or ``'predict'``.

        Returns:
            Logits (N, K); or a dict with the loss and the batch accuracy in percent; or one dict an image with its
            ``scores`` (K,) and, if known, its ``label``.

        Raises:
            ValueError: if the mode is unknown, or the loss is asked for without labels.
        """
        logits = self.linear(self.backbone(inputs)[-1].mean(dim=(2, 3)))
        if mode == "tensor":
            return logits
        if mode == "predict":
            known = [None] * len(logits) if data_samples is None else data_samples.tolist()
            return [{"scores": row, "label": label} for row, label in zip(logits.softmax(1), known, strict=True)]
        if mode != "loss" or data_samples is None:
            given = "without" if data_samples is None else "with"
            raise ValueError(f"mode={mode!r} {given} labels: choose 'tensor', 'predict', or 'loss' with labels")
        correct = (logits.detach().argmax(1) == data_samples).float().mean() * 100
        return {"loss": F.cross_entropy(logits, data_samples), "accuracy": correct}
