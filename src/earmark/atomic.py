"""Write a file so that it is either whole or not there, whatever happens meanwhile."""

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replacing", "temporaries"]

_TEMPORARY = re.compile(r"\.(?P<stem>.+)\.\d+-[0-9a-f]{8}\.tmp(?P<suffix>\.[^.]+)?")


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, what was written there takes its place.

    The content is on the disk (fsync) before the rename, and the rename before the function returns, so that neither a
    kill nor a power cut leaves half a file. If the block raises, the temporary file is removed and `path` is left as
    it was. The temporary name keeps the suffix, since some writers choose the format by it.

    Args:
        path: File to write; missing folders above it are made.

    Yields:
        The path to write to.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(Path(folder, "a.txt")) as temporary:
        ...         _ = temporary.write_text("whole")
        ...     Path(folder, "a.txt").read_text()
        'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp{path.suffix}")  # see _TEMPORARY
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def temporaries(folder: str | os.PathLike[str], *, recursive: bool = False) -> Iterator[tuple[Path, Path]]:
    """Find the temporary files of `replacing`: those being written now, and those that killed processes left.

    Args:
        folder: Where to look; a folder that does not exist has none.
        recursive: Whether to look in the folders below it, too.

    Yields:
        (temporary, path): a temporary file, and the path whose place it was to take.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, replacing(Path(folder, "a.b.txt")) as temporary:
        ...     _ = temporary.write_text("half")
        ...     [(found == temporary, path.name) for found, path in temporaries(folder)]
        [(True, 'a.b.txt')]
    """
    for temporary in Path(folder).glob("**/.*.tmp*" if recursive else ".*.tmp*"):
        match = _TEMPORARY.fullmatch(temporary.name)
        if match:
            yield temporary, temporary.with_name(match["stem"] + (match["suffix"] or ""))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
