"""ImageClassifier, for pretraining a backbone."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import Tensor, nn

from .plus import AUX_PARTS, add_auxiliary_heads, auxiliary_logits

_MIXES = ("MixUp", "CutMix")


@MODELS.register_module(force=True)
class ImageClassifier(BaseModel):
    """RepVGG, global average pooling and one linear layer, trained with cross-entropy.

    Args:
        backbone: config of a RepVGG.
        num_classes: number of classes K.
        aux_weight: weight of each auxiliary head's loss; above 0 a RepVGGplus gets its heads.
        label_smoothing: share of the target that is spread evenly over all classes.
        mix: ``MixUp`` or ``CutMix`` of ``torchvision.transforms.v2`` as dicts, ``dict(type='MixUp', alpha=0.2)``; with
            several, each training batch gets one of them by chance.
        data_preprocessor: config; by default images pass as they are.
        init_cfg: initialisation of mmengine.

    Raises:
        ValueError: if a mix is unknown, or auxiliary heads are asked for on a backbone that has none.

    Source:
        RepVGG paper, section 3.4 (arXiv:2101.03697).

    Example:
        >>> import torch
        >>> from repvgg_mm import ImageClassifier
        >>> model = ImageClassifier(dict(type="RepVGG", arch="A0"), num_classes=10)
        >>> list(model(torch.rand(2, 3, 64, 96), torch.tensor([3, 5]), mode="loss"))
        ['loss_ce', 'accuracy']
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        num_classes: int,
        aux_weight: float = 0.0,
        label_smoothing: float = 0.0,
        mix: Sequence[Mapping[str, Any]] = (),
        data_preprocessor: dict[str, Any] | nn.Module | None = None,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.aux_weight = aux_weight
        self.label_smoothing = label_smoothing
        self.mix = _build_mix(mix, num_classes)
        self.backbone = MODELS.build(dict(backbone))
        self.linear = nn.Linear(self.backbone.arch.stage_channels[-1], num_classes)
        if aux_weight and not backbone.get("deploy"):
            add_auxiliary_heads(self, self.backbone.arch, num_classes)

    def forward(self, inputs: Tensor, data_samples: Tensor | Sequence[int] | None = None, mode: str = "tensor") -> Any:
        """Classify a batch.

        Args:
            inputs: preprocessed images, shape (N, 3, H, W).
            data_samples: class indices, shape (N,), or a list of them, as mmengine's default collates; needed for
                ``mode='loss'``.
            mode: ``'tensor'``, ``'loss'`` or ``'predict'``.

        Returns:
            Logits (N, K); or a dict with the losses and the batch accuracy in percent; or one dict an image with its
            ``scores`` (K,) and, if known, its ``label``.

        Raises:
            ValueError: if the mode is unknown, or the loss is asked for without labels.
        """
        labels = None if data_samples is None else torch.as_tensor(data_samples, device=inputs.device)
        if mode == "loss" and labels is not None:
            return self._losses(inputs, labels)
        if mode not in ("tensor", "predict"):
            given = "without" if labels is None else "with"
            raise ValueError(f"mode={mode!r} {given} labels: choose 'tensor', 'predict', or 'loss' with labels")
        logits = self._classify(self.backbone(inputs)[-1])
        if mode == "tensor":
            return logits
        known = [None] * len(logits) if labels is None else labels.tolist()
        # In half precision near classes would tie
        scores = logits.softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32))
        return [{"scores": row, "label": label} for row, label in zip(scores, known, strict=True)]

    def _classify(self, features: Tensor) -> Tensor:
        return self.linear(features.mean(dim=(2, 3)))

    def _losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the losses; and the accuracy, unless images are mixed: then none has one class."""
        targets = labels
        if self.mix is not None:
            images, targets = self.mix(images, labels)  # targets (N, K)
        maps = self.backbone.forward_parts(images, [*AUX_PARTS, "stage4"])
        logits = self._classify(maps["stage4"])
        losses = {"loss_ce": self._cross_entropy(logits, targets)}
        for name, auxiliary in auxiliary_logits(self, maps).items():
            losses[f"loss_{name}"] = self.aux_weight * self._cross_entropy(auxiliary, targets)
        if self.mix is None:
            losses["accuracy"] = (logits.detach().argmax(1) == labels).float().mean() * 100
        return losses

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)


def _build_mix(mix: Sequence[Mapping[str, Any]], num_classes: int) -> nn.Module | None:
    from torchvision.transforms import v2

    choices = []
    for step in mix:
        if step.get("type") not in _MIXES:
            raise ValueError(f"mix type={step.get('type')!r} is unknown: choose {' or '.join(_MIXES)}")
        arguments = {name: value for name, value in step.items() if name != "type"}
        choices.append(getattr(v2, step["type"])(num_classes=num_classes, **arguments))
    return v2.RandomChoice(choices) if choices else None
