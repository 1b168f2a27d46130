"""EPIC-KITCHENS-100's official measures against slow loops, with equal scores, missing classes and underflow."""

import math
from typing import Any

import numpy as np
import pytest

from earmark.evaluation.epic_metrics import (
    ActionLabels,
    RankedActions,
    anticipation_recalls,
    best_actions,
    class_mean_recall,
    majority_answers,
    rank_actions,
    rank_classes,
    recognition_accuracies,
)


def slow_ranks(scores: list[float]) -> list[int]:
    """Highest first; of equal scores the later class first."""
    remaining = list(range(len(scores)))
    ranks = []
    while remaining:
        best = remaining[0]
        for number in remaining:
            if scores[number] >= scores[best]:
                best = number
        ranks.append(best)
        remaining.remove(best)
    return ranks


def slow_shares(scores: list[float]) -> list[float]:
    exponentials = [math.exp(score - max(scores)) for score in scores]
    return [value / sum(exponentials) for value in exponentials]


def slow_actions(verb_scores: list[float], noun_scores: list[float], num_kept: int) -> list[tuple[int, int]]:
    """The kept actions, in the order in which they are judged."""
    verbs, nouns = slow_ranks(verb_scores)[:num_kept], slow_ranks(noun_scores)[:num_kept]
    # exp and the sum of numpy may differ from those of math in the last digit, which could part equal products: the
    # oracle takes shares as they are in numpy, and does all the rest itself.
    verb_shares = np.exp(np.array([verb_scores[verb] for verb in verbs]) - verb_scores[verbs[0]])
    noun_shares = np.exp(np.array([noun_scores[noun] for noun in nouns]) - noun_scores[nouns[0]])
    np.testing.assert_allclose(
        verb_shares / verb_shares.sum(), slow_shares([verb_scores[v] for v in verbs]), rtol=1e-12
    )
    verb_list, noun_list = (verb_shares / verb_shares.sum()).tolist(), (noun_shares / noun_shares.sum()).tolist()
    pairs = [(verb, noun) for verb in verbs for noun in nouns]
    products = [a * b for a in verb_list for b in noun_list]
    order = sorted(range(len(pairs)), key=lambda place: (products[place], place), reverse=True)[:num_kept]
    again = sorted(range(len(order)), key=lambda place: (products[order[place]], place), reverse=True)
    return [pairs[order[place]] for place in again]


