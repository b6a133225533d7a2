"""What the command lines share: one clear line for bad input, and the exit codes.

Importing this loads nothing heavy, so a command can answer ``--help`` at once. It imports the rest of the package where
it needs it, inside `user_input`: where OpenMMLab is missing, that is one clear line, too.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

from ..files import DISK_ERRORS
from ..openmmlab import behind_mmengine, check_installed

DONE, CHECK_FAILED, BAD_INPUT = 0, 1, 2
TRACEBACK = "--traceback"  # of every command: show where an error came up
_NO_MEMORY = ("can't allocate memory", "out of memory")  # torch's words, on the CPU and on a GPU
_FLAGS = {  # what the library calls otherwise than the command lines
    "trust=True": "--trust-checkpoint",
    "force=True": "--force",
    "resume=True": "--resume",
    "another out_dir": "another --out-dir",
    "with rename_checkpoint(FILE, 'repvgg_mm')": "with tools/convert.py FILE OUT --to repvgg_mm",
    "export the network alone": "export the network alone with --raw",
}


class InputError(Exception):
    """Something that the user gave is wrong; the message is one line that names the value and the fix."""


class ConfigOptions(argparse.Action):
    """``--cfg-options key=value ...`` as mmengine reads it, which is imported only where the flag is given."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        """Read the values; they are kept in a dict."""
        from mmengine.config import DictAction

        DictAction(self.option_strings, self.dest)(parser, namespace, values, option_string)


@contextmanager
def user_input(openmmlab: bool = True) -> Iterator[None]:
    """Mark the part of a command that only imports the package, and reads and builds what the user gave.

    A fault of our own in there stays what it is.

    Args:
        openmmlab: whether the command needs it; one that runs an exported file does not.

    Raises:
        InputError: for every error in there that a missing package or a wrong config, file or flag causes.
    """
    try:
        if openmmlab:
            check_installed()
        yield
    except InputError:
        raise
    except (OSError, ImportError) as error:
        raise InputError(one_line(error)) from error
    except Exception as error:
        if not openmmlab:
            if isinstance(error, (ValueError, TypeError)):
                raise InputError(one_line(error)) from error
            raise
        from ..engine.explain import explain, is_our_fault

        if is_our_fault(error):
            raise
        raise InputError(explain(error)) from error


def run(main: Callable[[], int]) -> None:
    """Run a command line and exit with its code; bad input or a full disk becomes one line on stderr and exit code 2.

    ``--traceback``, which every command takes, shows where the error came up, too.

    Args:
        main: parses and works; returns the exit code.
    """
    behind_mmengine(_hush)
    show = TRACEBACK in sys.argv
    if show:
        sys.argv.remove(TRACEBACK)
    try:
        sys.exit(main())
    except Exception as error:
        line = _refusal(error)
        if line is None:
            raise
        if show:
            traceback.print_exception(error)
        say_once(in_flags(f"error: {_printable(line)}"))
    sys.exit(BAD_INPUT)


def in_flags(line: str) -> str:
    """Write a message of the library in terms of the command lines.

    Args:
        line: the message.

    Returns:
        The same, with the names of flags.
    """
    for name, flag in _FLAGS.items():
        line = line.replace(name, flag)
    return line


def _refusal(error: Exception) -> str | None:
    """Return the line for an error that the user can put right, None for every other."""
    full_disk = isinstance(error, OSError) and error.errno in DISK_ERRORS
    if full_disk or isinstance(error, (InputError, FileNotFoundError)):
        return one_line(error)
    if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
        return f"{one_line(error)}: there is not enough memory; take a smaller batch_size or smaller images"
    if isinstance(error, ValueError):
        from ..runtime import FileError

        if isinstance(error, FileError):
            return one_line(error)
        from ..checkpoint.errors import CheckpointError

        if isinstance(error, CheckpointError):
            return one_line(error)
    if "mmengine" not in sys.modules:
        return None
    from ..engine.explain import explain_known

    return explain_known(error)


def _printable(line: str) -> str:
    """Spell control characters out: a name in a file could hold what a terminal obeys."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line)


def say_once(line: str) -> None:
    """Write a line to stderr; of several processes under ``torchrun`` that have the same to say, one says it.

    Args:
        line: what to say.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        from torch.distributed import TCPStore

        name = f"repvgg_mm/said/{os.environ.get('TORCHELASTIC_RESTART_COUNT')}/{sha256(line.encode()).hexdigest()}"
        try:
            store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
            if store.add(name, 1) > 1:
                return
        except RuntimeError:  # torchrun is gone: better twice than not at all
            pass
    print(line, file=sys.stderr)


def _hush() -> None:
    from ..engine.noise import hush

    hush()


def one_line(error: BaseException) -> str:
    """Return an error's message on one line, without the quotes that KeyError adds."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(text).split()) or type(error).__name__
