"""Reading the pictures and the sound of a file in one pass over it."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from earmark.media.frames import FrameReader
from earmark.media.opening import choose_stream, open_media, packets_of, time_zero
from earmark.media.sound import SoundReader

# What one reader has no use for yet waits, compressed; streams that lie further apart in the file are read separately.
_MAX_WAITING_BYTES = 64 << 20


@contextmanager
def read_interleaved(
    frames: FrameReader, sound: SoundReader
) -> Iterator[tuple[Iterator[tuple[float, NDArray[np.uint8]]], Iterator[NDArray[np.float32]]]]:
    """Open a file once for its pictures and its sound, so that it is read once from start to end.

    Both are what iterating over the readers gives, and the readers' ``problem`` is set. The two are to be read at about
    the same pace: packets that one of them has not used yet are held in memory, compressed, up to 64 MiB; beyond that
    (streams stored one after the other) the file is opened a second time.

    Args:
        frames: reader of the pictures.
        sound: reader of the sound of the same file.

    Yields:
        The pictures and the blocks of sound.

    Raises:
        MediaError: as the readers.
        ValueError: if the readers are of different files.

    Example:
        >>> import tempfile
        >>> from earmark.media import VideoWriter
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with VideoWriter(f"{folder}/a.mp4", width=64, height=48, fps=10, sample_rate=16000) as writer:
        ...         for _ in range(10):
        ...             writer.write_frame(np.zeros((48, 64, 3), np.uint8))
        ...         writer.write_sound(np.zeros(16384, np.float32))
        ...     readers = FrameReader(f"{folder}/a.mp4", fps=2), SoundReader(f"{folder}/a.mp4")
        ...     with read_interleaved(*readers) as (pictures, blocks):
        ...         len(list(pictures)), [len(block) for block in blocks]
        (2, [16000, 384])
    """
    if frames.path != sound.path:
        raise ValueError(f"{frames.path} and {sound.path} are different files")
    with open_media(frames.path) as container:
        video = choose_stream(container, "video", frames.stream_number)
        audio = choose_stream(container, "audio", sound.stream_number)
        zero = time_zero(container)
        demuxer = _Demuxer(frames.path, container, [video, audio])
        yield frames.read(demuxer.packets(video), video, zero), sound.read(demuxer.packets(audio), audio, zero)


class _Demuxer:
    """Hand out the packets of several streams of a container, each stream to a reader of its own."""

    def __init__(self, path: Path, container: InputContainer, streams: list[Any]) -> None:
        self._path = path
        self._packets = _without_others(container, streams)
        self._waiting: dict[int, deque[Any]] = {stream.index: deque() for stream in streams}
        self._num_waiting_bytes = 0
        self._error: av.FFmpegError | None = None

    def packets(self, stream: Any) -> Iterator[Any]:
        """Yield the packets of one stream, in order."""
        waiting = self._waiting[stream.index]
        num_given = 0
        while True:
            while waiting:
                packet = waiting.popleft()
                self._num_waiting_bytes -= packet.size
                num_given += 1
                yield packet
            if self._num_waiting_bytes > _MAX_WAITING_BYTES:
                break
            taken = self._next_packet()
            if taken is None:
                return
            queue = self._waiting.get(taken.stream.index)  # the empty packets at the end say it only there
            if queue is waiting:
                num_given += 1
                yield taken
            elif queue is not None:
                queue.append(taken)
                self._num_waiting_bytes += taken.size
        del self._waiting[stream.index]
        stream.discard = av.stream.Discard.all
        with open_media(self._path) as container:
            alone = _without_others(container, [container.streams[stream.index]])
            yield from (packet for number, packet in enumerate(alone) if number >= num_given)

    def _next_packet(self) -> Any:
        """Return the next packet of any stream, None at the end; an error that ends reading is raised in each."""
        if self._error is not None:
            raise self._error
        try:
            return next(self._packets, None)
        except av.FFmpegError as error:
            self._error = error
            raise


def _without_others(container: InputContainer, streams: list[Any]) -> Iterator[Any]:
    """Return the packets of some streams; the demuxer skips all others."""
    wanted = {stream.index for stream in streams}
    for other in container.streams:
        if other.index not in wanted:
            other.discard = av.stream.Discard.all
    return packets_of(container, *streams)
