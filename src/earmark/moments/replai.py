"""The detector of the original code, which its published results rest on.

The arithmetic is the original code's (paper arXiv 2209.13583, section
3.1), sample for sample: peaks of the average of the z-normalized log-spectrogram, over each 10 s segment by itself.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import find_peaks, spectrogram

from earmark.moments.detector import Detector, Moment, check_options

_WINDOW_SAMPLES = 256  # scipy's default window; a segment below one window has no curve
_HOP_SAMPLES = 224
_FLOOR = 1e-5
DEFAULT_MIN_PROMINENCE = 1.0
DEFAULT_MIN_DISTANCE = 10  # windows


def interaction_curve(
    wave: NDArray[np.floating[Any]], sample_rate: int
) -> tuple[NDArray[np.float64], NDArray[np.floating[Any]]]:
    """Compute how much is heard to happen over one segment: the average z-normalized log-spectrogram.

    Power spectral density in windows of 256 samples, 224 apart (scipy's defaults: Tukey window, each window's mean
    removed), its log10, each frequency normalized by its mean and standard deviation over the segment, mean over
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


class MomentFinder(Detector):
    """Find moments in sound that arrives in blocks of any length, in flat memory.

    Gives the same moments whatever the blocks.

    Args:
        sample_rate: in Hz.
        segment_seconds: the sound is cut into segments of this length from time 0 on; the last one is what is left.
        min_prominence: of a peak of the curve.
        min_distance: between peaks, in windows (224 samples); the lower of two closer ones is dropped.

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

    curve_name = "interaction curve"

    def __init__(
        self,
        sample_rate: int,
        *,
        segment_seconds: float = 10.0,
        min_prominence: float = DEFAULT_MIN_PROMINENCE,
        min_distance: int = DEFAULT_MIN_DISTANCE,
    ) -> None:
        check_options(min_prominence, None, segment_seconds, score_name="min_prominence")
        if round(segment_seconds * sample_rate) < 1:
            raise ValueError(f"segment_seconds={segment_seconds} is less than a sample at {sample_rate} Hz")
        if min_distance < 1:
            raise ValueError(f"min_distance must be at least 1 window, got {min_distance}")
        super().__init__(sample_rate, latency_seconds=segment_seconds)
        self._segment_seconds = segment_seconds
        self._min_prominence = min_prominence
        self._min_distance = min_distance
        self._pending: list[NDArray[np.floating[Any]]] = []
        self._num_pending = 0
        self._num_segments = 0

    def _search(self, block: NDArray[np.floating[Any]]) -> list[Moment]:
        moments = []
        while self._num_pending + len(block) >= self._first_sample(1) - self._first_sample():
            num_missing = self._first_sample(1) - self._first_sample() - self._num_pending
            moments += self._search_segment(block[:num_missing])
            block = block[num_missing:]
        if len(block):
            self._pending.append(block)
            self._num_pending += len(block)
        return moments

    def _search_rest(self) -> list[Moment]:
        return self._search_segment(self._pending.pop()) if self._pending else []

    def _first_sample(self, ahead: int = 0) -> int:
        """Return where the segment begins that is being read, or one so many segments ahead.

        Each bound is rounded by itself: a length that is no whole number of samples does not add up over hours, so a
        moment's segment is that of its time (see :func:`segment_number`).
        """
        return round((self._num_segments + ahead) * self._segment_seconds * self.sample_rate)

    def _search_segment(self, rest: NDArray[np.floating[Any]]) -> list[Moment]:
        """Search what is pending and ``rest`` as one segment."""
        segment = np.concatenate([*self._pending, rest])
        self._pending, self._num_pending = [], 0
        start_seconds = self._first_sample() / self.sample_rate
        times, curve = interaction_curve(segment, self.sample_rate)
        if self.on_curve is not None:
            self.on_curve(start_seconds + times, curve)
        peaks, properties = find_peaks(curve, distance=self._min_distance, prominence=self._min_prominence)
        moments = [
            Moment(start_seconds + float(times[peak]), float(prominence), float(curve[peak]), self._num_segments)
            for peak, prominence in zip(peaks, properties["prominences"], strict=True)
        ]
        self._num_segments += 1
        return moments


class ReplaiDetector(MomentFinder):
    """The original's detector with the options that all detectors share.

    Args:
        sample_rate: in Hz.
        min_score: least prominence; None for the original's 1.
        min_distance_seconds: rounded to windows of 224 samples; None for the original's 10 windows.
        segment_seconds: see :class:`MomentFinder`.

    Raises:
        ValueError: if an option is out of its range.

    Example:
        >>> ReplaiDetector(8000, min_distance_seconds=0.28).finish()
        []
    """

    def __init__(
        self,
        sample_rate: int,
        *,
        min_score: float | None = None,
        min_distance_seconds: float | None = None,
        segment_seconds: float = 10.0,
    ) -> None:
        check_options(min_score, min_distance_seconds, segment_seconds)
        windows = (
            DEFAULT_MIN_DISTANCE
            if min_distance_seconds is None
            else round(min_distance_seconds * sample_rate / _HOP_SAMPLES)
        )
        super().__init__(
            sample_rate,
            segment_seconds=segment_seconds,
            min_prominence=DEFAULT_MIN_PROMINENCE if min_score is None else min_score,
            min_distance=max(1, windows),
        )
