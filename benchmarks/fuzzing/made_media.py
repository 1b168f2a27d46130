"""Small media files in many containers and codecs, and where in them the payload and the claims about it lie."""

import wave
from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import simplejpeg
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

SECONDS, FPS, RATE, WIDTH, HEIGHT = 2.0, 24, 48000, 96, 64

CLIPS = {  # video codec, audio codec, sample format
    "h264_aac.mp4": ("libx264", "aac"),
    "h264_opus.mkv": ("libx264", "libopus"),
    "vp8_opus.webm": ("libvpx", "libopus"),
    "mpeg4_mp3.avi": ("mpeg4", "libmp3lame"),
    "mpeg2_mp2.ts": ("mpeg2video", "mp2"),
    "mjpeg_pcm.mov": ("mjpeg", "pcm_s16le"),
    "sound.flac": (None, "flac"),
    "sound.ogg": (None, "libopus"),
    "sound.mp3": (None, "libmp3lame"),
    "sound.m4a": (None, "aac"),
}
# Its lookahead in a thread of its own, and what follows from it, differ now and then.
OPTIONS = {"libx264": {"x264-params": "threads=1:sync-lookahead=0:rc-lookahead=0:mbtree=0"}}
LENGTH_IS_DECLARED = {".mp4", ".m4a", ".mov", ".mkv", ".webm", ".avi", ".wav", ".flac"}  # so that a cut shows


def sound() -> npt.NDArray[np.float32]:
    """Quiet noise with a click every 0.7 s."""
    draw = np.random.default_rng(5)
    samples = 0.002 * draw.standard_normal(round(SECONDS * RATE))
    burst = draw.standard_normal(2400) * np.exp(-np.arange(2400) / 300)
    for second in np.arange(0.35, SECONDS - 0.1, 0.7):
        samples[round(second * RATE) :][:2400] += 0.3 * burst
    return np.clip(samples, -1, 1).astype(np.float32)


def pictures() -> Iterator[npt.NDArray[np.uint8]]:
    for number in range(round(SECONDS * FPS)):
        picture = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
        picture[8:40, number : number + 24] = (220, 120 + 2 * number, 60)
        yield picture


