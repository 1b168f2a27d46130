"""Read a prepared file by byte ranges: its packet index, and the bytes of any frames and runs of sound.

Path of a sample: the lower half of `earmark.store`. Every frame of a prepared video is a JPEG of its own at a known
offset and its sound is raw PCM, so what a sample needs is one or two system calls away: no demuxing and no seeking.
"""

import contextlib
import os
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from earmark.atomic import replacing

__all__ = ["OpenVideo", "PacketIndex", "StoreError", "open_video"]

BYTES_PER_SAMPLE = 2  # PCM s16le, mono
MAX_GAP_BYTES = 128 * 1024  # ranges nearer than this are read by one call: cheaper than a second one

# Each thread reads into a buffer of its own that it keeps: a fresh one would be mapped and zeroed for every sample.
_scratch = threading.local()


class StoreError(ValueError):
    """A store or one of its videos cannot be read; the message names the file and the reason."""


@dataclass(frozen=True, slots=True)
class PacketIndex:
    """Where every packet of a prepared video lies.

    Attributes:
        frame_offsets: int64 (num_frames,), byte offset of each JPEG.
        frame_sizes: int64 (num_frames,), its size in bytes.
        sound_offsets: int64 (num_chunks,), byte offset of each run of PCM samples.
        sound_sizes: int64 (num_chunks,), its size in bytes.
        file_size: Size of the ``.mov`` that the index belongs to.
    """

    frame_offsets: npt.NDArray[np.int64]
    frame_sizes: npt.NDArray[np.int64]
    sound_offsets: npt.NDArray[np.int64]
    sound_sizes: npt.NDArray[np.int64]
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
                columns = {field.name: arrays[field.name].astype(np.int64) for field in fields(PacketIndex)}
            index = PacketIndex(**{**columns, "file_size": int(columns["file_size"])})
            for offsets, sizes in ((index.frame_offsets, index.frame_sizes), (index.sound_offsets, index.sound_sizes)):
                if offsets.ndim != 1 or offsets.shape != sizes.shape:
                    raise ValueError(f"offsets {offsets.shape} and sizes {sizes.shape} do not go together")
            return index
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise StoreError(f"{path}: not a packet index ({error})") from error


@dataclass(slots=True)
class OpenVideo:
    """A prepared video opened by this process: its file descriptor and its index.

    Attributes:
        path: The ``.mov``.
        descriptor: Its file descriptor, closed with this object.
        index: Its packet index.
        sound_starts: int64 (num_chunks + 1,), first sample of each run of sound, and their number at the end.
    """

    path: Path
    descriptor: int
    index: PacketIndex
    sound_starts: npt.NDArray[np.int64]

    def __del__(self) -> None:
        os.close(self.descriptor)

    @property
    def num_bytes(self) -> int:
        """Memory that the index takes."""
        columns = (self.index.frame_offsets, self.index.frame_sizes, self.index.sound_offsets, self.index.sound_sizes)
        return sum(column.nbytes for column in columns) + self.sound_starts.nbytes

    def sound_pieces(self, first_sample: int, num_samples: int) -> list[tuple[int, int, int]]:
        """Return the runs of PCM that a window touches.

        Args:
            first_sample: Where the window begins; may be negative.
            num_samples: Its length; it may reach past the end.

        Returns:
            (byte offset, size in bytes, place of its first sample in the window) of each, in the order of time.
        """
        begin, end = max(first_sample, 0), min(first_sample + num_samples, int(self.sound_starts[-1]))
        pieces = []
        chunk = int(self.sound_starts.searchsorted(begin, side="right")) - 1
        while begin < end:
            chunk_start, chunk_end = int(self.sound_starts[chunk]), int(self.sound_starts[chunk + 1])
            count = min(end, chunk_end) - begin
            offset = int(self.index.sound_offsets[chunk]) + (begin - chunk_start) * BYTES_PER_SAMPLE
            pieces.append((offset, count * BYTES_PER_SAMPLE, begin - first_sample))
            begin += count
            chunk += 1
        return pieces

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


def open_video(path: Path, *, num_bytes: int, num_frames: int, num_samples: int) -> OpenVideo:
    """Open a prepared file and its index; an index that is missing, damaged or of another file is made anew.

    Args:
        path: The ``.mov``.
        num_bytes: Its size as the catalog has it.
        num_frames: Its frames.
        num_samples: Its samples of sound.

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
        samples = int(index.sound_sizes.sum()) // BYTES_PER_SAMPLE
        if (len(index.frame_offsets), samples) != (num_frames, num_samples):
            raise StoreError(
                f"{path}: holds {len(index.frame_offsets)} frames and {samples} samples, "
                f"the catalog says {num_frames} and {num_samples}"
            )
    except BaseException:
        os.close(descriptor)
        raise
    starts = np.concatenate([[0], np.cumsum(index.sound_sizes // BYTES_PER_SAMPLE)]).astype(np.int64)
    return OpenVideo(path, descriptor, index, starts)


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
