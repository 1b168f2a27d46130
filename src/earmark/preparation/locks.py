"""Which process works on which video of a store: locks that end with their process, and its progress.

Beside the path of a sample: `earmark.preparation.video` holds one while it writes, so that concurrent runs share the
work, and half-written files of a dead process can be distinguished from those being written.
"""

import hashlib
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from earmark.atomic import is_abandoned, remove_abandoned, temporaries

__all__ = ["VideoLock", "clear_leftovers", "left_behind", "locked", "running_seconds"]

FOLDER = ".running"
PROGRESS_SUFFIX = ".seconds"


@dataclass(frozen=True, slots=True)
class VideoLock:
    """A video that this process works on.

    Attributes:
        exclusive: whether no other process can hold it too; False where the file system has no locks.
        progress_path: where it writes its progress; beside the locked file, which not every system lets others read.
    """

    exclusive: bool
    progress_path: Path

    def report(self, seconds: float) -> None:
        """Write how much of the video is done, for `running_seconds`."""
        with self.progress_path.open("r+b", buffering=0) as file:
            file.write(f"{seconds:12.1f}".encode())  # over what was there: never empty, never half of it


@contextmanager
def locked(root: Path, video_id: str, *, wait: bool = False) -> Iterator[VideoLock | None]:
    """Hold the lock of a video; the operating system lets go of it when the process ends, however that happens.

    Args:
        root: The store.
        video_id: Which video.
        wait: Whether to wait while another process holds it.

    Yields:
        The lock, or None if another process holds it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder), "a"):
        ...     with locked(Path(folder), "a") as second:
        ...         second is None
        True
    """
    path = root / FOLDER / _name(video_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()  # raises if the file cannot be created; whether it can be locked is a separate question
    # A lock that is only a file would outlive a killed process.
    lock = FileLock(path, is_singleton=False, fallback_to_soft=False)
    exclusive = True
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        yield None
        return
    except OSError:  # a file system without locks: doing the work twice is harmless
        exclusive = False
    progress_path = path.with_suffix(PROGRESS_SUFFIX)
    try:
        progress_path.write_bytes(b"")
        yield VideoLock(exclusive, progress_path)
    finally:
        progress_path.unlink(missing_ok=True)
        with suppress(PermissionError):  # Windows removes no file that is open
            path.unlink(missing_ok=True)  # while it is held: a process that waits for it then sees that it is gone
        lock.release()
        if os.name == "nt":
            with suppress(PermissionError):  # the next one has it
                path.unlink(missing_ok=True)


def left_behind(root: Path, video_ids: Collection[str]) -> set[str]:
    """Return the videos whose lock was held by a dead process, and remove those locks."""
    dead = set()
    for video_id in video_ids:
        if (root / FOLDER / _name(video_id)).exists():
            with locked(root, video_id) as lock:
                if lock is not None and lock.exclusive:
                    dead.add(video_id)
    return dead


def running_seconds(root: Path, video_ids: Collection[str]) -> float:
    """Return how many seconds of some videos the processes working on them have done."""
    names = {_name(video_id) for video_id in video_ids}
    total = 0.0
    for path in (root / FOLDER).glob(f"*{PROGRESS_SUFFIX}"):
        if path.stem in names:
            try:
                total += float(path.read_text() or 0)
            except (OSError, ValueError):  # just ended, or just begun
                continue
    return total


def clear_leftovers(root: Path) -> None:
    """Remove half-written files of killed runs; files being written stay."""
    for temporary, path in temporaries(root / "videos", recursive=True):
        name = path.stem.removesuffix(".index") if path.suffix == ".npz" else path.stem
        with locked(root, path.with_name(name).relative_to(root / "videos").as_posix()) as lock:
            if lock is not None and (lock.exclusive or is_abandoned(temporary)):
                temporary.unlink(missing_ok=True)
    remove_abandoned(root)


def _name(video_id: str) -> str:
    return hashlib.sha256(video_id.encode()).hexdigest()[:24]
