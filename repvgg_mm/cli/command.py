"""What the command lines share: one clear line for bad input, and the exit codes.

Importing this loads nothing heavy, so a command can answer ``--help`` at once. It imports the rest of the package where
it needs it, inside `user_input`: where OpenMMLab is missing, that is one clear line, too.
"""

import argparse
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..files import DISK_ERRORS
from ..openmmlab import behind_mmengine, check_installed

DONE, CHECK_FAILED, BAD_INPUT = 0, 1, 2


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
def user_input() -> Iterator[None]:
    """Mark the part of a command that only imports the package, and reads and builds what the user gave.

    Raises:
        InputError: for every error in there that a missing package or a wrong config, file or flag causes.
    """
    try:
        check_installed()
        yield
    except (ValueError, OSError, ImportError) as error:
        raise InputError(one_line(error)) from error
    except (TypeError, KeyError, AttributeError) as error:  # often an argument's name: say who refused it
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise InputError(f"{one_line(error)} ({Path(place.filename).name}:{place.lineno})") from error


def run(main: Callable[[], int]) -> None:
    """Run a command line and exit with its code; bad input or a full disk becomes one line on stderr and exit code 2.

    Args:
        main: parses and works; returns the exit code.
    """
    behind_mmengine(_hush)
    try:
        sys.exit(main())
    except (InputError, FileNotFoundError) as error:
        refusal: Exception = error
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        refusal = error
    except ValueError as error:
        from ..checkpoint.errors import CheckpointError

        if not isinstance(error, CheckpointError):
            raise
        refusal = error
    print(f"error: {one_line(refusal)}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def _hush() -> None:
    from ..engine.noise import hush

    hush()


def one_line(error: BaseException) -> str:
    """Return an error's message on one line, without the quotes that KeyError adds."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(text).split()) or type(error).__name__
