"""The official measure of EPIC-SOUNDS' detection challenge: which sounds are heard, from when to when.

Path of a sample: sounds detected in whole videos --here--> mean average precision, as the challenge's own evaluation
gives it. Everything is a pure function of arrays.

Letters: D detections, E annotated events, T thresholds of temporal intersection over union (tIoU), C classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "TIOU_THRESHOLDS",
    "ClassMatches",
    "Events",
    "detection_average_precisions",
    "detection_metrics",
    "match_detections",
]

TIOU_THRESHOLDS = tuple(np.linspace(0.1, 0.5, 5).tolist())  # the third is 0.30000000000000004, officially too
MAX_PAIRS = 2**22  # overlaps in memory at once: 32 MB


@dataclass(frozen=True, slots=True)
class Events:
    """Sounds in videos, annotated or detected.

    Attributes:
        video: A number for each video, shape ``(N,)``.
        label: Classes, shape ``(N,)``.
        segment: From when to when, in seconds, shape ``(N, 2)``.
        score: How sure each detection is, shape ``(N,)``; None for what is annotated.
    """

    video: NDArray[np.int64]
    label: NDArray[np.int64]
    segment: NDArray[np.float64]
    score: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        num_events = len(self.label)
        shapes = (self.video.shape, self.segment.shape, (num_events,) if self.score is None else self.score.shape)
        if shapes != ((num_events,), (num_events, 2), (num_events,)):
            raise ValueError(f"need one video, segment and score for each of {num_events} events, got {shapes}")
        finite = np.isfinite(self.segment).all(axis=1)
        if self.score is not None:
            finite &= np.isfinite(self.score)
        if not finite.all():
            raise ValueError(f"a time or score of event {int(finite.argmin())} is not a finite number")
        unordered = self.segment[:, 0] >= self.segment[:, 1]
        if unordered.any():
            raise ValueError(f"event {int(unordered.argmax())} ends at its start or before")


def detection_metrics(detected: Events, annotated: Events) -> dict[str, float]:
    """Return the measures of the detection challenge under their official names, in %.

    Args:
        detected: With scores. A video that no annotated event is in makes a detection wrong; one of a class that
            nothing annotated has is left out.
        annotated: At least one event, without those of the class background.

    Returns:
        Mean average precision over the annotated classes at each tIoU of .1, .2, .3, .4 and .5 (``_at_01`` to
        ``_at_05``), and the mean of these.

    Raises:
        ValueError: If nothing is annotated, or detections have no scores.

    Example:
        >>> truth = Events(np.array([0]), np.array([3]), np.array([[1.0, 2.0]]))
        >>> found = Events(np.array([0]), np.array([3]), np.array([[1.5, 2.5]]), np.array([0.9]))
        >>> {name: round(value, 6) for name, value in detection_metrics(found, truth).items()}["interaction_map_avg"]
        60.0
    """
    precisions = np.stack(list(detection_average_precisions(detected, annotated).values()))
    means = precisions.mean(axis=0)
    metrics = {f"interaction_map_at_{number:02d}": 100 * float(mean) for number, mean in enumerate(means, start=1)}
    return metrics | {"interaction_map_avg": 100 * float(means.mean())}


def detection_average_precisions(
    detected: Events, annotated: Events, *, thresholds: ArrayLike = TIOU_THRESHOLDS
) -> dict[int, NDArray[np.float64]]:
    """Return the average precision of each annotated class at each threshold.

    Detections of a class are taken in falling order of their scores, of equal ones the later first. Each takes the
    annotated event of its video that it overlaps most, of equal ones the later; where another detection has taken
    that, the next best whose tIoU still reaches the threshold; and is wrong where none is left. Precision is
    interpolated as in Pascal VOC 2011: the highest at this recall or any above.

    Args:
        detected: With scores.
        annotated: At least one event.
        thresholds: Least tIoU, shape ``(T,)``.

    Returns:
        class -> average precision from 0 to 1, shape ``(T,)``; 0 for a class without detections.

    Raises:
        ValueError: As `detection_metrics`.

    Example:
        >>> truth = Events(np.array([0]), np.array([3]), np.array([[1.0, 2.0]]))
        >>> found = Events(np.array([0]), np.array([3]), np.array([[1.0, 1.5]]), np.array([0.9]))
        >>> detection_average_precisions(found, truth, thresholds=[0.5, 0.6])
        {3: array([1., 0.])}
    """
    return {
        number: _interpolated_precision(matches.right, len(matches.event_videos))
        for number, matches in match_detections(detected, annotated, thresholds=thresholds).items()
    }


@dataclass(frozen=True, slots=True)
class ClassMatches:
    """Which detections of a class are right.

    Attributes:
        videos: Video of each detection, the surest first, shape ``(D,)``.
        right: Whether it is right at each threshold, shape ``(T, D)``.
        event_videos: Video of each annotated event of the class, shape ``(E,)``.
    """

    videos: NDArray[np.int64]
    right: NDArray[np.bool_]
    event_videos: NDArray[np.int64]


def match_detections(
    detected: Events, annotated: Events, *, thresholds: ArrayLike = TIOU_THRESHOLDS
) -> dict[int, ClassMatches]:
    """Match detections to annotated events, as `detection_average_precisions` says.

    Args:
        detected: With scores.
        annotated: At least one event.
        thresholds: Least tIoU, shape ``(T,)``.

    Returns:
        Annotated class -> its detections.

    Raises:
        ValueError: As `detection_metrics`.
    """
    if not len(annotated.label) or detected.score is None:
        raise ValueError("need annotated events, and detections with scores")
    levels = np.asarray(thresholds, dtype=np.float64)
    matches = {}
    for number in np.unique(annotated.label).tolist():
        chosen = np.flatnonzero(detected.label == number)
        chosen = chosen[np.argsort(detected.score[chosen], kind="stable")[::-1]]
        truth = np.flatnonzero(annotated.label == number)
        right = np.zeros((len(levels), len(chosen)), dtype=bool)
        true_videos, found_videos = annotated.video[truth], detected.video[chosen]
        for video in np.intersect1d(true_videos, found_videos):
            places = np.flatnonzero(found_videos == video)
            events = annotated.segment[truth[true_videos == video]]
            right[:, places] = _matched(detected.segment[chosen[places]], events, levels)
        matches[number] = ClassMatches(found_videos, right, true_videos)
    return matches


def _matched(
    detections: NDArray[np.float64], events: NDArray[np.float64], levels: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Say which detections of one video and class, the surest first, are right at each level: shape ``(T, D)``."""
    right = np.zeros((len(levels), len(detections)), dtype=bool)
    taken = np.zeros((len(levels), len(events)), dtype=bool)
    num_rows = max(1, MAX_PAIRS // len(events))
    for start in range(0, len(detections), num_rows):
        overlaps = _overlaps(detections[start : start + num_rows], events)
        for row in np.flatnonzero(overlaps.max(axis=1) >= levels.min()).tolist():
            best_first = np.argsort(overlaps[row], kind="stable")[::-1]
            for level, least in enumerate(levels):
                free = best_first[(overlaps[row, best_first] >= least) & ~taken[level, best_first]]
                if len(free):
                    taken[level, free[0]] = right[level, start + row] = True
    return right


def _overlaps(detections: NDArray[np.float64], events: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the temporal intersection over union of each detection with each event, shape ``(D, E)``."""
    latest_start = np.maximum(detections[:, None, 0], events[None, :, 0])
    earliest_end = np.minimum(detections[:, None, 1], events[None, :, 1])
    intersections = (earliest_end - latest_start).clip(0)
    # In the official order of the sums, so that what lies on a threshold lies on the same side of it.
    unions = (events[:, 1] - events[:, 0])[None, :] + (detections[:, 1] - detections[:, 0])[:, None] - intersections
    shares: NDArray[np.float64] = intersections / unions
    return shares


def _interpolated_precision(right: NDArray[np.bool_], num_events: int) -> NDArray[np.float64]:
    """Return the area below the interpolated curve of precision over recall, for each level."""
    if not right.shape[1]:
        return np.zeros(len(right))
    true_counts = right.cumsum(axis=1).astype(np.float64)
    recall, precision = true_counts / num_events, true_counts / np.arange(1, right.shape[1] + 1)
    highest_from_here = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    gains = np.diff(recall, axis=1, prepend=0.0)
    return np.asarray(
        [(gain[gain > 0] * best[gain > 0]).sum() for gain, best in zip(gains, highest_from_here, strict=True)]
    )
