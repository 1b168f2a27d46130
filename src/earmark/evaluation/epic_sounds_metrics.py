"""The official measures of EPIC-SOUNDS' recognition challenge.

Path of a sample: scores of 44 classes of sounds --here--> numbers as the challenge's own evaluation gives them (Huh et
al., "EPIC-SOUNDS", TPAMI 2025). Everything is a pure function of arrays.

Letters: N segments, W views of a segment, C classes.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.evaluation.epic_metrics import rank_classes

__all__ = [
    "BACKGROUND",
    "areas_under_roc",
    "average_precisions",
    "class_mean_accuracy",
    "sound_recognition_metrics",
]

BACKGROUND = 13  # the class that is left out of the test


def sound_recognition_metrics(
    scores: ArrayLike, labels: ArrayLike, *, with_background: bool = False
) -> dict[str, float]:
    """Return the measures of the recognition challenge under their official names: all in %, but mAUC as a share.

    Top-1 and top-5 rank the scores as given, of equal ones the later class first. The class-mean accuracy (mCA), which
    takes the first of equal classes, and mAP and mAUC are computed on the scores in float32, as the official code does.
    Means over classes are over those present; one that all segments have has no area under its ROC curve.

    Args:
        scores: Shape ``(N, C)``, or ``(N, W, C)`` with W views of a segment, which are summed as they are.
        labels: Class ids, shape ``(N,)``.
        with_background: Whether segments of the class background count. Without, its score column stays.

    Returns:
        mAUC is missing where no class has one.

    Raises:
        ValueError: If shapes do not fit, no segment is left, a label is no class, or a score is not finite in float32.

    Example:
        >>> metrics = sound_recognition_metrics([[3.0, 1.0], [2.0, 1.0]], [0, 1])
        >>> metrics["all_interaction_accuracy_at_1"], metrics["all_interaction_mCA"], metrics["all_interaction_mAUC"]
        (50.0, 50.0, 0.75)
    """
    matrix, targets = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if matrix.ndim == 3:
        matrix = matrix.sum(axis=1)
    if matrix.ndim != 2 or targets.shape != matrix.shape[:1]:
        raise ValueError(f"need scores (N, C) or (N, W, C) and labels (N,); got {matrix.shape} and {targets.shape}")
    if not np.issubdtype(targets.dtype, np.integer) or ((targets < 0) | (targets >= matrix.shape[1])).any():
        raise ValueError(f"labels must be whole numbers from 0 to {matrix.shape[1] - 1}")
    if not with_background:
        kept = targets != BACKGROUND
        matrix, targets = matrix[kept], targets[kept]
    ranked = rank_classes(matrix)
    with np.errstate(over="ignore"):
        single = matrix.astype(np.float32)
    if not np.isfinite(single).all():
        raise ValueError(f"scores of segment {int((~np.isfinite(single)).any(axis=1).argmax())} are beyond float32")
    right = ranked[:, :5] == targets[:, None]
    metrics = {f"all_interaction_accuracy_at_{k}": 100 * float(right[:, :k].any(axis=1).mean()) for k in (1, 5)}
    metrics["all_interaction_mCA"] = 100 * class_mean_accuracy(single, targets)
    metrics["all_interaction_mAP"] = 100 * float(np.mean(list(average_precisions(single, targets).values())))
    areas = areas_under_roc(single, targets)
    if areas:
        metrics["all_interaction_mAUC"] = float(np.mean(list(areas.values())))
    return metrics


def class_mean_accuracy(scores: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean over the classes present of the share of their segments that are recognised.

    Args:
        scores: Shape ``(N, C)``; the first of equally high scores is the answer.
        labels: Class ids, shape ``(N,)``.

    Example:
        >>> class_mean_accuracy([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]], [0, 1, 1])
        0.75
    """
    targets = np.asarray(labels)
    right = np.asarray(scores).argmax(axis=1) == targets
    _, of_class, sizes = np.unique(targets, return_inverse=True, return_counts=True)
    return float((np.bincount(of_class, weights=right) / sizes).mean())


def average_precisions(scores: ArrayLike, labels: ArrayLike) -> dict[int, float]:
    """Return the average precision of each class present: the sum of precisions, weighted by the gains in recall.

    Segments of equal scores count together, at once; nothing is interpolated.

    Args:
        scores: Shape ``(N, C)``.
        labels: Class ids, shape ``(N,)``.

    Returns:
        class -> average precision, from 0 to 1.

    Example:
        >>> average_precisions([[0.9, 0.1], [0.8, 0.3], [0.7, 0.2]], [0, 1, 0])[0]
        0.8333333333333333
    """
    precisions_of = {}
    for number, true_counts, counts, num_true, _ in _curves(scores, labels):
        recall_gains = np.diff(true_counts, prepend=0) / num_true
        precisions_of[number] = float((recall_gains * (true_counts / counts)).sum())
    return precisions_of


def areas_under_roc(scores: ArrayLike, labels: ArrayLike) -> dict[int, float]:
    """Return the area under the ROC curve of each class that some, but not all, segments have.

    Args:
        scores: Shape ``(N, C)``; of equal scores half counts.
        labels: Class ids, shape ``(N,)``.

    Returns:
        class -> area, from 0 to 1.

    Example:
        >>> areas_under_roc([[0.9, 0.1], [0.8, 0.3], [0.7, 0.2]], [0, 1, 0])[0]
        0.5
    """
    areas = {}
    for number, true_counts, counts, num_true, num_segments in _curves(scores, labels):
        num_false = num_segments - num_true
        if num_false:
            true_gains, false_gains = np.diff(true_counts, prepend=0), np.diff(counts - true_counts, prepend=0)
            areas[number] = float((false_gains * (true_counts - true_gains / 2)).sum() / num_true / num_false)
    return areas


def _curves(scores: ArrayLike, labels: ArrayLike) -> "list[tuple[int, NDArray[np.int64], NDArray[np.int64], int, int]]":
    """Return for each class present: how many of the segments at or above each distinct score have it, and are there.

    Returns:
        (class, of them true, of them in all, true in all, segments in all); scores fall.
    """
    matrix, targets = np.asarray(scores), np.asarray(labels)
    curves = []
    for number in np.unique(targets).tolist():
        column = matrix[:, number]
        order = np.argsort(column, kind="stable")[::-1]
        falling, is_true = column[order], targets[order] == number
        last_of_equal = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)
        curves.append((number, is_true.cumsum()[last_of_equal], last_of_equal + 1, int(is_true.sum()), len(falling)))
    return curves
