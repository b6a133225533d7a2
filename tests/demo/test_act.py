"""An act of the demo: what it measures, shows and draws."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from repvgg_mm.convert.convert_checkpoint import convert_checkpoint, write_conversion
from repvgg_mm.convert.model_pair import pair_from_config
from repvgg_mm.demo import DETECTION, SEGMENTATION, Act
from repvgg_mm.demo.act import CLASSIFIER, conclude
from repvgg_mm.demo.commands import Commands
from repvgg_mm.demo.measure import Measured, measure
from repvgg_mm.reparam.convert import convert_state_dict

ROOT = Path(__file__).parents[2]


def train(config: str, work_dir: Path) -> None:
    """Train one epoch or iteration from scratch on the small data set."""
    cfg = Config.fromfile(ROOT / config)
    cfg.work_dir, cfg.launcher, cfg.log_level = str(work_dir), "none", "ERROR"
    cfg.model.backbone.init_cfg, cfg.param_scheduler = None, []
    cfg.default_hooks.logger.interval = 1
    # mmengine keeps one visualizer of each name, with its folder, as long as the process lives.
    if "visualizer" in cfg:
        cfg.visualizer.name = str(work_dir)
    by_epoch = cfg.train_cfg.type == "EpochBasedTrainLoop"
    cfg.train_cfg.update({"max_epochs" if by_epoch else "max_iters": 1, "val_interval": 1})
    cfg.default_hooks.checkpoint.interval = 1
    if "rcnn" in cfg.model.get("test_cfg", {}):
        cfg.model.test_cfg.rcnn.score_thr = 0.0  # without a single box there is no metric
    Runner.from_cfg(cfg).train()


def sure_of_class_3(path: str) -> None:
    """Let a Mask R-CNN that hardly trained find something: every proposal is a 3."""
    content = torch.load(path, weights_only=False)
    content["state_dict"]["roi_head.bbox_head.fc_cls.bias"][3] += 4
    torch.save(content, path)


ACTS = {"segmentation": SEGMENTATION, "detection": DETECTION}


@pytest.fixture(scope="module", params=ACTS)
def played(
    request: pytest.FixtureRequest, digits: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Act, Path, Measured]]:
    """An act up to its conclusion, on the small data set."""
    act, work_dir = ACTS[request.param], tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITS", str(digits))
        train(CLASSIFIER, work_dir / "pretrain")
        train(act.config, work_dir / "finetune")
        trained, deployed = Commands(ROOT, work_dir, {}, print).last_checkpoint("finetune"), work_dir / "deployed.pth"
        if act is DETECTION:
            sure_of_class_3(trained)
        conversion = convert_checkpoint(trained)
        assert not conversion.failed
        write_conversion(conversion, str(deployed))
        yield act, work_dir, measure(str(ROOT / act.config), trained, str(deployed), digits, act.look)


def test_conclusion_shows_both_forms(played: tuple[Act, Path, Measured]) -> None:
    act, work_dir, measured = played
    said: list[str] = []
    metrics = {metric.key: metric.floor for metric in act.metrics}
    assert conclude(act, Commands(ROOT, work_dir, {}, said.append), measured, metrics, metrics)
    table, place = said
    assert place == f"report: {work_dir / 'report.html'}"
    names = [line.split("  ")[0] for line in table.splitlines()[2:]]
    expected = [metric.title for metric in act.metrics] + ["largest output error (relative)", "parameters"]
    expected += ["latency of one 128 x 128 image", "speed-up"]
    if act is DETECTION:
        expected += ["latency of its backbone", "speed-up of its backbone"]
    assert names == expected
    page = (work_dir / "report.html").read_text(encoding="utf-8")
    for text in (act.command, *names, *(f"finetuning: {metric.title}" for metric in act.metrics), "stage4.0"):
        assert text in page


def test_conclusion_names_the_metric_that_is_too_low(played: tuple[Act, Path, Measured]) -> None:
    act, work_dir, measured = played
    said: list[str] = []
    metrics = {metric.key: metric.floor for metric in act.metrics}
    metrics[act.metrics[-1].key] /= 2
    assert not conclude(act, Commands(ROOT, work_dir, {}, said.append), measured, metrics, metrics)
    assert len(said) == 3 and said[2].startswith(f"failed: {act.metrics[-1].title}: ")


def test_pictures_have_the_truth_and_what_both_forms_say(played: tuple[Act, Path, Measured]) -> None:
    act, _, measured = played
    assert measured.difference.relative < 1e-4 and len(measured.layers) == 9
    assert measured.parameters[0] > measured.parameters[1] > 0
    examples, detections = measured.sights.examples, measured.sights.detections
    if act is SEGMENTATION:
        assert len(examples) == 4 and not detections  # all there are
        assert all(set(example.truth.ravel()) > {0} for example in examples)
        return
    assert len(detections) == 4 and not examples
    for example in detections:
        assert 2 <= len(example.truth.labels) <= 4 and example.truth.masks is not None
        assert len(example.before.labels) > 0 and set(example.before.labels) == {3}
        assert example.before.scores is not None and example.before.scores.min() >= 0.5
        for box, mask in zip(example.truth.boxes, example.truth.masks, strict=True):
            rows, columns = mask.nonzero()
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("part", ["rpn_head.rpn_cls", "roi_head.bbox_head.fc_reg", "roi_head.mask_head.conv_logits"])
def test_proof_of_a_two_stage_detector_covers_every_head(part: str) -> None:
    cfg = Config.fromfile(ROOT / DETECTION.config)
    cfg.model.backbone.init_cfg = None
    pair = pair_from_config(cfg.to_dict())
    weights = pair.train.state_dict()
    converted = convert_state_dict(weights)
    assert pair.compare(weights, converted, "both").relative < 1e-4
    converted[f"{part}.bias"] = converted[f"{part}.bias"] + 1
    assert pair.compare(weights, converted, "both").absolute == pytest.approx(1, abs=1e-3)
