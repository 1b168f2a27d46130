"""The head on frozen features by its kind, and the choice of what is chosen by trying: one door for every task.

Path of a sample: features --probe of the kind asked for--> scores --metrics--> numbers.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from earmark.evaluation.attentive_probe import attentive_probe, attentive_quality, check_tokens
from earmark.evaluation.knn_probe import knn_probe, knn_quality
from earmark.evaluation.probe import ProbeOptions, check_features, check_labels, linear_probe
from earmark.evaluation.probe_grid import (
    Pair,
    chosen_values,
    grid_of,
    held_out_rows,
    linear_grid_quality,
    require_labels_on_both_sides,
)

__all__ = ["ProbeAnswers", "fit_probe"]


@dataclass(frozen=True, slots=True)
class ProbeAnswers:
    """What a probe says about the test samples, and how it was chosen.

    Attributes:
        scores: For each label column float32 (N_test, classes): log of the probability, so also logits.
        chosen: For each label column what was chosen by trying, by name, such as ``lr`` and ``weight_decay``, and what
            that rests on: ``held_out_accuracy`` in %, ``held_out_actions``, and for each value ``NAME_on_edge``: -1
            for the smallest of those tried, 1 for the largest, else 0. Empty where nothing was tried.
    """

    scores: dict[str, npt.NDArray[np.float32]]
    chosen: dict[str, dict[str, float]] = field(default_factory=dict)


def fit_probe(
    train_features: npt.NDArray[Any],
    train_labels: Mapping[str, npt.NDArray[np.int64]],
    test_features: npt.NDArray[Any],
    *,
    num_classes: Mapping[str, int],
    train_videos: Sequence[str] | None,
    options: ProbeOptions,
    seed: int,
    device: torch.device | str,
) -> ProbeAnswers:
    """Train the probe that the options ask for, and return its answers to the test samples.

    Where the options name several values, each label column takes those that do best on a seeded share of the training
    videos, after training on the others; then the probe is trained on all training samples with them. Test features
    are looked at when that is done, and not before.

    Args:
        train_features: Shape (N_train, clips, D), for the attentive probe also (N_train, clips, tokens, D).
        train_labels: Class ids of each label column, shape (N_train,); -1 for none.
        test_features: As those for training; the number of clips may differ.
        num_classes: Classes of each label column.
        train_videos: Video of each training sample; needed where there is a choice.
        options: Which probe, how it is trained, and what is chosen among.
        seed: Of everything that is drawn.
        device: Where to train.

    Raises:
        ValueError: If shapes, labels, classes or videos do not fit together, or every choice diverged.

    Example:
        >>> features, labels = np.float32([[[-1.0]], [[1.0]], [[-1.0]], [[1.0]]]), {"verb": np.array([0, 1, 0, 1])}
        >>> answers = fit_probe(
        ...     features, labels, features, num_classes={"verb": 2}, train_videos=["a", "a", "b", "b"],
        ...     options=ProbeOptions(lrs=(1e-6, 0.1)), seed=0, device="cpu",
        ... )
        >>> answers.scores["verb"].argmax(axis=1), answers.chosen["verb"]["lr"]
        (array([0, 1, 0, 1]), 0.1)
    """
    if train_videos is not None and len(train_videos) != len(train_features):
        raise ValueError(f"need one video for each of {len(train_features)} training samples, got {len(train_videos)}")
    fit = {"linear": _fit_linear, "attentive": _fit_attentive, "knn": _fit_knn}[options.kind]
    return fit(
        train_features,
        train_labels,
        test_features,
        num_classes=num_classes,
        train_videos=train_videos,
        options=options,
        seed=seed,
        device=device,
    )


def _held_out(
    train_labels: Mapping[str, npt.NDArray[np.int64]],
    num_classes: Mapping[str, int],
    train_videos: Sequence[str] | None,
    options: ProbeOptions,
    seed: int,
) -> npt.NDArray[np.bool_]:
    """Return which training samples a choice is made on."""
    held_out = held_out_rows(train_videos, share=options.held_out, seed=seed)
    require_labels_on_both_sides(train_labels, list(num_classes), held_out)
    return held_out


def _fit_linear(
    train_features: npt.NDArray[Any],
    train_labels: Mapping[str, npt.NDArray[np.int64]],
    test_features: npt.NDArray[Any],
    *,
    num_classes: Mapping[str, int],
    train_videos: Sequence[str] | None,
    options: ProbeOptions,
    seed: int,
    device: torch.device | str,
) -> ProbeAnswers:
    check_features(train_features, train_labels, test_features, num_classes)
    pairs = grid_of(options.lrs, options.weight_decays, lr=options.lr, weight_decay=options.weight_decay)
    pair_of: dict[str, Pair] = dict.fromkeys(num_classes, pairs[0])
    chosen: dict[str, dict[str, float]] = {}
    if len(pairs) > 1:
        held_out = _held_out(train_labels, num_classes, train_videos, options, seed)
        qualities = linear_grid_quality(
            train_features,
            train_labels,
            held_out,
            num_classes=num_classes,
            pairs=pairs,
            options=options,
            seed=seed,
            device=device,
        )
        for column, quality in qualities.items():
            candidates = [{"lr": lr, "weight_decay": weight_decay} for lr, weight_decay in pairs]
            chosen[column] = chosen_values(candidates, quality, column=column)
            pair_of[column] = chosen[column]["lr"], chosen[column]["weight_decay"]
    scores: dict[str, npt.NDArray[np.float32]] = {}
    for lr, weight_decay in dict.fromkeys(pair_of.values()):  # columns of one pair together: they share the batches
        columns = {column: num_classes[column] for column, pair in pair_of.items() if pair == (lr, weight_decay)}
        scores |= linear_probe(
            train_features,
            train_labels,
            test_features,
            num_classes=columns,
            options=dataclasses.replace(options, lr=lr, weight_decay=weight_decay),
            seed=seed,
            device=device,
        )
    return ProbeAnswers({column: scores[column] for column in num_classes}, chosen)


def _fit_attentive(
    train_features: npt.NDArray[Any],
    train_labels: Mapping[str, npt.NDArray[np.int64]],
    test_features: npt.NDArray[Any],
    *,
    num_classes: Mapping[str, int],
    train_videos: Sequence[str] | None,
    options: ProbeOptions,
    seed: int,
    device: torch.device | str,
) -> ProbeAnswers:
    if options.fresh_clips:
        raise ValueError("fresh_clips is of the linear probe: the attentive one sees all clips of an action together")
    check_tokens(train_features, test_features)
    check_labels(train_labels, num_classes, num_actions=len(train_features))
    pairs = grid_of(options.lrs, options.weight_decays, lr=options.lr, weight_decay=options.weight_decay)
    pair_of: dict[str, Pair] = dict.fromkeys(num_classes, pairs[0])
    chosen: dict[str, dict[str, float]] = {}
    if len(pairs) > 1:
        held_out = _held_out(train_labels, num_classes, train_videos, options, seed)
        qualities = attentive_quality(
            train_features,
            train_labels,
            held_out,
            num_classes=num_classes,
            pairs=pairs,
            options=options,
            seed=seed,
            device=device,
        )
        candidates = [{"lr": lr, "weight_decay": weight_decay} for lr, weight_decay in pairs]
        for column, quality in qualities.items():
            chosen[column] = chosen_values(candidates, quality, column=column)
            pair_of[column] = chosen[column]["lr"], chosen[column]["weight_decay"]
    scores = attentive_probe(
        train_features,
        train_labels,
        test_features,
        num_classes=num_classes,
        pairs=pair_of,
        options=options,
        seed=seed,
        device=device,
    )
    return ProbeAnswers(scores, chosen)


def _fit_knn(
    train_features: npt.NDArray[Any],
    train_labels: Mapping[str, npt.NDArray[np.int64]],
    test_features: npt.NDArray[Any],
    *,
    num_classes: Mapping[str, int],
    train_videos: Sequence[str] | None,
    options: ProbeOptions,
    seed: int,
    device: torch.device | str,
) -> ProbeAnswers:
    check_features(train_features, train_labels, test_features, num_classes)
    neighbours = dict.fromkeys(num_classes, options.neighbours[0])
    chosen: dict[str, dict[str, float]] = {}
    if len(options.neighbours) > 1:
        held_out = _held_out(train_labels, num_classes, train_videos, options, seed)
        qualities = knn_quality(
            train_features, train_labels, held_out, num_classes=num_classes, options=options, device=device
        )
        candidates = [{"neighbours": float(number)} for number in options.neighbours]
        for column, quality in qualities.items():
            chosen[column] = chosen_values(candidates, quality, column=column, lowest={"neighbours": 1})
            neighbours[column] = int(chosen[column]["neighbours"])
    scores = knn_probe(
        train_features,
        train_labels,
        test_features,
        num_classes=num_classes,
        neighbours=neighbours,
        options=options,
        device=device,
    )
    return ProbeAnswers(scores, chosen)
