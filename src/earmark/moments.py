"""Finding moments of interaction by their sound.

The second station of a sample's path: sound (of :mod:`earmark.media`) in, a table of moments out. The arithmetic is the
original code's (paper arXiv 2209.13583, section 3.1), sample for sample: peaks of the average of the z-normalised
log-spectrogram, over each 10 s segment by itself.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.signal import find_peaks, spectrogram

from earmark.atomic import replacing
from earmark.media import MediaInfo, SoundReader, probe

_WINDOW_SAMPLES = 256  # scipy's default window; a segment below one window has no curve
_FLOOR = 1e-5

_SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("time_seconds", pa.float64()),
        ("score", pa.float64()),
        ("height", pa.float64()),
        ("segment_id", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment of interaction.

    Attributes:
        time_seconds: when it is heard, from the start of the recording.
        score: prominence of its peak in the interaction curve.
        height: value of the curve at the peak.
        segment_id: number of the segment it lies in, counted from 0.
        loudness_db: level of the 100 ms from the moment, dB re full scale; -inf for silence,
            NaN where it was not measured.
    """

    time_seconds: float
    score: float
    height: float
    segment_id: int
    loudness_db: float = math.nan


def interaction_curve(
    wave: NDArray[np.floating[Any]], sample_rate: int
) -> tuple[NDArray[np.float64], NDArray[np.floating[Any]]]:
    """Compute how much is heard to happen over one segment: the average z-normalised log-spectrogram.

    Power spectral density in windows of 256 samples, 224 apart (scipy's defaults: Tukey window, each window's mean
    removed), its log10, each frequency normalised by its mean and standard deviation over the segment, mean over
    frequencies. In the arithmetic of the input's type.

    Args:
        wave: mono, floating point, ``(S,)``.
        sample_rate: in Hz.

    Returns:
        Times of the windows' centres in seconds from the segment's start, ``(K,)``, and the curve, ``(K,)``, in the
        wave's type; both empty if the wave is shorter than a window.

    Raises:
        ValueError: if the wave is not one-dimensional, not floating point or not finite.

    Example:
        >>> wave = np.zeros(1000, np.float32)
        >>> wave[400] = 1
        >>> times, curve = interaction_curve(wave, 1000)
        >>> times.tolist(), int(curve.argmax())
        ([0.128, 0.352, 0.576, 0.8], 1)
    """
    if wave.ndim != 1 or wave.dtype.kind != "f":
        raise ValueError(f"wave must be one-dimensional and floating point, not {wave.dtype} of shape {wave.shape}")
    if not np.isfinite(wave).all():
        raise ValueError("wave must be finite")
    if len(wave) < _WINDOW_SAMPLES:
        return np.empty(0), np.empty(0, wave.dtype)
    _, times, power = spectrogram(wave, sample_rate)
    log_power = np.log10(power + _FLOOR)
    mean, std = log_power.mean(axis=1, keepdims=True), log_power.std(axis=1, keepdims=True)
    return times, ((log_power - mean) / (std + _FLOOR)).mean(axis=0)


