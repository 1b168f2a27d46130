"""Read a whole store back and say what is wrong with it.

Beside the path of a sample: `earmark prepare --verify`. Verifying changes nothing. `repair` makes indexes and the
description anew, and has the next run of `earmark.preparation.prepare` prepare the damaged videos again and gather the
tables from the records.
"""

import json
import os
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import joblib
import numpy as np
import numpy.typing as npt
import simplejpeg

from earmark.media import MediaError, PacketIndex
from earmark.preparation.catalog import PreparedVideo, StoreError, index_path, prepared_file
from earmark.preparation.locks import locked
from earmark.preparation.progress import progress_bars
from earmark.preparation.record import (
    Record,
    digest_of_file,
    in_order,
    is_index_of,
    load_record,
    max_index_bytes,
    rebuilt_index,
    record_path,
    row_differences,
)
from earmark.preparation.tables import (
    catalog_problems,
    differing_parameters,
    load_catalog,
    load_moments,
    parameter_problems,
    read_parameters,
    write_description,
)
from earmark.preparation.workers import Backend, in_processes
from earmark.wording import counted

__all__ = ["Damaged", "Fault", "VerifyReport", "invalidate", "repair", "verify"]

MOMENT_COLUMNS = ("time_seconds", "score", "height", "segment_id")

