"""Prepared videos: ordinary ``.mov`` files whose pictures and sound can be read by byte range."""

import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias
from zlib import crc32

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from numpy.typing import NDArray

from earmark.media.opening import MediaError, choose_stream, open_media
from earmark.media.sound import rechunk
from earmark.media.writing import open_for_writing, sound_frame

_Packet: TypeAlias = "Packet[Any]"  # PyAV's class is generic in its type stubs only
_WINDOWS_KEY = "earmark_windows"


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
    :func:`packet_table`) needs neither a demuxer nor a seek. Picture and sound both start at time 0 and stand
    interleaved in time. The same input gives the same bytes. Both inputs may be generators: memory stays flat.

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
                container.metadata[_WINDOWS_KEY] = json.dumps([astuple(window) for window in windows])
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
            raise OSError(error.errno, error.strerror, str(path)) from error  # a plain one: can be sent to a process
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
    # Half a second a packet: short enough to interleave well, long enough to keep the tables small.
    for block in rechunk(sound, max(1, sample_rate // 2)):
        if block.dtype != np.int16 or block.ndim != 1:
            raise ValueError(f"sound must be one-dimensional int16, not {block.dtype} of shape {block.shape}")
        yield from stream.encode(sound_frame(block, sample_format="s16", sample_rate=sample_rate, start=start))
        start += len(block)


@dataclass(frozen=True, slots=True)
class PacketTable:
    """Where the pictures and the sound of a prepared video stand in the file.

    Attributes:
        fps: frames per second; frame k is shown from k / fps seconds on.
        width: of the pictures in pixels.
        height: of the pictures in pixels.
        sample_rate: of the sound in Hz, or None without sound.
        frame_offsets: int64 ``(N,)``, the byte at which the JPEG of frame k begins.
        frame_sizes: int64 ``(N,)``, its length in bytes.
        sound_offsets: int64 ``(P,)``, the byte at which each run of sound begins; in time order, without gaps.
        sound_sizes: int64 ``(P,)``, length of each run in bytes; little-endian int16 mono, two bytes a sample.
        frame_checksums: uint32 ``(N,)``, CRC-32 of each JPEG.
        sound_checksums: uint32 ``(P,)``, CRC-32 of each run of sound.
        windows: int64 ``(W, 4)``, the fields of `Window`: which parts of the recording the frames and samples are, in
            order; a single row that begins with 0 where they are all of it.
    """

    fps: Fraction
    width: int
    height: int
    sample_rate: int | None
    frame_offsets: NDArray[np.int64]
    frame_sizes: NDArray[np.int64]
    sound_offsets: NDArray[np.int64]
    sound_sizes: NDArray[np.int64]
    frame_checksums: NDArray[np.uint32]
    sound_checksums: NDArray[np.uint32]
    windows: NDArray[np.int64]

    @property
    def num_frames(self) -> int:
        """Number of pictures."""
        return len(self.frame_offsets)

    @property
    def num_samples(self) -> int:
        """Number of samples of sound."""
        return int(self.sound_sizes.sum()) // 2


def packet_table(path: str | Path) -> PacketTable:
    """Find every picture and all sound of a prepared video by demuxing it; nothing is decoded.

    Args:
        path: a file that :func:`write_prepared` wrote.

    Returns:
        Byte offsets and sizes.

    Raises:
        MediaError: if the file can't be opened or is no prepared video: other codecs, a frame missing or late, a gap in
            the sound.

    Example:
        >>> import tempfile, simplejpeg
        >>> picture = simplejpeg.encode_jpeg(np.zeros((64, 96, 3), np.uint8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_prepared(f"{folder}/a.mov", [picture] * 4, fps=16, size=(96, 64), sound=None, sample_rate=16000)
        ...     table = packet_table(f"{folder}/a.mov")
        >>> table.frame_sizes.tolist() == [len(picture)] * 4
        True
    """
    path = Path(path)
    frames = array("q")  # not objects: a long video has many
    num_frames = 0
    runs: list[list[int]] = []
    num_sound_bytes = 0
    with open_media(path) as container:
        video, audio = choose_stream(container, "video", None), choose_stream(container, "audio", None)
        if video is None or video.codec_context.name != "mjpeg" or not video.average_rate:
            raise MediaError(f"{path}: not a prepared video: its pictures are not JPEG at a fixed rate")
        if audio and (audio.codec_context.name != "pcm_s16le" or audio.codec_context.channels != 1):
            raise MediaError(f"{path}: not a prepared video: its sound is not 16-bit mono PCM")
        fps = video.average_rate
        for packet in container.demux(*(stream for stream in (video, audio) if stream)):
            if packet.pos is None or packet.pts is None:
                continue  # the empty packets at the end
            seconds = packet.pts * packet.time_base
            if packet.stream_index == video.index:
                if seconds * fps != num_frames:
                    raise MediaError(f"{path}: not a prepared video: frame {num_frames} is at {float(seconds):.3f} s")
                frames.extend((packet.pos, packet.size, crc32(packet)))
                num_frames += 1
            else:
                if seconds * audio.codec_context.sample_rate * 2 != num_sound_bytes:
                    raise MediaError(f"{path}: not a prepared video: a gap in the sound at {float(seconds):.3f} s")
                num_sound_bytes += packet.size
                if runs and runs[-1][0] + runs[-1][1] == packet.pos:
                    runs[-1][1] += packet.size
                    runs[-1][2] = crc32(packet, runs[-1][2])
                else:
                    runs.append([packet.pos, packet.size, crc32(packet)])
        frame_array = np.array(frames, np.int64).reshape(-1, 3)
        run_array = np.array(runs, np.int64).reshape(-1, 3)
        return PacketTable(
            fps=fps,
            width=video.codec_context.width,
            height=video.codec_context.height,
            sample_rate=audio.codec_context.sample_rate if audio else None,
            frame_offsets=frame_array[:, 0].copy(),
            frame_sizes=frame_array[:, 1].copy(),
            sound_offsets=run_array[:, 0].copy(),
            sound_sizes=run_array[:, 1].copy(),
            frame_checksums=frame_array[:, 2].astype(np.uint32),
            sound_checksums=run_array[:, 2].astype(np.uint32),
            windows=_windows(path, container, num_frames, num_sound_bytes // 2),
        )


def _windows(path: Path, container: InputContainer, num_frames: int, num_samples: int) -> NDArray[np.int64]:
    """Read which parts of the recording a file holds; the last ones may be shorter than was planned, or empty."""
    text = container.metadata.get(_WINDOWS_KEY)
    if text is None:
        return np.array([[0, num_frames, 0, num_samples]], np.int64)
    try:
        windows = np.array(json.loads(text), np.int64).reshape(-1, 4)
    except (ValueError, TypeError, OverflowError) as error:
        raise MediaError(f"{path}: not a prepared video: its windows cannot be read ({error})") from error
    for column, total in ((1, num_frames), (3, num_samples)):
        before = np.cumsum(windows[:, column]) - windows[:, column]
        windows[:, column] = np.clip(total - before, 0, windows[:, column])
        if windows[:, column].sum() != total or (np.diff(windows[:, column - 1]) < windows[:-1, column]).any():
            raise MediaError(f"{path}: not a prepared video: its windows do not fit what it holds")
    return windows
