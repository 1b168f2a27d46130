"""The screen that tables and progress are drawn on, which says when nobody reads it any more.

Beside the path of a sample: what shows something while it works draws on it, as the commands do. rich is imported when
it is asked for.
"""

import sys
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["new_console"]

TABLE_WIDTH = 160  # columns, where the output is not a terminal


def new_console(*, stderr: bool = False) -> "Console":
    """Return a console, wide where its output is not a terminal, so that rows in files and logs are not folded.

    Args:
        stderr: Print on standard error.

    Example:
        >>> new_console().is_terminal
        False
    """
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream is not None and stream.isatty() else TABLE_WIDTH
    # No markup: file names contain brackets, and what looks like a tag would vanish.
    console: Console = _console_class()(stderr=stderr, highlight=False, markup=False, width=width)
    return console


@cache
def _console_class() -> Any:
    from rich.console import Console

    class TellingConsole(Console):
        """A console that raises what it meets: rich's own would end the process with code 1."""

        def on_broken_pipe(self) -> None:
            raise

    return TellingConsole
