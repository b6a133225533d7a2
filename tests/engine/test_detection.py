"""Every config builds; detectors train, test and convert, on ordinary and on odd images."""

import json
import pickle
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mmengine
import numpy as np
import pytest
import torch
from helpers import SMALL_ARCH
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from PIL import Image
from torch import Tensor

from repvgg_mm.checkpoint import find_state_dict, load_checkpoint
from repvgg_mm.convert.convert_checkpoint import convert_checkpoint, same_bits, write_conversion
from repvgg_mm.data.sampling import Draw
from repvgg_mm.inference.predictors import build_predictor
from repvgg_mm.reparam.difference import by_branches

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ALL = sorted(path.stem for path in CONFIGS.glob("*.py"))
DIGITS = [name for name in ALL if name.endswith("_digits")]


def load(name: str, work_dir: Path) -> Config:
    """Read a config, without pretrained weights and quiet."""
    cfg = Config.fromfile(CONFIGS / f"{name}.py")
    cfg.work_dir, cfg.launcher = str(work_dir), "none"
    cfg.model.backbone.init_cfg = None
    cfg.model.pop("mix", None)  # draws from a distribution that the meta device lacks
    cfg.log_level = "ERROR"
    cfg.env_cfg.mp_cfg.opencv_num_threads = 1
    return cfg


def one_step(cfg: Config) -> Config:
    """Shorten training to one pass over the (small) data, followed by validation."""
    if cfg.train_cfg.type == "EpochBasedTrainLoop":
        cfg.train_cfg.update(max_epochs=1, val_interval=1)
    else:
        cfg.train_cfg.update(max_iters=1, val_interval=1)
        cfg.default_hooks.checkpoint.interval = 1
    cfg.param_scheduler = []
    return cfg


# --- every config -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_config_builds_a_model_whose_parts_fit(name: str, tmp_path: Path) -> None:
    cfg = load(name, tmp_path)
    init_default_scope(cfg.default_scope)
    with torch.device("meta"):  # shapes without numbers: the largest models take no time
        model = MODELS.build(cfg.model)
        image = torch.empty(2, 3, 128, 192)
        with by_branches(model):
            outputs = forward_parts(model, image)
    assert outputs
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        if "pipeline" in loader.dataset:
            assert len(Compose(loader.dataset.pipeline).transforms) == len(loader.dataset.pipeline)


def forward_parts(model: torch.nn.Module, image: Tensor) -> list[Tensor]:
    """Raw outputs of a model; those of a two-stage detector without the proposals in between, which need numbers."""
    if not hasattr(model, "roi_head"):
        return flat(model(image, mode="tensor"))
    features = model.extract_feat(image)
    outputs = flat(model.rpn_head(features))
    roi = model.roi_head
    size = roi.bbox_head.roi_feat_size
    assert len(roi.bbox_roi_extractor.featmap_strides) <= len(features)
    pooled = torch.empty(5, features[0].shape[1], *size)
    outputs += flat(roi.bbox_head(pooled))
    if roi.with_mask:
        outputs += flat(roi.mask_head(pooled[:1]))
    return outputs


