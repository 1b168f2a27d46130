r"""The linear probe of Ego4D's state changes on 16 short clips in the order of time, in place of one long clip.

Path of a sample: features of each place --here--> scores of the places, and of no change or change --> numbers.

A place :math:`k` is described by its feature, standardized, and by what changes about it:

.. math::
    \psi_k = [f_k,\; f_{k+1} - f_{k-1},\; |f_{k+1} - f_{k-1}|],

with the first and the last place once more beyond the ends. The logit of place k as the point of no return is
:math:`w \cdot \psi_k + b_k`: the same w for all places, so that what is learned at one of them holds at all. Whether a
state changes is told by a linear probe from the mean and the maximum of :math:`\psi_k` over the places.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from earmark.evaluation.probe import IGNORED_LABEL, ProbeOptions, Standardization, check_features, drawn_clips
from earmark.evaluation.probe_grid import (
    HeldOutTally,
    Pair,
    chosen_values,
    grid_of,
    held_out_rows,
    require_labels_on_both_sides,
)
from earmark.evaluation.probing import ProbeAnswers, fit_probe

__all__ = ["fit_place_probe", "place_features"]

_VALUES_AT_ONCE = 2**24  # of features that are described at a time


def place_features(features: Tensor) -> Tensor:
    """Return what each place is described by; see the head of this file.

    Args:
        features: Of each place, (N, places, D).

    Returns:
        (N, places, 3 D).

    Example:
        >>> place_features(torch.tensor([[[0.0], [1.0], [-3.0]]]))[0].tolist()
        [[0.0, 1.0, 1.0], [1.0, -3.0, 3.0], [-3.0, -4.0, 4.0]]
    """
    padded = torch.cat([features[:, :1], features, features[:, -1:]], dim=1)
    change = padded[:, 2:] - padded[:, :-2]
    return torch.cat([features, change, change.abs()], dim=2)


def fit_place_probe(
    train_features: npt.NDArray[Any],
    train_labels: Mapping[str, npt.NDArray[np.int64]],
    test_features: npt.NDArray[Any],
    *,
    train_videos: Sequence[str] | None,
    options: ProbeOptions,
    seed: int,
    device: torch.device | str,
) -> ProbeAnswers:
    """Train both heads, each with the values of the options' grid that do best on held-out training videos.

    Args:
        train_features: Features of the places (N_train, places, D).
        train_labels: ``state_change``, 0 or 1, and ``keyframe``, a place, each (N_train,); -1 for none.
        test_features: Features of the places (N_test, places, D).
        train_videos: Video of each training sample; needed where there is a choice.
        options: Of a linear probe.
        seed: Of everything that is drawn.
        device: Where to train.

    Returns:
        For both columns the logarithms of the probabilities.

    Raises:
        ValueError: If the options are of another probe, shapes or labels do not fit together, or training diverges.

    Example:
        >>> features = np.zeros((4, 3, 1), np.float32)
        >>> features[np.arange(2), [0, 2]] = 1  # in two of four samples one place stands out
        >>> labels = {"state_change": np.array([1, 1, 0, 0]), "keyframe": np.array([0, 2, -1, -1])}
        >>> answers = fit_place_probe(
        ...     features, labels, features, train_videos=None, options=ProbeOptions(lr=0.1), seed=0, device="cpu"
        ... )
        >>> answers.scores["keyframe"].argmax(axis=1)[:2], answers.scores["state_change"].argmax(axis=1)
        (array([0, 2]), array([1, 1, 0, 0]))
    """
    if options.kind != "linear" or options.fresh_clips:
        raise ValueError("places in the order of time are for a linear probe, which sees all of them")
    num_places = train_features.shape[1]
    check_features(train_features, train_labels, test_features, {"state_change": 2, "keyframe": num_places})
    places = _Places(train_features, options, device)
    train, test = places.features(train_features), places.features(test_features)
    pooled = [_pooled(of, places) for of in (train, test)]
    state = fit_probe(
        pooled[0],
        {"state_change": train_labels["state_change"]},
        pooled[1],
        num_classes={"state_change": 2},
        train_videos=train_videos,
        options=options,
        seed=seed,
        device=device,
    )
    keyframe, chosen = _fit_keyframe(places, train, train_labels["keyframe"], test, train_videos, options, seed)
    return ProbeAnswers(
        {**state.scores, "keyframe": keyframe}, {**state.chosen, **({"keyframe": chosen} if chosen else {})}
    )


class _Places:
    """Describes places, standardized by the training ones, some samples at a time: all at once would be thrice as many.

    Args:
        train: Training features (N, places, D).
        options: Of the probe.
        device: Where places are described.
    """

    def __init__(self, train: npt.NDArray[Any], options: ProbeOptions, device: torch.device | str) -> None:
        self._device = device
        self._of_features = Standardization(self._on_device(train), options)
        self._mean: Tensor | None = None
        if options.standardize:
            features, number = self.features(train), train.shape[0] * train.shape[1]
            mean = _sum(place_features(some).double().sum(dim=(0, 1)) for some in _parts_of(features)) / number
            squares = ((place_features(some).double() - mean).square().sum(dim=(0, 1)) for some in _parts_of(features))
            std = (_sum(squares) / number).sqrt()
            scale = torch.where(std > 1e-6 * mean.abs().clamp(min=1e-6), std, 1.0)  # as of the features themselves
            self._mean, self._scale = mean.float(), scale.float()

    def _on_device(self, features: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.asarray(features, np.float32)).to(self._device)

    def features(self, features: npt.NDArray[Any]) -> Tensor:
        """Return features (N, places, D), standardized."""
        return self._of_features(self._on_device(features))

    def __call__(self, features: Tensor) -> Tensor:
        """Return the descriptions (n, places, 3 D) of some standardized features."""
        described = place_features(features)
        return described if self._mean is None else (described - self._mean) / self._scale


def _parts_of(features: Tensor) -> Sequence[Tensor]:
    """Return some samples at a time."""
    parts: Sequence[Tensor] = features.split(max(1, _VALUES_AT_ONCE // features[0].numel()))  # type: ignore[no-untyped-call]
    return parts


def _sum(parts: Iterable[Tensor]) -> Tensor:
    return reduce(torch.add, parts)


def _pooled(features: Tensor, describe: Callable[[Tensor], Tensor]) -> npt.NDArray[np.float32]:
    """Return mean and maximum over the places of their descriptions, as those of one clip (N, 1, 6 D)."""
    described = (describe(some) for some in _parts_of(features))
    pooled = torch.cat([torch.cat([part.mean(dim=1), part.amax(dim=1)], dim=1) for part in described])
    found: npt.NDArray[np.float32] = pooled[:, None].cpu().numpy()
    return found


def _fit_keyframe(
    places: _Places,
    train: Tensor,
    labels: npt.NDArray[np.int64],
    test: Tensor,
    train_videos: Sequence[str] | None,
    options: ProbeOptions,
    seed: int,
) -> tuple[npt.NDArray[np.float32], dict[str, float]]:
    """Return the logarithms of the places' probabilities (N_test, places), and what was chosen."""
    pairs = grid_of(options.lrs, options.weight_decays, lr=options.lr, weight_decay=options.weight_decay)
    labels = np.asarray(labels, np.int64)
    truth = torch.from_numpy(labels).to(train.device)
    pair, chosen = pairs[0], dict[str, float]()
    changes = labels != IGNORED_LABEL  # only these have something to be found

    def rows(which: npt.NDArray[np.bool_]) -> Tensor:
        return torch.from_numpy(np.flatnonzero(which)).to(train.device)

    if len(pairs) > 1:
        held_out = held_out_rows(train_videos, share=options.held_out, seed=seed)
        require_labels_on_both_sides({"keyframe": labels}, ["keyframe"], held_out)
        kept, judged = rows(changes & ~held_out), rows(changes & held_out)
        head = _fit_pairs(places, train[kept], truth[kept], pairs, options, seed)
        tally = HeldOutTally(len(pairs))
        tally.add(_scores(places, train[judged], *head), truth[judged])
        candidates = [{"lr": lr, "weight_decay": weight_decay} for lr, weight_decay in pairs]
        chosen = chosen_values(candidates, tally.quality(), column="keyframe")
        pair = chosen["lr"], chosen["weight_decay"]
    kept = rows(changes)
    found = _scores(places, test, *_fit_pairs(places, train[kept], truth[kept], [pair], options, seed))[:, 0]
    if not torch.isfinite(found).all():
        raise ValueError(f"keyframe: training diverged with a learning rate of {pair[0]:g}: give a smaller one (lrs)")
    scores: npt.NDArray[np.float32] = found.cpu().numpy()
    return scores, chosen


