"""Neighbours that tell a verb from the one that undoes it: mean over verbs, paired with what is seen, whitening."""

import numpy as np
import pytest

from earmark.evaluation.neighbours import nearest_of_other_videos, neighbour_precision
from earmark.evaluation.opposite_verbs import (
    VIEWS,
    choose_whitening,
    measure_opposites,
    opposite_precision,
    views_of,
)
from earmark.evaluation.whitening import WHITENING_SHRINKAGES, fit_whitenings

NAMES = ["open", "close", "take", "put", "cut"]
PAIRS = [(0, 1), (2, 3)]


def moments(seed: int, *, num_videos: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (N, 2, D), verbs and videos; much of a change has nothing to do with its verb."""
    rng = np.random.default_rng(seed)
    verbs = np.tile([0, 0, 0, 1, 4], num_videos)  # three openings for each closing
    videos = np.repeat(np.arange(num_videos), 5)
    before = rng.normal(size=(len(verbs), 8))
    change = 0.3 * rng.normal(size=(len(verbs), 8))
    change[:, :2] += 5 * rng.normal(size=(len(verbs), 2)) + 3  # where the hand was, and that it came
    change[:, 2] += np.array([1.0, -1.0, 0, 0, 0])[verbs]  # what was done
    change = change @ np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0]  # no feature is one of these alone
    return np.stack([before, before + change], axis=1), verbs, videos


def test_each_pair_is_its_own_gallery() -> None:
    rng = np.random.default_rng(0)
    vectors, labels, videos = rng.normal(size=(40, 3)), rng.integers(-1, 5, 40), rng.integers(0, 6, 40)
    found = opposite_precision(vectors, labels, videos, PAIRS)
    assert np.isnan(found[(labels < 0) | (labels == 4)]).all()
    for pair in PAIRS:
        rows = np.isin(labels, pair)
        nearest = nearest_of_other_videos(vectors[rows], videos[rows], k=5)
        assert found[rows] == pytest.approx(neighbour_precision(nearest, labels[rows]), nan_ok=True)


def test_an_answer_that_looks_at_nothing_has_50_whatever_the_numbers_of_the_verbs_are() -> None:
    """Three openings for each closing: neighbours drawn at random are openings three times as often."""
    _, verbs, videos = moments(0, num_videos=60)
    rng = np.random.default_rng(1)
    drawn = {view: rng.normal(size=(len(verbs), 8)) for view in VIEWS}
    result = measure_opposites([drawn], [], labels=verbs, videos=videos.astype(str), class_names=NAMES, pairs=PAIRS)
    assert result is not None
    score = result.precisions["change"]
    assert score.chance == pytest.approx(50, abs=0.1)
    assert score.encoder.low < 50 < score.encoder.high
    shares = opposite_precision(drawn["change"], verbs, videos, PAIRS)
    assert np.nanmean(shares) > 0.55  # as the mean over moments has it
    assert result.pairs == ("open / close",)
    assert (result.num_test_moments, result.num_test_videos) == (240, 60)


def test_the_gain_of_the_change_is_paired_moment_by_moment() -> None:
    features, verbs, videos = moments(0)
    views = views_of(features)
    result = measure_opposites(
        [views], [views], labels=verbs, videos=videos.astype(str), class_names=NAMES, pairs=PAIRS
    )
    assert result is not None
    for view, gain in result.change_gains.items():
        change, seen = (result.precisions[name].encoder for name in ("change", view))
        assert gain.value == pytest.approx(change.value - seen.value)
        assert result.baseline_change_gains[view] == gain
        assert result.precisions[view].gain is not None
        assert result.precisions[view].gain.value == 0  # type: ignore[union-attr]
    assert [row.label for row in result.rows()] == [f"verb, not its opposite, nearest by {view}, P@5" for view in VIEWS]
    same = dict.fromkeys(VIEWS, views["change"])
    alike = measure_opposites([same], [], labels=verbs, videos=None, class_names=NAMES, pairs=PAIRS)
    assert alike is not None
    assert alike.change_gains["clip after"].value == 0
    assert alike.num_test_videos is None
    assert alike.baseline_change_gains == {}


def test_without_opposites_in_other_videos_nothing_is_measured() -> None:
    views = dict.fromkeys(VIEWS, np.ones((4, 2)))
    for labels, videos in (([4, 4, -1, 4], ["a", "b", "c", "d"]), ([0, 1, 0, 1], ["a"] * 4)):
        given = {"labels": np.array(labels), "videos": np.array(videos)}
        assert measure_opposites([views], [], class_names=NAMES, pairs=PAIRS, **given) is None


def test_whitening_is_the_inverse_root_of_the_second_moments() -> None:
    vectors = np.random.default_rng(0).normal(size=(200, 4)) @ np.diag([9.0, 1, 1, 0]) + [2, 0, 0, 0]
    (whitening,) = fit_whitenings(vectors, centred=True, shrinkages=[1e-9])
    assert np.cov(whitening(vectors).T, bias=True)[:3, :3] == pytest.approx(np.eye(3), abs=1e-6)
    (slight,) = fit_whitenings(vectors, centred=False, shrinkages=[1e9])
    scaled = vectors[:, :3] / np.sqrt((vectors[:, :3] ** 2).mean(axis=0))
    assert slight(vectors)[:, :3] * np.sqrt(1e9) == pytest.approx(scaled, rel=1e-6)
    assert (slight(vectors)[:, 3] == 0).all()  # what never varies has nothing to say
    with pytest.raises(ValueError, match="must be positive"):
        fit_whitenings(vectors, centred=True, shrinkages=[0.0])
    with pytest.raises(ValueError, match="finite vectors"):
        fit_whitenings(np.full((2, 2), np.nan), centred=True)


def test_the_shrinkage_is_chosen_by_held_out_training_videos() -> None:
    """What all changes share outweighs what was done, unless it is whitened away."""
    features, verbs, videos = moments(2, num_videos=20)
    train_videos = [f"P01_{number:02d}" for number in videos]
    changes = views_of(features)["change"]
    options = {"train_videos": train_videos, "pairs": PAIRS, "centred": False, "held_out": 0.5}
    whitening, chosen = choose_whitening(changes, verbs, **options)
    assert chosen["shrinkage"] < WHITENING_SHRINKAGES[0]
    assert chosen["held_out_moments"] == 40
    others, of_others, in_videos = moments(3)
    found = [
        np.nanmean(opposite_precision(vectors, of_others, in_videos, PAIRS))
        for vectors in (views_of(others)["change"], whitening(views_of(others)["change"]))
    ]
    assert found[1] > found[0] + 0.1
    assert choose_whitening(changes, np.full(100, -1), **options)[1] == {"shrinkage": WHITENING_SHRINKAGES[0]}
