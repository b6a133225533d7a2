"""An installation by pip, used from outside the checkout: what it holds, and what it does when Python starts."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import mmdet
import pytest
import torch

ROOT = Path(__file__).parents[2]
SOURCES = ("repvgg_mm", "configs", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "NOTICE")
TOOLS = Path(mmdet.__file__).parent / ".mim" / "tools"
pytest.importorskip("setuptools", minversion="77")
no_extension = pytest.mark.skipif(
    any(list(Path(folder, "mmcv").glob("_ext*.so")) for folder in sys.path),
    reason="this mmcv has its compiled extension",
)


class Environment:
    """A virtual environment of its own with all packages of this one but repvgg_mm, and a folder to work in."""

    def __init__(self, folder: Path, *install: str) -> None:
        self.folder = folder / "work"
        self.folder.mkdir()
        source = folder / "source"
        source.mkdir()
        for name in SOURCES:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, source / name)
        venv.create(folder / "venv", symlinks=True)
        self._python = folder / "venv" / "bin" / "python"
        self.site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder / "venv")}))
        others = [entry for entry in sys.path if Path(entry).name in ("site-packages", ".openmmlab")]
        (self.site / "others.pth").write_text("\n".join(others))  # their .pth files are not read: no repvgg_mm
        pip = [sys.executable, "-m", "pip", "--python", str(self._python), "install", "--quiet", "--no-index"]
        flags = ["--no-deps", "--no-build-isolation", "--ignore-installed"]
        subprocess.run([*pip, *flags, *install, str(source)], check=True, cwd=self.folder)

    def python(self, *command: object, **variables: str) -> subprocess.CompletedProcess:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        env |= {"OMP_NUM_THREADS": "1", **variables}
        arguments = [str(self._python), *map(str, command)]
        return subprocess.run(arguments, capture_output=True, text=True, cwd=self.folder, env=env)

    def commands(self, *lines: list[object], **variables: str) -> subprocess.CompletedProcess:
        """Run scripts of Python one after the other, until one fails, in one process."""
        script = (
            "import runpy, sys\n"
            f"for line in {[[str(word) for word in line] for line in lines]}:\n"
            "    sys.argv = line\n"
            "    try:\n"
            "        runpy.run_path(line[0], run_name='__main__')\n"
            "    except SystemExit as stop:\n"
            "        if stop.code: raise\n"
        )
        return self.python("-c", script, **variables)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def editable(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("editable"), "--editable")


@pytest.fixture(params=["installed", "editable"])
def environment(request: pytest.FixtureRequest) -> Environment:
    return request.getfixturevalue(request.param)


def test_starting_python_adds_a_finder_and_imports_nothing(environment: Environment) -> None:
    script = (
        "import sys\n"
        "names = ('repvgg_mm', 'torch', 'torchvision', 'mmcv', 'mmengine', 'typing', 'pathlib', 'importlib.abc')\n"
        "print([getattr(finder, 'serves', None) for finder in sys.meta_path].count('mmcv._ext'), sys.modules.keys())\n"
    )
    done = environment.python("-c", script)
    count, modules = done.stdout.split(maxsplit=1)
    assert count == "1" and "'repvgg_mm'" not in modules and "'torch'" not in modules, done


def test_it_costs_under_two_milliseconds(installed: Environment) -> None:
    """As Python itself reports it; the least of five, for the machine is shared."""
    cumulative = []
    for _ in range(5):
        report = installed.python("-X", "importtime", "-c", "").stderr
        (line,) = [line for line in report.splitlines() if line.rstrip().endswith("_repvgg_mm_mmcv_ops")]
        cumulative.append(int(line.split("|")[1]))
    assert min(cumulative) < 2000, cumulative


@no_extension
def test_mmcv_ops_import_without_registering_anything(environment: Environment) -> None:
    done = environment.python("-c", "import mmcv.ops, sys; print(mmcv.ops.nms.__module__, 'repvgg_mm' in sys.modules)")
    assert done.stdout.split() == ["mmcv.ops.nms", "False"], done.stderr


def test_configs_are_found_by_name(environment: Environment) -> None:
    script = "import repvgg_mm; print(repvgg_mm.config_file('_base_/pspnet'), repvgg_mm.__file__)"
    done = environment.python("-c", script)
    config, package = map(Path, done.stdout.split())
    assert config.is_file() and config.name == "pspnet.py", done.stderr
    assert ROOT not in config.parents and ROOT not in package.parents


def test_the_wheel_says_its_licence_and_that_it_is_typed(installed: Environment) -> None:
    assert (installed.site / "repvgg_mm" / "py.typed").is_file()
    (info,) = installed.site.glob("repvgg_mm-*.dist-info")
    assert {path.name for path in (info / "licenses").iterdir()} == {"LICENSE", "NOTICE"}
    assert "License-Expression: Apache-2.0" in (info / "METADATA").read_text()


@pytest.mark.skipif(not TOOLS.is_dir(), reason="this mmdet has no tools")
def test_mmdets_own_tools_train_and_test_a_config_of_ones_own(installed: Environment, digits: Path) -> None:
    """They import mmcv's operators before they read a config. One process for both saves the second start."""
    (installed.folder / "mine.py").write_text(
        "_base_ = __import__('repvgg_mm').config_file('retinanet_repvgg_digits')\n"
        "custom_imports = dict(imports=['repvgg_mm'])\n"
        "model = dict(backbone=dict(init_cfg=None), test_cfg=dict(score_thr=0))\n"
        "train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=1, val_interval=10)\n"
        "default_hooks = dict(checkpoint=dict(interval=1, by_epoch=False, save_best=None))\n"
    )
    done = installed.commands(
        [TOOLS / "train.py", "mine.py", "--work-dir", "run"],
        [TOOLS / "test.py", "mine.py", "run/iter_1.pth", "--work-dir", "run"],
        DIGITS=str(digits),
    )
    assert done.returncode == 0, done.stderr
    assert "bbox_mAP_copypaste" in done.stdout, done.stdout


def test_a_config_that_comes_with_the_wheel_trains_and_its_checkpoint_converts(
    installed: Environment, digits: Path
) -> None:
    options = ["model.backbone.init_cfg=None", "train_cfg.max_iters=1", "train_cfg.val_interval=1"]
    command = shutil.which("repvgg-mm", path=str(installed.site.parents[2] / "bin"))
    assert command
    done = installed.commands(
        [command, "train", "pspnet_repvgg_digits", "--work-dir", "ours", "--cfg-options", *options],
        [command, "convert", "ours/iter_1.pth", "deployed.pth"],
        DIGITS=str(digits),
    )
    assert done.returncode == 0, done.stderr
    weights = torch.load(installed.folder / "deployed.pth", weights_only=True)["state_dict"]
    assert "backbone.stage1.0.rbr_reparam.weight" in weights
