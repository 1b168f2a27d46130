"""Metrics against the frozen arrays, slow oracles and closed forms."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from earmark.evaluation import metrics


class TrackedArrays(Mapping[str, NDArray[np.generic]]):
    """An npz that remembers which of its arrays were asked for."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as file:
            self._arrays = {name: file[name] for name in file.files}
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> NDArray[np.generic]:
        self.used.add(name)
        return self._arrays[name]

    def __iter__(self):
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


@pytest.fixture
def arrays(reference: Path) -> TrackedArrays:
    return TrackedArrays(reference / "metrics.npz")


def check_top_k(arrays: TrackedArrays) -> None:
    logits, labels = arrays["topk__preds"], arrays["topk__labels"]
    accuracies = [metrics.top_k_accuracy(logits, labels, k) for k in (1, 5)]
    np.testing.assert_allclose(accuracies, 100 - arrays["topk__errors_1_5"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(accuracies, arrays["lincls__acc1_acc5"], rtol=0, atol=1e-9)


def check_edit_distance(arrays: TrackedArrays) -> None:
    predictions, labels = arrays["lta__small__preds"], arrays["lta__small__labels"]
    by_length = metrics.prefix_edit_distances(predictions, labels).mean(axis=0)
    np.testing.assert_allclose(by_length, arrays["lta__small__ED_z"], rtol=0, atol=1e-12)
    distance, area = arrays["lta__small__edit_distance"], arrays["lta__small__AUED"]
    assert metrics.edit_distance(predictions, labels) == pytest.approx(float(distance), abs=1e-12)
    assert metrics.area_under_edit_distance(predictions, labels) == pytest.approx(float(area), abs=1e-12)


def check_state_change(arrays: TrackedArrays) -> None:
    change = arrays["scod__sc_labels"]
    accuracy = metrics.state_change_accuracy(arrays["scod__sc_preds"], change)
    assert accuracy == pytest.approx(float(arrays["scod__state_change_accuracy"]), abs=1e-12)
    logits = arrays["scod__preds"][..., 0]
    errors = metrics.keyframe_error_seconds(
        logits,
        pnr_frame=arrays["scod__pnr_frame"],
        fps=arrays["scod__fps"],
        state_change=change,
        clip_start_frame=arrays["scod__clip_start_frame"],
        clip_end_frame=arrays["scod__clip_end_frame"],
        protocol="published",
    )
    np.testing.assert_allclose(errors, arrays["scod__keyframe_distance_per_sample"], rtol=0, atol=1e-12)
    mean = metrics.mean_keyframe_error_seconds(errors, batch_size=len(errors), protocol="published")
    assert mean == pytest.approx(float(arrays["scod__keyframe_distance"]), abs=1e-12)
    # The exact error of the labelled key frame, when the annotated frame itself is among the sampled ones, is 0.
    key_index = arrays["scod__labels"].argmax(axis=1)
    sampled = np.arange(16) * 7 + (arrays["scod__pnr_frame"] - 7 * key_index)[:, None]
    exact = metrics.keyframe_error_seconds(
        arrays["scod__labels"],
        pnr_frame=arrays["scod__pnr_frame"],
        fps=arrays["scod__fps"],
        state_change=change,
        sampled_frames=sampled,
    )
    np.testing.assert_array_equal(exact, np.where(change == 1, 0.0, np.nan))


@pytest.mark.parametrize("check", [check_top_k, check_edit_distance, check_state_change])
def test_metrics_equal_the_frozen_reference(arrays: TrackedArrays, check) -> None:
    check(arrays)


def test_every_frozen_array_is_checked(arrays: TrackedArrays) -> None:
    for check in (check_top_k, check_edit_distance, check_state_change):
        check(arrays)
    assert arrays.used == set(arrays)


def test_ties_stand_in_the_order_of_torch_topk() -> None:
    logits = np.random.default_rng(0).integers(0, 3, size=(50, 12)).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 12, size=50)
    expected = [label in torch.from_numpy(row).topk(5).indices for row, label in zip(logits, labels, strict=True)]
    assert metrics.top_k_correct(logits, labels, k=5).tolist() == expected
    assert 0 < sum(expected) < 50


def test_top_k_with_fewer_classes_than_k_is_always_right() -> None:
    assert metrics.top_k_accuracy([[0.0, 1.0, 2.0]], [0], k=5) == 100.0


@pytest.mark.parametrize(
    ("logits", "labels", "k", "message"),
    [
        ([[0.0, 1.0]], [2], 1, "label 2 of sample 0"),
        ([[0.0, 1.0], [0.0, 1.0]], [0, -1], 1, "label -1 of sample 1"),
        ([[0.0, 1.0]], [0.0], 1, "whole numbers"),
        ([[0.0, 1.0], [np.nan, 1.0]], [0, 0], 1, "sample 1 contain NaN"),
        ([[0.0, 1.0]], [0], 0, "at least 1"),
        ([[0.0, 1.0]], [0, 1], 1, "need logits"),
    ],
)
def test_scores_and_labels_that_do_not_fit_are_refused(logits, labels, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.top_k_correct(logits, labels, k)


def test_majority_guesses_come_from_training_and_ties_go_to_the_lower_id() -> None:
    train = [7, 7, 7, 2, 2, 5, 5, 0]
    test = [7, 2, 5, 0, 9]
    assert metrics.majority_correct(train, test, k=1).tolist() == [True, False, False, False, False]
    assert metrics.majority_correct(train, test, k=2).tolist() == [True, True, False, False, False]
    assert metrics.majority_accuracy(train, test, k=3) == pytest.approx(60.0)
    assert metrics.majority_accuracy(train, test, k=50) == pytest.approx(80.0)  # class 9 was never seen


def levenshtein(a: Sequence[int], b: Sequence[int]) -> int:
    """The recursion as it is defined."""
    if not a or not b:
        return len(a) + len(b)
    substituted = levenshtein(a[:-1], b[:-1]) + (a[-1] != b[-1])
    return min(substituted, levenshtein(a[:-1], b) + 1, levenshtein(a, b[:-1]) + 1)


def test_prefix_edit_distances_equal_the_recursive_definition() -> None:
    rng = np.random.default_rng(3)
    predictions, labels = rng.integers(0, 3, size=(4, 5, 3)), rng.integers(0, 3, size=(4, 5))
    expected = [
        [
            min(levenshtein(predictions[n, :z, k].tolist(), labels[n, :z].tolist()) for k in range(3)) / z
            for z in range(1, 6)
        ]
        for n in range(4)
    ]
    np.testing.assert_allclose(metrics.prefix_edit_distances(predictions, labels), expected, rtol=0, atol=1e-12)


def test_swapped_neighbours_cost_two_edits() -> None:
    assert metrics.edit_distance([[[4], [1], [2], [3]]], [[4, 2, 1, 3]]) == pytest.approx(2 / 4)


def test_edit_distance_refuses_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="need predictions"):
        metrics.edit_distance(np.zeros((2, 3, 1), int), np.zeros((2, 4), int))
    with pytest.raises(ValueError, match="at least 2 steps"):
        metrics.area_under_edit_distance([[[1]]], [[1]])


def test_published_keyframe_error_of_a_perfect_index_is_not_zero_but_the_exact_one_is() -> None:
    # 16 frames sampled evenly from 240 frames of 30 fps, both ends included; the annotated frame is the last.
    sampled = np.linspace(100, 339, 16).round()[None]
    perfect = np.eye(16)[15:]
    options = {"pnr_frame": sampled[:, 15], "fps": 30.0, "state_change": [True]}
    published = metrics.keyframe_error_seconds(
        perfect, clip_start_frame=[100], clip_end_frame=[340], protocol="published", **options
    )
    np.testing.assert_allclose(published, [(339 - (100 + 15 * 15)) / 30])
    assert metrics.keyframe_error_seconds(perfect, sampled_frames=sampled, **options) == [0.0]


def test_published_mean_error_counts_batches_without_a_change_as_zero() -> None:
    errors = [0.3, np.nan, 0.9, np.nan, np.nan, np.nan, 2.0]
    assert metrics.mean_keyframe_error_seconds(errors) == pytest.approx(3.2 / 3)
    published = metrics.mean_keyframe_error_seconds(errors, batch_size=3, protocol="published")
    assert published == pytest.approx((0.6 + 0.0 + 2.0) / 3)


@pytest.mark.parametrize("num_frames", [8, 16, 32])
def test_published_keyframe_error_divides_by_16_whatever_was_sampled(num_frames: int) -> None:
    """Index 5 of a clip of frames 100 to 340 means frame 100 + 5 * 240 / 16 = 175, half a second before frame 190."""
    errors = metrics.keyframe_error_seconds(
        np.eye(num_frames)[[5]],
        pnr_frame=[190],
        fps=30.0,
        state_change=[True],
        clip_start_frame=[100],
        clip_end_frame=[340],
        protocol="published",
    )
    np.testing.assert_allclose(errors, [0.5], rtol=0, atol=1e-12)


def test_keyframe_error_says_what_is_missing() -> None:
    options = {"pnr_frame": [1], "fps": 30.0, "state_change": [1]}
    with pytest.raises(ValueError, match="needs sampled_frames"):
        metrics.keyframe_error_seconds(np.zeros((1, 4)), **options)
    with pytest.raises(ValueError, match="clip_end_frame has shape"):
        metrics.keyframe_error_seconds(
            np.zeros((1, 4)), protocol="published", clip_start_frame=[0], clip_end_frame=[1, 2], **options
        )
    with pytest.raises(ValueError, match="protocol must be"):
        metrics.keyframe_error_seconds(np.zeros((1, 4)), protocol="other", **options)
    with pytest.raises(ValueError, match="no clip shows a state change"):
        metrics.mean_keyframe_error_seconds([np.nan])
    with pytest.raises(ValueError, match="batch_size"):
        metrics.mean_keyframe_error_seconds([1.0], protocol="published")
