"""A checkpoint in one form and a config in the other, under the tools of mmengine, mmseg and mmdet themselves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import SMALL_ARCH, image, randomize_bn
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import Runner
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from torch import nn
from torch.utils.data import Dataset

from repvgg_mm import RepVGGBlock, whole_model_convert

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
EPS = 1e-2  # not torch's: a deployed model must have it from its config
NORM = {"type": "BN", "eps": EPS}
FORMS = {"deployed_file": True, "training_file": False}


def backbone(deploy: bool) -> dict[str, Any]:
    return {"type": "RepVGG", "arch": SMALL_ARCH, "norm_cfg": NORM, "deploy": deploy}


def segmentor(deploy: bool) -> Config:
    head = {"type": "FCNHead", "in_channels": 64, "channels": 8, "num_convs": 1, "num_classes": 4, "in_index": 3}
    model = {
        "type": "EncoderDecoder",
        "data_preprocessor": {"type": "SegDataPreProcessor", "mean": [0.0] * 3, "std": [255.0] * 3, "size": (64, 96)},
        "backbone": backbone(deploy),
        "decode_head": {**head, "loss_decode": {"type": "CrossEntropyLoss"}},
        "test_cfg": {"mode": "whole"},
    }
    pipeline = [{"type": "LoadImageFromNDArray"}, {"type": "PackSegInputs"}]
    loader = {"dataset": {"type": "BaseSegDataset", "pipeline": pipeline}}
    return Config({"default_scope": "mmseg", "model": model, "test_dataloader": loader, "test_pipeline": pipeline})


def detector(deploy: bool) -> Config:
    cfg = Config.fromfile(CONFIGS / "retinanet_repvgg_digits.py")
    cfg.model.backbone.update(backbone(deploy), init_cfg=None)
    cfg.model.neck.in_channels = [8, 16, 32, 64][-len(cfg.model.neck.in_channels) :]
    return cfg


def saved(cfg: Config, deployed: bool, path: Path) -> tuple[nn.Module, str]:
    """Make a model in training form, and save it in one of the forms."""
    torch.manual_seed(0)
    init_default_scope(cfg.get("default_scope", "mmengine"))
    model = randomize_bn(MODELS.build(cfg.model)).eval()
    weights = whole_model_convert(model) if deployed else model
    torch.save({"state_dict": weights.state_dict(), "meta": {}}, path)
    return model, str(path)


def all_deployed(model: nn.Module) -> bool:
    return all(block.deployed for block in model.modules() if isinstance(block, RepVGGBlock))


def said_nothing(captured: Any) -> bool:
    return "do not match" not in captured.out + captured.err and "unexpected key" not in captured.out + captured.err


def a_photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)


@pytest.mark.parametrize("deployed", FORMS.values(), ids=FORMS)
def test_init_model_of_mmseg(deployed: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from mmseg.apis import inference_model, init_model

    reference, path = saved(segmentor(deploy=False), deployed, tmp_path / "weights.pth")
    model = init_model(segmentor(deploy=not deployed), path, device="cpu")
    assert all_deployed(model) and said_nothing(capfd.readouterr())
    reference.cfg = segmentor(deploy=False)
    ours, theirs = (inference_model(each, a_photo()).seg_logits.data for each in (model, reference))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert theirs.std() > 0


@pytest.mark.parametrize("deployed", FORMS.values(), ids=FORMS)
def test_init_detector_of_mmdet(deployed: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from mmdet.apis import init_detector

    reference, path = saved(detector(deploy=False), deployed, tmp_path / "weights.pth")
    model = init_detector(detector(deploy=not deployed), path, device="cpu")
    assert all_deployed(model) and said_nothing(capfd.readouterr())
    with torch.no_grad():
        ours, theirs = (each(image(1, 3, 64, 96), mode="tensor") for each in (model, reference))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@DATASETS.register_module(force=True)
class EightImages(Dataset):
    """Images of noise; three classes in turn."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"inputs": image(3, 32, 48, seed=index), "data_samples": torch.tensor(index % 3)}


def runner_config(deploy: bool, work_dir: Path, **settings: Any) -> Config:
    model = {"type": "ImageClassifier", "backbone": backbone(deploy), "num_classes": 3}
    loader = {
        "dataset": {"type": "EightImages"},
        "batch_size": 4,
        "num_workers": 0,
        "sampler": {"type": "DefaultSampler"},
    }
    loader["collate_fn"] = {"type": "default_collate"}
    cfg = {
        "model": model,
        "work_dir": str(work_dir),
        "test_dataloader": loader,
        "test_cfg": {"type": "TestLoop"},
        "test_evaluator": {"type": "TopKAccuracy"},
        "experiment_name": work_dir.name,
        "log_level": "INFO",
        **settings,
    }
    return Config(cfg)