def _scores(describe: Callable[[Tensor], Tensor], features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the logarithms of the places' probabilities (N, pairs, places)."""
    parts = [_logits(describe(some), weight, bias).log_softmax(dim=-1) for some in _parts_of(features)]
    return torch.cat(parts)


def _logits(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return logits (N, pairs, places) of features (N, places, D), weights (pairs, D) and biases (pairs, places)."""
    return torch.einsum("nkd,pd->npk", features, weight) + bias


def _fit_pairs(
    describe: Callable[[Tensor], Tensor],
    features: Tensor,
    labels: Tensor,
    pairs: Sequence[Pair],
    options: ProbeOptions,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Train a head with each pair side by side, by SGD with momentum, on places as they are described."""
    device, num_places = features.device, features.shape[1]
    dim = describe(features[:1]).shape[-1]
    rng = np.random.default_rng([seed, zlib.crc32(b"keyframe")])
    initial = torch.from_numpy(rng.normal(0.0, 0.01, size=dim)).float()
    weight = initial.repeat(len(pairs), 1).to(device).requires_grad_(True)
    bias = torch.zeros((len(pairs), num_places), device=device, requires_grad=True)
    lr, weight_decay = torch.tensor(pairs, device=device).T[:, :, None]
    steps = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for epoch in range(options.epochs):
        if epoch in options.milestones:
            lr = lr * options.gamma ** options.milestones.count(epoch)
        order, _ = drawn_clips(len(features), 1, fresh=False, seed=seed, epoch=epoch)
        for batch in torch.from_numpy(order).to(device).split(options.batch_size):  # type: ignore[no-untyped-call]
            logits = _logits(describe(features[batch]), weight, bias)
            targets = labels[batch][:, None].expand(logits.shape[:2])
            # of each pair the mean over the batch; pairs share nothing, so the sum has each one's own gradient
            loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / len(batch)
            gradients = torch.autograd.grad(loss, (weight, bias))
            with torch.no_grad():
                for value, step, gradient in zip((weight, bias), steps, gradients, strict=True):
                    step.mul_(options.momentum).add_(gradient + weight_decay * value)
                    value.sub_(lr * step)
    return weight.detach(), bias.detach()
