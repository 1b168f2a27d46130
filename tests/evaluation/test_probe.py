"""The linear probe against convex optimisation, and what it must not depend on."""

import dataclasses
import zlib

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp, softmax

from earmark.evaluation import probe
from earmark.evaluation.probe import ProbeOptions, linear_probe

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = {"verb": 3, "noun": 4}


def clusters(num_actions: int, num_clips: int = 2, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return features whose first dimensions tell verbs and whose next ones tell nouns, and the labels."""
    rng = np.random.default_rng(seed)
    labels = {column: rng.integers(0, classes, size=num_actions) for column, classes in CLASSES.items()}
    centres = np.concatenate([np.eye(3)[labels["verb"]], np.eye(4)[labels["noun"]]], axis=1)
    features = 2 * centres[:, None] + rng.normal(size=(num_actions, num_clips, 7))
    return features.astype(np.float32), labels


def optimal_log_probabilities(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, num_classes: int, weight_decay: float
) -> np.ndarray:
    """Minimise mean cross-entropy + weight_decay / 2 * |parameters|^2 with L-BFGS, in float64."""
    train1, test1 = (np.c_[features.astype(np.float64), np.ones(len(features))] for features in (train, test))

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(num_classes, -1)
        log_p = log_softmax(train1 @ weights.T, axis=1)
        residual = (np.exp(log_p) - np.eye(num_classes)[labels]) / len(labels)
        loss = -log_p[np.arange(len(labels)), labels].mean() + weight_decay / 2 * (flat @ flat)
        return loss, (residual.T @ train1 + weight_decay * weights).ravel()

    start = np.zeros(num_classes * train1.shape[1])
    solution = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-9, "maxiter": 5000})
    return log_softmax(test1 @ solution.x.reshape(num_classes, -1).T, axis=1)


@pytest.mark.parametrize("standardize", [False, True])
def test_long_training_reaches_the_optimum_of_regularised_logistic_regression(standardize: bool) -> None:
    train, labels = clusters(120, num_clips=1)
    test, _ = clusters(40, num_clips=1, seed=1)
    train, test = 3 * train + 2, 3 * test + 2
    scores = linear_probe(
        train,
        labels,
        test,
        num_classes=CLASSES,
        options=ProbeOptions(
            epochs=1500, lr=0.02, milestones=(1300,), batch_size=120, weight_decay=0.05, standardize=standardize
        ),
    )
    mean, std = (train.mean(axis=(0, 1)), train.std(axis=(0, 1))) if standardize else (0.0, 1.0)
    for column, classes in CLASSES.items():
        expected = optimal_log_probabilities(
            (train[:, 0] - mean) / std, labels[column], (test[:, 0] - mean) / std, classes, weight_decay=0.05
        )
        np.testing.assert_allclose(scores[column], expected, rtol=0, atol=2e-3)


def test_training_equals_a_numpy_loop() -> None:
    """Momentum, decay of weights and biases, milestones and their factor: two mini-batches an epoch, one column."""
    train, labels = clusters(6, num_clips=3)
    options = ProbeOptions(
        epochs=5,
        lr=0.1,
        milestones=(2, 4),
        gamma=0.2,
        batch_size=4,
        momentum=0.8,
        weight_decay=0.01,
        standardize=False,
    )
    scores = linear_probe(train, labels, train, num_classes={"verb": 3}, options=options, seed=9)

    weights = np.random.default_rng([9, zlib.crc32(b"verb")]).normal(0.0, 0.01, size=(3, 7))
    weights = np.c_[weights, np.zeros(3)]
    velocity = np.zeros_like(weights)
    for epoch in range(5):
        rng = np.random.default_rng([9, epoch])
        order, clip = rng.permutation(6), rng.integers(3, size=6)
        lr = 0.1 * 0.2 ** ((epoch >= 2) + (epoch >= 4))
        for rows in (order[:4], order[4:]):
            x = np.c_[train[rows, clip[rows]], np.ones(len(rows))]
            residual = softmax(x @ weights.T, axis=1) - np.eye(3)[labels["verb"][rows]]
            velocity = 0.8 * velocity + residual.T @ x / len(rows) + 0.01 * weights
            weights = weights - lr * velocity
    log_p = log_softmax(np.concatenate([train, np.ones((6, 3, 1))], axis=2) @ weights.T, axis=2)
    np.testing.assert_allclose(scores["verb"], logsumexp(log_p, axis=1) - np.log(3), atol=1e-5)


def test_probe_reads_separable_classes_and_fails_on_shuffled_labels() -> None:
    train, labels = clusters(400)
    test, test_labels = clusters(200, seed=1)
    scores = linear_probe(train, labels, test, num_classes=CLASSES, options=ProbeOptions(lr=0.1))
    assert (scores["verb"].argmax(axis=1) == test_labels["verb"]).mean() > 0.85
    assert (scores["noun"].argmax(axis=1) == test_labels["noun"]).mean() > 0.8
    shuffled = {column: np.random.default_rng(0).permutation(values) for column, values in labels.items()}
    scores = linear_probe(train, shuffled, test, num_classes=CLASSES, options=ProbeOptions(lr=0.1))
    assert (scores["verb"].argmax(axis=1) == test_labels["verb"]).mean() < 0.55


def test_scores_are_log_probabilities_averaged_over_clips() -> None:
    train, labels = clusters(50)
    test, _ = clusters(10, num_clips=3, seed=1)
    scores = linear_probe(train, labels, test, num_classes=CLASSES, options=ProbeOptions(lr=0.1))
    one_by_one = [
        linear_probe(train, labels, test[:, [clip]], num_classes=CLASSES, options=ProbeOptions(lr=0.1))
        for clip in range(3)
    ]
    for column in CLASSES:
        expected = np.mean([np.exp(single[column]) for single in one_by_one], axis=0)
        np.testing.assert_allclose(np.exp(scores[column]), expected, atol=1e-6)
        np.testing.assert_allclose(np.exp(scores[column]).sum(axis=1), 1, atol=1e-5)


def test_scores_made_in_parts_are_those_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their memory does not grow with the test set: 100,000 actions of 5 clips and 300 classes would take 1.2 GB."""
    train, labels = clusters(50)
    test, _ = clusters(37, num_clips=3, seed=1)
    whole = linear_probe(train, labels, test, num_classes=CLASSES)
    sizes: list[int] = []
    log_softmax = torch.Tensor.log_softmax

    def noted(self: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        sizes.append(self.numel())
        return log_softmax(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "log_softmax", noted)
    monkeypatch.setattr(probe, "_SCORES_AT_ONCE", 100)
    parts = linear_probe(train, labels, test, num_classes=CLASSES)
    assert max(sizes) <= 100
    assert len(sizes) == 4 + 5  # of 11 and of 8 actions at a time
    for column in CLASSES:
        np.testing.assert_allclose(parts[column], whole[column], rtol=1e-6, atol=1e-6)


def test_same_seed_gives_the_same_scores_whatever_the_global_random_state() -> None:
    train, labels = clusters(50)
    runs = []
    for global_seed, seed in ((0, 3), (1, 3), (1, 4)):
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)  # noqa: NPY002
        runs.append(linear_probe(train, labels, train, num_classes=CLASSES, seed=seed)["verb"])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[1] - runs[2]).max() > 1e-4


