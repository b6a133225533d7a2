"""Starting several runs in one process."""

from pathlib import Path

from mmengine.config import Config
from training_runs import EPOCHS, write_config

from repvgg_mm.engine.launch import build_runner


def test_runs_of_one_second_share_nothing(digits: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, digits, EPOCHS)
    runners = []
    for name in ("one", "two", "three"):
        cfg = Config.fromfile(config)
        cfg.model.backbone.init_cfg = None
        cfg.work_dir = str(tmp_path / name)
        cfg.visualizer = {"type": "Visualizer", "name": "visualizer", "vis_backends": [{"type": "LocalVisBackend"}]}
        runners.append(build_runner(cfg))
        assert "experiment_name" not in cfg and "experiment_name" not in runners[-1].cfg
    for part in ("experiment_name", "logger", "message_hub", "visualizer"):
        assert len({id(getattr(runner, part)) for runner in runners}) == 3, part
    assert [Path(runner.work_dir).name for runner in runners] == ["one", "two", "three"]
    assert all((Path(runner.log_dir) / "vis_data/config.py").is_file() for runner in runners)
