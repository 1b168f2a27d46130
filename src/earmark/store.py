"""Read frames and sound of any window of any prepared video, by byte ranges.

Path of a sample: prepared video + packet index --store--> clip (frames, sound). `earmark.prepare` writes what is read
here. Every frame of a prepared video is a JPEG of its own at a known offset and its sound is raw PCM, so a clip and
its sound are one or two `pread` calls and a few JPEG decodes: no demuxing and no seeking.

Layout of a store::

    store.json               format version and the parameters that every video was prepared with
    videos.parquet           the catalog: a row for each source, refused ones included, with the reason
    moments.parquet          the moments of interaction of every video
    videos/ID.mov            MJPEG + PCM, plays in any player
    videos/ID.index.npz      byte offset and size of every packet; rebuilt from the .mov when it is missing
    videos/ID.json           what is known of this source: its catalog row, its moments, its fingerprint
    .running/                locks of the videos that are being prepared
"""

import contextlib
import hashlib
import json
import os
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg

from earmark.atomic import replacing

__all__ = ["PacketIndex", "PreparedStore", "PreparedVideo", "StoreError"]

STORE_VERSION = 1
BYTES_PER_SAMPLE = 2  # PCM s16le, mono
MAX_GAP_BYTES = 128 * 1024  # ranges nearer than this are read by one pread: cheaper than a second system call
TIE_FRAMES = 1e-6  # as far as rounding may move a time that stands exactly between two frames
MAX_OPEN_VIDEOS = 256  # file handles a process keeps open


class StoreError(ValueError):
    """A store or one of its videos cannot be read; the message names the file and the reason."""


@dataclass(frozen=True, slots=True)
class PreparedVideo:
    """One row of the catalog.

    Attributes:
        video_id: Name of the video, unique in the store.
        path: The source file.
        prepared_path: The prepared file, relative to the store; empty for a refused source.
        split: Split that the data set gave it.
        participant_id: Who wore the camera; empty where unknown.
        duration_seconds: Length of the prepared picture.
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


CATALOG_SCHEMA = pa.schema(
    [
        (field.name, {str: pa.string(), float: pa.float64(), int: pa.int64(), bool: pa.bool_()}[field.type])  # type: ignore[index]
        for field in fields(PreparedVideo)
    ]
)


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


@dataclass(frozen=True, slots=True)
class PacketIndex:
    """Where every packet of a prepared video lies.

    Attributes:
        frame_offsets: int64 (num_frames,), byte offset of each JPEG.
        frame_sizes: int64 (num_frames,), its size in bytes.
        sound_offsets: int64 (num_chunks,), byte offset of each run of PCM samples.
        sound_sizes: int64 (num_chunks,), its size in bytes.
        frame_checksums: uint32 (num_frames,), CRC-32 of each JPEG.
        sound_checksums: uint32 (num_chunks,), CRC-32 of each run of PCM samples.
        windows: int64 (num_windows, 4): the number of a first frame and of how many follow one another from it on, of
            a first sample and of how many; numbered on the recording's clock. The file holds these parts of the
            recording one after the other; it holds all of it where there is one window that begins at 0.
        file_size: Size of the ``.mov`` that the index belongs to.
    """

    frame_offsets: npt.NDArray[np.int64]
    frame_sizes: npt.NDArray[np.int64]
    sound_offsets: npt.NDArray[np.int64]
    sound_sizes: npt.NDArray[np.int64]
    frame_checksums: npt.NDArray[np.uint32]
    sound_checksums: npt.NDArray[np.uint32]
    windows: npt.NDArray[np.int64]
    file_size: int

    @staticmethod
    def of_file(path: Path) -> "PacketIndex":
        """Rebuild the index by walking the packets of a ``.mov``.

        Raises:
            earmark.media.MediaError: If the file is not readable media.
        """
        from earmark.media import packet_table  # PyAV is needed only to rebuild

        table = packet_table(path)
        return PacketIndex(
            np.asarray(table.frame_offsets, np.int64),
            np.asarray(table.frame_sizes, np.int64),
            np.asarray(table.sound_offsets, np.int64),
            np.asarray(table.sound_sizes, np.int64),
            table.frame_checksums,
            table.sound_checksums,
            table.windows,
            path.stat().st_size,
        )

    def save(self, path: Path) -> None:
        """Write the index as an ``.npz`` file, atomically."""
        columns: dict[str, Any] = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        with replacing(path) as temporary:
            np.savez(temporary, allow_pickle=False, **columns)

    @staticmethod
    def load(path: Path) -> "PacketIndex":
        """Read an index.

        Raises:
            StoreError: If the file is not an index.
            FileNotFoundError: If there is none.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                columns = {
                    field.name: arrays[field.name].astype(np.uint32 if "checksums" in field.name else np.int64)
                    for field in fields(PacketIndex)
                }
            return PacketIndex(**{**columns, "file_size": int(columns["file_size"])})
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise StoreError(f"{path}: not a packet index ({error})") from error


