"""Whether a data set is all there: which of its videos are missing, unreadable, cut short or without sound.

Beside the path of a sample: looked at before and after preparing. Only headers are read, in processes of their own, so
that what a file does to a decoder stays with it.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib

from earmark.datasets.listing import is_readable_file, reason_of
from earmark.datasets.records import ActionRecord, VideoRecord
from earmark.media import MediaError, media_info
from earmark.preparation.catalog import PreparedVideo
from earmark.preparation.isolation import Limits, in_limits
from earmark.preparation.workers import WorkerDiedError, each_in_order
from earmark.wording import at_most

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "Completeness",
    "TaskState",
    "VideoState",
    "compared",
    "lost_actions",
    "read_states",
    "task_state",
    "times_beyond",
    "wrong_checksums",
]

TOLERANCE_SECONDS = 1.0  # between a file's own length and the listed one: containers round, cut files lack more
MAX_NAMED = 20  # of each kind in the table; JSON has them all
_AT_ONCE = 16  # headers of so many files are read by one call


@dataclass(frozen=True, slots=True)
class VideoState:
    """What is there of one video.

    Attributes:
        video_id: Which one.
        split: Its split.
        path: Where it is, or should be.
        seconds: How long its file lasts; None where it is missing or cannot be read.
        has_audio: Whether it has sound.
        missing: Whether there is no file.
        reason: Why it cannot be read, or what is wrong with it; empty where nothing is.
        expected_seconds: How long it should last; None where that is not known.
        expected_audio: Whether it should have sound; None where that is not known.
    """

    video_id: str
    split: str
    path: Path
    seconds: float | None = None
    has_audio: bool = False
    missing: bool = False
    reason: str = ""
    expected_seconds: float | None = None
    expected_audio: bool | None = None

    @property
    def off_seconds(self) -> float:
        """How much longer than listed its file lasts, in seconds, if that is more than rounding; less is negative."""
        if self.seconds is None or self.expected_seconds is None:
            return 0.0
        off = self.seconds - self.expected_seconds
        return off if abs(off) > TOLERANCE_SECONDS else 0.0


@dataclass(frozen=True, slots=True)
class TaskState:
    """What is there of one split of one task.

    Attributes:
        task: Its name.
        split: Its split.
        num_rows: What its file lists, in units of the task, such as actions or windows of them.
        fall_away: By reason, how many of them do.
        num_videos: Videos that it needs.
        num_found: Those whose file is there.
        num_readable: Those that can be read.
        num_cut_short: Those of them that are shorter than listed.
        num_with_sound: Those of them with sound.
        seconds: How long those that can be read last together.
        seconds_with_sound: How long those of them with sound do.
    """

    task: str
    split: str
    num_rows: int
    fall_away: Mapping[str, int]
    num_videos: int
    num_found: int
    num_readable: int
    num_cut_short: int
    num_with_sound: int
    seconds: float
    seconds_with_sound: float

    def row(self) -> tuple[str, str]:
        """Return the row of the table."""
        lost = sum(self.fall_away.values())
        why = ", ".join(f"{number} {reason}" for reason, number in self.fall_away.items())
        short = f", {self.num_cut_short} cut short" if self.num_cut_short else ""
        return (
            f"{self.task}, {self.split}",
            f"{self.num_rows} listed, {lost} fall away{f' ({why})' if why else ''}; "
            f"{self.num_videos} videos, {self.num_found} found, {self.num_readable} can be read{short}, "
            f"{self.num_with_sound} with sound; {self.seconds / 3600:.2f} h, "
            f"{self.seconds_with_sound / 3600:.2f} h with sound",
        )


@dataclass(frozen=True, slots=True)
class Completeness:
    """What is there of a data set.

    Attributes:
        videos: Each video that is expected.
        actions: By split, how many actions are annotated and how many of them fall away.
        strays: A line for each file that is not read, though it looks like a video of the data set.
        num_lengths: Videos whose length is known from a list; 0 where there is none.
        num_checksums: Files whose checksum was compared; None where that was not asked for.
        checksum_faults: A line for each file whose checksum is another.
        problems: What of the annotations was left out.
        doubtful_times: A line for each action that ends after its video, which is read all the same.
        unread_splits: Splits whose actions cannot be read, whatever is there of their videos.
        remarks: What is unusual in the annotations, and is read all the same.
        tasks: Each split of each task, where the data set has several tasks.
        held_out: A line for each video with a part that a task holds out, which is for training in no task.
    """

    videos: tuple[VideoState, ...]
    actions: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    strays: tuple[str, ...] = ()
    num_lengths: int = 0
    num_checksums: int | None = None
    checksum_faults: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    doubtful_times: tuple[str, ...] = ()
    unread_splits: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    tasks: tuple[TaskState, ...] = ()
    held_out: tuple[str, ...] = ()

    @property
    def kinds(self) -> dict[str, list[str]]:
        """What is wrong, a line for each video, by kind."""
        readable = [video for video in self.videos if video.seconds is not None]
        return {
            "missing": [f"{v.video_id}: looked for {v.path}" for v in self.videos if v.missing],
            "unreadable": [f"{v.video_id}: {v.reason}" for v in self.videos if v.seconds is None and not v.missing],
            "cut short": [_off(v) for v in readable if v.off_seconds < 0],
            "too long": [_off(v) for v in readable if v.off_seconds > 0],
            "doubtful": [f"{v.video_id}: {v.reason}" for v in readable if v.reason],
            "without sound": [v.video_id for v in readable if not v.has_audio],
            "sound is missing": [f"{v.video_id}: listed with sound, {v.path} has none" for v in _silent(readable)],
            "sound not listed": [
                f"{v.video_id}: listed without sound, {v.path} has some"
                for v in readable
                if v.has_audio and v.expected_audio is False
            ],
            "wrong checksum": list(self.checksum_faults),
            "not read": list(self.strays),
            "annotations": list(self.problems),
            "doubtful times": list(self.doubtful_times),
            "unusual": list(self.remarks),
            "not trained on": list(self.held_out),
        }

    @property
    def num_usable(self) -> int:
        """How many videos can be read."""
        return sum(video.seconds is not None for video in self.videos)

    @property
    def complete(self) -> bool:
        """Whether every video is there, can be read, and is as long as it should be, and actions of all are known."""
        kinds = self.kinds
        wrong = any(kinds[kind] for kind in ("missing", "unreadable", "cut short", "too long", "wrong checksum"))
        return not wrong and not self.unread_splits

    def hours(self, *, with_audio: bool = False) -> float:
        """Return the hours that can be read, or those of them with sound."""
        return sum(v.seconds or 0.0 for v in self.videos if v.has_audio or not with_audio) / 3600

    def verdict(self) -> str:
        """Return in a line whether the data set is complete, and whether it can be used."""
        num_found = sum(not video.missing for video in self.videos)
        counts = f"{num_found} of {len(self.videos)} videos found, {self.num_usable} can be read"
        if self.unread_splits:
            counts += f", the {' and '.join(self.unread_splits)} actions cannot"
        if self.complete:
            return f"complete: {counts}"
        if self.num_usable:
            return f"not complete: {counts}; what is there can be used"
        return f"not usable: {counts}"

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return {
            "complete": self.complete,
            "usable": self.num_usable > 0,
            "verdict": self.verdict(),
            "num_expected": len(self.videos),
            "num_found": sum(not video.missing for video in self.videos),
            "num_readable": self.num_usable,
            "hours": self.hours(),
            "hours_with_sound": self.hours(with_audio=True),
            "num_lengths_known": self.num_lengths,
            "num_checksums": self.num_checksums,
            "unread_splits": list(self.unread_splits),
            "num_listed_with_sound": sum(video.expected_audio is True for video in self.videos),
            "num_listed_without_sound": sum(video.expected_audio is False for video in self.videos),
            "tasks": [asdict(task) for task in self.tasks],
            "actions": {s: {"annotated": n, "fall_away": lost} for s, (n, lost) in self.actions.items()},
            "faults": self.kinds,
            "videos": [asdict(video) | {"path": str(video.path)} for video in self.videos],
        }

    def table(self) -> "Table":
        """Return the counts as a table to print; `lines` names what is wrong."""
        from rich.table import Table

        table = Table(show_header=False)
        by_split: dict[str, int] = {}
        for video in self.videos:
            by_split[video.split] = by_split.get(video.split, 0) + 1
        splits = ", ".join(f"{number} {split}" for split, number in by_split.items())
        table.add_row("videos expected", f"{len(self.videos)} ({splits})")
        table.add_row("found", str(sum(not video.missing for video in self.videos)))
        table.add_row("hours", f"{self.hours():.2f}, {self.hours(with_audio=True):.2f} with sound")
        lengths = f"compared for {self.num_lengths} videos" if self.num_lengths else "not known from any list"
        table.add_row("lengths", lengths)
        if self.num_checksums is not None:
            table.add_row("checksums", f"{self.num_checksums} compared, {len(self.checksum_faults)} differ")
        said = [video.expected_audio for video in self.videos if video.expected_audio is not None]
        if said:
            table.add_row("listed with sound", f"{sum(said)}, without {len(said) - sum(said)}")
        for task in self.tasks:
            table.add_row(*task.row())
        for split, (number, lost) in self.actions.items():
            table.add_row(f"{split} actions", f"{number} annotated, {lost} fall away")
        for split in self.unread_splits:
            table.add_row(f"{split} actions", "cannot be read")
        for kind, lines in self.kinds.items():
            if lines or kind in ("missing", "unreadable", "without sound"):
                table.add_row(kind, str(len(lines)))
        return table

    def lines(self) -> list[str]:
        """Return what is wrong in lines, some of each kind by name and the others counted."""
        return [f"{kind}: {line}" for kind, lines in self.kinds.items() for line in at_most(lines, MAX_NAMED)]


def read_states(
    videos: Sequence[VideoRecord],
    *,
    expected_seconds: Mapping[str, float],
    expected_audio: Mapping[str, bool] | None = None,
    num_workers: int = 1,
) -> list[VideoState]:
    """Read the headers of videos.

    Args:
        videos: Which ones.
        expected_seconds: How long they should last, by video id, as far as that is known.
        expected_audio: Whether they should have sound, likewise; None where that is not known of any.
        num_workers: Processes side by side.

    Returns:
        The state of each, in their order.
    """
    states: dict[str, VideoState] = {}
    parts = [list(videos[first : first + _AT_ONCE]) for first in range(0, len(videos), _AT_ONCE)]
    while parts:
        calls = [joblib.delayed(in_limits)(Limits(), None, _read_headers, part, expected_seconds) for part in parts]
        results = list(zip(parts, each_in_order(calls, num_workers=num_workers, isolate=True), strict=True))
        parts = []
        for part, result in results:
            if not isinstance(result, WorkerDiedError):
                states |= {state.video_id: state for state in result}
            elif len(part) == 1:  # the file that killed its process
                (video,) = part
                states[video.video_id] = VideoState(video.video_id, video.split, video.path, reason=str(result))
            else:
                parts += [[video] for video in part]
    listed = expected_audio or {}
    return [replace(states[v.video_id], expected_audio=listed.get(v.video_id)) for v in videos]


def compared(
    rows: Iterable[PreparedVideo],
    expected_seconds: Mapping[str, float],
    expected_audio: Mapping[str, bool] | None = None,
) -> list[VideoState]:
    """Return the states of videos that were prepared, by what was found then.

    Args:
        rows: Of the catalog.
        expected_seconds: As of `read_states`.
        expected_audio: As of `read_states`.
    """
    listed = expected_audio or {}
    states = []
    for row in rows:
        refused = row.status == "refused"
        states.append(
            VideoState(
                row.video_id,
                row.split,
                Path(row.path),
                seconds=None if refused else row.duration_seconds,
                has_audio=row.has_audio,
                missing=refused and not is_readable_file(row.path),
                reason=row.reason,
                expected_seconds=expected_seconds.get(row.video_id),
                expected_audio=listed.get(row.video_id),
            )
        )
    return states


def lost_actions(actions: Iterable[ActionRecord], states: Mapping[str, VideoState]) -> int:
    """Return how many actions fall away: their video is not there or cannot be read, or it ends before they start."""
    ends = {name: -1.0 if state.seconds is None else state.seconds for name, state in states.items()}
    return sum(action.start_seconds >= ends.get(action.video_id, -1.0) for action in actions)


def task_state(
    task: str,
    split: str,
    spans: Iterable[Sequence[tuple[str, float]]],
    states: Mapping[str, VideoState],
    *,
    not_usable: Mapping[str, int],
) -> TaskState:
    """Return what is there of one split of one task.

    Args:
        task: Its name.
        split: Its split.
        spans: Of each row that can be used, the (video id, start in seconds) of each part of a video that it needs.
        states: Of the videos, by id.
        not_usable: By reason, how many rows are listed beside these, and cannot be used whatever files are there.
    """
    counts = {reason: number for reason, number in not_usable.items() if number}
    needed: dict[str, None] = {}
    num_rows = sum(counts.values())
    for parts in spans:
        num_rows += 1
        reasons = [reason for video_id, start in parts if (reason := _why_lost(states.get(video_id), start))]
        if reasons:
            counts[reasons[0]] = counts.get(reasons[0], 0) + 1
        needed |= dict.fromkeys(video_id for video_id, _ in parts)
    videos = [states[video_id] for video_id in needed if video_id in states]
    readable = [video for video in videos if video.seconds is not None]
    with_sound = [video for video in readable if video.has_audio]
    return TaskState(
        task,
        split,
        num_rows=num_rows,
        fall_away=counts,
        num_videos=len(needed),
        num_found=sum(not video.missing for video in videos),
        num_readable=len(readable),
        num_cut_short=sum(video.off_seconds < 0 for video in readable),
        num_with_sound=len(with_sound),
        seconds=sum(video.seconds or 0.0 for video in readable),
        seconds_with_sound=sum(video.seconds or 0.0 for video in with_sound),
    )


def _why_lost(state: VideoState | None, start_seconds: float) -> str:
    if state is None or state.missing:
        return "video missing"
    if state.seconds is None:
        return "video unreadable"
    return "begin after their file ends" if start_seconds >= state.seconds else ""


def times_beyond(actions: Iterable[ActionRecord], seconds: Mapping[str, float]) -> list[str]:
    """Return a line for each action that ends after its video does by the list of lengths."""
    return [
        f"{action.action_id}: ends at {action.stop_seconds:.2f} s, its video {action.video_id} is listed with "
        f"{seconds[action.video_id]:.2f} s"
        for action in actions
        if action.stop_seconds > seconds.get(action.video_id, action.stop_seconds) + TOLERANCE_SECONDS
    ]


def wrong_checksums(
    states: Sequence[VideoState], checksums: Mapping[str, Collection[str]], *, num_workers: int = 1
) -> tuple[int, tuple[str, ...]]:
    """Compare the MD5 checksums of files with those of a list; every byte is read.

    Returns:
        How many were compared, and a line for each that is another.
    """
    known = [state for state in states if not state.missing and state.video_id in checksums]
    with ThreadPoolExecutor(max(1, num_workers)) as pool:  # hashing releases the interpreter's lock
        digests = list(pool.map(_md5, [state.path for state in known]))
    faults = []
    for state, digest in zip(known, digests, strict=True):
        if digest not in checksums[state.video_id]:
            expected = " or ".join(sorted(checksums[state.video_id]))
            faults.append(f"{state.path}: MD5 {digest}, listed is {expected}")
    return len(known), tuple(faults)


def _md5(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        return f"not read ({reason_of(error)})"


def _read_headers(videos: Sequence[VideoRecord], expected_seconds: Mapping[str, float]) -> list[VideoState]:
    return [_read_header(video, expected_seconds.get(video.video_id)) for video in videos]


def _read_header(video: VideoRecord, expected: float | None) -> VideoState:
    state = VideoState(video.video_id, video.split, video.path, expected_seconds=expected)
    if not is_readable_file(video.path):
        return replace(state, missing=True)
    try:
        info = media_info(video.path)
    except (MediaError, OSError, MemoryError) as error:
        return replace(state, reason=str(error) or type(error).__name__)
    if info.video is None:
        return replace(state, reason=info.problem or "no picture that can be decoded")
    return replace(state, seconds=info.duration_seconds, has_audio=info.audio is not None, reason=info.problem or "")


def _off(video: VideoState) -> str:
    return f"{video.video_id}: {video.seconds:.2f} s, listed with {video.expected_seconds:.2f} s ({video.path})"


def _silent(videos: Iterable[VideoState]) -> list[VideoState]:
    """Return the videos that have no sound though they are listed with it."""
    return [video for video in videos if video.expected_audio and not video.has_audio]
