"""What starting costs: imports that wait until they are needed, and one clear line where a package is missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = sorted(path.stem for path in (ROOT / "tools").glob("*.py"))
HEAVY = ("torchvision", "torch._dynamo", "mmcv", "mmseg", "mmdet", "PIL", "sklearn", "matplotlib", "mmengine.model")


def python(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment})


def test_importing_the_package_loads_nothing_that_a_config_did_not_ask_for() -> None:
    done = python("-c", f"import sys, repvgg_mm; print([name for name in {HEAVY} if name in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_importing_the_package_registers_everything() -> None:
    """As `custom_imports` does it, looked up from the registries of each library."""
    names = {
        "MODELS": "RepVGG ImageClassifier",
        "DATASETS": "ImageFolder ImageShards",
        "DATA_SAMPLERS": "ReplaySampler ShardSampler",
        "TRANSFORMS": "SeedTransforms",
        "HOOKS": "ReplaySeedHook QuantAwareTraining",
        "METRICS": "TopKAccuracy",
        "OPTIM_WRAPPER_CONSTRUCTORS": "RepVGGOptimWrapperConstructor",
    }
    script = f"""
import repvgg_mm, mmengine.registry, mmseg.registry, mmdet.registry
for library in (mmengine, mmseg, mmdet):
    for registry, names in {names}.items():
        for name in names.split():
            found = getattr(library.registry, registry).get(name)
            assert found and found.__module__.startswith("repvgg_mm."), (library, name, found)
assert mmengine.registry.FUNCTIONS.get("collate_images") is repvgg_mm.data.collate_images
"""
    done = python("-c", script)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("tool", TOOLS)
def test_help_needs_no_torch(tool: str) -> None:
    script = (
        "import runpy, sys\n"
        f"sys.argv, sys.path[0] = ['{tool}.py', '--help'], 'tools'\n"
        "try:\n"
        f"    runpy.run_path('tools/{tool}.py', run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    print(stop.code, [name for name in ('torch', 'mmengine', 'numpy') if name in sys.modules])"
    )
    done = python("-c", script)
    assert done.stdout.splitlines()[0].startswith(f"usage: {tool}.py"), done.stderr
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize("tool", sorted({*TOOLS} - {"doctor", "serve"}))
def test_without_openmmlab_a_tool_ends_with_one_line(tool: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['mmengine'] = None")
    arguments = {
        "benchmark": ["--repeats", "1"],
        "bits": ["in.pth"],
        "compare": ["in.pth"],
        "convert": ["in.pth", "out.pth"],
        "demo": [],
        "export": ["in.pth", "out.onnx", "--size", "64", "64"],
        "infer": ["photo.jpg", "--checkpoint", "in.pth"],
        "insert_bn": ["in.pth", "out.pth"],
        "make_digits": [tmp_path / "digits"],
        "make_shards": [tmp_path, tmp_path / "shards"],
        "sensitivity": ["in.pth", "--images", "8"],
        "test": ["config.py", "in.pth"],
        "train": ["config.py"],
    }[tool]
    done = python(f"tools/{tool}.py", *arguments, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.endswith("repvgg_mm needs mmengine: pip install 'repvgg_mm[onedl]' (or 'repvgg_mm[openmmlab]')")


def test_without_openmmlab_the_doctor_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['mmengine'] = None")
    done = python("tools/doctor.py", PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    assert "mmengine: pip install 'repvgg_mm[onedl]'" in lines
    assert any(line.startswith("mmengine ") and line.endswith("fails") for line in lines)
