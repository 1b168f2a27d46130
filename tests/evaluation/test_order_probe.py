"""The probe without a bias on changes: its optimum, its symmetry, and the choice of its penalty."""

import numpy as np
import pytest
from scipy.special import expit

from earmark.evaluation.order_probe import choose_penalty, fit_order_probe, share_right


def _changes(num_moments: int, seed: int = 0) -> np.ndarray:
    """Changes (N, 5) whose first feature mostly rises; the others fall as often as they rise."""
    rng = np.random.default_rng(seed)
    changes = rng.normal(size=(num_moments, 5))
    changes[:, 0] += 1.5
    return changes


def test_the_weights_are_where_the_gradient_is_zero() -> None:
    changes = _changes(200)
    probe = fit_order_probe(changes, penalty=0.01)
    scaled = changes / np.sqrt((changes**2).mean(axis=0))
    gradient = 0.01 * probe.weights - (scaled * expit(-(scaled @ probe.weights))[:, None]).mean(axis=0)
    assert np.abs(gradient).max() < 1e-6
    assert probe.margins(changes) == pytest.approx(scaled @ probe.weights)


def test_a_pair_the_other_way_round_gets_the_opposite_answer() -> None:
    probe = fit_order_probe(_changes(50), penalty=0.1)
    shown = _changes(30, seed=1)
    assert np.array_equal(probe.margins(shown), -probe.margins(-shown))
    assert share_right(probe.margins(shown)) == pytest.approx(1 - share_right(probe.margins(-shown)))


def test_units_do_not_matter_and_what_never_changes_is_left_out() -> None:
    changes, shown = _changes(80), _changes(40, seed=1)
    factors = np.array([1e-4, 1, 1e4, 3, 0])
    plain, scaled = fit_order_probe(changes[:, :4], penalty=0.01), fit_order_probe(changes * factors, penalty=0.01)
    assert scaled.margins(shown * factors) == pytest.approx(plain.margins(shown[:, :4]), abs=1e-4)
    assert scaled.direction[4] == 0


def test_changes_without_a_direction_are_at_chance_and_equal_clips_are_guessed() -> None:
    rng = np.random.default_rng(0)
    train, shown = rng.normal(size=(400, 4)), rng.normal(size=(2000, 4))
    assert share_right(fit_order_probe(train, penalty=0.1).margins(shown)).mean() == pytest.approx(0.5, abs=0.05)
    assert (share_right(fit_order_probe(np.zeros((9, 4)), penalty=0.1).margins(shown)) == 0.5).all()


def test_the_penalty_is_chosen_on_videos_that_are_held_out() -> None:
    """More features of noise than moments: without a penalty the training moments are told, and no others."""
    rng = np.random.default_rng(0)
    changes = np.concatenate([_changes(40), rng.normal(size=(40, 200))], axis=1)
    videos = [f"v{k // 2}" for k in range(40)]
    chosen = choose_penalty(changes, train_videos=videos, seed=1)
    assert chosen["penalty"] >= 0.1
    assert chosen["held_out_moments"] == 8
    with pytest.raises(ValueError, match="only 1 training video"):
        choose_penalty(changes, train_videos=["v"] * 40)


@pytest.mark.parametrize(("changes", "penalty"), [(np.zeros((0, 3)), 0.1), (np.full((2, 3), np.inf), 0.1)])
def test_changes_that_say_nothing_are_refused(changes: np.ndarray, penalty: float) -> None:
    with pytest.raises(ValueError, match="finite changes"):
        fit_order_probe(changes, penalty=penalty)
    with pytest.raises(ValueError, match="penalty"):
        fit_order_probe(np.ones((2, 3)), penalty=0.0)
