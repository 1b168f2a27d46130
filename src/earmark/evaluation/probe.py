"""The linear probe: how much of what is asked for can be read off frozen features by one linear layer.

Path of a sample: features --probe--> scores --metrics--> numbers.

As in the paper's evaluation (arXiv 2209.13583, section 4.2): one linear classifier per label column, all trained
together on the same features by SGD with momentum, the learning rate divided by 10 at milestones. The original code
differs in two points: there the batch norm statistics of the encoder drift while the probe trains, and its
normalization of features works on an axis of size one.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["IGNORED_LABEL", "ProbeOptions", "linear_probe"]

IGNORED_LABEL = -1  # of a sample without a label
_SCORES_AT_ONCE = 2**24  # of clips and classes: 64 MiB


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """How a linear probe is trained. The defaults are the published schedule, but for ``standardize``.

    Attributes:
        epochs: Passes over the training samples.
        lr: Learning rate.
        milestones: Epochs from which on the learning rate is ``gamma`` times what it was before.
        gamma: See above.
        batch_size: Samples per batch; the last batch of an epoch may be smaller.
        momentum: Of SGD.
        weight_decay: Of SGD, on weights and biases.
        normalize: Scale every feature vector to length 1.
        standardize: Shift and scale every dimension to mean 0 and variance 1 of the training features (after
            ``normalize``). Part of our protocol; the published one has none.
        fresh_clips: Epoch e shows clip e of each training sample; there must be as many clips as epochs.
    """

    epochs: int = 30
    lr: float = 0.005
    milestones: tuple[int, ...] = (18, 24)
    gamma: float = 0.1
    batch_size: int = 128
    momentum: float = 0.9
    weight_decay: float = 1e-4
    normalize: bool = False
    standardize: bool = True
    fresh_clips: bool = False


def linear_probe(
    train_features: npt.NDArray[np.float32],
    train_labels: Mapping[str, npt.NDArray[np.int64]],
    test_features: npt.NDArray[np.float32],
    *,
    num_classes: Mapping[str, int],
    options: ProbeOptions | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, npt.NDArray[np.float32]]:
    """Train linear classifiers on frozen features and return their scores on the test features.

    Every epoch shows each training action once, through one of its clips drawn at random, or with ``fresh_clips``
    through one that no other epoch shows, as the published probe cuts a clip anew at each visit. A test action is
    judged by the mean over its clips of the class probabilities. Training is a pure function of the arguments: order
    and clips of an epoch depend on seed and epoch only, the initial weights of a column on seed and its name only, so
    adding a column changes nothing for the others.

    Args:
        train_features: Shape ``(N_train, clips, D)``.
        train_labels: Class ids of each label column, shape ``(N_train,)``; -1 where an action has no label, which
            leaves it out of that column's loss.
        test_features: Shape ``(N_test, clips, D)``; the number of clips may differ.
        num_classes: Classes of each label column; classes absent from training are valid outputs.
        options: How it is trained; None for the published schedule on standardized features.
        seed: See above.
        device: Where to train.

    Returns:
        For each label column float32 ``(N_test, num_classes)``: log of the probability, so also logits.

    Raises:
        ValueError: If shapes do not fit, a label is not a class, a column has no label at all, or there is not one
            fresh clip for each epoch.

    Example:
        >>> features = np.float32([[[-1.0, 1.0]], [[1.0, 1.0]]])
        >>> scores = linear_probe(features, {"verb": np.array([0, 1])}, features, num_classes={"verb": 2})
        >>> scores["verb"].argmax(axis=1)
        array([0, 1])
    """
    options = options or ProbeOptions()
    _check(train_features, train_labels, test_features, num_classes)
    if options.fresh_clips and train_features.shape[1] != options.epochs:
        raise ValueError(
            f"fresh_clips needs one clip for each of {options.epochs} epochs, got {train_features.shape[1]}"
        )
    train, test = (
        torch.from_numpy(np.asarray(features, dtype=np.float32)).to(device)
        for features in (train_features, test_features)
    )
    if options.normalize:
        train, test = functional.normalize(train, dim=-1), functional.normalize(test, dim=-1)
    if options.standardize:
        mean, std = train.mean(dim=(0, 1)), train.std(dim=(0, 1), correction=0)
        # A dimension that hardly varies in training would be blown up in testing by rounding: leave its scale alone.
        scale = torch.where(std > 1e-6 * mean.abs().clamp(min=1e-6), std, 1.0)
        train, test = (train - mean).div_(scale), (test - mean).div_(scale)
    labels = {column: torch.from_numpy(np.asarray(train_labels[column], np.int64)).to(device) for column in num_classes}
    heads = {
        column: _head(train.shape[-1], classes, seed=seed, column=column).to(device)
        for column, classes in num_classes.items()
    }
    optimizer = torch.optim.SGD(
        [parameter for head in heads.values() for parameter in head.parameters()],
        lr=options.lr,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(options.milestones), gamma=options.gamma)
    for epoch in range(options.epochs):
        rng = np.random.default_rng([seed, epoch])
        order = torch.from_numpy(rng.permutation(len(train))).to(device)
        drawn = np.full(len(train), epoch) if options.fresh_clips else rng.integers(train.shape[1], size=len(train))
        clip = torch.from_numpy(drawn).to(device)
        for start in range(0, len(train), options.batch_size):
            rows = order[start : start + options.batch_size]
            features = train[rows, clip[rows]]
            losses = [_mean_cross_entropy(head(features), labels[column][rows]) for column, head in heads.items()]
            optimizer.zero_grad()
            torch.autograd.backward(losses)
            optimizer.step()
        schedule.step()
    with torch.inference_mode():
        return {column: _scores(head, test) for column, head in heads.items()}


def _head(in_dim: int, num_classes: int, *, seed: int, column: str) -> nn.Linear:
    """Return a classifier with weights N(0, 0.01) and bias 0, drawn on the CPU, so the same on every device."""
    head = nn.Linear(in_dim, num_classes)
    rng = np.random.default_rng([seed, zlib.crc32(column.encode())])
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(rng.normal(0.0, 0.01, size=(num_classes, in_dim))))
        head.bias.zero_()
    return head


def _scores(head: nn.Linear, features: Tensor) -> npt.NDArray[np.float32]:
    """Return the logarithm of the mean over clips of the class probabilities, shape (N, classes).

    A logarithm, so that certain answers do not round to ties. What stands between is many times larger than features or
    scores, and is made for some of the rows at a time.
    """
    num_rows = max(1, _SCORES_AT_ONCE // (features.shape[1] * head.out_features))
    log_sums = [
        head(some).log_softmax(dim=-1).logsumexp(dim=1).cpu()
        for some in features.split(num_rows)  # type: ignore[no-untyped-call]
    ]
    scores: npt.NDArray[np.float32] = (torch.cat(log_sums) - np.log(features.shape[1])).numpy()
    return scores


def _mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of the labelled rows, 0 if there are none (torch would say NaN)."""
    total = functional.cross_entropy(logits, labels, ignore_index=IGNORED_LABEL, reduction="sum")
    return total / (labels != IGNORED_LABEL).sum().clamp(min=1)


def _check(
    train_features: npt.NDArray[np.float32],
    train_labels: Mapping[str, npt.NDArray[np.int64]],
    test_features: npt.NDArray[np.float32],
    num_classes: Mapping[str, int],
) -> None:
    """Refuse what does not fit together."""
    shapes = train_features.shape, test_features.shape
    if any(len(shape) != 3 or 0 in shape for shape in shapes) or shapes[0][2] != shapes[1][2]:
        raise ValueError(f"need features (N, clips, D) with one D, none of them empty; got {shapes[0]} and {shapes[1]}")
    for column, classes in num_classes.items():
        if column not in train_labels:
            raise ValueError(f"no training labels for column {column!r}; there are {sorted(train_labels)}")
        labels = np.asarray(train_labels[column])
        if labels.shape != shapes[0][:1]:
            raise ValueError(f"labels of {column!r} have shape {labels.shape}, need {shapes[0][:1]}")
        if labels.min() < IGNORED_LABEL or labels.max() >= classes:
            raise ValueError(f"labels of {column!r} reach from {labels.min()} to {labels.max()}, need [0, {classes})")
        if labels.max() == IGNORED_LABEL:
            raise ValueError(f"no training action has a label in column {column!r}")
