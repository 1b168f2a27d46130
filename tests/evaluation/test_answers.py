"""Confusions and accuracy against frequency, against loops over samples."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from earmark.evaluation.answers import (
    Confused,
    TargetAnswers,
    confused_classes,
    confusion,
    frequency_bins,
    largest_confusions,
)
from earmark.evaluation.epic_metrics import rank_classes
from earmark.evaluation.metrics import top_k_correct


def draw(num_samples: int, num_classes: int, seed: int = 0) -> tuple[list[int], list[int]]:
    """Return labels and predictions; low classes are frequent, some never occur."""
    rng = np.random.default_rng(seed)
    labels = np.minimum(rng.geometric(min(0.6, 4 / num_classes), num_samples) - 1, num_classes - 1)
    predictions = np.where(rng.random(num_samples) < 0.4, labels, rng.integers(0, num_classes, num_samples))
    return labels.tolist(), predictions.tolist()


@pytest.mark.parametrize(("num_classes", "num_shown"), [(97, 25), (14, 25), (30, 5), (3, 1)])
def test_confusion_equals_a_loop_over_samples(num_classes: int, num_shown: int) -> None:
    labels, predictions = draw(500, num_classes)
    classes = confused_classes(labels, [predictions], num_shown=num_shown)
    table = confusion(labels, predictions, classes, num_classes=num_classes)
    expected: dict[tuple[int, int], int] = {}
    for label, prediction in zip(labels, predictions, strict=True):
        row = classes.index(label) if label in classes else len(classes)
        column = classes.index(prediction) if prediction in classes else len(classes)
        expected[row, column] = expected.get((row, column), 0) + 1
    found = {(int(i), int(j)): int(table.counts[i, j]) for i, j in zip(*np.nonzero(table.counts), strict=True)}
    assert found == expected
    assert table.counts.sum() == 500  # nothing falls out
    sizes = [labels.count(label) for label in classes]
    assert sizes == sorted(sizes, reverse=True)
    assert table.counts.sum(axis=1)[: len(classes)].tolist() == sizes
    if len(table.counts) > len(classes):
        assert table.num_others == num_classes - len(classes)
    for share, total in zip(table.shares, table.counts.sum(axis=1), strict=True):
        assert share.sum() == pytest.approx(1.0 if total else 0.0)


def test_one_class_more_than_shown_is_shown_in_place_of_other() -> None:
    labels = [0, 0, 0, 1, 1, 2]
    assert confused_classes(labels, [labels], num_shown=2) == (0, 1, 2)
    assert confused_classes([*labels, 3], [labels], num_shown=2) == (0, 1)
    assert confusion(labels, labels, (0, 1, 2)).num_others == 0


def test_classes_that_are_only_predicted_are_not_lost() -> None:
    classes = confused_classes([0, 0], [[0, 9]])
    assert classes == (0, 9)
    table = confusion([0, 0], [0, 9], classes)
    assert table.counts.tolist() == [[1, 1], [0, 0]]
    assert table.shares.tolist() == [[0.5, 0.5], [0.0, 0.0]]


def test_a_confusion_of_unlike_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match=r"as many labels as predictions, got shapes \(2,\) and \(1,\)"):
        confusion([0, 1], [0], (0, 1))


def test_largest_confusions_equal_a_loop_over_pairs() -> None:
    labels, predictions = draw(400, 12)
    pairs = [
        Confused(true, predicted, count, labels.count(true))
        for true in range(12)
        for predicted in range(12)
        if true != predicted
        and (count := sum(pair == (true, predicted) for pair in zip(labels, predictions, strict=True)))
    ]
    pairs.sort(key=lambda pair: -pair.count)  # stable: equal counts by true, then predicted class
    assert largest_confusions(labels, predictions, number=20) == tuple(pairs[:20])
    assert largest_confusions(labels, labels, number=20) == ()


def test_frequency_bins_equal_a_loop_over_classes() -> None:
    rng = np.random.default_rng(1)
    num_train = np.concatenate([[0, 1, 3, 4, 9, 10, 31, 32, 99, 100, 316, 317, 999, 1000], rng.integers(0, 20000, 60)])
    num_test, accuracy = rng.integers(1, 50, len(num_train)), rng.uniform(0, 100, len(num_train))
    bins = frequency_bins(num_train, num_test, accuracy, accuracy / 2)
    edges = [
        (0, 0),
        (1, 3),
        (4, 9),
        (10, 31),
        (32, 99),
        (100, 316),
        (317, 999),
        (1000, 3162),
        (3163, 9999),
        (10000, 31622),
    ]
    assert [(part.low, part.high) for part in bins] == edges
    assert sum(part.num_classes for part in bins) == len(num_train)
    for part in bins:
        inside = [i for i, number in enumerate(num_train) if part.low <= number <= part.high]
        assert part.num_classes == len(inside)
        assert part.num_samples == sum(num_test[i] for i in inside)
        mean = sum(accuracy[i] for i in inside) / len(inside)
        assert (part.accuracy, part.baseline_accuracy) == (pytest.approx(mean), pytest.approx(mean / 2))


def target(**changes: Any) -> TargetAnswers:
    arguments: dict[str, Any] = {
        "column": "verb",
        "names": ["open", "close", "cut"],
        "labels": np.array([0, 2, -1]),
        "scores": np.log(np.array([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25], [0.1, 0.1, 0.8]])).astype(np.float32),
        "baseline_scores": None,
        "train_counts": np.array([5, 3, 0]),
    }
    return TargetAnswers(**(arguments | changes))


def test_predictions_are_those_that_accuracy_is_counted_by_and_confidences_are_probabilities() -> None:
    answers = target()
    assert answers.predictions.tolist() == [0, 1, 2]
    assert answers.labelled.tolist() == [True, True, False]
    np.testing.assert_allclose(answers.confidence, [0.7, 0.5, 0.8], rtol=1e-6)
    shifted = target(scores=answers.scores + np.float32(1000))  # logits of any offset
    np.testing.assert_allclose(shifted.confidence, answers.confidence, rtol=1e-3)
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 3, (200, 9)).astype(np.float32), rng.integers(0, 9, 200)  # many ties
    tied = target(names=list("abcdefghi"), labels=labels, scores=scores, train_counts=np.zeros(9, np.int64))
    np.testing.assert_array_equal(tied.predictions == labels, top_k_correct(scores, labels, 1))
    assert tied.baseline_predictions is None
    official = dataclasses.replace(tied, later_first=True)
    np.testing.assert_array_equal(official.predictions, rank_classes(scores)[:, 0])
    assert (official.predictions != tied.predictions).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": np.zeros((3, 2), np.float32)}, r"verb: scores have shape \(3, 2\), need \(3, 3\)"),
        ({"baseline_scores": np.zeros((2, 3), np.float32)}, r"verb: baseline_scores have shape \(2, 3\)"),
        ({"scores": np.array([[0, 0, 0], [0, np.nan, 0], [0, 0, 0]])}, "verb: scores of sample 1 contain NaN"),
        ({"train_counts": np.zeros(2, np.int64)}, r"verb: train_counts have shape \(2,\), need \(3,\)"),
        ({"labels": np.array([0, 3, 1])}, "verb: label 3 of 3 classes"),
    ],
)
def test_answers_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        target(**changes)
