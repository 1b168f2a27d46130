"""The detector of this project: what a listener would call an onset, at any sample rate and in steady noise.

Spectral flux with a maximum filter over bands (after SuperFlux: Boeck
and Widmer, "Maximum Filter Vibrato Suppression for Onset Detection", DAFx 2013) of band levels above the local noise
(after adaptive whitening: Stowell and Plumbley, ICMC 2007), with the ear's masking by what was loud just before, which
goes back fast at first and slowly then (forward masking: Jesteadt, Bacon and Lehman, JASA 1982).
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len, rfft
from scipy.ndimage import uniform_filter1d
from scipy.signal import find_peaks

from earmark.moments.detector import Detector, Moment, check_options, segment_number

_Array: TypeAlias = NDArray[np.float32]

_WINDOW_SECONDS = 0.016
_HOP_SECONDS = 0.008
_BATCH_FRAMES = 125  # a second at a time; always as many, so that blocks can't change a bit of the result

_NUM_BANDS = 20
_LOWEST_HZ, _HIGHEST_HZ = 100.0, 10000.0
_ENOUGH_RATE = 20000  # in Hz, for the highest band

_NOISE_CONTEXT_SECONDS = 5.0  # on either side of a segment
_CONTEXT_SECONDS = 2.0  # in which sound before a segment still masks
_LEAST_NOISE = np.float32(10**-9.5)  # power in a band, about that of 16-bit rounding
_DYNAMIC_RANGE = np.float32(1e4)  # what is 40 dB below the loudest of a band is ignored,
_DYNAMIC_RANGE_OF_ALL = np.float32(1e6)  # and 60 dB below the loudest of all bands, where a window leaks

_NEPERS_PER_DB = float(np.log(10) / 10)  # of power
_LEAST_DEVIATION = np.float32(0.05)  # nepers


@dataclass(frozen=True, slots=True)
class _Rule:
    """What one version of the detector takes for an onset.

    Attributes:
        mask_db_per_second: how fast masking by a sound falls.
        lasting_mask: where it stops falling so fast: dB below what masks, and how fast it falls from there on, in dB
            per second; None where there is no such place.
        most_rise: nepers; no band counts for more.
        noise_weight: of the median absolute deviation, in a deviation.
        strong: weight of a high quantile, and that quantile: beside strong rises, as they come without noise, faint
            ones count less.
        busy: weight of a lower quantile above the median, and that quantile: high where much rises, as in speech.
        around: what is taken from a rise: how many times the mean of those around it, up to so many seconds off.
        backward: a sound so many seconds before a stroke, rising by less than this share of its rise, prepares it.
        forward: and one so many seconds after it is its echo.
    """

    mask_db_per_second: float
    lasting_mask: tuple[float, float] | None
    most_rise: float
    noise_weight: float
    strong: tuple[float, float]
    busy: tuple[float, float]
    around: tuple[float, float]
    backward: tuple[float, float]
    forward: tuple[float, float]


# The second was chosen on the tuning half of the mixes of benchmarks/onsets.py and on kitchens of seeds 101 and 102.
_RULES = {
    1: _Rule(
        mask_db_per_second=30.0,
        lasting_mask=None,
        most_rise=5.0,
        noise_weight=2.0,
        strong=(0.05, 0.995),
        busy=(0.0, 0.5),
        around=(0.0, 0.0),
        backward=(0.13, 0.6),
        forward=(0.0, 0.0),
    ),
    2: _Rule(
        mask_db_per_second=90.0,
        lasting_mask=(12.0, 10.0),
        most_rise=3.5,
        noise_weight=0.6,
        strong=(0.06, 0.998),
        busy=(0.2, 0.93),
        around=(2.0, 0.096),
        backward=(0.08, 0.4),
        forward=(0.6, 0.35),
    ),
}
DETECTOR_VERSION = max(_RULES)
"""Of `OnsetDetector`: moments found by another are other moments."""

DEFAULT_MIN_SCORE = 3.0
DEFAULT_MIN_DISTANCE_SECONDS = 0.05


class OnsetDetector(Detector):
    """Find onsets: sudden rises of many bands at once above the noise and above what sounded just before.

    1. Power in 20 mel-spaced bands of 100 Hz to 10 kHz, in Hann windows of 16 ms, 8 ms apart.
    2. Level of each band above its noise, ln(1 + power / noise): the noise is the median over the segment and 5 s on
       either side, so that hum, fans, taps and slow changes of level go out.
    3. Rise of each band over the frame before, or over what still masks (falling by 90 dB per second to 12 dB below
       what masks, and from there by 10 dB per second; the highest of three neighbouring bands, so that a gliding voice
       is no rise), at most 3.5; mean over bands, less twice the mean of that over 96 ms on either side.
    4. Peaks of it. The score is the height above the median over the segment and 2 s on either side, in local
       deviations: 0.6 times the median absolute deviation (scaled to a Gaussian's), plus 6 % of the highest rises
       (their 99.8 % quantile), plus a fifth of what the 93 % quantile lies above the median, plus 0.05.
    5. A peak is no onset where one in the 80 ms after it is more than 2.5 times as high, or one in the 600 ms before it
       more than 2.9 times.

    A moment is certain one segment and 5 s after it at the latest.

    Args:
        sample_rate: in Hz. Sound of 40 kHz and more is averaged over neighbouring samples first.
        min_score: least score; None for 3.
        min_distance_seconds: between moments, of two closer ones the lower is dropped; None for 50 ms.
        segment_seconds: length of the segments.
        version: of the rule; the older one, 1, goes on with what was begun with it.

    Raises:
        ValueError: if an option is out of its range.

    Example:
        >>> wave = np.zeros(80000, np.float32)
        >>> wave[30000:30050] = 0.5
        >>> detector = OnsetDetector(8000)
        >>> [round(moment.time_seconds, 2) for moment in [*detector.feed(wave), *detector.finish()]]
        [3.74]
    """

    curve_name = "score"

    def __init__(
        self,
        sample_rate: int,
        *,
        min_score: float | None = None,
        min_distance_seconds: float | None = None,
        segment_seconds: float = 10.0,
        version: int = DETECTOR_VERSION,
    ) -> None:
        check_options(min_score, min_distance_seconds, segment_seconds)
        if version not in _RULES:
            raise ValueError(
                f"version {version} of the detector earmark is not known, only {', '.join(map(str, _RULES))}"
            )
        super().__init__(sample_rate, latency_seconds=segment_seconds + _NOISE_CONTEXT_SECONDS + 2.0)
        self._min_score = DEFAULT_MIN_SCORE if min_score is None else min_score
        self._min_distance_seconds = (
            DEFAULT_MIN_DISTANCE_SECONDS if min_distance_seconds is None else min_distance_seconds
        )
        self._segment_seconds = segment_seconds
        self._rule = _RULES[version]

        self._fold = max(1, sample_rate // _ENOUGH_RATE)
        rate = sample_rate / self._fold
        self._hop = max(1, round(_HOP_SECONDS * rate))
        size = next_fast_len(max(16, round(_WINDOW_SECONDS * rate)), real=True)
        self._frame_seconds = self._hop / rate
        self._num_blind = -(-size // self._hop)  # until a window is full, what sounds at the start seems to begin
        self._first_seconds = (self._hop - size / 2) / rate - self._frame_seconds / 2  # a rise lies between two frames
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
        self._window = (window / np.sqrt(size / 2 * (window**2).sum()) / self._fold).astype(np.float32)
        self._edges = _band_edges(rate, size)

        self._batch_size = _BATCH_FRAMES * self._hop * self._fold
        self._pending: list[NDArray[np.floating[Any]]] = []
        self._num_pending = 0
        self._num_overlap = size - self._hop
        self._wave = np.zeros(self._num_overlap + _BATCH_FRAMES * self._hop, np.float32)
        self._frames = np.lib.stride_tricks.sliding_window_view(self._wave, size)[:: self._hop]  # a view of the wave
        self._windowed = np.empty((_BATCH_FRAMES, size), np.float32)
        self._segment_frames = max(1, round(segment_seconds / self._frame_seconds))
        self._num_noise_frames = round(_NOISE_CONTEXT_SECONDS / self._frame_seconds)
        self._num_context_frames = round(_CONTEXT_SECONDS / self._frame_seconds)
        self._powers: list[_Array] = []  # batches of (frames, bands), the first begins at frame _first_frame
        self._first_frame = 0
        self._num_frames = 0
        self._num_searched = 0  # frames
        self._last_seconds = -np.inf

    def _search(self, block: NDArray[np.floating[Any]]) -> list[Moment]:
        moments = []
        while self._num_pending + len(block) >= self._batch_size:
            num_missing = self._batch_size - self._num_pending
            missing = block[:num_missing]
            self._take_in(np.concatenate([*self._pending, missing]) if self._pending else missing, _BATCH_FRAMES)
            self._pending, self._num_pending = [], 0
            block = block[num_missing:]
            if self._num_frames >= self._num_searched + self._segment_frames + self._num_noise_frames:
                moments += self._search_segment()
        if len(block):
            self._pending.append(block)
            self._num_pending += len(block)
        return moments

    def _search_rest(self) -> list[Moment]:
        if self._num_pending:
            rest = np.concatenate(self._pending)
            num_frames = -(-len(rest) // (self._hop * self._fold))
            self._take_in(np.pad(rest, (0, self._batch_size - len(rest))), num_frames)
            self._pending, self._num_pending = [], 0
        moments = []
        while self._num_searched < self._num_frames:
            moments += self._search_segment()
        return moments

    def _take_in(self, samples: NDArray[np.floating[Any]], num_frames: int) -> None:
        """Note the bands' powers of the first frames of a batch."""
        self._wave[: self._num_overlap] = self._wave[len(self._wave) - self._num_overlap :]
        folded = self._wave[self._num_overlap :]
        phases = [samples[first :: self._fold] for first in range(self._fold)]
        np.add(phases[0], phases[1] if self._fold > 1 else 0, out=folded, casting="same_kind")
        for phase in phases[2:]:
            folded += phase
        np.multiply(self._frames, self._window, out=self._windowed)
        parts = rfft(self._windowed, axis=1).view(np.float32)  # real and imaginary in turn
        np.square(parts, out=parts)
        power = np.add.reduceat(parts[:, : 2 * self._edges[-1]], 2 * self._edges[:-1], axis=1)
        if not np.isfinite(
            power
        ).all():  # cheaper than testing the samples, and not finite either where one of them is not
            raise ValueError("wave must be finite, and its samples small enough to be squared in float32")
        self._powers.append(power[:num_frames])
        self._num_frames += num_frames

    def _search_segment(self) -> list[Moment]:
        """Search the next segment and forget the frames that are no longer needed."""
        start = self._num_searched
        stop = min(start + self._segment_frames, self._num_frames)
        begin = max(0, start - self._num_noise_frames)
        end = min(stop + self._num_noise_frames, self._num_frames)
        power = np.concatenate(self._powers)[begin - self._first_frame : end - self._first_frame]
        power = np.ascontiguousarray(power.T)
        most = power.max(axis=1)
        least = np.maximum(most / _DYNAMIC_RANGE, np.maximum(most.max() / _DYNAMIC_RANGE_OF_ALL, _LEAST_NOISE))
        some = np.sort(power[:, ::4], axis=1)
        noise = np.maximum(some[:, some.shape[1] // 2], least)[:, None]
        first = max(0, start - self._num_context_frames)
        near = power[:, first - begin : stop + self._num_context_frames - begin]
        level = near / noise
        level += np.float32(1)
        rise = _rise(np.log(level, out=level), self._rule, self._frame_seconds)
        rise[: max(0, self._num_blind - first)] = 0
        median, deviation = _usual(rise, self._rule)
        rise = np.maximum(rise, np.float32(0))
        times = np.maximum(0.0, np.arange(first, first + len(rise)) * self._frame_seconds + self._first_seconds)
        scores = (rise - median) / deviation
        moments = [
            Moment(seconds, float(scores[frame]), float(rise[frame]), segment_number(seconds, self._segment_seconds))
            for frame in self._peaks(rise, median + self._min_score * deviation)
            if start <= first + frame < stop
            for seconds in [float(times[frame])]
        ]
        if self.on_curve is not None:
            self.on_curve(times[start - first : stop - first], scores[start - first : stop - first])
        # A peak at the seam of two segments may be found in both, a frame apart.
        moments = [m for m in moments if m.time_seconds - self._last_seconds >= 0.99 * self._min_distance_seconds]
        if moments:
            self._last_seconds = moments[-1].time_seconds
        self._num_searched = stop
        while self._powers and self._first_frame + len(self._powers[0]) <= stop - self._num_noise_frames:
            self._first_frame += len(self._powers.pop(0))
        return moments

    def _peaks(self, rise: _Array, least: float) -> list[int]:
        """Return the frames of the peaks that count."""
        distance = max(1, round(self._min_distance_seconds / self._frame_seconds))
        peaks, _ = find_peaks(np.concatenate([[0], rise, [0]]), height=max(least, 1e-6), distance=distance)
        peaks = peaks - 1
        after, share_after = round(self._rule.backward[0] / self._frame_seconds), self._rule.backward[1]
        before, share_before = round(self._rule.forward[0] / self._frame_seconds), self._rule.forward[1]
        return [
            int(k)
            for k in peaks
            if rise[k] >= share_after * rise[k : k + after + 1].max()
            and rise[k] >= share_before * rise[max(0, k - before) : k + 1].max()
        ]


def _usual(rise: _Array, rule: _Rule) -> tuple[float, float]:
    """Return the median of a curve, above 0, and the deviation in which scores are measured."""
    ordered = np.sort(rise)  # once, since three calls of median and quantile take longer than all the rest
    middle = ordered[len(rise) // 2]  # negative where what is around a frame is taken from it
    noise = np.float32(1.4826 * rule.noise_weight) * np.sort(np.abs(rise - middle))[len(rise) // 2]
    median = max(middle, np.float32(0))
    strong, busy = (max(ordered[int(share * (len(rise) - 1))], np.float32(0)) for _, share in (rule.strong, rule.busy))
    deviation = np.float32(rule.strong[0]) * strong + np.float32(rule.busy[0]) * (busy - median)
    return float(median), float(noise + deviation + _LEAST_DEVIATION)


def _band_edges(rate: float, size: int) -> NDArray[np.int64]:
    """Return the first bin of each band and the end of the last; bands of less than a bin are merged."""
    highest = min(_HIGHEST_HZ, 0.475 * rate)
    mel = np.linspace(np.log1p(min(_LOWEST_HZ, highest / 4) / 700), np.log1p(highest / 700), _NUM_BANDS + 1)
    edges = np.unique(np.rint(700 * np.expm1(mel) * size / rate).astype(np.int64))
    edges = edges[edges >= 1]  # without the mean
    return edges if len(edges) > 1 else np.array([1, size // 2 + 1])


def _rise(level: _Array, rule: _Rule, frame_seconds: float) -> _Array:
    """Return how much levels (bands, frames) rise above what masks them: (frames,)."""
    smooth = level.copy()  # what masks is the mean of two frames, or noise would mask by its peaks
    smooth[:, 1:] += level[:, :-1]
    smooth[:, 1:] *= np.float32(0.5)
    mask = _falling(smooth, rule.mask_db_per_second * _NEPERS_PER_DB * frame_seconds)
    if rule.lasting_mask is not None:
        depth_db, db_per_second = rule.lasting_mask
        lasting = _falling(smooth, db_per_second * _NEPERS_PER_DB * frame_seconds)
        lasting -= np.float32(depth_db * _NEPERS_PER_DB)
        np.maximum(mask, lasting, out=mask)
    widest = mask.copy()
    np.maximum(widest[1:], mask[:-1], out=widest[1:])
    np.maximum(widest[:-1], mask[1:], out=widest[:-1])
    rises = np.subtract(level[:, 1:], widest[:, :-1], out=mask[:, 1:])
    rise = np.zeros(level.shape[1], np.float32)
    rise[1:] = np.clip(rises, 0, rule.most_rise, out=rises).mean(axis=0)
    weight, seconds = rule.around
    if not weight:
        return rise
    usual = uniform_filter1d(rise, 2 * round(seconds / frame_seconds) + 1, mode="constant")
    above: _Array = rise - np.float32(weight) * usual
    return above


def _falling(level: _Array, per_frame: float) -> _Array:
    """Return the highest of each level (bands, frames) and of those before it less `per_frame` for each frame since."""
    ramp = np.arange(level.shape[1], dtype=np.float32) * np.float32(per_frame)
    highest: _Array = level + ramp
    np.maximum.accumulate(highest, axis=1, out=highest)
    highest -= ramp
    return highest
