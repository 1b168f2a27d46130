"""The attentive probe against attention written out, and its grid against its members trained alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import erf, softmax
from torch.nn import functional

from earmark.evaluation.attentive_probe import (
    AttentiveHeads,
    _summed_cross_entropy,
    attentive_probe,
    check_tokens,
    fit_attentive,
)
from earmark.evaluation.probe import ProbeOptions, linear_probe
from earmark.evaluation.probe_grid import grid_of, held_out_rows
from earmark.evaluation.probing import fit_probe
from tests.helpers.clusters import CLASSES, clusters

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = ProbeOptions(kind="attentive", epochs=3, batch_size=16, num_heads=2)
PAIRS = grid_of((0.03, 0.001), (0.0, 0.3), lr=0, weight_decay=0)


def tokens_of(
    num_actions: int, seed: int = 0, num_clips: int = 2
) -> tuple[np.ndarray, dict[str, np.ndarray], list[str]]:
    """Five tokens a clip of size 8, of which a marked one tells the classes: the others are of other actions."""
    features, labels, videos = clusters(num_actions, num_clips, seed, spread=0.5)
    rng = np.random.default_rng([seed, 1])
    tokens = np.zeros((num_actions, num_clips, 5, 8))
    tokens[..., :7] = rng.permuted(np.repeat(features[:, :, None], 5, axis=2), axis=0)
    tokens[..., 7] = -2
    place = rng.integers(5, size=(num_actions, num_clips))
    np.put_along_axis(tokens[..., 7:], place[..., None, None], 2.0, axis=2)
    np.put_along_axis(tokens[..., :7], place[..., None, None], features[:, :, None].astype(np.float64), axis=2)
    return tokens, labels, videos


def drawn_heads(num_members: int = 3) -> AttentiveHeads:
    """Heads whose every parameter differs from what it begins with, and between members, in float64."""
    heads = AttentiveHeads(8, 5, num_members=num_members, num_heads=2, seed=0, column="verb").double()
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.add_(torch.from_numpy(0.5 * rng.normal(size=parameter.shape)))
    return heads


def slow_logits(p: dict[str, np.ndarray], tokens: np.ndarray, num_heads: int) -> np.ndarray:
    """One action (tokens, D), one member: keys and values of every token, one head after another."""

    def layer_norm(x: np.ndarray, name: str) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * p[f"{name}_weight"] + p[f"{name}_bias"]

    normalized = layer_norm(tokens, "norm1")
    query = p["query_weight"] @ p["query"][0] + p["query_bias"]
    gathered = []
    for rows in np.split(np.arange(len(query)), num_heads):
        keys = np.array([p["key_weight"][rows] @ token for token in normalized])
        values = np.array([p["value_weight"][rows] @ token + p["value_bias"][rows] for token in normalized])
        gathered.append(softmax(keys @ query[rows] / np.sqrt(len(rows))) @ values)
    x = p["query"][0] + p["out_weight"] @ np.concatenate(gathered) + p["out_bias"]
    hidden = p["mlp1_weight"] @ layer_norm(x, "norm2") + p["mlp1_bias"]
    hidden = 0.5 * hidden * (1 + erf(hidden / np.sqrt(2)))
    x = x + p["mlp2_weight"] @ hidden + p["mlp2_bias"]
    return p["class_weight"] @ x + p["class_bias"]


def test_the_forward_pass_equals_attention_written_out_in_float64() -> None:
    heads = drawn_heads()
    tokens = np.random.default_rng(2).normal(size=(4, 6, 8))
    logits = heads(torch.from_numpy(tokens)).detach().numpy()
    assert logits.shape == (4, 3, 5)
    for number, member in enumerate(heads.members):
        parameters = {name: value.detach().numpy() for name, value in member.items()}
        for action in range(4):
            expected = slow_logits(parameters, tokens[action], num_heads=2)
            np.testing.assert_allclose(logits[action, number], expected, atol=1e-10)


def test_gradients_equal_those_of_keys_and_values_of_every_token() -> None:
    heads = drawn_heads(2)
    tokens = torch.from_numpy(np.random.default_rng(2).normal(size=(4, 6, 8)))
    labels = torch.tensor([0, 4, -1, 2])
    _summed_cross_entropy(heads(tokens), labels).backward()
    for member in heads.members:
        p = {name: value.detach().clone().requires_grad_() for name, value in member.items()}
        x = functional.layer_norm(tokens, (8,), p["norm1_weight"], p["norm1_bias"])
        query = functional.linear(p["query"], p["query_weight"], p["query_bias"]).view(1, 1, 2, 4).transpose(1, 2)
        keys = functional.linear(x, p["key_weight"]).view(4, 6, 2, 4).transpose(1, 2)
        values = functional.linear(x, p["value_weight"], p["value_bias"]).view(4, 6, 2, 4).transpose(1, 2)
        found = functional.scaled_dot_product_attention(query.expand(4, -1, -1, -1), keys, values)
        x = p["query"] + functional.linear(found.transpose(1, 2).reshape(4, 8), p["out_weight"], p["out_bias"])
        hidden = functional.layer_norm(x, (8,), p["norm2_weight"], p["norm2_bias"])
        hidden = functional.gelu(functional.linear(hidden, p["mlp1_weight"], p["mlp1_bias"]))
        x = x + functional.linear(hidden, p["mlp2_weight"], p["mlp2_bias"])
        logits = functional.linear(x, p["class_weight"], p["class_bias"])
        functional.cross_entropy(logits, labels, ignore_index=-1).backward()
        for name, value in member.items():
            torch.testing.assert_close(value.grad, p[name].grad, rtol=0, atol=1e-10, msg=name)


def test_each_member_of_a_grid_is_what_it_would_be_alone() -> None:
    tokens, labels, _ = tokens_of(40)
    labels["verb"][:15] = -1
    rows = np.arange(2, 40)
    common: dict[str, Any] = {"options": OPTIONS, "seed": 3, "device": "cpu"}
    together = fit_attentive(tokens, labels, rows, num_classes=CLASSES, pairs=dict.fromkeys(CLASSES, PAIRS), **common)
    for number, pair in enumerate(PAIRS):
        for column, classes in CLASSES.items():
            alone = fit_attentive(tokens, labels, rows, num_classes={column: classes}, pairs={column: [pair]}, **common)
            for name, value in together[column].members[number].items():
                torch.testing.assert_close(value, alone[column].members[0][name], rtol=0, atol=1e-9, msg=name)


def test_training_equals_a_loop_over_adamw_and_a_cosine() -> None:
    """Weights decay, biases and norms do not; one step of the cosine for each batch, to 0 after the last."""
    tokens, labels, _ = tokens_of(20)
    fitted = fit_attentive(
        tokens,
        labels,
        np.arange(20),
        num_classes={"verb": 3},
        pairs={"verb": [(0.02, 0.3)]},
        options=OPTIONS,
        seed=5,
        device="cpu",
    )["verb"]
    heads = AttentiveHeads(8, 3, num_members=1, num_heads=2, seed=5, column="verb").double()
    moments = {name: [torch.zeros_like(value), torch.zeros_like(value)] for name, value in heads.named_parameters()}
    step = 0
    for epoch in range(3):
        order = np.random.default_rng([5, epoch]).permutation(20)
        for rows in (order[:16], order[16:]):
            logits = heads(torch.from_numpy(tokens[rows].reshape(len(rows), -1, 8)))[:, 0]
            heads.zero_grad()
            functional.cross_entropy(logits, torch.from_numpy(labels["verb"][rows])).backward()
            lr = 0.02 * 0.5 * (1 + np.cos(np.pi * step / 6))
            step += 1
            for name, value in heads.named_parameters():
                first, second = moments[name]
                first.mul_(0.9).add_(0.1 * value.grad)
                second.mul_(0.999).add_(0.001 * value.grad**2)
                with torch.no_grad():
                    if value.ndim > 1:
                        value.mul_(1 - lr * 0.3)
                    value.sub_(lr * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8))
    for (name, value), other in zip(heads.named_parameters(), fitted.parameters(), strict=True):
        torch.testing.assert_close(other, value, rtol=0, atol=1e-9, msg=name)


def test_it_finds_the_token_that_tells_the_class() -> None:
    tokens, labels, _ = tokens_of(300)
    test, truth, _ = tokens_of(100, seed=1)
    options = ProbeOptions(kind="attentive", epochs=20, batch_size=32, num_heads=2)
    scores = attentive_probe(
        tokens.astype(np.float16),
        labels,
        test.astype(np.float32),
        num_classes=CLASSES,
        pairs=dict.fromkeys(CLASSES, (0.005, 0.01)),
        options=options,
    )
    for column, classes in CLASSES.items():
        assert scores[column].shape == (100, classes)
        assert scores[column].dtype == np.float32
        np.testing.assert_allclose(np.exp(scores[column]).sum(axis=1), 1, atol=1e-5)
        assert (scores[column].argmax(axis=1) == truth[column]).mean() > 0.7
    of_mean = linear_probe(
        tokens.mean(axis=2), labels, test.mean(axis=2), num_classes=CLASSES, options=ProbeOptions(lr=0.05)
    )
    assert (of_mean["noun"].argmax(axis=1) == truth["noun"]).mean() < 0.6  # what every token weighs the same in


def test_clips_are_the_tokens_of_features_without_tokens() -> None:
    features, labels, _ = clusters(30, num_clips=5)
    features = np.concatenate([features, features[..., :1]], axis=2)  # of size 8
    pairs = dict.fromkeys(CLASSES, (0.005, 0.01))
    as_clips, as_tokens = (
        attentive_probe(of, labels, of, num_classes=CLASSES, pairs=pairs, options=OPTIONS)
        for of in (features, features[:, None])
    )
    for column in CLASSES:
        np.testing.assert_array_equal(as_clips[column], as_tokens[column])


class Watched(np.memmap):
    """A memory-mapped array that notes how many rows are asked for at a time."""

    asked: list[int]

    def __getitem__(self, key: Any) -> Any:
        rows = super().__getitem__(key)
        Watched.asked.append(len(rows))
        return np.asarray(rows)


def test_no_more_than_a_batch_of_a_memory_mapped_array_is_read_at_a_time(tmp_path: Path) -> None:
    tokens, labels, videos = tokens_of(100)
    np.asarray(tokens, np.float16).tofile(tmp_path / "tokens")
    mapped = Watched(tmp_path / "tokens", dtype=np.float16, mode="r", shape=tokens.shape)
    options = ProbeOptions(kind="attentive", epochs=2, batch_size=16, num_heads=2, lrs=(0.01, 0.001))
    Watched.asked = []
    from_disk = fit_probe(
        mapped, labels, mapped, num_classes=CLASSES, train_videos=videos, options=options, seed=0, device="cpu"
    )
    assert max(Watched.asked) == 16
    assert sum(Watched.asked) == 2 * 80 + 20 + 2 * 100 + 100  # a pass an epoch for the whole grid, and one to judge
    from_memory = fit_probe(
        tokens.astype(np.float16),
        labels,
        tokens.astype(np.float16),
        num_classes=CLASSES,
        train_videos=videos,
        options=options,
        seed=0,
        device="cpu",
    )
    assert from_disk.chosen == from_memory.chosen
    for column in CLASSES:
        np.testing.assert_array_equal(from_disk.scores[column], from_memory.scores[column])


@pytest.mark.parametrize("seed", [0, 1])
def test_each_column_takes_the_pair_that_is_best_on_held_out_training_videos(seed: int) -> None:
    tokens, labels, videos = (part for part in tokens_of(100))
    tokens = tokens.astype(np.float32)
    options = ProbeOptions(
        kind="attentive",
        epochs=8,
        batch_size=16,
        num_heads=2,
        lrs=(1e-4, 0.003, 0.03),
        weight_decays=(0.0, 3.0),
        held_out=0.3,
    )
    answers = [
        fit_probe(
            tokens, labels, test, num_classes=CLASSES, train_videos=videos, options=options, seed=seed, device="cpu"
        )
        for test in (tokens, -5 * tokens[:3])
    ]
    assert answers[0].chosen == answers[1].chosen
    held_out = held_out_rows(videos, share=0.3, seed=seed)
    for column, classes in CLASSES.items():
        truth = labels[column][held_out]
        tried = []
        for pair in grid_of(options.lrs, options.weight_decays, lr=0, weight_decay=0):
            scores = attentive_probe(
                tokens[~held_out],
                {column: labels[column][~held_out]},
                tokens[held_out],
                num_classes={column: classes},
                pairs={column: pair},
                options=options,
                seed=seed,
            )[column]
            accuracy = 100 * float((scores.argmax(axis=1) == truth).mean())
            tried.append((-accuracy, -float(scores[np.arange(len(truth)), truth].mean()), pair))
        accuracy, _, pair = min(tried)
        chosen = answers[0].chosen[column]
        assert (chosen["lr"], chosen["weight_decay"]) == pair
        assert chosen["held_out_accuracy"] == pytest.approx(-accuracy)
        expected = attentive_probe(
            tokens, labels, tokens, num_classes={column: classes}, pairs={column: pair}, options=options, seed=seed
        )
        np.testing.assert_allclose(answers[0].scores[column], expected[column], atol=1e-5)


def test_same_seed_same_scores_whatever_the_global_random_state() -> None:
    tokens, labels, _ = tokens_of(30)
    runs = []
    for global_seed, seed in ((0, 3), (1, 3), (1, 4)):
        torch.manual_seed(global_seed)
        runs.append(
            attentive_probe(
                tokens,
                labels,
                tokens,
                num_classes=CLASSES,
                pairs=dict.fromkeys(CLASSES, (0.01, 0.01)),
                options=OPTIONS,
                seed=seed,
            )["verb"]
        )
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[1] - runs[2]).max() > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": np.zeros((5, 2, 3, 8))}, "have shape"),
        ({"test": np.zeros((5, 2, 3, 6))}, "with one D"),
        ({"test": np.zeros((5, 2, 8))}, "with one D"),
        ({"test": np.zeros((5, 2, 0, 8))}, "none of them empty"),
        ({"test": np.full((5, 2, 3, 8), np.nan)}, "action 0 are not all finite"),
        ({"options": {"num_heads": 3}}, "3 attention heads do not divide features of size 8"),
        ({"options": {"fresh_clips": True}}, "fresh_clips is of the linear probe"),
        ({"options": {"lr": 1e30}}, "training diverged with a learning rate of 1e\\+30"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, message: str) -> None:
    tokens, labels, _ = tokens_of(30)
    arguments = {"train": tokens, "test": tokens, "options": {}} | change
    options = {"kind": "attentive", "epochs": 2, "num_heads": 2} | arguments["options"]
    with pytest.raises(ValueError, match=message):
        fit_probe(
            arguments["train"],
            labels,
            arguments["test"],
            num_classes=CLASSES,
            train_videos=None,
            options=ProbeOptions(**options),
            seed=0,
            device="cpu",
        )


def test_shapes_that_fit_pass() -> None:
    check_tokens(np.zeros((5, 3, 49, 8), np.float16), np.zeros((2, 1, 49, 8), np.float32))
    check_tokens(np.zeros((5, 3, 8)), np.zeros((2, 1, 8)))


@pytest.mark.gpu
def test_the_attentive_probe_on_the_gpu_agrees_with_the_cpu() -> None:
    tokens, labels, _ = tokens_of(30)
    both = [
        attentive_probe(
            tokens,
            labels,
            tokens,
            num_classes=CLASSES,
            pairs=dict.fromkeys(CLASSES, (0.01, 0.01)),
            options=OPTIONS,
            device=device,
        )["noun"]
        for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(both[1], both[0], atol=1e-5)
