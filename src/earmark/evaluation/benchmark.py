"""A benchmark of methods over seeds: means with intervals, paired differences, and which of these are beyond chance.

Path of a sample: checkpoint of each method and seed --tasks--> one number for each measure --> a `BenchmarkTable`.
Pure functions of plain numbers.

What varies here is the seed of training (weights, order, crops) and of the head, on one data set. So intervals say how
much another seed would change the number, not how much other videos would: those are in the results of each cell.
"""

import dataclasses
import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np
from scipy import stats

__all__ = [
    "BenchmarkTable",
    "Entry",
    "MeanOverSeeds",
    "Measure",
    "PairedDifference",
    "holm_adjusted",
    "mean_over_seeds",
    "paired_difference",
    "summarise",
]

CONFIDENCE = 0.95

Verdict = Literal["better", "worse", "not told apart", "not tested"]


@dataclasses.dataclass(frozen=True, slots=True)
class Measure:
    """What is measured by a task.

    Attributes:
        label: Its name in the table, such as "verb top-1".
        unit: ``%`` or another one, such as ``s``; empty for a number without.
        higher_is_better: Whether it is; not of errors and distances.
        decimals: How many are shown.
    """

    label: str
    unit: str = "%"
    higher_is_better: bool = True
    decimals: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class MeanOverSeeds:
    """A mean over seeds and its 95 % interval for other seeds of the same kind.

    Attributes:
        by_seed: The number of each seed.
        mean: Of them.
        low: Low end of the interval; None with one seed.
        high: High end; None with one seed.
    """

    by_seed: Mapping[int, float]
    mean: float
    low: float | None
    high: float | None

    @property
    def half_width(self) -> float | None:
        """Half the width of the interval; None with one seed."""
        return None if self.high is None else self.high - self.mean


@dataclasses.dataclass(frozen=True, slots=True)
class PairedDifference:
    """How a method differs from the reference, seed by seed.

    Attributes:
        seeds: Those that both have.
        mean: Of the differences, method minus reference.
        low: Low end of its 95 % interval; None with one seed.
        high: High end; None with one seed.
        p_value: Of the paired t test, two-sided; None where there is nothing to test: one seed, or differences that are
            all the same, which leave no spread to hold them against.
        adjusted_p_value: The same after Holm's correction; see `summarise`.
        verdict: In the direction in which the measure is good.
    """

    seeds: tuple[int, ...]
    mean: float
    low: float | None
    high: float | None
    p_value: float | None
    adjusted_p_value: float | None = None
    verdict: Verdict = "not tested"


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """What one method reached by one measure.

    Attributes:
        over_seeds: Its mean over seeds.
        difference: From the reference; None for the reference itself, and where they share no seed.
    """

    over_seeds: MeanOverSeeds
    difference: PairedDifference | None


@dataclasses.dataclass(frozen=True, slots=True)
class BenchmarkTable:
    """Methods by measures.

    Attributes:
        reference: The method that the others are compared with.
        measures: The columns.
        methods: The rows.
        entries: By method and label of the measure; what was not measured is missing.
        trivial: By label of the measure, what an answer reaches that ignores the video.
        significance: Of the verdicts.
    """

    reference: str
    measures: tuple[Measure, ...]
    methods: tuple[str, ...]
    entries: Mapping[tuple[str, str], Entry]
    trivial: Mapping[str, float]
    significance: float


def mean_over_seeds(values: Mapping[int, float]) -> MeanOverSeeds:
    """Return the mean over seeds with Student's 95 % interval.

    Args:
        values: One number per seed, finite.

    Raises:
        ValueError: If there is none, or one is not finite.

    Example:
        >>> found = mean_over_seeds({0: 30.0, 1: 32.0, 2: 34.0})
        >>> found.mean, round(found.low, 2), round(found.high, 2)
        (32.0, 27.03, 36.97)
    """
    numbers = _numbers(values)
    mean, half_width = float(numbers.mean()), _half_width(numbers)
    low, high = (None, None) if half_width is None else (mean - half_width, mean + half_width)
    return MeanOverSeeds(dict(values), mean, low, high)


def paired_difference(values: Mapping[int, float], reference: Mapping[int, float]) -> PairedDifference | None:
    """Return how a method differs from another one with the same seeds.

    Args:
        values: One number per seed.
        reference: The same of the other method; only seeds that both have count.

    Returns:
        The difference, without correction and verdict; None where they share no seed.

    Raises:
        ValueError: If a number is not finite.

    Example:
        >>> found = paired_difference({0: 1.0, 1: 2.0, 2: 3.5}, {0: 0.0, 1: 1.5, 2: 2.0})
        >>> found.mean, round(found.p_value, 3)
        (1.0, 0.074)
    """
    seeds = tuple(seed for seed in values if seed in reference)
    if not seeds:
        return None
    numbers = _numbers({seed: values[seed] - reference[seed] for seed in seeds})
    mean, half_width = float(numbers.mean()), _half_width(numbers)
    if half_width is None:
        return PairedDifference(seeds, mean, None, None, None)
    p_value = None
    # Differences that are equal but for rounding have no spread that could be measured.
    if np.ptp(numbers) > 1e-9 * max(1.0, float(np.abs(numbers).max())):
        p_value = float(stats.ttest_1samp(numbers, 0.0).pvalue)
    return PairedDifference(seeds, mean, mean - half_width, mean + half_width, p_value)


