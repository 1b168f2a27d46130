"""The lock of a run's folder: two processes that train in one folder would overwrite each other.

Whoever writes to a run's folder holds its lock.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["RunBusyError", "holder_of", "run_lock"]

LOCK_FILE = ".lock"


class RunBusyError(RuntimeError):
    """A process trains in this folder already."""


@contextmanager
def run_lock(run_dir: str | Path) -> Iterator[None]:
    """Hold the folder of a run; the operating system releases it when the process ends, however that happens.

    Args:
        run_dir: Folder of the run; made if need be.

    Raises:
        RunBusyError: If it is held already; the message says by which process.

    Example:
        >>> import tempfile
        >>> run_dir = tempfile.mkdtemp()
        >>> with run_lock(run_dir):
        ...     holder_of(run_dir) == f"process {os.getpid()} on {socket.gethostname()}"
        True
        >>> holder_of(run_dir) is None
        True
    """
    path = Path(run_dir) / LOCK_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, is_singleton=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunBusyError(f"{run_dir}: {_named_in(path)} is training in this folder") from None
    try:
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        yield
    finally:
        lock.release()


def holder_of(run_dir: str | Path) -> str | None:
    """Return which process holds the folder of a run, or None if none does.

    Args:
        run_dir: Folder of the run.
    """
    path = Path(run_dir) / LOCK_FILE
    if not path.exists():
        return None
    lock = FileLock(path, is_singleton=False)
    try:
        with lock.acquire(timeout=0):
            return None
    except Timeout:
        return _named_in(path)


def _named_in(path: Path) -> str:
    try:
        with path.open("rb") as file:
            named = file.read(200).decode(errors="replace").strip()
    except OSError:
        named = ""
    return named if named.isprintable() and named else "another process"
