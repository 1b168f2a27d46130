"""Ranks of the right candidate with ties, recall, medians over draws; against loops in plain Python."""

import statistics
from itertools import permutations

import numpy as np
import pytest

from earmark.evaluation.ranking import cosine_similarities, median_measure, ranks_of_own


def test_ranks_and_recall_are_means_over_the_orders_that_ties_allow() -> None:
    rng = np.random.default_rng(0)
    similarities = rng.integers(0, 4, (7, 5)) / 4
    own = rng.integers(0, 5, 7)
    ranks = ranks_of_own(similarities, own)
    for query, candidate in enumerate(own.tolist()):
        places = []
        for order in permutations(range(5)):  # all orders, sorted stably, leave equal ones in each of their orders
            ranked = sorted(order, key=lambda c: -similarities[query, c])
            places.append(1 + ranked.index(candidate))
        assert ranks.ranks[query] == pytest.approx(statistics.mean(places))
        for k in (1, 2, 5):
            assert ranks.hits(k)[query] == pytest.approx(statistics.mean(place <= k for place in places))


def test_a_map_to_one_point_is_at_chance() -> None:
    ranks = ranks_of_own(cosine_similarities(np.ones((20, 3)), np.full((20, 3), 0.1)), np.arange(20))
    assert np.allclose(ranks.hits(1), 1 / 20)
    assert np.allclose(ranks.hits(5), 5 / 20)
    assert (ranks.ranks == 10.5).all()


def test_similarities_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        ranks_of_own(np.array([[np.nan, 1.0]]), np.array([0]))


def test_the_median_counts_each_video_as_often_as_it_was_drawn() -> None:
    rng = np.random.default_rng(1)
    values, groups = rng.integers(1, 9, 12).astype(float), rng.integers(0, 4, 12)
    counts = rng.multinomial(4, [0.25] * 4, size=20).astype(float)
    measured = median_measure(values, groups, 4)(counts)
    for times, median in zip(counts, measured, strict=True):
        drawn = [value for value, group in zip(values, groups, strict=True) for _ in range(int(times[group]))]
        assert (np.isnan(median) and not drawn) or median == statistics.median(drawn)