def holm_adjusted(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return p values adjusted by Holm's step-down method, which holds for tests that depend on each other in any way.

    Rejecting where the adjusted value is at most a significance level keeps the probability of even one false rejection
    among all tests at most at that level. Holm 1979, "A simple sequentially rejective multiple test procedure".

    Args:
        p_values: Of the tests of one family.

    Returns:
        In the same order.

    Raises:
        ValueError: If one is not from 0 to 1.

    Example:
        >>> holm_adjusted([0.01, 0.04, 0.03])
        (0.03, 0.06, 0.06)
    """
    for p_value in p_values:
        if not 0 <= p_value <= 1:
            raise ValueError(f"a p value is from 0 to 1, got {p_value}")
    adjusted, least = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return tuple(adjusted)


def summarise(
    scores: Mapping[str, Mapping[str, Mapping[int, float]]],
    measures: Sequence[Measure],
    *,
    methods: Sequence[str],
    reference: str,
    trivial: Mapping[str, float] | None = None,
    significance: float = 0.05,
) -> BenchmarkTable:
    """Return the table of a benchmark.

    Each measure is a question of its own, and so a family of tests: the p values of all methods that are compared with
    the reference by it are adjusted together by Holm's method. A difference is beyond chance where the adjusted value
    is at most `significance`.

    Args:
        scores: Numbers by label of the measure, method and seed; a method may lack seeds.
        measures: The columns, in their order.
        methods: The rows, in their order.
        reference: The method that the others are compared with.
        trivial: By label of the measure, what an answer reaches that ignores the video.
        significance: See above.

    Raises:
        ValueError: If a number is not finite, or `scores` has a method or measure that is not in the table.

    Example:
        >>> scores = {"top-1": {"a": {0: 30.0, 1: 31.0, 2: 33.0}, "b": {0: 20.0, 1: 22.0, 2: 23.0}}}
        >>> table = summarise(scores, [Measure("top-1")], methods=["a", "b"], reference="a")
        >>> table.entries["b", "top-1"].difference.verdict
        'worse'
    """
    _require_known(scores, [measure.label for measure in measures], methods)
    entries: dict[tuple[str, str], Entry] = {}
    for measure in measures:
        by_method = scores.get(measure.label, {})
        differences = {
            method: found
            for method in methods
            if method != reference
            and by_method.get(method)
            and (found := paired_difference(by_method[method], by_method.get(reference, {}))) is not None
        }
        differences = _judged(differences, higher_is_better=measure.higher_is_better, significance=significance)
        for method in methods:
            if by_method.get(method):
                entries[method, measure.label] = Entry(mean_over_seeds(by_method[method]), differences.get(method))
    return BenchmarkTable(reference, tuple(measures), tuple(methods), entries, dict(trivial or {}), significance)


def _judged(
    differences: Mapping[str, PairedDifference], *, higher_is_better: bool, significance: float
) -> dict[str, PairedDifference]:
    """Adjust the p values of one measure together, and say which differences are beyond chance."""
    tested = {method: found.p_value for method, found in differences.items() if found.p_value is not None}
    adjusted = dict(zip(tested, holm_adjusted(list(tested.values())), strict=True))
    judged = {}
    for method, found in differences.items():
        verdict: Verdict = "not tested"
        if method in adjusted:
            verdict = "not told apart"
            if adjusted[method] <= significance:
                verdict = "better" if (found.mean > 0) == higher_is_better else "worse"
        judged[method] = dataclasses.replace(found, adjusted_p_value=adjusted.get(method), verdict=verdict)
    return judged


def _numbers(values: Mapping[int, float]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    if not values:
        raise ValueError("there is no seed to take the mean over")
    for seed, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"seed {seed}: {value} is not a finite number")
    return np.array(list(values.values()), dtype=np.float64)


def _half_width(numbers: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> float | None:
    """Return half the width of Student's interval of a mean; None for one number."""
    if len(numbers) < 2:
        return None
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(numbers) - 1))
    return quantile * statistics.stdev(numbers.tolist()) / math.sqrt(len(numbers))


def _require_known(
    scores: Mapping[str, Mapping[str, Mapping[int, float]]], labels: Collection[str], methods: Collection[str]
) -> None:
    for label, by_method in scores.items():
        if label not in labels:
            raise ValueError(f"{label}: no measure of the table ({', '.join(labels)})")
        for method in by_method:
            if method not in methods:
                raise ValueError(f"{label}: {method} is no method of the table ({', '.join(methods)})")
