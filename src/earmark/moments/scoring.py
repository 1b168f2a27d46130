"""How well moments match the ground truth of a recording: onsets, and spans of annotated action.

Scores are those of the field's own scorer, mir_eval.
"""

import re
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.datasets.annotation_files import (
    MAX_LINE_CHARACTERS,
    MAX_VIDEO_SECONDS,
    RowError,
    RowFaults,
    checked_id,
    csv_columns,
    csv_rows,
    parse_timestamp,
    quoted,
)
from earmark.datasets.listing import reason_of
from earmark.datasets.records import DatasetError

__all__ = [
    "GroundTruth",
    "OnsetScore",
    "TruthError",
    "holds_onsets",
    "idle_share",
    "read_ground_truth",
    "read_spans",
    "read_truth",
    "score_onsets",
    "span_recall",
]

_Seconds: TypeAlias = NDArray[np.float64]
_ACTION_COLUMN = "narration_id"  # of EPIC-KITCHENS-100 alone
_SOUND_COLUMN = "annotation_id"  # of EPIC-SOUNDS
_CSV_COLUMNS = ("video_id", "start_timestamp", "stop_timestamp")
_SECONDS = re.compile(r"[+-]?([0-9]{1,400}\.?[0-9]{0,400}|\.[0-9]{1,400})([eE][+-]?[0-9]{1,9})?")
_ROWS_AT_ONCE = 50_000
_PARQUET_COLUMNS = ("video_id", "point_of_no_return_seconds", "onset_seconds", "offset_seconds", "audible")


class TruthError(ValueError):
    """A file of ground truth can't be read; the message names the file, the line where there is one, and the reason."""


@dataclass(frozen=True, slots=True)
class OnsetScore:
    """How moments and onsets meet, each at most once.

    Attributes:
        precision: share of the moments that meet an onset; 0 without moments.
        recall: share of the onsets that are met; 0 without onsets.
        f1: harmonic mean of the two; 0 if nothing meets.
        num_moments: number of moments.
        num_truth: number of onsets.
    """

    precision: float
    recall: float
    f1: float
    num_moments: int
    num_truth: int


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """What a file says of recordings.

    Attributes:
        onsets: name of the video -> when something is heard in it, in seconds, in order, ``(N,)``; None where the file
            says only when actions begin and end (see :func:`holds_onsets`).
        spans: name of the video -> start and stop of each annotated span in seconds, in order of start, ``(M, 2)``.
        problems: the rows that were left out, each with its file, place and reason.
    """

    onsets: dict[str, _Seconds] | None
    spans: dict[str, _Seconds]
    problems: tuple[str, ...] = ()


class _Annotation(NamedTuple):
    video_id: str
    onset_seconds: float
    start_seconds: float
    stop_seconds: float
    is_onset: bool


