"""Read a prepared file by byte ranges: its packet index, and the bytes of any frames and runs of sound.

Path of a sample: the lower half of `earmark.clips.store`. Every frame of a prepared video is a JPEG of its own at a
known offset and its sound is raw PCM, so what a sample needs is one or two system calls away: no demuxing and no
seeking.
"""

import contextlib
import os
import threading
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from earmark.atomic import replacing

__all__ = ["OpenVideo", "PacketIndex", "SoundPiece", "SparseStoreError", "StoreError", "open_video"]

BYTES_PER_SAMPLE = 2  # PCM s16le, mono
MAX_GAP_BYTES = 128 * 1024  # ranges nearer than this are read by one call: cheaper than a second one

# Each thread reads into a buffer of its own that it keeps: a fresh one would be mapped and zeroed for every sample.
_scratch = threading.local()


class StoreError(ValueError):
    """A store or one of its videos cannot be read; the message names the file and the reason."""


class SparseStoreError(StoreError):
    """A store that keeps only what is around its moments holds less than is to be read.

    Attributes:
        needed_seconds: What it would have to hold on each side of a moment; None where only whole videos will do.
    """

    def __init__(self, message: str, *, needed_seconds: float | None = None) -> None:
        super().__init__(message)
        self.needed_seconds = needed_seconds


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
            table.frame_offsets,
            table.frame_sizes,
            table.sound_offsets,
            table.sound_sizes,
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
                    column.name: arrays[column.name].astype(np.uint32 if "checksums" in column.name else np.int64)
                    for column in fields(PacketIndex)
                }
            index = PacketIndex(**{**columns, "file_size": int(columns["file_size"])})
            index._check_columns()
            return index
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise StoreError(f"{path}: not a packet index ({error})") from error

    @property
    def num_frames(self) -> int:
        """Frames in the file."""
        return len(self.frame_offsets)

    @property
    def num_samples(self) -> int:
        """Samples of sound in the file."""
        return int(self.sound_sizes.sum()) // BYTES_PER_SAMPLE

    @property
    def num_bytes(self) -> int:
        """Memory that the columns take."""
        return sum(getattr(self, column.name).nbytes for column in fields(self) if column.name != "file_size")

    def _check_columns(self) -> None:
        """Raise ValueError where columns do not go together."""
        for offsets, sizes, checksums in (
            (self.frame_offsets, self.frame_sizes, self.frame_checksums),
            (self.sound_offsets, self.sound_sizes, self.sound_checksums),
        ):
            if offsets.ndim != 1 or not offsets.shape == sizes.shape == checksums.shape:
                shapes = f"{offsets.shape}, sizes {sizes.shape} and checksums {checksums.shape}"
                raise ValueError(f"offsets {shapes} do not go together")
        if self.windows.ndim != 2 or self.windows.shape[1] != 4 or (self.windows < 0).any():
            raise ValueError("its windows are none")
        if self.windows[:, 1].sum() != self.num_frames or self.windows[:, 3].sum() != self.num_samples:
            raise ValueError("its windows are not those of its frames and its sound")


class SoundPiece(NamedTuple):
    """Samples that follow one another in the file.

    Attributes:
        offset: Byte at which they begin.
        size: Their length in bytes.
        place: Of the first one in what was asked for.
        checksum: Their CRC-32, where they are a whole run, as it was written; None of a part of one.
    """

    offset: int
    size: int
    place: int
    checksum: int | None


