"""EPIC-SOUNDS' official detection measure against a slow loop over detections, thresholds and events."""

import numpy as np
import pytest

from earmark.evaluation.detection_metrics import (
    TIOU_THRESHOLDS,
    Events,
    detection_average_precisions,
    detection_metrics,
)

Event = tuple[int, int, float, float]  # video, class, start, end


def events(rows: list[Event], scores: list[float] | None = None) -> Events:
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    given = None if scores is None else np.array(scores, dtype=np.float64)
    return Events(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2:], given)


def slow_overlap(a: Event, b: Event) -> float:
    shared = max(0.0, min(a[3], b[3]) - max(a[2], b[2]))
    return shared / ((b[3] - b[2]) + (a[3] - a[2]) - shared)


def slow_average_precision(found: list[Event], scores: list[float], truth: list[Event], least: float) -> float:
    order = sorted(range(len(found)), key=lambda place: (scores[place], place), reverse=True)
    taken: set[int] = set()
    hits = []
    for place in order:
        overlaps = {
            number: slow_overlap(found[place], event)
            for number, event in enumerate(truth)
            if event[0] == found[place][0]
        }
        best_first = sorted(overlaps, key=lambda number: (overlaps[number], number), reverse=True)
        match = next((number for number in best_first if overlaps[number] >= least and number not in taken), None)
        hits.append(match is not None)
        if match is not None:
            taken.add(match)
    precisions = [sum(hits[: place + 1]) / (place + 1) for place in range(len(hits))]
    recalls = [sum(hits[: place + 1]) / len(truth) for place in range(len(hits))]
    area, before = 0.0, 0.0
    for place, recall in enumerate(recalls):
        area += (recall - before) * max(precisions[place:])
        before = recall
    return area


@pytest.mark.parametrize("seed", range(6))
def test_precision_equals_a_slow_loop(seed: int) -> None:
    """Times and scores on a coarse grid: equal scores, equal overlaps, overlaps at the thresholds themselves."""
    rng = np.random.default_rng(seed)

    def drawn(number: int, num_videos: int, classes: list[int]) -> list[Event]:
        starts = rng.integers(0, 40, number) / 4
        ends = starts + rng.integers(1, 12, number) / 4
        videos, labels = rng.integers(0, num_videos, number), rng.choice(classes, number)
        columns = (videos.tolist(), labels.tolist(), starts.tolist(), ends.tolist())
        return list(zip(*columns, strict=True))

    truth = drawn(60, 3, [0, 2, 5, 9])  # 9 is never detected
    found = drawn(250, 4, [0, 2, 5, 7])  # 7 is never annotated, nor is anything in video 3
    scores = (rng.integers(0, 8, len(found)) / 8).tolist()
    precisions = detection_average_precisions(events(found, scores), events(truth))
    assert list(precisions) == sorted({event[1] for event in truth})
    for number, of_levels in precisions.items():
        chosen = [place for place, event in enumerate(found) if event[1] == number]
        expected = [
            slow_average_precision(
                [found[place] for place in chosen],
                [scores[place] for place in chosen],
                [event for event in truth if event[1] == number],
                least,
            )
            for least in TIOU_THRESHOLDS
        ]
        np.testing.assert_allclose(of_levels, expected, rtol=1e-12)
    metrics = detection_metrics(events(found, scores), events(truth))
    means = np.mean(list(precisions.values()), axis=0)
    assert [metrics[f"interaction_map_at_0{k}"] for k in (1, 2, 3, 4, 5)] == pytest.approx((100 * means).tolist())
    assert metrics["interaction_map_avg"] == pytest.approx(100 * means.mean())


def test_the_thresholds_are_the_official_floats() -> None:
    assert TIOU_THRESHOLDS == (0.1, 0.2, 0.30000000000000004, 0.4, 0.5)
    # An overlap of 3 in 10 as floats, 0.3, does not reach the third one.
    metrics = detection_metrics(events([(0, 1, 0.0, 3.0)], [1.0]), events([(0, 1, 0.0, 10.0)]))
    assert [metrics[f"interaction_map_at_0{k}"] for k in (1, 2, 3, 4, 5)] == [100.0, 100.0, 0.0, 0.0, 0.0]


def test_a_taken_event_passes_the_detection_to_its_next_best() -> None:
    truth = events([(0, 1, 0.0, 10.0), (0, 1, 4.0, 12.0)])
    found = events([(0, 1, 0.0, 10.0), (0, 1, 1.0, 10.0)], [0.9, 0.8])
    (precision,) = detection_average_precisions(found, truth, thresholds=[0.5]).values()
    assert precision.tolist() == [1.0]  # the second overlaps the first most (.9), and the other by 6 / 11
    (precision,) = detection_average_precisions(found, truth, thresholds=[0.6]).values()
    assert precision.tolist() == [0.5]


def test_classes_without_detections_count_and_classes_without_truth_do_not() -> None:
    truth = events([(0, 1, 0.0, 1.0), (0, 2, 0.0, 1.0)])
    found = events([(0, 1, 0.0, 1.0), (0, 3, 0.0, 1.0)], [0.5, 0.9])
    assert detection_metrics(found, truth)["interaction_map_avg"] == 50.0


def test_detections_of_unknown_videos_are_wrong() -> None:
    found = events([(7, 1, 0.0, 1.0), (0, 1, 0.0, 1.0)], [0.9, 0.5])
    assert detection_metrics(found, events([(0, 1, 0.0, 1.0)]))["interaction_map_avg"] == 50.0


def test_a_video_with_many_events_is_taken_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    truth = [(0, 1, float(start), float(start) + 2) for start in rng.uniform(0, 50, 30)]
    found = [(0, 1, float(start), float(start) + 2) for start in rng.uniform(0, 50, 100)]
    scores = rng.random(100).tolist()
    whole = detection_metrics(events(found, scores), events(truth))
    monkeypatch.setattr("earmark.evaluation.detection_metrics.MAX_PAIRS", 70)
    assert detection_metrics(events(found, scores), events(truth)) == whole


def test_what_is_no_event_is_refused() -> None:
    with pytest.raises(ValueError, match="event 1 ends at its start or before"):
        events([(0, 1, 0.0, 1.0), (0, 1, 2.0, 2.0)])
    with pytest.raises(ValueError, match="event 0 is not a finite number"):
        events([(0, 1, 0.0, float("nan"))])
    with pytest.raises(ValueError, match="event 0 is not a finite number"):
        events([(0, 1, 0.0, 1.0)], [float("inf")])
    with pytest.raises(ValueError, match="need annotated events"):
        detection_metrics(events([(0, 1, 0.0, 1.0)], [1.0]), events([]))
    with pytest.raises(ValueError, match="need one video"):
        events([(0, 1, 0.0, 1.0)], [1.0, 2.0])
