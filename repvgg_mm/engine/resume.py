"""Which checkpoint a training goes on from."""

from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config

from ..checkpoint import CheckpointError, load_checkpoint
from .saving import LAST


def resume_newest(cfg: Config) -> str:
    """Let a run go on from the last checkpoint in its work dir, or from the newest that loads.

    A run that was killed may leave an empty ``last_checkpoint``, or a file that is not complete.

    Args:
        cfg: the run's config; ``load_from`` and ``resume`` are set in place. Without any checkpoint in the work dir
            they stay as they are, and ``resume`` becomes False.

    Returns:
        One line for the log: what was found.

    Raises:
        CheckpointError: if there are checkpoints of a training and none loads.
    """
    folders = [Path(cfg.work_dir)]
    if out_dir := ((cfg.get("default_hooks") or {}).get("checkpoint") or {}).get("out_dir"):
        folders.append(Path(out_dir) / folders[0].name)  # where mmengine puts them then
    named = _named(folders[0])
    failed: list[str] = []
    for path in filter(None, (named, *_newest_first(folders))):
        reason = _why_not(path)
        if reason is None:
            cfg.load_from, cfg.resume = str(path), True
            instead = "" if path == named else f" ({folders[0] / LAST} names no checkpoint that loads)"
            return f"resuming from {path}{instead}" + "".join(f"; passed over {line}" for line in failed)
        if reason and f"{path}: {reason}" not in failed:
            failed.append(f"{path}: {reason}")
    if failed:
        raise CheckpointError(f"nothing in {folders[0]} can be resumed: {'; '.join(failed)}")
    cfg.resume = False
    return f"no checkpoint of a training in {folders[0]}: starting from the beginning"


def _named(work_dir: Path) -> Path | None:
    """Return the file that ``last_checkpoint`` names, also where the work dir was moved since."""
    last = work_dir / LAST
    text = last.read_text(errors="replace").strip() if last.is_file() else ""
    places = (Path(text), work_dir / Path(text).name) if text else ()
    return next((place for place in places if place.is_file()), None)


def _newest_first(folders: list[Path]) -> list[Path]:
    files = {path for folder in folders for path in folder.glob("*.pth") if path.is_file()}
    return sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)


def _why_not(path: Path) -> str | None:
    """Return None if a file resumes a training, an empty string if it only holds weights, else what is wrong."""
    try:
        loaded = load_checkpoint(str(path))
    except (CheckpointError, OSError) as error:
        return " ".join(str(error).removeprefix(f"{path}: ").split())
    return None if isinstance(loaded, Mapping) and {"meta", "optimizer"} <= set(loaded) else ""
