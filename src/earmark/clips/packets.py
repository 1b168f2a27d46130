"""Read a prepared file by byte ranges: the bytes of any frames and runs of sound, found by its packet index.

Path of a sample: `earmark.clips.store` reads through this. Every frame of a prepared video is a JPEG of its own at a
known offset and its sound is raw PCM, so what a sample needs is one or two system calls away: no demuxing and no
seeking.
"""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

from earmark.media import BYTES_PER_SAMPLE, MediaError, PacketIndex
from earmark.preparation.catalog import PreparedVideo, StoreError, index_path
from earmark.preparation.record import is_index_of, max_index_bytes, rebuilt_index

__all__ = ["OpenVideo", "SoundPiece", "open_video"]

MAX_GAP_BYTES = 128 * 1024  # ranges nearer than this are read by one call, which is cheaper than two
MAX_RUN_BYTES = 128 * 1024  # of sound that are read whole where a part is asked for: `prepare` writes runs of 16 KB

# Each thread reads into a buffer of its own that it keeps: a fresh one would be mapped and zeroed for every sample.
_scratch = threading.local()


class SoundPiece(NamedTuple):
    """Samples that follow one another in the file, and the bytes that are read to have them.

    A run of sound is read whole, as only a whole one can be compared with its checksum. One too long for that is read
    in part, and compared as a whole when it is first touched (see `OpenVideo.prove_run`).

    Attributes:
        run: Number of the run that they lie in.
        offset: Byte at which reading begins.
        size: How many bytes are read.
        skip: How many samples of those come before the first that was asked for.
        num_samples: How many were asked for.
        place: Of the first one in what was asked for.
        checksum: CRC-32 of the bytes that are read; None of a part of a run.
    """

    run: int
    offset: int
    size: int
    skip: int
    num_samples: int
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
        proven_runs: The runs of sound that were read whole and found to be as they were written.
    """

    path: Path
    descriptor: int
    index: PacketIndex
    sound_starts: npt.NDArray[np.int64] = field(init=False)
    windows_before: npt.NDArray[np.int64] = field(init=False)
    num_frames_from_start: int = field(init=False)
    proven_runs: set[int] = field(init=False, default_factory=set)

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
        """Return the positions of frames in the file.

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
            offset, size = int(self.index.sound_offsets[chunk]), int(self.index.sound_sizes[chunk])
            skip = begin - chunk_start
            checksum: int | None = int(self.index.sound_checksums[chunk])
            if size > MAX_RUN_BYTES and stop - begin < chunk_end - chunk_start:
                offset, size = offset + skip * BYTES_PER_SAMPLE, (stop - begin) * BYTES_PER_SAMPLE
                skip, checksum = 0, None
            yield SoundPiece(chunk, offset, size, skip, stop - begin, begin - origin, checksum)
            begin = stop
            chunk += 1

    def prove_run(self, run: int) -> None:
        """Compare a run of sound with its checksum, once: a part of it cannot be.

        Args:
            run: Its number.

        Raises:
            StoreError: If it is not as it was written.
        """
        if run in self.proven_runs:
            return
        offset, stop = (
            int(self.index.sound_offsets[run]),
            int(self.index.sound_offsets[run] + self.index.sound_sizes[run]),
        )
        checksum = 0
        while offset < stop:
            content = os.pread(self.descriptor, min(1 << 20, stop - offset), offset)
            if not content:
                raise StoreError(f"{self.path}: ends before byte {stop}; it was truncated")
            checksum, offset = crc32(content, checksum), offset + len(content)
        if checksum != self.index.sound_checksums[run]:
            at = stop - int(self.index.sound_sizes[run])
            raise StoreError(f"{self.path}: the sound from byte {at} to {stop} is not as it was written")
        self.proven_runs.add(run)

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
            raise StoreError(f"{self.path}: its index points outside the file: {index_path(self.path).name} is wrong")
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


def open_video(path: Path, video: PreparedVideo, *, checksum: int | None, is_whole: bool) -> OpenVideo:
    """Open a prepared file and its index; an index that is missing, damaged or of another file is rebuilt.

    Whichever index is used is that of the file as it was written, as far as row and record say what that was: damage
    must not become the truth by being indexed anew.

    Args:
        path: The ``.mov``.
        video: Its row of the catalog.
        checksum: That of its packets in the video's record; None if the record has none.
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
        if file_size != video.num_bytes:
            raise StoreError(
                f"{path}: {file_size} bytes, the catalog says {video.num_bytes}: the file is truncated or was replaced"
            )
        index = _index_of(path, video, checksum)
        if (index.num_frames, index.num_samples) != (video.num_frames, video.num_samples):
            raise StoreError(
                f"{path}: holds {index.num_frames} frames and {index.num_samples} samples, "
                f"the catalog says {video.num_frames} and {video.num_samples}"
            )
        if is_whole and index.windows.tolist() != [[0, video.num_frames, 0, video.num_samples]]:
            raise StoreError(f"{path}: holds windows of the recording, the store was prepared to hold all of it")
    except BaseException:
        os.close(descriptor)
        raise
    return OpenVideo(path, descriptor, index)


def _index_of(path: Path, video: PreparedVideo, checksum: int | None) -> PacketIndex:
    with contextlib.suppress(MediaError, FileNotFoundError):
        index = PacketIndex.load(index_path(path), max_bytes=max_index_bytes(video.num_bytes))
        if is_index_of(index, video, checksum):
            return index
    try:
        index = rebuilt_index(path, video, checksum)
    except MediaError as error:  # names the file
        raise StoreError(str(error)) from error
    with contextlib.suppress(OSError):  # a read-only store is used as it is; the index is kept in memory
        index.save(index_path(path))
    return index


def _buffer(num_bytes: int) -> memoryview:
    """Return this thread's buffer, of at least so many bytes."""
    buffer: memoryview | None = getattr(_scratch, "buffer", None)
    if buffer is None or len(buffer) < num_bytes:
        buffer = _scratch.buffer = memoryview(bytearray(num_bytes))
    return buffer