class MomentFinder:
    """Find moments in sound that arrives in blocks of any length, in flat memory.

    Gives the moments of :func:`find_moments` on the whole, whatever the blocks.

    Args:
        sample_rate: in Hz.
        segment_seconds: the sound is cut into segments of this length from time 0 on; the last one is what is left.
        min_prominence: of a peak of the curve.
        min_distance: between peaks, in windows (224 samples); the lower of two closer ones is dropped.
        margin_seconds: drop moments nearer than this to the start or the end of the whole sound.

    Raises:
        ValueError: if an option is out of its range.

    Example:
        >>> wave = np.zeros(80000, np.float32)
        >>> wave[30000:30050] = 0.5
        >>> finder = MomentFinder(8000)
        >>> moments = [*finder.feed(wave[:50000]), *finder.feed(wave[50000:]), *finder.finish()]
        >>> [round(moment.time_seconds, 2) for moment in moments]
        [3.77]
    """

    def __init__(
        self,
        sample_rate: int,
        *,
        segment_seconds: float = 10.0,
        min_prominence: float = 1.0,
        min_distance: int = 10,
        margin_seconds: float = 0.0,
    ) -> None:
        self._segment_size = round(segment_seconds * sample_rate)
        if self._segment_size < 1:
            raise ValueError(f"segment_seconds={segment_seconds} is less than a sample at {sample_rate} Hz")
        if not margin_seconds >= 0:
            raise ValueError(f"margin_seconds must not be negative, got {margin_seconds}")
        if min_distance < 1:
            raise ValueError(f"min_distance must be at least 1 window, got {min_distance}")
        self._sample_rate = sample_rate
        self._min_prominence = min_prominence
        self._min_distance = min_distance
        self._margin_seconds = margin_seconds
        self._pending: list[NDArray[np.floating[Any]]] = []
        self._num_pending = 0
        self._num_samples = 0
        self._num_segments = 0
        self._held_back: list[Moment] = []

    def feed(self, block: NDArray[np.floating[Any]]) -> list[Moment]:
        """Take in mono sound ``(S,)`` and return the moments that are certain by now, in order of time."""
        self._num_samples += len(block)
        while self._num_pending + len(block) >= self._segment_size:
            num_missing = self._segment_size - self._num_pending
            self._end_segment(block[:num_missing])
            block = block[num_missing:]
        if len(block):
            self._pending.append(block.copy())  # the caller may use its buffer again
            self._num_pending += len(block)
        return self._release()

    def finish(self) -> list[Moment]:
        """End the sound and return the moments that were not certain before its end."""
        if self._pending:
            self._end_segment(self._pending.pop())
        return self._release()

    def _end_segment(self, rest: NDArray[np.floating[Any]]) -> None:
        """Search what is pending and ``rest`` as one segment."""
        segment = np.concatenate([*self._pending, rest])
        self._pending, self._num_pending = [], 0
        start_seconds = self._num_segments * self._segment_size / self._sample_rate
        times, curve = interaction_curve(segment, self._sample_rate)
        peaks, properties = find_peaks(curve, distance=self._min_distance, prominence=self._min_prominence)
        self._held_back += [
            Moment(start_seconds + float(times[peak]), float(prominence), float(curve[peak]), self._num_segments)
            for peak, prominence in zip(peaks, properties["prominences"], strict=True)
            if start_seconds + times[peak] >= self._margin_seconds
        ]
        self._num_segments += 1

    def _release(self) -> list[Moment]:
        """Return what lies far enough before the end of the sound so far: more of it can't bring the end nearer."""
        limit = self._num_samples / self._sample_rate - self._margin_seconds
        ready = [moment for moment in self._held_back if moment.time_seconds <= limit]
        self._held_back = self._held_back[len(ready) :]
        return ready


def find_moments(
    wave: NDArray[np.floating[Any]],
    sample_rate: int,
    *,
    segment_seconds: float = 10.0,
    min_prominence: float = 1.0,
    min_distance: int = 10,
    margin_seconds: float = 0.0,
) -> list[Moment]:
    """Find the moments of interaction in a recording by its sound.

    Args:
        wave: mono, floating point, ``(S,)``.
        sample_rate: in Hz. The original's window and distance are counted in samples, so the result depends on it.
        segment_seconds: see :class:`MomentFinder`, as for the rest.
        min_prominence: of a peak.
        min_distance: between peaks, in windows.
        margin_seconds: keep ``margin <= time <= duration - margin``, both ends included.

    Returns:
        Moments in order of time; none for silence, steady noise or less than a window of sound.

    Raises:
        ValueError: if the wave is not one-dimensional, not floating point or not finite, or an option is out of range.

    Example:
        >>> wave = np.zeros(80000, np.float32)
        >>> wave[30000:30050] = 0.5
        >>> [moment.segment_id for moment in find_moments(wave, 8000)]
        [0]
    """
    finder = MomentFinder(
        sample_rate,
        segment_seconds=segment_seconds,
        min_prominence=min_prominence,
        min_distance=min_distance,
        margin_seconds=margin_seconds,
    )
    return [*finder.feed(wave), *finder.finish()]


