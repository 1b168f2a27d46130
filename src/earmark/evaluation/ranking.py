"""Where the right candidate stands among all, and what is measured by it: recall at k, the median rank.

Path of a sample: embeddings --similarities--> ranks --here--> measures. Pure functions of arrays.

Letters: Q queries, C candidates, B draws, G videos.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from earmark.evaluation.resampling import Measure

__all__ = ["Ranks", "cosine_similarities", "median_measure", "ranks_of_own", "unit_vectors"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ranks:
    """Where the candidate that belongs to each query stands.

    Equal similarities are taken as if their order was drawn: a map that puts everything at one place is at chance, and
    not right or wrong by the order of the candidates.

    Attributes:
        num_above: Candidates that are more similar, int64 ``(Q,)``.
        num_equal: Candidates that are as similar, the right one among them, int64 ``(Q,)``.
        num_candidates: C.

    Example:
        >>> ranks = ranks_of_own(np.array([[0.9, 0.5, 0.5], [0.1, 0.1, 0.0]]), np.array([0, 1]))
        >>> ranks.hits(1), ranks.ranks
        (array([1. , 0.5]), array([1. , 1.5]))
    """

    num_above: npt.NDArray[np.int64]
    num_equal: npt.NDArray[np.int64]
    num_candidates: int

    @property
    def ranks(self) -> Floats:
        """Rank of the right candidate, 1 for the first; of equal ones the mean of their places."""
        ranks: Floats = 1.0 + self.num_above + (self.num_equal - 1) / 2
        return ranks

    def hits(self, k: int) -> Floats:
        """Return the probability that the right candidate is among the first k, ``(Q,)``: 0 or 1 but for ties."""
        shares: Floats = np.clip((k - self.num_above) / self.num_equal, 0.0, 1.0)
        return shares


def cosine_similarities(queries: npt.ArrayLike, candidates: npt.ArrayLike) -> Floats:
    """Return the cosine of every query with every candidate, ``(Q, C)``; 0 where a vector has no length.

    Rounded to ten decimals: candidates with equal vectors must tie, and the last bits of a product of matrices differ
    between its columns.

    Args:
        queries: ``(Q, D)``.
        candidates: ``(C, D)``.

    Example:
        >>> cosine_similarities([[3.0, 4.0]], [[0.0, 2.0], [0.0, 0.0]])
        array([[0.8, 0. ]])
    """
    similarities: Floats = np.round(unit_vectors(queries) @ unit_vectors(candidates).T, 10)
    return similarities


def unit_vectors(vectors: npt.ArrayLike) -> Floats:
    """Return vectors of length 1 in the same directions, ``(N, D)``; zeros where a vector has no length.

    Args:
        vectors: ``(N, D)``.

    Example:
        >>> unit_vectors([[3.0, 4.0], [0.0, 0.0]])
        array([[0.6, 0.8],
               [0. , 0. ]])
    """
    values = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    units: Floats = np.divide(values, lengths, out=np.zeros_like(values), where=lengths > 0)
    return units


def ranks_of_own(similarities: npt.NDArray[np.floating], own: npt.NDArray[np.int64]) -> Ranks:
    """Return where each query's own candidate stands.

    Args:
        similarities: ``(Q, C)``.
        own: Number of the candidate that belongs to each query, ``(Q,)``.

    Raises:
        ValueError: If a similarity is not finite.
    """
    if not np.isfinite(similarities).all():
        raise ValueError("similarities must be finite")
    of_own = similarities[np.arange(len(own)), own][:, None]
    return Ranks(
        num_above=(similarities > of_own).sum(axis=1),
        num_equal=(similarities == of_own).sum(axis=1),
        num_candidates=similarities.shape[1],
    )


def median_measure(values: npt.ArrayLike, groups: npt.NDArray[np.int64], num_groups: int) -> Measure:
    """Return the median of values for `earmark.evaluation.resampling.estimate_measure`.

    Args:
        values: Of each sample, ``(N,)``.
        groups: Number of each sample's video, ``(N,)``.
        num_groups: How many videos there are, G.

    Example:
        >>> of_draws = median_measure([1.0, 5.0, 2.0], np.array([0, 1, 1]), 2)
        >>> of_draws(np.array([[1.0, 1.0], [2.0, 0.0], [2.0, 1.0]]))
        array([2. , 1. , 1.5])
    """
    numbers = np.asarray(values, np.float64)
    if numbers.shape != groups.shape or (len(groups) and groups.max() >= num_groups):
        raise ValueError(f"need a video below {num_groups} for each value, got {numbers.shape} and {groups.shape}")
    order = np.argsort(numbers, kind="stable")
    ascending, of_group = numbers[order], groups[order]

    def measure(counts: Floats) -> Floats:
        medians: Floats = np.full(len(counts), np.nan)
        for row, times in enumerate(counts):
            up_to = times[of_group].cumsum()
            if up_to[-1] > 0:
                half = up_to[-1] / 2
                lower, upper = np.searchsorted(up_to, half, side="left"), np.searchsorted(up_to, half, side="right")
                medians[row] = (ascending[lower] + ascending[upper]) / 2
        return medians

    return measure
