"""The answers of a head to the test samples, looked at class by class: confusions, and accuracy against frequency.

Path of a sample: features --head--> scores --here--> which classes are taken for which, and how accuracy depends on how
often a class was seen in training --> page. Pure functions of arrays.

Letters: N samples, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Confused",
    "Confusion",
    "FrequencyBin",
    "TargetAnswers",
    "confused_classes",
    "confusion",
    "frequency_bins",
    "largest_confusions",
]

NUM_CLASSES_SHOWN = 25  # rows of a confusion matrix that can be told apart on a telephone

Classes = NDArray[np.int64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class TargetAnswers:
    """Scores of one label column, with what is true.

    Attributes:
        column: Label column, such as "verb".
        names: Names of the classes, by id.
        labels: Class of each test sample, shape ``(N,)``; negative where it has none.
        scores: Log of the probability of each class, or anything that a softmax makes a probability of, ``(N, C)``.
        baseline_scores: The same of the baseline encoder; None without one.
        train_counts: Training samples of each class, shape ``(C,)``.
        later_first: Whether of equal scores the class with the higher id is the answer, as the challenges of
            EPIC-KITCHENS-100 have it; else the one that `torch.topk` names.

    Raises:
        ValueError: If shapes do not fit, a label is no class, or a score is NaN.
    """

    column: str
    names: Sequence[str]
    labels: Classes
    scores: NDArray[np.floating]
    baseline_scores: NDArray[np.floating] | None
    train_counts: Counts
    later_first: bool = False

    def __post_init__(self) -> None:
        num_samples, num_classes = len(self.labels), len(self.names)
        for name, scores in (("scores", self.scores), ("baseline_scores", self.baseline_scores)):
            if scores is None:
                continue
            if scores.shape != (num_samples, num_classes):
                raise ValueError(
                    f"{self.column}: {name} have shape {scores.shape}, need ({num_samples}, {num_classes})"
                )
            if np.isnan(scores).any():
                row = int(np.isnan(scores).any(axis=1).argmax())
                raise ValueError(f"{self.column}: {name} of sample {row} contain NaN")
        if self.train_counts.shape != (num_classes,):
            raise ValueError(f"{self.column}: train_counts have shape {self.train_counts.shape}, need ({num_classes},)")
        if num_samples and self.labels.max() >= num_classes:
            raise ValueError(f"{self.column}: label {self.labels.max()} of {num_classes} classes")

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Which samples have a label, shape ``(N,)``."""
        return np.asarray(self.labels >= 0)

    @property
    def predictions(self) -> Classes:
        """The class with the highest score of each sample, shape ``(N,)``: what top-1 accuracy counts."""
        return self._first(self.scores)

    @property
    def baseline_predictions(self) -> Classes | None:
        """The same of the baseline encoder."""
        return None if self.baseline_scores is None else self._first(self.baseline_scores)

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Probability of the predicted class of each sample, shape ``(N,)``."""
        scores = self.scores.astype(np.float64)
        highest = scores.max(axis=1, keepdims=True)
        return np.asarray(1 / np.exp(scores - highest).sum(axis=1))

    def _first(self, scores: NDArray[np.floating]) -> Classes:
        if not len(scores):
            return np.zeros(0, np.int64)
        if self.later_first:
            return np.asarray(scores.shape[1] - 1 - scores[:, ::-1].argmax(axis=1))
        return np.asarray(torch.from_numpy(np.ascontiguousarray(scores)).topk(1, dim=1).indices[:, 0].numpy())


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often samples of one class were taken for another.

    Attributes:
        classes: Ids of the classes of the rows and columns, most frequent first.
        counts: Samples by true class (row) and predicted class (column); where classes were left out, a last row and
            column hold them together. Shape ``(K, K)``, K the number of classes or one more.
        num_others: How many classes the last row and column stand for.
    """

    classes: tuple[int, ...]
    counts: Counts
    num_others: int

    @property
    def shares(self) -> NDArray[np.float64]:
        """Each row divided by its sum: what became of the samples of a class. A row without samples is 0."""
        totals = self.counts.sum(axis=1, keepdims=True)
        return np.asarray(self.counts / np.maximum(totals, 1))


@dataclass(frozen=True, slots=True)
class Confused:
    """Samples of one class that were taken for another.

    Attributes:
        true: Class id.
        predicted: Class id.
        count: How many.
        num_true: Samples of the true class.
    """

    true: int
    predicted: int
    count: int
    num_true: int


def confused_classes(
    labels: ArrayLike, predictions: Sequence[ArrayLike], *, num_shown: int = NUM_CLASSES_SHOWN
) -> tuple[int, ...]:
    """Return the classes that a confusion matrix shows, most frequent among the labels first, then by id.

    Args:
        labels: True classes, shape ``(N,)``.
        predictions: Predicted classes of one or more models, each ``(N,)``: classes that only occur there count too.
        num_shown: How many at most; one more where that is all there are, for "other" would be no fewer.

    Example:
        >>> confused_classes([1, 1, 2, 2, 2, 7], [[1, 2, 2, 2, 4, 7]]), confused_classes([1, 1, 2, 0], [], num_shown=1)
        ((2, 1, 7, 4), (1,))
    """
    true = np.asarray(labels, dtype=np.int64)
    occurring = np.unique(np.concatenate([true, *(np.asarray(of, dtype=np.int64) for of in predictions)]))
    counts = np.array([np.count_nonzero(true == label) for label in occurring])
    ordered = occurring[np.argsort(-counts, kind="stable")]
    return tuple((ordered if len(ordered) <= num_shown + 1 else ordered[:num_shown]).tolist())


