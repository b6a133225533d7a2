"""The demo: what its metrics have to be, what it measures and draws, and what a user sees when a step fails."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from repvgg_mm.convert.convert_checkpoint import convert_checkpoint, write_conversion
from repvgg_mm.convert.model_pair import pair_from_config
from repvgg_mm.demo import DETECTION, SEGMENTATION, Act, StepFailed
from repvgg_mm.demo.act import CLASSIFIER, Metric, conclude
from repvgg_mm.demo.commands import Commands
from repvgg_mm.demo.measure import Measured, measure
from repvgg_mm.reparam.convert import convert_state_dict

ROOT = Path(__file__).parents[2]


class TestMetric:
    METRIC = Metric("coco/bbox_mAP", "bbox mAP", floor=0.4, tolerance=0.002, digits=3)

    def complaint(self, before: float, after: float) -> str | None:
        return self.METRIC.complaint({"coco/bbox_mAP": before}, {"coco/bbox_mAP": after})

    @pytest.mark.parametrize("before, after", [(0.4, 0.4), (0.523, 0.521), (0.521, 0.523)])
    def test_good(self, before: float, after: float) -> None:
        assert self.complaint(before, after) is None

    @pytest.mark.parametrize("before, after", [(0.399, 0.401), (0.401, 0.399), (math.nan, 0.5), (0.5, math.nan)])
    def test_below_the_floor(self, before: float, after: float) -> None:
        assert self.complaint(before, after) == f"bbox mAP: {before:.3f} and {after:.3f} must both be 0.4 or more"

    @pytest.mark.parametrize("before, after", [(0.523, 0.520), (0.5, 0.9)])
    def test_another_result_after_conversion(self, before: float, after: float) -> None:
        assert self.complaint(before, after) == f"bbox mAP: {before:.3f} and {after:.3f} differ by more than 0.002"


class TestCommands:
    def commands(self, tmp_path: Path, said: list[str]) -> Commands:
        return Commands(ROOT, tmp_path, {"WORD": "7"}, said.append)

    def test_shows_the_command_and_its_progress(self, tmp_path: Path) -> None:
        said: list[str] = []
        line = "11/24 07:52:24 - mmengine - INFO - Epoch(train) [1][32/32]  lr: 2.9e-03  eta: 0:04  loss: 2.37"
        script = f"import os; print({line!r}); print('quiet', os.environ['WORD'])"
        printed = self.commands(tmp_path, said).run("step", [sys.executable, "-c", script])
        assert said[0].startswith(f"$ {sys.executable} -c ")
        assert said[1:] == ["    Epoch(train) [1][32/32]  eta: 0:04  loss: 2.37"]
        assert printed == (tmp_path / "step.log").read_text() == f"{line}\nquiet 7\n"

    def test_a_detector_s_progress_is_short(self, tmp_path: Path) -> None:
        said: list[str] = []
        parts = "grad_norm: 5.1  loss: 1.2  loss_rpn_cls: 0.1  loss_mask: 0.4  acc: 92.0"
        metrics = "coco/bbox_mAP: 0.5  coco/bbox_mAP_50: 0.8  coco/bbox_mAP_s: -1.0  coco/segm_mAP: 0.4  time: 1.0"
        lines = [f"x - INFO - Epoch(train) [1][50/250]  {parts}", f"x - INFO - Epoch(val) [1][10/10]    {metrics}"]
        self.commands(tmp_path, said).run("step", [sys.executable, "-c", f"print(*{lines!r}, sep='\\n')"])
        assert said[1:] == [
            "    Epoch(train) [1][50/250]  loss: 1.2",
            "    Epoch(val) [1][10/10]    coco/bbox_mAP: 0.5  coco/segm_mAP: 0.4",
        ]

    def test_a_step_that_fails_names_its_log(self, tmp_path: Path) -> None:
        with pytest.raises(StepFailed, match=rf"step ended with code 2: error: config nope.*\(see {tmp_path}/step.log"):
            self.commands(tmp_path, []).python("step", "train", "nope.py")


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
    pair = pair_from_config(cfg.to_dict(), trusted=True)
    weights = pair.train.state_dict()
    converted = convert_state_dict(weights)
    assert pair.compare(weights, converted, "both").relative < 1e-4
    converted[f"{part}.bias"] = converted[f"{part}.bias"] + 1
    assert pair.compare(weights, converted, "both").absolute == pytest.approx(1, abs=1e-3)


def demo(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "tools/demo.py", *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)


def test_unknown_act() -> None:
    done = demo("detections")
    assert done.returncode == 2 and "invalid choice: 'detections'" in done.stderr


def test_work_dir_with_other_data(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "digits").symlink_to(digits)
    done = demo("detection", "--work-dir", tmp_path)
    assert done.returncode == 2 and "holds other settings" in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_work_dir_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = demo("--work-dir", tmp_path / "file")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and str(tmp_path / "file") in done.stderr
