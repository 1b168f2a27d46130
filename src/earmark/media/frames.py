"""Reading pictures: at a fixed rate from start to end, or at given times."""

from collections.abc import Iterator, Sequence
from itertools import chain, count, pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from earmark.media.decoding import MAX_REORDERED_FRAMES, Damage, decode, has_only_decoding_times
from earmark.media.evidence import Evidence
from earmark.media.opening import MediaError, end_seconds, only_stream, open_media, packets_of, time_zero
from earmark.media.picture import PictureConverter, PictureGeometry, first_frame
from earmark.media.plausible import STEP_SECONDS, implausible_size

# Exactly between two frames the earlier one is taken; rounding of times must not decide it.
_TIE_SECONDS = 1e-6
# Going on decoding is cheaper than a seek over less than this, and seeks that come late are retried this much earlier.
_SHORT_WAY_SECONDS = 2.0
# In a file with hardly any key frames, no more packets wait than this.
_MAX_HELD_PACKETS = 1000


def _geometry(path: Path, video_stream: int | None, short_side: int | None) -> PictureGeometry:
    if short_side is not None and short_side < 2:
        raise ValueError(f"short_side must be at least 2 pixels, not {short_side}")
    with open_media(path) as container:
        stream = only_stream(container, "video", video_stream)
        frame = first_frame(container, stream)
        if frame is None:
            reason = implausible_size(stream.codec_context.width, stream.codec_context.height, known=True)
            raise MediaError(f"{path}: no picture could be decoded{f' ({reason})' if reason else ''}")
        geometry = PictureGeometry.of(stream, frame)
        if reason := implausible_size(
            geometry.width, geometry.height
        ):  # of the pixels' shape, or in the picture itself
            raise MediaError(f"{path}: {reason}")
        return geometry.scaled(short_side)


def _frames_in_order(
    packets: Iterator[Any], stream: Any, zero: float, damage: Damage, evidence: Evidence, *, origin: float = 0.0
) -> Iterator[tuple[float, float, VideoFrame]]:
    """Yield (start, end, frame), seconds on the file's clock, each frame after the one before it.

    The first one is expected around ``origin``. A frame that stays is given again, for the time that it stays.
    """
    usual_seconds = 1 / float(stream.average_rate) if stream.average_rate else 0.0
    if usual_seconds > STEP_SECONDS:  # a mean over what is not believed
        usual_seconds = 0.0
    last_start, last_end = float("-inf"), origin
    newest = origin  # when the picture last changed, or decoding began
    claim: str | None = None  # of the last frame's length, if it is not believed: nothing says when that frame ends
    shown: VideoFrame | None = None
    for seconds, decoded in decode(packets, stream, zero, damage):
        frame = shown if decoded is None else decoded
        if frame is None:
            continue  # what should stay was before the place where decoding began
        start = last_end if seconds is None else seconds
        if start <= last_start:  # the frame before it has the time
            if decoded is not None:
                damage.not_shown(last_start)
            continue
        newest = max(newest, damage.entered_seconds)
        if not evidence.believes(newest, start):
            damage.disbelieve(
                f"the time stamps jump from {newest:.2f} s to {start:.2f} s, which nothing else in the file bears out: "
                "the rest is not read"
            )
            return
        claim = None
        if decoded is not None:
            newest = start
        length = float(frame.duration * stream.time_base) if frame.duration else 0.0
        if not evidence.believes(start, start + length):
            claim = (
                f"the picture at {start:.2f} s claims to stay for {length:.0f} s, which nothing else in the file bears "
                "out: that is left out"
            )
            length = 0.0
        last_start, last_end, shown = start, start + (length or usual_seconds), frame
        yield start, last_end, frame
    if claim is not None:
        damage.disbelieve(claim)


