"""Numbers of the field's tasks; `earmark.evaluation.intervals` says how far each of them can be trusted.

Path of a sample: features --probe--> scores --metrics--> numbers --report--> page. Scores and labels come in;
accuracies and distances go out. Everything here is a pure function of arrays.

Letters: N samples, C classes, K candidate sequences, Z steps into the future, T sampled frames.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "area_under_edit_distance",
    "area_under_prefix_distances",
    "edit_distance",
    "keyframe_error_seconds",
    "majority_accuracy",
    "majority_correct",
    "mean_keyframe_error_seconds",
    "prefix_edit_distances",
    "state_change_accuracy",
    "top_k_accuracy",
    "top_k_correct",
]

MAX_TABLE = 2**22  # edit distances that are held at once, 32 MB: of a split's windows they would take a gigabyte
PUBLISHED_NUM_KEYFRAMES = 16  # what Ego4D's PNR baseline divides a clip by, however many frames it scores


def top_k_correct(logits: ArrayLike, labels: ArrayLike, k: int) -> NDArray[np.bool_]:
    """Say of each sample whether its label is among the ``k`` highest scores.

    Equal scores stand in the order of ``torch.topk``. With ``k`` at or above the number of classes all are right.

    Args:
        logits: Scores, shape ``(N, C)``; any increasing function of the probability will do.
        labels: Class ids, shape ``(N,)``, in ``[0, C)``.
        k: Number of guesses, at least 1.

    Returns:
        Shape ``(N,)``.

    Raises:
        ValueError: If shapes do not fit, a label is not a class, or a score is not a number.

    Example:
        >>> top_k_correct([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]], [2, 0], k=1)
        array([False,  True])
    """
    import torch  # not above: files of predictions are scored by the other measures, without torch

    scores, targets = np.asarray(logits), np.asarray(labels)
    if scores.ndim != 2 or targets.shape != scores.shape[:1] or len(targets) == 0:
        raise ValueError(f"need logits (N, C) and labels (N,), N > 0; got shapes {scores.shape} and {targets.shape}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if np.isnan(scores).any():
        raise ValueError(f"scores of sample {int(np.isnan(scores).any(axis=1).argmax())} contain NaN")
    _check_labels(targets, num_classes=scores.shape[1])
    top = torch.from_numpy(scores).topk(min(k, scores.shape[1]), dim=1).indices.numpy()
    correct: NDArray[np.bool_] = (top == targets[:, None]).any(axis=1)
    return correct


def top_k_accuracy(logits: ArrayLike, labels: ArrayLike, k: int) -> float:
    """Return the share of samples whose label is among the ``k`` highest scores, in %.

    Args:
        logits: Scores, shape ``(N, C)``.
        labels: Class ids, shape ``(N,)``.
        k: Number of guesses, at least 1.

    Raises:
        ValueError: As `top_k_correct`.

    Example:
        >>> top_k_accuracy([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]], [2, 0], k=1)
        50.0
    """
    return 100.0 * float(top_k_correct(logits, labels, k).mean())


def majority_correct(train_labels: ArrayLike, test_labels: ArrayLike, k: int) -> NDArray[np.bool_]:
    """Say of each test sample whether its label is among the ``k`` most frequent training classes.

    Equally frequent classes stand in the order of their ids.

    Args:
        train_labels: Class ids, shape ``(N_train,)``.
        test_labels: Class ids, shape ``(N,)``.
        k: Number of guesses, at least 1.

    Returns:
        Shape ``(N,)``.

    Raises:
        ValueError: If either is empty or holds a negative id.
    """
    train, test = np.asarray(train_labels), np.asarray(test_labels)
    for labels in (train, test):
        if labels.ndim != 1 or len(labels) == 0:
            raise ValueError(f"need labels of shape (N,), N > 0, got {labels.shape}")
        _check_labels(labels)
    classes, counts = np.unique(train, return_counts=True)
    most_frequent = classes[np.argsort(-counts, kind="stable")[:k]]
    return np.isin(test, most_frequent)


def majority_accuracy(train_labels: ArrayLike, test_labels: ArrayLike, k: int = 1) -> float:
    """Return the accuracy of always guessing the most frequent training classes, in %: the majority-class baseline.

    Args:
        train_labels: Class ids, shape ``(N_train,)``.
        test_labels: Class ids, shape ``(N,)``.
        k: Number of guesses, at least 1.

    Raises:
        ValueError: As `majority_correct`.

    Example:
        >>> majority_accuracy([3, 3, 1], [3, 1, 1, 3], k=1)
        50.0
    """
    return 100.0 * float(majority_correct(train_labels, test_labels, k).mean())


def prefix_edit_distances(predictions: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Return the normalized edit distance of every prefix of predicted actions (Ego4D long-term anticipation).

    For the prefixes of length z = 1..Z: the Levenshtein distance (insertion, deletion, substitution cost 1; swapping
    two neighbours costs 2) divided by z, the smallest of the K candidates.

    Args:
        predictions: Class ids of K candidate sequences, shape ``(N, Z, K)``.
        labels: Class ids, shape ``(N, Z)``.

    Returns:
        Shape ``(N, Z)``, in [0, 1].

    Raises:
        ValueError: If the shapes do not fit.

    Example:
        >>> prefix_edit_distances([[[1], [2], [3]]], [[1, 3, 2]])
        array([[0.        , 0.5       , 0.66666667]])
    """
    candidates, targets = np.asarray(predictions), np.asarray(labels)
    if candidates.ndim != 3 or candidates.shape[:2] != targets.shape or 0 in candidates.shape:
        raise ValueError(f"need predictions (N, Z, K) and labels (N, Z), got {candidates.shape} and {targets.shape}")
    num_samples, num_steps, num_candidates = candidates.shape
    at_once = max(1, MAX_TABLE // ((num_steps + 1) ** 2 * num_candidates))
    blocks = [slice(start, start + at_once) for start in range(0, num_samples, at_once)]
    return np.concatenate([_prefix_edit_distances(candidates[block], targets[block]) for block in blocks])


def _prefix_edit_distances(candidates: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float64]:
    num_samples, num_steps, num_candidates = candidates.shape
    differs = candidates[:, :, None, :] != targets[:, None, :, None]  # (N, predicted step, true step, K)
    # The table of the usual recursion, all samples and candidates at once. Its entry (z, z) is the distance between the
    # two prefixes of length z, so one table answers for all prefixes.
    table = np.zeros((num_steps + 1, num_steps + 1, num_samples, num_candidates), dtype=np.int64)
    table[:, 0] = table[0, :] = np.arange(num_steps + 1)[:, None, None]
    for i in range(num_steps):
        for j in range(num_steps):
            substituted = table[i, j] + differs[:, i, j]
            table[i + 1, j + 1] = np.minimum(substituted, 1 + np.minimum(table[i, j + 1], table[i + 1, j]))
    lengths = np.arange(1, num_steps + 1)
    best = table[lengths, lengths].min(axis=-1)  # (Z, N)
    return np.asarray(best.T / lengths)


def edit_distance(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Return Ego4D's ED@Z: the mean over samples of the normalized edit distance of the best of K sequences.

    Args:
        predictions: Class ids of K candidate sequences, shape ``(N, Z, K)``.
        labels: Class ids, shape ``(N, Z)``.

    Raises:
        ValueError: If the shapes do not fit.

    Example:
        >>> edit_distance([[[1], [2]]], [[2, 1]])
        1.0
    """
    return float(prefix_edit_distances(predictions, labels)[:, -1].mean())


def area_under_edit_distance(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Return Ego4D's AUED: the trapezoidal area under ED@z for z = 1..Z, divided by Z - 1.

    Args:
        predictions: Class ids of K candidate sequences, shape ``(N, Z, K)``, Z at least 2.
        labels: Class ids, shape ``(N, Z)``.

    Raises:
        ValueError: If the shapes do not fit or Z is 1.

    Example:
        >>> area_under_edit_distance([[[1], [2]]], [[1, 1]])
        0.25
    """
    return area_under_prefix_distances(prefix_edit_distances(predictions, labels))


def area_under_prefix_distances(distances: ArrayLike) -> float:
    """Return Ego4D's AUED of distances that are known: the area under their mean over samples.

    Args:
        distances: As `prefix_edit_distances` gives them, shape ``(N, Z)``, Z at least 2.

    Raises:
        ValueError: If the shape does not fit or Z is 1.

    Example:
        >>> area_under_prefix_distances([[0.0, 0.5]])
        0.25
    """
    from scipy.integrate import trapezoid  # not above: it takes half a second and 40 MB, whatever is scored

    table = np.asarray(distances, dtype=np.float64)
    if table.ndim != 2 or not len(table):
        raise ValueError(f"need distances (N, Z), N > 0, got {table.shape}")
    if table.shape[1] < 2:
        raise ValueError("the area under the edit distance needs sequences of at least 2 steps")
    return float(trapezoid(table.mean(axis=0)) / (table.shape[1] - 1))


def state_change_accuracy(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the accuracy of object state change classification (Ego4D OSCC), as a fraction as the benchmark has it.

    Args:
        logits: Scores of (no change, change), shape ``(N, 2)``.
        labels: 1 where the clip shows a state change, else 0, shape ``(N,)``.

    Raises:
        ValueError: As `top_k_correct`.

    Example:
        >>> state_change_accuracy([[2.0, 1.0], [0.0, 1.0]], [1, 1])
        0.5
    """
    return float(top_k_correct(logits, labels, k=1).mean())


def keyframe_error_seconds(
    keyframe_logits: ArrayLike,
    *,
    pnr_frame: ArrayLike,
    fps: ArrayLike,
    state_change: ArrayLike,
    sampled_frames: ArrayLike | None = None,
    clip_start_frame: ArrayLike | None = None,
    clip_end_frame: ArrayLike | None = None,
    protocol: Literal["exact", "published"] = "exact",
) -> NDArray[np.float64]:
    """Return how far each predicted point of no return is from the annotated one (Ego4D PNR), in seconds.

    ``"exact"`` takes the highest scored of the frames that the network was shown. ``"published"`` is the benchmark
    baseline's formula, ``start + index * (end - start) / 16``, to compare with published numbers: it divides by 16
    whatever T is, and ignores which frames were really sampled, so that even a perfect index has an error. The
    baseline also counts frames per second its own way: ``(end - start + 1) / (end_seconds - start_seconds)`` of the
    clip.

    Args:
        keyframe_logits: Scores of the T sampled frames, shape ``(N, T)``.
        pnr_frame: Annotated frame numbers of the source video, shape ``(N,)``.
        fps: Source frames per second, shape ``(N,)`` or one number; with ``"published"``, counted as above.
        state_change: True where the clip shows a state change, shape ``(N,)``.
        sampled_frames: Source frame numbers of the sampled frames, shape ``(N, T)``; needed by ``"exact"``.
        clip_start_frame: First source frame of each clip, shape ``(N,)``; needed by ``"published"``.
        clip_end_frame: Last source frame of each clip, shape ``(N,)``; needed by ``"published"``.
        protocol: Which formula.

    Returns:
        Shape ``(N,)``; NaN where the clip shows no change, where there is nothing to localize.

    Raises:
        ValueError: If what the protocol needs is missing or shapes do not fit.

    Example:
        >>> keyframe_error_seconds(
        ...     [[0.0, 1.0]], pnr_frame=[45], fps=30.0, state_change=[True], sampled_frames=[[0, 60]]
        ... )
        array([0.5])
    """
    logits = np.asarray(keyframe_logits)
    if logits.ndim != 2:
        raise ValueError(f"need keyframe_logits (N, T), got shape {logits.shape}")
    num_samples, num_frames = logits.shape
    index = logits.argmax(axis=1)
    if protocol == "exact":
        shown = _column(sampled_frames, "sampled_frames", (num_samples, num_frames))
        predicted_frame = shown[np.arange(num_samples), index]
    elif protocol == "published":
        start = _column(clip_start_frame, "clip_start_frame", (num_samples,))
        end = _column(clip_end_frame, "clip_end_frame", (num_samples,))
        predicted_frame = start + (end - start) / PUBLISHED_NUM_KEYFRAMES * index
    else:
        raise ValueError(f"protocol must be 'exact' or 'published', got {protocol!r}")
    annotated = _column(pnr_frame, "pnr_frame", (num_samples,))
    error_seconds = np.abs(predicted_frame - annotated) / np.asarray(fps, dtype=np.float64)
    return np.where(_column(state_change, "state_change", (num_samples,)) > 0, error_seconds, np.nan)


def mean_keyframe_error_seconds(
    error_seconds: ArrayLike,
    *,
    batch_size: int | None = None,
    protocol: Literal["exact", "published"] = "exact",
) -> float:
    """Return the mean of `keyframe_error_seconds` over the clips that show a change, in seconds.

    Args:
        error_seconds: Per-clip errors, NaN where there is no change, shape ``(N,)``.
        batch_size: Clips per batch of the published evaluation; needed by ``"published"``.
        protocol: ``"exact"`` averages clips. ``"published"`` averages the means of consecutive batches and counts a
            batch without a change as 0, as the benchmark's baseline does.

    Raises:
        ValueError: If no clip shows a change, or ``"published"`` has no batch size.

    Example:
        >>> errors = [0.5, float("nan"), float("nan"), float("nan")]
        >>> mean_keyframe_error_seconds(errors)
        0.5
        >>> mean_keyframe_error_seconds(errors, batch_size=2, protocol="published")
        0.25
    """
    errors = np.asarray(error_seconds, dtype=np.float64)
    has_change = ~np.isnan(errors)
    if not has_change.any():
        raise ValueError("no clip shows a state change: the error is not defined")
    if protocol == "exact":
        return float(errors[has_change].mean())
    if protocol != "published" or batch_size is None or batch_size < 1:
        raise ValueError(f"need protocol 'exact', or 'published' with a batch_size; got {protocol!r}, {batch_size}")
    batches = [errors[start : start + batch_size] for start in range(0, len(errors), batch_size)]
    return float(np.mean([np.nanmean(batch) if not np.isnan(batch).all() else 0.0 for batch in batches]))


def _column(values: ArrayLike | None, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return an argument as an array after checking that it is there and fits."""
    if values is None:
        raise ValueError(f"this protocol needs {name}")
    array = np.asarray(values, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, need {shape}")
    return array


def _check_labels(labels: NDArray[np.integer], num_classes: int | None = None) -> None:
    """Refuse labels that are not class ids."""
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be whole numbers, got {labels.dtype}")
    wrong = (labels < 0) if num_classes is None else (labels < 0) | (labels >= num_classes)
    if wrong.any():
        bound = "at least 0" if num_classes is None else f"in [0, {num_classes})"
        raise ValueError(f"label {labels[wrong][0]} of sample {int(wrong.argmax())} must be {bound}")
