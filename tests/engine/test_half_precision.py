"""Half precision in testing: the model computes in it, its answers are float32, the metric stands beside float32's."""

from pathlib import Path

import pytest
import torch
from command_lines import tool
from helpers import SMALL_ARCH, image, randomize_bn
from mmengine.structures import InstanceData
from torch import nn

from repvgg_mm.cli import test as command_line
from repvgg_mm.cli.command import InputError
from repvgg_mm.engine.half_precision import PRECISIONS, compute_in
from repvgg_mm.models.classifier import ImageClassifier

ROWS = {"classification": "accuracy/top1", "segmentation": "mIoU", "detection": "coco/bbox_mAP"}


@pytest.mark.parametrize("deploy", [False, True])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_model_computes_in_it_and_answers_in_float32(precision: str, deploy: bool) -> None:
    torch.manual_seed(0)
    model = randomize_bn(ImageClassifier({"type": "RepVGG", "arch": SMALL_ARCH}, num_classes=5)).eval()
    if deploy:
        model.backbone.switch_to_deploy()
    batch, seen = {"inputs": image(3, 3, 48, 40)}, []
    with torch.no_grad():
        expected = model.test_step(batch)
        model.linear.register_forward_hook(lambda module, inputs, logits: seen.append(logits.dtype))
        compute_in(model, precision)
        answers = model.test_step(batch)
    assert seen == [PRECISIONS[precision]]
    for answer, exact in zip(answers, expected, strict=True):
        assert answer["scores"].dtype == torch.float32 and answer["label"] is None
        torch.testing.assert_close(answer["scores"], exact["scores"], rtol=0, atol=0.02)
        assert not torch.equal(answer["scores"], exact["scores"])
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_what_is_found_becomes_float32_wherever_it_stands() -> None:
    class Finder(nn.Module):
        def test_step(self, data: object) -> list[InstanceData]:
            half = self.linear(torch.ones(2, 3))
            inner = InstanceData(scores=half[:, 0])
            return [InstanceData(bboxes=half, labels=torch.tensor([1, 2]), names=["a", "b"]), inner]

    model = Finder()
    model.linear = nn.Linear(3, 4)
    compute_in(model, "bf16")
    found, inner = model.test_step(None)
    assert found.bboxes.dtype == inner.scores.dtype == torch.float32 and found.labels.dtype == torch.int64
    torch.testing.assert_close(found.bboxes, found.bboxes.bfloat16().float(), rtol=0, atol=0)


@pytest.mark.parametrize("task", ROWS)
def test_the_metric_stands_beside_that_of_float32(
    task: str, complete_files: dict[str, Path], digits: Path, tmp_path: Path
) -> None:
    checkpoint = complete_files[task].with_suffix(".pth")
    done = tool("test", checkpoint, "--deploy", "--precision", "bf16", "--work-dir", tmp_path, digits=digits)
    assert done.returncode == 0, done.stderr
    table = done.stdout.splitlines()
    head = next(
        number for number, line in enumerate(table) if line.split() == ["metric", "float32", "bf16", "difference"]
    )
    rows = {line.split()[0]: [float(cell) for cell in line.split()[1:]] for line in table[head + 2 :]}
    float32, half, difference = rows[ROWS[task]]
    assert difference == pytest.approx(half - float32, abs=1e-4) and 0 <= half <= 100


def test_an_exported_file_has_a_precision_of_its_own(complete_files: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"leave .*--precision"):
        command_line.main([str(complete_files["classification"]), "--precision", "fp16"])


@pytest.mark.parametrize("flags", [["--compile"], ["--out", "kept"], ["--show-dir", "shown"]], ids=str)
def test_what_two_tests_would_share_is_refused(flags: list[str]) -> None:
    with pytest.raises(InputError, match=r"both tests would .* leave --compile, --out, --show-dir out, or --precision"):
        command_line.main(["any.pth", "--precision", "bf16", *flags])
