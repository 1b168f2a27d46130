"""A grid of linear probes against its members trained alone, and the choice against a slow one."""

import logging
import zlib

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch.nn import functional

from earmark.evaluation.probe import ProbeOptions, linear_probe
from earmark.evaluation.probe_grid import (
    HeldOutQuality,
    HeldOutTally,
    _to_loss_gradient,
    chosen_values,
    edge_of,
    fit_linear_grid,
    grid_of,
    held_out_rows,
    linear_grid_quality,
    require_labels_on_both_sides,
)
from tests.helpers.clusters import CLASSES, clusters

pytestmark = pytest.mark.usefixtures("one_thread")

PAIRS = grid_of((0.3, 0.003, 0.03), (0.0, 0.1), lr=0.005, weight_decay=1e-4)
OPTIONS = ProbeOptions(epochs=6, milestones=(2, 4), gamma=0.2, batch_size=16, momentum=0.8)


def in_float64(num_actions: int, unlabelled: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    features, labels, _ = clusters(num_actions, num_clips=3)
    labels["verb"][:unlabelled] = -1
    return torch.from_numpy(features).double(), {name: torch.from_numpy(values) for name, values in labels.items()}


def test_the_grid_holds_each_rate_with_each_decay() -> None:
    assert PAIRS == ((0.3, 0.0), (0.3, 0.1), (0.003, 0.0), (0.003, 0.1), (0.03, 0.0), (0.03, 0.1))
    assert grid_of((), (), lr=0.005, weight_decay=1e-4) == ((0.005, 1e-4),)


def test_each_member_of_a_grid_is_what_it_would_be_alone() -> None:
    features, labels = in_float64(50, unlabelled=20)
    together = fit_linear_grid(features, labels, num_classes=CLASSES, pairs=PAIRS, options=OPTIONS, seed=3)
    for number, pair in enumerate(PAIRS):
        for column, classes in CLASSES.items():
            alone = fit_linear_grid(
                features, labels, num_classes={column: classes}, pairs=[pair], options=OPTIONS, seed=3
            )
            for ours, its in zip(together[column], alone[column], strict=True):
                torch.testing.assert_close(ours[number], its[0], rtol=0, atol=1e-12)


def test_a_grid_equals_a_numpy_loop_for_each_pair() -> None:
    features, labels = in_float64(20, unlabelled=6)
    fitted = fit_linear_grid(features, labels, num_classes=CLASSES, pairs=PAIRS, options=OPTIONS, seed=9)
    x, truth = features.numpy(), labels["verb"].numpy()
    for number, (rate, decay) in enumerate(PAIRS):
        weights = np.c_[np.random.default_rng([9, zlib.crc32(b"verb")]).normal(0.0, 0.01, size=(3, 7)), np.zeros(3)]
        velocity = np.zeros_like(weights)
        for epoch in range(6):
            rng = np.random.default_rng([9, epoch])
            order, clip = rng.permutation(20), rng.integers(3, size=20)
            for rows in (order[:16], order[16:]):
                known = rows[truth[rows] >= 0]
                batch = np.c_[x[known, clip[known]], np.ones(len(known))]
                residual = softmax(batch @ weights.T, axis=1) - np.eye(3)[truth[known]]
                velocity = 0.8 * velocity + residual.T @ batch / max(len(known), 1) + decay * weights
                weights = weights - rate * 0.2 ** ((epoch >= 2) + (epoch >= 4)) * velocity
        np.testing.assert_allclose(fitted["verb"][0][number], weights[:, :-1], atol=1e-12)
        np.testing.assert_allclose(fitted["verb"][1][number], weights[:, -1], atol=1e-12)


@pytest.mark.parametrize("fresh_clips", [False, True])
def test_each_member_answers_as_the_linear_probe_of_its_pair(fresh_clips: bool) -> None:
    features, labels, _ = clusters(60, num_clips=6)
    options = ProbeOptions(
        epochs=6, milestones=(4,), batch_size=16, standardize=False, normalize=True, fresh_clips=fresh_clips
    )
    normalized = functional.normalize(torch.from_numpy(features), dim=-1)
    fitted = fit_linear_grid(
        normalized,
        {column: torch.from_numpy(values) for column, values in labels.items()},
        num_classes=CLASSES,
        pairs=PAIRS,
        options=options,
        seed=1,
    )
    for number, (lr, weight_decay) in enumerate(PAIRS):
        alone = ProbeOptions(
            epochs=6,
            milestones=(4,),
            batch_size=16,
            standardize=False,
            normalize=True,
            fresh_clips=fresh_clips,
            lr=lr,
            weight_decay=weight_decay,
        )
        expected = linear_probe(features, labels, features[:, :1], num_classes=CLASSES, options=alone, seed=1)
        for column, (weight, bias) in fitted.items():
            scores = (normalized[:, 0] @ weight[number].T + bias[number]).log_softmax(dim=1)
            np.testing.assert_allclose(scores, expected[column], atol=1e-5)


def test_a_member_that_diverges_disturbs_no_other() -> None:
    features, labels = in_float64(50)
    wild = [*PAIRS[:2], (1e300, 1.0), *PAIRS[2:]]
    fitted = fit_linear_grid(features, labels, num_classes=CLASSES, pairs=wild, options=OPTIONS, seed=3)
    expected = fit_linear_grid(features, labels, num_classes=CLASSES, pairs=PAIRS, options=OPTIONS, seed=3)
    for column in CLASSES:
        assert not fitted[column][0][2].isfinite().all()
        others = torch.cat([fitted[column][0][:2], fitted[column][0][3:]])
        torch.testing.assert_close(others, expected[column][0], rtol=0, atol=1e-12)


def test_the_gradient_is_that_of_the_mean_cross_entropy_of_labelled_rows() -> None:
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 3, 4)) * 30).requires_grad_()
    labels = torch.tensor([0, -1, 3, 3, -1])
    for pair in range(3):
        loss = functional.cross_entropy(logits[:, pair], labels, ignore_index=-1)
        loss.backward()
    ours = logits.detach().clone()
    _to_loss_gradient(ours, labels)
    torch.testing.assert_close(ours, logits.grad, rtol=0, atol=1e-12)
    nothing_known = logits.detach().clone()
    _to_loss_gradient(nothing_known, torch.full((5,), -1))
    assert (nothing_known == 0).all()


