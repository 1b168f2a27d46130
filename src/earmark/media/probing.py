"""Saying what a media file holds."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from earmark.media.opening import (
    MediaError,
    choose_stream,
    decodable_streams,
    end_seconds,
    open_media,
    says_no_length,
    start_seconds,
    time_zero,
)
from earmark.media.picture import PictureGeometry, first_frame

# Beyond this a declared frame rate is a time base (90000) or an absence (0).
_MAX_FPS = 480.0
_NUM_TIMED_PACKETS = 500


@dataclass(frozen=True, slots=True)
class VideoStreamInfo:
    """A picture stream.

    Attributes:
        index: of the stream in its container.
        codec: its name in FFmpeg.
        width: as displayed (after sample aspect ratio and rotation), in pixels.
        height: as displayed, in pixels.
        fps: average frames per second.
        rotation: clockwise degrees to turn the coded picture by: 0, 90, 180 or 270.
        start_seconds: when the first frame is shown, on the file's clock.
        duration_seconds: of the stream, or None if the file does not say.
    """

    index: int
    codec: str
    width: int
    height: int
    fps: float
    rotation: int
    start_seconds: float
    duration_seconds: float | None


@dataclass(frozen=True, slots=True)
class AudioStreamInfo:
    """A sound stream.

    Attributes:
        index: of the stream in its container.
        number: among the decodable sound streams, from 0: what ``audio_stream`` chooses it by.
        codec: its name in FFmpeg.
        sample_rate: in Hz.
        channels: their number.
        start_seconds: when the first sample is heard, on the file's clock.
        duration_seconds: of the stream, or None if the file does not say.
    """

    index: int
    number: int
    codec: str
    sample_rate: int
    channels: int
    start_seconds: float
    duration_seconds: float | None


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a media file holds.

    Attributes:
        path: of the file.
        duration_seconds: from time 0 to the end of the last of the chosen streams.
        video: the chosen picture stream, or None.
        audio: the chosen sound stream, or None.
        num_video_streams: decodable ones; attached pictures (covers) don't count.
        num_audio_streams: decodable ones.
    """

    path: Path
    duration_seconds: float
    video: VideoStreamInfo | None
    audio: AudioStreamInfo | None
    num_video_streams: int
    num_audio_streams: int


def media_info(path: str | Path, *, video_stream: int | None = None, audio_stream: int | None = None) -> MediaInfo:
    """Say what a media file holds.

    Args:
        path: the file.
        video_stream: choose the n-th picture stream instead of the container's default.
        audio_stream: choose the n-th sound stream instead of the container's default.

    Returns:
        Streams, sizes, rates and times on the file's clock. One frame is decoded to learn how it is turned.

    Raises:
        MediaError: if the file can't be opened, has neither picture nor sound, or lacks the stream asked for.

    Example:
        >>> import tempfile, numpy as np
        >>> from earmark.media import VideoWriter
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with VideoWriter(f"{folder}/a.mp4", width=64, height=48, fps=16, sample_rate=16000) as writer:
        ...         for _ in range(8):
        ...             writer.write_frame(np.zeros((48, 64, 3), np.uint8))
        ...     info = media_info(f"{folder}/a.mp4")
        >>> info.duration_seconds, info.video.fps, info.audio
        (0.5, 16.0, None)
    """
    path = Path(path)
    with open_media(path) as container:
        zero = time_zero(container)
        video = choose_stream(container, "video", video_stream)
        audio = choose_stream(container, "audio", audio_stream)
        if video is None and audio is None:
            raise MediaError(f"{path}: neither picture nor sound that can be decoded")
        duration = _declared_end(container, [stream for stream in (video, audio) if stream is not None], zero)
        return MediaInfo(
            path=path,
            # What a browser or a broadcast streamed to disk declares no length: then the packets are walked.
            duration_seconds=_walked_duration(path, zero) if duration is None else duration,
            video=None if video is None else _video_info(path, container, video, zero),
            audio=None if audio is None else _audio_info(container, audio, zero),
            num_video_streams=len(decodable_streams(container, "video")),
            num_audio_streams=len(decodable_streams(container, "audio")),
        )


def declared(path: str | Path) -> tuple[float | None, int, int]:
    """Return what a file's header declares of its picture; nothing is decoded, so this is quick.

    Args:
        path: the file.

    Returns:
        Its length in seconds (of the whole file where that is all that is said), or None, and the coded width and
        height in pixels; zeros without a picture.

    Raises:
        MediaError: if the file can't be opened.

    Example:
        >>> import tempfile, numpy as np
        >>> from earmark.media import VideoWriter
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with VideoWriter(f"{folder}/a.mp4", width=64, height=48, fps=16, sample_rate=16000) as writer:
        ...         for _ in range(8):
        ...             writer.write_frame(np.zeros((48, 64, 3), np.uint8))
        ...     declared(f"{folder}/a.mp4")
        (0.5, 64, 48)
    """
    with open_media(path) as container:
        zero = time_zero(container)
        video = choose_stream(container, "video", None)
        if video is None:
            return 0.0, 0, 0
        return _declared_end(container, [video], zero), video.codec_context.width, video.codec_context.height


def _declared_end(container: InputContainer, streams: list[Any], zero: float) -> float | None:
    """Return when the last of some streams ends as their headers say, or else as that of the whole file does."""
    ends = [end for stream in streams if (end := end_seconds(stream, zero)) is not None]
    if ends or container.duration is None or says_no_length(container):
        return max(ends, default=None)
    return ((container.start_time or 0) + container.duration) / av.time_base - zero


def _walked_duration(path: Path, zero: float) -> float:
    with open_media(path) as container:
        ends = (float((p.pts + (p.duration or 0)) * p.time_base) for p in container.demux() if p.pts is not None)
        return max(0.0, max(ends, default=0.0) - zero)


def _stream_duration(stream: Any, zero: float) -> float | None:
    end = end_seconds(stream, zero)
    return None if end is None else end - start_seconds(stream, zero)


def _audio_info(container: InputContainer, stream: Any, zero: float) -> AudioStreamInfo:
    return AudioStreamInfo(
        index=stream.index,
        number=[other.index for other in decodable_streams(container, "audio")].index(stream.index),
        codec=stream.codec_context.name,
        sample_rate=stream.codec_context.sample_rate,
        channels=stream.codec_context.channels,
        start_seconds=start_seconds(stream, zero),
        duration_seconds=_stream_duration(stream, zero),
    )


def _video_info(path: Path, container: InputContainer, stream: Any, zero: float) -> VideoStreamInfo:
    # Where no frame can be decoded the header has to be trusted; the readers will refuse the stream.
    geometry = PictureGeometry.of(stream, first_frame(container, stream))
    return VideoStreamInfo(
        index=stream.index,
        codec=stream.codec_context.name,
        width=geometry.size[0],
        height=geometry.size[1],
        fps=_average_fps(path, stream),
        rotation=90 * geometry.quarter_turns,
        start_seconds=start_seconds(stream, zero),
        duration_seconds=_stream_duration(stream, zero),
    )


def _average_fps(path: Path, stream: Any) -> float:
    """Return the average frame rate; from the packets' own times where the file declares none or nonsense."""
    if stream.average_rate and stream.average_rate <= _MAX_FPS:
        return float(stream.average_rate)
    with open_media(path) as container:
        packets = islice(container.demux(container.streams[stream.index]), _NUM_TIMED_PACKETS)
        times = [float(packet.pts * packet.time_base) for packet in packets if packet.pts is not None]
    span = max(times, default=0.0) - min(times, default=0.0)
    return (len(times) - 1) / span if span > 0 else 1.0
