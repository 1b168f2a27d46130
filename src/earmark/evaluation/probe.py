"""The linear probe: how much of what is asked for can be read off frozen features by one linear layer.

Path of a sample: features --probe--> scores --metrics--> numbers.

As in the paper's evaluation (arXiv 2209.13583, section 4.2): one linear classifier per label column, all trained
together on the same features by SGD with momentum, the learning rate divided by 10 at milestones. The original code
differs in two points: there the batch norm statistics of the encoder drift while the probe trains, and its
normalization of features works on an axis of size one.
"""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "IGNORED_LABEL",
    "ProbeOptions",
    "Standardization",
    "check_features",
    "check_fresh_clips",
    "check_grid_axis",
    "check_labels",
    "drawn_clips",
    "initial_weights",
    "linear_probe",
]

IGNORED_LABEL = -1  # of a sample without a label
_SCORES_AT_ONCE = 2**24  # of clips and classes: 64 MiB


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """How a probe is trained. The defaults are the published schedule of the linear one, but for ``standardize``.

    ``linear`` is `linear_probe`; ``attentive`` pools the tokens of a feature map by attention that is trained
    (`earmark.evaluation.attentive_probe`); ``knn`` trains nothing (`earmark.evaluation.knn_probe`). Where ``lrs`` and
    ``weight_decays``, or ``neighbours``, name several values, `earmark.evaluation.probing.fit_probe` chooses among them
    on training videos that it holds out.

    Attributes:
        epochs: Passes over the training samples.
        lr: Learning rate; of the attentive probe the first one of a cosine to 0, published with 0.001.
        milestones: Epochs from which on the learning rate is ``gamma`` times what it was before; linear probe.
        gamma: See above.
        batch_size: Samples per batch; the last batch of an epoch may be smaller.
        momentum: Of SGD, which trains the linear probe.
        weight_decay: Of SGD, on weights and biases; of AdamW, which trains the attentive probe, on weights alone,
            published with 0.01.
        normalize: Scale every feature vector to length 1; not of the attentive probe, which has a layer norm.
        standardize: Shift and scale every dimension to mean 0 and variance 1 of the training features (after
            ``normalize``). Part of our protocol; the published ones have none. Not of the attentive probe.
        fresh_clips: Epoch e shows clip e of each training sample; there must be as many clips as epochs. Linear probe.
        kind: Which probe.
        lrs: Learning rates to choose among; empty for ``lr`` alone.
        weight_decays: Weight decays to choose among, each with each learning rate; empty for ``weight_decay`` alone.
        held_out: Share of the training videos that the choice is made on.
        neighbours: Of the kNN probe, how many training clips vote; several to choose among.
        temperature: Of the kNN probe: a neighbour's vote is exp(cosine / temperature).
        num_heads: Of the attentive probe: attention heads, which must divide D.
        token_places: Of the attentive probe: add to each token a code of its place among those of its action, for what
            depends on where or when something is; maps of convolutions do not say it.
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
    kind: Literal["linear", "attentive", "knn"] = "linear"
    lrs: tuple[float, ...] = ()
    weight_decays: tuple[float, ...] = ()
    held_out: float = 0.2
    neighbours: tuple[int, ...] = (20,)
    temperature: float = 0.07
    num_heads: int = 8
    token_places: bool = False

    def __post_init__(self) -> None:
        """Refuse what no probe can be trained with.

        Raises:
            ValueError: Naming the option.
        """
        if self.kind not in ("linear", "attentive", "knn"):
            raise ValueError(f"no probe is called {self.kind!r}; there are linear, attentive and knn")
        check_grid_axis("lrs", self.lrs, zero=False)
        check_grid_axis("weight_decays", self.weight_decays, zero=True)
        check_grid_axis("neighbours", self.neighbours, zero=False)
        if self.kind == "knn" and (self.lrs or self.weight_decays):
            raise ValueError("lrs and weight_decays are of probes that are trained, the kNN probe is not")
        if not self.neighbours:
            raise ValueError("neighbours: need at least one number")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must be a share of the training videos between 0 and 1, got {self.held_out}")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        if self.num_heads < 1:
            raise ValueError(f"num_heads must be at least 1, got {self.num_heads}")


class Standardization:
    """What the features of a linear or kNN probe go through, with statistics of the training features alone.

    Args:
        train: Training features (N, clips, D); with `options.standardize` their mean and deviation are taken.
        options: Of the probe.
    """

    def __init__(self, train: Tensor, options: ProbeOptions) -> None:
        self._normalize = options.normalize
        self._mean: Tensor | None = None
        if options.standardize:
            train = self._of_length_1(train)
            mean, std = train.mean(dim=(0, 1)), train.std(dim=(0, 1), correction=0)
            # A dimension that hardly varies in training would be blown up in testing by rounding: leave its scale.
            self._mean, self._scale = mean, torch.where(std > 1e-6 * mean.abs().clamp(min=1e-6), std, 1.0)

    def _of_length_1(self, features: Tensor) -> Tensor:
        return functional.normalize(features, dim=-1) if self._normalize else features

    def __call__(self, features: Tensor) -> Tensor:
        """Return features (N, clips, D) as the probe sees them; never a view of what was given if they change."""
        features = self._of_length_1(features)
        return features if self._mean is None else (features - self._mean).div_(self._scale)


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
    check_features(train_features, train_labels, test_features, num_classes)
    check_fresh_clips(train_features, options)
    train, test = (
        torch.from_numpy(np.asarray(features, dtype=np.float32)).to(device)
        for features in (train_features, test_features)
    )
    standardization = Standardization(train, options)
    train, test = standardization(train), standardization(test)
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
        order, clip = (
            torch.from_numpy(drawn).to(device)
            for drawn in drawn_clips(len(train), train.shape[1], fresh=options.fresh_clips, seed=seed, epoch=epoch)
        )
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


def drawn_clips(
    num_actions: int, num_clips: int, *, fresh: bool, seed: int, epoch: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the order in which an epoch shows the training actions, and the clip of each action, by its number.

    Args:
        num_actions: How many.
        num_clips: Clips of each.
        fresh: Clip `epoch` of all of them, in place of a drawn one.
        seed: Of the probe.
        epoch: Counted from 0.

    Example:
        >>> order, clips = drawn_clips(3, 5, fresh=True, seed=0, epoch=4)
        >>> sorted(order.tolist()), clips.tolist()
        ([0, 1, 2], [4, 4, 4])
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(num_actions)
    return order, np.full(num_actions, epoch) if fresh else rng.integers(num_clips, size=num_actions)


def initial_weights(in_dim: int, num_classes: int, *, seed: int, column: str) -> npt.NDArray[np.float64]:
    """Return the weights (num_classes, in_dim) that a column's classifier begins with, from N(0, 0.01).

    Args:
        in_dim: Size of the features, D.
        num_classes: Classes of the column.
        seed: Of the probe.
        column: Label column: the draw depends on its name, and on no other column.

    Example:
        >>> initial_weights(4, 2, seed=0, column="verb").shape
        (2, 4)
    """
    rng = np.random.default_rng([seed, zlib.crc32(column.encode())])
    return rng.normal(0.0, 0.01, size=(num_classes, in_dim))


def _head(in_dim: int, num_classes: int, *, seed: int, column: str) -> nn.Linear:
    """Return a classifier with weights N(0, 0.01) and bias 0, drawn on the CPU, so the same on every device."""
    head = nn.Linear(in_dim, num_classes)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(initial_weights(in_dim, num_classes, seed=seed, column=column)))
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


def check_features(
    train_features: npt.NDArray[np.float32],
    train_labels: Mapping[str, npt.NDArray[np.int64]],
    test_features: npt.NDArray[np.float32],
    num_classes: Mapping[str, int],
) -> None:
    """Refuse features and labels that do not fit together.

    Args:
        train_features: Training features.
        train_labels: Class ids of each label column, -1 for none.
        test_features: Test features.
        num_classes: Classes of each column to train on.

    Raises:
        ValueError: If features are not (N, clips, D) with one D, or not finite, or of labels as `check_labels` says.

    Example:
        >>> features = np.zeros((2, 1, 4), np.float32)
        >>> check_features(features, {"verb": np.array([0, -1])}, features, {"verb": 1})
    """
    shapes = train_features.shape, test_features.shape
    if any(len(shape) != 3 or 0 in shape for shape in shapes) or shapes[0][2] != shapes[1][2]:
        raise ValueError(f"need features (N, clips, D) with one D, none of them empty; got {shapes[0]} and {shapes[1]}")
    for features, what in ((train_features, "training"), (test_features, "test")):
        if not np.isfinite(features.sum(dtype=np.float64)):  # one pass, and no array of the same size
            raise ValueError(f"{what} features are not all finite")
    check_labels(train_labels, num_classes, num_actions=shapes[0][0])


def check_fresh_clips(train_features: npt.NDArray[np.float32], options: ProbeOptions) -> None:
    """Refuse fresh clips of which there is not one for each epoch.

    Args:
        train_features: Training features (N, clips, D).
        options: Of the probe.

    Raises:
        ValueError: With both numbers.

    Example:
        >>> check_fresh_clips(np.zeros((2, 5, 4), np.float32), ProbeOptions(epochs=5, fresh_clips=True))
    """
    if options.fresh_clips and train_features.shape[1] != options.epochs:
        raise ValueError(
            f"fresh_clips needs one clip for each of {options.epochs} epochs, got {train_features.shape[1]}"
        )


def check_labels(
    train_labels: Mapping[str, npt.NDArray[np.int64]], num_classes: Mapping[str, int], *, num_actions: int
) -> None:
    """Refuse labels that no probe can be trained on.

    Args:
        train_labels: Class ids of each label column, -1 for none.
        num_classes: Classes of each column to train on.
        num_actions: Training actions.

    Raises:
        ValueError: If a column is missing, of another length, has no label at all, or one that is not a class.

    Example:
        >>> check_labels({"verb": np.array([0, -1])}, {"verb": 1}, num_actions=2)
    """
    for column, classes in num_classes.items():
        if column not in train_labels:
            raise ValueError(f"no training labels for column {column!r}; there are {sorted(train_labels)}")
        labels = np.asarray(train_labels[column])
        if labels.shape != (num_actions,):
            raise ValueError(f"labels of {column!r} have shape {labels.shape}, need {(num_actions,)}")
        if labels.min() < IGNORED_LABEL or labels.max() >= classes:
            raise ValueError(f"labels of {column!r} reach from {labels.min()} to {labels.max()}, need [0, {classes})")
        if labels.max() == IGNORED_LABEL:
            raise ValueError(f"no training action has a label in column {column!r}")


def check_grid_axis(name: str, values: tuple[float, ...], *, zero: bool) -> None:
    """Refuse values to choose among that are not numbers, not positive, or there twice.

    Args:
        name: What they are, for the message.
        values: To choose among.
        zero: Whether 0 is one of the possible.

    Raises:
        ValueError: Naming the value.

    Example:
        >>> check_grid_axis("lrs", (0.1, 0.3), zero=False)
    """
    for value in values:
        if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
            raise ValueError(f"{name}: every value must be {'at least' if zero else 'above'} 0, got {value}")
    if len(set(values)) != len(values):
        raise ValueError(f"{name}: a value is there twice: {', '.join(f'{value:g}' for value in values)}")
