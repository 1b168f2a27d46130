"""From scored moments to sounds with a class, a start and an end.

Path of a sample: moments of a video --probe--> scores of classes --here--> detections --detection measures--> numbers.
A moment says when something is heard, and the probe what; how long sounds of a class last, and where in them moments
lie, is learned from the training annotations. Everything is a pure function of arrays.

Letters: M moments of a video, E annotated events of a video, C classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from earmark.evaluation.detection_metrics import Events, detection_metrics
from earmark.evaluation.epic_sounds_metrics import BACKGROUND

__all__ = [
    "MAX_PER_CLASS",
    "ClassExtents",
    "DetectionRule",
    "VideoMoments",
    "choose_rule",
    "class_extents",
    "detect",
    "match_moments",
]

MAX_PER_CLASS = 200  # detections of one class in one video, the surest: what bounds memory
SIDE_WEIGHT = 0.5  # of a further length of the same moment: one of them at most is right
SHORTEST_SECONDS = 0.02

Floats = NDArray[np.float64]
Classes = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DetectionRule:
    """How segments are made around moments; what is chosen on training videos that are held out.

    Attributes:
        quantiles: Lengths that are tried for each moment, as quantiles of the lengths of training events of the class;
            those after the first count half.
        from_onset: Segments start at the moment; otherwise where they start from such a moment in training (median).
        max_overlap: Of two detections of one class that overlap more than this (tIoU), the less sure is dropped.
        score_power: The share of training moments with a lower score, to this power, multiplies the probability.
    """

    quantiles: tuple[float, ...] = (0.5,)
    from_onset: bool = True
    max_overlap: float = 0.5
    score_power: float = 0.0


QUANTILES = ((0.5,), (0.35,), (0.65,), (0.5, 0.25, 0.75))
MAX_OVERLAPS = (0.5, 0.25, 0.75)
SCORE_POWERS = (0.0, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class ClassExtents:
    """How sounds of each class lie about a moment, from training annotations.

    Attributes:
        lengths: Sorted lengths of the training events of each class, in seconds; those of all classes where there are
            none.
        starts: Median time from a moment to the start of its event, for each class, in seconds, shape ``(C,)``.
    """

    lengths: tuple[Floats, ...]
    starts: Floats


@dataclass(frozen=True, slots=True)
class VideoMoments:
    """The moments of one video.

    Attributes:
        times: When, in seconds, shape ``(M,)``.
        weights: The share of training moments with at most such a score, up to 1, shape ``(M,)``.
        duration_seconds: Of the video.
    """

    times: Floats
    weights: Floats
    duration_seconds: float


def match_moments(times: Floats, segments: Floats, *, tolerance_seconds: float) -> Classes:
    """Return which event each moment is of: of those that are heard then, the one that starts nearest.

    Args:
        times: Of the moments, shape ``(M,)``.
        segments: From when to when events are heard, in seconds, shape ``(E, 2)``.
        tolerance_seconds: How much before the start of an event a moment may lie.

    Returns:
        Numbers of events, -1 where there is none, shape ``(M,)``; of equally near starts the first.

    Example:
        >>> match_moments(np.array([0.95, 3.0, 9.0]), np.array([[0.0, 5.0], [1.0, 1.5]]), tolerance_seconds=0.2)
        array([ 1,  0, -1])
    """
    found = np.full(len(times), -1)
    if not len(segments):
        return found
    for number, time in enumerate(times.tolist()):
        heard = np.flatnonzero((segments[:, 0] - tolerance_seconds <= time) & (time < segments[:, 1]))
        if len(heard):
            found[number] = heard[np.abs(segments[heard, 0] - time).argmin()]
    return found


def class_extents(
    labels: Classes, segments: Floats, *, matched_labels: Classes, matched_starts: Floats, num_classes: int
) -> ClassExtents:
    """Return how sounds of each class lie about moments.

    Args:
        labels: Classes of all training events, shape ``(E,)``.
        segments: From when to when, shape ``(E, 2)``.
        matched_labels: Class of the event of each training moment that has one.
        matched_starts: Start of that event less the time of the moment, in seconds.
        num_classes: How many classes there are, C.

    Raises:
        ValueError: If there is no event.
    """
    if not len(labels):
        raise ValueError("the training videos have no annotated sound")
    lengths = np.sort(segments[:, 1] - segments[:, 0])
    of_class = [np.sort((segments[:, 1] - segments[:, 0])[labels == number]) for number in range(num_classes)]
    starts = [matched_starts[matched_labels == number] for number in range(num_classes)]
    return ClassExtents(
        tuple(mine if len(mine) else lengths for mine in of_class),
        np.array([float(np.median(mine)) if len(mine) else 0.0 for mine in starts]),
    )


def detect(
    videos: Sequence[VideoMoments], probabilities: Sequence[Floats], extents: ClassExtents, rule: DetectionRule
) -> Events:
    """Return the sounds that are detected in videos; in one class and video at most `MAX_PER_CLASS`, the surest.

    What has the probability 0 is not detected.

    Args:
        videos: Their moments.
        probabilities: Of each class (and more columns, which are not looked at) at the moments of each video, shape
            ``(M, C)``.
        extents: Of the classes.
        rule: How segments are made.

    Raises:
        ValueError: If there is not one row for each moment, or a probability is not finite.
    """
    numbers: list[Classes] = [np.zeros(0, np.int64)]
    labels: list[Classes] = [np.zeros(0, np.int64)]
    segments, scores = [np.zeros((0, 2))], [np.zeros(0)]
    for number, (video, mine) in enumerate(zip(videos, probabilities, strict=True)):
        if mine.shape[:1] != video.times.shape or mine.shape[1] < len(extents.lengths):
            raise ValueError(f"need probabilities of {len(extents.lengths)} classes at each moment, got {mine.shape}")
        if not np.isfinite(mine).all():
            raise ValueError("a probability at a moment is not a finite number")
        for label, found, sure in _of_video(video, mine, extents, rule):
            numbers.append(np.full(len(found), number))
            labels.append(np.full(len(found), label))
            segments.append(found)
            scores.append(sure)
    return Events(*(np.concatenate(column) for column in (numbers, labels, segments, scores)))  # type: ignore[arg-type]


def _of_video(
    video: VideoMoments, probabilities: Floats, extents: ClassExtents, rule: DetectionRule
) -> Iterator[tuple[int, Floats, Floats]]:
    """Yield class, segments and scores of the detections of each class."""
    if not len(video.times):
        return
    weights = video.weights**rule.score_power
    for label, lengths in enumerate(extents.lengths):
        if label == BACKGROUND:
            continue
        starts = video.times + (0.0 if rule.from_onset else extents.starts[label])
        tried = np.quantile(lengths, rule.quantiles)
        segments = np.stack([np.tile(starts, len(tried)), (starts + tried[:, None]).ravel()], axis=1)
        factors = np.where(np.arange(len(tried)) == 0, 1.0, SIDE_WEIGHT)
        scores = (factors[:, None] * probabilities[:, label] * weights).ravel()
        possible = scores > 0
        found = _within(segments[possible], video.duration_seconds)
        yield label, *_surest(found, scores[possible], rule.max_overlap)


def _within(segments: Floats, duration_seconds: float) -> Floats:
    """Return segments cut to the video, none of them empty."""
    starts = segments[:, 0].clip(0.0, max(0.0, duration_seconds - SHORTEST_SECONDS))
    stops = segments[:, 1].clip(starts + SHORTEST_SECONDS, np.maximum(duration_seconds, starts + SHORTEST_SECONDS))
    return np.stack([starts, stops], axis=1)


def _surest(segments: Floats, scores: Floats, max_overlap: float) -> tuple[Floats, Floats]:
    """Return what is left without those that a surer one overlaps: of equally sure ones the first stays."""
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    alive = np.ones(len(order), dtype=bool)
    starts, stops = segments[order].T
    lengths = stops - starts
    for place in range(len(order)):
        if not alive[place]:
            continue
        kept.append(place)
        if len(kept) == MAX_PER_CLASS:
            break
        shared = (np.minimum(stops[place], stops) - np.maximum(starts[place], starts)).clip(0)
        alive &= shared <= max_overlap * (lengths[place] + lengths - shared)
    chosen = order[kept]
    return segments[chosen], scores[chosen]


def choose_rule(
    videos: Sequence[VideoMoments], probabilities: Sequence[Floats], annotated: Events, extents: ClassExtents
) -> tuple[DetectionRule, float]:
    """Return the rule with the highest mean average precision on videos, and that.

    Args:
        videos: Their moments; videos that neither test nor training of the probe have.
        probabilities: At the moments of each video, shape ``(M, C)``.
        annotated: The events of these videos.
        extents: From other videos.

    Raises:
        ValueError: As `detect` and `detection_metrics`.
    """
    best = DetectionRule()
    scored: dict[DetectionRule, float] = {}

    def score(rule: DetectionRule) -> float:
        if rule not in scored:
            detected = detect(videos, probabilities, extents, rule)
            scored[rule] = detection_metrics(detected, annotated)["interaction_map_avg"]
        return scored[rule]

    # Of equal ones the first. Length and start decide together what overlaps; the others are chosen one by one.
    best = max((replace(best, quantiles=q, from_onset=o) for q in QUANTILES for o in (True, False)), key=score)
    best = max((replace(best, max_overlap=overlap) for overlap in MAX_OVERLAPS), key=score)
    best = max((replace(best, score_power=power) for power in SCORE_POWERS), key=score)
    return best, score(best)
