"""The kNN probe against a slow NumPy loop in float64."""

import numpy as np
import pytest
import torch

from earmark.evaluation import knn_probe as module
from earmark.evaluation.knn_probe import knn_probe, nearest_clips
from earmark.evaluation.probe import ProbeOptions
from earmark.evaluation.probe_grid import held_out_rows
from earmark.evaluation.probing import fit_probe
from tests.helpers.clusters import CLASSES, clusters

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = ProbeOptions(kind="knn", neighbours=(5,))


def slow_knn(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, num_classes: int, k: int, options: ProbeOptions
) -> np.ndarray:
    """Probabilities (N_test, classes), one clip of one action after another."""
    train, test = train.astype(np.float64), test.astype(np.float64)
    if options.standardize:
        mean, std = train.mean(axis=(0, 1)), train.std(axis=(0, 1))
        train, test = (train - mean) / std, (test - mean) / std
    clips = [
        (clip / np.linalg.norm(clip), label) for action, label in zip(train, labels, strict=True) for clip in action
    ]
    clips = [(clip, label) for clip, label in clips if label >= 0]
    answers = np.zeros((len(test), num_classes))
    for row, action in zip(answers, test, strict=True):
        for clip in action:
            cosines = [float(other @ clip / np.linalg.norm(clip)) for other, _ in clips]
            nearest = sorted(range(len(clips)), key=lambda place: (-cosines[place], place))[:k]
            votes = np.zeros(num_classes)
            for place in nearest:
                votes[clips[place][1]] += np.exp(cosines[place] / options.temperature)
            row += votes / votes.sum() / len(action)
    return answers


@pytest.mark.parametrize("k", [1, 5, 40])
@pytest.mark.parametrize("options", [OPTIONS, ProbeOptions(kind="knn", standardize=False, temperature=0.2)])
def test_votes_equal_a_slow_loop(k: int, options: ProbeOptions) -> None:
    train, labels, _ = clusters(30)
    test, _, _ = clusters(12, num_clips=3, seed=1)
    labels["noun"][::3] = -1
    scores = knn_probe(train, labels, test, num_classes=CLASSES, neighbours=dict.fromkeys(CLASSES, k), options=options)
    for column, classes in CLASSES.items():
        expected = slow_knn(train, labels[column], test, classes, k, options)
        assert scores[column].dtype == np.float32
        np.testing.assert_allclose(np.exp(scores[column]), expected, atol=2e-5)
        np.testing.assert_allclose(scores[column], np.log(np.maximum(expected, np.finfo(np.float32).tiny)), atol=2e-3)


def test_votes_in_parts_are_votes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    train, labels, _ = clusters(30)
    test, _, _ = clusters(13, num_clips=3, seed=1)
    neighbours = {"verb": 3, "noun": 20}
    whole = knn_probe(train, labels, test, num_classes=CLASSES, neighbours=neighbours, options=OPTIONS)
    sizes = []

    def noted(similarity: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(similarity.numel())
        return nearest_clips(similarity, number)

    monkeypatch.setattr(module, "nearest_clips", noted)
    monkeypatch.setattr(module, "_NUMBERS_AT_ONCE", 1000)
    parts = knn_probe(train, labels, test, num_classes=CLASSES, neighbours=neighbours, options=OPTIONS)
    assert max(sizes) <= 1000
    assert (
        len(sizes) == 3 + 4
    )  # 5 actions of 3 clips at a time beside 60 clips; 4 where 20 neighbours vote for 4 classes
    for column in CLASSES:
        np.testing.assert_allclose(parts[column], whole[column], atol=1e-4)


def test_of_equally_near_clips_the_first_ones_vote() -> None:
    similarity = torch.tensor([[0.5, 0.9, 0.5, 0.5, 0.9, 0.1], [0.3] * 6, [0.0, 0.1, 0.2, 0.3, 0.3, 0.3]])
    for number in range(1, 7):
        found, places = nearest_clips(similarity, number)
        for row, values in enumerate(similarity.tolist()):
            expected = sorted(range(6), key=lambda place: (-values[place], place))[:number]
            assert places[row].tolist() == expected
            assert found[row].tolist() == pytest.approx([values[place] for place in expected])


def test_more_neighbours_than_labelled_clips_are_refused() -> None:
    train, labels, _ = clusters(10)
    labels["noun"][3:] = -1
    with pytest.raises(ValueError, match="noun: 20 neighbours can't vote, there are only 6 labelled training clips"):
        knn_probe(train, labels, train, num_classes=CLASSES, neighbours=dict.fromkeys(CLASSES, 20), options=OPTIONS)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_number_of_neighbours_is_chosen_on_held_out_training_videos(seed: int) -> None:
    train, labels, videos = clusters(100, spread=1.5)
    labels["noun"][::7] = -1
    test, _, _ = clusters(20, seed=1)
    options = ProbeOptions(kind="knn", neighbours=(1, 3, 9, 27), held_out=0.3)

    def answers(of: np.ndarray) -> tuple[dict, dict]:
        fitted = fit_probe(
            train, labels, of, num_classes=CLASSES, train_videos=videos, options=options, seed=seed, device="cpu"
        )
        return fitted.scores, fitted.chosen

    scores, chosen = answers(test)
    held_out = held_out_rows(videos, share=0.3, seed=seed)
    for column, classes in CLASSES.items():
        known = held_out & (labels[column] >= 0)
        truth = labels[column][known]
        tried = []
        for k in options.neighbours:
            shares = slow_knn(train[~held_out], labels[column][~held_out], train[known], classes, k, options)
            accuracy = 100 * float((shares.argmax(axis=1) == truth).mean())
            loss = -np.log(np.maximum(shares[np.arange(len(truth)), truth], np.finfo(np.float32).tiny)).mean()
            tried.append((-accuracy, loss, k))
        accuracy, _, k = min(tried)
        assert chosen[column]["neighbours"] == k
        assert chosen[column]["held_out_accuracy"] == pytest.approx(-accuracy)
        assert chosen[column]["held_out_actions"] == len(truth)
        expected = slow_knn(train, labels[column], test, classes, k, options)
        np.testing.assert_allclose(np.exp(scores[column]), expected, atol=2e-5)
    assert answers(-test)[1] == chosen


def test_one_number_is_no_choice_and_asks_for_no_videos() -> None:
    train, labels, _ = clusters(30)
    fitted = fit_probe(
        train, labels, train, num_classes=CLASSES, train_videos=None, options=OPTIONS, seed=0, device="cpu"
    )
    assert fitted.chosen == {}
    assert (fitted.scores["verb"].argmax(axis=1) == labels["verb"]).mean() > 0.8


@pytest.mark.gpu
def test_votes_on_the_gpu_agree_with_the_cpu() -> None:
    train, labels, _ = clusters(30)
    both = [
        knn_probe(
            train,
            labels,
            train,
            num_classes=CLASSES,
            neighbours=dict.fromkeys(CLASSES, 5),
            options=OPTIONS,
            device=device,
        )["noun"]
        for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(np.exp(both[1]), np.exp(both[0]), atol=1e-4)
