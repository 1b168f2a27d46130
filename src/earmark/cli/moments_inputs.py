"""Which files `earmark moments` reads: what a user's names, folders and patterns stand for.

Part of :mod:`earmark.cli.moments`.
"""

import glob
import os
import shutil
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from earmark.datasets.listing import media_below, reason_of
from earmark.datasets.records import VIDEO_SUFFIXES

__all__ = ["STDIN_NAME", "inputs"]

SOUND_SUFFIXES = {".aac", ".ac3", ".aif", ".aiff", ".amr", ".au", ".caf", ".eac3", ".flac", ".m4a", ".mka", ".mp3"}
SOUND_SUFFIXES |= {".oga", ".ogg", ".opus", ".w64", ".wav", ".weba", ".wma"}
STDIN_NAME = "stdin"


def inputs(given: Sequence[str], written: Collection[Path], scratch: Path) -> tuple[list[tuple[str, Path]], list[str]]:
    """Find the files that are meant.

    What exists is taken by its name, even if it looks like a pattern; a missing file is reported when it is
    opened. Folders that are written to are not searched.

    Args:
        given: What the user gave: files, folders, patterns, ``-`` for standard input.
        written: Folders that the command writes to.
        scratch: Folder for what comes from standard input.

    Returns:
        (What the user calls it, path) of each file, each once, and what is wrong with what was asked for.
    """
    found: dict[str, tuple[str, Path]] = {}
    problems: list[str] = []
    for text in given:
        if text == "-":
            paths = [_from_stdin(scratch)]
        elif os.path.isdir(text):  # noqa: PTH112 - up to Python 3.13 Path.is_dir raises where access is denied
            listing = media_below(text, VIDEO_SUFFIXES | SOUND_SUFFIXES, exclude=written)
            paths = list(listing.paths)
            problems += listing.problems
            if not paths and not listing.problems:
                problems.append(f"{text}: no video or sound file in this folder")
        elif not os.path.lexists(text) and glob.has_magic(text):
            paths, unreadable = _matching(text)
            problems += unreadable
            if not paths and not unreadable:
                problems.append(f"{text}: no file matches this pattern")
        else:
            paths = [Path(text)]
        for path in paths:
            # realpath, since up to Python 3.12 Path.resolve raises where links lead in a circle
            found.setdefault(os.path.realpath(path), (text if text == "-" else str(path), path))
    return list(found.values()), list(dict.fromkeys(problems))


def _matching(pattern: str) -> tuple[list[Path], list[str]]:
    """Return the files that match a pattern, and the folders that it leads into and that can't be read."""
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute one
    paths = [Path(match) for match in matches if not os.path.isdir(match)]  # noqa: PTH112
    return paths, list(_unreadable_folders(pattern))


def _unreadable_folders(pattern: str) -> Iterator[str]:
    """Yield which of the folders that a pattern leads through can't be listed: glob skips them silently."""
    folders = {"."} if not Path(pattern).is_absolute() else set()
    for parent in Path(pattern).parents:
        folders |= set(glob.glob(str(parent), recursive=True))  # noqa: PTH207
    for folder in sorted(folders):
        try:
            with os.scandir(folder):
                pass
        except NotADirectoryError:
            continue
        except OSError as error:
            yield f"{folder}: {reason_of(error)}, nothing below it is read"


def _from_stdin(scratch: Path) -> Path:
    """Keep standard input in a file, since plots and clips need to go back in it."""
    path = scratch / f"{STDIN_NAME}.wav"
    with path.open("wb") as stream:
        shutil.copyfileobj(sys.stdin.buffer, stream, 2**20)
    return path