def confusion(
    labels: ArrayLike, predictions: ArrayLike, classes: Sequence[int], *, num_classes: int | None = None
) -> Confusion:
    """Count how often samples of each class were taken for each class.

    Args:
        labels: True classes, shape ``(N,)``.
        predictions: Predicted classes, shape ``(N,)``.
        classes: Which classes get a row and a column, as `confused_classes` gives them; all others share the last.
        num_classes: How many classes there are; None for those that occur.

    Raises:
        ValueError: If the numbers of labels and predictions differ.

    Example:
        >>> table = confusion([0, 0, 0, 1, 2], [0, 0, 1, 1, 0], [0, 1])
        >>> table.counts.tolist(), table.num_others
        ([[2, 1, 0], [0, 1, 0], [1, 0, 0]], 1)
        >>> table.shares[0].round(2).tolist()
        [0.67, 0.33, 0.0]
    """
    true, predicted = np.asarray(labels, dtype=np.int64), np.asarray(predictions, dtype=np.int64)
    if true.shape != predicted.shape or true.ndim != 1:
        raise ValueError(f"need as many labels as predictions, got shapes {true.shape} and {predicted.shape}")
    occurring = np.unique(np.concatenate([true, predicted]))
    others = np.setdiff1d(occurring, classes)
    num_others = len(others) if num_classes is None else num_classes - len(classes)
    size = len(classes) + bool(len(others))
    place = np.full(int(occurring.max(initial=max(classes, default=0))) + 1, len(classes))
    place[list(classes)] = np.arange(len(classes))
    counts = np.zeros((size, size), dtype=np.int64)
    np.add.at(counts, (place[true], place[predicted]), 1)
    return Confusion(tuple(classes), counts, num_others if len(others) else 0)


def largest_confusions(labels: ArrayLike, predictions: ArrayLike, *, number: int) -> tuple[Confused, ...]:
    """Return the pairs of classes that were confused most often: true class, predicted class, how many of how many.

    Args:
        labels: True classes, shape ``(N,)``.
        predictions: Predicted classes, shape ``(N,)``.
        number: How many pairs at most; equal counts in the order of true, then predicted class.

    Example:
        >>> largest_confusions([0, 0, 0, 1], [1, 1, 0, 1], number=3)
        (Confused(true=0, predicted=1, count=2, num_true=3),)
    """
    true, predicted = np.asarray(labels, dtype=np.int64), np.asarray(predictions, dtype=np.int64)
    wrong = true != predicted
    pairs, counts = np.unique(np.stack([true[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:number]
    return tuple(
        Confused(int(pairs[i, 0]), int(pairs[i, 1]), int(counts[i]), int(np.count_nonzero(true == pairs[i, 0])))
        for i in order
    )


@dataclass(frozen=True, slots=True)
class FrequencyBin:
    """Classes with about as many training samples.

    Attributes:
        low: Fewest training samples of a class in this bin.
        high: Most.
        num_classes: Classes in it that occur among the test samples.
        num_samples: Their test samples.
        accuracy: Mean over these classes of their accuracy, in %: each class counts the same.
        baseline_accuracy: Of the baseline encoder; None without one.
    """

    low: int
    high: int
    num_classes: int
    num_samples: int
    accuracy: float
    baseline_accuracy: float | None


def frequency_bins(
    num_train: ArrayLike,
    num_test: ArrayLike,
    accuracies: ArrayLike,
    baseline_accuracies: ArrayLike | None = None,
) -> tuple[FrequencyBin, ...]:
    """Return the mean accuracy of classes in bins of their number of training samples, two to each factor of ten.

    Args:
        num_train: Training samples of each class, shape ``(C,)``; classes without any have a bin of their own.
        num_test: Test samples of each class, shape ``(C,)``; at least 1.
        accuracies: Accuracy of each class in %, shape ``(C,)``.
        baseline_accuracies: The same of a baseline.

    Example:
        >>> for part in frequency_bins([0, 2, 12, 31, 32], [1, 1, 5, 5, 9], [0.0, 10.0, 20.0, 40.0, 50.0]):
        ...     print(f"{part.low} to {part.high}: {part.accuracy:.0f} % of {part.num_classes}")
        0 to 0: 0 % of 1
        1 to 3: 10 % of 1
        10 to 31: 30 % of 2
        32 to 99: 50 % of 1
    """
    train, test, accuracy = np.asarray(num_train), np.asarray(num_test), np.asarray(accuracies, dtype=np.float64)
    baseline = None if baseline_accuracies is None else np.asarray(baseline_accuracies, dtype=np.float64)
    bounds = [0, 1]
    while bounds[-1] <= train.max(initial=0):
        bounds.append(int(np.ceil(10 ** ((len(bounds) - 1) / 2))))
    bins = []
    for low, end in pairwise(bounds):
        inside = (train >= low) & (train < end)
        if inside.any():
            bins.append(
                FrequencyBin(
                    low=low,
                    high=end - 1,
                    num_classes=int(inside.sum()),
                    num_samples=int(test[inside].sum()),
                    accuracy=float(accuracy[inside].mean()),
                    baseline_accuracy=None if baseline is None else float(baseline[inside].mean()),
                )
            )
    return tuple(bins)
