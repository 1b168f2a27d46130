"""Standard streams as they come: closed, full, of an encoding that lacks letters, or with nobody left who reads them.

Beside the path of a sample: `earmark.cli.main` prepares them before a command runs, and asks here when writing failed.
"""

import errno
import os
import select
import sys
from contextlib import suppress
from typing import Any, TextIO

__all__ = ["BROKEN_PIPE", "abandon", "abandoned_by_reader", "prepare_streams", "unwritable_stream"]

BROKEN_PIPE = 141  # what a shell gives for a program that SIGPIPE ended: 128 and its number


def prepare_streams() -> None:
    """Make the standard streams fit to be written to.

    One that is closed (``>&-``) becomes the null device: the next file opened would get its number, and what libraries
    print there. Letters that a stream's encoding lacks are written as escapes, where they would be an error.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)  # workers write there, too
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", errors="replace", closefd=False))
        stream: Any = getattr(sys, name)
        # In a C locale bytes that are no ASCII pass, and letters do not: names are shown as the letters they are.
        refuses = getattr(stream, "errors", None) in ("strict", "surrogateescape")
        if mode == "w" and refuses and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def abandoned_by_reader() -> bool:
    """Return whether standard output or standard error is a pipe whose reader is gone.

    Other pipes break too, such as one to a worker. What is still to be written to one without a reader is dropped.
    """
    broken = [stream for stream in (sys.stdout, sys.stderr) if _has_no_reader(stream)]
    for stream in broken:
        abandon(stream)
    return bool(broken)


def unwritable_stream(error: OSError) -> str | None:
    """Return which standard stream cannot be written, if that is what an error of no file means.

    What failed to be written there is dropped, so that it is not tried again when the process ends. To find out, a line
    end is written.
    """
    if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF):
        return None
    for name, stream in (("standard output", sys.stdout), ("standard error", sys.stderr)):
        try:
            stream.flush()
            os.write(stream.fileno(), b"\n")  # an unbuffered one has nothing left to fail with
        except ValueError:  # no file at all
            continue
        except OSError:
            abandon(stream)
            return name
    return None


def abandon(stream: TextIO) -> None:
    """Send a stream to the null device: nobody reads what is left in it, or would be written."""
    with suppress(OSError, ValueError):
        number = stream.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)
        stream.flush()


def _has_no_reader(stream: TextIO) -> bool:
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # no file at all, as where output is captured
        return False
    if not hasattr(select, "poll"):
        try:
            stream.flush()
        except OSError:
            return True
        return False
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
