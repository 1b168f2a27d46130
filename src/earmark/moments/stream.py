"""Moments of a file or of a stream of blocks, as they come.

The second station of a sample's path: sound (of :mod:`earmark.media`) in, moments out.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.media import MediaInfo, SoundReader, media_info
from earmark.moments.detector import Moment
from earmark.moments.onsets import OnsetDetector
from earmark.moments.options import DEFAULT_DETECTOR, DETECTORS, detector_from, detector_parameters
from earmark.moments.replai import ReplaiDetector


class MomentStream:
    """Find moments in hours of sound, in flat memory, and give them out as they become certain.

    Each iteration reads the source from its start.

    Args:
        source: a media file, or mono floating-point blocks ``(S,)`` of any length.
        sample_rate: of the blocks, in Hz; a file is read at its own.
        detector: name in `DETECTORS`.
        min_score: least score; None for the detector's own default.
        min_distance_seconds: between moments; None for the detector's own default.
        margin_seconds: keep ``margin <= time <= duration - margin``, both ends included.
        max_per_minute: of each minute, counted from the start, keep so many of the highest score.
        segment_seconds: length of the segments that moments are numbered by, and ``replai`` searches by themselves.
        audio_stream: the n-th sound stream of a file, from 0; None for the container's default.

    Attributes:
        info: what the file holds, or None for blocks.
        duration_seconds: of the sound read so far.

    Raises:
        MediaError: if the file can't be read, has no sound, or not the stream asked for.
        ValueError: if an option is out of its range.

    Example:
        >>> blocks = [np.zeros(4000, np.float32) for _ in range(10)]
        >>> blocks[4][800:840] = 0.5
        >>> [round(moment.time_seconds, 1) for moment in MomentStream(blocks, sample_rate=8000)]
        [2.1]
    """

    def __init__(
        self,
        source: str | Path | Iterable[NDArray[np.floating[Any]]],
        *,
        sample_rate: int | None = None,
        detector: str = DEFAULT_DETECTOR,
        min_score: float | None = None,
        min_distance_seconds: float | None = None,
        margin_seconds: float = 0.0,
        max_per_minute: int | None = None,
        segment_seconds: float = 10.0,
        audio_stream: int | None = None,
    ) -> None:
        if detector not in DETECTORS:
            raise ValueError(f"detector={detector!r}: must be one of {', '.join(DETECTORS)}")
        if not margin_seconds >= 0:
            raise ValueError(f"margin_seconds must not be negative, got {margin_seconds}")
        if max_per_minute is not None and max_per_minute < 1:
            raise ValueError(f"max_per_minute must be at least 1, got {max_per_minute}")
        self.info: MediaInfo | None = None
        self._blocks: SoundReader | Iterable[NDArray[np.floating[Any]]]
        if isinstance(source, (str, Path)):
            if sample_rate is not None:
                raise ValueError("sample_rate is for blocks: a file is read at its own rate")
            self.info = media_info(source, audio_stream=audio_stream)
            self._blocks = SoundReader(source, audio_stream=audio_stream)
            self._sample_rate = self._blocks.sample_rate
        else:
            if sample_rate is None:
                raise ValueError("blocks need a sample_rate")
            if audio_stream is not None:
                raise ValueError("audio_stream is for files: blocks are of one stream")
            self._blocks = source
            self._sample_rate = sample_rate
        self._detector = DETECTORS[detector]
        self._options = {
            "min_score": min_score,
            "min_distance_seconds": min_distance_seconds,
            "segment_seconds": segment_seconds,
        }
        self._new_detector()  # raises where an option is out of range
        self._margin_seconds = margin_seconds
        self._max_per_minute = max_per_minute
        self._num_samples = 0

    @property
    def duration_seconds(self) -> float:
        """Length of the sound read so far."""
        return self._num_samples / self._sample_rate

    @property
    def problem(self) -> str | None:
        """What is wrong with the file's sound read so far (damage, an early end), or None."""
        return self._blocks.problem if isinstance(self._blocks, SoundReader) else None

    def __iter__(self) -> Iterator[Moment]:
        """Read the source and yield its moments in order of time."""
        if self._max_per_minute is None:
            yield from self._within_margins()
            return
        for _, minute in groupby(self._within_margins(), key=lambda moment: moment.time_seconds // 60):
            loudest_first = sorted(minute, key=lambda moment: -moment.score)
            yield from sorted(loudest_first[: self._max_per_minute], key=lambda moment: moment.time_seconds)

    def _new_detector(self) -> ReplaiDetector | OnsetDetector:
        return self._detector(self._sample_rate, **self._options)  # type: ignore[arg-type]

    def _within_margins(self) -> Iterator[Moment]:
        """Yield each moment as soon as the end of the sound can't come within its margin."""
        held_back: list[Moment] = []
        for moments in self._found():
            held_back += [moment for moment in moments if moment.time_seconds >= self._margin_seconds]
            limit = self.duration_seconds - self._margin_seconds
            num_ready = sum(moment.time_seconds <= limit for moment in held_back)
            yield from held_back[:num_ready]
            held_back = held_back[num_ready:]

    def _found(self) -> Iterator[list[Moment]]:
        self._num_samples = 0
        detector = self._new_detector()
        for block in self._blocks:
            self._num_samples += len(block)
            yield detector.feed(block, copy=self.info is None)  # a reader gives each block away
        yield detector.finish()


def moments_of_file(
    path: str | Path,
    *,
    detector: str = DEFAULT_DETECTOR,
    min_score: float | None = None,
    min_distance_seconds: float | None = None,
    margin_seconds: float = 0.0,
    segment_seconds: float = 10.0,
    audio_stream: int | None = None,
) -> tuple[list[Moment], MediaInfo]:
    """Find the moments of a media file, at the sound's own rate and in flat memory.

    The default detector is that of ``earmark moments`` and of preparing; ``replai`` is the original code's.

    Args:
        path: the file.
        detector: name in `DETECTORS`.
        min_score: see :class:`MomentStream`, as for the rest.
        min_distance_seconds: between moments.
        margin_seconds: from the start and the end of the sound.
        segment_seconds: length of the segments.
        audio_stream: the n-th sound stream, from 0; None for the container's default.

    Returns:
        The moments in order of time, and what the file holds.

    Raises:
        MediaError: if the file can't be read, has no sound, or not the stream asked for.
        ValueError: if an option is out of its range.

    Example:
        >>> import tempfile, scipy.io.wavfile
        >>> wave = np.zeros(80000, np.int16)
        >>> wave[30000:30050] = 16000
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     scipy.io.wavfile.write(f"{folder}/hit.wav", 8000, wave)
        ...     moments, info = moments_of_file(f"{folder}/hit.wav")
        >>> len(moments), info.duration_seconds
        (1, 10.0)
    """
    stream = MomentStream(
        path,
        detector=detector,
        min_score=min_score,
        min_distance_seconds=min_distance_seconds,
        margin_seconds=margin_seconds,
        segment_seconds=segment_seconds,
        audio_stream=audio_stream,
    )
    moments = list(stream)
    assert stream.info is not None
    return moments, stream.info


def find_moments(
    wave: NDArray[np.floating[Any]],
    sample_rate: int,
    *,
    detector: str = DEFAULT_DETECTOR,
    segment_seconds: float = 10.0,
    margin_seconds: float = 0.0,
    **options: float | None,
) -> list[Moment]:
    """Find the moments of interaction in a recording by its sound.

    Args:
        wave: mono, floating point, ``(S,)``.
        sample_rate: in Hz. The window and the distance of ``replai`` are counted in samples, so its result depends on
            it.
        detector: name in `DETECTORS`.
        segment_seconds: length of the segments that moments are numbered by, and ``replai`` searches by themselves.
        margin_seconds: keep ``margin <= time <= duration - margin``, both ends included.
        **options: of the detector, see :func:`earmark.moments.detector_parameters`.

    Returns:
        Moments in order of time; none for silence, steady noise or less than a window of sound.

    Raises:
        ValueError: if the wave is not one-dimensional, not floating point or not finite, or an option is out of range
            or another detector's.

    Example:
        >>> wave = np.zeros(80000, np.float32)
        >>> wave[30000:30050] = 0.5
        >>> [[moment.segment_id for moment in find_moments(wave, 8000, detector=name)] for name in DETECTORS]
        [[0], [0]]
    """
    if not margin_seconds >= 0:
        raise ValueError(f"margin_seconds must not be negative, got {margin_seconds}")
    parameters = detector_parameters(detector, segment_seconds=segment_seconds, **options)
    finder = detector_from(parameters, sample_rate)
    last = len(wave) / sample_rate - margin_seconds
    found = [*finder.feed(wave), *finder.finish()]
    return [moment for moment in found if margin_seconds <= moment.time_seconds <= last]
