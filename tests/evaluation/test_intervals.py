"""Intervals of means: closed forms, matrices written out, and how often they hold the truth."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest, norm
from scipy.stats import t as student_t

from earmark.evaluation import intervals
from earmark.evaluation.intervals import mean_interval, paired_interval

PERCENT = (0.0, 100.0)


def test_of_many_independent_samples_it_is_wilsons_interval() -> None:
    correct = np.arange(2000) % 10 < 3  # 30 %
    wilson = binomtest(600, 2000).proportion_ci(method="wilson")
    np.testing.assert_allclose(
        mean_interval(100.0 * correct, bounds=PERCENT), (100 * wilson.low, 100 * wilson.high), atol=0.01
    )
    narrower = binomtest(600, 2000).proportion_ci(0.68, method="wilson")
    low, high = mean_interval(correct, bounds=(0, 1), confidence=0.68)
    np.testing.assert_allclose((low, high), (narrower.low, narrower.high), atol=1e-4)


def test_videos_of_one_size_give_students_interval_of_video_means() -> None:
    """Scores near the middle of wide bounds: there Wilson's interval is the plain one, mean +- t s / sqrt(G)."""
    means = np.array([3.0, -1.0, 4.0, 1.0, -5.0, 9.0])
    values, videos = np.repeat(means, 7), np.repeat([f"P01_{number:02}" for number in range(6)], 7)
    half = student_t.ppf(0.975, 5) * means.std(ddof=1) / np.sqrt(6)
    expected = means.mean() - half, means.mean() + half
    np.testing.assert_allclose(mean_interval(values, bounds=(-1e4, 1e4), groups=videos), expected, atol=1e-3)


def test_variance_and_degrees_of_freedom_of_unequal_videos_are_those_of_the_matrices() -> None:
    """Bell and McCaffrey's estimator for a regression on a constant, by matrices over single samples."""
    rng = np.random.default_rng(3)
    sizes = np.array([3, 11, 5, 2, 7])
    groups, values = np.repeat(np.arange(5), sizes), rng.random(28)
    ones = np.ones((28, 1))
    residual_maker = np.eye(28) - ones @ ones.T / 28
    rows = []  # rows[g] @ values is what group g adds to the mean's error, its residuals enlarged by (I - H_gg)^-1/2
    for group in range(5):
        mine = groups == group
        share = np.eye(sizes[group]) - np.ones((sizes[group], sizes[group])) / 28
        eigenvalues, vectors = np.linalg.eigh(share)
        enlarge = vectors @ np.diag(eigenvalues**-0.5) @ vectors.T
        rows.append(np.ones(sizes[group]) @ enlarge @ residual_maker[mine] / 28)
    estimator = np.array(rows)
    totals = np.bincount(groups, weights=values)
    assert intervals._variance(totals, sizes) == pytest.approx(float(((estimator @ values) ** 2).sum()), rel=1e-12)
    together = (groups[:, None] == groups[None, :]).astype(float)
    covariance = estimator @ together @ estimator.T
    expected = np.trace(covariance) ** 2 / (covariance**2).sum()
    assert intervals._degrees_of_freedom(sizes) == pytest.approx(expected, rel=1e-10)
    assert intervals._degrees_of_freedom(np.array([9] * 6)) == pytest.approx(5.0)


@pytest.mark.parametrize("num_videos", [1, 2, 7])
def test_samples_that_are_all_alike_leave_room_for_videos_that_are_not(num_videos: int) -> None:
    """All wrong in G videos: as likely as 2.5 % where a share 1 - 0.025^(1/G) of videos is all right."""
    videos = np.repeat(np.arange(num_videos), 5)
    others = 100 * (1 - 0.025 ** (1 / num_videos))
    assert mean_interval(np.zeros(5 * num_videos), bounds=PERCENT, groups=videos) == (0.0, pytest.approx(others))
    low, high = mean_interval(np.full(5 * num_videos, 100.0), bounds=PERCENT, groups=videos)
    assert (low, high) == (pytest.approx(100 - others), 100.0)
    low, high = paired_interval(np.ones(5 * num_videos), np.ones(5 * num_videos), bounds=(0, 1), groups=videos)
    assert (low, high) == (pytest.approx(-others / 100), pytest.approx(others / 100))


def test_one_video_says_next_to_nothing_of_others_whatever_is_in_it() -> None:
    low, high = mean_interval([0.0, 100.0, 100.0, 0.0] * 25, bounds=PERCENT, groups=["P01_01"] * 100)
    assert (low, high) == (pytest.approx(1.25), pytest.approx(98.75))


