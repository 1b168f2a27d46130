"""EPIC-SOUNDS' official recognition measures against slow loops, with equal scores and missing classes."""

import numpy as np
import pytest

from earmark.evaluation.epic_sounds_metrics import (
    areas_under_roc,
    average_precisions,
    class_mean_accuracy,
    sound_recognition_metrics,
)


def slow_average_precision(scores: list[float], truth: list[bool]) -> float:
    """Sum of precision at each distinct score, weighted by the gain in recall."""
    total, before = 0.0, 0.0
    for level in sorted(set(scores), reverse=True):
        chosen = [is_true for score, is_true in zip(scores, truth, strict=True) if score >= level]
        recall = sum(chosen) / sum(truth)
        total += (recall - before) * sum(chosen) / len(chosen)
        before = recall
    return total


def slow_area(scores: list[float], truth: list[bool]) -> float:
    """Share of the pairs of a true and a false one that are in order, equal ones by half."""
    wins, pairs = 0.0, 0
    for a, a_true in zip(scores, truth, strict=True):
        for b, b_true in zip(scores, truth, strict=True):
            if a_true and not b_true:
                pairs += 1
                wins += 1.0 if a > b else 0.5 if a == b else 0.0
    return wins / pairs


@pytest.mark.parametrize("with_background", [True, False])
@pytest.mark.parametrize(("seed", "step"), [(0, 0.5), (1, 1e-9), (2, 3.0)])
def test_measures_equal_slow_loops(seed: int, step: float, with_background: bool) -> None:
    rng = np.random.default_rng(seed)
    scores = np.round(rng.normal(size=(90, 44)) / step) * step
    labels = rng.choice([0, 3, 13, 14, 43], size=90)
    kept = [row for row in range(90) if with_background or labels[row] != 13]
    single = scores.astype(np.float32)
    top = {1: 0, 5: 0}
    by_class: dict[int, list[bool]] = {}
    for row in kept:
        order = sorted(range(44), key=lambda number: (scores[row, number], number), reverse=True)
        for k in top:
            top[k] += labels[row] in order[:k]
        first = max(range(44), key=lambda number: (single[row, number], -number))
        by_class.setdefault(int(labels[row]), []).append(first == labels[row])
    truth = {number: [bool(labels[row] == number) for row in kept] for number in by_class}
    columns = {number: [float(single[row, number]) for row in kept] for number in by_class}
    expected = {f"all_interaction_accuracy_at_{k}": 100 * hits / len(kept) for k, hits in top.items()}
    expected["all_interaction_mCA"] = 100 * np.mean([np.mean(hits) for hits in by_class.values()])
    expected["all_interaction_mAP"] = 100 * np.mean(
        [slow_average_precision(columns[number], truth[number]) for number in by_class]
    )
    expected["all_interaction_mAUC"] = np.mean([slow_area(columns[number], truth[number]) for number in by_class])
    found = sound_recognition_metrics(scores, labels, with_background=with_background)
    assert found == pytest.approx(expected, rel=1e-12)


def test_without_background_its_rows_go_and_its_column_stays() -> None:
    scores = np.zeros((3, 44))
    scores[0, 13], scores[1, 13], scores[2, 2] = 5.0, 5.0, 5.0
    labels = np.array([13, 2, 2])
    assert sound_recognition_metrics(scores, labels)["all_interaction_accuracy_at_1"] == 50.0
    with_background = sound_recognition_metrics(scores, labels, with_background=True)
    assert with_background["all_interaction_accuracy_at_1"] == pytest.approx(200 / 3)


def test_views_are_summed_as_they_are() -> None:
    views = np.zeros((1, 2, 3))
    views[0, 0], views[0, 1] = [10.0, 0.0, 0.0], [0.0, 6.0, 6.0]  # the mean of softmaxes would be a tie of 1 and 2
    metrics = sound_recognition_metrics(views, [0])
    assert metrics["all_interaction_accuracy_at_1"] == 100.0
    assert "all_interaction_mAUC" not in metrics  # all segments have the one class


def test_top_k_sees_what_float32_does_not() -> None:
    scores = np.array([[1.0 + 1e-12, 1.0, 0.0]])
    metrics = sound_recognition_metrics(scores, [0])
    assert metrics["all_interaction_accuracy_at_1"] == 100.0
    later = sound_recognition_metrics(np.array([[1.0, 1.0 + 1e-12, 0.0]]), [1])
    assert later["all_interaction_accuracy_at_1"] == 100.0
    assert later["all_interaction_mCA"] == 0.0


def test_equal_scores_everywhere_give_the_prevalence_and_half() -> None:
    scores, labels = np.ones((8, 3)), [0, 0, 0, 1, 1, 1, 1, 1]
    assert average_precisions(scores, labels) == {0: 3 / 8, 1: 5 / 8}
    assert areas_under_roc(scores, labels) == {0: 0.5, 1: 0.5}
    assert class_mean_accuracy(scores, labels) == 0.5


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e39])
def test_scores_that_are_no_numbers_in_float32_are_refused(bad: float) -> None:
    scores = np.zeros((2, 3))
    scores[1, 0] = bad
    with pytest.raises(ValueError, match="segment 1"):
        sound_recognition_metrics(scores, [0, 1])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="whole numbers from 0 to 2"):
        sound_recognition_metrics(np.zeros((1, 3)), [3])
    with pytest.raises(ValueError, match="need scores"):
        sound_recognition_metrics(np.zeros((2, 3)), [0])
    with pytest.raises(ValueError, match="N > 0"):
        sound_recognition_metrics(np.zeros((1, 44)), [13])
