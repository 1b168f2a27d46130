"""Cutting moments out of a recording: each a small video with its sound.

The sound is read once from start to end, since that is cheap
and exact; the pictures of each clip are found by seeking. Picture and sound of a clip begin at one and the same time.
A recording without pictures gets the spectrogram of the clip, with a line that moves through it.
"""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from scipy.signal import spectrogram

from earmark.atomic import replacing
from earmark.media import MediaError, MediaInfo, SoundReader, VideoWriter, iter_frames, media_info, read_frames

__all__ = ["clip_name", "cut_clips"]

_AAC_RATES = (16000, 22050, 24000, 32000, 44100, 48000)
_MAX_FPS, _MAX_SHORT_SIDE = 60, 1080
_DRAWN_FPS, _DRAWN_WIDTH, _DRAWN_HEIGHT, _DRAWN_RANGE_DB = 25, 640, 360, 70.0
_DRAWN_FLOOR_DB = -120.0  # what is below is silence


def clip_name(name: str, number: int, time_seconds: float) -> str:
    """Return the file name of a clip: it sorts by time and says when.

    Args:
        name: of the recording.
        number: of the moment in it, counted from 1.
        time_seconds: of the moment.

    Example:
        >>> clip_name("kitchen", 7, 83.4567)
        'kitchen_0007_83.457s.mp4'
    """
    return f"{name}_{number:04d}_{time_seconds:.3f}s.mp4"


def cut_clips(
    path: str | Path,
    times_seconds: Sequence[float],
    folder: str | Path,
    *,
    name: str | None = None,
    before_seconds: float = 1.0,
    after_seconds: float = 1.0,
    audio_stream: int | None = None,
) -> list[Path]:
    """Write a clip around each moment, H.264 and mono AAC.

    Frame rate and size are the source's, up to 60 fps and 1080 lines. A clip is shorter where the recording begins or
    ends. Memory does not grow with the recording's length.

    Args:
        path: the recording.
        times_seconds: of the moments, ascending, on its clock.
        folder: to write to; made if missing.
        name: start of the clips' names; None for that of the recording.
        before_seconds: how much of a clip is before its moment.
        after_seconds: how much is after it.
        audio_stream: the n-th sound stream, from 0; None for the container's default.

    Returns:
        The files, in order of time (see :func:`clip_name`).

    Raises:
        MediaError: if the recording can't be read or has no sound.
        ValueError: if the clips have no length.

    Example:
        >>> import tempfile, scipy.io.wavfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     scipy.io.wavfile.write(f"{folder}/a.wav", 16000, np.zeros(48000, np.int16))
        ...     (clip,) = cut_clips(f"{folder}/a.wav", [0.5], f"{folder}/clips")
        ...     clip.name, media_info(clip).video.duration_seconds
        ('a_0001_0.500s.mp4', 1.52)
    """
    if not (before_seconds >= 0 and after_seconds >= 0 and before_seconds + after_seconds > 0):
        raise ValueError(
            f"before_seconds and after_seconds must not be negative or both 0, got {before_seconds} and {after_seconds}"
        )
    if not len(times_seconds):
        return []
    info = media_info(path, audio_stream=audio_stream)
    reader = SoundReader(path, audio_stream=audio_stream)
    if reader.sample_rate not in _AAC_RATES:
        rate = min((r for r in _AAC_RATES if r > reader.sample_rate), default=48000)
        reader = SoundReader(path, sample_rate=rate, audio_stream=audio_stream)
    fps, short_side = _format(info)
    spans = []
    for time in times_seconds:
        # On the grid of the frames, so that a source at a steady rate keeps its very frames.
        first = int(np.floor(max(0.0, time - before_seconds) * fps + 1e-6))
        last = int(np.ceil(min(max(info.duration_seconds, time), time + after_seconds) * fps - 1e-6))
        spans.append((first, max(last, first + 1)))
    sample_spans = [tuple(round(number / fps * reader.sample_rate) for number in span) for span in spans]
    written = []
    pieces = _windows(reader, sample_spans)
    for number, (time, (first, last), wave) in enumerate(zip(times_seconds, spans, pieces, strict=True), start=1):
        if short_side:
            times = [float(k / fps) for k in range(first, last)]
            frames = iter_frames(path, times, short_side=short_side)
        else:
            frames = _drawn(wave, reader.sample_rate, last - first)
        written.append(Path(folder) / clip_name(name or Path(path).stem, number, time))
        with replacing(written[-1]) as temporary:
            _write(temporary, frames, wave, fps, reader.sample_rate)
    return written


