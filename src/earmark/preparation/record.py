"""The record of a prepared video: what was made of its source, with what, and the digests by which a change is seen.

Beside the path of a sample: `earmark.preparation.video` writes one when a video is whole; the catalog and the table of
moments are gathered from them, and readers and `earmark.preparation.verify` hold the store against them.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from earmark.atomic import replacing
from earmark.media import PacketIndex
from earmark.moments import Moment, with_detector
from earmark.preparation.catalog import PreparedVideo, StoreError, prepared_name
from earmark.preparation.tables import check_parameters

__all__ = [
    "GIVEN",
    "Record",
    "digest_of_file",
    "in_order",
    "is_index_of",
    "load_record",
    "max_index_bytes",
    "rebuilt_index",
    "record_path",
    "row_differences",
    "save_record",
]

GIVEN = ("path", "split", "participant_id")  # of a row: what the data set says, which may have changed since
MAX_BYTES = 256 * 1024 * 1024  # a moment has some 70 bytes, and an hour some hundred moments


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of one source of a store.

    Attributes:
        video: Its row of the catalog.
        moments: Its moments, as they were found.
        parameters: What it was prepared with, its detector named.
        source: Digest of its source's size and modification time; empty where the source was missing.
        checksum: One number for the checksums of all packets; None for a refused source, and in old records.
        is_proven: Whether the record holds its own digest, so that it is known to be as it was written; records of
            older versions hold none.
    """

    video: PreparedVideo
    moments: tuple[Moment, ...]
    parameters: dict[str, Any]
    source: str
    checksum: int | None
    is_proven: bool = False

    def moment_columns(self) -> npt.NDArray[np.float64]:
        """Return times, scores, heights and segments, float64 (4, num_moments), in the order of time."""
        rows = [(m.time_seconds, m.score, m.height, m.segment_id) for m in self.moments]
        return in_order(np.array(rows, np.float64).reshape(-1, 4).T)


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_path(root: Path, video_id: str) -> Path:
    """Return the path of a video's record.

    Raises:
        StoreError: If the id cannot be a file name below the store.
    """
    return root / f"{prepared_name(video_id)}.json"


def save_record(root: Path, record: Record) -> None:
    """Write a record, the whole file or nothing, with its own digest."""
    content = {
        "parameters": record.parameters,
        "source": record.source,
        "checksum": record.checksum,
        "video": asdict(record.video),
        "moments": [[m.time_seconds, m.score, m.height, m.segment_id] for m in record.moments],
    }
    with replacing(record_path(root, record.video.video_id)) as temporary:
        temporary.write_text(json.dumps({**content, "digest": _digest(content)}))


def load_record(root: Path, video_id: str) -> Record:
    """Read the record of a video.

    Args:
        root: The store.
        video_id: Which video.

    Raises:
        StoreError: If it is missing, is not a record of this video, or is not as it was written; names file and reason.
    """
    path = record_path(root, video_id)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes, more than a record can have")
        content = json.loads(path.read_text(encoding="utf-8"))
        record = _record_of(content)
    except FileNotFoundError as error:
        raise StoreError(f"{path}: the record is missing") from error
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise StoreError(f"{path}: the record cannot be read ({why})") from error
    if record.video.video_id != video_id:
        raise StoreError(f"{path}: the record cannot be read (it is that of video {record.video.video_id!r})")
    return record


def row_differences(row: PreparedVideo, recorded: PreparedVideo) -> list[str]:
    """Return in what a row of the catalog differs from that in the video's record, but for what the data set says.

    Example:
        >>> row_differences(PreparedVideo("a", "a.mp4", num_frames=9), PreparedVideo("a", "b.mp4", num_frames=10))
        ['num_frames is 9, the record says 10']
    """
    ours, theirs = asdict(row), asdict(recorded)
    return [
        f"{name} is {value!r}, the record says {theirs[name]!r}"
        for name, value in ours.items()
        if name not in GIVEN and value != theirs[name]
    ]


def max_index_bytes(num_bytes: int) -> int:
    """Return the most bytes that the packet index of a prepared file can have: any JPEG is longer than its entry."""
    return num_bytes + 65536


def is_index_of(index: PacketIndex, video: PreparedVideo, checksum: int | None) -> bool:
    """Return whether a packet index is the one that was written with a video, as far as is known of that.

    Args:
        index: As it was loaded or rebuilt.
        video: The row of the catalog.
        checksum: That of its packets in its record; None if the record has none.
    """
    return (
        index.file_size == video.num_bytes
        and checksum in (None, index.checksum)
        and video.index_digest in ("", index.digest)
    )


def rebuilt_index(path: Path, video: PreparedVideo, checksum: int | None) -> PacketIndex:
    """Make the packet index of a prepared file anew: the one that was written with it, or an error.

    Args:
        path: The prepared file.
        video: Its row of the catalog.
        checksum: That of its packets in its record; None if the record has none.

    Raises:
        StoreError: If the file has changed since it was written.
        earmark.media.MediaError: If it is not a prepared video.
    """
    changed = f"{path}: has changed since it was written, and its index cannot be made anew"
    # what was not written here is not even opened as a video
    if video.file_digest and digest_of_file(path) != video.file_digest:
        raise StoreError(changed)
    index = PacketIndex.of_file(path)
    if not is_index_of(index, video, checksum):
        raise StoreError(f"{changed}: its pictures or sound are not those of the record")
    return index


def in_order(moments: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return moments, (4, num_moments) or more rows of them, in the order of time and, where that ties, of the rest."""
    return moments[:, np.lexsort(moments[::-1])]


def _digest(content: dict[str, Any]) -> str:
    """Return the digest of a record's content, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _record_of(content: Any) -> Record:
    """Check plain data and make a record of it; raise ValueError or TypeError."""
    content = dict(_typed(content, dict, "the record"))
    digest = content.pop("digest", None)
    if digest is not None and digest != _digest(content):
        raise ValueError("it is not as it was written: its digest is another")
    checksum = content.get("checksum")
    parameters = _typed(content["parameters"], dict, "parameters")
    check_parameters(parameters)
    return Record(
        video=_row_of(_typed(content["video"], dict, "video")),
        moments=tuple(_moment_of(values) for values in _typed(content["moments"], list, "moments")),
        parameters=parameters
        | {"detector": with_detector(parameters)["detector"]},  # in the order they were written in
        source=_typed(content["source"], str, "source"),
        checksum=None if checksum is None else _typed(checksum, int, "checksum"),
        is_proven=digest is not None,
    )


def _row_of(values: dict[str, Any]) -> PreparedVideo:
    types = {field.name: field.type for field in fields(PreparedVideo)}
    for name, value in values.items():
        if name not in types:
            raise ValueError(f"video: {name} is not known")
        _typed(value, types[name], f"video: {name}")
    return PreparedVideo(**values)


def _moment_of(values: Any) -> Moment:
    time_seconds, score, height, segment_id = _typed(values, list, "a moment")
    for value in (time_seconds, score, height):
        _typed(value, float, "a moment's number")
    if not (math.isfinite(time_seconds) and time_seconds >= 0):
        raise ValueError(f"a moment at {time_seconds} s")
    return Moment(time_seconds, score, height, _typed(segment_id, int, "a moment's segment"))


def _typed(value: Any, kind: Any, name: str) -> Any:
    """Return a value of JSON that is of a type; an int will do as a float, a bool will not do as an int."""
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise TypeError(f"{name} is of type {type(value).__name__}, not {kind.__name__}")
    if type(value) is int and not -(2**63) <= value < 2**63:
        raise ValueError(f"{name} is out of range")
    return value
