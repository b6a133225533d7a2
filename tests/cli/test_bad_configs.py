"""What users get wrong in a config: one line that names it, exit code 2, before anything is trained or written."""

from pathlib import Path

import pytest
from bad_inputs import DET, MASKS, ROI, refusal, start
from command_lines import CLS, SEG

from repvgg_mm.cli import train
from repvgg_mm.cli.command import run

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