def _format(info: MediaInfo) -> tuple[Fraction, int | None]:
    """Return the clips' frame rate and short side in pixels; None where no picture can be read."""
    if info.video is None:
        return Fraction(_DRAWN_FPS), None
    try:
        read_frames(info.path, [0.0], short_side=16)
    except MediaError:  # the sound is still worth a clip
        return Fraction(_DRAWN_FPS), None
    fps = Fraction(min(max(info.video.fps, 1.0), _MAX_FPS)).limit_denominator(1001)
    return fps, max(2, min(info.video.width, info.video.height, _MAX_SHORT_SIDE) // 2 * 2)


def _windows(blocks: Iterable[NDArray[np.float32]], spans: Sequence[tuple[int, ...]]) -> Iterator[NDArray[np.float32]]:
    """Yield the samples from start to stop of each span, float32 ``(stop - start,)``; silence beyond the end.

    The starts ascend. Only what a later span needs is kept of the blocks.
    """
    stream = iter(blocks)
    kept, offset = np.empty(0, np.float32), 0  # kept[0] is sample number offset
    for start, stop in spans:
        while offset + len(kept) < stop:
            block = next(stream, None)
            if block is None:
                break
            num_old = max(0, min(start - offset, len(kept)))
            kept, offset = np.concatenate([kept[num_old:], block]), offset + num_old
        wave = kept[max(0, start - offset) : max(0, stop - offset)]
        yield np.pad(wave, (0, stop - start - len(wave)))


def _write(
    path: Path, frames: Iterator[NDArray[np.uint8]], wave: NDArray[np.float32], fps: Fraction, sample_rate: int
) -> None:
    first = next(frames)
    height, width, _ = first.shape
    with VideoWriter(path, width=width, height=height, fps=fps, sample_rate=sample_rate) as writer:
        writer.write_sound(np.clip(wave, -1, 1))
        writer.write_frame(first)
        for frame in frames:
            writer.write_frame(frame)


def _drawn(wave: NDArray[np.float32], sample_rate: int, num_frames: int) -> Iterator[NDArray[np.uint8]]:
    """Yield pictures of the sound, uint8 RGB ``(H, W, 3)``, with a line where it is being heard."""
    size = min(512, len(wave))
    _, _, power = spectrogram(wave, sample_rate, nperseg=size, noverlap=size * 3 // 4)
    level = 10 * np.log10(power + 10 ** (_DRAWN_FLOOR_DB / 10))
    loudest = max(level.max(), _DRAWN_FLOOR_DB + _DRAWN_RANGE_DB)  # silence stays dark
    share = np.clip(1 + (level - loudest) / _DRAWN_RANGE_DB, 0, 1)
    coloured = colormaps["magma"](share[::-1], bytes=True)[..., :3]  # low tones below
    image = Image.fromarray(np.ascontiguousarray(coloured))
    base = np.asarray(image.resize((_DRAWN_WIDTH, _DRAWN_HEIGHT), Image.Resampling.BILINEAR))
    for number in range(num_frames):
        picture = base.copy()
        column = min(_DRAWN_WIDTH - 1, round(number / num_frames * _DRAWN_WIDTH))
        picture[:, max(0, column - 1) : column + 1] = 255
        yield picture
