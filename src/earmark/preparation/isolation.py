"""Limits of memory and time for the process that reads one file, so that what a file does to a decoder stays with it.

Beside the path of a sample: `earmark.preparation.workers` makes calls in processes of their own, each within these
limits. A file that asks for more memory gets an error that names it. One that takes too long, or brings a codec down,
ends its process, and only that: `workers` names the file and goes on with the others.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from earmark.media import MediaError, declared

try:
    import resource
except ImportError:  # Windows: a process of its own without limits
    resource = None  # type: ignore[assignment]

__all__ = ["Limits", "in_limits", "limited"]

_Result = TypeVar("_Result")
_PIXELS = 1920 * 1080  # a picture that takes the usual time


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may take.

    Attributes:
        memory_bytes: Memory beyond what the process has before: several times what an hour of video takes.
        memory_bytes_per_pixel: The same for each pixel of its pictures; a decoder keeps up to 16 of them to put them in
            order and one for each of its threads, of 1.5 to 6 bytes a pixel.
        seconds: Time for any file, on the clock, as disks and networks take it.
        seconds_per_second: Time for each second that it lasts; more in proportion for pictures larger than 1920 x 1080.
            A slow core takes less than one.

    Example:
        >>> Limits().time_seconds(10.0, 640, 360)
        1200.0
    """

    memory_bytes: int = 1 << 30
    memory_bytes_per_pixel: int = 150
    seconds: float = 600.0
    seconds_per_second: float = 60.0

    def memory(self, width: int, height: int) -> int:
        """Return how many bytes a file with pictures of so many pixels may take."""
        return self.memory_bytes + self.memory_bytes_per_pixel * width * height

    def time_seconds(self, length_seconds: float, width: int, height: int) -> float:
        """Return how long a file of a length in seconds with pictures of so many pixels may take."""
        return self.seconds + self.seconds_per_second * length_seconds * max(1.0, width * height / _PIXELS)


def in_limits(
    limits: Limits, path: Path | None, function: Callable[..., _Result], *arguments: Any, **options: Any
) -> _Result:
    """Make a call that reads a file, in a process that may end for it.

    Args:
        limits: What the file may take.
        path: The file; None where nothing is known of what is read, as of many headers.
        function: What to call with the rest of the arguments.
        *arguments: Of it.
        **options: Of it.

    Returns:
        What it returns.
    """
    with limited(limits, path):
        return function(*arguments, **options)


@contextlib.contextmanager
def limited(limits: Limits, path: Path | None) -> Iterator[None]:
    """Limit what this process may take within the block; out of time, the operating system ends it (SIGALRM).

    Only where the operating system knows such limits: not on Windows, and on macOS only the time.

    Args:
        limits: What the file may take; how long it lasts and how large it is, it is asked within the limits for any.
        path: The file; None where nothing is known of what is read.
    """
    with _time_limit() as set_time, _memory_limit() as set_memory:
        set_time(limits.seconds)
        set_memory(limits.memory_bytes)
        if path is not None:
            with contextlib.suppress(MediaError):  # what is wrong with it will be told by what reads it
                length_seconds, width, height = declared(path)
                set_time(limits.time_seconds(length_seconds, width, height))
                set_memory(limits.memory(width, height))
        yield


@contextlib.contextmanager
def _time_limit() -> Iterator[Callable[[float], object]]:
    """Yield what sets an alarm in so many seconds; decoders don't return to Python, so that no handler would do."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield lambda seconds: None
        return
    before = signal.signal(signal.SIGALRM, signal.SIG_DFL)
    try:
        yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _memory_limit() -> Iterator[Callable[[int], object]]:
    """Yield what limits the memory that the process may take beyond what it has now."""
    if resource is None or (used := _data_bytes()) is None:
        yield lambda num_bytes: None
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)

    def set_limit(num_bytes: int) -> None:
        allowed = [limit for limit in (soft, hard, used + num_bytes) if limit != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_DATA, (min(allowed), hard))

    try:
        yield set_limit
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int | None:
    """Return how much private memory this process has, by Linux's count for RLIMIT_DATA; None on other systems."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    line = next((line for line in status.splitlines() if line.startswith("VmData:")), None)
    return None if line is None else 1024 * int(line.split()[1])
