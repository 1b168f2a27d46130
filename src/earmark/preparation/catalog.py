"""What a store on disk is: its files and the rows of its catalog, written by `prepare`, read by all else.

In the path of a sample this file stands between preparing and reading clips: both describe a store through it, and
`earmark.preparation.tables` reads and writes what it describes.

Layout of a store::

    store.json               format version and the parameters that every video was prepared with
    videos.parquet           the catalog: a row for each source, refused ones included, with the reason
    moments.parquet          the moments of interaction of every video
    videos/ID.mov            MJPEG + PCM, plays in any player
    videos/ID.index.npz      byte offset and size of every packet; rebuilt from the .mov when it is missing
    videos/ID.json           the record of this source: its catalog row, its moments, its parameters, its fingerprint
    .running/                locks of the videos that are being prepared

Both tables carry a digest of their rows, the catalog the parameters of the store, and each of its rows the digests of
the video's files: a store that was changed after it was written is not read. Stores of versions that wrote less are
read, and what they lack is not compared.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath

import pyarrow as pa

__all__ = [
    "CATALOG_SCHEMA",
    "STORE_VERSION",
    "TABLES",
    "DamagedTablesError",
    "PreparedVideo",
    "SparseStoreError",
    "StoreError",
    "index_path",
    "prepared_file",
    "prepared_name",
    "stretched",
]

STORE_VERSION = 1
TABLES = ("store.json", "videos.parquet", "moments.parquet")
FPS_TOLERANCE = 0.95


class StoreError(ValueError):
    """A store or one of its videos cannot be read; the message names the file and the reason."""


class DamagedTablesError(StoreError):
    """What is gathered from the records of a store is not as it was written; `repair` gathers it anew."""


class SparseStoreError(StoreError):
    """A store that keeps only what is around its moments holds less than is to be read.

    Attributes:
        needed_seconds: What it would have to hold on each side of a moment; None where only whole videos will do.
    """

    def __init__(self, message: str, *, needed_seconds: float | None = None) -> None:
        super().__init__(message)
        self.needed_seconds = needed_seconds


@dataclass(frozen=True, slots=True)
class PreparedVideo:
    """One row of the catalog.

    Attributes:
        video_id: Name of the video, unique in the store.
        path: The source file.
        prepared_path: The prepared file, relative to the store; empty for a refused source.
        split: Split that the data set gave it.
        participant_id: Who wore the camera; empty where unknown.
        duration_seconds: Length of the picture, with what lies between windows that were kept.
        source_fps: Average frame rate of the source.
        source_width: Displayed width of the source in pixels.
        source_height: Displayed height of the source in pixels.
        rotation: Clockwise rotation in degrees that the source asked for (already applied).
        num_frames: Frames in the prepared file.
        width: Width of the prepared picture in pixels.
        height: Height of the prepared picture in pixels.
        has_audio: Whether there is sound.
        source_audio_rate: Sample rate of the source in Hz; 0 without sound.
        num_samples: Samples of sound in the prepared file.
        num_moments: Moments found.
        num_bytes: Size of the prepared file.
        status: ``ok``, ``degraded`` (usable, something is missing) or ``refused``.
        reason: Why it is degraded or refused; empty when ok.
        index_digest: `earmark.media.PacketIndex.digest` of its packet index; empty in rows of older versions.
        file_digest: SHA-256 of the prepared file, in hex; empty in rows of older versions.
    """

    video_id: str
    path: str
    prepared_path: str = ""
    split: str = ""
    participant_id: str = ""
    duration_seconds: float = 0.0
    source_fps: float = 0.0
    source_width: int = 0
    source_height: int = 0
    rotation: int = 0
    num_frames: int = 0
    width: int = 0
    height: int = 0
    has_audio: bool = False
    source_audio_rate: int = 0
    num_samples: int = 0
    num_moments: int = 0
    num_bytes: int = 0
    status: str = "ok"
    reason: str = ""
    index_digest: str = ""
    file_digest: str = ""


CATALOG_SCHEMA = pa.schema(
    [
        (field.name, {str: pa.string(), float: pa.float64(), int: pa.int64(), bool: pa.bool_()}[field.type])  # type: ignore[index]
        for field in fields(PreparedVideo)
    ]
)


def stretched(videos: Iterable[PreparedVideo], *, fps: float, sample_rate: int) -> dict[str, list[str]]:
    """Return which usable videos hold more pixels, frames or samples than their source, so that some are interpolated.

    Args:
        videos: Rows of a catalog.
        fps: Frames per second of the store.
        sample_rate: Sample rate of its sound, Hz.

    Returns:
        The ids of the videos by what their source has less of; only what some video lacks.

    Example:
        >>> video = PreparedVideo("a", "a.mp4", source_width=170, source_height=96, width=226, height=128)
        >>> stretched([video], fps=16, sample_rate=16000)
        {'smaller pictures': ['a']}
    """
    usable = [video for video in videos if video.status != "refused"]
    lacking = {
        "smaller pictures": [v for v in usable if 0 < min(v.source_width, v.source_height) < min(v.width, v.height)],
        # an average rate may be a little off where the last frame is long
        "fewer frames per second": [v for v in usable if 0 < v.source_fps < FPS_TOLERANCE * fps],
        "sound of a lower rate": [v for v in usable if 0 < v.source_audio_rate < sample_rate],
    }
    return {what: [video.video_id for video in found] for what, found in lacking.items() if found}


def prepared_name(video_id: str) -> str:
    """Return the path of a video's prepared file below the store, without a suffix.

    Args:
        video_id: Name of the video; ``/`` makes folders.

    Raises:
        StoreError: If the name would leave the store or cannot be a file name.

    Example:
        >>> prepared_name("P01/P01_01")
        'videos/P01/P01_01'
    """
    parts = video_id.split("/")
    bad = any(part in ("", ".", "..") or "\\" in part or "\0" in part or len(part.encode()) > 200 for part in parts)
    if bad or PurePosixPath(video_id).is_absolute() or video_id[1:2] == ":":
        raise StoreError(f"video id {video_id!r} cannot be a file name below the store")
    return f"videos/{video_id}"


def prepared_file(root: Path, video: PreparedVideo) -> Path:
    """Return the path of a prepared file.

    Raises:
        StoreError: If the catalog points elsewhere than to the video's own file below the store.
    """
    if video.prepared_path != f"{prepared_name(video.video_id)}.mov":
        raise StoreError(f"{root / 'videos.parquet'}: file of {video.video_id!r} is {video.prepared_path!r}")
    return root / video.prepared_path


def index_path(prepared: Path) -> Path:
    """Return the path of the packet index of a prepared file.

    Example:
        >>> index_path(Path("videos/P01/P01_01.mov")).as_posix()
        'videos/P01/P01_01.index.npz'
    """
    return prepared.with_suffix(".index.npz")
