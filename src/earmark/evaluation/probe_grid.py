"""A grid of learning rates and weight decays: trained at once, chosen among on training videos that are held out.

Path of a sample: training features --grid of probes--> accuracy on held-out training videos --> the chosen pair.

What is chosen by trying must not be chosen by what is reported. So nothing here gets a test feature: a seeded share of
the training videos, each with all its cuts, is held out, all pairs are trained on the others, and each label column
takes the pair that is right most often on the held-out ones.

All linear probes of the grid see the same clips in the same order, so they are one matrix: a batch of features is read
once for all of them. Each is what it would be if it were trained alone.
"""

import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from earmark.datasets import parent_of
from earmark.evaluation.probe import IGNORED_LABEL, ProbeOptions, Standardization, drawn_clips, initial_weights
from earmark.wording import counted

__all__ = [
    "HeldOutQuality",
    "HeldOutTally",
    "Pair",
    "chosen_values",
    "fit_linear_grid",
    "grid_of",
    "held_out_rows",
    "linear_grid_quality",
    "require_labels_on_both_sides",
]

Pair = tuple[float, float]
"""A learning rate and a weight decay."""

_LOGITS_AT_ONCE = 2**24  # of clips, pairs and classes: 64 MiB

_logger = logging.getLogger(__name__)


def grid_of(
    lrs: Sequence[float], weight_decays: Sequence[float], *, lr: float, weight_decay: float
) -> tuple[Pair, ...]:
    """Return all pairs of learning rate and weight decay, the rates in the order given, each with every decay.

    Args:
        lrs: Learning rates; none for `lr` alone.
        weight_decays: Weight decays; none for `weight_decay` alone.
        lr: See above.
        weight_decay: See above.

    Example:
        >>> grid_of((0.1, 1.0), (), lr=0.005, weight_decay=1e-4)
        ((0.1, 0.0001), (1.0, 0.0001))
    """
    return tuple((rate, decay) for rate in lrs or (lr,) for decay in weight_decays or (weight_decay,))


