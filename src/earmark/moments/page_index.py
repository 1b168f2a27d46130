"""The page that leads to the pages of many recordings: which files, how many moments, and where in each.

It goes with the pages of :mod:`earmark.moments.plotting` (template ``page_index.html``). Like them it loads nothing
from a server.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from earmark.atomic import replacing
from earmark.media.page import render_page
from earmark.moments.writing import FileMoments
from earmark.wording import counted, visible

__all__ = ["write_index"]

_WIDTH = 1000  # of the line that moments are marked on, in its own units


def write_index(out: str | Path, files: Sequence[FileMoments], pages: Mapping[str, Path], *, detector: str) -> None:
    """Write the page that leads to those of all files.

    Args:
        out: file to write, ``.html``; the whole file or nothing.
        files: what was found; those that could not be read are listed with the reason.
        pages: page of each file by its path as it was given; a file without one is listed without a link.
        detector: name of what found the moments.

    Example:
        >>> import tempfile
        >>> from earmark.moments import Moment
        >>> found = FileMoments("a", "a.wav", (Moment(1.5, 2.0, 3.0, 0, -20.0),), 10.0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     out = Path(folder, "index.html")
        ...     write_index(out, [found], {"a.wav": Path(folder, "a.html")}, detector="earmark")
        ...     '<a href="a.html">a.wav</a>' in out.read_text()
        True
    """
    out = Path(out)
    read = [found for found in files if found.error is None]
    num_moments = sum(len(found.moments) for found in read)
    length = _clock(sum(found.duration_seconds for found in read))
    heading = f"{counted(num_moments, 'moment')} in {counted(len(read), 'file')}, {length} in all, detector {detector}"
    if len(read) < len(files):
        heading += f"; {len(files) - len(read)} could not be read"
    rows = [
        {
            "name": visible(found.path),
            "page": _link(pages[found.path], out.parent) if found.path in pages else None,
            "notes": [visible(note) for note in ((found.error,) if found.error is not None else found.notes)],
            "length": "" if found.error is not None else _clock(found.duration_seconds),
            "num_moments": "" if found.error is not None else str(len(found.moments)),
            "lines": _lines(found),
        }
        for found in files
    ]
    page = render_page("earmark.moments", "page_index.html", files=rows, heading=heading)
    with replacing(out) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _link(page: Path, folder: Path) -> str:
    relative = os.path.relpath(page.absolute(), folder.absolute())
    return quote(os.fsencode(Path(relative).as_posix()))


def _lines(found: FileMoments) -> str:
    """Return a stroke for each moment as an SVG path, as high as its score is beside the highest."""
    if not found.moments or not found.duration_seconds > 0:
        return ""
    highest = max(moment.score for moment in found.moments) or 1.0
    return "".join(
        f"M{_WIDTH * moment.time_seconds / found.duration_seconds:.1f} 10V{10 - 9 * moment.score / highest:.1f}"
        for moment in found.moments
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
