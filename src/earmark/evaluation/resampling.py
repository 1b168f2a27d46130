"""Intervals of measures that are no mean over samples: class means, average precision, areas under curves.

Path of a sample: scores --official measures--> a number, and --here--> how far it can be trusted. Videos are drawn with
replacement as often as there are videos, and the measure is computed anew on each draw: samples of one video resemble
one another. A draw is given as how often it holds each video, so that nothing is sorted or matched again.

Letters: B draws, G videos, N samples, C classes, D detections, T thresholds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student_t

from earmark.evaluation.detection_metrics import ClassMatches
from earmark.evaluation.intervals import interval_without_variance
from earmark.evaluation.results import Estimate, Score

__all__ = [
    "NUM_DRAWS",
    "Measure",
    "SampleCurves",
    "class_mean_recall_measure",
    "compare_measures",
    "detection_measure",
    "estimate_measure",
    "mean_area_measure",
    "mean_average_precision_measure",
    "numbered_groups",
    "sample_curves",
]

NUM_DRAWS = 500
CONFIDENCE = 0.95
MAX_NUMBERS = 2**22  # weights of samples in memory at once: 32 MB

Counts = NDArray[np.float64]
Measure = Callable[[Counts], NDArray[np.float64]]
"""How often each video counts, ``(B, G)`` -> the measure of each draw, ``(B,)``; NaN where there is none."""


def numbered_groups(groups: ArrayLike | None, num_samples: int) -> tuple[NDArray[np.int64], int]:
    """Return the number of each sample's group, and how many groups there are.

    Args:
        groups: Group of each sample, such as its video, shape ``(N,)``; None if samples are independent.
        num_samples: How many samples there are.

    Raises:
        ValueError: If there is not one group for each sample.

    Example:
        >>> numbered_groups(["b", "a", "b"], 3)
        (array([1, 0, 1]), 2)
    """
    if groups is None:
        return np.arange(num_samples), num_samples
    names, numbers = np.unique(np.asarray(groups), return_inverse=True)
    if numbers.shape != (num_samples,):
        raise ValueError(f"need one group for each of {num_samples} samples, got shape {numbers.shape}")
    return numbers.astype(np.int64), len(names)


def estimate_measure(
    measure: Measure, num_groups: int, *, bounds: tuple[float, float], num_draws: int = NUM_DRAWS, seed: int = 0
) -> Estimate:
    """Return a measure of all samples with its 95 % interval for other videos.

    The interval is the number, and on each side of it Student's t (of G - 1 degrees of freedom) times the standard
    deviation over draws, its square enlarged by G / (G - 1); within the bounds. Where draws do not differ, it holds
    what agrees with G videos alike, as `earmark.evaluation.intervals.mean_interval` has it.

    Args:
        measure: Of draws.
        num_groups: Number of videos, G.
        bounds: Least and greatest value that there can be.
        num_draws: Number of draws.
        seed: Of the draws: with one seed, measures of one test set are measured on the same draws.

    Raises:
        ValueError: If the measure has no value.

    Example:
        >>> recalls = class_mean_recall_measure([True, False, True, True], [0, 0, 1, 1], [0, 1, 2, 3])
        >>> print(estimate_measure(recalls, 4, bounds=(0, 1)).value)
        0.75
    """
    value = float(measure(np.ones((1, num_groups)))[0])
    if not np.isfinite(value):
        raise ValueError("there is nothing to measure: no class has a sample")
    least, greatest = bounds
    spread = 0.0
    if num_groups > 1:
        rng = np.random.default_rng([seed, num_groups])
        counts = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=num_draws).astype(np.float64)
        values = measure(counts)
        values = values[np.isfinite(values)]  # a draw can be without a sample that counts
        spread = float(values.std(ddof=1)) * np.sqrt(num_groups / (num_groups - 1)) if len(values) > 1 else 0.0
    if spread <= 1e-12 * (greatest - least):
        share = (value - least) / (greatest - least)
        low, high = (
            least + (greatest - least) * end for end in interval_without_variance(share, num_groups, CONFIDENCE)
        )
        return Estimate(value, low, high)
    reach = float(student_t.ppf((1 + CONFIDENCE) / 2, num_groups - 1)) * spread
    return Estimate(value, max(least, value - reach), min(greatest, value + reach))


def compare_measures(
    encoder: Sequence[Measure],
    *,
    baseline: Sequence[Measure],
    majority: Measure,
    chance: float,
    num_groups: int,
    bounds: tuple[float, float] = (0.0, 100.0),
    k: int | None = None,
) -> Score:
    """Return a measure beside those of the baselines, as `earmark.evaluation.results.compare` does for means.

    Args:
        encoder: Of the judged encoder, for each seed of the head. The number is the mean over them, and the interval
            that of this mean.
        baseline: Of the baseline encoder on the same videos, for each seed; empty without one.
        majority: Of the most frequent answers.
        chance: Of guessing at random.
        num_groups: Number of videos.
        bounds: Least and greatest value that there can be.
        k: Number of guesses, where the measure has one.

    Raises:
        ValueError: As `estimate_measure`.
    """
    everything = np.ones((1, num_groups))

    def mean(measures: Sequence[Measure]) -> Measure:
        return lambda counts: np.mean([measure(counts) for measure in measures], axis=0)

    def per_seed(measures: Sequence[Measure]) -> tuple[float, ...]:
        return tuple(float(measure(everything)[0]) for measure in measures) if len(measures) > 1 else ()

    def estimate(measure: Measure) -> Estimate:
        return estimate_measure(measure, num_groups, bounds=bounds)

    gain = None
    if baseline:
        ours, theirs, widest = mean(encoder), mean(baseline), bounds[1] - bounds[0]
        gain = estimate_measure(lambda counts: ours(counts) - theirs(counts), num_groups, bounds=(-widest, widest))
    return Score(
        k=k,
        encoder=estimate(mean(encoder)),
        baseline=estimate(mean(baseline)) if baseline else None,
        gain=gain,
        majority=estimate(majority),
        chance=chance,
        per_seed=per_seed(encoder),
        baseline_per_seed=per_seed(baseline),
    )


def class_mean_recall_measure(
    right: ArrayLike, labels: ArrayLike, groups: ArrayLike, *, num_groups: int | None = None, scale: float = 1.0
) -> Measure:
    """Return the mean over classes of the share of their samples that are right: class-mean accuracy or recall at k.

    Args:
        right: Whether the answer to each sample is right, shape ``(N,)``.
        labels: Class ids, shape ``(N,)``.
        groups: Number of each sample's video, shape ``(N,)``.
        num_groups: How many videos there are; None for as many as have samples.
        scale: What the share is multiplied by: 100 for %.

    Example:
        >>> recalls = class_mean_recall_measure([True, False, True], [0, 0, 1], [0, 1, 1])
        >>> recalls(np.array([[1.0, 1.0], [2.0, 0.0]]))
        array([0.75, 1.  ])
    """
    is_right, of_group = np.asarray(right, dtype=np.float64), np.asarray(groups)
    _, of_class = np.unique(np.asarray(labels), return_inverse=True)
    shape = (int(of_class.max()) + 1, num_groups or int(of_group.max()) + 1)
    place = np.ravel_multi_index((of_class, of_group), shape)
    sizes = np.bincount(place, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
    hits = np.bincount(place, weights=is_right, minlength=shape[0] * shape[1]).reshape(shape)

    def measure(counts: Counts) -> NDArray[np.float64]:
        return scale * _mean_of_present(counts @ hits.T, counts @ sizes.T)

    return measure


@dataclass(frozen=True, slots=True)
class SampleCurves:
    """How many samples of each video have which scores of a class; only scores that a sample of the class has count.

    Attributes:
        of_class: Samples of the class with each such score, the highest first, by video: shape ``(P, G)``.
        of_all: All samples with that score, shape ``(P, G)``.
        as_high: All samples with at least that score, shape ``(P, G)``.
        num_samples: All samples, shape ``(G,)``.
    """

    of_class: Counts
    of_all: Counts
    as_high: Counts
    num_samples: Counts


def sample_curves(scores: ArrayLike, labels: ArrayLike, groups: ArrayLike, *, num_groups: int) -> list[SampleCurves]:
    """Return the curves of each class present.

    Args:
        scores: Shape ``(N, C)``; in float32 for the official measures of EPIC-SOUNDS.
        labels: Class ids, shape ``(N,)``.
        groups: Number of each sample's video, shape ``(N,)``.
        num_groups: Number of videos, G.
    """
    matrix, targets, of_group = np.asarray(scores), np.asarray(labels), np.asarray(groups)
    num_samples = np.bincount(of_group, minlength=num_groups).astype(np.float64)
    curves = []
    for number in np.unique(targets).tolist():
        column, is_true = matrix[:, number], targets == number
        found = np.unique(column[is_true])  # ascending
        above = np.searchsorted(found, column, side="right")  # 1 + the place of the highest of them that is no higher
        highest_first = len(found) - above
        equal = (above > 0) & (found[above - 1] == column)
        size = (len(found), num_groups)
        curves.append(
            SampleCurves(
                _counted(highest_first[is_true], of_group[is_true], size),
                _counted(highest_first[equal], of_group[equal], size),
                # what lies between two of the scores is as high as the lower of them
                _counted(highest_first, of_group, size).cumsum(axis=0),
                num_samples,
            )
        )
    return curves


def _counted(rows: NDArray[np.int64], groups: NDArray[np.int64], size: tuple[int, int]) -> Counts:
    """Return how many samples each row and group has; those behind the last row are left out."""
    num_places = (size[0] + 1) * size[1]
    counts = np.bincount(rows * size[1] + groups, minlength=num_places).reshape(-1, size[1])
    return counts[: size[0]].astype(np.float64)


def mean_average_precision_measure(curves: list[SampleCurves], *, scale: float = 1.0) -> Measure:
    """Return the mean over the classes present of their average precision, as `average_precisions` has it.

    Args:
        curves: Of the classes.
        scale: What it is multiplied by.
    """
    return _mean_over_curves(curves, _average_precision, scale)


def mean_area_measure(curves: list[SampleCurves], *, scale: float = 1.0) -> Measure:
    """Return the mean area under the ROC curve over the classes that some, but not all, samples have.

    Args:
        curves: Of the classes.
        scale: What it is multiplied by.
    """
    return _mean_over_curves(curves, _area, scale)


def detection_measure(matches: Mapping[int, ClassMatches], num_videos: int, *, scale: float = 1.0) -> list[Measure]:
    """Return the mean average precision of detections at each threshold, and last the mean over thresholds.

    A video that counts twice is as two videos with the same detections and events, which count one after the other
    where scores are equal. Precision over recall is highest at the last of such equal right answers, so only that is
    looked at.

    Args:
        matches: Annotated class -> its detections, of videos numbered from 0.
        num_videos: Number of videos, G.
        scale: What it is multiplied by.

    Example:
        >>> found = ClassMatches(np.array([0, 1]), np.array([[True, False]]), np.array([0, 1]))
        >>> of_level, mean = detection_measure({3: found}, 2)
        >>> of_level(np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]]))
        array([0.5, 1. , 0. ])
    """
    num_levels = len(next(iter(matches.values())).right)

    def of_levels(counts: Counts) -> Counts:
        """Return (B, T)."""
        values = np.zeros((len(counts), len(matches), num_levels))
        num_events = np.zeros((len(counts), len(matches)))
        for number, found in enumerate(matches.values()):
            num_events[:, number] = counts @ np.bincount(found.event_videos, minlength=num_videos)
            step = max(1, MAX_NUMBERS // max(1, len(found.videos)))
            for start in range(0, len(counts), step):
                chosen = slice(start, start + step)
                weights = counts[chosen, found.videos]
                values[chosen, number] = _areas_below(weights, found.right, num_events[chosen, number])
        sizes = np.broadcast_to((num_events > 0)[:, :, None], values.shape).astype(np.float64)
        return np.stack([_mean_of_present(values[..., t], sizes[..., t]) for t in range(num_levels)], axis=1)

    cached = remembered(lambda counts: scale * of_levels(counts))  # all levels are measured at once

    def at(level: int) -> Measure:
        return lambda counts: cached(counts)[:, level]

    return [*(at(level) for level in range(num_levels)), lambda counts: cached(counts).mean(axis=1)]


def _areas_below(weights: Counts, right: NDArray[np.bool_], num_events: Counts) -> Counts:
    """Return the areas below the interpolated curves of detections (B, D), right (T, D): shape (B, T)."""
    counts = weights.cumsum(axis=1)
    areas = np.zeros((len(weights), len(right)))
    if not weights.shape[1]:
        return areas
    for level, is_right in enumerate(right):
        hits = np.flatnonzero(is_right)  # recall rises, and precision peaks, at right answers only
        if not len(hits):
            continue
        gains = weights[:, hits]
        precisions = np.divide(
            gains.cumsum(axis=1), counts[:, hits], out=np.zeros_like(gains), where=counts[:, hits] > 0
        )
        highest = np.maximum.accumulate(precisions[:, ::-1], axis=1)[:, ::-1]
        areas[:, level] = np.divide(
            (gains * highest).sum(axis=1), num_events, out=np.zeros(len(weights)), where=num_events > 0
        )
    return areas


def _average_precision(gains: Counts, curve: SampleCurves, counts: Counts) -> Counts:
    """Return (B,): the sum of precisions, each weighted by the samples of the class that have its score."""
    as_high = counts @ curve.as_high.T
    precisions = np.divide(gains.cumsum(axis=1), as_high, out=np.zeros_like(as_high), where=as_high > 0)
    with np.errstate(invalid="ignore"):
        return np.asarray((gains * precisions).sum(axis=1) / gains.sum(axis=1))


def _area(gains: Counts, curve: SampleCurves, counts: Counts) -> Counts:
    """Return (B,): the share of pairs of a sample of the class and another in the right order, half of equal ones."""
    num_true = gains.sum(axis=1)
    num_false = counts @ curve.num_samples - num_true
    false_as_high = counts @ curve.as_high.T - gains.cumsum(axis=1)
    false_equal = counts @ curve.of_all.T - gains
    with np.errstate(invalid="ignore"):
        return np.asarray(
            (gains * (num_false[:, None] - false_as_high + false_equal / 2)).sum(axis=1) / (num_true * num_false)
        )


def _mean_over_curves(
    curves: Sequence[SampleCurves], of_class: Callable[[Counts, SampleCurves, Counts], Counts], scale: float
) -> Measure:
    def measure(counts: Counts) -> NDArray[np.float64]:
        values = np.stack([of_class(counts @ curve.of_class.T, curve, counts) for curve in curves], axis=1)
        there = np.isfinite(values)
        return scale * _mean_of_present(np.where(there, values, 0.0), there.astype(np.float64))

    return remembered(measure)


def remembered(measure: Measure) -> Measure:
    """Return a measure that keeps its values: a number, a gain and a mean over seeds ask for the same draws."""
    kept: dict[bytes, NDArray[np.float64]] = {}

    def of_draws(counts: Counts) -> NDArray[np.float64]:
        key = counts.tobytes()
        if key not in kept:
            kept[key] = measure(counts)
        return kept[key]

    return of_draws


def _mean_of_present(totals: Counts, sizes: Counts) -> NDArray[np.float64]:
    """Return the mean over classes of total / size, (B, C) -> (B,), over those with a size; NaN where none has."""
    there = sizes > 0
    shares = np.divide(totals, sizes, out=np.zeros_like(totals), where=there)
    num_there = there.sum(axis=1)
    means: NDArray[np.float64] = np.full(len(shares), np.nan)
    np.divide(shares.sum(axis=1), num_there, out=means, where=num_there > 0)
    return means
