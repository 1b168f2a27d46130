"""Measures of draws of videos equal the official measures of the samples that a draw holds, copied out."""

import numpy as np
import numpy.typing as npt
import pytest

from earmark.evaluation.detection_metrics import (
    TIOU_THRESHOLDS,
    Events,
    detection_average_precisions,
    match_detections,
)
from earmark.evaluation.epic_metrics import class_mean_recall, rank_classes
from earmark.evaluation.epic_sounds_metrics import areas_under_roc, average_precisions, class_mean_accuracy
from earmark.evaluation.resampling import (
    class_mean_recall_measure,
    compare_measures,
    detection_measure,
    estimate_measure,
    mean_area_measure,
    mean_average_precision_measure,
    numbered_groups,
    sample_curves,
)


def drawn(
    seed: int, num_samples: int = 90, num_classes: int = 6, num_videos: int = 7
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Scores with many ties, labels of which one class lies in one video only, videos."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes - 1, num_samples)
    videos = rng.integers(0, num_videos, num_samples)
    labels[videos == 3] = np.where(rng.random((videos == 3).sum()) < 0.5, num_classes - 1, labels[videos == 3])
    scores = (rng.integers(0, 5, (num_samples, num_classes)) / 4).astype(np.float32)
    return scores, labels, videos


@pytest.mark.parametrize("seed", range(4))
def test_measures_of_a_draw_equal_the_official_ones_of_its_copies(seed: int) -> None:
    scores, labels, videos = drawn(seed)
    counts = np.random.default_rng(seed).multinomial(7, np.full(7, 1 / 7), size=12).astype(np.float64)
    counts = np.concatenate([np.ones((1, 7)), counts])
    ranked = rank_classes(scores)
    top2 = (ranked[:, :2] == labels[:, None]).any(axis=1)
    curves = sample_curves(scores, labels, videos, num_groups=7)
    found = {
        "recall": class_mean_recall_measure(top2, labels, videos)(counts),
        "mCA": class_mean_recall_measure(scores.argmax(axis=1) == labels, labels, videos, scale=100)(counts),
        "mAP": mean_average_precision_measure(curves)(counts),
        "mAUC": mean_area_measure(curves)(counts),
    }
    for number, draw in enumerate(counts.astype(int)):
        copies = np.concatenate([np.flatnonzero(videos == video).repeat(draw[video]) for video in range(7)])
        mine, truth = scores[copies], labels[copies]
        expected = {
            "recall": class_mean_recall(ranked[copies], truth, k=2),
            "mCA": 100 * class_mean_accuracy(mine, truth),
            "mAP": np.mean(list(average_precisions(mine, truth).values())),
            "mAUC": np.mean(list(areas_under_roc(mine, truth).values())),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(found[name][number], value, rtol=1e-12, err_msg=f"{name} of draw {number}")


@pytest.mark.parametrize("seed", range(4))
def test_detection_measures_of_a_draw_equal_the_official_ones_of_its_copies(seed: int) -> None:
    """With distinct scores: copies of one detection then stand beside each other, as they are counted here."""
    rng = np.random.default_rng(seed)
    num_events, num_found, num_videos = 50, 160, 5

    def events(number: int, scores: npt.NDArray[np.float64] | None) -> Events:
        starts = rng.integers(0, 40, number) / 4
        segments = np.stack([starts, starts + rng.integers(1, 12, number) / 4], axis=1)
        return Events(rng.integers(0, num_videos, number), rng.integers(0, 3, number), segments, scores)

    truth, detected = events(num_events, None), events(num_found, rng.permutation(num_found) / num_found)
    matches = match_detections(detected, truth)
    measures = detection_measure(matches, num_videos)
    counts = np.concatenate([np.ones((1, 5)), rng.multinomial(5, np.full(5, 0.2), size=10)]).astype(np.float64)
    found = np.stack([measure(counts) for measure in measures], axis=1)
    assert detected.score is not None
    for number, draw in enumerate(counts.astype(int)):
        copied: dict[str, list[tuple[int, int]]] = {"truth": [], "detected": []}  # (place, number of the copied video)
        for copy in range(draw.max()):
            for name, of in (("truth", truth), ("detected", detected)):
                copied[name] += [
                    (place, int(of.video[place]) * 100 + copy)
                    for place in range(len(of.video))
                    if draw[of.video[place]] > copy
                ]
        sets = {}
        for name, of in (("truth", truth), ("detected", detected)):
            places, videos = (np.array(column) for column in zip(*copied[name], strict=True))
            score = None if of.score is None else of.score[places]
            sets[name] = Events(videos, of.label[places], of.segment[places], score)
        precisions = np.stack(list(detection_average_precisions(sets["detected"], sets["truth"]).values())).mean(axis=0)
        np.testing.assert_allclose(found[number], [*precisions, precisions.mean()], rtol=1e-12)
    assert found.shape[1] == len(TIOU_THRESHOLDS) + 1


def test_an_interval_of_a_class_mean_holds_the_truth_as_often_as_it_says() -> None:
    """Videos of which each has its own accuracy; 12 of them, where percentiles of draws would hold it less often."""
    rng = np.random.default_rng(0)
    classes, holds, truth = np.array([0] * 30 + [1] * 10), 0, 0.5
    for _ in range(200):
        share = rng.beta(4, 4, size=12)
        videos = np.repeat(np.arange(12), 40)
        right = rng.random(480) < share[videos]
        measure = class_mean_recall_measure(right, np.tile(classes, 12), videos, scale=100)
        estimate = estimate_measure(measure, 12, bounds=(0, 100), num_draws=200)
        holds += estimate.low <= 100 * truth <= estimate.high
    assert 0.91 <= holds / 200 <= 0.99


def test_a_gain_is_measured_on_the_same_draws_and_is_narrower_than_the_numbers_apart() -> None:
    rng = np.random.default_rng(0)
    videos, labels = np.repeat(np.arange(20), 30), rng.integers(0, 4, 600)
    share = rng.random(20)
    right = rng.random(600) < share[videos]
    better = right | (rng.random(600) < 0.1)
    encoder, baseline = (class_mean_recall_measure(of, labels, videos, scale=100) for of in (better, right))
    score = compare_measures([encoder], baseline=[baseline], majority=baseline, chance=25.0, num_groups=20)
    assert score.gain is not None
    assert score.baseline is not None
    assert score.gain.value == pytest.approx(score.encoder.value - score.baseline.value, abs=1e-12)
    assert 0 < score.gain.low < score.gain.high
    assert score.gain.high - score.gain.low < (score.encoder.high - score.encoder.low) / 2
    again = compare_measures([encoder], baseline=[baseline], majority=baseline, chance=25.0, num_groups=20)
    assert again == score
    assert (score.per_seed, score.spread) == ((), None)
    seeds = compare_measures([encoder, baseline], baseline=[], majority=baseline, chance=25.0, num_groups=20)
    assert seeds.per_seed == (score.encoder.value, score.baseline.value)
    assert seeds.encoder.value == pytest.approx(sum(seeds.per_seed) / 2, abs=1e-12)
    assert (seeds.baseline, seeds.gain, seeds.baseline_per_seed) == (None, None, ())


def test_draws_that_do_not_differ_leave_the_interval_of_so_many_videos_alike() -> None:
    always = class_mean_recall_measure([True, True], [0, 1], [0, 1], scale=100)
    estimate = estimate_measure(always, 2, bounds=(0, 100))
    assert (estimate.value, estimate.high) == (100.0, 100.0)
    assert estimate.low == pytest.approx(15.811, abs=1e-3)
    one_video = class_mean_recall_measure([True, False], [0, 1], [0, 0], scale=100)
    estimate = estimate_measure(one_video, 1, bounds=(0, 100))
    assert estimate.high - estimate.low > 90


def test_groups_that_do_not_fit_are_refused() -> None:
    assert numbered_groups(None, 3)[1] == 3
    with pytest.raises(ValueError, match="one group for each of 3 samples"):
        numbered_groups(["a", "b"], 3)