@dataclass(slots=True)
class OpenVideo:
    """A prepared video opened by this process: its file descriptor and its index.

    Attributes:
        path: The ``.mov``.
        descriptor: Its file descriptor, closed with this object.
        index: Its packet index.
        sound_starts: int64 (num_chunks + 1,), first sample of each run of sound in the file, and their number at the
            end.
        windows_before: int64 (num_windows, 2), the frames and samples that the file holds before each window.
        num_frames_from_start: How many frames it holds from the recording's first on without a gap.
    """

    path: Path
    descriptor: int
    index: PacketIndex
    sound_starts: npt.NDArray[np.int64] = field(init=False)
    windows_before: npt.NDArray[np.int64] = field(init=False)
    num_frames_from_start: int = field(init=False)

    def __post_init__(self) -> None:
        windows, counts = self.index.windows, self.index.windows[:, 1::2]
        self.sound_starts = np.append(0, np.cumsum(self.index.sound_sizes // BYTES_PER_SAMPLE))
        self.windows_before = np.cumsum(counts, axis=0) - counts
        self.num_frames_from_start = int(windows[0, 1]) if len(windows) and windows[0, 0] == 0 else 0

    def __del__(self) -> None:
        os.close(self.descriptor)

    @property
    def num_bytes(self) -> int:
        """Memory that the index takes."""
        return self.index.num_bytes + self.sound_starts.nbytes + self.windows_before.nbytes

    def frame_places(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return where frames stand in the file.

        Args:
            numbers: int64 (T,), of frames of the recording, from 0 on.

        Returns:
            int64 (T,), of frames in the file; -1 where the file does not hold one.
        """
        if numbers.max(initial=-1) < self.num_frames_from_start:  # always so where the file holds all
            return numbers
        starts, counts = self.index.windows[:, 0], self.index.windows[:, 1]
        window = np.maximum(starts.searchsorted(numbers, side="right") - 1, 0)
        within = numbers - starts[window]
        held = (within >= 0) & (within < counts[window])
        places: npt.NDArray[np.int64] = np.where(held, self.windows_before[window, 0] + within, -1)
        return places

    def sound_pieces(self, first_sample: int, num_samples: int) -> list[SoundPiece]:
        """Return the runs of PCM that a stretch of sound touches.

        Args:
            first_sample: Where the stretch begins on the recording's clock; may be negative.
            num_samples: Its length; it may reach past the end.

        Returns:
            In the order of time; without what the file does not hold.
        """
        begin, end = max(first_sample, 0), first_sample + num_samples
        starts, counts = self.index.windows[:, 2], self.index.windows[:, 3]
        pieces: list[SoundPiece] = []
        for window in range(max(0, int(starts.searchsorted(begin, side="right")) - 1), len(starts)):
            start = int(starts[window])
            if start >= end:
                break
            stop = start + int(counts[window])
            shift = int(self.windows_before[window, 1]) - start  # from the recording's clock to places in the file
            pieces += self._pieces_between(max(begin, start) + shift, min(end, stop) + shift, first_sample + shift)
        return pieces

    def _pieces_between(self, begin: int, end: int, origin: int) -> Iterator[SoundPiece]:
        """Yield the pieces that hold samples ``begin`` to ``end`` of the file; ``origin`` is the result's first."""
        chunk = int(self.sound_starts.searchsorted(begin, side="right")) - 1
        while begin < end:
            chunk_start, chunk_end = int(self.sound_starts[chunk]), int(self.sound_starts[chunk + 1])
            stop = min(end, chunk_end)
            is_whole = (begin, stop) == (chunk_start, chunk_end)
            yield SoundPiece(
                int(self.index.sound_offsets[chunk]) + (begin - chunk_start) * BYTES_PER_SAMPLE,
                (stop - begin) * BYTES_PER_SAMPLE,
                begin - origin,
                int(self.index.sound_checksums[chunk]) if is_whole else None,
            )
            begin = stop
            chunk += 1

    def read_ranges(self, offsets: Sequence[int], sizes: Sequence[int]) -> list[memoryview]:
        """Read byte ranges with as few system calls as pays off.

        Args:
            offsets: First byte of each range.
            sizes: Its length in bytes.

        Returns:
            The bytes of each range, in the order asked for; good until this thread reads again.

        Raises:
            StoreError: If a range lies outside the file, so the index is wrong, or the file has become shorter.
        """
        if not offsets:
            return []
        order = sorted(range(len(offsets)), key=offsets.__getitem__)
        if offsets[order[0]] < 0 or min(sizes) <= 0 or max(map(int.__add__, offsets, sizes)) > self.index.file_size:
            raise StoreError(f"{self.path}: its index points outside the file: {_index_path(self.path).name} is wrong")
        payloads: list[memoryview] = [memoryview(b"")] * len(offsets)
        blocks: list[tuple[int, int, list[int]]] = []  # first byte, the byte after the last, the ranges inside
        for position in order:
            start, stop = offsets[position], offsets[position] + sizes[position]
            if blocks and start - blocks[-1][1] <= MAX_GAP_BYTES:
                first, end, inside = blocks[-1]
                blocks[-1] = (first, max(end, stop), inside)
                inside.append(position)
            else:
                blocks.append((start, stop, [position]))
        buffer, filled = _buffer(sum(end - first for first, end, _ in blocks)), 0
        for first, end, inside in blocks:
            block = buffer[filled : filled + end - first]
            filled += end - first
            try:
                num_read = os.preadv(self.descriptor, [block], first)
            except OSError as error:
                raise StoreError(f"{self.path}: cannot be read: {error.strerror}") from error
            if num_read != len(block):
                raise StoreError(f"{self.path}: ends before byte {end}; it was truncated")
            for position in inside:
                at = offsets[position] - first
                payloads[position] = block[at : at + sizes[position]]
        return payloads


def open_video(path: Path, *, num_bytes: int, num_frames: int, num_samples: int, is_whole: bool) -> OpenVideo:
    """Open a prepared file and its index; an index that is missing, damaged or of another file is made anew.

    Args:
        path: The ``.mov``.
        num_bytes: Its size as the catalog has it.
        num_frames: Its frames.
        num_samples: Its samples of sound.
        is_whole: Whether it holds all of the recording, and not windows of it.

    Raises:
        StoreError: If the file cannot be opened or is not what the catalog says.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise StoreError(f"{path}: the prepared file cannot be opened: {error.strerror}") from error
    try:
        file_size = os.fstat(descriptor).st_size
        if file_size != num_bytes:
            raise StoreError(
                f"{path}: {file_size} bytes, the catalog says {num_bytes}: the file is truncated or was replaced"
            )
        index = _index_of(path, file_size)
        if (index.num_frames, index.num_samples) != (num_frames, num_samples):
            raise StoreError(
                f"{path}: holds {index.num_frames} frames and {index.num_samples} samples, "
                f"the catalog says {num_frames} and {num_samples}"
            )
        if is_whole and index.windows.tolist() != [[0, num_frames, 0, num_samples]]:
            raise StoreError(f"{path}: holds windows of the recording, the store was prepared to hold all of it")
    except BaseException:
        os.close(descriptor)
        raise
    return OpenVideo(path, descriptor, index)


def _index_path(path: Path) -> Path:
    return path.with_suffix(".index.npz")


def _index_of(path: Path, file_size: int) -> PacketIndex:
    index_path = _index_path(path)
    with contextlib.suppress(StoreError, FileNotFoundError):
        index = PacketIndex.load(index_path)
        if index.file_size == file_size:
            return index
    try:
        index = PacketIndex.of_file(path)
    except ValueError as error:  # earmark.media.MediaError, which names the file
        raise StoreError(str(error)) from error
    with contextlib.suppress(OSError):  # a read-only store is used as it is; the index is kept in memory
        index.save(index_path)
    return index


def _buffer(num_bytes: int) -> memoryview:
    """Return this thread's buffer, of at least so many bytes."""
    buffer: memoryview | None = getattr(_scratch, "buffer", None)
    if buffer is None or len(buffer) < num_bytes:
        buffer = _scratch.buffer = memoryview(bytearray(num_bytes))
    return buffer