@dataclass(slots=True)
class _OpenVideo:
    """A prepared video opened by this process: its file descriptor and its index."""

    path: Path
    descriptor: int
    index: PacketIndex
    sound_starts: npt.NDArray[np.int64]  # first sample of each chunk, and the total at the end

    def __del__(self) -> None:
        os.close(self.descriptor)


class PreparedStore:
    """The prepared videos of one folder, read by time.

    Opening reads the catalog and the moments only; a video's file and index are opened at its first use, in each
    process for itself, so that a store can be handed to loader workers however they are started.

    Args:
        root: Folder that `earmark.prepare.prepare` wrote.

    Attributes:
        root: That folder.
        fps: Frames a second of every prepared video.
        sample_rate: Sample rate of every prepared sound, in Hz.
        parameters: What the videos were prepared with.
        catalog: A row for each source, refused ones included.
        videos: The usable ones (ok or degraded) by id.
        moments: The times of each video's moments in seconds, ascending, float64 (num_moments,).
        scores: Their scores, in the same order.

    Raises:
        StoreError: If the folder is not a store, or one of a newer version.

    Example:
        >>> store = PreparedStore("data/prepared/kitchen")  # doctest: +SKIP
        >>> store.frames("P01_01", [1.0, 1.0625]).shape  # doctest: +SKIP
        (2, 128, 228, 3)
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self.parameters = _read_parameters(self.root)
        self.fps = float(self.parameters["fps"])
        self.sample_rate = int(self.parameters["audio_rate"])
        self.catalog = _read_catalog(self.root / "videos.parquet")
        self.videos = {video.video_id: video for video in self.catalog if video.status != "refused"}
        self.moments: dict[str, npt.NDArray[np.float64]] = {}
        self.scores: dict[str, npt.NDArray[np.float64]] = {}
        self._read_moments()
        self._open: OrderedDict[str, _OpenVideo] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files and the lock behind: the other process opens its own."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_open", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open = OrderedDict()
        self._lock = threading.Lock()

    @property
    def fingerprint(self) -> str:
        """Hex digest of what training on this store depends on; it does not depend on where the store lies."""
        digest = hashlib.sha256(json.dumps(self.parameters, sort_keys=True).encode())
        for video_id in sorted(self.videos):
            video = self.videos[video_id]
            # the size of the file stands for its pictures, which nothing else here tells
            content = [video_id, video.split, video.num_frames, video.num_samples, video.num_bytes]
            digest.update(json.dumps(content).encode())
            digest.update(self.moments[video_id].tobytes())
        return digest.hexdigest()

    def frames(self, video_id: str, times_seconds: Sequence[float] | npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
        """Return the prepared frames nearest to given times.

        Args:
            video_id: Which video.
            times_seconds: (T,) times; each must lie inside the picture, to half a frame.

        Returns:
            uint8 (T, H, W, 3), RGB.

        Raises:
            StoreError: If the video is unknown or damaged, or a time lies outside it.
        """
        return self.read(video_id, times_seconds, sound_start_seconds=0.0, num_samples=0)[0]

    def sound(self, video_id: str, start_seconds: float, num_samples: int) -> npt.NDArray[np.int16]:
        """Return a run of sound; what lies before or after the recording is silence.

        Args:
            video_id: Which video.
            start_seconds: Time of the first sample; may be negative.
            num_samples: Length S.

        Returns:
            int16 (S,), mono, at `sample_rate`.

        Raises:
            StoreError: If the video is unknown or damaged, or has no sound.
        """
        return self.read(video_id, [], sound_start_seconds=start_seconds, num_samples=num_samples)[1]

    def read(
        self,
        video_id: str,
        times_seconds: Sequence[float] | npt.NDArray[np.float64],
        *,
        sound_start_seconds: float,
        num_samples: int,
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16]]:
        """Return frames and sound together: neighbouring bytes are fetched by one read.

        Args:
            video_id: Which video.
            times_seconds: (T,) times of the frames, see `frames`.
            sound_start_seconds: Time of the first sample, see `sound`.
            num_samples: Samples of sound; 0 for none.

        Returns:
            Frames uint8 (T, H, W, 3) and sound int16 (S,).

        Raises:
            StoreError: As `frames` and `sound`.
        """
        video = self._video(video_id)
        opened = self._opened(video)
        index = opened.index
        frame_numbers = self._frame_numbers(video, opened, np.asarray(times_seconds, np.float64))
        pieces = self._sound_pieces(video, opened, sound_start_seconds, num_samples)
        # plain ints: they are added to by hundreds below, and NumPy's scalars are slow at that
        offsets = index.frame_offsets[frame_numbers].tolist() + [offset for offset, _, _ in pieces]
        sizes = index.frame_sizes[frame_numbers].tolist() + [size for _, size, _ in pieces]
        payloads = _read_ranges(opened, video_id, offsets, sizes)

        frames = np.empty((len(frame_numbers), video.height, video.width, 3), np.uint8)
        for position, frame_number in enumerate(frame_numbers.tolist()):
            try:
                simplejpeg.decode_jpeg(payloads[position], "RGB", buffer=frames[position])
            except ValueError as error:
                at = frame_number / self.fps
                raise StoreError(
                    f"{opened.path}: frame {frame_number} of {video_id} ({at:.3f} s) is damaged: {error}"
                ) from error
        sound = np.zeros(num_samples, np.int16)
        for (_, _, at_sample), payload in zip(pieces, payloads[len(frame_numbers) :], strict=True):
            samples = np.frombuffer(payload, "<i2")
            sound[at_sample : at_sample + len(samples)] = samples
        return frames, sound

    def _video(self, video_id: str) -> PreparedVideo:
        video = self.videos.get(video_id)
        if video is None:
            refused = next((row for row in self.catalog if row.video_id == video_id), None)
            why = f"was refused: {refused.reason}" if refused else "is not in this store"
            raise StoreError(f"{self.root}: video {video_id!r} {why}")
        return video

    def _frame_numbers(
        self, video: PreparedVideo, opened: _OpenVideo, times: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.int64]:
        """Return the places in the file of the frames nearest to times."""
        positions = times * self.fps
        num_frames = round(video.duration_seconds * self.fps)
        outside = ~((positions >= -0.5) & (positions <= num_frames))
        if outside.any():
            raise StoreError(
                f"{self.root / video.prepared_path}: {float(times[outside][0]):.3f} s lies outside video "
                f"{video.video_id!r} (0 to {video.duration_seconds:.3f} s)"
            )
        # half up, not half to even, nor as the times were rounded: equally spaced times must give equally spaced frames
        numbers = np.clip(np.floor(positions + 0.5 + TIE_FRAMES), 0, num_frames - 1).astype(np.int64)
        places = _places(numbers, opened.index.windows[:, 0], opened.index.windows[:, 1])
        if (places < 0).any():
            raise self._not_kept(video, opened, float(times[places < 0][0]))
        return places

    def _sound_pieces(
        self, video: PreparedVideo, opened: _OpenVideo, start_seconds: float, num_samples: int
    ) -> list[tuple[int, int, int]]:
        """Return (byte offset, size, first sample in the result) of the runs of PCM that a window touches."""
        if num_samples == 0:
            return []
        if not video.has_audio:
            raise StoreError(f"{opened.path}: video {video.video_id!r} has no sound")
        first = round(start_seconds * self.sample_rate)
        stop = first + num_samples
        begin = max(first, 0)
        windows = opened.index.windows
        starts, sizes = windows[:, 2], windows[:, 3]
        stored = np.cumsum(sizes) - sizes
        pieces: list[tuple[int, int, int]] = []
        for number in range(max(0, int(np.searchsorted(starts, begin, side="right")) - 1), len(windows)):
            start = int(starts[number])
            if start >= stop:
                break
            here, there = max(begin, start), min(stop, start + int(sizes[number]))
            place = int(stored[number]) - start
            pieces += _byte_ranges(opened, here + place, there + place, here - first)
        num_kept = sum(size for _, size, _ in pieces) // BYTES_PER_SAMPLE
        if "around" in self.parameters and num_kept < stop - begin:
            raise self._not_kept(video, opened, start_seconds)
        return pieces

    def _not_kept(self, video: PreparedVideo, opened: _OpenVideo, time_seconds: float) -> StoreError:
        return StoreError(
            f"{opened.path}: nothing of video {video.video_id!r} is kept at {time_seconds:.3f} s: it was prepared with "
            f"prepare.around=moments, prepare.around_seconds={self.parameters.get('around_seconds')}"
        )

    def _opened(self, video: PreparedVideo) -> _OpenVideo:
        with self._lock:
            opened = self._open.get(video.video_id)
            if opened is not None:
                self._open.move_to_end(video.video_id)
                return opened
        opened = _open_video(self.root / video.prepared_path, video)
        with self._lock:
            self._open[video.video_id] = opened
            while len(self._open) > MAX_OPEN_VIDEOS:
                self._open.popitem(last=False)  # closed when its last reader lets go of it
        return opened

    def _read_moments(self) -> None:
        from earmark.moments import read_moments

        path = self.root / "moments.parquet"
        try:
            table = read_moments(path)
        except FileNotFoundError as error:
            raise StoreError(f"{path}: is missing; run `earmark prepare` again to finish the store") from error
        except ValueError as error:
            raise StoreError(str(error)) from error
        video_ids = np.asarray(table["video_id"].to_pylist(), dtype=object)
        times = table["time_seconds"].to_numpy().astype(np.float64)
        scores = table["score"].to_numpy().astype(np.float64)
        order = np.lexsort((times, video_ids.astype(str)))
        names, firsts = np.unique(video_ids[order].astype(str), return_index=True)
        parts = np.split(order, firsts[1:]) if len(order) else []  # of nothing, split makes one part
        rows = {str(name): part for name, part in zip(names, parts, strict=True)}
        nothing = np.zeros(0, np.int64)
        for video_id in self.videos:
            mine = rows.get(video_id, nothing)
            self.moments[video_id], self.scores[video_id] = times[mine], scores[mine]


def _read_parameters(root: Path) -> dict[str, Any]:
    path = root / "store.json"
    try:
        content = json.loads(path.read_text())
        version, parameters = int(content["format_version"]), dict(content["parameters"])
    except FileNotFoundError as error:
        raise StoreError(f"{root}: not a prepared store (no store.json); make one with `earmark prepare`") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: not the description of a prepared store ({error})") from error
    if version > STORE_VERSION:
        raise StoreError(f"{path}: written by a newer Earmark (format {version}, this one reads up to {STORE_VERSION})")
    return parameters


def _read_catalog(path: Path) -> list[PreparedVideo]:
    try:
        table = pq.read_table(path)
        columns = [table[field.name].to_pylist() for field in fields(PreparedVideo)]
    except FileNotFoundError as error:
        raise StoreError(f"{path}: the catalog is missing; run `earmark prepare` again to finish the store") from error
    except (pa.ArrowException, OSError, KeyError) as error:
        raise StoreError(f"{path}: not a catalog of prepared videos ({error})") from error
    return [PreparedVideo(*row) for row in zip(*columns, strict=True)]


def _open_video(path: Path, video: PreparedVideo) -> _OpenVideo:
    index_path = path.with_suffix(".index.npz")
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise StoreError(f"{path}: prepared file of {video.video_id!r} cannot be opened: {error.strerror}") from error
    try:
        file_size = os.fstat(descriptor).st_size
        if file_size != video.num_bytes:
            raise StoreError(
                f"{path}: {file_size} bytes, the catalog says {video.num_bytes}: the file is truncated or was replaced"
            )
        try:
            index = PacketIndex.load(index_path)
            usable = index.file_size == file_size
        except (StoreError, FileNotFoundError):
            usable = False
        if not usable:
            index = PacketIndex.of_file(path)
            with contextlib.suppress(OSError):  # a read-only store is used as it is; the index is kept in memory
                index.save(index_path)
        num_samples = int(index.sound_sizes.sum()) // BYTES_PER_SAMPLE
        if (len(index.frame_offsets), num_samples) != (video.num_frames, video.num_samples):
            raise StoreError(
                f"{path}: holds {len(index.frame_offsets)} frames and {num_samples} samples, "
                f"the catalog says {video.num_frames} and {video.num_samples}"
            )
    except BaseException:
        os.close(descriptor)
        raise
    starts = np.concatenate([[0], np.cumsum(index.sound_sizes // BYTES_PER_SAMPLE)]).astype(np.int64)
    return _OpenVideo(path, descriptor, index, starts)


def _places(
    numbers: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return where numbers on the recording's clock stand in a file that holds windows of it; -1 where in none."""
    window = np.maximum(np.searchsorted(starts, numbers, side="right") - 1, 0)
    within = numbers - starts[window]
    places: npt.NDArray[np.int64] = np.where(
        (within >= 0) & (within < sizes[window]), (np.cumsum(sizes) - sizes)[window] + within, -1
    )
    return places


