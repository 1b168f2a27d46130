"""Detections around moments: matching, lengths, suppression against slow loops; choices that are known."""

import numpy as np
import numpy.typing as npt
import pytest

from earmark.evaluation.detection_metrics import Events, detection_metrics
from earmark.evaluation.epic_sounds_metrics import BACKGROUND
from earmark.evaluation.sound_events import (
    MAX_PER_CLASS,
    ClassExtents,
    DetectionRule,
    VideoMoments,
    choose_rule,
    class_extents,
    detect,
    match_moments,
)

NUM_CLASSES = 16  # background is class 13


def extents_of(length: float = 1.0, start: float = 0.0) -> ClassExtents:
    return ClassExtents(tuple(np.array([length]) for _ in range(NUM_CLASSES)), np.full(NUM_CLASSES, start))


def video_of(times: list[float], duration: float = 60.0) -> VideoMoments:
    return VideoMoments(np.array(times, dtype=float), np.ones(len(times)), duration)


def probabilities_of(labels: list[int], share: float = 0.9) -> npt.NDArray[np.float64]:
    rows = np.full((len(labels), NUM_CLASSES + 1), (1 - share) / NUM_CLASSES)
    rows[np.arange(len(labels)), labels] = share
    return rows


def test_a_moment_is_of_the_event_heard_then_that_starts_nearest() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        starts = rng.integers(0, 30, 12) / 4
        segments = np.stack([starts, starts + rng.integers(1, 20, 12) / 4], axis=1)
        times = rng.integers(0, 50, 30) / 4
        expected = []
        for time in times:
            best = -1
            for number, (start, stop) in enumerate(segments):
                if start - 0.25 <= time < stop and (best < 0 or abs(start - time) < abs(segments[best, 0] - time)):
                    best = number
            expected.append(best)
        assert match_moments(times, segments, tolerance_seconds=0.25).tolist() == expected
    assert match_moments(np.array([1.0]), np.zeros((0, 2)), tolerance_seconds=0.1).tolist() == [-1]


def test_lengths_and_starts_are_those_of_the_class_and_of_all_where_training_has_none() -> None:
    labels = np.array([2, 2, 5])
    segments = np.array([[0.0, 1.0], [0.0, 3.0], [10.0, 14.0]])
    found = class_extents(
        labels, segments, matched_labels=np.array([2, 2, 2]), matched_starts=np.array([-0.1, -4.0, 0.0]), num_classes=6
    )
    assert found.lengths[2].tolist() == [1.0, 3.0]
    assert found.lengths[5].tolist() == [4.0]
    assert found.lengths[0].tolist() == [1.0, 3.0, 4.0]  # no event of class 0 in training
    assert found.starts.tolist() == [0.0, 0.0, -0.1, 0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="no annotated sound"):
        class_extents(
            labels[:0], segments[:0], matched_labels=labels[:0], matched_starts=segments[:0, 0], num_classes=6
        )


def slow_detections(
    video: VideoMoments, probabilities: npt.NDArray[np.float64], extents: ClassExtents, rule: DetectionRule
) -> list[tuple[int, float, float, float]]:
    found = []
    for label in range(NUM_CLASSES):
        if label == BACKGROUND:
            continue
        tried = []
        for number, quantile in enumerate(rule.quantiles):
            length = float(np.quantile(extents.lengths[label], quantile))
            for time, weight, row in zip(video.times, video.weights, probabilities, strict=True):
                start = time + (0 if rule.from_onset else extents.starts[label])
                first = min(max(start, 0.0), video.duration_seconds - 0.02)
                stop = min(max(start + length, first + 0.02), video.duration_seconds)
                tried.append(((0.5 if number else 1.0) * row[label] * weight**rule.score_power, first, stop))
        tried.sort(key=lambda candidate: -candidate[0])
        kept: list[tuple[float, float, float]] = []
        for score, start, stop in tried:
            overlaps = []
            for _, other_start, other_stop in kept:
                shared = max(0.0, min(stop, other_stop) - max(start, other_start))
                overlaps.append(shared / (stop - start + other_stop - other_start - shared))
            if all(overlap <= rule.max_overlap for overlap in overlaps):
                kept.append((score, start, stop))
        found += [(label, *candidate) for candidate in kept]
    return found