Damaged = Literal["video", "index", "tables", "description"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with a store.

    Attributes:
        video_id: With which video; empty where it is the whole store.
        reason: What, with the file, and the time where it has one.
        damaged: What has to be made anew: the ``video`` (its file, its record, its moments), its packet ``index``, the
            ``tables`` that are gathered from all records, or the ``description``, ``store.json``.
    """

    video_id: str
    reason: str
    damaged: Damaged = "video"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` found.

    Attributes:
        root: The store.
        num_videos: Read back.
        num_frames: Decoded, in all.
        hours: Of the recordings.
        faults: Those of the whole store, then those of its videos; empty if nothing is wrong.
        not_compared: What an older version did not write, so that nothing could be held against it.
    """

    root: Path
    num_videos: int
    num_frames: int
    hours: float
    faults: tuple[Fault, ...]
    not_compared: tuple[str, ...] = ()


def verify(
    root: str | os.PathLike[str], *, num_workers: int = 1, backend: Backend = "loky", progress: bool = True
) -> VerifyReport:
    """Read back every prepared video of a store, and hold all that the store says of them against their records.

    Description, catalog and moments are compared with the record of every video, refused ones included; of each usable
    video structure, index, checksums and every picture.

    Args:
        root: The store.
        num_workers: Concurrent processes; -1 for one per processor.
        backend: See `earmark.preparation.prepare`.
        progress: Whether to show progress on standard error.

    Returns:
        What was read, and what is wrong.

    Raises:
        StoreError: If the folder is no store at all.
    """
    root = Path(root)
    if not (root / "store.json").exists() and not (root / "videos").is_dir():
        read_parameters(root)  # says what is missing
    store = _Store(root)
    videos = {record.video.video_id: record for record in store.records.values() if record.video.status != "refused"}
    faults: dict[str, list[Fault]] = {}
    calls = [joblib.delayed(_verified)(root, record) for record in videos.values()]
    total_seconds = sum(record.video.duration_seconds for record in videos.values())
    with progress_bars(len(videos), total_seconds, shown=progress) as video_done:
        for video_id, found in in_processes(calls, num_workers=num_workers, backend=backend):
            faults[video_id] = found
            video_done(videos[video_id].video.duration_seconds)
    of_videos = [fault for video_id in videos for fault in faults[video_id]]
    return VerifyReport(
        root=root,
        num_videos=len(videos),
        num_frames=sum(record.video.num_frames for record in videos.values()),
        hours=total_seconds / 3600,
        faults=(*store.faults, *of_videos),
        not_compared=tuple(store.not_compared()),
    )


def invalidate(root: str | os.PathLike[str], video_ids: Collection[str]) -> None:
    """Remove the records of videos, so that the next run of `earmark.preparation.prepare` prepares them again.

    Args:
        root: The store.
        video_ids: Which ones.
    """
    for video_id in video_ids:
        with locked(Path(root), video_id, wait=True), suppress(StoreError):  # an id that cannot have a record
            record_path(Path(root), video_id).unlink(missing_ok=True)


def repair(report: VerifyReport) -> None:
    """Make anew what needs no source, and have the next run of `earmark.preparation.prepare` make the rest.

    A packet index is made from the video that it belongs to, the description from the records. The records of damaged
    videos are removed, so that `prepare` prepares these and no others; it gathers both tables in any case.

    Args:
        report: What `verify` found.

    Raises:
        OSError: If the store cannot be written.
    """
    root = report.root
    recorded = _usual_parameters(_records(root)[0].values())
    invalidate(root, {fault.video_id for fault in report.faults if fault.damaged == "video" and fault.video_id})
    for video_id in {fault.video_id for fault in report.faults if fault.damaged == "index"}:
        with locked(root, video_id, wait=True), suppress(StoreError, MediaError):  # its video is damaged, too
            record = load_record(root, video_id)
            path = prepared_file(root, record.video)
            rebuilt_index(path, record.video, record.checksum).save(index_path(path))
    if recorded is not None and any(fault.damaged == "description" for fault in report.faults):
        write_description(root, recorded)


class _Store:
    """The tables and the records of a store held against one another.

    Attributes:
        root: The store.
        records: The records that can be read, by id, in the order of the catalog.
        parameters: What the store was prepared with; None if nothing says so.
        faults: What was found.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.faults: list[Fault] = []
        self.records, self._unreadable = _records(root)
        self._old_tables: list[str] = []
        self.parameters = self._description()
        self._catalog()
        self.faults += [Fault(video_id, reason) for video_id, reason in self._unreadable.items()]
        self._moments()

    def not_compared(self) -> Iterator[str]:
        """Yield what could not be compared, since older versions did not write it."""
        for name in self._old_tables:
            yield f"{self.root / name}: holds no digest of its rows: they were compared one by one with the records"
        kinds = {
            "no digest of their own": lambda record: not record.is_proven,
            "no digest of the video's file and index": lambda record: not record.video.file_digest,
            "no checksum of its pictures and sound": lambda record: record.checksum is None,
        }
        usable = [record for record in self.records.values() if record.video.status != "refused"]
        for what, is_lacking in kinds.items():
            lacking = sum(map(is_lacking, usable))
            if lacking:
                yield f"{self.root / 'videos'}: {counted(lacking, 'record')} of {len(usable)}: {what}"

    def _table_fault(self, reason: str, video_id: str = "") -> None:
        self.faults.append(Fault(video_id, reason, "tables"))

    def _description(self) -> dict[str, Any] | None:
        """Hold ``store.json`` against the records; return what they were prepared with."""
        path = self.root / "store.json"
        recorded = _usual_parameters(self.records.values())
        try:
            stated = read_parameters(self.root)
        except StoreError as error:
            self.faults.append(Fault("", str(error), "description"))
            return recorded
        if recorded is None:
            return stated
        differing = differing_parameters(stated, recorded)
        if differing:
            there = ", ".join(differing_parameters(recorded, stated))
            self.faults.append(Fault("", f"{path}: {', '.join(differing)}, the records say {there}", "description"))
        for video_id, record in self.records.items():
            others = differing_parameters(record.parameters, recorded)
            if others:
                reason = f"{record_path(self.root, video_id)}: made with {', '.join(others)}, unlike the others"
                self.faults.append(Fault(video_id, reason))
        return recorded

    def _catalog(self) -> None:
        """Hold the catalog against the records, and bring these into its order."""
        path = self.root / "videos.parquet"
        try:
            catalog = load_catalog(self.root)
        except StoreError as error:
            self._table_fault(str(error))
            return
        num_before = len(self.faults)
        problems = catalog_problems(catalog.videos)
        if self.parameters is not None:
            problems += parameter_problems(catalog, self.parameters)
        for problem in problems:
            self._table_fault(f"{path}: {problem}")
        rows = {video.video_id: video for video in catalog.videos}
        if catalog.is_as_written:  # what else has a record is left from a run over other videos
            self.records = {video_id: self.records[video_id] for video_id in rows if video_id in self.records}
            self._unreadable = {name: reason for name, reason in self._unreadable.items() if name in rows}
        for video_id, row in rows.items():
            self._hold_row(row, self.records.get(video_id))
        without = self.records.keys() - rows.keys()
        for video_id in sorted(without):
            self._table_fault(f"{path}: has no row of this video, which has a record", video_id)
        ordered = [*(name for name in rows if name in self.records), *sorted(without)]
        self.records = {video_id: self.records[video_id] for video_id in ordered}
        if catalog.is_as_written is None:
            self._old_tables.append(path.name)
        if catalog.is_as_written is False and len(self.faults) == num_before:
            self._table_fault(f"{path}: its rows are not those that were written")

    def _hold_row(self, row: PreparedVideo, record: Record | None) -> None:
        """Hold a row of the catalog against the record of its video."""
        path = self.root / "videos.parquet"
        if record is None:
            if row.status != "refused" and row.video_id not in self._unreadable:
                self.faults.append(self._no_record(row.video_id))
            return
        if "refused" not in (row.status, record.video.status):
            try:
                prepared_file(self.root, row)
            except StoreError as error:
                self._table_fault(str(error), row.video_id)
                return
        for difference in row_differences(row, record.video):
            self.faults.append(Fault(row.video_id, f"{path}: {difference}", _proven(record)))

    def _no_record(self, video_id: str) -> Fault:
        try:
            load_record(self.root, video_id)
        except StoreError as error:
            return Fault(video_id, str(error))
        raise AssertionError(video_id)  # it would be among the records

    def _moments(self) -> None:
        """Hold the table of moments against the records."""
        path = self.root / "moments.parquet"
        try:
            moments = load_moments(self.root)
        except StoreError as error:
            self._table_fault(str(error))
            return
        names = moments.table["video_id"].combine_chunks()
        numbers = names.indices.to_numpy()
        columns = [moments.table[name].to_numpy() for name in MOMENT_COLUMNS]
        values = np.stack([np.asarray(column, np.float64) for column in columns])
        order = np.argsort(numbers, kind="stable")
        ids = names.dictionary.to_pylist()
        edges = np.searchsorted(numbers[order], np.arange(len(ids) + 1))
        found = {video_id: values[:, order[edges[number] : edges[number + 1]]] for number, video_id in enumerate(ids)}
        none = np.empty((4, 0))
        num_before = len(self.faults)
        for video_id, record in self.records.items():
            reason = _moments_difference(in_order(found.get(video_id, none)), record.moment_columns())
            if reason:
                self.faults.append(Fault(video_id, f"{path}: {reason}", _proven(record)))
        known = self.records.keys() | {fault.video_id for fault in self.faults if fault.damaged == "video"}
        for video_id in sorted(found.keys() - known):
            self._table_fault(f"{path}: moments of a video without a record", video_id)
        if moments.is_as_written is None:
            self._old_tables.append(path.name)
        if moments.is_as_written is False and len(self.faults) == num_before:
            self._table_fault(f"{path}: its rows are not those that were written")


def _proven(record: Record) -> Damaged:
    """Return what is damaged where a table differs from a record: one that does not prove itself may be the culprit."""
    return "tables" if record.is_proven else "video"


def _records(root: Path) -> tuple[dict[str, Record], dict[str, str]]:
    """Return the records of a store by id, and of those that cannot be read why, by the id that their place says."""
    records, unreadable = {}, {}
    for path in sorted((root / "videos").rglob("*.json")):
        if path.name.startswith("."):
            continue  # of a killed process
        video_id = path.relative_to(root / "videos").as_posix().removesuffix(".json")
        try:
            records[video_id] = load_record(root, video_id)
        except StoreError as error:
            unreadable[video_id] = str(error)
    return records, unreadable


def _usual_parameters(records: Collection[Record]) -> dict[str, Any] | None:
    """Return what most records were made with; None without a record."""
    kinds = {json.dumps(record.parameters, sort_keys=True): record.parameters for record in records}
    counts = Counter(json.dumps(record.parameters, sort_keys=True) for record in records)
    return kinds[counts.most_common(1)[0][0]] if counts else None


def _moments_difference(found: npt.NDArray[np.float64], recorded: npt.NDArray[np.float64]) -> str:
    """Return in what moments in the order of time differ from those of the record; empty if they do not."""
    if found.shape != recorded.shape:
        return f"{counted(found.shape[1], 'moment')}, the record says {recorded.shape[1]}"
    differing = ~((found == recorded) | (np.isnan(found) & np.isnan(recorded)))
    moments = np.flatnonzero(differing.any(axis=0))
    if not len(moments):
        return ""
    first = int(moments[0])
    column = int(np.flatnonzero(differing[:, first])[0])
    return (
        f"{counted(len(moments), 'moment')} other than in the record: at {found[0, first]:.3f} s "
        f"{MOMENT_COLUMNS[column]} is {found[column, first]:g}, the record says {recorded[column, first]:g}"
    )


def _verified(root: Path, record: Record) -> tuple[str, list[Fault]]:
    """Return a video's id and what is wrong with its files."""
    video, fps = record.video, float(record.parameters["fps"])
    faults: list[Fault] = []
    try:
        path = prepared_file(root, video)
        if path.stat().st_size != video.num_bytes:
            reason = f"{path}: {path.stat().st_size} bytes, the record says {video.num_bytes}"
            faults.append(Fault(video.video_id, reason))
        actual = PacketIndex.of_file(path)
        faults += _index_faults(path, record, actual, fps)
        faults += [Fault(video.video_id, reason) for reason in _picture_faults(path, video, actual, fps)]
        if not faults and video.file_digest and digest_of_file(path) != video.file_digest:
            faults.append(Fault(video.video_id, f"{path}: has changed since it was written, outside picture and sound"))
    except OSError as error:
        faults.append(Fault(video.video_id, f"{error.filename}: {error.strerror}"))
    except (MediaError, StoreError) as error:
        faults.append(Fault(video.video_id, str(error)))
    return video.video_id, faults


def _index_faults(path: Path, record: Record, actual: PacketIndex, fps: float) -> Iterator[Fault]:
    """Compare the index that was written with the video, and the record, with what the file holds."""
    video = record.video
    saved = index_path(path)
    is_known = record.checksum is not None or video.index_digest != ""
    # an index is worth making anew only from a file that is known to be as it was written
    damaged: Damaged = "index" if is_known and is_index_of(actual, video, record.checksum) else "video"
    seconds = _frame_seconds(actual, fps)
    if (actual.num_frames, actual.num_samples) != (video.num_frames, video.num_samples):
        holds = f"{actual.num_frames} frames and {actual.num_samples} samples"
        reason = f"{path}: holds {holds}, the record says {video.num_frames} and {video.num_samples}"
        yield Fault(video.video_id, reason)
    try:
        index = PacketIndex.load(saved, max_bytes=max_index_bytes(video.num_bytes))
    except (FileNotFoundError, MediaError) as error:
        reason = f"{saved}: is missing" if isinstance(error, FileNotFoundError) else str(error)
        yield Fault(video.video_id, reason, damaged)
        if is_known and damaged == "video":
            yield Fault(video.video_id, f"{path}: its pictures or sound have changed since they were written")
        return
    if record.checksum is not None and record.checksum != index.checksum:
        yield Fault(video.video_id, f"{saved}: its checksums differ from those written with the video", damaged)
    places = [field.name for field in fields(PacketIndex) if "checksums" not in field.name]
    wrong = [name for name in places if not np.array_equal(getattr(index, name), getattr(actual, name))]
    if wrong:
        reason = f"{saved}: wrong index: {', '.join(wrong)} are not those of {path.name}"
        yield Fault(video.video_id, reason, damaged)
        return
    for number in np.flatnonzero(index.frame_checksums != actual.frame_checksums).tolist():
        reason = f"{path}: frame {number} ({seconds[number]:.3f} s) has changed since it was written"
        yield Fault(video.video_id, reason, damaged)
    changed = np.flatnonzero(index.sound_checksums != actual.sound_checksums)
    if len(changed):
        offset = int(index.sound_offsets[changed[0]])
        reason = f"{path}: {counted(len(changed), 'run')} of sound changed since written, the first at byte {offset}"
        yield Fault(video.video_id, reason, damaged)


def _picture_faults(path: Path, video: PreparedVideo, index: PacketIndex, fps: float) -> Iterator[str]:
    """Decode every picture."""
    seconds = _frame_seconds(index, fps)
    with path.open("rb") as file:
        for number, (offset, size) in enumerate(zip(index.frame_offsets, index.frame_sizes, strict=True)):
            file.seek(int(offset))
            try:
                height, width = simplejpeg.decode_jpeg(file.read(int(size)), "RGB").shape[:2]
            except ValueError as error:
                yield f"{path}: frame {number} ({seconds[number]:.3f} s) cannot be decoded: {error}"
                continue
            if (width, height) != (video.width, video.height):
                yield f"{path}: frame {number} is {width}x{height}, the record says {video.width}x{video.height}"


def _frame_seconds(index: PacketIndex, fps: float) -> npt.NDArray[np.float64]:
    """Return the time of each frame on the recording's clock."""
    numbers = [np.arange(first, first + count) for first, count in index.windows[:, :2].tolist()]
    return np.concatenate(numbers) / fps
