"""What `earmark prepare` shows: two bars while it runs, a table at its end.

Beside the path of a sample: preparing and verifying show it.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from earmark.console import new_console
from earmark.preparation.catalog import PreparedVideo
from earmark.wording import visible

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["PrepareReport", "ProgressBars", "progress_bars", "size_text"]

REFRESH_SECONDS = 0.5
SECONDS_TO_PLAIN_LINE, SECONDS_BETWEEN_PLAIN_LINES = 10.0, 30.0
MAX_NAMED = 5  # videos that are named in one row of the table; the catalog has them all


@dataclass(frozen=True, slots=True)
class PrepareReport:
    """What a run of `prepare` made.

    Attributes:
        root: The store.
        videos: A row for each source of this run, in the order given.
        num_reused: How many an earlier run had finished.
        detector: Name of what found the moments.
        num_elsewhere: Videos of other parts (see `earmark.preparation.prepare`) that are not prepared yet.
        stretched: Which videos hold more than their source (`earmark.preparation.catalog.stretched`).
    """

    root: Path
    videos: tuple[PreparedVideo, ...]
    num_reused: int
    detector: str
    num_elsewhere: int = 0
    stretched: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def with_status(self, status: str) -> list[PreparedVideo]:
        """Return the videos of one status: ``ok``, ``degraded`` or ``refused``."""
        return [video for video in self.videos if video.status == status]

    @property
    def hours(self) -> float:
        """Hours of the recordings that were prepared."""
        return sum(video.duration_seconds for video in self.videos) / 3600

    @property
    def num_moments(self) -> int:
        """Moments found in all."""
        return sum(video.num_moments for video in self.videos)

    @property
    def num_bytes(self) -> int:
        """Size of the prepared files."""
        return sum(video.num_bytes for video in self.videos)

    def table(self) -> "Table":
        """Return the report as a table to print: totals, then each degraded or refused file with its reason."""
        from rich.table import Table
        from rich.text import Text  # names are not markup: [brackets] in them stay

        minutes = self.hours * 60
        usable = [video for video in self.videos if video.status != "refused"]
        table = Table(show_header=False)
        table.add_row("store", Text(visible(self.root)))
        elsewhere = f"; {self.num_elsewhere} of other parts are to come" if self.num_elsewhere else ""
        table.add_row("videos", f"{len(self.videos)} ({self.num_reused} already done){elsewhere}")
        table.add_row("prepared", f"{len(usable)} ({len(self.with_status('ok'))} ok)")
        num_mute = sum(not video.has_audio for video in usable)
        table.add_row("degraded", str(len(self.with_status("degraded"))))
        if num_mute:
            table.add_row("without sound", f"{num_mute}: kept for evaluation, left out of pretraining")
        for what, video_ids in self.stretched.items():
            more = f" and {len(video_ids) - MAX_NAMED} more" if len(video_ids) > MAX_NAMED else ""
            text = f"{what} than is stored in {len(video_ids)} of the sources: {', '.join(video_ids[:MAX_NAMED])}{more}"
            table.add_row("stretched", Text(visible(text)))
        table.add_row("refused", str(len(self.with_status("refused"))))
        table.add_row("length", f"{minutes:.1f} minutes" if minutes < 120 else f"{self.hours:.1f} hours")
        rate = f"{self.num_moments / minutes:.1f} per minute" if minutes else "no video"
        table.add_row("moments", f"{self.num_moments} ({rate}), detector {self.detector}")
        per_hour = f" ({size_text(self.num_bytes / self.hours)} per hour)" if self.hours else ""
        table.add_row("size", size_text(self.num_bytes) + per_hour)
        for status in ("degraded", "refused"):
            for video in self.with_status(status):
                table.add_row(f"  {status}", Text(visible(f"{video.video_id}: {video.reason}")))
        return table


def size_text(num_bytes: float) -> str:
    """Return a size as people read it.

    Example:
        >>> size_text(12_345_678), size_text(2.5e9)
        ('12.3 MB', '2.50 GB')
    """
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


class ProgressBars:
    """Two bars: videos and hours of video, with the rate and the time left; a line now and then elsewhere."""

    def __init__(self, num_videos: int, total_seconds: float, running_seconds: Callable[[], float]) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._running_seconds = running_seconds
        self._total_seconds = total_seconds
        self._done_seconds = 0.0
        self._started = time.monotonic()
        self._next_line = self._started + SECONDS_TO_PLAIN_LINE
        columns = (TextColumn("{task.description:>6}"), BarColumn(), TextColumn("{task.fields[text]}"))
        self.progress = Progress(*columns, console=new_console(stderr=True))
        self._videos = self.progress.add_task("videos", total=num_videos, text=f"0/{num_videos}")
        self._hours = self.progress.add_task("hours", total=total_seconds or None, text="")

    def video_done(self, seconds: float) -> None:
        """Count a finished video of this declared length."""
        self._done_seconds += seconds
        self.progress.advance(self._videos)

    def refresh(self) -> None:
        """Update both bars, running videos included."""
        done = min(self._done_seconds + self._running_seconds(), self._total_seconds)
        videos = self.progress.tasks[self._videos]
        self.progress.update(self._videos, text=f"{videos.completed:.0f}/{videos.total:.0f}")
        now = time.monotonic()
        text = self.rate_text(done, now - self._started)
        self.progress.update(self._hours, completed=done, text=text)
        if not self.progress.console.is_terminal and now >= self._next_line and done < self._total_seconds:
            self._next_line = now + SECONDS_BETWEEN_PLAIN_LINES
            print(f"videos {videos.completed:.0f}/{videos.total:.0f}  {text}", file=sys.stderr, flush=True)

    def rate_text(self, done_seconds: float, elapsed_seconds: float) -> str:
        """Return hours done and in all, the rate and the time left."""
        text = f"{done_seconds / 3600:.2f}/{self._total_seconds / 3600:.2f} h"
        rate = done_seconds / elapsed_seconds if elapsed_seconds > 0 else 0.0
        if rate <= 0:
            return text
        left = round((self._total_seconds - done_seconds) / rate)
        return f"{text}, {rate:.1f} x real time, {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"


@contextmanager
def progress_bars(
    num_videos: int, total_seconds: float, running_seconds: Callable[[], float] = lambda: 0.0, *, shown: bool = True
) -> Iterator[Callable[[float], None]]:
    """Show the two bars while the block runs.

    Args:
        num_videos: In all.
        total_seconds: Their length.
        running_seconds: Returns how many seconds of unfinished videos are done.
        shown: False shows nothing.

    Yields:
        A function to call with the length of each finished video.
    """
    if not shown or not num_videos:
        yield lambda seconds: None
        return
    bars = ProgressBars(num_videos, total_seconds, running_seconds)
    ended = threading.Event()

    def keep_fresh() -> None:
        while not ended.wait(REFRESH_SECONDS):
            bars.refresh()

    thread = threading.Thread(target=keep_fresh, daemon=True)
    with bars.progress:
        thread.start()
        try:
            yield bars.video_done
        finally:
            ended.set()
            thread.join()
            bars.refresh()
