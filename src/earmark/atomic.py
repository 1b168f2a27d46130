"""Write a file so that it is either whole or not there, whatever happens meanwhile."""

import hashlib
import os
import re
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

__all__ = [
    "is_abandoned",
    "make_scratch_folder",
    "remove_abandoned",
    "remove_abandoned_scratch",
    "replacing",
    "require_writable",
    "scratch_folder",
    "temporaries",
]

# Who writes a file: the process, the machine (files of before do not say it), and which of its files this is.
_TEMPORARY = re.compile(
    r"\.(?P<stem>.+)\.(?P<pid>\d{1,10})-(?:(?P<machine>[0-9a-f]{8})-)?[0-9a-f]{8}\.tmp(?P<suffix>\.[^.]+)?"
)
_SCRATCH = re.compile(r"earmark-(?P<pid>\d{1,10})-(?P<machine>[0-9a-f]{8})-\w+")
ABANDONED_SECONDS = 600.0  # a file of another machine's process that is untouched for so long has no writer


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

    Raises:
        OSError: Naming the file, if it cannot be written, as where the disk is full.

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
    temporary = _temporary(path)
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary), os.fsencode(temporary)):
            raise
        # Writing names no file, opening the temporary one: what fails is this file.
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
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


def is_abandoned(temporary: Path) -> bool:
    """Return whether a temporary file of `replacing` has no process that writes it any more.

    Of one made on this machine its process is asked for; another's process can't be, so that its file counts as
    abandoned when nothing has been written to it for ten minutes.

    Args:
        temporary: As `temporaries` gives it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, replacing(Path(folder, "a.txt")) as temporary:
        ...     _ = temporary.write_text("of a process that runs")
        ...     is_abandoned(temporary)
        False
    """
    match = _TEMPORARY.fullmatch(temporary.name)
    if match is None:
        return False
    if match["machine"] == _machine() and os.name == "posix":
        return not _is_running(int(match["pid"]))
    try:
        return time.time() - temporary.stat().st_mtime > ABANDONED_SECONDS
    except FileNotFoundError:
        return False


def remove_abandoned(folder: str | os.PathLike[str], *, recursive: bool = False) -> None:
    """Remove the temporary files that killed processes left in a folder; those being written stay.

    Args:
        folder: Where to look; a folder that does not exist has none.
        recursive: Whether to look in the folders below it, too.

    Example:
        >>> remove_abandoned("no such folder")
    """
    for temporary, _ in list(temporaries(folder, recursive=recursive)):
        if is_abandoned(temporary):
            with suppress(OSError):  # what can't be removed does no harm
                temporary.unlink()


def require_writable(folder: str | os.PathLike[str]) -> None:
    """Raise unless a folder can be written to, or made where it is missing; nothing is left behind.

    Args:
        folder: The folder.

    Raises:
        OSError: Naming the folder, with the reason.

    Example:
        >>> require_writable(tempfile.gettempdir())
    """
    folder = Path(folder).absolute()
    try:
        existing = folder
        while not os.path.lexists(existing):
            existing = existing.parent
        trial = _temporary(existing / "trial")
        try:
            trial.write_bytes(b"x")
        finally:
            trial.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, f"cannot be written to: {error.strerror}", str(folder)) from error


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a folder for what is needed until the block ends; those that killed processes of ours left are removed.

    Yields:
        The folder, in the system's place for temporary files.

    Example:
        >>> with scratch_folder() as folder:
        ...     _ = (folder / "a.txt").write_text("for a moment")
        >>> folder.exists()
        False
    """
    remove_abandoned_scratch()
    with tempfile.TemporaryDirectory(prefix=_scratch_prefix()) as name:
        yield Path(name)


def make_scratch_folder() -> Path:
    """Make such a folder for as long as the caller likes, who removes it; killed before that, it is removed likewise.

    Example:
        >>> folder = make_scratch_folder()
        >>> folder.rmdir()
    """
    remove_abandoned_scratch()
    return Path(tempfile.mkdtemp(prefix=_scratch_prefix()))


def _scratch_prefix() -> str:
    return f"earmark-{os.getpid()}-{_machine()}-"


def remove_abandoned_scratch() -> None:
    """Remove the folders of `scratch_folder` and `make_scratch_folder` whose processes were killed.

    Example:
        >>> remove_abandoned_scratch()
    """
    for folder in Path(tempfile.gettempdir()).glob("earmark-*"):
        match = _SCRATCH.fullmatch(folder.name)
        # One of another machine or container can't be asked for its process, and its system clears it away.
        if match and match["machine"] == _machine() and os.name == "posix" and not _is_running(int(match["pid"])):
            shutil.rmtree(folder, ignore_errors=True)  # another user's can't be removed


def _temporary(path: Path) -> Path:
    """Return a name beside a path that says who writes it, see `_TEMPORARY`."""
    writer = f"{os.getpid()}-{_machine()}-{uuid.uuid4().hex[:8]}"
    return path.with_name(f".{path.stem}.{writer}.tmp{path.suffix}")


@cache
def _machine() -> str:
    """Return a name of this machine's processes: numbers mean the same ones only within one boot and container."""
    known = [socket.gethostname()]
    with suppress(OSError):
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
    with suppress(OSError):
        known.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\0".join(known).encode()).hexdigest()[:8]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    try:  # of a process that has ended but that nobody has waited for, as in containers without an init
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