def read_ground_truth(path: str | Path) -> GroundTruth:
    r"""Read what is known of recordings; rows that can't be used are left out and named.

    Args:
        path: by suffix and columns one of
            ``events.parquet`` of Audible Kitchen: points of no return of what is audible, on screen or off; as spans
            all events, audible or not;
            ``.csv`` of EPIC-SOUNDS: starts;
            ``.csv`` of EPIC-KITCHENS-100: spans of actions, no onsets;
            ``.txt`` of Audacity labels: starts, of the recording that is named as the file.

    Raises:
        TruthError: if the file is of another format, missing or damaged, or none of its rows can be used.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "chopping.txt")
        ...     _ = path.write_text("0.645\t0.645\thit\nnan\t1\thit\n1.127\t1.127\thit\n")
        ...     truth = read_ground_truth(path)
        >>> truth.onsets["chopping"].tolist(), [text.partition("chopping.txt")[2] for text in truth.problems]
        ([0.645, 1.127], [", line 2: not start, end and text separated by tabs: 'nan'"])
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise TruthError(f"{path}: onsets are read from {', '.join(_READERS)}")
    faults = RowFaults(path)
    onsets: dict[str, array[float]] = {}
    spans: dict[str, array[float]] = defaultdict(lambda: array("d"))
    num_rows = 0
    with _readable(path):
        for annotation in _READERS[suffix](path, faults):
            num_rows += 1
            found = onsets.setdefault(annotation.video_id, array("d"))  # a video without onsets is known to have none
            if annotation.is_onset:
                found.append(annotation.onset_seconds)
            spans[annotation.video_id].extend((annotation.start_seconds, annotation.stop_seconds))
        faults.require_rows(num_rows)
    return GroundTruth(
        {video_id: np.sort(np.array(times)) for video_id, times in onsets.items()} if holds_onsets(path) else None,
        {video_id: _in_order(np.array(times).reshape(-1, 2)) for video_id, times in spans.items()},
        faults.lines(),
    )


def _in_order(spans: _Seconds) -> _Seconds:
    return spans[np.lexsort((spans[:, 1], spans[:, 0]))]


def read_truth(path: str | Path) -> dict[str, _Seconds]:
    r"""Read known onsets; a row that can't be used is an error.

    Args:
        path: as for :func:`read_ground_truth`.

    Returns:
        Name of the video -> its onsets in seconds, in order, ``(N,)``.

    Raises:
        TruthError: if it is of another format, missing or damaged, or holds actions (see :func:`holds_onsets`).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "chopping.txt")
        ...     _ = path.write_text("0.645\t0.645\thit\n1.127\t1.127\thit\n")
        ...     read_truth(path)
        {'chopping': array([0.645, 1.127])}
    """
    truth = _without_problems(read_ground_truth(path))
    if truth.onsets is None:
        raise TruthError(f"{path}: holds actions, not onsets: it does not say when an action is heard")
    return truth.onsets


def _without_problems(truth: GroundTruth) -> GroundTruth:
    if truth.problems:
        raise TruthError("\n".join(truth.problems))
    return truth


def holds_onsets(path: str | Path) -> bool:
    """Return whether a file says when something is heard.

    Those of EPIC-KITCHENS-100 say when actions begin and end: an action begins with the reach for a thing, and is heard
    later, if at all. So there are no onsets to compare moments with, only spans.

    Args:
        path: as for :func:`read_truth`, or a csv of EPIC-KITCHENS-100.

    Raises:
        TruthError: if the file is missing or no text.
    """
    path = Path(path)
    if path.suffix.lower() != ".csv":
        return True
    with _readable(path):
        return _ACTION_COLUMN not in csv_columns(path)


def read_spans(path: str | Path) -> dict[str, _Seconds]:
    """Read the spans of annotated action; a row that can't be used is an error.

    Args:
        path: as for :func:`read_ground_truth`.

    Returns:
        Name of the video -> start and stop of each span in seconds, in order of start, ``(N, 2)``.

    Raises:
        TruthError: if the file is of another format, missing or damaged.
    """
    return _without_problems(read_ground_truth(path)).spans


def score_onsets(moments_seconds: ArrayLike, truth_seconds: ArrayLike, *, window_seconds: float) -> OnsetScore:
    """Score moments against onsets as `mir_eval.onset` does: a largest matching of pairs at most a window apart.

    Args:
        moments_seconds: ``(M,)``, in any order.
        truth_seconds: ``(N,)``, in any order.
        window_seconds: 0.05 is the field's usual one; both ends included.

    Raises:
        ValueError: if the window is negative, or times are negative, not finite or not one-dimensional.

    Example:
        >>> score_onsets([0.52, 2.0], [0.5, 1.0, 1.5], window_seconds=0.05)
        OnsetScore(precision=0.5, recall=0.3333333333333333, f1=0.4, num_moments=2, num_truth=3)
    """
    from mir_eval.util import match_events

    if not window_seconds >= 0:
        raise ValueError(f"window_seconds must not be negative, got {window_seconds}")
    moments, truth = _times("moments_seconds", moments_seconds), _times("truth_seconds", truth_seconds)
    num_met = len(match_events(truth, moments, window_seconds)) if len(moments) and len(truth) else 0
    return OnsetScore(
        precision=num_met / len(moments) if len(moments) else 0.0,
        recall=num_met / len(truth) if len(truth) else 0.0,
        f1=2 * num_met / (len(moments) + len(truth)) if num_met else 0.0,
        num_moments=len(moments),
        num_truth=len(truth),
    )


def idle_share(moments_seconds: ArrayLike, spans_seconds: ArrayLike) -> float:
    """Return the share of the moments that lie outside every annotated action, 0 without moments.

    Args:
        moments_seconds: ``(M,)``.
        spans_seconds: start and stop of each action, both included, ``(N, 2)``.

    Raises:
        ValueError: if moments or spans have another shape.

    Example:
        >>> idle_share([0.5, 1.5, 3.0, 4.0], [(0, 1), (2, 3)])
        0.5
    """
    inside = _inside(moments_seconds, spans_seconds)
    return 1.0 - float(inside.any(axis=1).mean()) if len(inside) else 0.0


def span_recall(moments_seconds: ArrayLike, spans_seconds: ArrayLike) -> float:
    """Return the share of the annotated actions within which there is a moment, 0 without actions.

    Args:
        moments_seconds: ``(M,)``.
        spans_seconds: start and stop of each action, both included, ``(N, 2)``.

    Raises:
        ValueError: if moments or spans have another shape.

    Example:
        >>> span_recall([0.5, 0.6], [(0, 1), (2, 3)])
        0.5
    """
    inside = _inside(moments_seconds, spans_seconds)
    return float(inside.any(axis=0).mean()) if inside.shape[1] else 0.0


def _inside(moments_seconds: ArrayLike, spans_seconds: ArrayLike) -> NDArray[np.bool_]:
    """Return which moment lies in which span, ``(M, N)``."""
    moments = _times("moments_seconds", moments_seconds)[:, None]
    spans = np.asarray(spans_seconds, np.float64)
    if spans.size == 0:
        spans = spans.reshape(0, 2)
    if spans.ndim != 2 or spans.shape[1] != 2:
        raise ValueError(f"spans_seconds must be of shape (N, 2), got {spans.shape}")
    inside: NDArray[np.bool_] = (spans[:, 0] <= moments) & (moments <= spans[:, 1])
    return inside


def _times(name: str, seconds: ArrayLike) -> _Seconds:
    times = np.asarray(seconds, np.float64)
    if times.ndim != 1 or not np.isfinite(times).all() or (times < 0).any():
        raise ValueError(f"{name} must be one-dimensional, finite and not negative")
    return np.sort(times)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what goes wrong in reading a file into a TruthError."""
    try:
        yield
    except DatasetError as error:
        cause = error.__cause__
        raise TruthError(f"{path}: {reason_of(cause)}" if isinstance(cause, OSError) else str(error)) from error
    except OSError as error:
        raise TruthError(f"{path}: {reason_of(error)}") from error