def made(seed: int, num_segments: int, num_verbs: int, num_nouns: int, *, step: float) -> tuple[Any, Any, ActionLabels]:
    """Scores on a grid, so that many are equal, and labels that leave classes out."""
    rng = np.random.default_rng(seed)
    verb_scores = np.round(rng.normal(size=(num_segments, num_verbs)) / step) * step
    noun_scores = np.round(rng.normal(size=(num_segments, num_nouns)) / step) * step
    labels = ActionLabels(
        rng.integers(0, max(1, num_verbs // 2), num_segments),
        rng.integers(num_nouns // 3, num_nouns, num_segments),
        rng.random(num_segments) < 0.3,
        rng.random(num_segments) < 0.3,
        rng.random(num_segments) < 0.3,
    )
    return verb_scores, noun_scores, labels


CASES = [(0, 40, 7, 9, 0.5), (1, 25, 97, 300, 0.5), (2, 30, 12, 130, 1e-9), (3, 20, 5, 5, 10.0), (4, 15, 120, 101, 2.0)]


@pytest.mark.parametrize(("seed", "n", "num_verbs", "num_nouns", "step"), CASES)
def test_actions_are_those_of_the_official_rule(seed: int, n: int, num_verbs: int, num_nouns: int, step: float) -> None:
    verb_scores, noun_scores, _ = made(seed, n, num_verbs, num_nouns, step=step)
    ranked = rank_actions(verb_scores, noun_scores)
    for row in range(n):
        expected = slow_actions(verb_scores[row].tolist(), noun_scores[row].tolist(), 100)
        assert list(zip(ranked.action_verb[row].tolist(), ranked.action_noun[row].tolist(), strict=True)) == expected
        assert ranked.verb[row].tolist() == slow_ranks(verb_scores[row].tolist())
        assert ranked.noun[row].tolist() == slow_ranks(noun_scores[row].tolist())


@pytest.mark.parametrize(("seed", "n", "num_verbs", "num_nouns", "step"), CASES)
def test_accuracies_and_recalls_equal_slow_loops(
    seed: int, n: int, num_verbs: int, num_nouns: int, step: float
) -> None:
    verb_scores, noun_scores, labels = made(seed, n, num_verbs, num_nouns, step=step)
    accuracies: dict[str, float] = {}
    recalls: dict[str, float] = {}
    answers = {
        "verb": [slow_ranks(row) for row in verb_scores.tolist()],
        "noun": [slow_ranks(row) for row in noun_scores.tolist()],
        "action": [slow_actions(v, k, 100) for v, k in zip(verb_scores.tolist(), noun_scores.tolist(), strict=True)],
    }
    truth: dict[str, list[Any]] = {"verb": labels.verb.tolist(), "noun": labels.noun.tolist()}
    truth["action"] = list(zip(truth["verb"], truth["noun"], strict=True))
    for part in ("all", "unseen", "tail"):
        for task in ("verb", "noun", "action"):
            rows = []
            for row in range(n):
                tail = {"verb": labels.tail_verb[row], "noun": labels.tail_noun[row]}
                tail["action"] = tail["verb"] or tail["noun"]
                if part == "all" or (part == "unseen" and labels.unseen[row]) or (part == "tail" and tail[task]):
                    rows.append(row)
            for k in (1, 5) if part == "all" else (1,):
                hits = sum(truth[task][row] in answers[task][row][:k] for row in rows)
                accuracies[f"{part}_{task}_accuracy_at_{k}"] = 100 * hits / len(rows)
            by_class: dict[Any, list[bool]] = {}
            for row in rows:
                by_class.setdefault(truth[task][row], []).append(truth[task][row] in answers[task][row][:5])
            shares = [sum(hits) / len(hits) for hits in by_class.values()]
            recalls[f"{'overall' if part == 'all' else part}_{task}_mt5r"] = 100 * sum(shares) / len(shares)
    ranked = rank_actions(verb_scores, noun_scores)
    assert recognition_accuracies(ranked, labels) == pytest.approx(accuracies, abs=1e-12)
    assert anticipation_recalls(ranked, labels) == pytest.approx(recalls, abs=1e-11)


def test_a_true_action_beyond_the_hundred_kept_is_never_right() -> None:
    scores = np.linspace(1, 0, 150)[None]
    ranked = rank_actions(scores, scores)
    assert ranked.action_verb.shape == (1, 100)
    pairs = set(zip(ranked.action_verb[0].tolist(), ranked.action_noun[0].tolist(), strict=True))
    assert (0, 0) in pairs
    assert not any(verb >= 100 or noun >= 100 for verb, noun in pairs)


def test_one_segment_with_large_scores_changes_no_other() -> None:
    """In the official code, whose softmax is over all segments at once, all others' products would be 0."""
    verb_scores, noun_scores, labels = made(5, 50, 10, 20, step=0.25)
    before = rank_actions(verb_scores, noun_scores)
    verb_scores[7] += 1000
    after = rank_actions(verb_scores, noun_scores)
    np.testing.assert_array_equal(before.action_verb, after.action_verb)
    np.testing.assert_array_equal(before.action_noun, after.action_noun)
    assert recognition_accuracies(before, labels) == recognition_accuracies(after, labels)


def test_underflow_within_a_segment_keeps_the_order_of_equal_products() -> None:
    verbs = [0.0, -2000.0, -3000.0, -1000.0]  # three shares are 0
    nouns = [0.0, -1.0, -2.0]
    ranked = rank_actions([verbs], [nouns])
    assert list(zip(ranked.action_verb[0].tolist(), ranked.action_noun[0].tolist(), strict=True)) == slow_actions(
        verbs, nouns, 100
    )


def test_actions_of_a_submission_are_ranked_as_given_the_later_of_equal_ones_first() -> None:
    given = (np.array([[3, 1, 2]]), np.array([[0, 4, 5]]), np.array([[0.5, 0.7, 0.5]]))
    ranked = rank_actions(np.zeros((1, 6)), np.zeros((1, 6)), given)
    assert ranked.action_verb.tolist() == [[1, 2, 3]]
    assert ranked.action_noun.tolist() == [[4, 5, 0]]


def test_parts_without_segments_have_no_numbers() -> None:
    none = np.zeros(2, dtype=bool)
    labels = ActionLabels(np.array([0, 1]), np.array([0, 1]), none, none, none)
    ranked = rank_actions(np.eye(2), np.eye(2))
    assert set(recognition_accuracies(ranked, labels)) == {
        f"all_{task}_accuracy_at_{k}" for task in ("verb", "noun", "action") for k in (1, 5)
    }
    assert set(anticipation_recalls(ranked, labels)) == {f"overall_{task}_mt5r" for task in ("verb", "noun", "action")}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_no_numbers_are_refused_with_their_segment(bad: float) -> None:
    scores = np.zeros((3, 4))
    scores[1, 2] = bad
    with pytest.raises(ValueError, match="segment 1"):
        rank_classes(scores)
    with pytest.raises(ValueError, match="verb scores of segment 1"):
        best_actions(scores, np.zeros((3, 4)))
    with pytest.raises(ValueError, match="noun scores of segment 1"):
        best_actions(np.zeros((3, 4)), scores)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        rank_classes(np.zeros((0, 4)))
    with pytest.raises(ValueError, match="3 segments have verb scores, 2 noun scores"):
        best_actions(np.zeros((3, 4)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="N > 0"):
        class_mean_recall(np.zeros((0, 4)), np.zeros(0), k=1)
    none = np.zeros(2, dtype=bool)
    two = np.zeros(2, dtype=np.int64)
    with pytest.raises(ValueError, match="1 and 2"):
        recognition_accuracies(rank_actions([[1.0]], [[1.0]]), ActionLabels(two, two, none, none, none))


def test_the_majority_gives_the_most_frequent_verbs_nouns_and_actions() -> None:
    verb, noun = [1, 1, 1, 0, 2, 2], [5, 6, 6, 7, 7, 7]
    answers = majority_answers(verb, noun, num_segments=3)
    assert isinstance(answers, RankedActions)
    assert answers.verb.tolist() == [[1, 2, 0]] * 3
    assert answers.noun.tolist() == [[7, 6, 5]] * 3
    pairs = list(zip(answers.action_verb[0].tolist(), answers.action_noun[0].tolist(), strict=True))
    assert pairs == [(2, 7), (1, 6), (1, 5), (0, 7)]