def held_out_rows(train_videos: Sequence[str] | None, *, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Return which training actions are held out: those of a share of the videos, at least one and never all.

    Cuts of one video are held out together (`earmark.datasets.parent_of`). The draw depends on the seed and on which
    videos there are, not on their order.

    Args:
        train_videos: Video of each training action.
        share: Of the videos to hold out.
        seed: Of the draw.

    Returns:
        bool (N,), true for actions that are held out.

    Raises:
        ValueError: If the videos are not known, or there is only one.

    Example:
        >>> held_out_rows(["P01_01", "P01_02", "P01_01"], share=0.2, seed=0).tolist() in ([1, 0, 1], [0, 1, 0])
        True
    """
    if train_videos is None:
        raise ValueError(
            "to choose among several values, whole training videos are held out, and it is not known which video each "
            "training action is of: say so (train_videos), or give one value only"
        )
    parents = np.array([parent_of(video_id) for video_id in train_videos])
    videos = np.unique(parents)
    if len(videos) < 2:
        raise ValueError(
            f"to choose among several values, whole training videos are held out, and there is only "
            f"{counted(len(videos), 'training video')} ({', '.join(videos.tolist())}): give one value only, "
            "or actions of more videos"
        )
    num_held_out = min(max(round(share * len(videos)), 1), len(videos) - 1)
    drawn = np.random.default_rng([seed, zlib.crc32(b"held out")]).permutation(videos)[:num_held_out]
    rows: npt.NDArray[np.bool_] = np.isin(parents, drawn)
    return rows


def require_labels_on_both_sides(
    labels: Mapping[str, npt.NDArray[np.int64]], columns: Sequence[str], held_out: npt.NDArray[np.bool_]
) -> None:
    """Refuse a division after which a column has nothing to train on, or nothing to choose by.

    Args:
        labels: Class ids of each column, -1 for none.
        columns: The columns that matter.
        held_out: Which actions are held out.

    Raises:
        ValueError: Naming the column.
    """
    for column in columns:
        for rows, what in ((held_out, "held-out"), (~held_out, "remaining")):
            if not (np.asarray(labels[column])[rows] != IGNORED_LABEL).any():
                raise ValueError(
                    f"no action of the {what} training videos has a label in column {column!r}, so nothing can be "
                    "chosen there: give one value only, another seed or another share of held-out videos (held_out)"
                )


@dataclass(frozen=True, slots=True)
class HeldOutQuality:
    """How well each candidate does on held-out training actions, in one label column.

    Attributes:
        accuracies: Share of actions whose first guess is right, in %, (candidates,).
        losses: Mean cross-entropy, (candidates,); not finite where training diverged.
        num_actions: Held-out actions with a label.
    """

    accuracies: npt.NDArray[np.float64]
    losses: npt.NDArray[np.float64]
    num_actions: int

    def best(self) -> int:
        """Return the candidate that is right most often; of equals the one with the least loss, of these the first.

        Raises:
            ValueError: If every candidate diverged.
        """
        usable = np.isfinite(self.losses)
        if not usable.any():
            raise ValueError("training diverged with every pair of the grid: give smaller learning rates (lrs)")
        rank = np.lexsort((self.losses, -np.where(usable, self.accuracies, -np.inf)))
        return int(rank[0])


class HeldOutTally:
    """Counts right answers and losses of candidates, some held-out actions at a time.

    Args:
        num_candidates: How many are compared.

    Example:
        >>> tally = HeldOutTally(1)
        >>> tally.add(torch.tensor([[[0.0, -9.0]], [[0.0, -9.0]]]), torch.tensor([0, 1]))
        >>> tally.quality().accuracies.tolist()
        [50.0]
    """

    def __init__(self, num_candidates: int) -> None:
        self._right = np.zeros(num_candidates, np.int64)
        self._loss = np.zeros(num_candidates)
        self._num_actions = 0

    def add(self, scores: Tensor, labels: Tensor) -> None:
        """Count some actions; those without a label do not count.

        Args:
            scores: Logarithms of probabilities (n, candidates, classes).
            labels: Class ids (n,), -1 for none.
        """
        known = labels != IGNORED_LABEL
        scores, labels = scores[known], labels[known]
        self._right += (scores.argmax(dim=-1) == labels[:, None]).sum(dim=0).cpu().numpy()
        of_truth = scores.gather(2, labels[:, None, None].expand(-1, scores.shape[1], 1))
        self._loss -= of_truth.sum(dim=(0, 2), dtype=torch.float64).cpu().numpy()
        self._num_actions += len(labels)

    def quality(self) -> HeldOutQuality:
        """Return what was counted."""
        return HeldOutQuality(
            100 * self._right / self._num_actions, self._loss / self._num_actions, num_actions=self._num_actions
        )


def chosen_values(
    candidates: Sequence[Mapping[str, float]],
    quality: HeldOutQuality,
    *,
    column: str,
    lowest: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Return the values that a column takes, and what is to be told about the choice.

    Args:
        candidates: Values by name, such as ``{"lr": 0.1, "weight_decay": 0.0}``; the same names in each.
        quality: Of each candidate, on held-out training actions.
        column: Label column, for the log.
        lowest: The least that a value can be, by name; 0 where it is not said.

    Returns:
        The values of the best candidate; ``held_out_accuracy`` in % and ``held_out_actions`` that it is a share of; and
        ``NAME_on_edge`` for each value: -1 where it is the smallest of several, 1 where it is the largest, so that a
        wider grid may hold a better one, else 0. A value that can't be lower is on no edge. The log names an edge, too.

    Raises:
        ValueError: If every candidate diverged.

    Example:
        >>> quality = HeldOutQuality(np.array([50.0, 60.0, 40.0]), np.array([1.0, 0.9, 2.0]), num_actions=10)
        >>> chosen_values([{"lr": 0.1}, {"lr": 1.0}, {"lr": 10.0}], quality, column="verb")
        {'lr': 1.0, 'held_out_accuracy': 60.0, 'held_out_actions': 10.0, 'lr_on_edge': 0.0}
    """
    best = quality.best()
    edges = {}
    for name, value in candidates[best].items():
        values = [candidate[name] for candidate in candidates]
        edges[f"{name}_on_edge"] = edge = edge_of(value, values, lowest=(lowest or {}).get(name, 0.0))
        if edge:
            _logger.warning(
                "%s: the chosen %s %g is the %s of those tried; a wider grid may hold a better one",
                column,
                name,
                value,
                "largest" if edge > 0 else "smallest",
            )
    return {
        **candidates[best],
        "held_out_accuracy": float(quality.accuracies[best]),
        "held_out_actions": float(quality.num_actions),
        **edges,
    }


def edge_of(value: float, values: Sequence[float], *, lowest: float = 0.0) -> float:
    """Return -1 if a value is the smallest of several and could be smaller, 1 if it is the largest, else 0.

    Args:
        value: One of the values.
        values: All that it was chosen among.
        lowest: The least that it can be.

    Example:
        >>> edge_of(0.1, [0.1, 1.0]), edge_of(0.0, [0.0, 1.0]), edge_of(0.1, [0.1, 0.1])
        (-1.0, 0.0, 0.0)
    """
    smallest, largest = min(values), max(values)
    if smallest == largest:
        return 0.0
    return 1.0 if value == largest else -1.0 if value == smallest > lowest else 0.0


def fit_linear_grid(
    features: Tensor,
    labels: Mapping[str, Tensor],
    *,
    num_classes: Mapping[str, int],
    pairs: Sequence[Pair],
    options: ProbeOptions,
    seed: int,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Train the linear probes of all pairs and all columns at once; each is `linear_probe`'s with its pair.

    Args:
        features: Training features as the probe sees them (N, clips, D), float32 or float64.
        labels: Class ids of each column (N,) on the same device, -1 for none.
        num_classes: Classes of each column.
        pairs: Learning rates and weight decays.
        options: Epochs, milestones, batches, momentum; its own rate and decay are not used.
        seed: Of order, clips and initial weights.

    Returns:
        For each column the weights (pairs, classes, D) and the biases (pairs, classes).

    Example:
        >>> fitted = fit_linear_grid(
        ...     torch.eye(2)[:, None], {"verb": torch.tensor([0, 1])}, num_classes={"verb": 2},
        ...     pairs=[(0.1, 0.0), (1.0, 0.0)], options=ProbeOptions(), seed=0,
        ... )
        >>> fitted["verb"][0].shape
        torch.Size([2, 2, 2])
    """
    num_actions, num_clips, dim = features.shape
    device, dtype = features.device, features.dtype
    # One matrix for all: the rows are those of column, then pair, then class.
    sizes = [len(pairs) * classes for classes in num_classes.values()]
    weight = torch.cat(
        [
            torch.from_numpy(initial_weights(dim, classes, seed=seed, column=column)).to(dtype).repeat(len(pairs), 1)
            for column, classes in num_classes.items()
        ]
    ).to(device)
    bias = torch.zeros(len(weight), dtype=dtype, device=device)
    lr, weight_decay = (
        torch.cat(
            [
                torch.tensor([pair[which] for pair in pairs], dtype=dtype).repeat_interleave(classes)
                for classes in num_classes.values()
            ]
        ).to(device)
        for which in (0, 1)
    )
    weight_step, bias_step = torch.zeros_like(weight), torch.zeros_like(bias)
    for epoch in range(options.epochs):
        if epoch in options.milestones:
            lr = lr * options.gamma ** options.milestones.count(epoch)
        order, clip = (
            torch.from_numpy(drawn).to(device)
            for drawn in drawn_clips(num_actions, num_clips, fresh=options.fresh_clips, seed=seed, epoch=epoch)
        )
        for rows in order.split(options.batch_size):  # type: ignore[no-untyped-call]
            batch = features[rows, clip[rows]]
            residual = torch.addmm(bias, batch, weight.T)
            for (column, classes), part in zip(num_classes.items(), residual.split(sizes, dim=1), strict=True):  # type: ignore[no-untyped-call]
                _to_loss_gradient(part.unflatten(1, (len(pairs), classes)), labels[column][rows])
            # SGD with momentum, decay and rate of each row's own pair, in the fewest passes over what is large
            weight_step.addmm_(residual.T, batch, beta=options.momentum).addcmul_(weight, weight_decay[:, None])
            bias_step.mul_(options.momentum).add_(residual.sum(dim=0)).addcmul_(bias, weight_decay)
            weight.addcmul_(weight_step, lr[:, None], value=-1)
            bias.addcmul_(bias_step, lr, value=-1)
    parts = zip(num_classes.items(), weight.split(sizes), bias.split(sizes), strict=True)  # type: ignore[no-untyped-call]
    return {
        column: (w.unflatten(0, (len(pairs), classes)), b.unflatten(0, (len(pairs), classes)))
        for (column, classes), w, b in parts
    }


def _to_loss_gradient(logits: Tensor, labels: Tensor) -> None:
    """Turn logits (B, pairs, classes), in place, into the gradient of the mean cross-entropy of the labelled rows."""
    known = (labels != IGNORED_LABEL).to(logits.dtype)
    logits.sub_(logits.amax(dim=-1, keepdim=True)).exp_()
    logits.div_(logits.sum(dim=-1, keepdim=True))
    at_label = labels.clamp(min=0)[:, None, None].expand(-1, logits.shape[1], 1)
    logits.scatter_add_(2, at_label, -torch.ones_like(at_label, dtype=logits.dtype))
    logits.mul_((known / known.sum().clamp(min=1))[:, None, None])


def linear_grid_quality(
    train_features: npt.NDArray[np.float32],
    train_labels: Mapping[str, npt.NDArray[np.int64]],
    held_out: npt.NDArray[np.bool_],
    *,
    num_classes: Mapping[str, int],
    pairs: Sequence[Pair],
    options: ProbeOptions,
    seed: int,
    device: torch.device | str,
) -> dict[str, HeldOutQuality]:
    """Train a grid of linear probes on a part of the training actions, and judge it on the others.

    Args:
        train_features: Training features (N, clips, D).
        train_labels: Class ids of each column (N,), -1 for none.
        held_out: Which actions are judged, (N,); the probes, and what features are standardized by, know nothing of
            them.
        num_classes: Classes of each column.
        pairs: The grid.
        options: See `fit_linear_grid`.
        seed: See `fit_linear_grid`.
        device: Where to train.

    Returns:
        For each column how well each pair does.

    Example:
        >>> features, labels = np.eye(2, dtype=np.float32)[[0, 1, 0, 1]][:, None], {"verb": np.array([0, 1, 0, 1])}
        >>> linear_grid_quality(
        ...     features, labels, np.array([False, False, True, True]), num_classes={"verb": 2},
        ...     pairs=[(0.1, 0.0), (1.0, 0.0)], options=ProbeOptions(), seed=0, device="cpu",
        ... )["verb"].accuracies
        array([100., 100.])
    """
    kept, judged = (
        torch.from_numpy(np.asarray(train_features[rows], dtype=np.float32)).to(device)
        for rows in (~held_out, held_out)
    )
    standardization = Standardization(kept, options)
    kept, judged = standardization(kept), standardization(judged)
    labels = {column: torch.from_numpy(np.asarray(train_labels[column], np.int64)) for column in num_classes}
    keep = torch.from_numpy(~held_out)
    fitted = fit_linear_grid(
        kept,
        {column: values[keep].to(device) for column, values in labels.items()},
        num_classes=num_classes,
        pairs=pairs,
        options=options,
        seed=seed,
    )
    qualities = {}
    for column, (weight, bias) in fitted.items():
        tally = HeldOutTally(len(pairs))
        num_rows = max(1, _LOGITS_AT_ONCE // (judged.shape[1] * bias.numel()))
        truth = labels[column][~keep].to(device)
        for some, its_truth in zip(judged.split(num_rows), truth.split(num_rows), strict=True):  # type: ignore[no-untyped-call]
            logits = (some @ weight.flatten(0, 1).T + bias.flatten()).unflatten(2, bias.shape)
            tally.add(logits.log_softmax(dim=-1).logsumexp(dim=1) - np.log(judged.shape[1]), its_truth)
        qualities[column] = tally.quality()
    return qualities