def _byte_ranges(opened: _OpenVideo, begin: int, end: int, at_sample: int) -> list[tuple[int, int, int]]:
    """Return (byte offset, size, place in the result) of the runs of PCM that hold samples ``begin`` to ``end``."""
    pieces = []
    chunk = int(np.searchsorted(opened.sound_starts, begin, side="right")) - 1
    while begin < end:
        chunk_start, chunk_end = int(opened.sound_starts[chunk]), int(opened.sound_starts[chunk + 1])
        count = min(end, chunk_end) - begin
        offset = int(opened.index.sound_offsets[chunk]) + (begin - chunk_start) * BYTES_PER_SAMPLE
        pieces.append((offset, count * BYTES_PER_SAMPLE, at_sample))
        begin, at_sample = begin + count, at_sample + count
        chunk += 1
    return pieces


def _read_ranges(opened: _OpenVideo, video_id: str, offsets: list[int], sizes: list[int]) -> list[memoryview]:
    """Read byte ranges with as few system calls as pays off; the result is in the order asked for."""
    payloads: list[memoryview] = [memoryview(b"")] * len(offsets)
    order = sorted(range(len(offsets)), key=offsets.__getitem__)
    start = 0
    while start < len(order):
        first = offsets[order[start]]
        end = first + sizes[order[start]]
        stop = start + 1
        while stop < len(order) and offsets[order[stop]] - end <= MAX_GAP_BYTES:
            end = max(end, offsets[order[stop]] + sizes[order[stop]])
            stop += 1
        block = memoryview(os.pread(opened.descriptor, end - first, first))
        if len(block) != end - first:
            raise StoreError(f"{opened.path}: ends before byte {end}; prepared file of {video_id!r} is truncated")
        for position in order[start:stop]:
            at = offsets[position] - first
            payloads[position] = block[at : at + sizes[position]]
        start = stop
    return payloads
