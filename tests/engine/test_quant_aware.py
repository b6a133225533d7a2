"""Training with rounded numbers by config: from a finished training, resumed, averaged, on several processes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from command_lines import losses
from export_small import save_small
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmseg.structures import SegDataSample
from torch.utils.data import DataLoader, Dataset
from training_runs import ITERATIONS, finish, start_processes, train, write_config

from repvgg_mm.checkpoint import CheckpointError
from repvgg_mm.checkpoint.rounded import trained_layers
from repvgg_mm.engine.gate import open_model
from repvgg_mm.engine.mixed_precision import BFloat16OptimWrapper
from repvgg_mm.engine.quant_aware import QuantAwareTraining
from repvgg_mm.engine.start import check_start
from repvgg_mm.engine.testing import build_test_runner
from repvgg_mm.quantization.fake_layers import rounded_layers
from repvgg_mm.quantization.fake_ranges import layers_in_use

HOOK = 'dict(type="QuantAwareTraining", images=20)'
ROUNDED = f"""
custom_hooks = [dict(type="ReplaySeedHook"), {HOOK}, dict(type="EMAHook", momentum=0.1)]
default_hooks = dict(checkpoint=dict(interval=2, max_keep_ckpts=-1))
model = dict(backbone=dict(frozen_stages=0, with_cp=True))
train_cfg = dict(max_iters=4, val_interval=4)
"""


@pytest.fixture(scope="module")
def runs(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training in ``float``, and one with rounded numbers that goes on from it in ``whole``."""
    folder = tmp_path_factory.mktemp("quant_aware")
    plain = write_config(folder, digits, ITERATIONS, "train_cfg = dict(max_iters=2)\n")
    assert train(plain, folder / "float").code == 0
    rounded = write_config(
        folder / "rounded", digits, ITERATIONS, ROUNDED, f'load_from = "{folder}/float/iter_2.pth"\n'
    )
    done = train(rounded, folder / "whole")
    assert done.code == 0, done.err
    return folder


def weights(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=False)["state_dict"]


def test_a_checkpoint_holds_the_ranges_and_is_tested_with_rounded_numbers(runs: Path) -> None:
    before, after = weights(runs / "float/iter_2.pth"), weights(runs / "whole/iter_4.pth")
    layers = trained_layers(after)
    assert layers == [f"backbone.{name}" for name in ("stage0", "stage1.0", "stage2.0", "stage3.0", "stage4.0")] + [
        "linear"
    ]
    assert set(after) == set(before) | {f"{name}.input_end" for name in layers}
    for name, tensor in before.items():
        if "running" in name or "num_batches" in name or name.startswith("backbone.stage0."):
            torch.testing.assert_close(after[name], tensor, rtol=0, atol=0)  # fixed, and frozen
    assert not torch.equal(
        after["backbone.stage1.0.rbr_1x1.conv.weight"], before["backbone.stage1.0.rbr_1x1.conv.weight"]
    )
    runner = build_test_runner(None, str(runs / "whole/iter_4.pth"), deploy=True, work_dir=str(runs / "test"))
    assert list(rounded_layers(runner.model)) == layers
    assert all(layer.rounding and layer.input_end > 0 for layer in rounded_layers(runner.model).values())


def test_a_resumed_run_goes_on_with_the_same_losses_and_ranges(runs: Path) -> None:
    done = train(runs / "rounded/part2.py", runs / "again", "--resume", str(runs / "whole/iter_2.pth"))
    assert done.code == 0, done.err
    whole, again = losses(runs / "whole"), losses(runs / "again")
    assert again == {step: whole[step] for step in (3, 4)}
    torch.testing.assert_close(weights(runs / "again/iter_4.pth"), weights(runs / "whole/iter_4.pth"), rtol=0, atol=0)


def test_two_processes(runs: Path, digits: Path) -> None:
    ends = finish(start_processes(runs / "rounded/part2.py", runs / "two", digits))
    assert [end.code for end in ends] == [0, 0], ends
    one, two = weights(runs / "whole/iter_4.pth"), weights(runs / "two/iter_4.pth")
    for name in trained_layers(one):  # chosen from the same images
        torch.testing.assert_close(one[f"{name}.input_end"], two[f"{name}.input_end"])


def cfg(**more: Any) -> Config:
    model = {"type": "ImageClassifier", "backbone": {"type": "RepVGG"}}
    return Config({"custom_hooks": [{"type": "QuantAwareTraining"}], "model": model, **more})


