"""Test samples to show on a page, those answered right and those answered wrong: which ones, and what is shown of them.

Path of a sample: scores --> a choice by confidence and by seed --> frames of these samples --report--> page.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.evaluation.answers import TargetAnswers

__all__ = ["ClipAnswer", "JudgedClip", "answers_to", "choose_samples", "right_and_confident"]


@dataclass(frozen=True, slots=True)
class ClipAnswer:
    """What was answered about one label column.

    Attributes:
        column: Label column, such as "verb".
        true: Name of the true class.
        predicted: Name of the predicted class.
        probability: That the head gave the predicted class, 0 to 1.
        right: Whether the class is the true one; names alone do not tell, two classes may share one.
    """

    column: str
    true: str
    predicted: str
    probability: float
    right: bool


@dataclass(frozen=True, slots=True)
class JudgedClip:
    """A test sample to show.

    Attributes:
        video_id: Video it is in.
        start_seconds: Where it starts there.
        stop_seconds: Where it ends.
        frames: Frames to show, uint8 ``(T, H, W, 3)`` RGB.
        answers: What was answered.
        confident: Whether it was chosen as one of the most confident answers, not drawn by the seed.
    """

    video_id: str
    start_seconds: float
    stop_seconds: float
    frames: NDArray[np.uint8]
    answers: tuple[ClipAnswer, ...]
    confident: bool

    @property
    def right(self) -> bool:
        """Whether every answer is right."""
        return all(answer.right for answer in self.answers)


def right_and_confident(targets: Sequence[TargetAnswers]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Say of each sample whether it is right in every label column, and how confident the answers are together.

    Args:
        targets: Answers by label column, of the same samples.

    Returns:
        Right, shape ``(N,)``, and the product of the predicted classes' probabilities, which is NaN for samples that
        lack a label: these are neither right nor wrong.

    Raises:
        ValueError: If there is none.
    """
    if not targets:
        raise ValueError("no label column")
    right = np.logical_and.reduce([target.predictions == target.labels for target in targets])
    labelled = np.logical_and.reduce([target.labelled for target in targets])
    confidence = np.multiply.reduce([target.confidence for target in targets])
    return right, np.where(labelled, confidence, np.nan)


def choose_samples(
    candidates: ArrayLike,
    confidence: ArrayLike,
    videos: Sequence[str],
    *,
    num_confident: int,
    num_drawn: int,
    seed: int,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Choose samples: those with the most confident answers, and others drawn at random; one of each video at most.

    The most confident alone would show only what is easy, or what is wrong by a label; those drawn show what is usual.

    Args:
        candidates: Which samples may be chosen, bool ``(N,)``.
        confidence: Of each sample, ``(N,)``; equal ones are taken in an order drawn by the seed.
        videos: Video of each sample.
        num_confident: How many of the most confident at most.
        num_drawn: How many others at most.
        seed: Of the draw.

    Returns:
        Numbers of the most confident samples, most confident first, and of those drawn.

    Example:
        >>> choose_samples([True, True, True, False], [0.9, 0.8, 0.1, 1.0], ["a", "a", "b", "c"],
        ...                num_confident=1, num_drawn=5, seed=0)
        ((0,), (2,))
    """
    allowed, certain = np.asarray(candidates, dtype=bool), np.asarray(confidence, dtype=np.float64)
    if not len(allowed) == len(certain) == len(videos):
        raise ValueError(f"{len(allowed)} candidates, {len(certain)} confidences, {len(videos)} videos")
    shuffled = np.random.default_rng(seed).permutation(len(allowed))
    shuffled = shuffled[allowed[shuffled]]
    taken: set[str] = set()

    def take(order: NDArray[np.int64], number: int) -> tuple[int, ...]:
        chosen: list[int] = []
        for sample in order.tolist():
            if len(chosen) == number:
                break
            if videos[sample] not in taken:
                taken.add(videos[sample])
                chosen.append(sample)
        return tuple(chosen)

    confident = take(shuffled[np.argsort(-certain[shuffled], kind="stable")], num_confident)
    return confident, take(shuffled, num_drawn)


def answers_to(sample: int, targets: Sequence[TargetAnswers]) -> tuple[ClipAnswer, ...]:
    """Return what was answered about one sample, for each label column that it has a label in.

    Args:
        sample: Its number.
        targets: Answers by label column.
    """
    return tuple(
        ClipAnswer(
            column=target.column,
            true=target.names[target.labels[sample]],
            predicted=target.names[target.predictions[sample]],
            probability=float(target.confidence[sample]),
            right=bool(target.predictions[sample] == target.labels[sample]),
        )
        for target in targets
        if target.labels[sample] >= 0
    )
