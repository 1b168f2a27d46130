"""The probe on places in the order of time: one weight for all of them, by a slow loop, and what it can learn."""

import numpy as np
import pytest
import torch
from torch import nn

from earmark.evaluation import ProbeOptions
from earmark.evaluation.place_probe import _fit_pairs, fit_place_probe, place_features


def test_a_place_is_described_by_its_feature_and_the_change_about_it() -> None:
    features = np.random.default_rng(0).normal(size=(3, 16, 5)).astype(np.float32)
    described = place_features(torch.from_numpy(features)).numpy()
    for n in range(3):
        for k in range(16):
            change = features[n, min(k + 1, 15)] - features[n, max(k - 1, 0)]
            expected = np.concatenate([features[n, k], change, np.abs(change)])
            np.testing.assert_array_equal(described[n, k], expected)


def slow_fit(
    inputs: torch.Tensor, labels: torch.Tensor, start: torch.Tensor, lr: float, decay: float, options: ProbeOptions
) -> tuple[torch.Tensor, torch.Tensor]:
    """One pair by PyTorch's own SGD and schedule, sample by sample."""
    weight, bias = nn.Parameter(start.clone()), nn.Parameter(torch.zeros(inputs.shape[1]))
    optimizer = torch.optim.SGD([weight, bias], lr=lr, momentum=options.momentum, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(options.milestones), gamma=options.gamma)
    for epoch in range(options.epochs):
        rng = np.random.default_rng([3, epoch])
        order = rng.permutation(len(inputs))
        for first in range(0, len(order), options.batch_size):
            losses = []
            for row in order[first : first + options.batch_size]:
                logits = torch.stack([weight @ place for place in inputs[row]]) + bias
                losses.append(-logits.log_softmax(dim=0)[labels[row]])
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            optimizer.step()
        schedule.step()
    return weight.detach(), bias.detach()


def test_heads_of_a_grid_equal_each_alone_by_a_slow_loop() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(20, 4, 6)).astype(np.float32)
    labels = rng.integers(0, 4, size=20)
    rows = rng.random(20) < 0.7
    options = ProbeOptions(epochs=5, milestones=(3,), batch_size=6)
    pairs = [(0.1, 0.0), (0.3, 0.05)]
    inputs, truth = torch.from_numpy(features[rows]), torch.from_numpy(labels[rows])
    weight, bias = _fit_pairs(lambda of: of, inputs, truth, pairs, options, 3)
    # where they start: a rate so small moves nothing
    still, _ = _fit_pairs(lambda of: of, inputs, truth, [(1e-30, 0.0)], options, 3)
    for number, (lr, decay) in enumerate(pairs):
        expected = slow_fit(inputs, truth, still[0], lr, decay, options)
        torch.testing.assert_close(weight[number], expected[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(bias[number], expected[1], rtol=1e-4, atol=1e-5)


def changing(num_samples: int, *, seed: int, first: int, last: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Features that turn into others at a place from ``first`` to ``last``, in every other sample."""
    rng = np.random.default_rng(seed)
    features = 0.1 * rng.normal(size=(num_samples, 16, 6)).astype(np.float32)
    places = rng.integers(first, last, size=num_samples)
    change = np.arange(num_samples) % 2 == 0
    for sample in np.flatnonzero(change):
        features[sample, places[sample] :, 0] += rng.choice([-2, 2])
    return features, {"state_change": change.astype(np.int64), "keyframe": np.where(change, places, -1)}


def test_what_is_learned_at_some_places_holds_at_others() -> None:
    train, labels = changing(200, seed=0, first=3, last=8)
    test, truth = changing(200, seed=1, first=9, last=13)
    videos = [f"video {k % 10}" for k in range(200)]
    options = ProbeOptions(lrs=(0.01, 0.1), weight_decays=(0.0, 0.01))
    answers = fit_place_probe(train, labels, test, train_videos=videos, options=options, seed=0, device="cpu")
    change = truth["state_change"] == 1
    assert (answers.scores["state_change"].argmax(axis=1) == change).mean() > 0.95
    found = answers.scores["keyframe"].argmax(axis=1)[change]
    assert (np.abs(found - truth["keyframe"][change]) <= 1).mean() > 0.8
    assert set(answers.chosen) == {"state_change", "keyframe"}
    assert answers.chosen["keyframe"]["held_out_actions"] == 20
    np.testing.assert_allclose(np.exp(answers.scores["keyframe"]).sum(axis=1), 1, rtol=1e-5)


def test_samples_without_a_change_teach_nothing_about_the_place() -> None:
    train, labels = changing(60, seed=0, first=3, last=12)
    other = train.copy()
    other[1::2] = np.roll(other[1::2], 5, axis=1)  # without a change; the same values, so the same mean and scale
    options = ProbeOptions(epochs=3)
    scores = [
        fit_place_probe(of, labels, train, train_videos=None, options=options, seed=0, device="cpu").scores["keyframe"]
        for of in (train, other)
    ]
    np.testing.assert_allclose(scores[0], scores[1], atol=0.05)


def test_another_probe_is_refused() -> None:
    train, labels = changing(8, seed=0, first=3, last=12)
    for options in (ProbeOptions(kind="knn"), ProbeOptions(fresh_clips=True)):
        with pytest.raises(ValueError, match="for a linear probe"):
            fit_place_probe(train, labels, train, train_videos=None, options=options, seed=0, device="cpu")


def test_places_described_some_at_a_time_give_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    train, labels = changing(40, seed=0, first=3, last=12)
    options = ProbeOptions(epochs=3)
    answers = []
    for at_once in (2**24, 1):
        monkeypatch.setattr("earmark.evaluation.place_probe._VALUES_AT_ONCE", at_once)
        answers.append(
            fit_place_probe(train, labels, train, train_videos=None, options=options, seed=0, device="cpu").scores
        )
    for column in ("state_change", "keyframe"):
        np.testing.assert_allclose(answers[0][column], answers[1][column], atol=1e-5)
