"""The linear map of clips and sounds: what it finds, that units do not matter, and what chooses its shrinkage."""

import numpy as np
import pytest
from scipy.linalg import eigh

from earmark.evaluation.canonical_correlation import choose_shrinkage, fit_linear_map
from earmark.evaluation.retrieval import WAYS, WayRanks


def _pairs(num_moments: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Clips (N, 2, 6) and sounds (N, 5) that share three directions, with noise."""
    rng = np.random.default_rng(seed)
    to_clips, to_sounds = np.random.default_rng(7).normal(size=(3, 6)), np.random.default_rng(8).normal(size=(3, 5))
    common = rng.normal(size=(num_moments, 3))
    clips = (common @ to_clips)[:, None] + 0.3 * rng.normal(size=(num_moments, 2, 6))
    return clips, common @ to_sounds + 0.3 * rng.normal(size=(num_moments, 5))


def test_correlations_are_those_of_the_generalised_eigenproblem() -> None:
    clips, sounds = _pairs(300)
    shrinkage = 0.05
    x, y = clips.reshape(-1, 6), np.repeat(sounds, 2, axis=0)
    x, y = (x - x.mean(0)) / x.std(0), (y - y.mean(0)) / y.std(0)
    cross = x.T @ y / len(x)
    regularised_x, regularised_y = x.T @ x / len(x) + shrinkage * np.eye(6), y.T @ y / len(y) + shrinkage * np.eye(5)
    squares = eigh(cross @ np.linalg.solve(regularised_y, cross.T), regularised_x, eigvals_only=True)[::-1]
    fitted = fit_linear_map(clips, sounds, shrinkage=shrinkage)
    assert fitted.correlations == pytest.approx(np.sqrt(np.maximum(squares[:5], 0)), abs=1e-9)
    assert fitted.correlations[:3].min() > 0.8 > 0.2 > fitted.correlations[3:].max()


def test_it_finds_the_own_clip_of_moments_that_it_has_not_seen_whatever_the_units() -> None:
    clips, sounds = _pairs(400)
    test_clips, test_sounds = _pairs(50, seed=1)
    fitted = fit_linear_map(clips, sounds, shrinkage=1e-3)
    ranks = WayRanks.of_embeddings(fitted.clips(test_clips), fitted.sounds(test_sounds))
    assert all(ranks.hits(way, 5).mean() > 0.7 for way in WAYS)  # 0.1 is chance
    factors = np.array([1e-3, 1, 1e3, 5, 1, 1])
    scaled = fit_linear_map(clips * factors + 3, sounds - 2, shrinkage=1e-3)
    again = WayRanks.of_embeddings(scaled.clips(test_clips * factors + 3), scaled.sounds(test_sounds - 2))
    for way in WAYS:
        assert np.array_equal(ranks.ranks(way), again.ranks(way))


def test_a_feature_that_never_varies_is_left_out() -> None:
    clips, sounds = _pairs(60)
    constant = np.concatenate([clips, np.full((60, 2, 1), 0.1)], axis=2)
    fitted, with_constant = (fit_linear_map(of, sounds, shrinkage=0.1) for of in (clips, constant))
    assert with_constant.correlations == pytest.approx(fitted.correlations)
    assert not np.allclose(with_constant.clips(constant), 0)
    moved = constant.copy()
    moved[..., -1] = 55.0
    assert np.allclose(with_constant.clips(moved), with_constant.clips(constant))


def test_the_shrinkage_is_chosen_on_videos_that_are_held_out() -> None:
    """Few moments and many features of noise: the least shrinkage fits them best, and others worst."""
    rng = np.random.default_rng(0)
    clips, sounds = _pairs(40)
    clips = np.concatenate([clips, rng.normal(size=(40, 2, 60))], axis=2)
    sounds = np.concatenate([sounds, rng.normal(size=(40, 60))], axis=1)
    chosen = choose_shrinkage(clips, sounds, train_videos=[f"v{k // 4}" for k in range(40)], seed=3)
    assert chosen["shrinkage"] >= 0.1
    assert chosen["held_out_moments"] == 8
    assert 0 < chosen["held_out_reciprocal_rank"] <= 100
    with pytest.raises(ValueError, match="only 1 training video"):
        choose_shrinkage(clips, sounds, train_videos=["v"] * 40)


@pytest.mark.parametrize(
    ("clips", "sounds", "shrinkage", "words"),
    [
        (np.ones((3, 2, 4)), np.ones((2, 4)), 0.1, r"\(3, 2, 4\) and \(2, 4\)"),
        (np.ones((3, 2, 4)), np.full((3, 4), np.nan), 0.1, "finite"),
        (np.ones((3, 2, 4)), np.ones((3, 4)), 0.0, "positive"),
    ],
)
def test_what_does_not_fit_is_refused(clips: np.ndarray, sounds: np.ndarray, shrinkage: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fit_linear_map(clips, sounds, shrinkage=shrinkage)