def test_runner_tests_both_forms_alike(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _, training = saved(runner_config(False, tmp_path), False, tmp_path / "training.pth")
    _, deployed = saved(runner_config(False, tmp_path), True, tmp_path / "deployed.pth")
    metrics, scores = [], []
    for index, (deploy, path) in enumerate([(False, training), (False, deployed), (True, training), (True, deployed)]):
        runner = Runner.from_cfg(runner_config(deploy, tmp_path / str(index), load_from=path))
        metrics.append(runner.test())
        with torch.no_grad():
            scores.append(runner.model.eval()(image(2, 3, 32, 48)))
    assert metrics[0] and all(one == metrics[0] for one in metrics)
    for one in scores[1:]:
        torch.testing.assert_close(one, scores[0], rtol=1e-4, atol=1e-4)
    assert said_nothing(capfd.readouterr())


def training(**settings: Any) -> dict[str, Any]:
    return {
        "train_cfg": {"type": "EpochBasedTrainLoop", "max_epochs": 1},
        "optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": 0.01}},
        **settings,
    }


@pytest.mark.parametrize("ema", [False, True])
def test_training_from_a_deployed_file_is_refused(ema: bool, tmp_path: Path) -> None:
    """The optimizer would go on with branches that are no longer there: nothing would train."""
    cfg = runner_config(False, tmp_path / "run")
    _, path = saved(cfg, True, tmp_path / "deployed.pth")
    hooks = [{"type": "EMAHook"}] if ema else []
    cfg.merge_from_dict(training(load_from=path, custom_hooks=hooks, train_dataloader=cfg.test_dataloader))
    with pytest.raises(ValueError, match=r"SGD holds its parameters already.*Build the model with deploy=True"):
        Runner.from_cfg(cfg).train()


@pytest.mark.parametrize("deployed", FORMS.values(), ids=FORMS)
def test_a_plain_network_trains_from_either_file(deployed: bool, tmp_path: Path) -> None:
    cfg = runner_config(True, tmp_path / "run")
    reference, path = saved(runner_config(False, tmp_path), deployed, tmp_path / "weights.pth")
    cfg.merge_from_dict(training(load_from=path, train_dataloader=cfg.test_dataloader))
    trained = dict(Runner.from_cfg(cfg).train().named_parameters())
    for name, start in whole_model_convert(reference).named_parameters():
        assert not torch.equal(trained[name], start)  # it trains, and from the file:
        torch.testing.assert_close(trained[name], start, rtol=0, atol=0.1)


@pytest.mark.parametrize("deployed", FORMS.values(), ids=FORMS)
def test_loading_with_revised_keys(deployed: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    reference, _ = saved(segmentor(deploy=False), deployed, tmp_path / "weights.pth")
    weights = {
        f"module.student.{key}": tensor for key, tensor in torch.load(tmp_path / "weights.pth")["state_dict"].items()
    }
    model = MODELS.build(segmentor(deploy=not deployed).model).eval()
    revise = [(r"^module\.", ""), (r"^student\.", "")]
    _load_checkpoint_to_model(model, {"state_dict": weights}, revise_keys=revise)
    assert all_deployed(model) and said_nothing(capfd.readouterr())
    with torch.no_grad():
        ours, theirs = (each(image(1, 3, 64, 96), mode="tensor") for each in (model, reference))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_partial_weights_are_refused_where_mmengine_would_warn(tmp_path: Path) -> None:
    from mmseg.apis import init_model

    for name, change, message in (
        ("missing", lambda w: w.pop("backbone.stage1.0.rbr_1x1.conv.weight"), "lack rbr_1x1.conv.weight"),
        ("wider", lambda w: w.update({"backbone.stage1.0.rbr_dense.bn.bias": torch.ones(9)}), "wrong shape of"),
    ):
        reference, path = saved(segmentor(deploy=False), False, tmp_path / f"{name}.pth")
        weights = reference.state_dict()
        change(weights)
        torch.save({"state_dict": weights}, path)
        with pytest.raises(ValueError, match=rf"backbone\.stage1\.0: .*{message}"):
            init_model(segmentor(deploy=False), path, device="cpu")


def test_the_head_alone_may_be_loaded(tmp_path: Path) -> None:
    reference, _ = saved(segmentor(deploy=False), False, tmp_path / "weights.pth")
    head = {key: tensor for key, tensor in reference.state_dict().items() if key.startswith("decode_head.")}
    model = MODELS.build(segmentor(deploy=True).model)
    _load_checkpoint_to_model(model, {"state_dict": head})
    assert torch.equal(model.decode_head.conv_seg.weight, reference.decode_head.conv_seg.weight)


def test_averaged_models_are_switched_with_theirs(tmp_path: Path) -> None:
    """EMAHook holds a copy of the model, which loads the same file, and swaps both before testing."""
    cfg = runner_config(False, tmp_path / "run", custom_hooks=[{"type": "EMAHook"}])
    reference, path = saved(cfg, True, tmp_path / "deployed.pth")
    cfg.load_from = path
    runner = Runner.from_cfg(cfg)
    runner.test()
    x = image(2, 3, 32, 48)
    with torch.no_grad():
        torch.testing.assert_close(runner.model.eval()(x), reference(x), rtol=1e-4, atol=1e-4)