def make_clips(folder: Path) -> dict[str, bytes]:
    """Write one clip a container and return their bytes by name."""
    for name, (video_codec, audio_codec) in CLIPS.items():
        _write(folder / name, video_codec, audio_codec)
    with wave.open(str(folder / "sound.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.repeat(sound(), 2) * 32767).astype("<i2").tobytes())
    _write_prepared(folder / "prepared.mov")
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _write(path: Path, video_codec: str | None, audio_codec: str) -> None:
    # Without random ids and dates, so that an input is the same again.
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        streams: list[tuple[Any, Iterator[Any]]] = []
        if video_codec is not None:
            video: Any = container.add_stream(video_codec, rate=FPS, options={"g": "12"} | OPTIONS.get(video_codec, {}))
            video.width, video.height = WIDTH, HEIGHT
            video.pix_fmt = "yuvj420p" if video_codec == "mjpeg" else "yuv420p"
            streams.append((video, _video_frames()))
        audio: Any = container.add_stream(audio_codec, rate=RATE, layout="mono")
        streams.append((audio, _audio_frames(audio)))
        for stream, frames in streams:
            for frame in frames:
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


def _video_frames() -> Iterator[Any]:
    for number, picture in enumerate(pictures()):
        frame = VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, FPS)
        yield frame


def _audio_frames(stream: Any) -> Iterator[Any]:
    samples, is_float = sound(), stream.codec_context.format.name.startswith(("flt", "fltp"))
    for start in range(0, len(samples), 1152):
        piece = samples[None, start : start + 1152]
        values = piece if is_float else (piece * 32767).astype(np.int16)
        frame = AudioFrame.from_ndarray(
            np.ascontiguousarray(values), format="fltp" if is_float else "s16p", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
        yield frame


def _write_prepared(path: Path) -> None:
    from earmark.media import write_prepared

    jpegs = (simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality=90) for picture in pictures())
    blocks = np.array_split((sound() * 32767).astype(np.int16), 8)
    write_prepared(path, jpegs, fps=FPS, size=(WIDTH, HEIGHT), sound=blocks, sample_rate=RATE)


# --- where what lies ---


Layout = tuple[list[range], dict[Any, list[range]]]


def layout(name: str, data: bytes) -> Layout:
    """Return the places of the payload, whose damage leaves all claims as they are, and those of claims by their box.

    A claim is a number of a header: a rate, a size, a count, a time. By their box, since a table of sizes has a hundred
    times more of them than the header that says the rate.
    """
    suffix = Path(name).suffix
    if suffix in (".mp4", ".m4a", ".mov"):
        return _of_mp4(data)
    if suffix in (".mkv", ".webm"):
        return _of_matroska(data)
    if suffix in (".wav", ".avi"):
        return _of_riff(data)
    return [], {"header": [range(place, place + 4) for place in range(4, min(120, len(data) - 4))]}


_BOXES_OF_BOXES = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf", b"udta", b"moof", b"traf")


def _of_mp4(data: bytes) -> Layout:
    payload: list[range] = []
    claims: dict[Any, list[range]] = defaultdict(list)
    waiting = [(0, len(data))]
    while waiting:
        at, end = waiting.pop()
        while at + 8 <= end:
            size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
            if size < 8 or at + size > end:
                break
            claims["sizes"].append(range(at, at + 4))
            if kind == b"mdat":
                payload.append(range(at + 8, at + size))
            elif kind in _BOXES_OF_BOXES:
                waiting.append((at + 8, at + size))
            else:
                claims[kind] += [range(place, place + 4) for place in range(at + 8, at + size - 3, 2)]
            at += size
    return payload, claims


def _of_riff(data: bytes) -> Layout:
    payload: list[range] = []
    claims: dict[Any, list[range]] = defaultdict(list, {"sizes": [range(4, 8)]})
    waiting = [(12, len(data))]
    while waiting:
        at, end = waiting.pop()
        while at + 8 <= end:
            kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
            if at + 8 + size > end:
                break
            claims["sizes"].append(range(at + 4, at + 8))
            if kind == b"LIST":
                waiting.append((at + 12, at + 8 + size))
            elif kind == b"data" or kind[2:] in (b"dc", b"wb", b"db"):
                payload.append(range(at + 8, at + 8 + size))
            elif kind != b"JUNK":
                claims[kind] += [range(place, place + 4) for place in range(at + 8, at + 8 + size - 3, 2)]
            at += 8 + size + size % 2
    return [part for part in payload if len(part)], claims


_ELEMENTS_OF_ELEMENTS = {0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0xE0, 0xE1, 0x1F43B675, 0xA0}
_BLOCKS = {0xA3, 0xA1}


def _of_matroska(data: bytes) -> Layout:
    payload: list[range] = []
    claims: dict[Any, list[range]] = defaultdict(list)
    waiting = [(0, len(data))]
    while waiting:
        at, end = waiting.pop()
        while at < end:
            name, at = _variable(data, at, keep_marker=True)
            begin = at
            size, at = _variable(data, at, keep_marker=False)
            stop = min(at + size, end)
            claims["sizes"].append(range(begin, at))
            if name in _ELEMENTS_OF_ELEMENTS:
                waiting.append((at, stop))
            elif name in _BLOCKS:
                claims["block"] += [range(at, at + 1), range(at + 1, at + 3), range(at + 3, at + 4)]
                payload.append(range(at + 4, stop))
            elif 0 < stop - at <= 8:
                claims[name].append(range(at, stop))
            at = stop
    return [part for part in payload if len(part)], claims


def _variable(data: bytes, at: int, *, keep_marker: bool) -> tuple[int, int]:
    first = data[at] if at < len(data) else 0x80
    length = max(1, 9 - first.bit_length())
    value = int.from_bytes(data[at : at + length], "big")
    return (value if keep_marker else value & ~(1 << (7 * length))), at + length