def moments_of_file(
    path: str | Path,
    *,
    segment_seconds: float = 10.0,
    min_prominence: float = 1.0,
    min_distance: int = 10,
    margin_seconds: float = 0.0,
) -> tuple[list[Moment], MediaInfo]:
    """Find the moments of a media file, at the sound's own rate and in flat memory.

    Args:
        path: the file.
        segment_seconds: see :func:`find_moments`, as for the rest.
        min_prominence: of a peak.
        min_distance: between peaks, in windows.
        margin_seconds: from the start and the end of the sound.

    Returns:
        The moments in order of time, and what the file holds.

    Raises:
        MediaError: if the file can't be read or has no sound.

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
    info = probe(path)
    reader = SoundReader(path)
    finder = MomentFinder(
        reader.sample_rate,
        segment_seconds=segment_seconds,
        min_prominence=min_prominence,
        min_distance=min_distance,
        margin_seconds=margin_seconds,
    )
    moments = [moment for block in reader for moment in finder.feed(block)]
    return [*moments, *finder.finish()], info


def moments_table(moments: Mapping[str, Sequence[Moment]], *, detector: str, parameters: Mapping[str, Any]) -> pa.Table:
    """Put the moments of many videos into one table.

    Args:
        moments: video_id -> its moments.
        detector: name of what found them.
        parameters: its settings, plain data.

    Returns:
        Columns video_id, time_seconds, score, height, segment_id; the detector and its parameters (as JSON) in the
        schema's metadata.

    Example:
        >>> found = {"a": [Moment(1.5, 2.0, 3.0, 0)]}
        >>> table = moments_table(found, detector="replai", parameters={"distance": 10})
        >>> table.to_pylist(), table.schema.metadata[b"parameters"]
        ([{'video_id': 'a', 'time_seconds': 1.5, 'score': 2.0, 'height': 3.0, 'segment_id': 0}], b'{"distance": 10}')
    """
    rows = [(video_id, moment) for video_id, found in moments.items() for moment in found]
    columns = {
        "video_id": [video_id for video_id, _ in rows],
        "time_seconds": [moment.time_seconds for _, moment in rows],
        "score": [moment.score for _, moment in rows],
        "height": [moment.height for _, moment in rows],
        "segment_id": [moment.segment_id for _, moment in rows],
    }
    metadata = {"detector": detector, "parameters": json.dumps(dict(parameters), sort_keys=True)}
    return pa.table(columns, schema=_SCHEMA.with_metadata(metadata))


def write_moments(path: str | Path, table: pa.Table) -> None:
    """Write a moments table as parquet: the whole file or nothing.

    Args:
        path: of the file.
        table: of :func:`moments_table`.
    """
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def read_moments(path: str | Path) -> pa.Table:
    """Read a moments table.

    Args:
        path: a file of :func:`write_moments`.

    Returns:
        The table, as :func:`moments_table` made it.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: naming the file, if it is no parquet file, or columns are missing or of another type.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:  # damage is told as either
        raise ValueError(f"{path}: not a moments table ({error})") from error
    missing = [name for name in _SCHEMA.names if name not in table.column_names]
    if missing:
        raise ValueError(f"{path}: not a moments table, columns are missing: {', '.join(missing)}")
    table = table.select(_SCHEMA.names)
    if table.schema.types != _SCHEMA.types:
        raise ValueError(f"{path}: not a moments table, expected {_SCHEMA.types}, found {table.schema.types}")
    return table
