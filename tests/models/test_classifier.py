from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import SMALL_ARCH, image
from mmengine.registry import MODELS

from repvgg_mm import ImageClassifier, RepVGG
from repvgg_mm.engine import TopKAccuracy


def build() -> ImageClassifier:
    torch.manual_seed(0)
    return MODELS.build(
        {"type": "ImageClassifier", "num_classes": 5, "backbone": {"type": "RepVGG", "arch": SMALL_ARCH}}
    )


@pytest.mark.parametrize("collate", [torch.tensor, list])
def test_modes(collate: Callable[[list[int]], Any]) -> None:
    model, x, labels = build().eval(), image(3, 3, 64, 96), collate([0, 4, 2])
    logits = model(x)
    assert logits.shape == (3, 5)
    losses = model(x, labels, mode="loss")
    torch.testing.assert_close(losses["loss_ce"], torch.nn.functional.cross_entropy(logits, torch.tensor([0, 4, 2])))
    predictions = model(x, labels, mode="predict")
    torch.testing.assert_close(torch.stack([p["scores"] for p in predictions]), logits.softmax(1))
    assert [p["label"] for p in predictions] == [0, 4, 2]


@pytest.mark.parametrize("mode", ["loss", "train"])
def test_wrong_mode(mode: str) -> None:
    with pytest.raises(ValueError, match=f"mode='{mode}' without labels: choose"):
        build()(image(1, 3, 64, 64), mode=mode)


def test_its_checkpoint_is_a_pretrained_backbone(tmp_path) -> None:
    model = build()
    torch.save({"state_dict": model.state_dict(), "meta": {}}, tmp_path / "classifier.pth")
    backbone = RepVGG(SMALL_ARCH, init_cfg={"type": "Pretrained", "checkpoint": str(tmp_path / "classifier.pth")})
    backbone.init_weights()
    torch.testing.assert_close(backbone.state_dict(), model.backbone.state_dict(), rtol=0, atol=0)


def test_topk_accuracy() -> None:
    metric = TopKAccuracy(topk=(1, 2))
    scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3], [0.1, 0.2, 0.7]])
    metric.process(None, [{"scores": row, "label": label} for row, label in zip(scores, [1, 2, 0], strict=True)])
    torch.testing.assert_close(metric.evaluate(3), {"accuracy/top1": 100 / 3, "accuracy/top2": 200 / 3})


def test_a_model_that_always_says_the_same_is_not_right() -> None:
    """Nor is one whose scores are not finite."""
    metric = TopKAccuracy(topk=(1, 2))
    for scores in (torch.full((4,), 0.25), torch.full((4,), torch.nan)):
        metric.process(None, [{"scores": scores, "label": label} for label in range(4)])
        torch.testing.assert_close(metric.evaluate(4), {"accuracy/top1": 25.0, "accuracy/top2": 50.0})
