"""Sequences of coming actions: drawn from predicted distributions, the most probable ones, and those of baselines.

Path of a sample: features --head--> distributions of each coming action --here--> K sequences --> edit distance.

Everything here is a pure function of arrays. Letters: N windows, Z coming actions, C classes, K sequences.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "MarkovChain",
    "fit_markov_chain",
    "most_frequent_classes",
    "most_probable_sequences",
    "repeated_classes",
    "sample_sequences",
]

Classes = NDArray[np.int64]

_ROWS_AT_ONCE = 2**22  # numbers of a block of transitions: 32 MiB


def sample_sequences(probabilities: ArrayLike, uniform: ArrayLike) -> Classes:
    """Draw sequences from distributions that do not depend on each other, by inverting their cumulative sums.

    Args:
        probabilities: Of each class at each step, shape ``(N, Z, C)``, not negative; each row is divided by its sum.
        uniform: A number from [0, 1) for each class that is drawn, shape ``(N, Z, K)``.

    Returns:
        Class ids, shape ``(N, Z, K)``. A class of probability 0 is never drawn.

    Raises:
        ValueError: If shapes do not fit, or a row holds anything but probabilities of which one is above 0.

    Example:
        >>> sample_sequences([[[0.5, 0.0, 0.5]]], [[[0.0, 0.49, 0.5, 0.99]]])
        array([[[0, 0, 2, 2]]])
    """
    import torch  # not above: files of predictions are scored beside the baselines, without torch

    table, draws = np.asarray(probabilities, dtype=np.float64), np.asarray(uniform, dtype=np.float64)
    if table.ndim != 3 or draws.ndim != 3 or table.shape[:2] != draws.shape[:2]:
        raise ValueError(f"need probabilities (N, Z, C) and draws (N, Z, K), got {table.shape} and {draws.shape}")
    cumulative = table.cumsum(axis=-1)
    totals = cumulative[..., -1:]
    if not (np.isfinite(totals).all() and (table >= 0).all() and (totals > 0).all()):
        raise ValueError("a row of probabilities is negative, not finite or all 0")
    found = torch.searchsorted(torch.tensor(cumulative / totals), torch.tensor(draws), right=True)
    return found.numpy()


def most_probable_sequences(log_probabilities: ArrayLike, num_sequences: int) -> Classes:
    """Return the K most probable sequences of distributions that do not depend on each other, the best first.

    A beam over the steps, of the K best prefixes. It is exact: a prefix that K others are better than can't be part of
    one of the K best sequences, since what follows is worth the same to all of them.

    Args:
        log_probabilities: Of each class at each step, up to a constant of the step; shape ``(N, Z, C)``.
        num_sequences: K, at most the number of sequences that there are.

    Returns:
        Class ids, shape ``(N, Z, K)``. Of equally probable ones the order is that of the ids at the first step where
        the beam tells them apart.

    Raises:
        ValueError: If the shape does not fit, a number is NaN, or there are fewer than K sequences.

    Example:
        >>> most_probable_sequences(np.log([[[0.9, 0.1], [0.6, 0.4]]]), 3)[0].T
        array([[0, 0],
               [0, 1],
               [1, 0]])
    """
    scores = np.asarray(log_probabilities, dtype=np.float64)
    if scores.ndim != 3 or 0 in scores.shape or np.isnan(scores).any():
        raise ValueError(f"need log probabilities (N, Z, C) that are numbers, got shape {scores.shape}")
    num_windows, num_steps, num_classes = scores.shape
    if num_sequences < 1 or num_sequences > num_classes ** min(num_steps, 64):
        raise ValueError(f"there are no {num_sequences} sequences of {num_steps} of {num_classes} classes")
    classes = np.argsort(-scores, axis=-1, kind="stable")[..., :num_sequences]
    best = np.take_along_axis(scores, classes, axis=-1)  # (N, Z, at most K)
    totals, prefixes = np.zeros((num_windows, 1)), np.zeros((num_windows, 0, 1), np.int64)
    for step in range(num_steps):
        extended = (totals[:, :, None] + best[:, step, None, :]).reshape(num_windows, -1)
        order = np.argsort(-extended, axis=1, kind="stable")[:, :num_sequences]
        prefix, last = np.divmod(order, best.shape[-1])
        totals = np.take_along_axis(extended, order, axis=1)
        prefixes = np.concatenate(
            [
                np.take_along_axis(prefixes, np.broadcast_to(prefix[:, None], (num_windows, step, order.shape[1])), 2),
                np.take_along_axis(classes[:, step], last, axis=1)[:, None],
            ],
            axis=1,
        )
    return prefixes


def most_frequent_classes(labels: ArrayLike, num_sequences: int) -> Classes:
    """Return the K most frequent classes, of equally frequent ones that of the smaller id first.

    Args:
        labels: Class ids, shape ``(N,)``, at least one.
        num_sequences: K. Where there are fewer classes, the last of them fills the rest.

    Example:
        >>> most_frequent_classes([4, 7, 7, 1, 1, 1], 2), most_frequent_classes([4], 2)
        (array([1, 7]), array([4, 4]))
    """
    classes, counts = np.unique(np.asarray(labels, dtype=np.int64), return_counts=True)
    if not len(classes):
        raise ValueError("there is no label to count")
    found = classes[np.argsort(-counts, kind="stable")][:num_sequences]
    return np.concatenate([found, np.repeat(found[-1:], num_sequences - len(found))])


def repeated_classes(last: ArrayLike, most_frequent: ArrayLike, *, num_steps: int) -> Classes:
    """Return sequences of one class each: that of the last action, and behind it the most frequent others.

    Args:
        last: Class of the last action that was seen, shape ``(N,)``.
        most_frequent: As many classes as there are to be sequences, shape ``(K,)``.
        num_steps: Z.

    Returns:
        Shape ``(N, Z, K)``.

    Example:
        >>> repeated_classes([7, 3], [3, 5], num_steps=1)
        array([[[7, 3]],
        <BLANKLINE>
               [[3, 5]]])
    """
    own, frequent = np.asarray(last, dtype=np.int64), np.asarray(most_frequent, dtype=np.int64)
    sequences = np.concatenate([own[:, None], np.broadcast_to(frequent[:-1], (len(own), len(frequent) - 1))], axis=1)
    among = np.concatenate([[0], frequent[:-1]])  # where the last action is a frequent one, the others move up
    for rank in range(1, len(frequent)):
        moved = (among[1 : rank + 1] == own[:, None]).any(axis=1)
        sequences[moved, rank] = frequent[rank]
    return np.repeat(sequences[:, None], num_steps, axis=1)


@dataclass(frozen=True, slots=True)
class MarkovChain:
    """Which class follows which.

    Attributes:
        classes: Ids of the classes that there are, ascending, shape ``(C,)``.
        transitions: Probability that a class (column) follows a class (row), shape ``(C + 1, C)``; the last row is for
            a class that is not among them.
    """

    classes: Classes
    transitions: NDArray[np.float64]

    def states(self, labels: ArrayLike) -> Classes:
        """Return the row of each class id, shape ``(N,)``."""
        ids = np.asarray(labels, dtype=np.int64)
        place = np.minimum(np.searchsorted(self.classes, ids), len(self.classes) - 1)
        return np.where(self.classes[place] == ids, place, len(self.classes))

    def sample(self, last: ArrayLike, uniform: ArrayLike) -> Classes:
        """Draw what follows.

        Args:
            last: Class of the last action that was seen, shape ``(N,)``.
            uniform: A number from [0, 1) for each class that is drawn, shape ``(N, Z, K)``.

        Returns:
            Class ids, shape ``(N, Z, K)``.

        Example:
            >>> chain = fit_markov_chain([[0, 1, 0, 1, 0]])
            >>> chain.sample([0], [[[0.1, 0.3]], [[0.1, 0.3]]][:1]).shape
            (1, 1, 2)
        """
        draws = np.asarray(uniform, dtype=np.float64)
        cumulative = self.transitions.cumsum(axis=1)
        cumulative /= cumulative[:, -1:]
        state = np.repeat(self.states(last)[:, None], draws.shape[2], axis=1)
        drawn = np.empty(draws.shape, np.int64)
        for step in range(draws.shape[1]):
            following = np.empty_like(state)
            for row in np.unique(state):
                here = state == row
                following[here] = np.searchsorted(cumulative[row], draws[:, step][here], side="right")
            drawn[:, step] = state = following
        return self.classes[drawn]

    def most_probable(self, last: ArrayLike, *, num_steps: int, num_sequences: int) -> Classes:
        """Return the K most probable sequences of what follows, the best first.

        Exact, from the last step to the first: the K best ways to go on from a class begin with one of its K best first
        steps, each followed by one of the K best ways to go on from there.

        Args:
            last: Class of the last action that was seen, shape ``(N,)``.
            num_steps: Z.
            num_sequences: K.

        Returns:
            Class ids, shape ``(N, Z, K)``.

        Raises:
            ValueError: If there are fewer than K sequences.

        Example:
            >>> chain = fit_markov_chain([[0, 1, 0, 1, 0]])
            >>> chain.most_probable([0], num_steps=3, num_sequences=2)[0].T
            array([[1, 0, 1],
                   [0, 1, 0]])
        """
        num_rows, num_classes = self.transitions.shape
        if num_sequences < 1 or num_sequences > num_classes ** min(num_steps, 64):
            raise ValueError(f"there are no {num_sequences} sequences of {num_steps} of {num_classes} classes")
        with np.errstate(divide="ignore"):
            logs = np.log(self.transitions)
        values = np.zeros((num_rows, 1))  # of the best ways to go on for the steps that are left
        ways = np.zeros((num_rows, 0, 1), np.int64)
        block = max(1, _ROWS_AT_ONCE // num_classes)
        for _ in range(num_steps):
            found = [
                self._step(logs[start : start + block], values, ways, num_sequences)
                for start in range(0, num_rows, block)
            ]
            values, ways = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return self.classes[ways[self.states(last)]]

    @staticmethod
    def _step(
        logs: NDArray[np.float64], values: NDArray[np.float64], ways: Classes, num_sequences: int
    ) -> tuple[NDArray[np.float64], Classes]:
        first = np.argsort(-(logs + values[:-1, 0]), axis=1, kind="stable")[:, :num_sequences]  # (rows, at most K)
        totals = (np.take_along_axis(logs, first, axis=1)[:, :, None] + values[first]).reshape(len(logs), -1)
        order = np.argsort(-totals, axis=1, kind="stable")[:, :num_sequences]
        step, way = np.divmod(order, values.shape[1])
        chosen = np.take_along_axis(first, step, axis=1)
        longer = np.concatenate([chosen[:, None], ways[chosen, :, way].transpose(0, 2, 1)], axis=1)
        return np.take_along_axis(totals, order, axis=1), longer


def fit_markov_chain(sequences: Sequence[ArrayLike]) -> MarkovChain:
    """Count which class follows which.

    A class is worth one transition more than it has, spread as the classes are in all sequences: from one that is never
    followed by anything, what comes next is as frequent as it is anywhere.

    Args:
        sequences: Class ids of consecutive actions, each of shape ``(n,)``.

    Raises:
        ValueError: If there is no action.

    Example:
        >>> chain = fit_markov_chain([[2, 2, 2, 5]])
        >>> chain.classes, chain.transitions
        (array([2, 5]), array([[0.6875, 0.3125],
               [0.75  , 0.25  ],
               [0.75  , 0.25  ]]))
    """
    runs = [np.asarray(run, dtype=np.int64) for run in sequences]
    every = np.concatenate([*runs, np.zeros(0, np.int64)])
    if not len(every):
        raise ValueError("there is no action to count")
    classes, counts = np.unique(every, return_counts=True)
    frequencies = counts / counts.sum()
    followed = np.zeros((len(classes) + 1, len(classes)))
    for run in runs:
        places = np.searchsorted(classes, run)
        np.add.at(followed, (places[:-1], places[1:]), 1.0)
    return MarkovChain(classes, (followed + frequencies) / (followed.sum(axis=1, keepdims=True) + 1))
