"""What the documentation names is there: links, paths, commands, flags and config keys."""

import itertools
import re
import shlex
from pathlib import Path

import pytest
from mmengine.config import Config, ConfigDict
from pages import PAGES, ROOT, blocks

from repvgg_mm.cli.command import TRACEBACK
from repvgg_mm.cli.main import COMMANDS

_PATH = re.compile(r"(?<![\w/.])((?:configs|tools|tests|docs|repvgg_mm)/[\w./{},*-]*[\w}*])(?![\w/])")


def expand(path: str) -> list[str]:
    """Write ``a_{b,c}`` out as ``a_b`` and ``a_c``."""
    parts = [part.split(",") for part in re.split(r"[{}]", path)]
    return ["".join(choice) for choice in itertools.product(*parts)]


def ids(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_paths_exist(page: Path) -> None:
    names = {name for found in _PATH.findall(page.read_text()) for name in expand(found)}
    assert [name for name in sorted(names) if not list(ROOT.glob(name)) and not list(ROOT.glob(f"{name}.py"))] == []


@pytest.fixture(scope="module")
def flags() -> dict[str, set[str]]:
    """Each command's flags, as its ``--help`` lists them."""
    import contextlib
    import io
    from importlib import import_module

    known = {}
    for name in COMMANDS:
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown), pytest.raises(SystemExit):
            import_module(f"repvgg_mm.cli.{name.replace('-', '_')}").main(["--help"])
        known[name] = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", shown.getvalue()))
    return known


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """The commands of a page: the name of each and what follows it."""
    found = []
    for line in itertools.chain.from_iterable(block.commands for block in blocks(page)):
        words = [word for word in shlex.split(line) if not re.fullmatch(r"[A-Z_]+=.*", word)]
        match words:
            case ["tools/dist_train.sh", *rest]:
                found.append(("train", rest))
            case ["python", "-m", "repvgg_mm", name, *rest] | ["repvgg-mm", name, *rest]:
                found.append((name, rest))
            case ["python", tool, *rest]:
                found.append((Path(tool).stem.replace("_", "-"), rest))
    return found


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_and_flags_exist(page: Path, flags: dict[str, set[str]]) -> None:
    for name, rest in commands(page):
        if name in ("--version", "--help"):
            continue
        assert name in COMMANDS, name
        assert {word for word in rest if word.startswith("-")} <= flags[name], (name, rest)


OTHERS_FLAGS = {"--opt_out"}  # of OpenVINO's own tool


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_flags_in_the_text_exist(page: Path, flags: dict[str, set[str]]) -> None:
    spans = re.findall(r"`([^`\n]+)`", page.read_text())
    named = {flag for span in spans for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", span)}
    assert named <= set().union(*flags.values(), OTHERS_FLAGS, {TRACEBACK})


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_run_in_a_test_or_are_marked(page: Path) -> None:
    """`test_your_data.py` runs three sections of its page on what the first block makes; the others say ``norun``."""
    untold = [block.commands for block in blocks(page) if block.commands and "norun" not in block.info.split()]
    assert len(untold) == (4 if page.name == "your-data.md" else 0), untold


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_config_keys_exist(page: Path) -> None:
    """A key given behind ``--cfg-options`` has its place in the config that the command names."""
    for name, rest in commands(page):
        config = next((ROOT / word for word in rest if word.startswith("configs/") and (ROOT / word).is_file()), None)
        if config is None or "--cfg-options" not in rest:
            continue
        cfg = Config.fromfile(config)
        for option in rest[rest.index("--cfg-options") + 1 :]:
            key = option.partition("=")[0]
            place: object = cfg._cfg_dict
            for part in key.split(".")[:-1]:
                place = place[int(part)] if isinstance(place, (list, tuple)) else place[part]
            assert isinstance(place, (ConfigDict, list, tuple)), (name, option)


def test_the_readme_fits_on_a_few_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
