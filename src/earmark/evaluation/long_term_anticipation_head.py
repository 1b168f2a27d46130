"""The head of long-term anticipation: features of seen actions in, distributions of each coming verb and noun out.

Path of a sample: features of I seen actions --aggregator--> one vector --a linear layer for each coming verb and
noun--> distributions --> sequences.

As in Ego4D's baseline (Grauman et al., CVPR 2022), the aggregator is the vectors one after another, their mean, or a
transformer of which the last token is taken; the loss is the sum of the cross-entropies of all coming verbs and nouns.
Other than there the encoder is frozen, features are standardized, the transformer normalizes before each block and is
told the order of its tokens, the linear layers begin with the frequencies of the classes, AdamW trains, and rate, decay
and epoch are chosen on held-out training videos.

Letters: A actions, M clips of an action, D features, N windows, I seen, Z coming actions, C classes.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from earmark.evaluation.ego4d_submissions import NUM_CANDIDATES
from earmark.evaluation.long_term_anticipation_sequences import sample_sequences
from earmark.evaluation.long_term_anticipation_windows import Windows
from earmark.evaluation.metrics import prefix_edit_distances
from earmark.evaluation.probe import ProbeOptions, Standardization, check_grid_axis
from earmark.evaluation.probe_grid import edge_of, held_out_rows

__all__ = [
    "AGGREGATORS",
    "Aggregator",
    "AnticipationHead",
    "FittedHead",
    "HeadOptions",
    "fit_anticipation_head",
]

Aggregator = Literal["concatenation", "mean", "transformer"]

AGGREGATORS: Mapping[Aggregator, int] = {"concatenation": 2, "mean": 2, "transformer": 4}
"""By name, with how many actions they see in the official task."""

_INITIAL_STD = 0.01
_TRANSFORMER_DROPOUT = 0.1
_WARM_UP = 0.05  # of the steps
_WINDOWS_AT_ONCE = 256
_MOMENTUM = 0.9
_NUM_DRAWS = 5  # of sequences, for the choice

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """How the head is built and trained.

    Attributes:
        aggregator: What makes one vector of those of the seen actions.
        num_layers: Of the transformer.
        num_heads: Attention heads of the transformer, at most; as many as divide the size of the features.
        dropout: Before the linear layers.
        optimizer: ``adamw``, or ``sgd`` with momentum 0.9 as published.
        epochs: Passes over the training windows, along a cosine to 0 after a short rise; where training videos can be
            held out, the best epoch on them is the last.
        batch_size: Windows per batch; the last batch of an epoch may be smaller.
        lrs: Learning rates to choose among.
        weight_decays: Weight decays to choose among, each with each learning rate.
        held_out: Share of the training videos that the choice is made on.
        chooses: Whether anything is chosen; if not, one rate and one decay are trained with to the last epoch.
    """

    aggregator: Aggregator = "transformer"
    num_layers: int = 6
    num_heads: int = 8
    dropout: float = 0.5
    optimizer: Literal["adamw", "sgd"] = "adamw"
    epochs: int = 30
    batch_size: int = 32
    lrs: tuple[float, ...] = (3e-4,)
    weight_decays: tuple[float, ...] = (0.01,)
    held_out: float = 0.2
    chooses: bool = True

    def __post_init__(self) -> None:
        """Refuse what no head can be built or trained with.

        Raises:
            ValueError: Naming the option.
        """
        for name, known in (("aggregator", tuple(AGGREGATORS)), ("optimizer", ("adamw", "sgd"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        for name in ("num_layers", "num_heads", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name, values, zero in (("lrs", self.lrs, False), ("weight_decays", self.weight_decays, True)):
            if not values:
                raise ValueError(f"{name} needs at least one value")
            check_grid_axis(name, values, zero=zero)
        for name, share in (("dropout", self.dropout), ("held_out", self.held_out)):
            if not 0 <= share < 1 or (name == "held_out" and share == 0):
                raise ValueError(f"{name} must be a share below 1, got {share}")
        if not self.chooses and len(self.lrs) * len(self.weight_decays) > 1:
            raise ValueError("lrs and weight_decays name several values, and nothing is to be chosen (chooses)")


class AnticipationHead(nn.Module):
    """Aggregator and linear layers.

    Args:
        in_dim: Size of the features, D.
        num_seen: I.
        num_coming: Z.
        num_classes: Of each label column.
        options: Which aggregator.

    Example:
        >>> head = AnticipationHead(8, num_seen=3, num_coming=20, num_classes={"verb": 5}, options=HeadOptions())
        >>> head(torch.zeros(2, 3, 8))["verb"].shape
        torch.Size([2, 20, 5])
    """

    def __init__(
        self, in_dim: int, *, num_seen: int, num_coming: int, num_classes: Mapping[str, int], options: HeadOptions
    ) -> None:
        super().__init__()
        self.aggregator, self.num_coming = options.aggregator, num_coming
        if options.aggregator == "transformer":
            num_heads = max(heads for heads in range(1, options.num_heads + 1) if in_dim % heads == 0)
            layer = nn.TransformerEncoderLayer(
                in_dim,
                num_heads,
                dim_feedforward=4 * in_dim,
                dropout=_TRANSFORMER_DROPOUT,
                batch_first=True,
                norm_first=True,
            )
            self.position = nn.Parameter(torch.randn(num_seen, in_dim) * 0.02)
            self.transformer = nn.TransformerEncoder(
                layer, options.num_layers, norm=nn.LayerNorm(in_dim), enable_nested_tensor=False
            )
        self.dropout = nn.Dropout(options.dropout)
        out_dim = in_dim * num_seen if options.aggregator == "concatenation" else in_dim
        # The Z layers of a column as one.
        self.heads = nn.ModuleDict(
            {column: nn.Linear(out_dim, num_coming * classes) for column, classes in num_classes.items()}
        )
        for linear in self.heads.values():
            assert isinstance(linear, nn.Linear)
            nn.init.normal_(linear.weight, std=_INITIAL_STD)
            nn.init.zeros_(linear.bias)

    def forward(self, seen: Tensor) -> dict[str, Tensor]:
        """Return logits ``(B, Z, C)`` of each column from features ``(B, I, D)`` of the seen actions in order."""
        if self.aggregator == "transformer":
            summary = self.transformer(seen + self.position)[:, -1]
        else:
            summary = seen.flatten(1) if self.aggregator == "concatenation" else seen.mean(dim=1)
        summary = self.dropout(summary)
        return {column: head(summary).unflatten(1, (self.num_coming, -1)) for column, head in self.heads.items()}


@dataclass(frozen=True)
class FittedHead:
    """A trained head.

    Attributes:
        head: In evaluation mode.
        standardization: What features go through first.
        chosen: Learning rate, weight decay and number of epochs, ``held_out_distance``, the edit distance of drawn
            sequences, mean of the columns, ``held_out_windows`` that it is a mean over, and for each value
            ``NAME_on_edge``, as `earmark.evaluation.probe_grid.chosen_values` has it; empty where nothing was chosen.
        device: Where the head is.
    """

    head: AnticipationHead
    standardization: Standardization
    chosen: dict[str, float]
    device: torch.device

    def distributions(
        self, features: npt.NDArray[np.float32], seen: npt.NDArray[np.int64]
    ) -> Iterator[dict[str, npt.NDArray[np.float64]]]:
        """Yield the probabilities of each coming verb and noun, some windows at a time, in order.

        Those of several clips are averaged: the first clips of all seen actions, the second ones, and so on.

        Args:
            features: Of all actions, shape ``(A, M, D)``.
            seen: Places of the seen actions of each window, shape ``(N, I)``.

        Yields:
            For each column the probabilities, shape ``(n, Z, C)``.
        """
        for rows in torch.from_numpy(seen).split(_WINDOWS_AT_ONCE):  # type: ignore[no-untyped-call]
            needed, places = rows.unique(return_inverse=True)
            some = torch.from_numpy(np.asarray(features[needed.numpy()], np.float32)).to(self.device)
            found = _mean_probabilities(self.head, self.standardization(some), places.to(self.device))
            yield {column: values.cpu().numpy() for column, values in found.items()}


@torch.no_grad()
def _mean_probabilities(head: AnticipationHead, features: Tensor, seen: Tensor) -> dict[str, Tensor]:
    totals: dict[str, Tensor] = {}
    for clip in range(features.shape[1]):
        for column, logits in head(features[seen, clip]).items():
            probabilities = logits.double().softmax(dim=-1)
            totals[column] = probabilities if clip == 0 else totals[column] + probabilities
    return {column: total / features.shape[1] for column, total in totals.items()}


@dataclass(frozen=True)
class _Training:
    """What every candidate is trained on."""

    features: Tensor
    seen: Tensor
    coming: Mapping[str, Tensor]
    num_classes: Mapping[str, int]
    options: HeadOptions
    seed: int


def fit_anticipation_head(
    features: npt.NDArray[np.float32],
    windows: Windows,
    *,
    num_classes: Mapping[str, int],
    options: HeadOptions | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> FittedHead:
    """Train the head, with learning rate, weight decay and number of epochs chosen on held-out training videos.

    Each pair is trained on a part of the training videos, and the edit distance of sequences that are drawn for the
    others is taken after each epoch; the loss would choose distributions that are less sure than is best. The best pair
    is then trained on all of them, along the same schedule and up to the best epoch. Where there is one training video,
    and one pair, it is trained to the end of the schedule.

    Args:
        features: Of all actions that a training window sees, shape ``(A, M, D)``; of several clips each visit draws one
            for each action.
        windows: Which of them each window sees, and what comes.
        num_classes: Classes of each label column.
        options: See `HeadOptions`; None for the defaults.
        seed: Of everything that is drawn.
        device: Where to train.

    Raises:
        ValueError: If shapes, labels and classes do not fit together, there is a choice and nothing to hold out, or
            every candidate diverged.

    Example:
        >>> import numpy as np
        >>> from earmark.evaluation import HeadOptions
        >>> from earmark.evaluation.long_term_anticipation_windows import Windows
        >>> features = np.eye(2, dtype=np.float32)[:, None]
        >>> labels = {"verb": np.array([[0], [1]] * 4)}
        >>> windows = Windows(tuple("abcdefgh"), np.array([[0], [1]] * 4), labels, {}, tuple("vvvvwwww"))
        >>> options = HeadOptions(aggregator="mean", lrs=(0.1,))
        >>> fitted = fit_anticipation_head(features, windows, num_classes={"verb": 2}, options=options)
        >>> next(fitted.distributions(features, windows.seen))["verb"][:2, 0].argmax(axis=1)
        array([0, 1])
    """
    options, device = options or HeadOptions(), torch.device(device)
    _check(features, windows, num_classes)
    pairs = [(lr, weight_decay) for lr in options.lrs for weight_decay in options.weight_decays]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        (lr, weight_decay), epochs = pairs[0], options.epochs
        chosen: dict[str, float] = {}
        if len(pairs) > 1 or (options.chooses and len(set(windows.videos)) > 1):
            lr, weight_decay, epochs, chosen = _choose(
                features, windows, pairs, num_classes, options, seed=seed, device=device
            )
        everything = np.arange(len(windows))
        training, standardization = _training(features, windows, everything, num_classes, options, seed, device)
        head = _train(training, lr, weight_decay, num_epochs=epochs)
    if not all(bool(weight.isfinite().all()) for weight in head.parameters()):
        raise ValueError(f"training diverged with learning rate {lr:g}: give a smaller one (lrs)")
    return FittedHead(head, standardization, chosen, device)


def _check(features: npt.NDArray[np.float32], windows: Windows, num_classes: Mapping[str, int]) -> None:
    if features.ndim != 3:
        raise ValueError(f"need features (A, M, D) of actions, got shape {features.shape}")
    if not len(windows) or windows.seen.min() < 0 or windows.seen.max() >= len(features):
        raise ValueError(f"windows see actions that are not among the {len(features)} with features")
    for column, classes in num_classes.items():
        labels = windows.coming.get(column)
        if labels is None or not labels.size:
            raise ValueError(f"training windows have no coming actions with a label in column {column!r}")
        if labels.min() < 0 or labels.max() >= classes:
            raise ValueError(f"labels of {column!r} reach from {labels.min()} to {labels.max()}, need [0, {classes})")


def _training(
    features: npt.NDArray[np.float32],
    windows: Windows,
    rows: npt.NDArray[np.int64],
    num_classes: Mapping[str, int],
    options: HeadOptions,
    seed: int,
    device: torch.device,
) -> tuple[_Training, Standardization]:
    """Return some of the windows with the features of the actions that they see, standardized by these alone."""
    needed, places = np.unique(windows.seen[rows], return_inverse=True)
    some = torch.from_numpy(np.asarray(features[needed], np.float32)).to(device)
    standardization = Standardization(some, ProbeOptions())
    return _Training(
        standardization(some),
        torch.from_numpy(places.reshape(len(rows), -1)).to(device),
        {column: torch.from_numpy(windows.coming[column][rows]).to(device) for column in num_classes},
        num_classes,
        options,
        seed,
    ), standardization


def _choose(
    features: npt.NDArray[np.float32],
    windows: Windows,
    pairs: Sequence[tuple[float, float]],
    num_classes: Mapping[str, int],
    options: HeadOptions,
    *,
    seed: int,
    device: torch.device,
) -> tuple[float, float, int, dict[str, float]]:
    held_out = held_out_rows(windows.videos, share=options.held_out, seed=seed)
    training, standardization = _training(
        features, windows, np.flatnonzero(~held_out), num_classes, options, seed, device
    )
    seen = windows.seen[held_out]
    coming = {column: windows.coming[column][held_out] for column in num_classes}
    distances = np.full((len(pairs), options.epochs), np.inf)
    for number, (lr, weight_decay) in enumerate(pairs):

        def judge(epoch: int, head: AnticipationHead, number: int = number) -> None:
            fitted = FittedHead(head, standardization, {}, device)
            distances[number, epoch] = _distance(fitted, features, seen, coming, seed)

        _train(training, lr, weight_decay, num_epochs=options.epochs, after_epoch=judge)
    if not np.isfinite(distances).any():
        raise ValueError("training diverged with every pair of the grid: give smaller learning rates (lrs)")
    best, epoch = (int(place) for place in np.unravel_index(int(distances.argmin()), distances.shape))
    values = {"lr": pairs[best][0], "weight_decay": pairs[best][1], "epochs": float(epoch + 1)}
    tried = {"lr": options.lrs, "weight_decay": options.weight_decays, "epochs": (1.0, float(options.epochs))}
    lowest = {"epochs": 1.0}
    edges = {
        f"{name}_on_edge": edge_of(value, tried[name], lowest=lowest.get(name, 0.0)) for name, value in values.items()
    }
    for name, value in values.items():
        if edges[f"{name}_on_edge"]:
            side = "largest" if edges[f"{name}_on_edge"] > 0 else "smallest"
            _logger.warning("long-term anticipation: the chosen %s %g is the %s of those tried", name, value, side)
    told = {"held_out_distance": float(distances[best, epoch]), "held_out_windows": float(held_out.sum())}
    return *pairs[best], epoch + 1, values | told | edges


def _distance(
    fitted: FittedHead,
    features: npt.NDArray[np.float32],
    seen: npt.NDArray[np.int64],
    coming: Mapping[str, npt.NDArray[np.int64]],
    seed: int,
) -> float:
    """Return the edit distance of drawn sequences, mean over windows, draws and columns; infinite if it diverged."""
    distances, start = [], 0
    uniform = {
        column: np.random.default_rng([seed, place]).random((_NUM_DRAWS, *labels.shape, NUM_CANDIDATES))
        for place, (column, labels) in enumerate(coming.items())
    }
    for found in fitted.distributions(features, seen):
        rows = slice(start, start + len(next(iter(found.values()))))
        start = rows.stop
        for column, probabilities in found.items():
            if not np.isfinite(probabilities).all():
                return float("inf")
            for draw in uniform[column]:
                sequences = sample_sequences(probabilities, draw[rows])
                distances.append(prefix_edit_distances(sequences, coming[column][rows])[:, -1])
    return float(np.concatenate(distances).mean())


def _train(
    training: _Training,
    lr: float,
    weight_decay: float,
    *,
    num_epochs: int,
    after_epoch: Callable[[int, AnticipationHead], None] | None = None,
) -> AnticipationHead:
    """Train a head for the first epochs of the schedule, which has those of the options, and return it."""
    options, features = training.options, training.features
    num_windows, num_seen = training.seen.shape
    num_coming = next(iter(training.coming.values())).shape[1]
    torch.manual_seed(training.seed)
    head = AnticipationHead(
        features.shape[2],
        num_seen=num_seen,
        num_coming=num_coming,
        num_classes=training.num_classes,
        options=options,
    )
    with torch.no_grad():  # what is frequent is not left to be learnt from the few windows that there are
        for column, linear in head.heads.items():
            assert isinstance(linear, nn.Linear)
            counts = torch.bincount(training.coming[column].flatten(), minlength=training.num_classes[column]) + 1.0
            linear.bias.copy_((counts / counts.sum()).log().repeat(num_coming))
    head.to(features.device)
    optimizer = _optimizer(head, options, lr, weight_decay)
    batches_of_epoch = math.ceil(num_windows / options.batch_size)
    num_steps = options.epochs * batches_of_epoch
    for epoch in range(num_epochs):
        draw = np.random.default_rng([training.seed, epoch])
        order = torch.from_numpy(draw.permutation(num_windows)).to(features.device)
        clips = torch.from_numpy(draw.integers(features.shape[1], size=(num_windows, num_seen))).to(features.device)
        head.train()
        for number, rows in enumerate(order.split(options.batch_size)):  # type: ignore[no-untyped-call]
            rate = lr * _schedule(epoch * batches_of_epoch + number, num_steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            logits = head(features[training.seen[rows], clips[rows]])
            losses = [
                functional.cross_entropy(logits[column].flatten(0, 1), labels[rows].flatten()) * num_coming
                for column, labels in training.coming.items()
            ]
            optimizer.zero_grad()
            torch.autograd.backward(losses)
            optimizer.step()
        head.eval()
        if after_epoch is not None:
            after_epoch(epoch, head)
    return head.eval()


def _optimizer(head: AnticipationHead, options: HeadOptions, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Return the optimizer; decay is on matrices, not on biases, norms and positions."""
    decayed = [weight for name, weight in head.named_parameters() if weight.ndim > 1 and name != "position"]
    others = [weight for name, weight in head.named_parameters() if weight.ndim <= 1 or name == "position"]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=_MOMENTUM)
    return torch.optim.AdamW(groups, lr=lr)


def _schedule(step: int, num_steps: int) -> float:
    """Return the share of the learning rate at a step: a rise from 0, then a cosine to 0."""
    rise = max(1, round(_WARM_UP * num_steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, num_steps - rise)))
