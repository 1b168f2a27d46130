"""Turn source videos into a store: prepared videos, a catalog and a table of moments.

Path of a sample: video file --media + prepare--> prepared video + packet index, moments --store--> clip.

Every video leaves a small record of what was made of it (`earmark.preparation.video`), so an interrupted run goes on
where it was, several runs can work on one store, and a run over finished videos only gathers the records. A source that
cannot be used is refused: it stays in the catalog, with the reason.
"""

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from earmark.atomic import replacing
from earmark.clips.store import CATALOG_SCHEMA, STORE_VERSION, PreparedVideo, StoreError, stretched
from earmark.datasets.records import VideoRecord
from earmark.moments import (
    DEFAULT_DETECTOR,
    detector_parameters,
    moments_table,
    own_parameters,
    with_detector,
    write_moments,
)
from earmark.preparation.disk_space import SourceLength, estimated_bytes, free_bytes, source_lengths
from earmark.preparation.locks import clear_leftovers, left_behind, running_seconds
from earmark.preparation.progress import PrepareReport, progress_bars, size_text
from earmark.preparation.video import read_record, record_path
from earmark.preparation.workers import Backend, prepared_rows
from earmark.wording import counted

__all__ = ["DiskSpaceError", "PrepareError", "PrepareReport", "prepare"]


class PrepareError(ValueError):
    """Preparing cannot start or go on; the message says why."""


class DiskSpaceError(PrepareError):
    """What will be written does not fit on the disk.

    Attributes:
        needed_bytes: Estimated size of the prepared videos.
        free_bytes: What is free at the store's folder.
    """

    def __init__(self, message: str, *, needed_bytes: float = 0, free_bytes: float = 0) -> None:
        super().__init__(message)
        self.needed_bytes, self.free_bytes = needed_bytes, free_bytes


