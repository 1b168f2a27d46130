"""What all detectors of moments have in common: what a moment is, blocks in and moments out, loudness."""

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, overload

import numpy as np
from numpy.typing import NDArray

_LOUDNESS_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment of interaction.

    Attributes:
        time_seconds: when it is heard, from the start of the recording.
        score: how much it stands out, in the detector's measure: ``replai``: prominence of its peak in the interaction
            curve; ``earmark``: height of its peak above the usual, in local deviations (see
            :class:`OnsetDetector`).
        height: value of the detector's curve at the peak.
        segment_id: number of the segment that its time lies in, counted from 0 (see :func:`segment_number`).
        loudness_db: level (root mean square) of the 100 ms from the moment in decibels re full scale; -inf for
            silence, NaN where it was not measured.
    """

    time_seconds: float
    score: float
    height: float
    segment_id: int
    loudness_db: float = math.nan


@overload
def segment_number(time_seconds: float, segment_seconds: float) -> int: ...
@overload
def segment_number(time_seconds: NDArray[np.float64], segment_seconds: float) -> NDArray[np.int64]: ...
def segment_number(time_seconds: float | NDArray[np.float64], segment_seconds: float) -> int | NDArray[np.int64]:
    """Return which segment of a recording a time lies in, whatever found the moment that is there.

    Segment n is the time from n to n + 1 times the length of a segment, its end not included, from the start of the
    recording on. An epoch of training draws one moment of each segment; margins are taken from the ends of the
    recording, not of its segments.

    Args:
        time_seconds: a time, or times ``(N,)``.
        segment_seconds: length of the segments.

    Example:
        >>> segment_number(9.99, 10.0), segment_number(np.array([0.0, 10.0, 25.0]), 10.0).tolist()
        (0, [0, 1, 2])
    """
    numbers = np.floor(np.divide(time_seconds, segment_seconds))
    return int(numbers) if numbers.ndim == 0 else numbers.astype(np.int64)


def check_options(
    min_score: float | None,
    min_distance_seconds: float | None,
    segment_seconds: float,
    *,
    score_name: str = "min_score",
) -> None:
    """Check the options that all detectors share.

    Args:
        min_score: least score.
        min_distance_seconds: between moments.
        segment_seconds: length of the segments.
        score_name: what the detector calls its least score.

    Raises:
        ValueError: naming the one that is out of its range.
    """
    if min_score is not None and not min_score >= 0:
        raise ValueError(f"{score_name} must not be negative, got {min_score}")
    if min_distance_seconds is not None and not 0 <= min_distance_seconds < math.inf:
        raise ValueError(f"min_distance_seconds must be finite and not negative, got {min_distance_seconds}")
    if not 0 < segment_seconds < math.inf:
        raise ValueError(f"segment_seconds must be positive, got {segment_seconds}")


class Detector(ABC):
    """Find moments in mono sound that arrives in blocks of any length, in flat memory.

    The same moments come out whatever the blocks. A subclass implements `_search` and `_search_rest`.

    Args:
        sample_rate: in Hz.
        latency_seconds: at most this long after its time a moment is found; so much sound is kept.

    Attributes:
        curve_name: what the curve is whose peaks are the moments.
        on_curve: is called with each new piece of it, times in seconds ``(K,)`` and values ``(K,)``; None for nothing.

    Raises:
        ValueError: if the sample rate is not positive.
    """

    curve_name: ClassVar[str]

    def __init__(self, sample_rate: int, *, latency_seconds: float) -> None:
        if not sample_rate > 0:
            raise ValueError(f"sample_rate must be positive, got {sample_rate}")
        self.sample_rate = sample_rate
        self.on_curve: Callable[[NDArray[np.float64], NDArray[np.floating[Any]]], None] | None = None
        self._num_kept = math.ceil((latency_seconds + _LOUDNESS_SECONDS) * sample_rate) + 1
        self._kept: deque[tuple[int, NDArray[np.floating[Any]]]] = deque()  # (number of the first sample, samples)
        self._num_samples = 0
        self._unmeasured: deque[Moment] = deque()

    def feed(self, block: NDArray[np.floating[Any]], *, copy: bool = True) -> list[Moment]:
        """Take in mono sound and return the moments that are certain by now, in order of time.

        Args:
            block: samples ``(S,)``.
            copy: false where the caller leaves the block as it is from now on, which saves time.

        Raises:
            ValueError: if it is not one-dimensional or not floating point, or a sample is not finite.
        """
        if block.ndim != 1 or block.dtype.kind != "f":
            raise ValueError(
                f"wave must be one-dimensional and floating point, not {block.dtype} of shape {block.shape}"
            )
        if copy:
            block = block.copy()
        self._kept.append((self._num_samples, block))
        self._num_samples += len(block)
        self._unmeasured += self._search(block)
        moments = list(self._measured(self._num_samples))
        while self._kept[0][0] + len(self._kept[0][1]) < self._num_samples - self._num_kept:
            self._kept.popleft()
        return moments

    def finish(self) -> list[Moment]:
        """End the sound and return the moments that were not certain before its end."""
        self._unmeasured += self._search_rest()
        return list(self._measured(math.inf))

    @abstractmethod
    def _search(self, block: NDArray[np.floating[Any]]) -> list[Moment]:
        """Take in a block, which stays as it is, and return the moments found by now, in order of time."""

    @abstractmethod
    def _search_rest(self) -> list[Moment]:
        """Return the moments not found before the end of the sound."""

    def _measured(self, limit: float) -> Iterator[Moment]:
        """Yield the moments whose 100 ms end before sample `limit`, with their loudness."""
        while self._unmeasured:
            start = round(self._unmeasured[0].time_seconds * self.sample_rate)
            stop = start + max(1, round(_LOUDNESS_SECONDS * self.sample_rate))
            if stop > limit:
                return
            yield replace(self._unmeasured.popleft(), loudness_db=self._level_db(start, stop))

    def _level_db(self, start: int, stop: int) -> float:
        parts = [block[max(0, start - first) : max(0, stop - first)] for first, block in self._kept]
        samples = np.concatenate(parts, dtype=np.float64)
        power = float(np.mean(samples**2)) if len(samples) else 0.0
        return 10 * math.log10(power) if power > 0 else -math.inf