@pytest.mark.parametrize("seed", range(4))
def test_detections_equal_a_slow_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = tuple(np.sort(rng.random(9) * 5 + 0.01) for _ in range(NUM_CLASSES))
    extents = ClassExtents(lengths, rng.normal(size=NUM_CLASSES))
    video = VideoMoments(np.sort(rng.random(25) * 20), rng.random(25), 20.0)
    probabilities = rng.dirichlet(np.ones(NUM_CLASSES + 1), size=25)
    for rule in (
        DetectionRule(),
        DetectionRule((0.5, 0.25, 0.75), from_onset=False, max_overlap=0.25, score_power=0.5),
        DetectionRule((0.35,), max_overlap=0.75, score_power=1.0),
    ):
        found = detect([video], [probabilities], extents, rule)
        assert found.score is not None
        mine = sorted(
            zip(found.label.tolist(), found.score.tolist(), *found.segment.T.tolist(), strict=True),
        )
        expected = sorted(slow_detections(video, probabilities, extents, rule))
        assert len(mine) == len(expected)
        np.testing.assert_allclose(mine, expected, rtol=1e-9)


def test_detections_lie_in_the_video_and_are_never_of_the_background() -> None:
    videos = [video_of([0.0, 9.99, 10.0], duration=10.0), video_of([]), video_of([3.0])]
    rows = [probabilities_of([1, 2, BACKGROUND]), probabilities_of([]), probabilities_of([1])]
    found = detect(videos, rows, extents_of(2.0, start=-1.0), DetectionRule(from_onset=False))
    assert found.segment.min() == 0.0
    assert found.segment[found.video == 0].max() == 10.0
    assert set(found.video.tolist()) == {0, 2}
    assert BACKGROUND not in found.label


def test_in_one_class_and_video_the_surest_are_kept() -> None:
    times = np.arange(2 * MAX_PER_CLASS) * 10.0
    video = VideoMoments(times, np.ones(len(times)), 1e5)
    probabilities = np.tile(np.linspace(0.9, 0.1, len(times))[:, None], (1, NUM_CLASSES)) / NUM_CLASSES
    found = detect([video], [probabilities], extents_of(), DetectionRule())
    assert np.bincount(found.label).max() == MAX_PER_CLASS
    assert found.segment[:, 0].max() == times[MAX_PER_CLASS - 1]


def test_what_does_not_fit_or_is_no_number_is_refused() -> None:
    rows = probabilities_of([1])
    with pytest.raises(ValueError, match="at each moment"):
        detect([video_of([1.0, 2.0])], [rows], extents_of(), DetectionRule())
    rows[0, 3] = np.nan
    with pytest.raises(ValueError, match="not a finite number"):
        detect([video_of([1.0])], [rows], extents_of(), DetectionRule())


def test_the_rule_that_fits_the_annotations_is_chosen() -> None:
    """Events begin 1 s before their moments; every other moment is of none, which its low score tells."""
    rng = np.random.default_rng(0)
    extents = extents_of(1.4, start=-1.0)
    videos, rows, events = [], [], []
    for number in range(6):
        times, labels = np.arange(1, 20) * 3.0, rng.integers(0, 4, 19)
        is_event = rng.random(19) < 0.5
        weights = np.where(is_event, rng.uniform(0.5, 1.0, 19), rng.uniform(0.0, 0.5, 19))
        videos.append(VideoMoments(times, weights, 60.0))
        rows.append(probabilities_of(labels.tolist()) * rng.uniform(0.2, 1.0, (19, 1)))
        chosen = zip(times[is_event].tolist(), labels[is_event].tolist(), strict=True)
        events += [(number, label, time - 1.0, time + 0.4) for time, label in chosen]
    table = np.array(events)
    annotated = Events(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2:])
    rule, found = choose_rule(videos, rows, annotated, extents)
    assert not rule.from_onset
    assert rule.score_power > 0
    by_default, on_time = (
        detection_metrics(detect(videos, rows, extents, of), annotated)["interaction_map_avg"]
        for of in (DetectionRule(), DetectionRule(from_onset=False))
    )
    assert by_default < on_time < found
    assert found == detection_metrics(detect(videos, rows, extents, rule), annotated)["interaction_map_avg"]
