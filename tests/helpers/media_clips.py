"""Small media files with known content, written by PyAV alone: shared by the tests of the media package."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from numpy.typing import NDArray

CLICK_SAMPLES = 24


def click_track(num_samples: int, click_sample: int) -> NDArray[np.float32]:
    """Silence with one short click that starts at a sample."""
    wave = np.zeros(num_samples, np.float32)
    wave[click_sample : click_sample + CLICK_SAMPLES] = 0.9 * (-1.0) ** np.arange(CLICK_SAMPLES)
    return wave


def grey_ramp(num_frames: int, *, width: int = 64, height: int = 48) -> list[NDArray[np.uint8]]:
    """Frames whose grey value tells their number: 8 k."""
    return [np.full((height, width, 3), 8 * k, np.uint8) for k in range(num_frames)]


def number_of(picture: NDArray[np.uint8]) -> int:
    """The number of a frame of :func:`grey_ramp`."""
    return round(float(picture.mean()) / 8)


def write_clip(
    path: Path,
    *,
    frames: list[NDArray[np.uint8]] | None = None,
    times_ms: list[int] | None = None,
    fps: int = 16,
    picture_start: float = 0.0,
    video_codec: str = "libx264",
    video_options: dict[str, str] | None = None,
    rotation: int | None = None,
    mirrored: bool = False,
    pixel_aspect: Fraction | None = None,
    waves: list[NDArray[Any]] | None = None,
    sample_rate: int = 48000,
    sound_start: float = 0.0,
    audio_codec: str = "aac",
    gap_at: tuple[float, float] | None = None,
) -> None:
    """Write a file; the container follows from the name.

    ``waves`` holds one array ``(S,)`` or ``(channels, S)`` for each sound stream. ``gap_at`` = (time, seconds) leaves
    out that much time.
    """
    with av.open(str(path), "w") as container:
        videos = []
        if frames is not None:
            stream = container.add_stream(video_codec, rate=fps, options=video_options or {})
            stream.width, stream.height = frames[0].shape[1], frames[0].shape[0]
            stream.pix_fmt = "yuvj420p" if video_codec == "mjpeg" else "yuv420p"
            stream.codec_context.time_base = Fraction(1, 1000)
            if pixel_aspect:
                stream.codec_context.sample_aspect_ratio = pixel_aspect
            if rotation is not None:
                stream.set_display_rotation(rotation, hflip=mirrored)
            videos.append(stream)
        sounds = [
            container.add_stream(audio_codec, rate=sample_rate, layout="stereo" if wave.ndim == 2 else "mono")
            for wave in waves or []
        ]
        for stream in videos:
            assert frames is not None
            for k, picture in enumerate(frames):
                frame = VideoFrame.from_ndarray(picture, format="rgb24")
                frame.time_base = Fraction(1, 1000)
                frame.pts = times_ms[k] if times_ms else round(1000 * (picture_start + k / fps))
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        for stream, wave in zip(sounds, waves or [], strict=True):
            _write_sound(container, stream, np.atleast_2d(wave), sample_rate, sound_start, gap_at)


def _write_sound(
    container: Any,
    stream: Any,
    wave: NDArray[Any],
    sample_rate: int,
    sound_start: float,
    gap_at: tuple[float, float] | None,
) -> None:
    layout = "stereo" if len(wave) == 2 else "mono"
    for start in range(0, wave.shape[1], 1024):
        if wave.dtype == np.int16:
            packed = np.ascontiguousarray(wave[:, start : start + 1024].T).reshape(1, -1)
            frame = AudioFrame.from_ndarray(packed, format="s16", layout=layout)
        else:
            piece = np.ascontiguousarray(wave[:, start : start + 1024])
            frame = AudioFrame.from_ndarray(piece, format="fltp", layout=layout)
        frame.sample_rate = sample_rate
        frame.time_base = Fraction(1, sample_rate)
        frame.pts = round(sound_start * sample_rate) + start
        for packet in stream.encode(frame):
            _shift_after_gap(packet, gap_at)
            container.mux(packet)
    for packet in stream.encode(None):
        _shift_after_gap(packet, gap_at)
        container.mux(packet)


def _shift_after_gap(packet: Any, gap_at: tuple[float, float] | None) -> None:
    """Move a packet later if it lies after the gap."""
    if gap_at and packet.pts is not None and packet.pts * packet.time_base >= gap_at[0]:
        packet.pts += round(gap_at[1] / packet.time_base)
        packet.dts = packet.pts
