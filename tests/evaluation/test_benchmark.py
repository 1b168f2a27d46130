"""The statistics of a benchmark, against scipy in float64 and loops by definition."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from earmark.evaluation.benchmark import (
    Measure,
    holm_adjusted,
    mean_over_seeds,
    paired_difference,
    summarise,
)

TOP1 = Measure("top-1")
ERROR = Measure("error", "s", higher_is_better=False)


def drawn(seed: int, count: int, *, mean: float = 30.0, deviation: float = 4.0) -> dict[int, float]:
    values = np.random.default_rng(seed).normal(mean, deviation, count)
    return dict(enumerate(values.tolist()))


@pytest.mark.parametrize("count", [2, 3, 5, 20])
def test_the_interval_of_a_mean_is_students(count: int) -> None:
    values = drawn(count, count)
    numbers = np.array(list(values.values()))
    found = mean_over_seeds(values)
    low, high = stats.t.interval(0.95, count - 1, loc=numbers.mean(), scale=stats.sem(numbers))
    assert found.mean == pytest.approx(numbers.mean(), abs=1e-12)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-10), pytest.approx(high, abs=1e-10))
    assert found.half_width == pytest.approx((high - low) / 2, abs=1e-10)


@pytest.mark.parametrize("count", [2, 3, 5, 20])
def test_a_difference_is_that_of_the_paired_t_test(count: int) -> None:
    one, other = drawn(1, count), drawn(2, count)
    found = paired_difference(one, other)
    oracle = stats.ttest_rel(list(one.values()), list(other.values()))
    interval = oracle.confidence_interval(0.95)
    assert found is not None
    assert found.p_value == pytest.approx(oracle.pvalue, rel=1e-10)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_seeds_are_paired_by_their_number_and_those_of_one_method_alone_do_not_count() -> None:
    found = paired_difference({3: 1.0, 1: 5.0, 7: 9.0}, {1: 4.0, 3: 3.0, 9: 100.0})
    assert found is not None
    assert set(found.seeds) == {1, 3}
    assert found.mean == pytest.approx((1 - 3 + 5 - 4) / 2)
    assert paired_difference({1: 1.0}, {2: 1.0}) is None


def test_one_seed_and_equal_differences_are_not_tested() -> None:
    alone = paired_difference({0: 2.0}, {0: 1.0})
    assert alone is not None
    assert (alone.mean, alone.low, alone.p_value, alone.verdict) == (1.0, None, None, "not tested")
    # 0.1 + 0.2 - 0.2 is not 0.1: rounding is no spread
    equal = paired_difference({0: 0.3, 1: 0.1 + 0.2, 2: 0.3}, {0: 0.2, 1: 0.2, 2: 0.2})
    assert equal is not None
    assert equal.p_value is None
    assert mean_over_seeds({4: 2.0}).low is None


def slow_holm(p_values: list[float], significance: float) -> list[bool]:
    """Reject by Holm's description: smallest first, stop at the first that is too large."""
    rejected = [False] * len(p_values)
    for step, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[place] > significance / (len(p_values) - step):
            break
        rejected[place] = True
    return rejected


def test_adjusted_values_reject_what_holm_rejects() -> None:
    draw = np.random.default_rng(0)
    for count, significance in itertools.product([1, 2, 3, 8], [0.01, 0.05, 0.3]):
        for _ in range(20):
            p_values = (draw.random(count) ** 3).tolist()
            adjusted = holm_adjusted(p_values)
            assert [value <= significance for value in adjusted] == slow_holm(p_values, significance)
            assert all(value >= p_value for value, p_value in zip(adjusted, p_values, strict=True))
    assert holm_adjusted([]) == ()


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_what_is_no_p_value_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="p value"):
        holm_adjusted([0.5, value])


def test_the_probability_of_one_false_verdict_among_all_methods_stays_at_the_level() -> None:
    """Under no difference at all, at most 5 % of tables say that any of 8 methods differs (binomial bound)."""
    draw, num_tables, num_false = np.random.default_rng(3), 400, 0
    names = ["reference", *"abcdefgh"]
    for _ in range(num_tables):
        scores = {"top-1": {name: dict(enumerate(draw.normal(size=5).tolist())) for name in names}}
        table = summarise(scores, [TOP1], methods=names, reference="reference")
        verdicts = [entry.difference.verdict for entry in table.entries.values() if entry.difference is not None]
        assert len(verdicts) == 8
        num_false += any(verdict in ("better", "worse") for verdict in verdicts)
    assert num_false <= stats.binom.ppf(0.999, num_tables, 0.05)


def test_a_verdict_is_in_the_direction_in_which_the_measure_is_good() -> None:
    good, bad = {0: 10.0, 1: 10.5, 2: 9.8}, {0: 5.0, 1: 5.2, 2: 5.1}
    scores = {label: {"reference": good, "other": bad} for label in ("top-1", "error")}
    table = summarise(scores, [TOP1, ERROR], methods=["reference", "other"], reference="reference")
    assert [table.entries["other", label].difference.verdict for label in ("top-1", "error")] == [  # type: ignore[union-attr]
        "worse",
        "better",
    ]
    assert table.entries["reference", "error"].difference is None


def test_each_measure_is_a_family_of_its_own() -> None:
    draw = np.random.default_rng(5)
    methods = ["reference", "a", "b", "c"]
    scores = {
        label: {name: dict(enumerate(draw.normal(2 * place, 1, 4).tolist())) for place, name in enumerate(methods)}
        for label in ("top-1", "error")
    }
    table = summarise(scores, [TOP1, ERROR], methods=methods, reference="reference")
    for label in ("top-1", "error"):
        found = [table.entries[name, label].difference for name in "abc"]
        p_values = [
            stats.ttest_rel(list(scores[label][name].values()), list(scores[label]["reference"].values())).pvalue
            for name in "abc"
        ]
        for one, adjusted in zip(found, holm_adjusted(p_values), strict=True):
            assert one is not None
            assert one.adjusted_p_value == pytest.approx(adjusted)


def test_a_method_that_lacks_seeds_or_all_is_shown_with_what_there_is() -> None:
    scores = {"top-1": {"reference": {0: 1.0, 1: 2.0}, "a": {1: 5.0}}}
    table = summarise(scores, [TOP1, ERROR], methods=["reference", "a", "b"], reference="reference")
    assert set(table.entries) == {("reference", "top-1"), ("a", "top-1")}
    found = table.entries["a", "top-1"].difference
    assert found is not None
    assert (found.seeds, found.mean, found.verdict) == ((1,), 3.0, "not tested")


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({"other": {"a": {0: 1.0}}}, "other: no measure"),
        ({"top-1": {"x": {0: 1.0}}}, "x is no method"),
        ({"top-1": {"a": {0: 1.0, 4: math.nan}}}, "seed 4: nan"),
        ({"top-1": {"a": {0: math.inf}}}, "seed 0: inf"),
    ],
)
def test_what_does_not_belong_is_named(scores: dict[str, dict[str, dict[int, float]]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        summarise(scores, [TOP1], methods=["a"], reference="a")
