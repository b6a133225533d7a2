"""What users get wrong: one line that names it, exit code 2, before anything is trained or written."""

import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_lines import CLS, ROOT, SEG

from repvgg_mm.cli import train
from repvgg_mm.cli.command import run
from repvgg_mm.data.digits import make_digits

DET, MASKS, ROI = (
    "configs/retinanet_repvgg_digits.py",
    "configs/mask_rcnn_repvgg_digits.py",
    "configs/faster_rcnn_repvgg_digits.py",
)
SHORT = {
    SEG: "train_cfg.max_iters=1",
    CLS: "train_cfg.max_epochs=1",
    DET: "train_cfg.max_epochs=1",
}  # where nothing is refused
_RUNS = itertools.count()
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clean") / "digits"
    make_digits(root, train_scenes=4, val_scenes=2, train_images=20, val_images=10)
    return root


@pytest.fixture
def data(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of one's own to damage; the configs find it."""
    shutil.copytree(clean, tmp_path / "data")
    monkeypatch.setenv("DIGITS", str(tmp_path / "data"))
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("logging.raiseExceptions", False)  # mmengine's logger keeps the stdout of an earlier test
    monkeypatch.setattr("mmengine.runner.runner.collect_env", dict)  # asks compilers for their versions, for the log
    return tmp_path / "data"


def start(config: str | Path, work_dir: Path, *options: str, flags: tuple[str, ...] = ()) -> int:
    """Train in this process, as the command line does; give back its exit code."""
    short = [f"experiment_name=bad_input_{next(_RUNS)}", "log_level=ERROR"]
    if not any("init_cfg" in option for option in options):
        short.append("model.backbone.init_cfg=None")
    short += [SHORT[str(config)]] if str(config) in SHORT else []
    arguments = [str(config), "--work-dir", str(work_dir), *flags, "--cfg-options", *short, *options]
    with pytest.raises(SystemExit) as left:
        run(lambda: train.main(arguments))
    return int(left.value.code or 0)


def refusal(capfd: pytest.CaptureFixture[str], code: int, work_dir: Path) -> str:
    """Return the one line on stderr; nothing but logs may be left in the folder."""
    lines = [line for line in capfd.readouterr().err.splitlines() if "Warning" not in line and "warn" not in line]
    assert code == 2 and len([line for line in lines if line.startswith("error: ")]) == 1, lines
    assert "Traceback" not in "".join(lines)
    left = {path.suffix for path in work_dir.rglob("*") if path.is_file()}
    assert left <= {".log", ".json", ".py"}, left
    return lines[-1]


CONFIG_MISTAKES = [
    # top level and --cfg-options: names that nothing would read
    (SEG, "modle.backbone.arch=A0", "'modle'", "did you mean 'model'"),
    (SEG, "optim_wraper.type=OptimWrapper", "'optim_wraper'", "'optim_wrapper'"),
    (SEG, "trian_dataloader.batch_size=2", "'trian_dataloader'", "'train_dataloader'"),
    (SEG, "optim_wrapper.optimzer.lr=0.1", "optimzer", "'optimizer'"),
    (SEG, "optim_wrapper.optimizer.Lr=0.1", "Lr", "'lr'"),
    (SEG, "optim_wrapper.clip_grads.max_norm=1", "clip_grads", "'clip_grad'"),
    (SEG, "optim_wrapper.clip_grad.max_nrm=1", "max_nrm", "'max_norm'"),
    (SEG, "optim_wrapper.paramwise_cfg.bias_decay_mul=0", "bias_decay_mul", "'bias_decay_mult'"),
    (SEG, "train_cfg.max_iter=5", "max_iter", "'max_iters'"),
    (SEG, "default_hooks.chekpoint.interval=5", "chekpoint", "'checkpoint'"),
    (SEG, "default_hooks.checkpoint.intervall=5", "intervall", "'interval'"),
    (SEG, "env_cfg.cudnn_benchmrk=True", "cudnn_benchmrk", "'cudnn_benchmark'"),
    (SEG, "randomness.sed=1", "sed", "'seed'"),
    (SEG, "model.backbone.archs=A0", "archs", "'arch'"),
    (SEG, "model.decode_head.num_class=3", "num_class", "'num_classes'"),
    (SEG, "model.decode_heads.num_classes=3", "decode_heads", "'decode_head'"),
    (SEG, "model.test_cfg.mod=slide", "mod", "'mode'"),
    (SEG, "train_dataloader.batch_sise=5", "batch_sise", "'batch_size'"),
    (SEG, "train_dataloader.dataset.metainfo.clases=1", "clases", "'classes'"),
    (SEG, "train_dataloader.dataset.data_prefix.seg_map_pth=x", "seg_map_pth", "'seg_map_path'"),
    (SEG, "auto_scale_lr.enabel=True", "enabel", "'enable'"),
    (CLS, "train_cfg.max_epoch=5", "max_epoch", "'max_epochs'"),
    (DET, "model.train_cfg.asigner.type=MaxIoUAssigner", "asigner", "'assigner'"),
    (DET, "model.test_cfg.score_thrs=0.1", "score_thrs", "'score_thr'"),
    # kinds that nobody registered
    (SEG, "optim_wrapper.optimizer.type=AdmW", "'AdmW'", "'AdamW'"),
    (SEG, "optim_wrapper.type=OptmWrapper", "'OptmWrapper'", "'OptimWrapper'"),
    (SEG, "optim_wrapper.constructor=RepVGGOptimWraperConstructor", "RepVGGOptimWraper", "'RepVGGOptimWrapper"),
    (SEG, "param_scheduler.0.type=LinearLr", "'LinearLr'", "'LinearLR'"),
    (SEG, "train_cfg.type=IterBasedTrainLop", "'IterBasedTrainLop'", "'IterBasedTrainLoop'"),
    (SEG, "model.type=EncoderDecodr", "'EncoderDecodr'", "'EncoderDecoder'"),
    (SEG, "model.backbone.type=RepVG", "'RepVG'", "'RepVGG'"),
    (SEG, "model.decode_head.type=PSPHed", "'PSPHed'", "'PSPHead'"),
    (SEG, "train_dataloader.dataset.type=BaseSegDatset", "'BaseSegDatset'", "'BaseSegDataset'"),
    (SEG, "train_dataloader.dataset.pipeline.1.type=LoadImageFromFil", "'LoadImageFromFil'", "'LoadImageFromFile'"),
    (SEG, "train_dataloader.sampler.type=ReplySampler", "'ReplySampler'", "'ReplaySampler'"),
    (SEG, "val_evaluator.type=IoUMetrc", "'IoUMetrc'", "'IoUMetric'"),
    (SEG, "default_hooks.timer.type=IterTimerHok", "'IterTimerHok'", "'IterTimerHook'"),
    (SEG, "default_scope=mmsegg", "'mmsegg'", "'mmseg'"),
    (CLS, "train_dataloader.collate_fn.type=colate_images", "colate_images", "'collate_images'"),
    (CLS, "train_dataloader.dataset.transforms.0.type=RandomResizeCrop", "'RandomResizeCrop'", "RandomResizedCrop"),
    # numbers out of reach
    (SEG, "optim_wrapper.optimizer.lr=abc", "lr='abc'", ""),
    (SEG, "optim_wrapper.optimizer.lr=-1", "-1", "earning rate"),
    (SEG, "optim_wrapper.optimizer.weight_decay=none", "weight_decay='none'", ""),
    (SEG, "train_cfg.max_iters=-1", "max_iters=-1", ""),
    (SEG, "train_cfg.max_iters=many", "max_iters='many'", ""),
    (SEG, "train_cfg.val_interval=0", "val_interval=0", ""),
    (CLS, "train_cfg.max_epochs=-1", "max_epochs=-1", ""),
    (CLS, "train_cfg.max_epochs=2.5", "max_epochs=2.5", ""),
    (SEG, "default_hooks.checkpoint.interval=often", "interval='often'", ""),
    (SEG, "default_hooks.logger.interval=0", "interval=0", ""),
    (SEG, "train_dataloader.batch_size=0", "batch_size=0", ""),
    (SEG, "train_dataloader.batch_size=two", "batch_size='two'", ""),
    (SEG, "train_dataloader.num_workers=-1", "num_workers", ""),
    (SEG, "param_scheduler.0.start_factor=7", "start_factor", ""),
    (SEG, "param_scheduler.0.begin=40", "begin", ""),
    (SEG, "param_scheduler.0.end=x", "end", ""),
    (SEG, "randomness.seed=abc", "seed", ""),
    # parts that are missing
    (SEG, "val_evaluator=None", "val_evaluator", ""),
    (SEG, "val_dataloader=None", "val_dataloader", ""),
    (SEG, "optim_wrapper=None", "optim_wrapper", ""),
    (SEG, "train_cfg=None", "train_cfg", ""),
    (SEG, "train_dataloader=None", "train_dataloader", ""),
    (SEG, "model=None", "model", ""),
    (SEG, "train_dataloader.dataset=None", "dataset", ""),
    (SEG, "data_root=/nowhere", "/nowhere", ""),
    (CLS, "data_root=/nowhere", "/nowhere", ""),
    (DET, "data_root=/nowhere", "/nowhere", ""),
    (SEG, "load_from=/nowhere.pth", "/nowhere.pth", ""),
    (SEG, "model.backbone.init_cfg.checkpoint=/no.pth", "/no.pth", ""),
    (SEG, "load_from.path=x", "load_from is None", ""),
    # parts that don't fit one another
    (SEG, "model.decode_head.in_channels=64", "in_channels=64", "32, 64, 128, 256"),
    (SEG, "model.auxiliary_head.in_channels=64", "in_channels=64", "32, 64, 128, 256"),
    (SEG, "model.decode_head.in_index=4", "in_index=4", "32, 64, 128, 256"),
    (SEG, "model.backbone.arch=A9", "'A9'", "A0"),
    (SEG, "model.backbone.out_indices=[0,1,7]", "out_indices", ""),
    (DET, "model.neck.in_channels=[64,64,128,256]", "in_channels=[64, 64, 128, 256]", "[32, 64, 128, 256]"),
    (DET, "model.neck.in_channels=[32,64,128]", "in_channels=[32, 64, 128]", "[32, 64, 128, 256]"),
    (DET, "model.bbox_head.in_channels=32", "in_channels=32", "64"),
    (ROI, "model.roi_head.bbox_head.in_channels=32", "in_channels=32", "64"),
    (ROI, "model.rpn_head.in_channels=32", "in_channels=32", "64"),
    # classes of the head and of the data
    (SEG, "model.decode_head.num_classes=10", "num_classes=10", "11 classes"),
    (SEG, "model.auxiliary_head.num_classes=12", "auxiliary_head", "11"),
    (DET, "model.bbox_head.num_classes=9", "num_classes=9", "10 classes"),
    (ROI, "model.roi_head.bbox_head.num_classes=80", "num_classes=80", "10 classes"),
    (MASKS, "model.roi_head.mask_head.num_classes=80", "num_classes=80", "10 classes"),
    (CLS, "model.num_classes=9", "num_classes=9", "10 classes"),
    # batch normalisation over one value
    (SEG, "train_dataloader.batch_size=1", "batch_size=1", "BN"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "option", "value", "fix"), CONFIG_MISTAKES, ids=[row[1] for row in CONFIG_MISTAKES])
def test_a_mistake_in_a_config_gets_one_line(
    config: str, option: str, value: str, fix: str, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = start(config, tmp_path / "work", *option.split())
    line = refusal(capfd, code, tmp_path / "work")
    assert value in line and fix in line, line
    assert len(line) < 500, line


def picture(path: Path, shape: tuple[int, ...] = (128, 128), value: int = 1, dtype: type = np.uint8) -> None:
    cv2.imwrite(str(path), np.full(shape, value, dtype))


def masks(root: Path, split: str = "train") -> Path:
    return sorted((root / "segmentation/annotations" / split).iterdir())[0]


def images(root: Path, split: str = "train") -> Path:
    return sorted((root / "segmentation/images" / split).iterdir())[0]


def digit(root: Path) -> Path:
    return sorted((root / "classification/train/3").iterdir())[0]


def annotations(root: Path, split: str = "train") -> Path:
    return root / f"detection/{split}.json"


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def category(content: dict) -> None:
    content["annotations"][0]["category_id"] = 77


def image_id(content: dict) -> None:
    content["annotations"][0]["image_id"] = 999


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


DAMAGE: list[tuple[str, Damage, str, str]] = [
    (SEG, lambda root: picture(masks(root), value=11), "mask", "id 11"),
    (SEG, lambda root: picture(masks(root, "val"), value=11), "/val/", "id 11"),
    (SEG, lambda root: picture(masks(root), (128, 64)), "mask", "64 x 128"),
    (SEG, lambda root: picture(masks(root, "val"), (64, 128)), "/val/", "128 x 64"),
    (SEG, lambda root: picture(masks(root), (128, 128, 3)), "mask", "3 channels"),
    (SEG, lambda root: picture(masks(root), value=300, dtype=np.uint16), "mask", "16 bits"),
    (SEG, lambda root: cut(masks(root)), "annotations/train", "can't be read"),
    (SEG, lambda root: masks(root).write_bytes(b""), "annotations/train", "can't be read"),
    (SEG, lambda root: masks(root).unlink(), "annotations/train", ""),
    (SEG, lambda root: cut(images(root)), "images/train", "can't be read"),
    (SEG, lambda root: cut(images(root, "val")), "images/val", "can't be read"),
    (SEG, lambda root: images(root).write_bytes(b""), "images/train", "can't be read"),
    (SEG, lambda root: empty(root / "segmentation/images/train"), "images/train", "no image"),
    (SEG, lambda root: empty(root / "segmentation/images/val"), "images/val", "no image"),
    (DET, lambda root: cut(images(root)), "images/train", "can't be read"),
    (DET, lambda root: images(root).unlink(), "images/train", ""),
    (DET, lambda root: images(root, "val").unlink(), "images/val", ""),
    (DET, lambda root: picture(images(root), (64, 128, 3)), "images/train", "128 x 64"),
    (DET, lambda root: cut(annotations(root)), "train.json", "JSON"),
    (DET, lambda root: annotations(root).write_text("[]"), "train.json", ""),
    (DET, lambda root: annotations(root).write_text(""), "train.json", ""),
    (DET, lambda root: annotations(root).unlink(), "train.json", ""),
    (DET, lambda root: edit(annotations(root), lambda c: c.pop("annotations")), "train.json", "annotations"),
    (DET, lambda root: edit(annotations(root), lambda c: c.update(annotations=[])), "train.json", "no annotation"),
    (DET, lambda root: edit(annotations(root, "val"), lambda c: c.update(annotations=[])), "val.json", "no annotation"),
    (DET, lambda root: edit(annotations(root), lambda c: c.pop("categories")), "train.json", "categories"),
    (DET, lambda root: edit(annotations(root), lambda c: c.update(images=[])), "train.json", "image"),
    (DET, lambda root: edit(annotations(root), category), "train.json", "77"),
    (DET, lambda root: edit(annotations(root, "val"), category), "val.json", "77"),
    (DET, lambda root: edit(annotations(root), image_id), "train.json", "999"),
    (DET, lambda root: edit(annotations(root), lambda c: c["annotations"][0].pop("bbox")), "train.json", "bbox"),
    (DET, lambda root: edit(annotations(root), lambda c: c["categories"][3].update(name="three")), "'3'", "train.json"),
    (DET, lambda root: edit(annotations(root), lambda c: c["categories"].reverse()), "train.json", "order"),
    (CLS, lambda root: cut(digit(root)), "train/3", "can't be read"),
    (CLS, lambda root: empty(root / "classification/train/3"), "3", ""),
    (CLS, lambda root: shutil.rmtree(root / "classification/val/3"), "classes", ""),
]  # fmt: skip


@pytest.mark.parametrize(("config", "damage", "value", "fix"), DAMAGE)
def test_damaged_data_gets_one_line(
    config: str, damage: Damage, value: str, fix: str, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(data)
    code = start(config, tmp_path / "work")
    line = refusal(capfd, code, tmp_path / "work")
    assert value in line and fix in line, line


BROKEN_CONFIGS = {
    "raises": ("model = dict(\n", "line 1"),
    "divides": ("x = 1 / 0\n", "division by zero"),
    "imports": ("__import__('no_such_module')\n", "no_such_module"),
    "names": ("model = Model\n", "Model"),
    "base": ("_base_ = 'nope.py'\n", "nope.py"),
    "empty": ("", "no train_dataloader"),
    "asserts": ("assert 1 == 2, 'one is not two'\n", "one is not two"),
    "imports_custom": (
        "custom_imports = dict(imports=['no_such_thing'], allow_failed_imports=False)\n",
        "no_such_thing",
    ),
}


@pytest.mark.parametrize("name", BROKEN_CONFIGS)
def test_a_config_that_raises_gets_one_line(
    name: str, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text, message = BROKEN_CONFIGS[name]
    (tmp_path / "broken.py").write_text(text)
    code = start(tmp_path / "broken.py", tmp_path / "work")
    line = refusal(capfd, code, tmp_path / "work")
    assert message in line and ("broken.py" in line or name == "empty"), line


def test_a_config_of_another_kind_is_named(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("model")
    (tmp_path / "broken.json").write_text("{")
    for path in (tmp_path / "notes.txt", tmp_path / "broken.json", tmp_path):
        line = refusal(capfd, start(path, tmp_path / "work"), tmp_path / "work")
        assert str(path) in line


def test_resuming_from_nothing_is_named(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = start(SEG, tmp_path / "work", flags=("--resume", "/nowhere.pth"))
    assert "/nowhere.pth" in refusal(capfd, code, tmp_path / "work")


def test_check_lists_every_problem_and_leaves_nothing(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in sorted((data / "segmentation/annotations/train").iterdir())[1:3]:
        picture(path, value=200)
    cut(images(data, "val"))
    options = ["model.decode_head.num_classes=10", "model.auxiliary_head.in_channels=3", "trian_cfg.x=1"]
    code = start(SEG, tmp_path / "work", *options, flags=("--check",))
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(lines) == 7, lines  # both data sets have 11 classes
    for said in ("'trian_cfg'", "num_classes=10", "auxiliary_head.in_channels=3", "id 200", "images/val"):
        assert any(said in line for line in lines), said
    assert not (tmp_path / "work").exists()


def test_check_of_a_good_config_estimates_and_ends_well(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for config, files in ((SEG, 4), (DET, 4), (CLS, 20)):
        assert start(config, tmp_path / "work", flags=("--check",)) == 0
        out, err = capfd.readouterr()
        assert "no problem found" in out and "GiB of" in out and re.search(r"one step: \d+\.\d\d s", out)
        assert f"train_dataloader: {files} of {files} files read" in err
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_what_only_training_meets_gets_one_line_too(
    workers: int, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The start reads a sample; here the broken file is none of it."""
    folder = data / "segmentation/images/train"
    for number in range(40):
        for part in ("images", "annotations"):
            first = sorted((data / f"segmentation/{part}/train").iterdir())[0]
            shutil.copy(first, first.with_name(f"z{number:02}.png"))
    cut(folder / "z38.png")  # 44 files, every fifth is read
    options = ["train_dataloader.batch_size=44", f"train_dataloader.num_workers={workers}", "val_cfg=None"]
    code = start(SEG, tmp_path / "work", *options, "val_dataloader=None", "val_evaluator=None")
    line = refusal(capfd, code, tmp_path / "work")
    assert "z38.png can't be read" in line and "broken='skip'" in line


def test_traceback_shows_the_whole_story(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "--traceback"])
    assert start(SEG, tmp_path / "work", "model.backbone.arch=A9") == 2
    err = capfd.readouterr().err
    assert "Traceback" in err and "resolve_arch" in err and err.splitlines()[-1].startswith("error: ")


def test_a_fault_of_our_own_stays_a_traceback(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: object) -> None:
        raise AssertionError("our own")

    monkeypatch.setattr("repvgg_mm.engine.start.check_start", faulty)
    monkeypatch.setattr("repvgg_mm.engine.explain._PACKAGE", str(Path(__file__).parent))  # where it comes up
    with pytest.raises(AssertionError, match="our own"):
        run(lambda: train.main([SEG, "--work-dir", str(tmp_path)]))