def test_videos_with_the_same_accuracy_by_chance_are_no_surer_than_independent_actions() -> None:
    values, videos = [0.0, 100.0] * 20, np.repeat([0, 1], 20)
    low, high = mean_interval(values, bounds=PERCENT, groups=videos)
    low_independent, high_independent = mean_interval(values, bounds=PERCENT)
    assert low == pytest.approx(100 - high)
    assert low < low_independent < high_independent < high


def unequal_videos(rng: np.random.Generator, num_videos: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Draw actions of videos of 2 to some hundred actions, right in 30 % of cases, alike within a video (ICC 0.1)."""
    sizes = np.maximum(2, np.round(rng.lognormal(np.log(20), 0.7, num_videos))).astype(int)
    videos = np.repeat(np.arange(num_videos), sizes)
    accuracy = rng.beta(0.3 * 9, 0.7 * 9, size=num_videos)
    return (rng.random(len(videos)) < accuracy[videos]).astype(float), videos


@pytest.mark.parametrize(
    ("num_videos", "num_trials", "most"), [(2, 600, 0.985), (4, 600, 0.995), (10, 600, 0.985), (40, 600, 0.98)]
)
def test_intervals_hold_the_truth_as_often_as_they_say(num_videos: int, num_trials: int, most: float) -> None:
    rng = np.random.default_rng(num_videos)
    held = 0
    for _ in range(num_trials):
        right, videos = unequal_videos(rng, num_videos)
        low, high = mean_interval(right, bounds=(0, 1), groups=videos)
        held += low <= 0.3 <= high
    assert 0.93 <= held / num_trials <= most


@pytest.mark.parametrize("num_videos", [3, 10])
def test_intervals_of_gains_hold_the_truth_as_often_as_they_say(num_videos: int) -> None:
    rng = np.random.default_rng(num_videos)
    held = 0
    for _ in range(600):  # the second answers 20 % of actions anew: a true gain of 0.2 * (0.8 - 0.3) = 0.1
        right, videos = unequal_videos(rng, num_videos)
        better = np.where(rng.random(len(right)) < 0.2, rng.random(len(right)) < 0.8, right)
        low, high = paired_interval(better, right, bounds=(0, 1), groups=videos)
        held += low <= 0.1 <= high
    assert 0.93 <= held / 600 <= 0.995


def test_paired_interval_is_that_of_the_difference_and_narrower_than_unpaired() -> None:
    rng = np.random.default_rng(2)
    baseline = rng.random(1000) < 0.5
    better = baseline | (rng.random(1000) < 0.1)
    low, high = paired_interval(better, baseline, bounds=(0, 1))
    gain = better.astype(float) - baseline
    expected = gain.mean() + gain.std() / np.sqrt(1000) * norm.ppf([0.025, 0.975])
    np.testing.assert_allclose([low, high], expected, atol=0.003)
    assert low > 0
    assert paired_interval(baseline, better, bounds=(0, 1)) == pytest.approx((-high, -low))


def test_an_interval_turns_and_scales_with_its_values() -> None:
    right, videos = unequal_videos(np.random.default_rng(0), 5)
    low, high = mean_interval(right, bounds=(0, 1), groups=videos)
    assert 0 < low < right.mean() < high < 1
    assert mean_interval(1 - right, bounds=(0, 1), groups=videos) == pytest.approx((1 - high, 1 - low))
    assert mean_interval(100 * right - 7, bounds=(-7, 93), groups=videos) == pytest.approx(
        (100 * low - 7, 100 * high - 7)
    )
    order = np.random.default_rng(1).permutation(len(right))
    names = np.array([f"video {number}" for number in videos])
    assert mean_interval(right[order], bounds=(0, 1), groups=names[order]) == pytest.approx((low, high))


@pytest.mark.parametrize("values", [[], [[1.0]], [np.nan, 1.0]])
def test_what_has_no_mean_is_refused(values: object) -> None:
    with pytest.raises(ValueError, match="finite values"):
        mean_interval(values, bounds=(0, 1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([1.0, 0.0], bounds=(0, 1), groups=[1]), "one group per value"),
        (lambda: mean_interval([1.0, 0.0], bounds=(0, 1), confidence=1.0), "confidence"),
        (lambda: mean_interval([1.0, 2.0], bounds=(0, 1)), r"reach from 1\.0 to 2\.0"),
        (lambda: mean_interval([1.0, 1.0], bounds=(1, 1)), "bounds"),
        (lambda: paired_interval([1.0, 0.0], [1.0], bounds=(0, 1)), "one shape"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
