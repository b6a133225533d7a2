"""Transforms of classified images: resized by Pillow, in training, testing, `infer` and exported files alike."""

from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from repvgg_mm.data.transforms import build_transforms
from repvgg_mm.export.preparation import Prepare, read_preparation
from repvgg_mm.inference.predictors import Classifier

STEPS: list[dict[str, Any]] = [{"type": "Resize", "size": 44}, {"type": "CenterCrop", "size": 40}]


@pytest.fixture
def image() -> Tensor:
    """A smooth photo: on noise few values would lie on the edge between two levels."""
    coarse = torch.rand(3, 12, 9, generator=torch.Generator().manual_seed(0))
    return (v2.functional.resize(coarse, [131, 97]) * 255).byte()


def by_pillow(image: Tensor, *steps: Any) -> Tensor:
    made: Tensor = v2.Compose([v2.ToPILImage(), *steps, v2.PILToTensor()])(image)
    return made


def test_images_are_resized_as_pillow_does_it(image: Tensor) -> None:
    made = build_transforms(STEPS)(image)
    torch.testing.assert_close(
        made.as_subclass(Tensor), by_pillow(image, v2.Resize(44), v2.CenterCrop(40)), rtol=0, atol=0
    )
    assert not torch.equal(made, v2.Compose([v2.Resize(44), v2.CenterCrop(40)])(image))


def test_without_antialiasing_tensors_are_resized(image: Tensor) -> None:
    step = {"size": 44, "antialias": False}
    made = build_transforms([{"type": "Resize", **step}])(image)
    torch.testing.assert_close(made.as_subclass(Tensor), v2.Resize(**step)(image), rtol=0, atol=0)
    assert not torch.equal(made, by_pillow(image, v2.Resize(44)))


def test_what_is_no_byte_any_more_stays_what_it_is(image: Tensor) -> None:
    made = build_transforms([{"type": "ConvertImageDtype"}, {"type": "Resize", "size": 44}])(image)
    torch.testing.assert_close(made.as_subclass(Tensor), v2.Resize(44)(image / 255))
    given = build_transforms([{"type": "ToPILImage"}, {"type": "Resize", "size": 44}])(image)
    torch.testing.assert_close(given.as_subclass(Tensor), by_pillow(image, v2.Resize(44)), rtol=0, atol=0)


def test_testing_infer_and_exported_files_prepare_the_same_bytes(image: Tensor) -> None:
    model = {
        "type": "ImageClassifier",
        "num_classes": 3,
        "data_preprocessor": {"type": "ImgDataPreprocessor"},
        "backbone": {"type": "RepVGG", "arch": {"num_blocks": (1, 1, 1, 1), "width_multiplier": (0.125,) * 4}},
    }
    cfg = Config({"model": model, "test_dataloader": {"dataset": {"type": "ImageFolder", "transforms": STEPS}}})
    tested = build_transforms(STEPS)(image)
    pixels = image.permute(1, 2, 0).contiguous()
    in_file, _ = Prepare(read_preparation(cfg))(pixels)
    torch.testing.assert_close(in_file[0], tested.as_subclass(Tensor).float(), rtol=0, atol=0)

    predictor = Classifier(cfg, ("ant", "bee", "cow"), [(0, 0, 0)] * 3)
    seen: list[Tensor] = []
    predictor.model.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    predictor.answer(np.array(Image.fromarray(pixels.numpy())))
    torch.testing.assert_close(seen[0][0], in_file[0], rtol=0, atol=0)


def test_a_typo_gets_the_nearest_name() -> None:
    with pytest.raises(ValueError, match=r"transform type='Resise' is unknown.*Resize"):
        build_transforms([{"type": "Resise", "size": 8}])
