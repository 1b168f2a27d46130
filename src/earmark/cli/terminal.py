"""What every command shares: exit codes, how errors are reported, where text and tables go, and how numbers are parsed.

Beside the path of a sample: the commands call this, and it calls none of them. Nothing slow is imported with it.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from earmark.cli.streams import abandon, unwritable_stream
from earmark.wording import printable, visible, visible_lines

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "DONE",
    "FAILED",
    "INTERRUPTED",
    "OVERRIDES_HELP",
    "WRONG_USAGE",
    "clock",
    "non_negative",
    "num_cpus",
    "positive",
    "print_json",
    "report_error",
    "say",
    "screen",
]

# A run that a scheduler's signal stopped ends with 75 instead (earmark.training.interrupts), to be started again.
DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130
OVERRIDES_HELP = "KEY=VALUE or GROUP=CHOICE, such as data=folder data.args.base_path=DIR prepare.short_side=128"


def report_error(program: str, error: Exception) -> int:
    """Print on standard error what went wrong, in one line where the error is meant for the user.

    Args:
        program: What failed, such as ``earmark pretrain``.
        error: The exception that ended it.

    Returns:
        The exit code that the process should end with.

    Raises:
        Exception: The error itself, where it is a fault of the program.

    Example:
        >>> report_error("earmark moments", ValueError("a.mp4: no sound"))
        1
    """
    from earmark.cli.config_values import ConfigError
    from earmark.cli.remedies import remedy

    own = type(error).__module__.startswith("earmark.")
    if (not own and not isinstance(error, ValueError | OSError)) or "EARMARK_DEBUG" in os.environ:
        raise error
    way_out = remedy(error)
    lines = [f"{program}: {_in_words(error)}{'' if way_out is None else f'; {way_out}'}"]
    if not own:
        lines.append("(EARMARK_DEBUG=1 shows where this was raised)")
    try:
        print(visible_lines("\n".join(lines)), file=sys.stderr, flush=True)
    except OSError:  # nobody hears it, or it is what is full
        abandon(sys.stderr)
    return WRONG_USAGE if isinstance(error, ConfigError) else FAILED


def _in_words(error: Exception) -> str:
    """Return the message of an error; for one of the operating system, the file and the reason without its number."""
    if isinstance(error, OSError) and error.strerror:
        name = os.fsdecode(error.filename) if error.filename is not None else unwritable_stream(error)
        if name is not None:
            return f"{visible(name)}: {error.strerror.lower()}"
    return str(error) or type(error).__name__


def say(text: str) -> None:
    """Print a line of progress on standard error; where several processes run, only the first prints."""
    if os.environ.get("RANK", "0") == "0":
        print(visible_lines(text), file=sys.stderr, flush=True)


def screen(*, stderr: bool = False) -> "Console":
    """Return the console that tables are printed on.

    Args:
        stderr: Print on standard error, where standard output holds results that a program reads.

    Returns:
        A console, wide where its output is not a terminal, so that rows in files and logs are not folded.
    """
    from earmark.console import new_console

    return new_console(stderr=stderr)


def print_json(content: Any) -> None:
    r"""Print plain data as JSON that every reader takes: what is no finite number is null, text is without surrogates.

    Example:
        >>> print_json([float("inf"), "caf\udce9"])
        [
          null,
          "caf%E9"
        ]
    """
    print(json.dumps(_plain(content), indent=2, allow_nan=False))


def _plain(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {printable(str(name)): _plain(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return printable(content) if isinstance(content, str | os.PathLike) else content


def clock(time_seconds: float) -> str:
    """Return a time as minutes, seconds and milliseconds.

    Example:
        >>> clock(83.4567)
        '1:23.457'
    """
    minutes, milliseconds = divmod(round(time_seconds * 1000), 60_000)
    return f"{minutes}:{milliseconds // 1000:02d}.{milliseconds % 1000:03d}"


def non_negative(text: str) -> float:
    """Parse a number of at least 0, for argparse.

    Raises:
        argparse.ArgumentTypeError: If the text is anything else.

    Example:
        >>> non_negative("0.5")
        0.5
    """
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from None
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be at least 0, got {text}")
    return value


def positive(text: str) -> int:
    """Parse a whole number of at least 1, for argparse.

    Raises:
        argparse.ArgumentTypeError: If the text is anything else.

    Example:
        >>> positive("3")
        3
    """
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def num_cpus() -> int:
    """Return how many processor cores this process may use; limits by affinity and containers are respected."""
    import joblib

    count: int = joblib.cpu_count()
    return count
