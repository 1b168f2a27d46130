"""What is measured of answers to annotated actions: each label column, and where there are verbs and nouns, the action.

Path of a sample: scores --here--> accuracies with intervals, overall and on the parts that are judged by themselves.

Where verbs and nouns are both asked for, classes and actions are ranked as EPIC-KITCHENS-100's challenge ranks them
(`earmark.evaluation.epic_metrics`), so that the numbers are the official ones to the digit; other labels are ranked in
the order of ``torch.topk``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from earmark.evaluation.epic_metrics import finite_matrix, pair_of, rank_actions, split_pair
from earmark.evaluation.probe import IGNORED_LABEL
from earmark.evaluation.probing import ProbeAnswers
from earmark.evaluation.results import Row, Score, compare

__all__ = ["ACTION_COLUMNS", "ClassAccuracy", "ColumnResult", "PartResult", "batch_weights", "measure_actions"]

ACTION_COLUMNS = ("verb", "noun")  # which make an action together
MOST_GUESSES = 5

Classes = npt.NDArray[np.int64]
Right = npt.NDArray[np.bool_]
Labels = Mapping[str, npt.NDArray[np.int64]]
Parts = Mapping[str, Mapping[str, Right]]


@dataclass(frozen=True, slots=True)
class ClassAccuracy:
    """Top-1 accuracy on the test actions of one class.

    Attributes:
        name: Class name.
        accuracy: In %.
        baseline_accuracy: Of the baseline encoder, in %; None without one.
        num_actions: Test actions of the class.
    """

    name: str
    accuracy: float
    baseline_accuracy: float | None
    num_actions: int


@dataclass(frozen=True, slots=True)
class PartResult:
    """Top-1 accuracy on a part of the test actions that is judged by itself.

    Attributes:
        name: Of the part, such as "unseen participants".
        num_test_actions: How many of the labelled test actions are in it.
        num_test_videos: Videos that these lie in; None where videos were not given.
        top1: Accuracy of the first guess, in %.
    """

    name: str
    num_test_actions: int
    num_test_videos: int | None
    top1: Score


@dataclass(frozen=True, slots=True)
class ColumnResult:
    """What was measured for one label column, or for the action that verb and noun make.

    Attributes:
        column: Label column, for example "verb"; or "action".
        num_classes: Number of classes; of actions that of all pairs.
        num_train_actions: Training actions with a label.
        num_test_actions: Test actions with a label: what the accuracies are shares of.
        num_test_videos: Videos that these lie in, which the intervals rest on; None where videos were not given.
        top1: Accuracy of the first guess, in %.
        top5: Accuracy of the first five guesses, in %.
        classes: The classes that occur among the test actions, by id.
        parts: Parts of the test actions that are judged by themselves.
        chosen: What the head was trained with, for each seed; see `earmark.evaluation.probing.ProbeAnswers`.
    """

    column: str
    num_classes: int
    num_train_actions: int
    num_test_actions: int
    num_test_videos: int | None
    top1: Score
    top5: Score
    classes: tuple[ClassAccuracy, ...]
    parts: tuple[PartResult, ...] = ()
    chosen: tuple[Mapping[str, float], ...] = ()

    def rows(self) -> list[Row]:
        """Return one row for top-1, one for top-5, and one for each part."""
        overall = [
            Row(f"{self.column} top-{score.k}", score, self.num_test_actions, self.num_test_videos)
            for score in (self.top1, self.top5)
        ]
        return overall + [
            Row(f"{self.column} top-1, {part.name}", part.top1, part.num_test_actions, part.num_test_videos)
            for part in self.parts
        ]


def measure_actions(
    answers: Sequence[ProbeAnswers],
    baseline: Sequence[ProbeAnswers],
    *,
    class_names: Mapping[str, Sequence[str]],
    train_labels: Labels,
    test_labels: Labels,
    test_videos: Sequence[str] | None = None,
    parts: Parts | None = None,
    batch_size: int | None = None,
) -> tuple[ColumnResult, ...]:
    """Return the accuracies of each label column, and behind them of the action where there are verbs and nouns.

    Args:
        answers: Of the head on the judged encoder's features, for each seed.
        baseline: Of that on the baseline encoder's; empty without one.
        class_names: Names of the classes of each label column, by id.
        train_labels: Class ids of each column, shape ``(N_train,)``; -1 for none.
        test_labels: The same of the test actions, shape ``(N,)``; those without a label do not count.
        test_videos: Video of each test action; None takes the actions as independent.
        parts: Which test actions belong to parts that are judged by themselves: by the part's name and by column,
            "action" among them, shape ``(N,)``. A part without labelled actions has no row.
        batch_size: Overall accuracies are means over batches of so many labelled test actions, as some published
            numbers are: of a last batch that is smaller, each action counts for more. None for means over actions.

    Raises:
        ValueError: If scores are not finite or shapes do not fit.
    """
    questions = _questions(answers, baseline, class_names, train_labels, test_labels)
    return tuple(
        _measured(
            question,
            videos=None if test_videos is None else np.asarray(test_videos),
            parts={name: masks[question.column] for name, masks in (parts or {}).items() if question.column in masks},
            chosen=tuple(of.chosen[question.column] for of in answers if question.column in of.chosen),
            batch_size=batch_size,
        )
        for question in questions
    )


def batch_weights(num_samples: int, batch_size: int) -> npt.NDArray[np.float64]:
    """Return weights (N,) with which a mean over samples is the mean over batches of their means.

    Args:
        num_samples: N, in their order.
        batch_size: Of all batches but the last, which may be smaller.

    Example:
        >>> batch_weights(5, 4).tolist()
        [0.625, 0.625, 0.625, 0.625, 2.5]
    """
    batches = np.arange(num_samples) // batch_size
    sizes = np.bincount(batches)
    weights: npt.NDArray[np.float64] = num_samples / (len(sizes) * sizes[batches])
    return weights


@dataclass(frozen=True, slots=True)
class _Question:
    """A label column with the answers to it.

    Attributes:
        column: Its name.
        num_classes: How many classes there are.
        name_of: Gives the name of a class.
        truth: Class of each test action, shape ``(N,)``; -1 for none.
        known: Classes of the training actions that have one.
        ranked: For each seed the classes that are answered, the best first, shape ``(N, K)``.
        baseline: The same of the baseline encoder.
        frequent: Training classes, the most frequent first.
    """

    column: str
    num_classes: int
    name_of: Callable[[int], str]
    truth: Classes
    known: Classes
    ranked: Sequence[Classes]
    baseline: Sequence[Classes]
    frequent: Classes


def _questions(
    answers: Sequence[ProbeAnswers],
    baseline: Sequence[ProbeAnswers],
    class_names: Mapping[str, Sequence[str]],
    train_labels: Labels,
    test_labels: Labels,
) -> list[_Question]:
    official = all(column in class_names for column in ACTION_COLUMNS)
    by_topk = [column for column in class_names if not (official and column in ACTION_COLUMNS)]

    def ranks(of: ProbeAnswers) -> Mapping[str, Classes]:
        plain = {column: _first_five(of.scores[column]) for column in by_topk}
        return plain | dict(rank_actions(of.scores["verb"], of.scores["noun"]).of_task if official else {})

    of_both = [[ranks(of) for of in seeds] for seeds in (answers, baseline)]

    def question(
        column: str, num_classes: int, name_of: Callable[[int], str], train: Classes, test: Classes
    ) -> _Question:
        known = train[train != IGNORED_LABEL]
        # of equally frequent classes the later one comes first by the official rule, and else the earlier one
        by_rule = official and column in (*ACTION_COLUMNS, "action")
        classes, counts = np.unique(known, return_counts=True)
        order = np.argsort(counts, kind="stable")[::-1] if by_rule else np.argsort(-counts, kind="stable")
        ranked, of_baseline = ([of[column] for of in seeds] for seeds in of_both)
        return _Question(column, num_classes, name_of, test, known, ranked, of_baseline, classes[order])

    questions = [
        question(column, len(names), names.__getitem__, train_labels[column], test_labels[column])
        for column, names in class_names.items()
    ]
    if official:
        verbs, nouns = (class_names[column] for column in ACTION_COLUMNS)

        def name_of(pair: int) -> str:
            verb, noun = split_pair(pair)
            return f"{verbs[verb]} {nouns[noun]}"

        pairs = (_pairs(labels) for labels in (train_labels, test_labels))
        questions.append(question("action", len(verbs) * len(nouns), name_of, *pairs))
    return questions


def _pairs(labels: Labels) -> Classes:
    """Return the actions, -1 where the verb or the noun is not known."""
    verb, noun = (labels[column] for column in ACTION_COLUMNS)
    return np.where((verb == IGNORED_LABEL) | (noun == IGNORED_LABEL), IGNORED_LABEL, pair_of(verb, noun))


def _first_five(scores: npt.NDArray[np.float32]) -> Classes:
    matrix = torch.from_numpy(finite_matrix(scores, "scores"))
    ranked: Classes = matrix.topk(min(MOST_GUESSES, matrix.shape[1]), dim=1).indices.numpy()
    return ranked


def _measured(
    question: _Question,
    *,
    videos: npt.NDArray[Any] | None,
    parts: Mapping[str, Right],
    chosen: tuple[Mapping[str, float], ...],
    batch_size: int | None,
) -> ColumnResult:
    def right(ranked: Sequence[Classes], rows: Right, k: int) -> Right:
        return np.stack([(of[rows, :k] == question.truth[rows, None]).any(axis=1) for of in ranked])

    def score(rows: Right, k: int, weights: npt.NDArray[np.float64] | None = None) -> Score:
        def weighted(values: Right) -> npt.NDArray[Any]:
            return values if weights is None else weights * values

        return compare(
            weighted(right(question.ranked, rows, k)),
            baseline=weighted(right(question.baseline, rows, k)) if question.baseline else None,
            majority=weighted(np.isin(question.truth[rows], question.frequent[:k])),
            bounds=(0, 1 if weights is None else float(weights.max())),
            chance=100.0 * min(k, question.num_classes) / question.num_classes,
            videos=None if videos is None else videos[rows],
            k=k,
        )

    def num_videos(rows: Right) -> int | None:
        return None if videos is None else len(np.unique(videos[rows]))

    labelled = question.truth != IGNORED_LABEL
    weights = None if batch_size is None else batch_weights(int(labelled.sum()), batch_size)
    first = right(question.ranked, labelled, 1).mean(axis=0)
    baseline_first = right(question.baseline, labelled, 1).mean(axis=0) if question.baseline else None
    present, of_class, sizes = np.unique(question.truth[labelled], return_inverse=True, return_counts=True)
    shares = 100 * np.bincount(of_class, weights=first) / sizes
    baseline_shares = None if baseline_first is None else 100 * np.bincount(of_class, weights=baseline_first) / sizes
    in_parts = {name: labelled & rows for name, rows in parts.items()}
    return ColumnResult(
        column=question.column,
        num_classes=question.num_classes,
        num_train_actions=len(question.known),
        num_test_actions=int(labelled.sum()),
        num_test_videos=num_videos(labelled),
        top1=score(labelled, 1, weights),
        top5=score(labelled, MOST_GUESSES, weights),
        classes=tuple(
            ClassAccuracy(
                question.name_of(label),
                float(shares[place]),
                None if baseline_shares is None else float(baseline_shares[place]),
                int(sizes[place]),
            )
            for place, label in enumerate(present.tolist())
        ),
        parts=tuple(
            PartResult(name, int(rows.sum()), num_videos(rows), score(rows, 1))
            for name, rows in in_parts.items()
            if rows.any()
        ),
        chosen=chosen,
    )
