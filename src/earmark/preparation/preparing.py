"""Turn source videos into a store: prepared videos, a catalog and a table of moments.

Path of a sample: video file --media + prepare--> prepared video + packet index, moments --store--> clip.

Every video leaves a small record of what was made of it (`earmark.preparation.video`), so an interrupted run continues
where it was, several runs can work on one store, and a run over finished videos only gathers the records. A source that
cannot be used is refused: it stays in the catalog, with the reason.
"""

import errno
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from earmark.console import new_console
from earmark.datasets.records import VideoRecord
from earmark.moments import moments_table, own_parameters
from earmark.moments.options import VERSION_KEY, detector_title
from earmark.preparation.catalog import PreparedVideo, StoreError, stretched
from earmark.preparation.disk_space import SourceLength, estimated_bytes, free_bytes, source_lengths
from earmark.preparation.isolation import Limits
from earmark.preparation.locks import clear_leftovers, left_behind, running_seconds
from earmark.preparation.options import MomentSearch, Transcoding, store_parameters
from earmark.preparation.progress import PrepareReport, progress_bars, size_text
from earmark.preparation.record import record_path
from earmark.preparation.tables import read_parameters, write_catalog, write_description, write_moments_of_store
from earmark.preparation.video import read_record
from earmark.preparation.workers import Backend, isolated_lengths, prepared_rows
from earmark.wording import counted

__all__ = ["DiskSpaceError", "PrepareError", "PrepareReport", "prepare"]

DEFAULT_TRANSCODING = Transcoding()
DEFAULT_SEARCH = MomentSearch()
LIMITS = Limits()


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
    transcoding: Transcoding = DEFAULT_TRANSCODING,
    search: MomentSearch = DEFAULT_SEARCH,
    part: tuple[int, int] = (1, 1),
    num_workers: int = 1,
    backend: Backend = "loky",
    isolate: bool = True,
    progress: bool = True,
) -> PrepareReport:
    """Prepare videos for training: transcode, find moments, write the catalog.

    Run again after an interruption, it continues where it was; a video whose source has not changed is not done again.
    Several runs may work on one store at once, on one machine or on many that share a folder: each takes videos that no
    other is working on.

    Args:
        videos: What to prepare; ids must be unique.
        root: Folder of the store; made if missing.
        transcoding: What is kept of a source.
        search: What finds the moments.
        part: (k, n): of all videos, in their order, only every n-th from the k-th on, k from 1 to n. The catalog
            holds what all parts have made so far.
        num_workers: Concurrent processes, one video each; -1 for one per processor.
        backend: ``"loky"`` for processes on this machine, ``"ray"`` for a Ray cluster.
        isolate: Whether each video is read in a process that is not this one, within limits of memory and time in
            proportion to its size and length (`earmark.preparation.isolation.Limits`): what kills a decoder costs one
            video, which is refused. Otherwise, with one worker, all is done in this process.
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
    parameters = store_parameters(transcoding, search)
    _check(videos, part)
    root = Path(root)
    parameters = _claim(root, parameters)
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
    limits = LIMITS if isolate else None
    lengths = (
        source_lengths(waiting)
        if limits is None
        else isolated_lengths(waiting, num_workers=max(1, num_workers), limits=limits)
    )
    _check_space(root, list(lengths.values()), parameters, tell=progress)
    running = partial(running_seconds, root, {video.video_id for video in waiting})
    total_seconds = sum(length.seconds for length in lengths.values())
    try:
        with progress_bars(len(waiting), total_seconds, running, shown=progress) as video_done:
            for row in prepared_rows(
                waiting, root, parameters, num_workers=num_workers, backend=backend, limits=limits
            ):
                rows[row.video_id] = row
                video_done(lengths[row.video_id].seconds)
        catalog = _write_tables(root, videos, rows, parameters)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise PrepareError(
            f"{root}: the disk is full ({error.strerror}): done, and kept: {len(rows)} of "
            f"{counted(len(mine), 'video')}; make room and run the same command again"
        ) from error
    num_elsewhere = len(videos) - len(catalog)
    made = tuple(rows[video.video_id] for video in mine)
    return PrepareReport(
        root,
        made,
        num_reused,
        detector_title(parameters),
        num_elsewhere,
        stretched=stretched(made, fps=transcoding.fps, sample_rate=transcoding.audio_rate),
    )


def _check(videos: Sequence[VideoRecord], part: tuple[int, int]) -> None:
    if not videos:
        raise PrepareError("no videos to prepare")
    seen: set[str] = set()
    for video in videos:
        if video.video_id in seen:
            raise PrepareError(f"video id {video.video_id!r} is given twice")
        seen.add(video.video_id)
    if not 1 <= part[0] <= part[1]:
        raise PrepareError(f"part must be (k, n) with k from 1 to n, got {part}")


def _claim(root: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """Make the folder a store of these parameters, or say why it cannot be; return the parameters that it goes on with.

    They are those given, but for a store that was begun with the first version of the detector: it is finished with it.
    """
    path = root / "store.json"
    if not path.exists():
        # Another run may be making it at this moment: its half-written file is ignored.
        if root.exists() and (not root.is_dir() or any(entry.name[0] != "." for entry in root.iterdir())):
            raise PrepareError(f"{root}: is not empty and not a prepared store; choose another folder")
        write_description(root, parameters)
    try:
        existing = read_parameters(root)
    except StoreError as error:
        raise PrepareError(str(error)) from error
    wanted = {name: value for name, value in parameters.items() if name != VERSION_KEY or name in existing}
    differing = [name for name in {**wanted, **existing} if existing.get(name) != wanted.get(name)]
    if differing:
        was = ", ".join(f"{name}={existing.get(name)}" for name in differing)
        now = ", ".join(f"{name}={wanted.get(name)}" for name in differing)
        raise PrepareError(f"{root}: this store was made with {was}; asked for {now}. Choose another folder.")
    return wanted  # what is there, in the order that records are written in


def _check_space(root: Path, lengths: list[SourceLength], parameters: dict[str, Any], *, tell: bool) -> None:
    """Compare the estimated size with the free space; windows around moments are not known beforehand."""
    needed, free = estimated_bytes(lengths, parameters), free_bytes(root)
    hours = sum(length.seconds for length in lengths) / 3600
    most = "at most " if "around" in parameters else "about "
    estimate = f"{hours:.2f} h of video will take {most}{size_text(needed)}; {size_text(free)} are free"
    if needed > free and "around" not in parameters:
        raise DiskSpaceError(f"{root}: {estimate}", needed_bytes=needed, free_bytes=free)
    if tell and lengths:
        new_console(stderr=True).print(estimate)


def _write_tables(
    root: Path, videos: Sequence[VideoRecord], rows: dict[str, PreparedVideo], parameters: dict[str, Any]
) -> list[PreparedVideo]:
    """Gather what all runs have made into the catalog and the table of moments; return the catalog.

    Another run may do the same at the same time. Each checks after writing whether there are more records than it had
    read, so the last one to write has them all, whatever the order.
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
        searched = _table({}, parameters).schema.metadata  # what found the moments
        write_catalog(root, catalog, parameters, metadata=searched)
        write_moments_of_store(root, pa.concat_tables(tables).combine_chunks())
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