def prepare(
    videos: Sequence[VideoRecord],
    root: str | os.PathLike[str],
    *,
    fps: int = 16,
    short_side: int = 128,
    quality: int = 90,
    audio_rate: int = 16000,
    segment_seconds: float = 10.0,
    detector: str = DEFAULT_DETECTOR,
    min_score: float | None = None,
    min_distance_seconds: float | None = None,
    min_prominence: float | None = None,
    min_distance: int | None = None,
    audio_stream: int | None = None,
    around: Literal["moments"] | None = None,
    around_seconds: float = 1.0,
    part: tuple[int, int] = (1, 1),
    num_workers: int = 1,
    backend: Backend = "loky",
    progress: bool = True,
) -> PrepareReport:
    """Prepare videos for training: transcode, find moments, write the catalog.

    Run again after an interruption it goes on where it was; a video whose source has not changed is not done again.
    Several runs may work on one store at once, on one machine or on many that share a folder: each does what no other
    is at.

    Args:
        videos: What to prepare; ids must be unique.
        root: Folder of the store; made if missing.
        fps: Frames a second of the prepared picture.
        short_side: Its shorter side in pixels.
        quality: JPEG quality, 1 to 100.
        audio_rate: Sample rate of the prepared sound in Hz.
        segment_seconds: Length of the segments of which an epoch visits one moment each (see
            `earmark.moments.segment_number`).
        detector: What finds the moments: ``earmark``, or ``replai``, the original code's.
        min_score: Of ``earmark`` alone: least score of a moment; None for 3.
        min_distance_seconds: Of ``earmark`` alone: least distance of two moments; None for 0.05.
        min_prominence: Of ``replai`` alone: least prominence of a moment; None for 1.
        min_distance: Of ``replai`` alone: least distance of two moments, in windows of the curve; None for 10.
        audio_stream: The n-th sound stream of each video, from 0; None for its container's default. A video that has
            fewer is prepared without sound, and says so.
        around: ``"moments"`` keeps nothing but windows around the moments; None keeps all.
        around_seconds: How much is kept on each side of a moment: at least gap and clip, and half of the sound.
        part: (k, n): of all videos, in their order, only every n-th from the k-th on, k from 1 to n. The catalog
            holds what all parts have made so far.
        num_workers: Processes that work side by side, a video each; -1 for one a processor.
        backend: ``"loky"`` for processes on this machine, ``"ray"`` for a Ray cluster.
        progress: Whether to show progress and the estimated size on standard error.

    Returns:
        The report: what was prepared, degraded and refused, and why.

    Raises:
        PrepareError: If nothing is given, ids repeat, a parameter is out of range, the folder holds something else or a
            store made with other parameters, or the disk has no room.
        earmark.preparation.workers.BackendError: If Ray is asked for and not installed.
        OSError: If the store cannot be written.

    Example:
        >>> from earmark.datasets import Folder
        >>> report = prepare(Folder("clips").videos(), "data/prepared/clips")  # doctest: +SKIP
    """
    parameters: dict[str, Any] = {
        "fps": fps,
        "short_side": short_side,
        "quality": quality,
        "audio_rate": audio_rate,
        **_detector_parameters(
            detector,
            segment_seconds=segment_seconds,
            min_score=min_score,
            min_distance_seconds=min_distance_seconds,
            min_prominence=min_prominence,
            min_distance=min_distance,
        ),
    }
    if audio_stream is not None:
        parameters["audio_stream"] = audio_stream
    if around is not None:
        parameters |= {"around": around, "around_seconds": around_seconds}
    _check(videos, parameters, part)
    root = Path(root)
    _claim(root, parameters)
    clear_leftovers(root)
    number, num_parts = part
    mine = videos[number - 1 :: num_parts]
    rows: dict[str, PreparedVideo] = {}
    for video in mine:
        record = read_record(root, video, parameters)
        if record is not None and record[0].status != "refused":  # its fault may have been this program's
            rows[video.video_id] = record[0]
    waiting = [video for video in mine if video.video_id not in rows]
    left_behind(root, [video.video_id for video in waiting])
    num_reused = len(rows)
    lengths = source_lengths(waiting)
    _check_space(root, list(lengths.values()), parameters, tell=progress)
    running = partial(running_seconds, root, {video.video_id for video in waiting})
    total_seconds = sum(length.seconds for length in lengths.values())
    try:
        with progress_bars(len(waiting), total_seconds, running, shown=progress) as video_done:
            for row in prepared_rows(waiting, root, parameters, num_workers=num_workers, backend=backend):
                rows[row.video_id] = row
                video_done(lengths[row.video_id].seconds)
        catalog = _write_tables(root, videos, rows, parameters)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise PrepareError(
            f"{root}: the disk is full ({error.strerror}): done, and kept: {len(rows)} of "
            f"{counted(len(mine), 'video')}; make room and give the same command again"
        ) from error
    num_elsewhere = len(videos) - len(catalog)
    made = tuple(rows[video.video_id] for video in mine)
    return PrepareReport(
        root, made, num_reused, detector, num_elsewhere, stretched=stretched(made, fps=fps, sample_rate=audio_rate)
    )


def _detector_parameters(detector: str, **options: Any) -> dict[str, Any]:
    try:
        return detector_parameters(detector, **options)
    except ValueError as error:
        raise PrepareError(str(error)) from error


def _check(videos: Sequence[VideoRecord], parameters: dict[str, Any], part: tuple[int, int]) -> None:
    if not videos:
        raise PrepareError("no videos to prepare")
    seen: set[str] = set()
    for video in videos:
        if video.video_id in seen:
            raise PrepareError(f"video id {video.video_id!r} is given twice")
        seen.add(video.video_id)
    least = {"fps": 1, "short_side": 16, "quality": 1, "audio_rate": 4000, "segment_seconds": 1}
    for name, value in least.items():
        if parameters[name] < value:
            raise PrepareError(f"{name} must be at least {value}, got {parameters[name]}")
    if parameters["quality"] > 100:
        raise PrepareError(f"quality must be at most 100, got {parameters['quality']}")
    if parameters["short_side"] % 2:
        raise PrepareError(f"short_side must be even, got {parameters['short_side']}")
    if parameters.get("around", "moments") != "moments":
        raise PrepareError(f"around must be 'moments' or None, got {parameters['around']!r}")
    if parameters.get("around_seconds", 1.0) <= 0:
        raise PrepareError(f"around_seconds must be above 0, got {parameters['around_seconds']}")
    if parameters.get("audio_stream", 0) < 0:
        raise PrepareError(f"audio_stream must be at least 0, got {parameters['audio_stream']}")
    if not 1 <= part[0] <= part[1]:
        raise PrepareError(f"part must be (k, n) with k from 1 to n, got {part}")


