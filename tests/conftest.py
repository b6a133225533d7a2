"""Fixtures that several test files share."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_once import made_once, of_all_workers

from repvgg_mm.data.digits import make_digits

os.environ["CI"] = "true"  # OpenVINO sends usage data, but not from a CI
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session", autouse=True)
def _configs_are_formatted_once() -> Iterator[None]:
    from format_once import format_once

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("yapf.yapflib.yapf_api.FormatCode", format_once)
        yield


@pytest.fixture(scope="module", autouse=True)
def _what_lives_on_is_collected_once() -> None:
    """mmengine's data sets collect garbage as they are built: half a second each among all that OpenMMLab imports."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _workers_end_soon() -> Iterator[None]:
    """A loader that is collected as garbage can't tell its processes to end: torch waits 5 s for each, then ends it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)
        yield


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small digits data set."""

    def make(folder: Path) -> None:
        make_digits(folder / "digits", train_scenes=12, val_scenes=4, train_images=40, val_images=10)

    return made_once(tmp_path_factory, "data", make) / "digits"


@pytest.fixture(scope="session")
def graphs_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let the exporter remember its graphs, for the tests that export."""
    from graphs_once import read_operators_once, remembering

    from repvgg_mm.export import writers

    folder = of_all_workers(tmp_path_factory) / "graphs"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writers, "make_graph", remembering(writers.make_graph, folder))
        read_operators_once(patch)
        yield


@pytest.fixture(scope="session")
def complete_files(tmp_path_factory: pytest.TempPathFactory, digits: Path, graphs_once: None) -> dict[str, Path]:
    """A complete .onnx file a task, with its checkpoint beside it; of small models with random weights."""
    from export_models import SIZES, TASKS, make_sure, save

    from repvgg_mm.export.export_complete import export_complete

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DIGITS", str(digits))  # the configs inside the checkpoints remember it
            for config in SIZES:
                checkpoint = folder / f"{TASKS[config]}.pth"
                save(config, checkpoint)
                if TASKS[config] == "detection":
                    make_sure(checkpoint)
                export = export_complete(str(checkpoint), str(checkpoint.with_suffix(".onnx")))
                assert export.files, str(export.agreement)

    folder = made_once(tmp_path_factory, "complete", make)
    return {task: folder / f"{task}.onnx" for task in TASKS.values()}


@pytest.fixture(autouse=True)
def scope_of_a_fresh_process() -> None:
    """Forget mmengine's default scope, which may be another library's, and the folder of a run in the same second."""
    if "mmengine" in sys.modules:
        from mmengine.registry import DefaultScope

        DefaultScope._instance_dict.clear()
    if "mmengine.visualization" in sys.modules:
        from mmengine.visualization import Visualizer

        Visualizer._instance_dict.clear()
