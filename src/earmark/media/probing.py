"""Saying what a media file holds."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from av.container import InputContainer

from earmark.media.evidence import Evidence, plausible_end, plausible_file_end, walked_end
from earmark.media.opening import (
    MediaError,
    choose_stream,
    decodable_streams,
    end_seconds,
    file_end_seconds,
    open_media,
    packets_of,
    start_seconds,
    time_zero,
)
from earmark.media.picture import PictureGeometry, first_frame
from earmark.media.plausible import STEP_SECONDS, implausible_size, implausible_stream

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
        problem: None, or what its header claims that is not believed: of a stream that is left out for it (then
            ``video`` or ``audio`` is None), or of how long one lasts.
    """

    path: Path
    duration_seconds: float
    video: VideoStreamInfo | None
    audio: AudioStreamInfo | None
    num_video_streams: int
    num_audio_streams: int
    problem: str | None = None


def media_info(path: str | Path, *, video_stream: int | None = None, audio_stream: int | None = None) -> MediaInfo:
    """Say what a media file holds.

    Args:
        path: the file.
        video_stream: choose the n-th picture stream instead of the container's default.
        audio_stream: choose the n-th sound stream instead of the container's default.

    Returns:
        Streams, sizes, rates and times on the file's clock, as far as they are believed. One frame is decoded to learn
        how it is turned.

    Raises:
        MediaError: if the file can't be opened, has neither picture nor sound that can be believed, or lacks the stream
            asked for.

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
        problems = [reason for s in (video, audio) if s is not None and (reason := implausible_stream(s))]
        video, audio = (None if s is None or implausible_stream(s) else s for s in (video, audio))
        doubtful = bool(problems)
        streams = [stream for stream in (video, audio) if stream is not None]
        ends = {stream.index: plausible_end(path, container, stream, zero) for stream in streams}
        problems += filter(None, (_left_out(stream, ends[stream.index], zero) for stream in streams))
        duration = _end(path, container, streams, ends, zero, doubtful=doubtful)
        picture = None if video is None else _video_info(path, container, video, zero, ends[video.index])
        if picture is not None and (reason := implausible_size(picture.width, picture.height, known=True)):
            problems.append(reason)
            picture = None
        if picture is None and audio is None:
            reasons = "; ".join(problems) or "neither picture nor sound that can be decoded"
            raise MediaError(f"{path}: {reasons}")
        return MediaInfo(
            path=path,
            # What a browser or a broadcast streamed to disk declares no length: then the packets are walked.
            duration_seconds=walked_end(path, zero) if duration is None else duration,
            video=picture,
            audio=None if audio is None else _audio_info(container, audio, zero, ends[audio.index]),
            num_video_streams=len(decodable_streams(container, "video")),
            num_audio_streams=len(decodable_streams(container, "audio")),
            problem="; ".join(problems) or None,
        )


def declared(path: str | Path) -> tuple[float, int, int]:
    """Return what a file's header declares of its picture, as far as it is believed; nothing is decoded.

    Args:
        path: the file.

    Returns:
        Its length in seconds (of the whole file where that is all that is said; what the packets say where nothing is)
        and the coded width and height in pixels; zeros without a picture, or with one that can't be believed.

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
    path = Path(path)
    with open_media(path) as container:
        zero = time_zero(container)
        video = choose_stream(container, "video", None)
        if video is None or implausible_stream(video):
            return 0.0, 0, 0
        end = _end(path, container, [video], {video.index: plausible_end(path, container, video, zero)}, zero)
        size = video.codec_context.width, video.codec_context.height
        return walked_end(path, zero) if end is None else end, *size


def _end(
    path: Path,
    container: InputContainer,
    streams: list[Any],
    ends: dict[int, float | None],
    zero: float,
    *,
    doubtful: bool = False,
) -> float | None:
    """Return when the last of some streams ends, or else when the whole file does, as far as that is believed.

    ``doubtful`` says that the header claims something else that is not believed: then what it says of the whole file
    may rest on that.
    """
    known = [end for end in ends.values() if end is not None]
    if doubtful or any(_left_out(stream, ends[stream.index], zero) for stream in streams):
        known += [Evidence(path, index, zero).end_seconds() for index, end in ends.items() if end is None]
    if known or not streams:
        return max(known, default=None)
    ends_of_file = [plausible_file_end(path, container, stream, zero) for stream in streams]
    return max((end for end in ends_of_file if end is not None), default=None)


def _left_out(stream: Any, end: float | None, zero: float) -> str | None:
    """Say how much of a stream's declared length is not believed.

    Up to twice the length that is borne out this is no claim, but an estimate from the bit rate, or a file that is cut,
    of which the readers say where it breaks off.
    """
    declared = end_seconds(stream, zero)
    if declared is None:
        declared = file_end_seconds(stream.container, zero)
    if end is None or declared is None or declared <= 2 * end + STEP_SECONDS:
        return None
    what = "picture" if stream.type == "video" else "sound"
    return f"the {what} claims to last until {declared:.0f} s, but nothing in the file bears out more than {end:.2f} s"


def _stream_duration(stream: Any, zero: float, end: float | None) -> float | None:
    return None if end is None else max(0.0, end - start_seconds(stream, zero))


def _audio_info(container: InputContainer, stream: Any, zero: float, end: float | None) -> AudioStreamInfo:
    return AudioStreamInfo(
        index=stream.index,
        number=[other.index for other in decodable_streams(container, "audio")].index(stream.index),
        codec=stream.codec_context.name,
        sample_rate=stream.codec_context.sample_rate,
        channels=stream.codec_context.channels,
        start_seconds=start_seconds(stream, zero),
        duration_seconds=_stream_duration(stream, zero, end),
    )


def _video_info(path: Path, container: InputContainer, stream: Any, zero: float, end: float | None) -> VideoStreamInfo:
    # Where no frame can be decoded the header has to be trusted; the readers will refuse the stream.
    geometry = PictureGeometry.of(stream, first_frame(container, stream))
    return VideoStreamInfo(
        index=stream.index,
        codec=stream.codec_context.name,
        width=geometry.size[0],
        height=geometry.size[1],
        fps=_average_fps(path, stream, until=end if _left_out(stream, end, zero) else None),
        rotation=90 * geometry.quarter_turns,
        start_seconds=start_seconds(stream, zero),
        duration_seconds=_stream_duration(stream, zero, end),
    )


def _average_fps(path: Path, stream: Any, *, until: float | None) -> float:
    """Return the average frame rate; from the packets' own times where the file declares none or nonsense.

    Args:
        path: of the file.
        stream: of it.
        until: the end that is believed where that is not the declared one, which a declared rate rests on.
    """
    if stream.average_rate and stream.average_rate <= _MAX_FPS and until is None:
        return float(stream.average_rate)
    with open_media(path) as container:
        packets = islice(packets_of(container, container.streams[stream.index]), _NUM_TIMED_PACKETS)
        times = [float(packet.pts * packet.time_base) for packet in packets if packet.pts is not None]
        if until is not None:
            zero = time_zero(container)
            times = [seconds for seconds in times if seconds - zero <= until]
    span = max(times, default=0.0) - min(times, default=0.0)
    return (len(times) - 1) / span if span > 0 else 1.0
