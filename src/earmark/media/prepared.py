"""Writing prepared videos: ordinary ``.mov`` files whose pictures and sound can be read by byte range."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
from av.container import OutputContainer
from av.packet import Packet
from numpy.typing import NDArray

from earmark.media.sound import rechunk
from earmark.media.writing import open_for_writing, sound_frame

_Packet: TypeAlias = "Packet[Any]"  # PyAV's class is generic in its type stubs only
WINDOWS_KEY = "earmark_windows"


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a recording that a prepared video holds.

    Attributes:
        first_frame: number of its first frame on the recording's clock: shown at first_frame / fps seconds.
        num_frames: how many frames follow one another from there on.
        first_sample: number of its first sample of sound on the recording's clock.
        num_samples: of sound.
    """

    first_frame: int
    num_frames: int
    first_sample: int
    num_samples: int


def write_prepared(
    path: str | Path,
    frames: Iterable[bytes],
    *,
    fps: int,
    size: tuple[int, int],
    sound: Iterable[NDArray[np.int16]] | None,
    sample_rate: int,
    windows: Iterable[Window] | None = None,
) -> None:
    """Write a prepared video: a ``.mov`` of JPEG pictures at a fixed rate and of 16-bit mono PCM sound.

    The JPEG bytes go into the file as they are, each a key frame, so that a reader who knows their offsets (see
    :class:`earmark.media.PacketIndex`) needs neither a demuxer nor a seek. Picture and sound both start at time 0 and
    are interleaved in time. The same input gives the same bytes. Both inputs may be generators: memory stays flat.

    Args:
        path: file to write; removed again if writing fails.
        frames: one JPEG picture each, frame k shown from k / fps seconds on.
        fps: frames per second.
        size: (width, height) of every picture in pixels.
        sound: int16 mono blocks ``(S,)`` of any length, or None for a video without sound.
        sample_rate: of the sound, in Hz.
        windows: which parts of a longer recording the frames and the sound are, where they are not all of it: noted in
            the file, which plays them one after the other. The recording may end within them.

    Raises:
        ValueError: if there is no frame, or sound that is not one-dimensional int16.

    Example:
        >>> import tempfile, simplejpeg
        >>> picture = simplejpeg.encode_jpeg(np.zeros((64, 96, 3), np.uint8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_prepared(f"{folder}/a.mov", [picture] * 16, fps=16, size=(96, 64),
        ...                    sound=[np.zeros(16000, np.int16)], sample_rate=16000)
    """
    path = Path(path)
    try:
        # without this option the format knows a few names only
        options = {"movflags": "use_metadata_tags"} if windows is not None else {}
        with open_for_writing(path, "mov", options) as container:
            if windows is not None:
                container.metadata[WINDOWS_KEY] = json.dumps([astuple(window) for window in windows])
            packets = _picture_packets(container, frames, fps=fps, size=size)
            sound_packets = _sound_packets(container, sound, sample_rate) if sound is not None else iter(())
            frame_packet, sound_packet = next(packets, None), next(sound_packets, None)
            if frame_packet is None:
                raise ValueError(f"{path}: a prepared video needs at least one frame")
            while frame_packet is not None or sound_packet is not None:
                if sound_packet is None or (
                    frame_packet is not None and _seconds(frame_packet) <= _seconds(sound_packet)
                ):
                    assert frame_packet is not None
                    container.mux_one(frame_packet)
                    frame_packet = next(packets, None)
                else:
                    container.mux_one(sound_packet)
                    sound_packet = next(sound_packets, None)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, av.FFmpegError) and isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error  # a plain OSError can be pickled
        raise


def _seconds(packet: _Packet) -> Fraction:
    return (packet.pts or 0) * packet.time_base


def _picture_packets(
    container: OutputContainer, frames: Iterable[bytes], *, fps: int, size: tuple[int, int]
) -> Iterator[_Packet]:
    stream = container.add_stream("mjpeg", rate=fps, width=size[0], height=size[1], pix_fmt="yuvj420p")
    return _numbered(stream, frames, fps)


def _numbered(stream: Any, frames: Iterable[bytes], fps: int) -> Iterator[_Packet]:
    for number, jpeg in enumerate(frames):
        packet: _Packet = Packet(jpeg)
        packet.stream = stream
        packet.time_base = Fraction(1, fps)
        packet.pts = packet.dts = number
        packet.duration = 1
        packet.is_keyframe = True
        yield packet


def _sound_packets(
    container: OutputContainer, sound: Iterable[NDArray[np.int16]], sample_rate: int
) -> Iterator[_Packet]:
    stream = container.add_stream("pcm_s16le", rate=sample_rate, layout="mono")
    return _encoded_sound(stream, sound, sample_rate)


def _encoded_sound(stream: Any, sound: Iterable[NDArray[np.int16]], sample_rate: int) -> Iterator[_Packet]:
    start = 0
    # Half a second per packet: short enough to interleave well, long enough to keep the tables small.
    for block in rechunk(sound, max(1, sample_rate // 2)):
        if block.dtype != np.int16 or block.ndim != 1:
            raise ValueError(f"sound must be one-dimensional int16, not {block.dtype} of shape {block.shape}")
        yield from stream.encode(sound_frame(block, sample_format="s16", sample_rate=sample_rate, start=start))
        start += len(block)