def test_columns_do_not_disturb_each_other() -> None:
    train, labels = clusters(50)
    together = linear_probe(train, labels, train, num_classes=CLASSES)
    for column, classes in CLASSES.items():
        alone = linear_probe(train, labels, train, num_classes={column: classes})
        np.testing.assert_allclose(together[column], alone[column], atol=1e-6)


def test_unlabelled_rows_leave_only_their_column_unchanged() -> None:
    train, labels = clusters(60, num_clips=1)
    hidden = {"verb": labels["verb"].copy(), "noun": labels["noun"]}
    hidden["verb"][::2] = -1
    whole = ProbeOptions(epochs=300, lr=0.05, milestones=(250,), batch_size=60, weight_decay=0.05, standardize=False)
    half = dataclasses.replace(whole, batch_size=30)
    scores = linear_probe(train, hidden, train, num_classes=CLASSES, options=whole)
    rest = {column: values[1::2] for column, values in labels.items()}
    expected = linear_probe(train[1::2], rest, train, num_classes=CLASSES, options=half)
    np.testing.assert_allclose(scores["verb"], expected["verb"], atol=2e-3)
    full = linear_probe(train, labels, train, num_classes=CLASSES, options=whole)
    np.testing.assert_allclose(scores["noun"], full["noun"], atol=1e-6)