@pytest.mark.parametrize("standardize", [False, True])
def test_held_out_accuracy_is_that_of_linear_probes_that_never_saw_the_held_out_videos(standardize: bool) -> None:
    """Standardizing included: held-out features of another size would show in its statistics."""
    features, labels, videos = clusters(100, spread=1.5)
    labels["noun"][::7] = -1
    held_out = held_out_rows(videos, share=0.3, seed=5)
    features[held_out] = 3 * features[held_out] + 1
    options = ProbeOptions(epochs=6, milestones=(4,), batch_size=16, standardize=standardize)
    qualities = linear_grid_quality(
        features, labels, held_out, num_classes=CLASSES, pairs=PAIRS, options=options, seed=5, device="cpu"
    )
    kept_labels = {column: values[~held_out] for column, values in labels.items()}
    for number, (lr, weight_decay) in enumerate(PAIRS):
        alone = ProbeOptions(
            epochs=6, milestones=(4,), batch_size=16, standardize=standardize, lr=lr, weight_decay=weight_decay
        )
        scores = linear_probe(
            features[~held_out], kept_labels, features[held_out], num_classes=CLASSES, options=alone, seed=5
        )
        for column, quality in qualities.items():
            truth = labels[column][held_out]
            known = np.flatnonzero(truth >= 0)
            right = [scores[column][row].argmax() == truth[row] for row in known]
            loss = [-scores[column][row, truth[row]] for row in known]
            assert quality.num_actions == len(known)
            assert quality.accuracies[number] == pytest.approx(100 * np.mean(right), abs=1e-9)
            assert quality.losses[number] == pytest.approx(np.mean(loss), abs=1e-4)


def test_held_out_are_whole_videos_with_all_their_cuts() -> None:
    cuts = [f"P{p:02d}_01_{s:06d}_{s + 10:06d}" for p in range(10) for s in (0, 10, 20)]
    held_out = held_out_rows(cuts, share=0.2, seed=0)
    assert held_out.sum() == 6
    assert len({cut[:6] for cut, out in zip(cuts, held_out, strict=True) if out}) == 2


def test_what_is_held_out_depends_on_seed_and_videos_and_not_on_their_order() -> None:
    videos = [f"v{number}" for number in range(20)] * 2
    draws = [held_out_rows(videos, share=0.2, seed=seed) for seed in range(5)]
    assert len({draw.tobytes() for draw in draws}) > 1
    order = np.random.default_rng(0).permutation(40)
    for seed, draw in enumerate(draws):
        assert draw.sum() == 8
        shuffled = held_out_rows([videos[place] for place in order], share=0.2, seed=seed)
        np.testing.assert_array_equal(shuffled, draw[order])


@pytest.mark.parametrize(("share", "number"), [(0.01, 1), (0.99, 2)])
def test_at_least_one_video_is_held_out_and_never_all(share: float, number: int) -> None:
    assert held_out_rows(["a", "b", "c"], share=share, seed=0).sum() == number


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        (None, "not known which video"),
        (["P01_04"] * 3, r"only 1 training video \(P01_04\)"),
        (["P01_04_000070_000080", "P01_04_000080_000090"], r"only 1 training video \(P01_04\)"),
    ],
)
def test_too_few_videos_are_refused_with_what_to_do(videos: list[str] | None, message: str) -> None:
    with pytest.raises(ValueError, match=f"{message}.*give one value only"):
        held_out_rows(videos, share=0.2, seed=0)


