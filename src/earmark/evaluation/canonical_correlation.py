r"""A linear map of clips and of sounds into one space, fitted on training moments: regularised canonical correlation.

Path of a sample: features of clips and of sounds --map--> embeddings that can be compared --ranking--> ranks.

With covariances :math:`C_{vv}, C_{aa}, C_{va}` of features that have mean 0 and standard deviation 1, and a shrinkage
:math:`\lambda`,

.. math::
    (C_{vv} + \lambda I)^{-1/2}\, C_{va}\, (C_{aa} + \lambda I)^{-1/2} = U S W^T

and a clip is embedded as :math:`S U^T (C_{vv} + \lambda I)^{-1/2} v`, a sound with :math:`W` in the same way: each pair
of directions counts by its correlation. There is nothing to draw and no learning rate, so that every encoder gets the
best map of this kind; the one choice, the shrinkage, is made on training videos that are held out.

Source: Hotelling 1936; regularised as by Vinod 1976; weighted by correlations as by Gong et al., arXiv 1212.4522.
Letters: N moments, D features, K directions.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from earmark.evaluation.probe_grid import edge_of, held_out_rows
from earmark.evaluation.ranking import cosine_similarities, ranks_of_own

__all__ = ["SHRINKAGES", "LinearMap", "choose_shrinkage", "fit_linear_map"]

SHRINKAGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)

Floats = npt.NDArray[np.float64]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Side:
    """What is done to the features of one side: centred, scaled and mapped."""

    mean: Floats
    scale: Floats
    weights: Floats

    def __call__(self, features: npt.NDArray[np.floating]) -> Floats:
        embeddings: Floats = ((np.asarray(features, np.float64) - self.mean) * self.scale) @ self.weights
        return embeddings


@dataclass(frozen=True, slots=True)
class LinearMap:
    """The fitted map.

    Attributes:
        clips: Maps features of clips ``(..., D)`` to embeddings ``(..., K)``.
        sounds: Maps features of sounds to embeddings.
        correlations: Of each pair of directions, ``(K,)``, descending.
    """

    clips: _Side
    sounds: _Side
    correlations: Floats


def fit_linear_map(clips: npt.NDArray[np.floating], sounds: npt.NDArray[np.floating], *, shrinkage: float) -> LinearMap:
    """Fit the map to pairs of clips and sounds.

    Args:
        clips: Features of the clips of each moment ``(N, clips, D)``; each of them belongs to the sound.
        sounds: Features of the sounds ``(N, D)``.
        shrinkage: Added to each variance, which are 1; positive.

    Raises:
        ValueError: If shapes do not fit together, features are not finite, or the shrinkage is not positive.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> sounds = rng.normal(size=(200, 3))
        >>> fitted = fit_linear_map(np.repeat(sounds[:, None] @ rng.normal(size=(3, 3)), 2, 1), sounds, shrinkage=1e-4)
        >>> fitted.correlations.round(2)
        array([1., 1., 1.])
    """
    if clips.ndim != 3 or sounds.ndim != 2 or len(clips) != len(sounds) or len(sounds) == 0:
        raise ValueError(f"need clips (N, clips, D) and sounds (N, D), got {clips.shape} and {sounds.shape}")
    if not shrinkage > 0:
        raise ValueError(f"the shrinkage must be positive, got {shrinkage}")
    num_clips = clips.shape[1]
    of_clips = clips.reshape(-1, clips.shape[2]).astype(np.float64)
    of_sounds = sounds.astype(np.float64)
    if not (np.isfinite(of_clips).all() and np.isfinite(of_sounds).all()):
        raise ValueError("features must be finite")
    standard, means, scales = [], [], []
    for features in (of_clips, of_sounds):
        mean, deviation = features.mean(axis=0), features.std(axis=0)
        # what does not vary has nothing to say, and no scale
        constant = deviation <= 1e-9 * (np.abs(mean) + 1)
        scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=~constant)
        standard.append((features - mean) * scale)
        means.append(mean)
        scales.append(scale)
    x, y = standard
    whitened_x = _inverse_root(x.T @ x / len(x), shrinkage)
    whitened_y = _inverse_root(y.T @ y / len(y), shrinkage)
    # the sound of a moment stands beside each of its clips
    cross = x.reshape(len(sounds), num_clips, -1).sum(axis=1).T @ y / len(x)
    u, correlations, w = np.linalg.svd(whitened_x @ cross @ whitened_y, full_matrices=False)
    return LinearMap(
        clips=_Side(means[0], scales[0], whitened_x @ u * correlations),
        sounds=_Side(means[1], scales[1], whitened_y @ w.T * correlations),
        correlations=correlations,
    )


def choose_shrinkage(
    clips: npt.NDArray[np.floating],
    sounds: npt.NDArray[np.floating],
    *,
    train_videos: Sequence[str],
    shrinkages: Sequence[float] = SHRINKAGES,
    held_out: float = 0.2,
    seed: int = 0,
) -> dict[str, float]:
    """Choose a shrinkage on training videos that are held out.

    The best is the one with the greatest mean reciprocal rank on moments of the held-out videos, both ways, after
    fitting on the others; of equals the first.

    Args:
        clips: As `fit_linear_map`.
        sounds: As `fit_linear_map`.
        train_videos: Video of each moment.
        shrinkages: To choose among.
        held_out: Share of the videos to hold out.
        seed: Of the division.

    Returns:
        ``shrinkage``; ``held_out_reciprocal_rank`` in %, over ``held_out_moments``; ``shrinkage_on_edge``, which is 1
        for the largest of those tried, -1 for the smallest, else 0.

    Raises:
        ValueError: As `fit_linear_map`, or if there are fewer than two videos.
    """
    rows = held_out_rows(train_videos, share=held_out, seed=seed)
    qualities = []
    for shrinkage in shrinkages:
        fitted = fit_linear_map(clips[~rows], sounds[~rows], shrinkage=shrinkage)
        qualities.append(_mean_reciprocal_rank(fitted.clips(clips[rows]), fitted.sounds(sounds[rows])))
    best = int(np.argmax(qualities))
    edge = edge_of(shrinkages[best], shrinkages)
    if edge:
        _logger.warning(
            "the chosen shrinkage %g is the %s of those tried", shrinkages[best], "largest" if edge > 0 else "smallest"
        )
    return {
        "shrinkage": shrinkages[best],
        "held_out_reciprocal_rank": 100 * qualities[best],
        "held_out_moments": float(rows.sum()),
        "shrinkage_on_edge": edge,
    }


def _mean_reciprocal_rank(clips: Floats, sounds: Floats) -> float:
    """Return it over both ways and all clips of a moment."""
    own = np.arange(len(sounds))
    values = []
    for clip in range(clips.shape[1]):
        similarities = cosine_similarities(sounds, clips[:, clip])
        values += [1 / ranks_of_own(way, own).ranks for way in (similarities, similarities.T)]
    return float(np.mean(values))


def _inverse_root(covariance: Floats, shrinkage: float) -> Floats:
    """Return (C + shrinkage I)^(-1/2)."""
    values, vectors = np.linalg.eigh(covariance)
    roots: Floats = (vectors / np.sqrt(np.maximum(values, 0) + shrinkage)) @ vectors.T
    return roots