def flat(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [tensor for item in value for tensor in flat(item)]


def test_leaf_configs_are_short_and_say_how_to_run_them() -> None:
    for name in ALL:
        lines = (CONFIGS / f"{name}.py").read_text(encoding="utf-8").splitlines()
        assert len(lines) < 45, name
        assert lines[0].startswith("# ") and f"configs/{name}.py" in lines[0], name
        header = " ".join(line for line in lines[:5] if line.startswith("#"))
        assert "Measured" in header or "Not trained here" in header, name


# --- the digits -------------------------------------------------------------------------------------------------------


METRICS = {
    "repvgg_digits": {"accuracy/top1"},
    "pspnet_repvgg_digits": {"mIoU"},
    "retinanet_repvgg_digits": {"coco/bbox_mAP"},
    "faster_rcnn_repvgg_digits": {"coco/bbox_mAP"},
    "mask_rcnn_repvgg_digits": {"coco/bbox_mAP", "coco/segm_mAP"},
}


@pytest.mark.parametrize("name", DIGITS)
def test_digits_config_trains_and_tests(
    name: str, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITS", str(digits))
    cfg = keep_a_few_boxes(one_step(load(name, tmp_path)))
    runner = Runner.from_cfg(cfg)
    before = {key: value.clone() for key, value in runner.model.state_dict().items()}
    runner.train()
    after = runner.model.state_dict()
    assert all(torch.isfinite(value).all() for value in after.values())
    parts = {key.split(".")[0] for key in before}
    assert {key.split(".")[0] for key in after if not torch.equal(after[key], before[key])} == parts
    assert METRICS[name] <= runner.test().keys()


def keep_a_few_boxes(cfg: Config) -> Config:
    """An untrained detector is sure of nothing, and without a single box there is no metric; all of them take long."""
    for stage in (cfg.model.get("train_cfg", {}), cfg.model.get("test_cfg", {})):
        for part in (stage, *(stage.get(name, {}) for name in ("rpn", "rpn_proposal", "rcnn"))):
            for name, few in {"score_thr": 0.0, "nms_pre": 100, "max_per_img": 20}.items():
                if name in part:
                    part[name] = few
    return cfg


# --- conversion, and the libraries' own ways to a detector ------------------------------------------------------------


@pytest.fixture(scope="module")
def mask_rcnn(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Mask R-CNN after a step: its checkpoint and config, and the same converted."""
    folder = tmp_path_factory.mktemp("mask_rcnn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITS", str(digits))
        cfg = one_step(load("mask_rcnn_repvgg_digits", folder))
        Runner.from_cfg(cfg).train()
        conversion = convert_checkpoint(str(folder / "epoch_1.pth"))
        assert conversion.difference is not None and not conversion.failed
        write_conversion(conversion, str(folder / "deployed.pth"))
        (folder / "deployed.py").write_text(conversion.content["meta"]["cfg"], encoding="utf-8")
        yield {
            "checkpoint": folder / "epoch_1.pth",
            "config": CONFIGS / "mask_rcnn_repvgg_digits.py",
            "deployed": folder / "deployed.pth",
            "deployed_config": folder / "deployed.py",
            "image": digits / "segmentation/images/val/0000.png",
        }


def test_conversion_leaves_neck_and_heads_identical_to_the_bit(mask_rcnn: dict[str, Path]) -> None:
    before = find_state_dict(load_checkpoint(mask_rcnn["checkpoint"])).state_dict
    after = find_state_dict(load_checkpoint(mask_rcnn["deployed"])).state_dict
    outside = [key for key in before if not key.startswith("backbone.")]
    for part in ("neck.", "rpn_head.", "roi_head.bbox_head.", "roi_head.mask_head."):
        assert any(key.startswith(part) for key in outside), part
    assert all(same_bits(before[key], after[key]) for key in outside)
    assert {key for key in after if key.startswith("backbone.")} == {
        f"backbone.{block}.rbr_reparam.{kind}"
        for block in ("stage0", "stage1.0", "stage2.0", "stage2.1", *(f"stage3.{i}" for i in range(4)), "stage4.0")
        for kind in ("weight", "bias")
    }


def scores_of(checkpoint: Path, image: Path) -> Tensor:
    objects = build_predictor(None, str(checkpoint))(str(image)).result["objects"]
    assert objects
    return torch.tensor([one["score"] for one in objects])


def test_converted_checkpoint_opens_in_mmdet_without_editing_a_config(mask_rcnn: dict[str, Path]) -> None:
    from mmdet.apis import DetInferencer, inference_detector, init_detector

    image = str(mask_rcnn["image"])
    wanted = scores_of(mask_rcnn["checkpoint"], mask_rcnn["image"])
    stored = Config.fromstring(mask_rcnn["deployed_config"].read_text(encoding="utf-8"), ".py")
    detector = init_detector(stored, str(mask_rcnn["deployed"]), device="cpu")
    got = inference_detector(detector, image).pred_instances
    torch.testing.assert_close(got.scores, wanted, rtol=1e-4, atol=1e-4)
    inferencer = DetInferencer(weights=str(mask_rcnn["deployed"]), device="cpu", show_progress=False)
    assert "backbone.stage0.rbr_reparam.weight" in inferencer.model.state_dict()
    found = inferencer(image)["predictions"][0]
    torch.testing.assert_close(torch.tensor(found["scores"]), got.scores)
    assert len(found["masks"]) == len(got.scores)


@pytest.mark.parametrize("form", ["", "deployed_"], ids=["trained", "converted"])
def test_mmdet_own_test_tool_runs_both_forms(
    form: str, mask_rcnn: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mmdet

    tool = Path(mmdet.__file__).parent / ".mim/tools/test.py"
    if not tool.exists():
        pytest.skip("this mmdet comes without its tools")
    if not form and mmengine.__version__ == "0.10.7":
        pytest.skip("this mmengine can't load its own training checkpoints with a torch whose default is weights_only")
    checkpoint = mask_rcnn["deployed" if form else "checkpoint"]
    out = tmp_path / "found.pkl"
    arguments = [str(mask_rcnn[f"{form}config"]), str(checkpoint), "--work-dir", str(tmp_path), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [str(tool), *arguments])
    runpy.run_path(str(tool), run_name="__main__")
    found = pickle.loads(out.read_bytes())
    wanted = scores_of(checkpoint, mask_rcnn["image"])
    torch.testing.assert_close(found[0]["pred_instances"]["scores"], wanted, rtol=1e-4, atol=1e-4)


def test_our_test_tool_takes_the_converted_checkpoint_alone(mask_rcnn: dict[str, Path], tmp_path: Path) -> None:
    from repvgg_mm.engine.testing import build_test_runner

    runner = build_test_runner(None, str(mask_rcnn["deployed"]), work_dir=str(tmp_path))
    assert {"coco/bbox_mAP", "coco/segm_mAP"} <= runner.test().keys()


# --- odd images -------------------------------------------------------------------------------------------------------

ODD: dict[str, tuple[tuple[int, int], list[list[int]]]] = {  # (height, width), boxes x, y, w, h; batches of two
    "plain": ((96, 128), [[10, 20, 60, 40]]),
    "one_pixel": ((96, 128), [[5, 7, 1, 1], [127, 95, 1, 1]]),
    "black": ((96, 128), []),
    "no_box": ((80, 128), []),
    "tiny": ((2, 3), [[0, 0, 2, 1]]),
    "wide": ((12, 400), [[100, 2, 60, 8]]),
    "tall": ((128, 96), [[10, 20, 60, 40]]),
    "high": ((300, 20), []),
}


NAMES = [f"thing {index}" for index in range(10)]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("odd")
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for index, (name, ((height, width), boxes)) in enumerate(ODD.items(), start=1):
        pixels = rng.integers(256, size=(height, width, 3)) * (name != "black")
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{name}.png")
        images.append({"id": index, "file_name": f"{name}.png", "height": height, "width": width})
        for x, y, w, h in boxes:
            corners = [x, y, x + w, y, x + w, y + h, x, y + h]
            annotation = {"id": len(annotations) + 1, "image_id": index, "category_id": 1, "iscrowd": 0}
            annotations.append({**annotation, "bbox": [x, y, w, h], "area": w * h, "segmentation": [corners]})
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(NAMES)]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    (root / "odd.json").write_text(json.dumps(coco), encoding="utf-8")
    return root


def shrink(cfg: Config) -> Config:
    """A COCO config on a small backbone and small images, with few classes."""
    cfg.model.backbone.arch = SMALL_ARCH
    cfg.model.neck.in_channels = [8, 16, 32, 64][-len(cfg.model.neck.in_channels) :]
    cfg.model.neck.out_channels = cfg.model.bbox_head.in_channels = cfg.model.bbox_head.feat_channels = 32
    cfg.model.bbox_head.num_classes = len(NAMES)
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        for step in loader.dataset.pipeline:
            if step.type == "Resize":
                step.scale = (160, 96)
    return cfg


def test_coco_batches_are_all_wide_or_all_tall(odd: Path, tmp_path: Path) -> None:
    """The library's batch sampler asks the sampler for its data set, and must pass on the seeds of the samples."""
    cfg = load("retinanet_repvgg_a0_coco", tmp_path)
    init_default_scope(cfg.default_scope)
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.train_dataloader.dataset.update(data_root=str(odd), ann_file="odd.json", data_prefix={"img": ""})
    cfg.train_dataloader.dataset.update(filter_cfg=None, metainfo={"classes": NAMES})
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    batches = list(loader.batch_sampler)
    assert sorted(index for batch in batches for index in batch) == list(range(len(ODD)))
    sizes = [ODD[name][0] for name in ODD]
    assert all(len({height > width for height, width in (sizes[index] for index in batch)}) == 1 for batch in batches)
    assert all(isinstance(index, Draw) for batch in batches for index in batch)


@pytest.mark.parametrize(
    "name",
    [
        "retinanet_repvgg_digits",
        "faster_rcnn_repvgg_digits",
        "mask_rcnn_repvgg_digits",
        "fcos_repvgg_a2_coco",
        "rtmdet_repvgg_a0_coco",
    ],
)
def test_odd_images_train_and_test(name: str, odd: Path, tmp_path: Path) -> None:
    cfg = keep_a_few_boxes(one_step(load(name, tmp_path)))
    if name.endswith("_coco"):
        shrink(cfg)
    source = {"data_root": str(odd), "ann_file": "odd.json", "data_prefix": {"img": ""}, "filter_cfg": None}
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(batch_size=2, num_workers=0, persistent_workers=False, batch_sampler=None)
        loader.sampler = {"type": "DefaultSampler", "shuffle": False}
        loader.dataset.update(source, metainfo={"classes": NAMES})
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        evaluator.ann_file = str(odd / "odd.json")
    runner = Runner.from_cfg(cfg)
    runner.train()
    losses, _ = runner.message_hub.get_scalar("train/loss").data
    assert len(losses) == 4 and np.isfinite(losses).all()
    assert all(torch.isfinite(value).all() for value in runner.model.state_dict().values())
    assert runner.test()["coco/bbox_mAP"] >= 0
