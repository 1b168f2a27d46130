"""Fine-tuning: the encoder and a linear classifier for each label column trained end to end on labelled clips.

Path of a sample: clips --random crops--> encoder (its copy) --linear--> loss; then test clips --> scores --> metrics.

What is measured is how good a start the encoder's weights are, where the probes measure what its features are. Each
epoch shows every training action once, through one of its clips, cropped and flipped anew; a test action is judged by
the mean over its clips of the class probabilities. The encoder that is given stays as it is.
"""

import copy
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional

from earmark.clips.dataset import collate
from earmark.clips.loading import load_batches
from earmark.clips.sampling import epoch_order, sample_seed, uniform_draw
from earmark.console import new_console
from earmark.evaluation.features import LabelledClips
from earmark.evaluation.probe import IGNORED_LABEL, check_grid_axis, check_labels, initial_weights
from earmark.evaluation.probe_grid import (
    HeldOutQuality,
    HeldOutTally,
    chosen_values,
    grid_of,
    held_out_rows,
    require_labels_on_both_sides,
)
from earmark.evaluation.probing import ProbeAnswers

__all__ = ["FineTuningOptions", "fine_tune"]

_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FineTuningOptions:
    """How an encoder is fine-tuned.

    Attributes:
        epochs: Passes over the training actions.
        lr: Learning rate of the classifiers at the start.
        backbone_lr_factor: The encoder's learning rate is this times that of the classifiers.
        weight_decay: On weights, not on biases and norms.
        optimizer: ``sgd``, with momentum, or ``adamw``.
        momentum: Of SGD.
        schedule: ``cosine`` to 0, a step for each batch, or ``steps`` at the milestones.
        milestones: Of ``steps``: epochs from which on the learning rate is ``gamma`` times what it was before.
        gamma: See above.
        batch_size: Clips per batch; the last batch of an epoch may be smaller.
        batch_norm: ``train`` normalizes by the statistics of the batch and goes on averaging them; ``eval`` keeps those
            the encoder came with, for batches too small to have any.
        precision: ``32-true``, or ``bf16-mixed`` on a GPU.
        lrs: Learning rates to choose among; empty for ``lr`` alone.
        weight_decays: Weight decays to choose among, each with each learning rate; empty for ``weight_decay`` alone.
        held_out: Share of the training videos that the choice is made on.
        num_workers: Workers that read clips (see `earmark.clips.loading.load_batches`).
        progress: Show a progress bar.
    """

    epochs: int = 30
    lr: float = 0.01
    backbone_lr_factor: float = 0.1
    weight_decay: float = 1e-4
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    schedule: Literal["cosine", "steps"] = "cosine"
    milestones: tuple[int, ...] = (18, 24)
    gamma: float = 0.1
    batch_size: int = 32
    batch_norm: Literal["train", "eval"] = "train"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    lrs: tuple[float, ...] = ()
    weight_decays: tuple[float, ...] = ()
    held_out: float = 0.2
    num_workers: int = 0
    progress: bool = False

    def __post_init__(self) -> None:
        """Refuse what nothing can be trained with.

        Raises:
            ValueError: Naming the option.
        """
        for name, known in (
            ("optimizer", ("sgd", "adamw")),
            ("schedule", ("cosine", "steps")),
            ("batch_norm", ("train", "eval")),
            ("precision", ("32-true", "bf16-mixed")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        for name, number in (("epochs", self.epochs), ("batch_size", self.batch_size)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        for name, value in (("lr", self.lr), ("lrs", self.lrs)):
            check_grid_axis(name, value if isinstance(value, tuple) else (value,), zero=False)
        check_grid_axis("backbone_lr_factor", (self.backbone_lr_factor,), zero=True)
        check_grid_axis("weight_decay", (self.weight_decay,), zero=True)
        check_grid_axis("weight_decays", self.weight_decays, zero=True)
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must be a share of the training videos between 0 and 1, got {self.held_out}")


@dataclass(frozen=True, slots=True)
class _Training:
    """What every pair of a grid is trained with."""

    encoder: nn.Module
    clips: LabelledClips
    num_classes: Mapping[str, int]
    transform: nn.Module
    test_transform: nn.Module
    modality: Literal["video", "audio"]
    options: FineTuningOptions
    seed: int
    device: torch.device
    label: str


class _Classifier(nn.Module):
    """An encoder with a linear classifier for each label column."""

    def __init__(self, encoder: nn.Module, heads: nn.ModuleDict) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = heads

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        features = self.encoder(inputs)
        logits = {column: head(features) for column, head in self.heads.items()}
        return {column: of if of.dtype == torch.float64 else of.float() for column, of in logits.items()}


def fine_tune(
    encoder: nn.Module,
    train_clips: LabelledClips,
    test_clips: LabelledClips,
    *,
    num_classes: Mapping[str, int],
    train_videos: Sequence[str] | None,
    train_transform: nn.Module,
    test_transform: nn.Module,
    modality: Literal["video", "audio"] = "video",
    options: FineTuningOptions | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    label: str = "fine-tuning",
) -> ProbeAnswers:
    """Train a copy of an encoder and a classifier for each label column, and return the answers to the test actions.

    Where the options name several learning rates or weight decays, a copy is trained with each pair on a part of the
    training videos and judged on the rest, with the clips of `train_clips` and the transform of the test; the pair with
    the best mean accuracy of the label columns is then trained on all of them. Test clips are read when that is done.

    On the CPU the same arguments give the same bits, whatever the global random state, which stays as it was.

    Args:
        encoder: Maps inputs to features (B, D). It is not changed.
        train_clips: Labelled clips, as `earmark.clips.action_clips.ActionClips`; with ``random=True`` an action's clip
            lies elsewhere at each visit. Of several clips of an action each visit draws one.
        test_clips: Labelled clips to answer about.
        num_classes: Classes of each label column.
        train_videos: Video of each training action; needed where there is a choice.
        train_transform: Moved to the device, and there called as ``transform(video, seed, video_size)`` as
            `earmark.clips.transforms.VideoCrop`, or for sound as ``transform(audio)``.
        test_transform: The same for clips that are judged, such as ``VideoCrop(random=False)``.
        modality: Which part of a sample the encoder is shown; another part of it is read for nothing.
        options: How it is trained; None for the defaults.
        seed: Of everything that is drawn.
        device: Where to train.
        label: What the progress bar says before the learning rate.

    Returns:
        For each label column the logarithms of the probabilities (N_test, classes), float32; the pair that was chosen
        is the same in all columns.

    Raises:
        ValueError: If labels, clips or videos do not fit together, features are not (B, D), training diverges, or
            bfloat16 is asked for on the CPU, where PyTorch's gradient of 3-D convolutions is wrong.

    Example:
        >>> class Levels:  # two actions of two clips
        ...     labels = {"verb": np.array([0, 1])}
        ...     action_of_item = np.array([0, 0, 1, 1])
        ...     def __len__(self):
        ...         return 4
        ...     def __getitem__(self, key):
        ...         video = np.full((1, 2, 2, 3), 200 * (key[0] // 2), np.uint8)
        ...         return {"video": video, "index": key[0], "seed": key[1]}
        >>> class Scaled(nn.Module):
        ...     def forward(self, video, seed, video_size):
        ...         return video.flatten(1) / 255
        >>> options = FineTuningOptions(lr=1.0)
        >>> answers = fine_tune(nn.Linear(12, 4), Levels(), Levels(), num_classes={"verb": 2}, train_videos=None,
        ...     train_transform=Scaled(), test_transform=Scaled(), options=options)
        >>> answers.scores["verb"].argmax(axis=1)
        array([0, 1])
    """
    options, device = options or FineTuningOptions(), torch.device(device)
    if options.precision == "bf16-mixed" and device.type == "cpu":
        raise ValueError(
            "can't fine-tune in bf16-mixed on the CPU: PyTorch's bfloat16 weight gradient of 3-D convolutions is wrong "
            "there; use 32-true"
        )
    check_labels(train_clips.labels, num_classes, num_actions=_num_actions(train_clips, "training"))
    _num_actions(test_clips, "test")
    training = _Training(
        encoder,
        train_clips,
        num_classes,
        train_transform.to(device),
        test_transform.to(device),
        modality,
        options,
        seed,
        device,
        label,
    )
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        pairs = grid_of(options.lrs, options.weight_decays, lr=options.lr, weight_decay=options.weight_decay)
        pair = pairs[0]
        chosen: dict[str, dict[str, float]] = {}
        if len(pairs) > 1:
            pair, chosen = _choose(training, pairs, train_videos)
        everything = np.arange(len(next(iter(train_clips.labels.values()))))
        model = _train(training, everything, *pair)
        scores: dict[str, list[Tensor]] = {column: [] for column in num_classes}
        for _, of_actions in _answers(training, model, test_clips, np.arange(_num_actions(test_clips, "test"))):
            for column, values in of_actions.items():
                scores[column].append(values.cpu())
    return ProbeAnswers({column: torch.cat(parts).numpy() for column, parts in scores.items()}, chosen)


def _choose(
    training: _Training, pairs: Sequence[tuple[float, float]], train_videos: Sequence[str] | None
) -> tuple[tuple[float, float], dict[str, dict[str, float]]]:
    """Train each pair on a part of the training videos; return the best on the rest, and what is told about it."""
    num_actions = _num_actions(training.clips, "training")
    if train_videos is not None and len(train_videos) != num_actions:
        raise ValueError(f"need one video for each of {num_actions} training actions, got {len(train_videos)}")
    held_out = held_out_rows(train_videos, share=training.options.held_out, seed=training.seed)
    require_labels_on_both_sides(training.clips.labels, list(training.num_classes), held_out)
    tried: dict[str, list[HeldOutQuality]] = {column: [] for column in training.num_classes}
    for lr, weight_decay in pairs:
        tallies = {column: HeldOutTally(1) for column in training.num_classes}
        try:
            model = _train(training, np.flatnonzero(~held_out), lr, weight_decay)
        except _DivergedError as error:
            _logger.warning("%s", error)
            for column in tried:
                tried[column].append(HeldOutQuality(np.zeros(1), np.full(1, np.nan), 0))
            continue
        for actions, scores in _answers(training, model, training.clips, np.flatnonzero(held_out)):
            for column, values in scores.items():
                truth = torch.from_numpy(np.asarray(training.clips.labels[column], np.int64)[actions])
                tallies[column].add(values[:, None].cpu(), truth)
        for column, tally in tallies.items():
            tried[column].append(tally.quality())
    by_column = {
        column: HeldOutQuality(
            np.concatenate([one.accuracies for one in qualities]),
            np.concatenate([one.losses for one in qualities]),
            max(one.num_actions for one in qualities),
        )
        for column, qualities in tried.items()
    }
    # one encoder answers for all columns, so they can't take different pairs
    mean = HeldOutQuality(
        np.mean([quality.accuracies for quality in by_column.values()], axis=0),
        np.mean([quality.losses for quality in by_column.values()], axis=0),
        0,
    )
    best = mean.best()
    candidates = [{"lr": lr, "weight_decay": weight_decay} for lr, weight_decay in pairs]
    told = chosen_values(candidates, mean, column=" and ".join(by_column))
    return pairs[best], {
        column: told
        | {
            "held_out_accuracy": float(quality.accuracies[best]),
            "held_out_actions": float(quality.num_actions),
        }
        for column, quality in by_column.items()
    }


class _DivergedError(ValueError):
    """The loss is no finite number."""


def _train(training: _Training, actions: npt.NDArray[np.int64], lr: float, weight_decay: float) -> _Classifier:
    """Train a copy of the encoder, and new classifiers, on some of the training actions."""
    options, device = training.options, training.device
    torch.default_generator.manual_seed(training.seed)  # of dropout and the like; `fine_tune` puts its state back
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(training.seed)
    model = _new_classifier(training)
    optimizer = _optimizer(model, options, lr=lr, weight_decay=weight_decay)
    num_batches = math.ceil(len(actions) / options.batch_size)
    num_steps = options.epochs * num_batches
    batches = (
        visits[start : start + options.batch_size]
        for epoch in range(options.epochs)
        for visits in [_visits(training.clips, actions, seed=training.seed, epoch=epoch)]
        for start in range(0, len(visits), options.batch_size)
    )

    def factor(step: int) -> float:
        if options.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(step / num_steps, 1.0)))
        return options.gamma ** sum(step // num_batches >= milestone for milestone in options.milestones)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    loaded = load_batches(training.clips, batches, collate_fn=collate, num_workers=options.num_workers, device=device)
    label = f"{training.label}, lr {lr:g}, weight decay {weight_decay:g}"
    shown = track(loaded, label, total=num_steps, console=new_console(stderr=True), disable=not options.progress)
    action_of_item = torch.from_numpy(np.asarray(training.clips.action_of_item, np.int64)).to(device)
    labels = {  # of each item
        column: torch.from_numpy(np.asarray(training.clips.labels[column], np.int64)).to(device)[action_of_item]
        for column in training.num_classes
    }
    _to_train_mode(model, options.batch_norm)
    total = torch.zeros((), device=device)
    with closing(loaded):
        for step, batch in enumerate(shown):
            inputs = _inputs(batch, training.transform, training.modality)
            with torch.autocast("cuda", torch.bfloat16, enabled=options.precision == "bf16-mixed"):
                logits = model(inputs)
            losses = [
                _mean_cross_entropy(of_column, labels[column][batch["index"]]) for column, of_column in logits.items()
            ]
            optimizer.zero_grad()
            torch.autograd.backward(losses)
            optimizer.step()
            schedule.step()
            total += torch.stack(losses).detach().sum()
            if (step + 1) % num_batches == 0:  # once an epoch: a GPU is waited for
                if not math.isfinite(float(total)):
                    raise _DivergedError(
                        f"training diverged in epoch {step // num_batches} with a learning rate of {lr:g} and a weight "
                        f"decay of {weight_decay:g}: give a smaller learning rate"
                    )
                total.zero_()
    return model


def _new_classifier(training: _Training) -> _Classifier:
    """Return a copy of the encoder, to be trained whole, with classifiers like those of the linear probe."""
    encoder = copy.deepcopy(training.encoder).to(training.device).requires_grad_(True)
    # What size its features have only the encoder knows, and it need not be one of ours: ask it.
    first = collate([training.clips[0, 0]])
    encoder.eval()
    with torch.no_grad():
        on_device = {name: value.to(training.device) for name, value in first.items()}
        features = encoder(_inputs(on_device, training.test_transform, training.modality))
    if features.ndim != 2:
        raise ValueError(f"an encoder must return features (B, D), got shape {tuple(features.shape)}")
    heads = {}
    for column, classes in training.num_classes.items():
        heads[column] = head = nn.Linear(features.shape[1], classes, dtype=features.dtype)
        with torch.no_grad():
            weights = initial_weights(features.shape[1], classes, seed=training.seed, column=column)
            head.weight.copy_(torch.from_numpy(weights))
            head.bias.zero_()
    return _Classifier(encoder, nn.ModuleDict(heads)).to(training.device)


def _optimizer(
    model: _Classifier, options: FineTuningOptions, *, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    groups = [
        {
            "params": [value for value in part.parameters() if (value.ndim > 1) == decays],
            "lr": lr * factor,
            "weight_decay": weight_decay if decays else 0.0,
        }
        for part, factor in ((model.encoder, options.backbone_lr_factor), (model.heads, 1.0))
        for decays in (True, False)
    ]
    groups = [group for group in groups if group["params"]]
    if options.optimizer == "adamw":
        return torch.optim.AdamW(groups)
    return torch.optim.SGD(groups, lr=lr, momentum=options.momentum)


def _to_train_mode(model: nn.Module, batch_norm: Literal["train", "eval"]) -> None:
    model.train()
    if batch_norm == "eval":
        for module in model.modules():
            if isinstance(module, _BATCH_NORMS):
                module.eval()


def _visits(clips: LabelledClips, actions: npt.NDArray[np.int64], *, seed: int, epoch: int) -> list[tuple[int, int]]:
    """Return the visits of an epoch: each action once, in a drawn order, through one of its clips."""
    items = _items_of_actions(clips)
    order = actions[epoch_order(len(actions), seed=seed, epoch=epoch)]
    visits = []
    for action in order.tolist():
        visit_seed = sample_seed(seed, epoch, action)
        clip = int(items.shape[1] * uniform_draw(visit_seed, stream=0x46494E))
        visits.append((int(items[action, clip]), visit_seed))
    return visits


@torch.inference_mode()
def _answers(
    training: _Training, model: _Classifier, clips: LabelledClips, actions: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[np.int64], dict[str, Tensor]]]:
    """Yield some actions at a time with the logarithms of their mean probabilities (n, classes) by column."""
    options, num_clips = training.options, _items_of_actions(clips).shape[1]
    items = _items_of_actions(clips)[actions]
    num_rows = max(1, options.batch_size // num_clips)
    parts = [slice(start, start + num_rows) for start in range(0, len(actions), num_rows)]
    # an item's seed depends on the item alone, so that a held-out clip is the same for every pair of a grid
    batches = [[(item, sample_seed(training.seed, 0, item)) for item in items[part].ravel().tolist()] for part in parts]
    loaded = load_batches(clips, batches, collate_fn=collate, num_workers=options.num_workers, device=training.device)
    model.eval()
    with closing(loaded):
        for part, batch in zip(parts, loaded, strict=True):
            inputs = _inputs(batch, training.test_transform, training.modality)
            with torch.autocast("cuda", torch.bfloat16, enabled=options.precision == "bf16-mixed"):
                logits = model(inputs)
            scores = {
                column: values.log_softmax(dim=-1).view(-1, num_clips, values.shape[-1]).logsumexp(dim=1)
                - math.log(num_clips)
                for column, values in logits.items()
            }
            yield actions[part], scores


def _inputs(batch: Mapping[str, Any], transform: nn.Module, modality: Literal["video", "audio"]) -> Tensor:
    """Return what the encoder is shown of a batch."""
    if modality not in batch:
        raise ValueError(f"the clips have no {modality}; there are {', '.join(sorted(batch))}")
    inputs: Tensor = (
        transform(batch["audio"])
        if modality == "audio"
        else transform(batch["video"], batch["seed"], batch["video_size"])
    )
    return inputs


def _mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of the labelled rows, 0 if there are none."""
    total = functional.cross_entropy(logits, labels, ignore_index=IGNORED_LABEL, reduction="sum")
    return total / (labels != IGNORED_LABEL).sum().clamp(min=1)


def _num_actions(clips: LabelledClips, what: str) -> int:
    """Return how many actions there are clips of; each must have the same number of them."""
    counts = np.bincount(np.asarray(clips.action_of_item)) if len(clips) else np.zeros(0, np.int64)
    if len(counts) == 0 or len(set(counts.tolist())) != 1 or int(counts.sum()) != len(clips):
        raise ValueError(f"every {what} action needs the same number of clips, at least one")
    return len(counts)


def _items_of_actions(clips: LabelledClips) -> npt.NDArray[np.int64]:
    """Return the items of each action (actions, clips)."""
    action_of_item = np.asarray(clips.action_of_item)
    items: npt.NDArray[np.int64] = np.argsort(action_of_item, kind="stable").reshape(int(action_of_item.max()) + 1, -1)
    return items
