"""Errors of mmengine's builders in one line: which part refused what, and which name was meant."""

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.registry import Registry

from ..data.data_error import DataError, data_message
from ..names import nearest
from ..reparam.form_matching import match_form
from .checks.data import where_it_looked
from .checks.kinds import registered_names

_PACKAGE = str(Path(__file__).parents[1])
_OURS = (ValueError, TypeError, OSError, ImportError, NotImplementedError)  # what this package raises on purpose
_SHOWN = 700  # characters of a message
_BN = "Expected more than 1 value per channel"


def explain(error: BaseException) -> str:
    """Say on one line what was wrong with what the user gave.

    Args:
        error: caught while something was built from a config.

    Returns:
        The line; it names the part that was being built and its plain arguments where the message alone is not ours.
    """
    if isinstance(error, DataError):
        return data_message(error)
    frames = [frame for frame, _ in _walk(error.__traceback__)]
    builder = next((frame for frame in reversed(frames) if "obj_type" in frame.f_locals), None)
    unknown = _unknown_kind(error, frames, builder)
    if unknown:
        return unknown
    empty = next((f.f_locals["self"] for f in frames if getattr(f.f_locals.get("self"), "data_list", None) == []), None)
    if empty is not None and isinstance(error, ValueError) and not _raised_by_us(frames):  # it joins a list of nothing
        return f"there is no image in the data set: {where_it_looked(empty)}"
    text = _plain(error)
    built = builder.f_locals.get("obj_cls") if builder is not None else None
    if builder is not None and inspect.isfunction(built):  # ours import a class when it is first named: it stands there
        built = builder.f_locals["registry"].get(builder.f_locals["obj_type"])
    keyword = re.search(r"unexpected keyword argument '(\w+)'", text)
    if keyword and built is not None:
        text += nearest(keyword[1], _arguments(built))
    if builder is None or _raised_by_us(frames):
        return text
    return f"{text} (in {_call(built, builder.f_locals.get('args', {}))})"


def explain_known(error: BaseException) -> str | None:
    """Say on one line what a training met that is not its own fault.

    Args:
        error: raised while a training or a test ran.

    Returns:
        The line; None for every error that may be a fault of the code.
    """
    if isinstance(error, DataError):
        return data_message(error)
    if isinstance(error, ValueError) and str(error).startswith(_BN):
        return (
            f"{_plain(error)}: a batch of one image leaves BN one value a channel; raise train_dataloader.batch_size, "
            "or set train_dataloader.drop_last=True where only the last batch of an epoch is so small"
        )
    frames = [frame for frame, _ in _walk(error.__traceback__)]
    if isinstance(error, ValueError) and any(frame.f_code is match_form.__code__ for frame in frames):
        return _plain(error)  # about weights, such as those of `load_from`
    callers = [frame.f_locals.get("self") for frame in frames]
    metric = next((caller for caller in callers if isinstance(caller, BaseMetric)), None)
    if metric is not None and isinstance(error, (TypeError, ValueError, LookupError)) and not is_our_fault(error):
        given = {name: value for name, value in vars(metric).items() if value is not None and name != "results"}
        return f"{_plain(error)} (in {_call(type(metric), given)}): look at its arguments in the config"
    return None


def is_our_fault(error: BaseException) -> bool:
    """Tell a fault of this package from a mistake in what the user gave.

    Args:
        error: caught while something was built from a config.

    Returns:
        Whether the error came up in this package's own code, and is of a kind that the package never raises.
    """
    return not isinstance(error, _OURS) and _raised_by_us([frame for frame, _ in _walk(error.__traceback__)])


def _walk(trace: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    while trace is not None:
        yield trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next


def _raised_by_us(frames: list[FrameType]) -> bool:
    return bool(frames) and frames[-1].f_code.co_filename.startswith(_PACKAGE)


def _plain(error: BaseException) -> str:
    text = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    if isinstance(error, KeyError) and " " not in text:
        text = f"there is no {text!r}"
    text = text or type(error).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."


def _unknown_kind(error: BaseException, frames: list[FrameType], builder: FrameType | None) -> str | None:
    """Explain a name that no registry has."""
    if not isinstance(error, (KeyError, RuntimeError)):
        return None
    missing = builder is not None and isinstance(error, KeyError) and " registry. " in str(error)
    if builder is not None and missing:
        name, registry = builder.f_locals["obj_type"], builder.f_locals["registry"]
    elif str(error).startswith("Failed to get "):
        frame = next((f for f in reversed(frames) if isinstance(f.f_locals.get("self"), Registry)), None)
        if frame is None:
            return None
        name, registry = frame.f_locals.get("key"), frame.f_locals["self"]
    else:
        return None
    return f"type={name!r} is no known {registry.name}{nearest(str(name), registered_names(registry))}"


def _arguments(built: Any) -> set[str]:
    """Return the names of all arguments of a class, those that it hands on to its parents included."""
    makers = (
        [vars(cls)["__init__"] for cls in built.__mro__ if "__init__" in vars(cls)]
        if inspect.isclass(built)
        else [built]
    )
    names: set[str] = set()
    for maker in makers:
        try:
            names |= set(inspect.signature(maker).parameters)
        except (TypeError, ValueError):  # written in C
            continue
    return names - {"self", "args", "kwargs"}


def _call(built: Any, args: Mapping[str, Any]) -> str:
    plain = [f"{name}={value!r:.80}" for name, value in args.items() if _is_plain(value)]
    return f"{getattr(built, '__name__', built)}({', '.join(plain[:12])})"


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, (str, int, float, type(None)))