class FrameReader:
    """Read a file's pictures at a fixed rate.

    Iterating yields (time_seconds, uint8 RGB ``(H, W, 3)``). Picture k is the source frame nearest in presentation time
    to k / fps: right for variable frame rates too. Before the first source frame that one is shown; the last picture
    lies before the end of the last source frame. A picture shown twice is the same array: copy before writing into it.
    Each iteration reads the file again; memory does not grow with its length.

    Args:
        path: the file.
        fps: pictures per second.
        short_side: scale the displayed picture so that its short side has as many pixels, the other an even number in
            proportion; None leaves the size.
        video_stream: the n-th picture stream instead of the container's default.
        num_threads: of the decoder; 0 for one per core.
        windows: (first, stop) numbers k of the pictures wanted, ascending and apart; None for all. What only others
            need is not decoded, as far as key frames allow.

    Attributes:
        path: the file.
        stream_number: the n-th picture stream, or None for the container's default.
        size: (width, height) of the pictures, in pixels.
        problem: None, or what is wrong with the pictures: damaged packets, an early end. Complete after the last one.

    Raises:
        MediaError: on construction, if the file can't be opened or no picture of it can be decoded.

    Example:
        >>> import tempfile
        >>> from earmark.media import VideoWriter
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with VideoWriter(f"{folder}/a.mp4", width=64, height=48, fps=10, sample_rate=16000) as writer:
        ...         for _ in range(10):
        ...             writer.write_frame(np.zeros((48, 64, 3), np.uint8))
        ...     [(time, picture.shape) for time, picture in FrameReader(f"{folder}/a.mp4", fps=2, short_side=24)]
        [(0.0, (24, 32, 3)), (0.5, (24, 32, 3))]
    """

    def __init__(
        self,
        path: str | Path,
        *,
        fps: float,
        short_side: int | None = None,
        video_stream: int | None = None,
        num_threads: int = 0,
        windows: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        if not fps > 0:
            raise ValueError(f"fps must be positive, not {fps}")
        bounds = [0, *(bound for window in windows or () for bound in window)]
        if any(stop < start for start, stop in pairwise(bounds)):
            raise ValueError(f"windows must be (first, stop) pairs in ascending order, not {windows}")
        self.path = Path(path)
        self.stream_number = video_stream
        self._fps = float(fps)
        self._num_threads = num_threads
        self._windows = windows
        self._geometry = _geometry(self.path, video_stream, short_side)
        self._damage = Damage()
        self._next: int | None = 0  # number of the picture that is due
        self.size = self._geometry.size

    @property
    def problem(self) -> str | None:
        """What is wrong with the pictures read so far, or None."""
        return self._damage.problem()

    def __iter__(self) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """Read the pictures from the start."""
        with open_media(self.path) as container:
            stream = only_stream(container, "video", self.stream_number)
            yield from self.read(packets_of(container, stream), stream, time_zero(container))

    def read(self, packets: Iterator[Any], stream: Any, zero: float) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """Yield the pictures of a stream that somebody else opened (see :func:`earmark.media.read_interleaved`).

        Args:
            packets: all packets of the stream, in order.
            stream: of the opened file, nothing decoded yet.
            zero: the time of the file's start on the stream's own clock, in seconds.
        """
        self._damage = Damage()
        stream.thread_type = "AUTO"
        stream.thread_count = self._num_threads
        convert = PictureConverter(self._geometry)
        if self._windows is None:
            numbers: Iterator[int] = count()
        else:
            numbers = chain.from_iterable(range(*window) for window in self._windows)
            packets = self._needed(packets, stream, zero)
        self._next = next(numbers, None)
        last: tuple[float, float, VideoFrame] | None = None
        num_before = 0  # that end before the file's clock begins
        evidence = Evidence(self.path, stream.index, zero)
        for start, end, frame in _frames_in_order(packets, stream, zero, self._damage, evidence):
            num_before += last is not None and start <= 0
            if last is not None:
                # The earlier frame is the nearest up to the middle between the two.
                yield from self._due(numbers, convert, last[2], (last[0] + start) / 2 + _TIE_SECONDS)
            if self._next is None:
                break
            last = (start, end, frame)
        if self._next is None:
            return  # no picture of a window is missing
        if last is None:
            reason = f" ({self.problem})" if self.problem else ""
            raise MediaError(f"{self.path}: no picture could be decoded{reason}")
        if num_before:
            what = "picture" if num_before == 1 else "pictures"
            self._damage.note(f"{num_before} {what} before the start of the presentation left out")
        start, end, frame = last
        # a frame of no length is still shown
        yield from self._due(numbers, convert, frame, max(start, end - _TIE_SECONDS))
        self._damage.note_end("picture", end, end_seconds(stream, zero))
        self._damage.note_cut("picture", end, self.path)

    def _due(
        self, numbers: Iterator[int], convert: PictureConverter, frame: VideoFrame, until: float
    ) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """Yield a frame as all the pictures that are due and whose time is at most ``until``."""
        last_number = int(np.floor(until * self._fps))
        picture: NDArray[np.uint8] | None = None
        while self._next is not None and self._next <= last_number:
            picture = convert(frame) if picture is None else picture
            number, self._next = self._next, next(numbers, None)
            yield number / self._fps, picture

    def _needed(self, packets: Iterator[Any], stream: Any, zero: float) -> Iterator[Any]:
        """Leave out what comes before the last key frame that is not later than the picture due.

        What follows that key frame does not need what is left out; what precedes it in presentation is no nearer to the
        picture than the key frame itself. Packets wait, compressed, until it is known whether they are needed.
        """
        held: list[Any] = []
        left_out = False
        # Where only decoding times are known, a key frame may be shown some frames later than its packet says.
        by_decoding_time = has_only_decoding_times(stream)
        rate = float(stream.average_rate or MAX_REORDERED_FRAMES)  # unknown: one second is enough
        lag_seconds = MAX_REORDERED_FRAMES / rate if by_decoding_time else 0.0
        for packet in packets:
            if self._next is None:
                return
            ticks = packet.dts if by_decoding_time else packet.pts
            seconds = None if ticks is None else ticks * float(stream.time_base) - zero
            due = self._next / self._fps
            if packet.is_keyframe and packet.size and held and seconds is not None and seconds + lag_seconds <= due:
                held, left_out = [], True
                self._damage.entered_seconds = seconds
            held.append(packet)
            if seconds is None or seconds >= due or len(held) >= _MAX_HELD_PACKETS:
                if left_out:
                    stream.codec_context.flush_buffers()
                    left_out = False
                yield from held
                held = []


def read_frames(
    path: str | Path,
    times_seconds: Sequence[float] | NDArray[np.floating[Any]],
    *,
    short_side: int | None = None,
    video_stream: int | None = None,
) -> NDArray[np.uint8]:
    """Read the pictures nearest in presentation time to given times, seeking to key frames.

    Args:
        path: the file.
        times_seconds: ``(T,)``, any order, on the file's clock; times outside the video get its first or last picture.
        short_side: as for :class:`FrameReader`.
        video_stream: the n-th picture stream instead of the container's default.

    Returns:
        uint8 RGB ``(T, H, W, 3)``.

    Raises:
        MediaError: if the file can't be opened or no picture can be decoded.
        ValueError: if a time is not finite.

    Example:
        >>> import tempfile
        >>> from earmark.media import VideoWriter
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with VideoWriter(f"{folder}/a.mp4", width=64, height=48, fps=10, sample_rate=16000) as writer:
        ...         for k in range(10):
        ...             writer.write_frame(np.full((48, 64, 3), 20 * k, np.uint8))
        ...     read_frames(f"{folder}/a.mp4", [0.5, 0.0]).mean(axis=(1, 2, 3)).round(-1)
        array([100.,   0.])
    """
    times = np.asarray(times_seconds, np.float64)
    if times.ndim != 1 or not np.isfinite(times).all():
        raise ValueError(f"times_seconds must be finite and of shape (T,), not {times_seconds}")
    geometry = _geometry(Path(path), video_stream, short_side)
    pictures = np.empty((len(times), geometry.size[1], geometry.size[0], 3), np.uint8)
    order = np.argsort(times, kind="stable")
    for index, picture in zip(order, _frames_at(Path(path), times[order], geometry, video_stream), strict=True):
        pictures[index] = picture
    return pictures


def iter_frames(
    path: str | Path,
    times_seconds: Sequence[float] | NDArray[np.floating[Any]],
    *,
    short_side: int | None = None,
    video_stream: int | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """Read the pictures of :func:`read_frames` one by one, so that many large ones need no memory.

    Args:
        path: the file.
        times_seconds: ``(T,)``, finite, in ascending order, on the file's clock.
        short_side: as for :class:`FrameReader`.
        video_stream: the n-th picture stream instead of the container's default.

    Yields:
        uint8 RGB ``(H, W, 3)``, all of one size.

    Raises:
        MediaError: if the file can't be opened or no picture can be decoded.

    Example:
        >>> import tempfile
        >>> from earmark.media import VideoWriter
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with VideoWriter(f"{folder}/a.mp4", width=64, height=48, fps=10, sample_rate=16000) as writer:
        ...         writer.write_frame(np.full((48, 64, 3), 100, np.uint8))
        ...     [picture.shape for picture in iter_frames(f"{folder}/a.mp4", [0.0, 0.1], short_side=24)]
        [(24, 32, 3), (24, 32, 3)]
    """
    geometry = _geometry(Path(path), video_stream, short_side)
    yield from _frames_at(Path(path), times_seconds, geometry, video_stream)


def _frames_at(
    path: Path,
    times_seconds: Sequence[float] | NDArray[np.floating[Any]],
    geometry: PictureGeometry,
    video_stream: int | None,
) -> Iterator[NDArray[np.uint8]]:
    """Yield the picture nearest to each of the times, which ascend."""
    convert = PictureConverter(geometry)
    walk: Iterator[tuple[float, VideoFrame]] = iter(())
    near: tuple[float, VideoFrame] | None = None
    following: tuple[float, VideoFrame] | None = None
    for seconds in map(float, times_seconds):
        if near is None or (following is not None and seconds > following[0] + _SHORT_WAY_SECONDS):
            near, walk = _seek(path, video_stream, seconds)
            following = next(walk, None)
        while following is not None and following[0] - seconds < abs(near[0] - seconds) - _TIE_SECONDS:
            near, following = following, next(walk, None)
        yield convert(near[1])


def _seek(
    path: Path, video_stream: int | None, seconds: float
) -> tuple[tuple[float, VideoFrame], Iterator[tuple[float, VideoFrame]]]:
    """Return a frame at or before a time (the first one, if none is) and an iterator over those that follow.

    Containers seek by decoding time, or not at all: what counts is the time of the first decoded frame.
    """
    for lead_seconds in (0.0, _SHORT_WAY_SECONDS, 5 * _SHORT_WAY_SECONDS):
        walk = _frames_from(path, video_stream, seconds - lead_seconds)
        first = next(walk, None)
        if first is not None and first[0] <= seconds:
            return first, walk
    walk = _frames_from(path, video_stream, None)
    first = next(walk, None)
    if first is None:
        raise MediaError(f"{path}: no picture could be decoded")
    return first, walk


def _frames_from(path: Path, video_stream: int | None, seconds: float | None) -> Iterator[tuple[float, VideoFrame]]:
    """Yield (start, frame) from a key frame near a time on, or from the file's start; nothing if the seek fails."""
    with open_media(path) as container:
        stream = only_stream(container, "video", video_stream)
        stream.thread_count = 1  # many processes read at once
        zero = time_zero(container)
        if seconds is not None:
            try:
                container.seek(int((seconds + zero) / stream.time_base), stream=stream)
            except av.FFmpegError:
                return
        packets, evidence = packets_of(container, stream), Evidence(path, stream.index, zero)
        for start, _, frame in _frames_in_order(packets, stream, zero, Damage(), evidence, origin=seconds or 0.0):
            yield start, frame
