"""One act of the demo: pretrain, finetune, convert, prove, test, report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from ..data.digits import make_digits
from ..report import Curve, Report, read_curves, write_report
from ..text_table import text_table
from .commands import Commands, Say
from .measure import Look, Measured, facts, measure

CLASSIFIER = "configs/repvgg_digits.py"


@dataclass(frozen=True)
class Metric:
    """A metric that the finetuned model has to reach, in both forms.

    Attributes:
        key: what the evaluator calls it.
        title: what the table calls it.
        floor: its least value.
        tolerance: how far the values of both forms may be apart.
        digits: how many decimals are shown.
    """

    key: str
    title: str
    floor: float
    tolerance: float
    digits: int

    def row(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str, str]:
        """Return its row of the closing table.

        Args:
            before: metrics of the training form.
            after: metrics of the deployed form.

        Returns:
            Title and both values.
        """
        return self.title, f"{before[self.key]:.{self.digits}f}", f"{after[self.key]:.{self.digits}f}"

    def complaint(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
        """Say what is wrong with both values.

        Args:
            before: metrics of the training form.
            after: metrics of the deployed form.

        Returns:
            A sentence; None if nothing is wrong.
        """
        values = before[self.key], after[self.key]
        shown = " and ".join(self.row(before, after)[1:])
        if not all(value >= self.floor for value in values):  # NaN is below every floor
            return f"{self.title}: {shown} must both be {self.floor} or more"
        if round(abs(values[0] - values[1]), 6) > self.tolerance:
            return f"{self.title}: {shown} differ by more than {self.tolerance}"
        return None


@dataclass(frozen=True)
class Act:
    """What one act trains, and what has to come out of it.

    Attributes:
        command: what starts it: ``'make demo'``.
        config: config of the finetuned model, relative to the checkout.
        processes: how many processes finetune it.
        finetuning: what the finetuning is, in a few words.
        metrics: what it has to reach; the curves show them, too.
        metric_step: what the metrics are counted in while training: ``'iteration'`` or ``'epoch'``.
        outputs: what the proof compares, in a few words.
        look: takes the pictures and times of both forms.
    """

    command: str
    config: str
    processes: int
    finetuning: str
    metrics: Sequence[Metric]
    metric_step: str
    outputs: str
    look: Look


def run_act(act: Act, root: Path, work_dir: Path, say: Say) -> bool:
    """Make the data, pretrain a classifier, finetune, convert, test both forms and draw the report.

    Args:
        act: what to train.
        root: the checkout.
        work_dir: folder for everything that is made; made if needed.
        say: shows a line.

    Returns:
        Whether every metric is what it has to be.

    Raises:
        StepFailed: if a command fails.
    """
    work_dir = work_dir.resolve()
    work_dir.mkdir(parents=True, exist_ok=True)
    data, deployed = work_dir / "digits", work_dir / "deployed.pth"
    commands = Commands(root, work_dir, {"DIGITS": str(data)}, say)
    say("1/6  real handwritten digits on real photos")
    drawn = count(1)
    make_digits(data, step=lambda: _say_now_and_then(say, next(drawn)))
    say("2/6  pretrain the classifier")
    commands.python("pretrain", "train", CLASSIFIER, "--work-dir", str(work_dir / "pretrain"))
    say(f"3/6  {act.finetuning}")
    start = f"model.backbone.init_cfg.checkpoint={commands.last_checkpoint('pretrain')}"
    command = ["tools/dist_train.sh", act.config, str(act.processes), "--work-dir", str(work_dir / "finetune")]
    commands.run("finetune", [*command, "--cfg-options", start])
    say("4/6  convert the backbone, and nothing else")
    trained = commands.last_checkpoint("finetune")
    proof = commands.python("convert", "convert", trained, str(deployed), "--force")
    for line in proof.splitlines():
        if " INFO " not in line:
            say(f"    {line}")
    say("5/6  test both forms")
    before = commands.test("test_trained", act.config, trained)
    after = commands.test("test_deployed", str(deployed))  # its config is inside
    say("6/6  measure and draw")
    measured = measure(str(root / act.config), trained, str(deployed), data, act.look)
    return conclude(act, commands, measured, before, after)


def conclude(
    act: Act, commands: Commands, measured: Measured, before: Mapping[str, Any], after: Mapping[str, Any]
) -> bool:
    """Write the report, show the closing table and what is wrong.

    Args:
        act: what was trained.
        commands: whose work dir holds the logs of ``pretrain`` and ``finetune``.
        measured: both forms, compared.
        before: metrics of the training form.
        after: metrics of the deployed form.

    Returns:
        Whether every metric is what it has to be.
    """
    rows = [*(metric.row(before, after) for metric in act.metrics), *measured.rows(act.outputs)]
    page = commands.work_dir / "report.html"
    report = Report(
        title="RepVGG: trained with three branches, deployed as one convolution",
        summary=rows,
        facts=facts(act.command),
        classes=measured.classes,
        palette=measured.palette,
        examples=measured.sights.examples,
        curves=_curves(act, commands.work_dir),
        layer_errors=measured.layers,
        detections=measured.sights.detections,
    )
    write_report(page, report)
    commands.say(text_table(("", "three branches", "deployed"), rows))
    commands.say(f"report: {page}")
    complaints = [complaint for metric in act.metrics if (complaint := metric.complaint(before, after))]
    for complaint in complaints:
        commands.say(f"failed: {complaint}")
    return not complaints


def _say_now_and_then(say: Say, drawn: int) -> None:
    if drawn % 1000 == 0:
        say(f"    {drawn:,} images")


def _curves(act: Act, work_dir: Path) -> list[Curve]:
    """Read how the losses and metrics went."""
    pretrain, finetune = work_dir / "pretrain", work_dir / "finetune"
    return [
        Curve("pretraining: loss", "iteration", read_curves(pretrain, "loss")),
        Curve("finetuning: loss", "iteration", read_curves(finetune, "loss")),
        *(
            Curve(f"finetuning: {metric.title}", act.metric_step, read_curves(finetune, metric.key))
            for metric in act.metrics
        ),
    ]
