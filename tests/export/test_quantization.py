"""8 bits: what TensorRT can read, near the checkpoint, from the right images."""

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from command_lines import CLS, ROOT, SEG
from export_models import SIZES
from helpers import SMALL_ARCH
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from repvgg_mm.checkpoint import parse_config
from repvgg_mm.export import writers
from repvgg_mm.export.calibration_images import CalibrationImages
from repvgg_mm.export.export_checkpoint import export_checkpoint


class TestInt8:
    @pytest.mark.parametrize("suffix", [".onnx", ".xml"])
    def test_smaller_and_near(self, suffix: str, checkpoints: dict[str, str], tmp_path: Path) -> None:
        sizes = []
        for int8 in (0, 8):
            export = export_checkpoint(checkpoints[SEG], str(tmp_path / f"{int8}{suffix}"), (128, 128), int8=int8)
            sizes.append(sum(file.stat().st_size for file in export.files if file.suffix != ".xml"))
        # Without VNNI, ONNX Runtime adds pairs of products in 16 bits, which random weights saturate.
        limit = 2 if suffix == ".onnx" else 0.6
        assert 1e-4 < export.difference.relative < limit and export.tolerance is None
        assert sizes[1] < 0.5 * sizes[0]

    def test_quantised_as_tensorrt_asks_for_it(self, checkpoints: dict[str, str], tmp_path: Path) -> None:
        """Signed, every zero point 0, weights stored in 8 bits with a scale a channel, no bias quantised."""
        export_checkpoint(checkpoints[CLS], str(tmp_path / "int8.onnx"), (64, 64), batch=2, int8=4)
        graph = onnx.load(tmp_path / "int8.onnx").graph
        values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        nodes = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
        assert len(nodes) > 12
        assert all(values[node.input[2]].dtype == "int8" and not values[node.input[2]].any() for node in nodes)
        stored = {node.output[0]: node for node in nodes if node.input[0] in values}
        for conv in (node for node in graph.node if node.op_type == "Conv"):
            weight, scale, _ = (values[name] for name in stored[conv.input[1]].input)
            assert weight.dtype == "int8" and scale.shape == weight.shape[:1]
            assert values[conv.input[2]].dtype == "float32"

    def test_the_same_twice(self, checkpoints: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(writers, "make_graph", writers.make_graph.__wrapped__)  # type: ignore[attr-defined]
        files = [tmp_path / name for name in ("a.onnx", "b.onnx")]
        for file in files:
            export_checkpoint(checkpoints[CLS], str(file), (64, 64), int8=4)
        assert files[0].read_bytes() == files[1].read_bytes()

    @pytest.mark.parametrize(
        "size, batch, message",
        [((64, 96), 1, "is 64 x 64, not 64 x 96"), ((64, 64), 1000, "fewer than the batch of 1000")],
    )
    def test_data_that_do_not_fit(
        self, size: tuple[int, int], batch: int, message: str, checkpoints: dict[str, str], tmp_path: Path
    ) -> None:
        with pytest.raises(ValueError, match=message):
            export_checkpoint(checkpoints[CLS], str(tmp_path / "int8.onnx"), size, batch, int8=4)
        assert not list(tmp_path.iterdir())

    def test_needs_training_data(self, checkpoints: dict[str, str], tmp_path: Path) -> None:
        cfg = Config.fromfile(ROOT / CLS)
        cfg.model.backbone.update(arch=SMALL_ARCH, init_cfg=None)
        cfg.train_dataloader = {}
        cfg.dump(tmp_path / "config.py")
        with pytest.raises(ValueError, match="calibrating needs a config whose train_dataloader"):
            out, config = str(tmp_path / "int8.onnx"), str(tmp_path / "config.py")
            export_checkpoint(checkpoints[CLS], out, (64, 64), config=config, int8=4)

    def calibration(self, checkpoints: dict[str, str], config: str, **options: Any) -> list[torch.Tensor]:
        cfg = Config(parse_config(torch.load(checkpoints[config], weights_only=False)["meta"]["cfg"]))
        cfg.merge_from_dict(options)
        init_default_scope(cfg.default_scope)
        images = CalibrationImages(cfg, MODELS.build(cfg.model), 4, (2, 3, *SIZES[config]))
        first, second = list(images), list(images)
        torch.testing.assert_close(first, second, rtol=0, atol=0)
        assert len(images) == len(first) == 2
        return first

    def test_wrapped_data(self, checkpoints: dict[str, str]) -> None:
        plain = self.calibration(checkpoints, SEG)
        data = torch.load(checkpoints[SEG], weights_only=False)["meta"]["cfg"]
        data = parse_config(data)["train_dataloader"]["dataset"]
        wrapped = {"_delete_": True, "type": "RepeatDataset", "times": 1, "dataset": data}
        for ours, theirs in zip(
            self.calibration(checkpoints, SEG, **{"train_dataloader.dataset": wrapped}), plain, strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)

    def test_slide_mode_takes_the_middle(self, checkpoints: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        whole = self.calibration(checkpoints, SEG)
        monkeypatch.setitem(SIZES, SEG, (64, 96))
        slide = {"model.test_cfg": {"mode": "slide", "crop_size": (64, 96), "stride": (32, 32)}}
        for crop, images in zip(self.calibration(checkpoints, SEG, **slide), whole, strict=True):
            torch.testing.assert_close(crop, images[:, :, 32:96, 16:112], rtol=0, atol=0)

    def test_data_that_are_gone(self, checkpoints: dict[str, str]) -> None:
        with pytest.raises(ValueError, match="give a config with the place of the training data"):
            self.calibration(checkpoints, CLS, **{"train_dataloader.dataset.data_root": "/gone"})
