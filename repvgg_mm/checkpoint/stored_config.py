"""The training config that mmengine stores in a checkpoint as Python text: read, changed, written, never executed.

`mmengine.Config.fromstring` executes the text, and mmengine's registry imports and calls whatever a `type` names. A
checkpoint from somebody else could run anything that way, so the text is read as literals only, and only what
`take_parts` takes from it is built.
"""

from __future__ import annotations

import ast
import keyword
import math
import pprint
import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ..archs import resolve_arch
from ..names import type_name
from .errors import CheckpointError

_BACKBONES = ("RepVGG", "RepVGGplus")
_WIDTH = 110
_LONGEST = 150_000  # characters; configs have 5,000 to 50,000, and parsing takes up to 14 s for a million
_LARGEST_BITS = 1000  # of an integer: Python refuses to print very large ones


def find_config_text(checkpoint: object) -> str | None:
    """Find the config that mmengine stored in a checkpoint.

    Args:
        checkpoint: What `load_checkpoint` returned.

    Returns:
        Python text, or None when there is none (also when it is empty: training without a config).
    """
    for path in (("meta", "cfg"), ("message_hub", "runtime_info", "cfg")):
        value = checkpoint
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str) and value.strip():
            return value
    return None


def find_dataset_meta(checkpoint: object) -> dict[str, Any]:
    """Find what mmengine stored in a checkpoint about the data set: names and colours of the classes.

    Args:
        checkpoint: What `load_checkpoint` returned.

    Returns:
        Name -> value; empty when there is nothing.

    Raises:
        CheckpointError: If the names of the classes are no names.
    """
    meta = checkpoint.get("meta") if isinstance(checkpoint, dict) else None
    found = meta.get("dataset_meta") if isinstance(meta, dict) else None
    found = found if isinstance(found, dict) else {}
    classes = found.get("classes")
    if classes is not None and not (isinstance(classes, list | tuple) and all(map(_is_name, classes))):
        raise CheckpointError(f"dataset_meta.classes={classes!r:.80} in the file are no printable names")
    return found


def _is_name(value: object) -> bool:
    """Take any letters, but nothing that a terminal would obey."""
    return isinstance(value, str) and value.isprintable()


def parse_config(text: str) -> dict[str, Any]:
    """Read a stored config: assignments of literals, `dict(...)` calls included; nothing is executed.

    A class that was given as `type=torch.optim.SGD` is printed by mmengine without quotes; it becomes that text.

    Args:
        text: What `find_config_text` returned.

    Returns:
        Name -> value.

    Raises:
        CheckpointError: If there is anything else in it; the message names the line.
    """
    cfg: dict[str, Any] = {}
    try:
        for statement in _parse(text):
            if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
                raise _refusal(statement)
            name = statement.targets[0].id
            if name == "_base_" or len(statement.targets) > 1:
                raise _refusal(statement)
            cfg[name] = _literal(statement.value)
    except CheckpointError:
        raise
    except (RecursionError, MemoryError, TypeError, ValueError) as error:  # too deep; a list as a key; endless digits
        raise CheckpointError(f"the stored config cannot be read ({type(error).__name__})") from None
    return cfg


def _parse(text: str) -> list[ast.stmt]:
    if len(text) > _LONGEST:
        raise CheckpointError(f"the stored config has {len(text)} characters, more than the {_LONGEST} that are read")
    try:
        return ast.parse(text).body
    except SyntaxError as error:
        raise CheckpointError(f"the stored config is not Python, line {error.lineno}: {error.msg}") from None
    except ValueError as error:  # characters that no source text has
        raise CheckpointError(f"the stored config is not Python: {error}") from None


def _refusal(node: ast.AST) -> CheckpointError:
    """Make the error that names the line and shows what is there."""
    line, code = getattr(node, "lineno", "?"), ast.unparse(node)
    return CheckpointError(f"line {line} of the stored config is not a plain value: {code!r:.80}")


