"""Read a whole store back and say what is wrong with it.

Beside the path of a sample: `earmark prepare --verify`. Verifying changes nothing; `invalidate` makes the next run of
`earmark.preparation.prepare` prepare the damaged videos again.
"""

import json
import os
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import joblib
import numpy as np
import numpy.typing as npt
import simplejpeg

from earmark.media import MediaError, PacketIndex
from earmark.preparation.catalog import (
    PreparedVideo,
    StoreError,
    index_path,
    prepared_file,
    read_catalog,
    read_moments_of_store,
    read_parameters,
)
from earmark.preparation.locks import locked
from earmark.preparation.progress import progress_bars
from earmark.preparation.video import record_path
from earmark.preparation.workers import Backend, in_processes
from earmark.wording import counted

__all__ = ["Fault", "VerifyReport", "invalidate", "verify"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with a prepared video.

    Attributes:
        video_id: Of which one.
        reason: What, with the file, and the time where it has one.
    """

    video_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` found.

    Attributes:
        root: The store.
        num_videos: Read back.
        num_frames: Decoded, in all.
        hours: Of the recordings.
        faults: In the order of the catalog; empty if nothing is wrong.
    """

    root: Path
    num_videos: int
    num_frames: int
    hours: float
    faults: tuple[Fault, ...]


def verify(
    root: str | os.PathLike[str], *, num_workers: int = 1, backend: Backend = "loky", progress: bool = True
) -> VerifyReport:
    """Read back every prepared video of a store: structure, index, checksums, every picture.

    Args:
        root: The store.
        num_workers: Concurrent processes; -1 for one per processor.
        backend: See `earmark.preparation.prepare`.
        progress: Whether to show progress on standard error.

    Returns:
        What was read, and what is wrong.

    Raises:
        StoreError: If the catalog, the table of moments or ``store.json`` cannot be read.
    """
    root = Path(root)
    fps = float(read_parameters(root)["fps"])
    videos = {video.video_id: video for video in read_catalog(root) if video.status != "refused"}
    counts = read_moments_of_store(root)["video_id"].value_counts().to_pylist()
    num_moments = {count["values"]: count["counts"] for count in counts}
    faults: dict[str, list[Fault]] = {}
    calls = [
        joblib.delayed(_verified)(root, video, num_moments.get(video.video_id, 0), fps) for video in videos.values()
    ]
    total_seconds = sum(video.duration_seconds for video in videos.values())
    with progress_bars(len(videos), total_seconds, shown=progress) as video_done:
        for video_id, found in in_processes(calls, num_workers=num_workers, backend=backend):
            faults[video_id] = found
            video_done(videos[video_id].duration_seconds)
    return VerifyReport(
        root=root,
        num_videos=len(videos),
        num_frames=sum(video.num_frames for video in videos.values()),
        hours=total_seconds / 3600,
        faults=tuple(fault for video_id in videos for fault in faults[video_id]),
    )


def invalidate(root: str | os.PathLike[str], video_ids: Collection[str]) -> None:
    """Remove the records of videos, so that the next run of `earmark.preparation.prepare` prepares them again.

    Args:
        root: The store.
        video_ids: Which ones.
    """
    for video_id in video_ids:
        with locked(Path(root), video_id, wait=True):
            record_path(Path(root), video_id).unlink(missing_ok=True)


def _verified(root: Path, video: PreparedVideo, num_moments: int, fps: float) -> tuple[str, list[Fault]]:
    """Return a video's id and what is wrong with it."""
    try:
        path = prepared_file(root, video)
    except StoreError as error:
        return video.video_id, [Fault(video.video_id, str(error))]
    reasons = list(_record_faults(root, video, num_moments))
    try:
        if path.stat().st_size != video.num_bytes:
            reasons.append(f"{path}: {path.stat().st_size} bytes, the catalog says {video.num_bytes}")
        actual = PacketIndex.of_file(path)
        reasons += _index_faults(root, video, actual, fps)
        reasons += _picture_faults(path, video, actual, fps)
    except OSError as error:
        reasons.append(f"{path}: {error.strerror}")
    except MediaError as error:
        reasons.append(str(error))
    return video.video_id, [Fault(video.video_id, reason) for reason in reasons]


def _record_faults(root: Path, video: PreparedVideo, num_moments: int) -> Iterator[str]:
    if num_moments != video.num_moments:
        yield f"{root / 'moments.parquet'}: {counted(num_moments, 'moment')}, the catalog says {video.num_moments}"
    path = record_path(root, video.video_id)
    try:
        row = PreparedVideo(**json.loads(path.read_text())["video"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield f"{path}: the record cannot be read ({error})"
        return
    given = ("path", "split", "participant_id")  # may have changed since
    differing = [name for name, value in asdict(row).items() if name not in given and value != getattr(video, name)]
    if differing:
        yield f"{path}: {', '.join(differing)} differ from the catalog"


def _index_faults(root: Path, video: PreparedVideo, actual: PacketIndex, fps: float) -> Iterator[str]:
    """Compare the index that was written with the video with what the file holds."""
    path = root / video.prepared_path
    saved = index_path(path)
    try:
        index = PacketIndex.load(saved)
    except (FileNotFoundError, MediaError) as error:
        yield f"{saved}: is missing" if isinstance(error, FileNotFoundError) else str(error)
        index = actual
    checksum = _recorded_checksum(root, video)
    if checksum is not None and checksum != index.checksum:
        yield f"{saved}: its checksums differ from those written with the video"
    places = [field.name for field in fields(PacketIndex) if "checksums" not in field.name]
    wrong = [name for name in places if not np.array_equal(getattr(index, name), getattr(actual, name))]
    if wrong:
        yield f"{saved}: wrong index: {', '.join(wrong)} are not those of {path.name}"
        return
    for number in np.flatnonzero(index.frame_checksums != actual.frame_checksums).tolist():
        yield f"{path}: frame {number} ({_frame_seconds(actual, fps)[number]:.3f} s) has changed since it was written"
    changed = np.flatnonzero(index.sound_checksums != actual.sound_checksums)
    if len(changed):
        offset = int(index.sound_offsets[changed[0]])
        yield f"{path}: {counted(len(changed), 'run')} of sound changed since written, the first at byte {offset}"


def _recorded_checksum(root: Path, video: PreparedVideo) -> int | None:
    try:
        checksum: int | None = json.loads(record_path(root, video.video_id).read_text())["checksum"]
        return checksum
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _picture_faults(path: Path, video: PreparedVideo, index: PacketIndex, fps: float) -> Iterator[str]:
    """Decode every picture."""
    with path.open("rb") as file:
        for number, (offset, size) in enumerate(zip(index.frame_offsets, index.frame_sizes, strict=True)):
            file.seek(int(offset))
            try:
                height, width = simplejpeg.decode_jpeg(file.read(int(size)), "RGB").shape[:2]
            except ValueError as error:
                yield f"{path}: frame {number} ({_frame_seconds(index, fps)[number]:.3f} s) cannot be decoded: {error}"
                continue
            if (width, height) != (video.width, video.height):
                yield f"{path}: frame {number} is {width}x{height}, the catalog says {video.width}x{video.height}"


def _frame_seconds(index: PacketIndex, fps: float) -> npt.NDArray[np.float64]:
    """Return the time of each frame on the recording's clock."""
    numbers = [np.arange(first, first + count) for first, count in index.windows[:, :2].tolist()]
    return np.concatenate(numbers) / fps
