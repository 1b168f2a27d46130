"""The official measures of EPIC-KITCHENS-100's action recognition and anticipation challenges.

Path of a sample: scores of verbs and nouns --here--> numbers as the challenges' own evaluation gives them (Damen et
al., "Rescaling Egocentric Vision", IJCV 2022). Everything is a pure function of arrays, in float64.

Classes are ranked by a stable sort of the scores, reversed, so that of equal scores the later class comes first: the
official code does the same with numpy's default sort, whose order of equal scores differs between versions of numpy.

Letters: N segments, C classes, V verbs, K ranked actions.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "NUM_ACTIONS_KEPT",
    "ActionLabels",
    "RankedActions",
    "anticipation_recalls",
    "best_actions",
    "class_mean_recall",
    "finite_matrix",
    "majority_answers",
    "pair_of",
    "rank_actions",
    "rank_classes",
    "recognition_accuracies",
    "split_pair",
]

NUM_ACTIONS_KEPT = 100  # best verbs, best nouns, and best pairs of them
NOUN_BITS = 32  # (verb, noun) as one number, to compare and to count pairs
CHUNK_ROWS = 256  # segments whose 100 x 100 products are in memory at once: 20 MB

Classes = NDArray[np.int64]
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ActionLabels:
    """What is true of N segments, and to which parts of the test they belong.

    Attributes:
        verb: Class of each segment, shape ``(N,)``.
        noun: Class of each segment, shape ``(N,)``.
        unseen: Whether its participant has no video in training, shape ``(N,)``.
        tail_verb: Whether its verb is a tail class, shape ``(N,)``.
        tail_noun: Whether its noun is a tail class, shape ``(N,)``.
    """

    verb: Classes
    noun: Classes
    unseen: NDArray[np.bool_]
    tail_verb: NDArray[np.bool_]
    tail_noun: NDArray[np.bool_]

    @property
    def parts(self) -> dict[str, dict[str, NDArray[np.bool_]]]:
        """Which segments count for what: ``part -> task -> mask``; an action is of the tail if its verb or noun is."""
        everything = np.ones(len(self.verb), dtype=bool)
        tail = {"verb": self.tail_verb, "noun": self.tail_noun, "action": self.tail_verb | self.tail_noun}
        return {
            "all": dict.fromkeys(("verb", "noun", "action"), everything),
            "unseen": dict.fromkeys(("verb", "noun", "action"), self.unseen),
            "tail": tail,
        }

    @property
    def of_task(self) -> dict[str, Classes]:
        """Labels by task; those of actions are one number for each pair."""
        return {"verb": self.verb, "noun": self.noun, "action": pair_of(self.verb, self.noun)}


@dataclass(frozen=True, slots=True)
class RankedActions:
    """Answers for N segments, the best first.

    Attributes:
        verb: Verb classes, shape ``(N, V)``.
        noun: Noun classes, shape ``(N, C)``.
        action_verb: The verbs of the best actions, shape ``(N, K)``.
        action_noun: The nouns of the best actions, shape ``(N, K)``.
    """

    verb: Classes
    noun: Classes
    action_verb: Classes
    action_noun: Classes

    @property
    def of_task(self) -> dict[str, Classes]:
        """Answers by task; those of actions are one number for each pair."""
        return {"verb": self.verb, "noun": self.noun, "action": pair_of(self.action_verb, self.action_noun)}


def rank_classes(scores: ArrayLike) -> Classes:
    """Return the classes of each segment in falling order of their scores; of equal ones the later class first.

    Args:
        scores: Shape ``(N, C)``.

    Returns:
        Shape ``(N, C)``.

    Raises:
        ValueError: If there are no segments, or a score is not finite.

    Example:
        >>> rank_classes([[0.5, 0.1, 0.5]])
        array([[2, 0, 1]])
    """
    return _reversed_order(finite_matrix(scores, "scores"))


def best_actions(
    verb_scores: ArrayLike, noun_scores: ArrayLike, *, num_kept: int = NUM_ACTIONS_KEPT
) -> tuple[Classes, Classes, Scores]:
    """Return the actions that the official rule makes of the scores of verbs and nouns.

    The best verbs and the best nouns, the softmax of either, the products of all pairs, and of those the best. The
    softmax is over each segment; that of the official recognition code is over the whole matrix of segments and
    classes at once, which has the same order within a segment unless it underflows: there, one segment whose scores
    are larger by 1,000 makes all products of the others 0.

    Args:
        verb_scores: Shape ``(N, V)``; unnormalised.
        noun_scores: Shape ``(N, C)``.
        num_kept: How many verbs, nouns and pairs are kept; fewer where there are fewer.

    Returns:
        Verbs, nouns and products, each of shape ``(N, K)``: highest product first, and of equal ones that whose verb,
        then whose noun, ranks lower.

    Raises:
        ValueError: As `rank_classes`, or if the numbers of segments differ.

    Example:
        >>> verbs, nouns, products = best_actions([[0.0, 2.0]], [[1.0, 0.0, 0.5]], num_kept=3)
        >>> verbs.tolist(), nouns.tolist(), products.round(3).tolist()
        ([[1, 1, 1]], [[0, 2, 1]], [[0.446, 0.271, 0.164]])
    """
    verb_matrix, noun_matrix = finite_matrix(verb_scores, "verb scores"), finite_matrix(noun_scores, "noun scores")
    if len(verb_matrix) != len(noun_matrix):
        raise ValueError(f"{len(verb_matrix)} segments have verb scores, {len(noun_matrix)} noun scores")
    verbs, verb_shares = _best_shares(verb_matrix, num_kept)
    nouns, noun_shares = _best_shares(noun_matrix, num_kept)
    found = [
        _best_products(verb_shares[start : start + CHUNK_ROWS], noun_shares[start : start + CHUNK_ROWS], num_kept)
        for start in range(0, len(verbs), CHUNK_ROWS)
    ]
    flat, products = (np.concatenate(parts) for parts in zip(*found, strict=True))
    verb_rank, noun_rank = np.divmod(flat, noun_shares.shape[1])
    return np.take_along_axis(verbs, verb_rank, 1), np.take_along_axis(nouns, noun_rank, 1), products


def rank_actions(
    verb_scores: ArrayLike,
    noun_scores: ArrayLike,
    actions: tuple[Classes, Classes, Scores] | None = None,
) -> RankedActions:
    """Return the answers that are judged, from scores.

    Args:
        verb_scores: Shape ``(N, V)``.
        noun_scores: Shape ``(N, C)``.
        actions: Verbs, nouns and scores of each segment's actions, shapes ``(N, K)``, where a submission gives them;
            None for those of `best_actions`. Of equal scores the later one comes first.

    Raises:
        ValueError: As `best_actions`.

    Example:
        >>> ranked = rank_actions([[0.0, 2.0]], [[1.0, 0.0, 0.5]])
        >>> int(ranked.action_verb[0, 0]), int(ranked.action_noun[0, 0])
        (1, 0)
    """
    verbs, nouns, scores = best_actions(verb_scores, noun_scores) if actions is None else actions
    # The official code sorts the kept actions once more, so that of equal ones the later comes first among them.
    order = _reversed_order(finite_matrix(scores, "action scores"))
    return RankedActions(
        rank_classes(verb_scores),
        rank_classes(noun_scores),
        np.take_along_axis(verbs, order, 1),
        np.take_along_axis(nouns, order, 1),
    )


def recognition_accuracies(ranked: RankedActions, labels: ActionLabels) -> dict[str, float]:
    """Return the accuracies of the action recognition challenge, in %, under their official names.

    Top-1 and top-5 of verb, noun and action over all segments; top-1 over the segments of unseen participants and of
    tail classes. A part of the test without segments has no numbers.

    Args:
        ranked: The answers, at least as many as there are classes or five for each segment.
        labels: What is true.

    Raises:
        ValueError: If there are no segments, or other ones than labels.

    Example:
        >>> none = np.array([False])
        >>> labels = ActionLabels(np.array([1]), np.array([0]), none, none, none)
        >>> recognition_accuracies(rank_actions([[0.0, 2.0]], [[1.0, 0.0]]), labels)["all_action_accuracy_at_1"]
        100.0
    """
    _require_same_segments(ranked, labels)
    answers, truth = ranked.of_task, labels.of_task
    accuracies = {}
    for part, masks in labels.parts.items():
        for task, mask in masks.items():
            if not mask.any():
                continue
            right = answers[task][mask, :5] == truth[task][mask, None]
            for k in (1, 5) if part == "all" else (1,):
                accuracies[f"{part}_{task}_accuracy_at_{k}"] = 100 * float(right[:, :k].any(axis=1).mean())
    return accuracies


def anticipation_recalls(ranked: RankedActions, labels: ActionLabels) -> dict[str, float]:
    """Return the recalls of the action anticipation challenge, in %, under their official names.

    Class-mean recall at 5 of verb, noun and action: over all segments, those of unseen participants and those of tail
    classes; each is a mean over the classes that are present there.

    Args:
        ranked: The answers.
        labels: What is true.

    Raises:
        ValueError: If there are no segments, or other ones than labels.

    Example:
        >>> none = np.array([False])
        >>> labels = ActionLabels(np.array([1]), np.array([0]), none, none, none)
        >>> anticipation_recalls(rank_actions([[0.0, 2.0]], [[1.0, 0.0]]), labels)["overall_verb_mt5r"]
        100.0
    """
    _require_same_segments(ranked, labels)
    answers, truth = ranked.of_task, labels.of_task
    return {
        f"{'overall' if part == 'all' else part}_{task}_mt5r": 100
        * class_mean_recall(answers[task][mask], truth[task][mask], k=5)
        for part, masks in labels.parts.items()
        for task, mask in masks.items()
        if mask.any()
    }


def class_mean_recall(ranked: ArrayLike, labels: ArrayLike, *, k: int) -> float:
    """Return the mean over the classes present of the share of their samples with the class among the first k answers.

    Args:
        ranked: Answers, the best first, shape ``(N, C)``.
        labels: Class ids, shape ``(N,)``.
        k: How many answers count.

    Raises:
        ValueError: If shapes do not fit or there are no samples.

    Example:
        >>> class_mean_recall([[0, 1], [0, 1], [0, 1], [1, 0]], [0, 0, 1, 1], k=1)
        0.75
    """
    answers, targets = np.asarray(ranked), np.asarray(labels)
    if answers.ndim != 2 or targets.shape != answers.shape[:1] or not len(targets):
        raise ValueError(f"need answers (N, C) and labels (N,), N > 0; got {answers.shape} and {targets.shape}")
    right = (answers[:, :k] == targets[:, None]).any(axis=1)
    _, of_class, sizes = np.unique(targets, return_inverse=True, return_counts=True)
    return float((np.bincount(of_class, weights=right) / sizes).mean())


def majority_answers(verb: ArrayLike, noun: ArrayLike, *, num_segments: int) -> RankedActions:
    """Return the answers of who always gives the most frequent verbs, nouns and actions.

    Args:
        verb: Classes that frequencies are counted on, shape ``(N,)``.
        noun: Classes of the same segments, shape ``(N,)``.
        num_segments: For how many segments.

    Example:
        >>> majority_answers([1, 1, 0], [2, 2, 0], num_segments=1).action_noun
        array([[2, 0]])
    """
    verbs, nouns = np.asarray(verb, dtype=np.int64), np.asarray(noun, dtype=np.int64)
    by_count: Mapping[str, Classes] = {
        task: _by_frequency(labels)
        for task, labels in (("verb", verbs), ("noun", nouns), ("pair", pair_of(verbs, nouns)))
    }
    pairs = by_count["pair"]
    columns = (by_count["verb"], by_count["noun"], pairs >> NOUN_BITS, pairs & (2**NOUN_BITS - 1))
    return RankedActions(*(np.broadcast_to(column, (num_segments, len(column))) for column in columns))


def _by_frequency(labels: Classes) -> Classes:
    classes, counts = np.unique(labels, return_counts=True)
    return classes[np.argsort(counts, kind="stable")[::-1]]


def pair_of(verb: Classes, noun: Classes) -> Classes:
    """Return one number for each pair of a verb and a noun.

    Example:
        >>> split_pair(int(pair_of(np.array([3]), np.array([7]))[0]))
        (3, 7)
    """
    return (verb << NOUN_BITS) | noun


def split_pair(pair: int) -> tuple[int, int]:
    """Return the verb and the noun of a pair."""
    return pair >> NOUN_BITS, pair & (2**NOUN_BITS - 1)


def _require_same_segments(ranked: RankedActions, labels: ActionLabels) -> None:
    if not len(labels.verb) or len(ranked.verb) != len(labels.verb):
        raise ValueError(f"need answers for the segments with labels: {len(ranked.verb)} and {len(labels.verb)}")


def finite_matrix(scores: ArrayLike, what: str) -> Scores:
    """Return scores of shape ``(N, C)`` in float64.

    Args:
        scores: The scores.
        what: How messages call them.

    Raises:
        ValueError: If they have another shape, are empty or are not finite.

    Example:
        >>> finite_matrix([[1, 2]], "scores")
        array([[1., 2.]])
    """
    matrix = np.asarray(scores, dtype=np.float64)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"need {what} of shape (N, C), N > 0, C > 0; got {matrix.shape}")
    bad = ~np.isfinite(matrix).all(axis=1)
    if bad.any():
        raise ValueError(f"{what} of segment {int(bad.argmax())} are not all finite numbers")
    return matrix


def _reversed_order(scores: Scores) -> Classes:
    return np.ascontiguousarray(np.argsort(scores, axis=1, kind="stable")[:, ::-1])


def _best_shares(scores: Scores, num_kept: int) -> tuple[Classes, Scores]:
    """Return the best classes and the softmax over their scores."""
    classes = _reversed_order(scores)[:, :num_kept]
    best = np.take_along_axis(scores, classes, 1)
    exponentials = np.exp(best - best[:, :1])
    return classes, exponentials / exponentials.sum(axis=1, keepdims=True)


def _best_products(first: Scores, second: Scores, num_kept: int) -> tuple[Classes, Scores]:
    """Return the flat ranks and the values of the best products of two falling rows, for each segment.

    A pair of ranks (i, j) has (i + 1)(j + 1) - 1 pairs whose product is at least its own, so only those with at most
    ``num_kept`` need be sorted: a twentieth. Where equal products lie across the edge of what is kept, which of them
    are kept depends on all: there everything is sorted.
    """
    num_kept = min(num_kept, first.shape[1] * second.shape[1])
    i, j = np.divmod(np.arange(first.shape[1] * second.shape[1]), second.shape[1])
    candidates = np.flatnonzero((i + 1) * (j + 1) <= num_kept)
    products = (first[:, :, None] * second[:, None, :]).reshape(len(first), -1)
    some = products[:, candidates]
    order = _reversed_order(some)[:, :num_kept]
    flat, values = candidates[order], np.take_along_axis(some, order, 1)
    unclear = np.flatnonzero((products >= values[:, -1:]).sum(axis=1) != num_kept)
    if len(unclear):
        flat[unclear] = _reversed_order(products[unclear])[:, :num_kept]
        values[unclear] = np.take_along_axis(products[unclear], flat[unclear], 1)
    return flat, values