def test_batch_without_any_label_does_not_spoil_the_weights() -> None:
    train, labels = clusters(40)
    labels["verb"][1:] = -1
    scores = linear_probe(train, labels, train, num_classes=CLASSES, options=ProbeOptions(batch_size=4))
    assert np.isfinite(scores["verb"]).all()


def test_class_absent_from_training_is_a_valid_but_unlikely_answer() -> None:
    train, labels = clusters(100)
    scores = linear_probe(train, labels, train, num_classes={"verb": 10}, options=ProbeOptions(lr=0.1))
    assert scores["verb"].shape == (100, 10)
    probability_unseen = np.exp(scores["verb"])[:, 3:]
    assert (probability_unseen > 0).all()
    assert probability_unseen.max() < 0.1


def test_normalized_features_make_the_probe_blind_to_length() -> None:
    train, labels = clusters(50)
    lengths = np.random.default_rng(0).uniform(0.1, 10, size=(50, 2, 1)).astype(np.float32)
    options = {"num_classes": CLASSES, "options": ProbeOptions(normalize=True)}
    scores = linear_probe(train, labels, train, **options)
    scaled = linear_probe(train * lengths, labels, train * lengths, **options)
    np.testing.assert_allclose(scaled["verb"], scores["verb"], atol=1e-4)
    plain = linear_probe(train * lengths, labels, train * lengths, num_classes=CLASSES)
    assert np.abs(plain["verb"] - scores["verb"]).max() > 0.01


def test_standardizing_uses_training_statistics_only() -> None:
    train, labels = clusters(50)
    test, _ = clusters(20, seed=1)
    scores = linear_probe(train, labels, test, num_classes=CLASSES)
    alone = linear_probe(train, labels, test[:5], num_classes=CLASSES)
    np.testing.assert_allclose(scores["verb"][:5], alone["verb"], atol=1e-6)
    moved = linear_probe(100 * train + 7, labels, 100 * test + 7, num_classes=CLASSES)
    np.testing.assert_allclose(moved["verb"], scores["verb"], atol=1e-3)


def test_dimension_that_is_constant_in_training_is_not_blown_up() -> None:
    train, labels = clusters(50)
    test, _ = clusters(20, seed=1)
    expected = linear_probe(train, labels, test, num_classes=CLASSES)["verb"]
    dead_train, dead_test = train.copy(), test.copy()
    dead_train[..., 6] = 1234.5
    dead_test[..., 6] = 1234.5 + 1e-3
    scores = linear_probe(dead_train, labels, dead_test, num_classes=CLASSES)["verb"]
    assert np.abs(scores - expected).max() < 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {"verb": np.full(50, 3)}}, "reach from 3 to 3"),
        ({"labels": {"verb": np.full(50, -2)}}, "reach from -2"),
        ({"labels": {"verb": np.full(50, -1)}}, "no training action has a label"),
        ({"labels": {"verb": np.zeros(49, int)}}, "have shape"),
        ({"labels": {"noun": np.zeros(50, int)}}, "no training labels for column 'verb'"),
        ({"test": np.zeros((5, 1, 6), np.float32)}, "one D"),
        ({"test": np.zeros((5, 7), np.float32)}, "one D"),
        ({"test": np.full((5, 1, 7), np.nan, np.float32)}, "test features are not all finite"),
        ({"train": np.full((50, 1, 7), np.inf, np.float32)}, "training features are not all finite"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, message: str) -> None:
    train, labels = clusters(50)
    arguments = {"train": train, "labels": labels, "test": train} | change
    with pytest.raises(ValueError, match=message):
        linear_probe(arguments["train"], arguments["labels"], arguments["test"], num_classes={"verb": 3})


@pytest.mark.gpu
def test_probe_on_the_gpu_agrees_with_the_cpu() -> None:
    train, labels = clusters(100)
    on_cpu = linear_probe(train, labels, train, num_classes=CLASSES)
    on_gpu = linear_probe(train, labels, train, num_classes=CLASSES, device="cuda")
    np.testing.assert_allclose(on_gpu["noun"], on_cpu["noun"], atol=1e-3)
