"""The published protocol against a recomputation in plain NumPy, one clip at a time."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from earmark.clips.sampling import epoch_order, sample_seed
from earmark.evaluation import (
    PUBLISHED_PROBE,
    FeatureOptions,
    ProbeOptions,
    PublishedActionRecognition,
    Setting,
    evaluate_task,
    published_segments,
)
from earmark.evaluation.probe import initial_weights

CLASS_NAMES = {"verb": ["cut", "open", "close", "pour", "shake", "never done"], "noun": ["knife", "drawer", "jug"]}
WEIGHT = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


class VisitedClips:
    """Clips of one colour, which says the verb and, in part, the visit."""

    def __init__(self, num_actions: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.labels = {"verb": rng.integers(0, 5, num_actions), "noun": rng.integers(0, 3, num_actions)}
        self.labels["noun"][::9] = -1
        self.action_of_item = np.arange(num_actions)

    def __len__(self) -> int:
        return len(self.action_of_item)

    def colour(self, index: int, seed: int) -> np.ndarray:
        draws = np.random.default_rng(seed).integers(0, 60, size=3)
        return (np.array([30, 7, 0]) * self.labels["verb"][index] + draws).astype(np.uint8)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        index, seed = key
        video = np.broadcast_to(self.colour(index, seed), (2, 4, 4, 3)).copy()
        return {"video": video, "index": index, "seed": seed}


class ToFloat(nn.Module):
    def forward(self, video: Tensor, seed: Tensor, video_size: Tensor) -> Tensor:
        return video.movedim(-1, 1).float() / 255


class Normed(nn.Module):
    """A linear map of the mean colour and a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 6, bias=False), nn.BatchNorm1d(6)
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(WEIGHT))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x.mean(dim=(2, 3, 4))))


def recomputed(train: VisitedClips, test: VisitedClips, probe: ProbeOptions, seed: int) -> dict[str, np.ndarray]:
    """Scores by the definition, in float64."""
    running = {"mean": np.zeros(6), "var": np.ones(6)}
    weights = {name: initial_weights(6, len(of), seed=seed, column=name) for name, of in CLASS_NAMES.items()}
    biases = {name: np.zeros(len(of)) for name, of in CLASS_NAMES.items()}
    speed: dict[Any, Any] = {}
    for epoch in range(probe.epochs):
        rate = probe.lr * probe.gamma ** sum(epoch >= milestone for milestone in probe.milestones)
        order = epoch_order(len(train), seed=seed, epoch=epoch)
        for start in range(0, len(train) - probe.batch_size + 1, probe.batch_size):
            rows = order[start : start + probe.batch_size]
            features = np.zeros((len(rows), 6))
            for process in range(4):
                mine = rows[process::4]
                colours = np.array([train.colour(i, sample_seed(seed, epoch, int(i))) for i in mine]) / 255
                raw = colours @ WEIGHT.T.astype(np.float64)
                mean, var = raw.mean(axis=0), raw.var(axis=0)
                features[process::4] = (raw - mean) / np.sqrt(var + 1e-5)
                if process == 0:
                    unbiased = raw.var(axis=0, ddof=1)
                    running = {"mean": 0.9 * running["mean"] + 0.1 * mean, "var": 0.9 * running["var"] + 0.1 * unbiased}
            for name in CLASS_NAMES:
                labels = train.labels[name][rows]
                logits = features @ weights[name].T + biases[name]
                shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
                known = labels >= 0
                shares[np.flatnonzero(known), labels[known]] -= 1
                error = shares * known[:, None] / known.sum()
                for kind, parameter, gradient in (
                    ("weight", weights, error.T @ features),
                    ("bias", biases, error.sum(axis=0)),
                ):
                    gradient = gradient + probe.weight_decay * parameter[name]
                    speed[kind, name] = probe.momentum * speed.get((kind, name), 0) + gradient
                    parameter[name] = parameter[name] - rate * speed[kind, name]
    seeds = np.random.default_rng(seed).integers(2**63, size=len(test)).tolist()
    colours = np.array([test.colour(index, seeds[index]) for index in range(len(test))]) / 255
    features = (colours @ WEIGHT.T.astype(np.float64) - running["mean"]) / np.sqrt(running["var"] + 1e-5)
    scores = {name: features @ weights[name].T + biases[name] for name in CLASS_NAMES}
    return {name: of - np.log(np.exp(of).sum(axis=1, keepdims=True)) for name, of in scores.items()}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_numbers_are_those_of_a_slow_recomputation(num_workers: int) -> None:
    train, test = VisitedClips(110, seed=0), VisitedClips(70, seed=1)
    probe = ProbeOptions(epochs=6, lr=0.2, milestones=(3, 5), batch_size=24, standardize=False)
    task = PublishedActionRecognition(train, test, CLASS_NAMES, probe, protocol="all 70 actions")
    encoder = Normed()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    judgement = evaluate_task(
        task,
        {"video": encoder},
        transforms={"video": ToFloat()},
        baseline_encoders={"video": Normed()},
        features=FeatureOptions(num_workers=num_workers),
        seed=3,
    )
    setting = Setting({"video": ToFloat()}, seed=3)
    (again,) = task.answer({"video": encoder}, setting, label="")
    expected = recomputed(train, test, probe, seed=3)
    (answers,) = judgement.answers
    for name in CLASS_NAMES:
        np.testing.assert_allclose(answers.encoder.scores[name], expected[name], rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(again.scores[name], answers.encoder.scores[name])
    verb = judgement.result.columns[0]
    assert verb.top1.encoder.value == pytest.approx(
        100 * np.mean(expected["verb"].argmax(axis=1) == test.labels["verb"])
    )
    assert verb.top1.encoder.value > verb.top1.majority.value
    assert judgement.result.options["protocol"] == "all 70 actions"
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())  # a copy drifts
    still = evaluate_task(  # the same without drift has other numbers
        PublishedActionRecognition(train, test, CLASS_NAMES, probe),
        {"video": FrozenNorm()},
        transforms={"video": ToFloat()},
        seed=3,
    )
    assert not np.allclose(still.answers[0].encoder.scores["verb"], expected["verb"], atol=0.1)


class FrozenNorm(Normed):
    def train(self, mode: bool = True) -> "FrozenNorm":
        super().train(False)
        return self


def test_the_segments_are_those_of_the_first_of_four_processes() -> None:
    places = published_segments(9668)
    assert places.tolist() == [4 * k for k in range(75 * 32)]
    assert len(published_segments(9600)) == 2400
    assert len(published_segments(9599)) == 2400  # 2,400 of 4 each, the last process has one fewer
    assert published_segments(9596).tolist() == list(range(9596))
    assert published_segments(7).tolist() == list(range(7))


def test_the_probe_is_the_published_one() -> None:
    assert (PUBLISHED_PROBE.lr, PUBLISHED_PROBE.epochs, PUBLISHED_PROBE.milestones) == (0.005, 30, (18, 24))
    assert (PUBLISHED_PROBE.batch_size, PUBLISHED_PROBE.standardize, PUBLISHED_PROBE.normalize) == (128, False, False)