def _literal(node: ast.expr) -> Any:
    """Turn one expression into its value."""
    match node:
        case ast.Constant(value=str() | float() | None):
            return node.value
        case ast.Constant(value=int() as number) if number.bit_length() <= _LARGEST_BITS:
            return number
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float()) | ast.Name()):
            return -_literal(node.operand)
        case ast.Name(id="inf" | "nan"):  # how mmengine prints such a float
            return float(node.id)
        case ast.Attribute() if re.fullmatch(r"[\w.]+", name := ast.unparse(node)):
            return name
        case ast.List():
            return [_literal(item) for item in node.elts]
        case ast.Tuple():
            return tuple(_literal(item) for item in node.elts)
        case ast.Set():
            return {_literal(item) for item in node.elts}
        case ast.Dict() if None not in node.keys:
            keys = [_literal(key) for key in node.keys if key]
            return dict(zip(keys, map(_literal, node.values), strict=True))
        case ast.Call(func=ast.Name(id="dict"), args=[] | [ast.Dict()]) if all(word.arg for word in node.keywords):
            first = _literal(node.args[0]) if node.args else {}
            return first | {str(word.arg): _literal(word.value) for word in node.keywords}
        case ast.Call(func=ast.Name(id="float"), args=[ast.Constant(value="inf" | "-inf" | "nan")], keywords=[]):
            return float(ast.literal_eval(node.args[0]))
        case _:
            raise _refusal(node)


def render_config(cfg: dict[str, Any]) -> str:
    """Write a config as Python text that `parse_config` and `mmengine.Config.fromstring` read back as it was.

    mmengine's own `pretty_text` prints infinite floats as a name that Python does not know, and formats for seconds.

    Args:
        cfg: Name -> value, as from `parse_config`.

    Returns:
        One assignment a name.

    Raises:
        CheckpointError: If a name is no Python name, or a value is none of the kinds that `parse_config` returns.
    """
    for name in cfg:
        if not _is_identifier(name):
            raise CheckpointError(f"{name!r} cannot be a name in a config")
    printer = _Printer(width=_WIDTH, compact=True, sort_dicts=False)
    rows = {f"{name} = ": printer.pformat(_plain(value)) for name, value in cfg.items()}
    return "".join(start + text.replace("\n", "\n" + " " * len(start)) + "\n" for start, text in rows.items())


def _is_identifier(key: object) -> bool:
    return isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key)


class _Printer(pprint.PrettyPrinter):
    """Prints floats that are not finite as Python reads them."""

    def format(self, value: object, *context: Any) -> tuple[str, bool, bool]:
        if isinstance(value, float) and not math.isfinite(value):
            return f"float({str(value)!r})", True, False
        return super().format(value, *context)


def _plain(value: Any) -> Any:
    """Copy a value into Python's own containers; refuse what `parse_config` could not read back."""
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    for container in (list, tuple, set):
        if isinstance(value, container):
            return container(map(_plain, value))
    if value is not None and not isinstance(value, str | int | float):
        raise CheckpointError(f"a config cannot hold {value!r:.80} of type {type(value).__name__}")
    return value


def set_deploy(cfg: dict[str, Any]) -> int:
    """Turn every RepVGG backbone of a config, in place, into its deployed form.

    Its `init_cfg` goes too: the weights it names are of the training form.

    Args:
        cfg: As from `parse_config`.

    Returns:
        How many backbones there are.
    """
    backbones = _backbones(cfg)
    for part in backbones:
        part["deploy"] = True
        part.pop("init_cfg", None)
    return len(backbones)


def set_conv_bn(cfg: dict[str, Any]) -> int:
    """Turn every RepVGG backbone of a config, in place, into one of deployed blocks with batch normalisation put in.

    Args:
        cfg: As from `parse_config`.

    Returns:
        How many backbones there are.
    """
    backbones = _backbones(cfg)
    for part in backbones:
        part["arch"] = asdict(resolve_arch(part["arch"]).of_kind(conv_bn=True))
        part.pop("deploy", None)
        part.pop("init_cfg", None)
    return len(backbones)


def _backbones(cfg: dict[str, Any]) -> list[dict[str, Any]]:
    parts = (part for _, part in _walk(cfg, ()) if isinstance(part, dict))
    return [part for part in parts if type_name(part) in _BACKBONES]


def _walk(value: Any, keys: tuple[object, ...]) -> Iterator[tuple[tuple[object, ...], Any]]:
    """Yield every value inside a config with the keys that lead to it, containers before what they hold."""
    yield keys, value
    if isinstance(value, list | tuple | set):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _walk(item, (*keys, key))