def _of_kitchen(path: Path, faults: RowFaults) -> Iterator[_Annotation]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:  # pyarrow's own errors do not say which file is missing
            table = pq.ParquetFile(file)
            _require(path, _PARQUET_COLUMNS, table.schema_arrow.names)
            num_before = 0
            for batch in table.iter_batches(_ROWS_AT_ONCE, columns=list(_PARQUET_COLUMNS)):
                columns = (batch.column(name).to_pylist() for name in _PARQUET_COLUMNS)
                for number, (video_id, *seconds, audible) in enumerate(
                    zip(*columns, strict=True), start=num_before + 1
                ):
                    try:
                        if not isinstance(audible, bool):
                            raise RowError(f"audible is {quoted(audible)}, expected true or false")
                        yield _annotation(checked_id("video_id", video_id), *seconds, is_onset=audible)
                    except RowError as error:
                        faults.add(f"row {number}", error)
                num_before += len(batch)
    except pa.ArrowException as error:
        raise TruthError(f"{path}: not a readable table of events ({error})") from error


def _of_csv(path: Path, faults: RowFaults) -> Iterator[_Annotation]:
    names: dict[str, str] = {}  # the same few of many rows: kept once
    ids: set[str] = set()
    for place, (video_id, start, stop, *given) in csv_rows(
        path, _CSV_COLUMNS, faults, optional=(_SOUND_COLUMN, _ACTION_COLUMN)
    ):
        row_id = "".join(given)
        try:
            if row_id in ids:
                raise RowError(f"{quoted(row_id)} is listed twice")
            if video_id not in names:
                names[video_id] = checked_id("video_id", video_id)
            seconds = parse_timestamp(start)
            annotation = _annotation(names[video_id], seconds, seconds, parse_timestamp(stop))
        except RowError as error:
            faults.add(place, error)
            continue
        if row_id:
            ids.add(row_id)
        yield annotation


def _of_labels(path: Path, faults: RowFaults) -> Iterator[_Annotation]:
    number = 0
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        while line := file.readline(MAX_LINE_CHARACTERS + 1):
            number += 1
            if len(line) > MAX_LINE_CHARACTERS:
                raise TruthError(f"{path}: not a readable text file (line {number} is longer than 2^20 characters)")
            if not line.strip() or line.startswith("\\"):  # with a backslash: the band of a spectral label
                continue
            fields = line.rstrip("\n").split("\t")
            unreadable = next((text for text in fields[:2] if not _SECONDS.fullmatch(text.strip())), None)
            if unreadable is not None or len(fields) < 2:
                found = quoted(fields[0] if unreadable is None else unreadable)
                faults.add(f"line {number}", f"not start, end and text separated by tabs: {found}")
                continue
            start, stop = float(fields[0]), float(fields[1])
            try:
                yield _annotation(path.stem, start, start, stop)
            except RowError as error:
                faults.add(f"line {number}", error)


_READERS: dict[str, Callable[[Path, RowFaults], Iterator[_Annotation]]] = {
    ".parquet": _of_kitchen,
    ".csv": _of_csv,
    ".txt": _of_labels,
}


def _require(path: Path, columns: tuple[str, ...], found: Any) -> None:
    missing = [name for name in columns if name not in found]
    if missing:
        raise TruthError(f"{path}: column {', '.join(missing)} is missing")


def _annotation(video_id: str, onset: Any, start: Any, stop: Any, *, is_onset: bool = True) -> _Annotation:
    times = (onset, start, stop)
    possible = all(isinstance(time, float) and 0 <= time <= MAX_VIDEO_SECONDS for time in times)
    if not possible or stop < start:
        raise RowError(
            f"{quoted(video_id)} from {quoted(start)} to {quoted(stop)} s with its onset at {quoted(onset)} s is "
            "impossible"
        )
    return _Annotation(video_id, onset, start, stop, is_onset)
