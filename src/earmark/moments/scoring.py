"""How well moments match the ground truth of a recording: onsets, and spans of annotated action.

Scores are those of the field's own scorer, mir_eval.
"""

import csv
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.datasets.epic_kitchens import parse_timestamp
from earmark.datasets.listing import reason_of

__all__ = [
    "OnsetScore",
    "TruthError",
    "holds_onsets",
    "idle_share",
    "read_spans",
    "read_truth",
    "score_onsets",
    "span_recall",
]

_Seconds: TypeAlias = NDArray[np.float64]
_ACTION_COLUMN = "narration_id"  # of EPIC-KITCHENS-100 alone
_CSV_COLUMNS = ("video_id", "start_timestamp", "stop_timestamp")
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
class _Annotation:
    video_id: str
    onset_seconds: float
    start_seconds: float
    stop_seconds: float
    is_onset: bool


def read_truth(path: str | Path) -> dict[str, _Seconds]:
    r"""Read known onsets.

    Args:
        path: by suffix and columns one of
            ``events.parquet`` of Audible Kitchen: points of no return of what is audible, on screen or off;
            ``.csv`` of EPIC-SOUNDS: starts;
            ``.txt`` of Audacity labels: starts, of the recording that is named as the file.

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
    if not holds_onsets(path):
        raise TruthError(f"{path}: holds actions, not onsets: it does not say when an action is heard")
    onsets: dict[str, list[float]] = defaultdict(list)
    for annotation in _annotations(Path(path)):
        found = onsets[annotation.video_id]  # a video without onsets is known to have none
        if annotation.is_onset:
            found.append(annotation.onset_seconds)
    return {video_id: np.sort(np.array(seconds, np.float64)) for video_id, seconds in onsets.items()}


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
    with _readable(path), path.open(newline="", encoding="utf-8-sig") as file:
        return _ACTION_COLUMN not in (csv.DictReader(file).fieldnames or ())


def read_spans(path: str | Path) -> dict[str, _Seconds]:
    """Read the spans of annotated action.

    Args:
        path: as for :func:`read_truth`, or a csv of EPIC-KITCHENS-100; of Audible Kitchen all events, audible or not.

    Returns:
        Name of the video -> start and stop of each span in seconds, in order of start, ``(N, 2)``.

    Raises:
        TruthError: if the file is of another format, missing or damaged.
    """
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for annotation in _annotations(Path(path)):
        spans[annotation.video_id].append((annotation.start_seconds, annotation.stop_seconds))
    return {video_id: np.array(sorted(pairs), np.float64) for video_id, pairs in spans.items()}


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


def _annotations(path: Path) -> Iterator[_Annotation]:
    readers = {".parquet": _of_kitchen, ".csv": _of_csv, ".txt": _of_labels}
    if path.suffix.lower() not in readers:
        raise TruthError(f"{path}: onsets are read from {', '.join(readers)}")
    with _readable(path):
        yield from readers[path.suffix.lower()](path)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what goes wrong in reading a file into a TruthError."""
    try:
        yield
    except (UnicodeDecodeError, csv.Error) as error:
        raise TruthError(f"{path}: not a readable text file ({error})") from error
    except OSError as error:
        raise TruthError(f"{path}: {reason_of(error)}") from error


def _of_kitchen(path: Path) -> Iterator[_Annotation]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:  # pyarrow's own errors do not say which file is missing
            table = pq.read_table(file)
    except pa.ArrowException as error:
        raise TruthError(f"{path}: not a readable table of events ({error})") from error
    _require(path, _PARQUET_COLUMNS, table.column_names)
    for number, row in enumerate(table.select(_PARQUET_COLUMNS).to_pylist(), start=1):
        seconds = [row[name] for name in _PARQUET_COLUMNS[1:4]]
        yield _annotation(f"{path}, row {number}", row["video_id"], *seconds, is_onset=bool(row["audible"]))


def _of_csv(path: Path) -> Iterator[_Annotation]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        _require(path, _CSV_COLUMNS, reader.fieldnames or ())
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            try:
                start, stop = (parse_timestamp(row[name] or "") for name in _CSV_COLUMNS[1:])
            except ValueError as error:
                raise TruthError(f"{where}: {error}") from error
            yield _annotation(where, row["video_id"], start, start, stop)


def _of_labels(path: Path) -> Iterator[_Annotation]:
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip() or line.startswith("\\"):  # a line with a backslash: the band of a spectral label
            continue
        fields = line.split("\t")
        try:
            start, stop = float(fields[0]), float(fields[1])
        except (ValueError, IndexError) as error:
            raise TruthError(f"{path}, line {number}: not start, end and text separated by tabs") from error
        yield _annotation(f"{path}, line {number}", path.stem, start, start, stop)


def _require(path: Path, columns: tuple[str, ...], found: Any) -> None:
    missing = [name for name in columns if name not in found]
    if missing:
        raise TruthError(f"{path}: column {', '.join(missing)} is missing")


def _annotation(where: str, video_id: Any, onset: Any, start: Any, stop: Any, *, is_onset: bool = True) -> _Annotation:
    times = (onset, start, stop)
    if not video_id or not all(isinstance(t, float) and np.isfinite(t) and t >= 0 for t in times) or stop < start:
        raise TruthError(f"{where}: {video_id!r} from {start} to {stop} s with its onset at {onset} s is impossible")
    return _Annotation(str(video_id), onset, start, stop, is_onset)
