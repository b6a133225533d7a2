"""Pretraining from the ImageNet configs: what a step computes, and a killed run that goes on as if it had not been."""

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import SMALL_ARCH, image
from mmengine.hooks import Hook
from mmengine.registry import MODELS
from mmengine.runner import Runner
from PIL import Image
from torch import nn
from torch.utils.data import default_collate
from torchvision.transforms import v2

import repvgg_mm  # noqa: F401 (registers)
from repvgg_mm.archs import ARCHS, resolve_arch
from repvgg_mm.engine.config import load_config
from repvgg_mm.engine.testing import build_test_runner

CONFIGS = Path(__file__).parents[2] / "configs"
HEAVY = ("B2", "B2g2", "B2g4", "B3", "B3g2", "B3g4", "D2se")
RECIPES = {
    **{f"repvgg_{arch.lower()}_imagenet.py": arch for arch in ARCHS if not ARCHS[arch].plus},
    **{f"repvgg_{arch.lower()}_200e_imagenet.py": arch for arch in HEAVY},
    "repvggplus_l2pse_imagenet.py": "plus-L2pse",
    "repvgg_a0_qa_imagenet.py": "A0-qa",
}
CLASSES = ("ant", "bee", "cow")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set as ImageNet's: 6 training images and 2 validation images in each of 3 classes."""
    folder, random = tmp_path_factory.mktemp("imagenet"), np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (40, 56, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


class Losses(Hook):
    """Keeps every iteration's loss and learning rate; kills the run in the middle of an epoch if asked to."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.kill_at = kill_at
        self.values: dict[int, tuple[float, float]] = {}

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter == self.kill_at:
            raise KeyboardInterrupt

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.values[runner.iter] = (outputs["loss"].item(), runner.optim_wrapper.get_lr()["lr"][0])


def make_runner(
    root: Path, work_dir: Path, config: str, workers: int = 0, options: dict[str, Any] | None = None
) -> Runner:
    """The runner of an ImageNet config, shrunk: a small arch, 64 px, 18 images, 2 epochs."""
    arch = {"num_blocks": (1, 1, 2, 1), "width_multiplier": (0.125,) * 4}
    plus = {"se": "post", "plus": True} if "plus" in config else {}
    cfg = load_config(str(CONFIGS / config), str(work_dir), {"data_root": str(root), "model.num_classes": 3})
    cfg.model.backbone.arch = {**arch, **plus}
    cfg.train_cfg.max_epochs = 2
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(batch_size=3, num_workers=workers, persistent_workers=workers > 0, pin_memory=False)
        for step in loader.dataset.transforms:
            if "size" in step:
                step.size = 64
    cfg.merge_from_dict(options or {})
    cfg.experiment_name = work_dir.name
    return Runner.from_cfg(cfg)


def train(runner: Runner, kill_at: int | None = None) -> dict[int, tuple[float, float]]:
    losses = Losses(kill_at)
    runner.register_hook(losses, "LOWEST")
    try:
        runner.train()
    except KeyboardInterrupt:
        assert kill_at is not None
    return losses.values


@pytest.mark.parametrize(
    ("config", "workers", "options"),
    [
        ("repvgg_b2_200e_imagenet.py", 0, {}),
        ("repvgg_b2_200e_imagenet.py", 1, {}),
        (
            "repvggplus_l2pse_imagenet.py",
            1,
            {"optim_wrapper.accumulative_counts": 2, "model.backbone.with_cp": True, "custom_hooks.1.momentum": 0.1},
        ),
    ],
)
def test_killed_and_resumed_run_repeats_the_whole_one(
    root: Path, tmp_path: Path, config: str, workers: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # mmengine 0.10.7 reads its own checkpoints in a way that torch refuses since 2.6; the maintained release does not.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    whole = train(make_runner(root, tmp_path / "whole", config, workers, options))
    assert len(whole) == len(set(whole.values())) == 12
    before = train(make_runner(root, tmp_path / "killed", config, workers, options), kill_at=8)
    after = train(make_runner(root, tmp_path / "killed", config, workers, {**options, "resume": True}))
    assert list(before) == list(range(8)) and list(after) == list(range(6, 12))
    assert {**before, **after} == whole
    saved = [
        torch.load(tmp_path / run / "epoch_2.pth", weights_only=False)["state_dict"] for run in ("whole", "killed")
    ]
    torch.testing.assert_close(*saved, rtol=0, atol=0)


def test_checkpoint_stores_the_classes_and_the_averaged_weights(root: Path, tmp_path: Path) -> None:
    options = {"train_cfg.max_epochs": 1, "custom_hooks.1.momentum": 0.1}
    runner = make_runner(root, tmp_path, "repvggplus_l2pse_imagenet.py", options=options)
    train(runner)
    checkpoint = torch.load(tmp_path / "epoch_1.pth", weights_only=False)
    assert checkpoint["meta"]["dataset_meta"] == {"classes": CLASSES}
    averaged, last = checkpoint["state_dict"], checkpoint["ema_state_dict"]
    key = "backbone.stage3_second.blocks.0.rbr_dense.conv.weight"
    assert not torch.equal(averaged[key], last[f"module.{key}"])
    torch.testing.assert_close(last[f"module.{key}"], dict(runner.model.named_parameters())[key].data, rtol=0, atol=0)


def test_validation_counts_every_readable_image_once(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "data")
    (tmp_path / "data/val/ant/1.png").write_bytes(b"no image")
    options = {"test_dataloader.dataset.broken": "skip"}
    runner = make_runner(tmp_path / "data", tmp_path / "run", "repvgg_d2se_imagenet.py", options=options)
    metrics = runner.test()
    samples = [sample for sample in runner.test_dataloader.dataset if sample is not None]
    assert [sample["data_samples"] for sample in samples] == [0, 1, 1, 2, 2]
    model, batch = runner.model.eval(), default_collate(samples)
    with torch.no_grad():
        best = model(model.data_preprocessor(batch)["inputs"]).argmax(1)
    right = sum(int(guess) == sample["data_samples"] for guess, sample in zip(best, samples, strict=True))
    assert metrics["accuracy/top1"] == pytest.approx(100 * right / 5) and metrics["accuracy/top5"] == 100


def test_testing_on_classes_in_another_order_is_refused(root: Path, tmp_path: Path) -> None:
    train(make_runner(root, tmp_path, "repvgg_a0_imagenet.py", options={"train_cfg.max_epochs": 1}))
    config, checkpoint = str(tmp_path / "repvgg_a0_imagenet.py"), str(tmp_path / "epoch_1.pth")
    build_test_runner(config, checkpoint, work_dir=str(tmp_path / "test"))
    (root / "turned.txt").write_text("ant\ncow\nbee\n")
    options = {"test_dataloader.dataset.classes": "turned.txt"}
    with pytest.raises(ValueError, match="class 1 = 'bee'; in the data it is 'cow'"):
        build_test_runner(config, checkpoint, work_dir=str(tmp_path / "test"), options=options)


def test_there_is_a_recipe_for_every_arch() -> None:
    assert {path.name for path in CONFIGS.glob("*_imagenet.py")} == set(RECIPES)
    assert set(RECIPES.values()) >= set(ARCHS)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe(name: str) -> None:
    cfg, plus = load_config(str(CONFIGS / name)), "plus" in name
    assert (CONFIGS / name).read_text().startswith(f"# tools/dist_train.sh configs/{name} 8\n")
    assert resolve_arch(cfg.model.backbone.arch) == resolve_arch(RECIPES[name])
    epochs = 300 if plus else 200 if "200e" in name else 120
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler[-1].get("end", epochs)) == (epochs, epochs)
    assert cfg.optim_wrapper.optimizer.weight_decay == (4e-5 if plus else 1e-4)
    assert cfg.train_dataloader.batch_size == 32 and cfg.optim_wrapper.optimizer.lr == 0.1
    crop, augmentation = cfg.train_dataloader.dataset.transforms[0], cfg.train_dataloader.dataset.transforms[2:]
    assert crop == {"type": "RandomResizedCrop", "size": 256 if plus else 224}
    augmentations = {120: [], 200: ["AutoAugment"], 300: ["RandAugment"]}
    assert [step.type for step in augmentation] == augmentations[epochs]
    assert bool(cfg.model.get("mix")) == bool(cfg.model.get("label_smoothing")) == (epochs > 120)
    assert cfg.test_dataloader.dataset.transforms[1].size == (320 if plus or "d2se" in name else 224)


def classifier(**arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    backbone = {"type": "RepVGG", "arch": SMALL_ARCH}
    return MODELS.build({"type": "ImageClassifier", "num_classes": 5, "backbone": backbone, **arguments}).train()


def seen_by(model: nn.Module) -> list[torch.Tensor]:
    """Collects what the stem of a model is given."""
    images: list[torch.Tensor] = []
    model.backbone.stage0.register_forward_pre_hook(lambda _, inputs: images.append(inputs[0].detach().clone()))
    return images


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixup_mixes_images_and_losses_alike(smoothing: float) -> None:
    model = classifier(mix=[{"type": "MixUp", "alpha": 5.0}], label_smoothing=smoothing)
    twin, images = copy.deepcopy(model), seen_by(model)
    x, labels = image(4, 3, 64, 96), torch.tensor([0, 4, 2, 2])
    losses = model(x, labels, mode="loss")
    (mixed,) = images
    share = float((mixed[0, 0, 0, 0] - x[3, 0, 0, 0]) / (x[0, 0, 0, 0] - x[3, 0, 0, 0]))
    assert 0.02 < share < 0.98
    torch.testing.assert_close(mixed, share * x + (1 - share) * x.roll(1, 0), rtol=1e-4, atol=1e-4)
    logits = twin(mixed)
    own, other = (nn.functional.cross_entropy(logits, y, label_smoothing=smoothing) for y in (labels, labels.roll(1)))
    assert list(losses) == ["loss_ce"]  # no image has one class, so there is no accuracy
    torch.testing.assert_close(losses["loss_ce"], share * own + (1 - share) * other, rtol=1e-4, atol=1e-4)


def test_several_mixes_take_turns_by_chance() -> None:
    model = classifier(mix=[{"type": "MixUp", "alpha": 5.0}, {"type": "CutMix", "alpha": 5.0}])
    assert isinstance(model.mix.transforms[1], v2.CutMix)
    images, x, labels = seen_by(model), image(2, 3, 64, 96), torch.tensor([0, 1])
    for _ in range(12):
        model(x, labels, mode="loss")
    cut = {bool(((mixed == x) | (mixed == x.roll(1, 0))).all()) for mixed in images}
    assert cut == {True, False}


def test_without_mixing_the_accuracy_is_reported() -> None:
    model, x = classifier(label_smoothing=0.1), image(4, 3, 64, 96)
    logits = copy.deepcopy(model)(x)
    labels = logits.argmax(1).where(torch.tensor([True, True, True, False]), logits.argmin(1))
    losses = model(x, labels, mode="loss")
    assert float(losses["accuracy"]) == 75.0
    torch.testing.assert_close(losses["loss_ce"], nn.functional.cross_entropy(logits, labels, label_smoothing=0.1))


@pytest.mark.parametrize("kind", ["Mixup", "RandomErasing", None])
def test_unknown_mixes_are_named(kind: str | None) -> None:
    with pytest.raises(ValueError, match="MixUp or CutMix"):
        classifier(mix=[{"type": kind}])