def test_a_column_without_labels_on_one_side_is_refused_by_name() -> None:
    held_out = np.array([True, False, False])
    with pytest.raises(ValueError, match="held-out training videos has a label in column 'noun'"):
        require_labels_on_both_sides({"noun": np.array([-1, 0, 1])}, ["noun"], held_out)
    with pytest.raises(ValueError, match="remaining training videos has a label in column 'noun'"):
        require_labels_on_both_sides({"noun": np.array([1, -1, -1])}, ["noun"], held_out)
    require_labels_on_both_sides({"verb": np.array([1, -1, 1]), "noun": np.full(3, -1)}, ["verb"], held_out)


def test_a_tally_in_parts_is_a_tally_at_once() -> None:
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.normal(size=(30, 4, 5))).log_softmax(dim=2)
    labels = torch.from_numpy(rng.integers(-1, 5, size=30))
    whole, parts = HeldOutTally(4), HeldOutTally(4)
    whole.add(scores, labels)
    for rows in torch.arange(30).split(7):
        parts.add(scores[rows], labels[rows])
    np.testing.assert_array_equal(parts.quality().accuracies, whole.quality().accuracies)
    np.testing.assert_allclose(parts.quality().losses, whole.quality().losses, rtol=1e-12)


@pytest.mark.parametrize(
    ("accuracies", "losses", "best"),
    [
        ([50, 60, 55], [1.0, 2.0, 0.5], 1),
        ([60, 60, 55], [1.0, 0.9, 0.5], 1),
        ([60, 60, 60], [1.0, 0.9, 0.9], 1),
        ([90, 60, 95], [np.nan, 0.9, np.inf], 1),
    ],
)
def test_most_often_right_then_least_loss_then_first_and_never_diverged(
    accuracies: list[float], losses: list[float], best: int
) -> None:
    assert HeldOutQuality(np.array(accuracies, float), np.array(losses), 10).best() == best


def test_a_grid_of_which_nothing_converged_is_refused() -> None:
    with pytest.raises(ValueError, match="every pair of the grid: give smaller learning rates"):
        HeldOutQuality(np.array([50.0]), np.array([np.nan]), 10).best()


def test_the_edge_of_the_grid_is_told_and_logged_by_name(caplog: pytest.LogCaptureFixture) -> None:
    pairs = grid_of((0.01, 0.1, 1.0), (1e-4, 1e-2), lr=0, weight_decay=0)
    candidates = [{"lr": lr, "weight_decay": weight_decay} for lr, weight_decay in pairs]

    def choose(number: int) -> dict[str, float]:
        caplog.clear()
        accuracies = np.zeros(6)
        accuracies[number] = 40
        return chosen_values(candidates, HeldOutQuality(accuracies, np.ones(6), 25), column="verb")

    with caplog.at_level(logging.WARNING, logger="earmark"):
        middle = choose(3)
        assert middle == {
            "lr": 0.1,
            "weight_decay": 0.01,
            "held_out_accuracy": 40,
            "held_out_actions": 25,
            "lr_on_edge": 0,
            "weight_decay_on_edge": 1,
        }
        assert caplog.messages == [
            "verb: the chosen weight_decay 0.01 is the largest of those tried; a wider grid may hold a better one"
        ]
        assert choose(0)["lr_on_edge"] == -1
        assert "verb: the chosen lr 0.01 is the smallest of those tried" in caplog.messages[0]
        assert choose(4)["lr_on_edge"] == 1


def test_what_cannot_be_widened_is_no_edge() -> None:
    assert edge_of(0.0, [0.0, 1e-4]) == 0
    assert edge_of(1e-4, [1e-4]) == 0
    assert edge_of(1e-5, [1e-5, 1e-4]) == -1
    assert edge_of(1, [1, 20], lowest=1) == 0
    assert edge_of(2, [2, 20], lowest=1) == -1


@pytest.mark.gpu
def test_a_grid_on_the_gpu_agrees_with_the_cpu() -> None:
    features, labels = in_float64(50)
    on_cpu = fit_linear_grid(features, labels, num_classes=CLASSES, pairs=PAIRS, options=OPTIONS, seed=3)
    on_gpu = fit_linear_grid(
        features.cuda(),
        {column: values.cuda() for column, values in labels.items()},
        num_classes=CLASSES,
        pairs=PAIRS,
        options=OPTIONS,
        seed=3,
    )
    for column in CLASSES:
        torch.testing.assert_close(on_gpu[column][0].cpu(), on_cpu[column][0], rtol=0, atol=1e-10)