def test_what_it_can_t_start_from_is_refused_by_name(runs: Path, tmp_path: Path) -> None:
    plain, rounded = str(runs / "float/iter_2.pth"), str(runs / "whole/iter_4.pth")
    check_start(cfg(load_from=plain))
    check_start(cfg(load_from=rounded, resume=True))
    with pytest.raises(ValueError, match="goes on from a finished training: set load_from"):
        check_start(cfg())
    with pytest.raises(ValueError, match="leave deploy=True out"):
        check_start(cfg(load_from=plain, model={"backbone": {"deploy": True}}))
    with pytest.raises(ValueError, match="'BFloat16OptimWrapper' rounds once more"):
        check_start(cfg(load_from=plain, optim_wrapper={"type": "BFloat16OptimWrapper"}))
    with pytest.raises(CheckpointError, match="rounded numbers already: go on from it with resume=True"):
        check_start(cfg(load_from=rounded))
    with pytest.raises(CheckpointError, match="without QuantAwareTraining: start from its weights with load_from"):
        check_start(cfg(load_from=plain, resume=True))
    with pytest.raises(CheckpointError, match="go on with custom_hooks"):
        check_start(cfg(load_from=rounded, resume=True, custom_hooks=[]))
    torch.save(
        {"stage0.rbr_reparam.weight": torch.ones(1), "stage0.rbr_reparam.bias": torch.ones(1)}, tmp_path / "d.pth"
    )
    with pytest.raises(CheckpointError, match="is deployed: QuantAwareTraining needs the three branches"):
        check_start(cfg(load_from=str(tmp_path / "d.pth")))


@pytest.mark.parametrize(
    "images, message", [("100", "images=100, but there are 40 training images"), ("0", "images=0")]
)
def test_images_that_are_not_there_are_one_line(runs: Path, tmp_path: Path, images: str, message: str) -> None:
    done = train(runs / "rounded/part2.py", tmp_path / "work", options=[f"custom_hooks.1.images={images}"])
    assert (done.code, done.err.count("error:")) == (2, 1) and message in done.err
    assert not list((tmp_path / "work").glob("*.pth"))


def test_hooks_and_wrappers_are_known_by_any_name(runs: Path) -> None:
    """By class, with a scope, and among the default hooks."""
    for hook in (QuantAwareTraining, "repvgg_mm.QuantAwareTraining"):
        with pytest.raises(ValueError, match="goes on from a finished training"):
            check_start(cfg(custom_hooks=[{"type": hook}]))
        with pytest.raises(ValueError, match="goes on from a finished training"):
            check_start(cfg(custom_hooks=[], default_hooks={"rounding": {"type": hook}}))
    for wrapper in (BFloat16OptimWrapper, "mmengine.optim.AmpOptimWrapper", "ApexOptimWrapper"):
        with pytest.raises(ValueError, match="rounds once more"):
            check_start(cfg(load_from=str(runs / "float/iter_2.pth"), optim_wrapper={"type": wrapper}))


BATCH = {"model.data_preprocessor.batch_augments": [{"type": "BatchSyncRandomResize", "random_size_range": (64, 96)}]}


@pytest.mark.parametrize(
    "config, options, sample",
    [("pspnet_repvgg_a0_camvid", {}, SegDataSample), ("fcos_repvgg_a2_coco", BATCH, DetDataSample)],
)
def test_images_are_looked_at_one_by_one(config: str, options: dict[str, Any], sample: Any, tmp_path: Path) -> None:
    """Crops differ in size, and what a training does to batches asks for an iteration that has not begun."""
    model = open_model(save_small(config, tmp_path / "small.pth", **options)).build()
    sizes = [(64, 80), (48, 96)]

    class Crops(Dataset[Any]):
        def __len__(self) -> int:
            return len(sizes)

        def __getitem__(self, draw: int) -> dict[str, Any]:
            about = sample(metainfo={"img_shape": sizes[draw]})
            return {"inputs": torch.full((3, *sizes[draw]), 100, dtype=torch.uint8), "data_samples": about}

    loader = DataLoader(Crops(), batch_size=2, collate_fn=pseudo_collate)
    runner = SimpleNamespace(train_loop=SimpleNamespace(dataloader=loader), seed=0)
    runs = QuantAwareTraining(images=2)._runs(runner, model)
    assert len(runs) == 2 and all(layers_in_use(model, run) for run in runs)