def _claim(root: Path, parameters: dict[str, Any]) -> None:
    """Make the folder a store of these parameters, or say why it cannot be."""
    path = root / "store.json"
    if not path.exists():
        # Another run may be making it this very moment: its half-written file counts for nothing.
        if root.exists() and (not root.is_dir() or any(entry.name[0] != "." for entry in root.iterdir())):
            raise PrepareError(f"{root}: is not empty and not a prepared store; choose another folder")
        content = {"format_version": STORE_VERSION, "parameters": parameters}
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2))
    try:
        existing = with_detector(json.loads(path.read_text())["parameters"])
    except (ValueError, KeyError, TypeError) as error:
        raise PrepareError(f"{path}: not the description of a prepared store ({error})") from error
    differing = [name for name in {**parameters, **existing} if existing.get(name) != parameters.get(name)]
    if differing:
        was = ", ".join(f"{name}={existing.get(name)}" for name in differing)
        now = ", ".join(f"{name}={parameters.get(name)}" for name in differing)
        raise PrepareError(f"{root}: this store was made with {was}; asked for {now}. Choose another folder.")


def _check_space(root: Path, lengths: list[SourceLength], parameters: dict[str, Any], *, tell: bool) -> None:
    """Compare what will be written with the room there is; windows around moments are not known beforehand."""
    needed, free = estimated_bytes(lengths, parameters), free_bytes(root)
    hours = sum(length.seconds for length in lengths) / 3600
    most = "at most " if "around" in parameters else "about "
    estimate = f"{hours:.2f} h of video will take {most}{size_text(needed)}; {size_text(free)} are free"
    if needed > free and "around" not in parameters:
        raise DiskSpaceError(f"{root}: {estimate}", needed_bytes=needed, free_bytes=free)
    if tell and lengths:
        from rich.console import Console

        Console(stderr=True, highlight=False, markup=False).print(estimate)


def _write_tables(
    root: Path, videos: Sequence[VideoRecord], rows: dict[str, PreparedVideo], parameters: dict[str, Any]
) -> list[PreparedVideo]:
    """Gather what all runs have made into the catalog and the table of moments; return the catalog.

    Another run may do the same at the same time. Each looks again after writing whether there are more records than it
    had read: so the last one to write has them all, whatever the order.
    """
    while True:
        before = _record_times(root, videos)
        catalog, tables = [], [_table({}, parameters)]
        for video in videos:
            record = read_record(root, video, parameters)
            if record is not None:
                catalog.append(record[0])
                tables.append(_table({video.video_id: record[1]}, parameters))
            elif video.video_id in rows:  # refused without a record
                catalog.append(rows[video.video_id])
        schema = CATALOG_SCHEMA.with_metadata(_table({}, parameters).schema.metadata)  # what found the moments
        content = pa.Table.from_pylist([asdict(row) for row in catalog], schema=schema)
        with replacing(root / "videos.parquet") as temporary:
            pq.write_table(content, temporary)
        write_moments(root / "moments.parquet", pa.concat_tables(tables).combine_chunks())
        if _record_times(root, videos) == before:
            return catalog


def _table(moments: dict[str, Any], parameters: dict[str, Any]) -> pa.Table:
    searched = own_parameters(parameters)
    return moments_table(moments, detector=searched.pop("detector"), parameters=searched)


def _record_times(root: Path, videos: Sequence[VideoRecord]) -> list[int]:
    """Return when each video's record was written; 0 where there is none."""
    times = []
    for video in videos:
        try:
            times.append(record_path(root, video.video_id).stat().st_mtime_ns)
        except (OSError, StoreError):
            times.append(0)
    return times
