"""Action recognition on frozen features: the numbers that say what an encoder has learned.

Path of a sample: labelled clips --features--> --probe--> --metrics--> an `ActionRecognitionResult` --report--> page.

All test actions are judged, in evaluation mode, over several clips, and every number carries a 95 % interval; beside it
stand the same numbers of an encoder that has learned nothing and of the answer that looks at nothing.
"""

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.table import Table
from torch import nn

from earmark.evaluation.features import LabelledClips, describe, extract_features, feature_key
from earmark.evaluation.intervals import FEW_VIDEOS, mean_interval, paired_interval
from earmark.evaluation.metrics import majority_correct, top_k_correct
from earmark.evaluation.probe import IGNORED_LABEL, linear_probe

__all__ = [
    "ActionRecognitionResult",
    "ClassAccuracy",
    "ColumnResult",
    "Estimate",
    "Score",
    "Seen",
    "evaluate_action_recognition",
    "format_table",
]


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its 95 % interval, in % (differences: percentage points).

    Attributes:
        value: The number.
        low: Low end of the interval.
        high: High end of the interval.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"

    def signed(self) -> str:
        """Return the text of a difference.

        Example:
            >>> Estimate(3.0, -0.5, 6.5).signed()
            '+3.0 [-0.5, +6.5]'
        """
        return f"{self.value:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """Top-k accuracy of one label column.

    Attributes:
        k: Number of guesses.
        encoder: Of the probe on the judged encoder's features.
        baseline: Of the probe on the baseline encoder's features; None without one.
        gain: Encoder minus baseline on the same actions (paired); None without a baseline.
        majority: Of always guessing the k most frequent training classes.
        chance: Of guessing k classes at random, in %.
    """

    k: int
    encoder: Estimate
    baseline: Estimate | None
    gain: Estimate | None
    majority: Estimate
    chance: float


@dataclasses.dataclass(frozen=True, slots=True)
class ClassAccuracy:
    """Top-1 accuracy on the test actions of one class.

    Attributes:
        name: Class name.
        accuracy: In %.
        baseline_accuracy: Of the baseline encoder, in %; None without one.
        num_actions: Test actions of the class.
    """

    name: str
    accuracy: float
    baseline_accuracy: float | None
    num_actions: int


@dataclasses.dataclass(frozen=True, slots=True)
class ColumnResult:
    """What was measured for one label column.

    Attributes:
        column: Label column, for example "verb".
        num_classes: Number of classes.
        num_train_actions: Training actions with a label.
        num_test_actions: Test actions with a label: what the accuracies are shares of.
        num_test_videos: Videos that these lie in, which the intervals rest on; None where videos were not given.
        top1: Accuracy of the first guess.
        top5: Accuracy of the first five guesses.
        classes: The classes that occur among the test actions, by id.
    """

    column: str
    num_classes: int
    num_train_actions: int
    num_test_actions: int
    num_test_videos: int | None
    top1: Score
    top5: Score
    classes: tuple[ClassAccuracy, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """Test videos that were used before, for what makes numbers on them too good.

    Attributes:
        by: By what, in words that stand before "N of M test videos", such as "pretraining saw".
        num_videos: How many of the test videos; None if that is not known.
    """

    by: str
    num_videos: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class ActionRecognitionResult:
    """Numbers of one evaluation.

    Attributes:
        columns: One result for each label column.
        options: How it was measured: options of the probe, clips an action, seed; plain data.
        num_test_videos: Videos of all test actions; None where videos were not given.
        seen: Test videos that were used before.
    """

    columns: tuple[ColumnResult, ...]
    options: dict[str, Any]
    num_test_videos: int | None = None
    seen: tuple[Seen, ...] = ()

    @property
    def cautions(self) -> tuple[str, ...]:
        """What a reader of the numbers must know: few videos, or videos that were used before; one sentence each."""
        cautions = []
        fewest = min((column.num_test_videos for column in self.columns if column.num_test_videos), default=None)
        if fewest is not None and fewest < FEW_VIDEOS:
            rests = (
                "interval rests on 1 test video, and says"
                if fewest == 1
                else (f"intervals rest on {fewest} test videos, and say")
            )
            cautions.append(f"The {rests} little of other videos; {FEW_VIDEOS} or more are better.")
        for seen in self.seen:
            if seen.num_videos is None:
                cautions.append(f"It is not known whether {seen.by} any of the test videos.")
            elif seen.num_videos:
                share = f"{seen.num_videos} of {self.num_test_videos} test video{'s' * (self.num_test_videos != 1)}"
                cautions.append(f"{seen.by[:1].upper()}{seen.by[1:]} {share}: other videos may score lower.")
        return tuple(cautions)

    def to_json(self) -> str:
        """Return the result as json, the same for the same numbers."""
        return json.dumps(dataclasses.asdict(self) | {"cautions": self.cautions}, indent=2)


def evaluate_action_recognition(
    *,
    encoder: nn.Module,
    train_clips: LabelledClips,
    test_clips: LabelledClips,
    transform: nn.Module,
    num_classes: Mapping[str, int],
    class_names: Mapping[str, Sequence[str]],
    fingerprint: str,
    baseline_encoder: nn.Module | None = None,
    test_videos: Sequence[str] | None = None,
    seen_videos: Mapping[str, Collection[str] | None] | None = None,
    encoder_options: Mapping[str, Any] | None = None,
    fresh_clips: bool = False,
    batch_size: int = 64,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
    cache_dir: Path | None = None,
    epochs: int = 30,
    lr: float = 0.005,
    milestones: Sequence[int] = (18, 24),
    gamma: float = 0.1,
    probe_batch_size: int = 128,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    normalize_feats: bool = False,
    standardize: bool = True,
    seed: int = 0,
    progress: bool = False,
) -> ActionRecognitionResult:
    """Probe a frozen encoder for actions, beside a baseline encoder and the majority class.

    Both encoders get the same clips, the same probe and the same seed, and are compared action by action.

    Args:
        encoder: Maps ``(B, 3, T, H, W)`` float to ``(B, D)``; see `extract_features` for what happens to it.
        train_clips: Labelled clips to train the probe on.
        test_clips: Labelled clips to judge it on; actions without a label in a column do not count there.
        transform: Called as ``transform(video, seed, video_size)``.
        num_classes: Label columns to probe and their number of classes.
        class_names: Names of the classes of each column, by id.
        fingerprint: Identifies the videos for the feature cache, for example ``PreparedStore.fingerprint``. Clips,
            actions, labels and transform enter the cache's key by themselves.
        baseline_encoder: For example the same architecture, randomly initialised.
        test_videos: Video of each test action; the intervals are then for other videos, not for other actions of these.
        seen_videos: Videos by what used them before, such as ``{"pretraining saw": ids}``; None for ids that are not
            known. The result counts the test videos among them.
        encoder_options: What else the result's options say of the encoder, such as which weights of a checkpoint it
            has; plain data.
        fresh_clips: As in `linear_probe`: the clips of a training action are one for each epoch.
        batch_size: Clips a batch of feature extraction.
        num_workers: Threads that read clips.
        device: Where encoder and probe run.
        cache_dir: Where features are kept; None keeps none.
        epochs: Of the probe, like the next eight.
        lr: See `linear_probe`.
        milestones: See `linear_probe`.
        gamma: See `linear_probe`.
        probe_batch_size: See `linear_probe`.
        momentum: See `linear_probe`.
        weight_decay: See `linear_probe`.
        normalize_feats: See `linear_probe`.
        standardize: See `linear_probe`.
        seed: Of clips that draw, and of the probe.
        progress: Show progress bars.

    Returns:
        Accuracies, intervals and counts.

    Raises:
        ValueError: If labels, classes and clips do not fit together, or no test action has a label in a column.
    """
    probe_options: dict[str, Any] = {
        "epochs": epochs,
        "lr": lr,
        "milestones": list(milestones),
        "gamma": gamma,
        "batch_size": probe_batch_size,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "normalize_feats": normalize_feats,
        "standardize": standardize,
        "fresh_clips": fresh_clips,
    }
    _check(train_clips, test_clips, num_classes, class_names, test_videos)

    def features(judged: nn.Module, clips: LabelledClips, name: str) -> npt.NDArray[np.float32]:
        key = None
        if cache_dir is not None:
            key = feature_key(
                judged,
                clip_parameters=describe(clips) | {"seed": seed},
                transform_parameters=describe(transform),
                fingerprint=fingerprint,
            )
        return extract_features(
            judged,
            clips,
            transform=transform,
            batch_size=batch_size,
            num_workers=num_workers,
            device=device,
            seed=seed,
            cache_dir=cache_dir,
            cache_key=key,
            progress=progress,
            progress_label=f"features: {name}",
        )

    def scores(judged: nn.Module, name: str) -> dict[str, npt.NDArray[np.float32]]:
        return linear_probe(
            features(judged, train_clips, f"{name}, training actions"),
            train_clips.labels,
            features(judged, test_clips, f"{name}, test actions"),
            num_classes=num_classes,
            seed=seed,
            device=device,
            **probe_options,
        )

    encoder_scores = scores(encoder, "encoder")
    baseline_scores = scores(baseline_encoder, "random encoder") if baseline_encoder is not None else None
    columns = []
    for column, classes in num_classes.items():
        columns.append(
            _judge(
                column,
                classes,
                class_names[column],
                train_labels=train_clips.labels[column],
                test_labels=test_clips.labels[column],
                scores=encoder_scores[column],
                baseline_scores=None if baseline_scores is None else baseline_scores[column],
                videos=None if test_videos is None else np.asarray(test_videos),
            )
        )
    units = "actions, taken as independent" if test_videos is None else "videos"
    judged_videos = None if test_videos is None else set(test_videos)
    seen = tuple(
        Seen(by, None if ids is None or judged_videos is None else len(judged_videos & set(ids)))
        for by, ids in (seen_videos or {}).items()
    )
    options = {
        "probe": probe_options,
        "train_clips_per_action": len(train_clips) // len(next(iter(train_clips.labels.values()))),
        "test_clips_per_action": len(test_clips) // len(next(iter(test_clips.labels.values()))),
        "interval": f"95 %, Wilson's with Student's t over {units}",
        "seed": seed,
        "fingerprint": fingerprint,
        **(encoder_options or {}),
    }
    return ActionRecognitionResult(
        columns=tuple(columns),
        options=options,
        num_test_videos=None if judged_videos is None else len(judged_videos),
        seen=seen,
    )


def format_table(result: ActionRecognitionResult) -> Table:
    """Return the result as a table for the terminal: a row a column and k, all numbers in %.

    Args:
        result: What `evaluate_action_recognition` returned.

    Example:
        >>> from rich.console import Console
        >>> Console().print(format_table(result))  # doctest: +SKIP
    """
    has_baseline = any(column.top1.baseline is not None for column in result.columns)
    has_videos = result.num_test_videos is not None
    judged = result.options.get("judged")
    table = Table(
        title="Action recognition, linear probe on frozen features, % [95 % interval]"
        + (f"\n{judged}" if judged else ""),
        caption="\n".join(f"Caution: {caution}" for caution in result.cautions) or None,
    )
    table.add_column("")
    headings = ["encoder", *(("random encoder", "gain") if has_baseline else ()), "majority", "chance", "actions"]
    for heading in (*headings, *(("videos",) if has_videos else ())):
        table.add_column(heading, justify="right")
    for column in result.columns:
        for score in (column.top1, column.top5):
            cells = [f"{column.column} top-{score.k}", str(score.encoder)]
            if has_baseline:
                cells += [str(score.baseline), "" if score.gain is None else score.gain.signed()]
            cells += [str(score.majority), f"{score.chance:.1f}", f"{column.num_test_actions:,}"]
            if has_videos:
                cells.append(f"{column.num_test_videos:,}")
            table.add_row(*cells)
    return table


def _judge(
    column: str,
    num_classes: int,
    class_names: Sequence[str],
    *,
    train_labels: npt.NDArray[np.int64],
    test_labels: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    baseline_scores: npt.NDArray[np.float32] | None,
    videos: npt.NDArray[Any] | None,
) -> ColumnResult:
    """Compare scores with the labels of one column."""
    labelled = test_labels != IGNORED_LABEL
    truth = test_labels[labelled]
    known = train_labels[train_labels != IGNORED_LABEL]
    groups = None if videos is None else videos[labelled]

    def estimate(correct: npt.NDArray[np.bool_]) -> Estimate:
        return Estimate(100.0 * float(correct.mean()), *mean_interval(100.0 * correct, bounds=(0, 100), groups=groups))

    def score(k: int) -> Score:
        correct = top_k_correct(scores[labelled], truth, k)
        baseline = gain = None
        if baseline_scores is not None:
            baseline_correct = top_k_correct(baseline_scores[labelled], truth, k)
            baseline = estimate(baseline_correct)
            gain = Estimate(
                100.0 * float(correct.mean() - baseline_correct.mean()),
                *paired_interval(100.0 * correct, 100.0 * baseline_correct, bounds=(0, 100), groups=groups),
            )
        return Score(
            k=k,
            encoder=estimate(correct),
            baseline=baseline,
            gain=gain,
            majority=estimate(majority_correct(known, truth, k)),
            chance=100.0 * min(k, num_classes) / num_classes,
        )

    first = top_k_correct(scores[labelled], truth, 1)
    baseline_first = None if baseline_scores is None else top_k_correct(baseline_scores[labelled], truth, 1)
    classes = tuple(
        ClassAccuracy(
            name=class_names[label],
            accuracy=100.0 * float(first[truth == label].mean()),
            baseline_accuracy=None if baseline_first is None else 100.0 * float(baseline_first[truth == label].mean()),
            num_actions=int((truth == label).sum()),
        )
        for label in np.unique(truth).tolist()
    )
    num_videos = None if groups is None else len(np.unique(groups))
    return ColumnResult(column, num_classes, len(known), len(truth), num_videos, score(1), score(5), classes)


def _check(
    train_clips: LabelledClips,
    test_clips: LabelledClips,
    num_classes: Mapping[str, int],
    class_names: Mapping[str, Sequence[str]],
    test_videos: Sequence[str] | None,
) -> None:
    """Refuse what does not fit before the long work starts."""
    if not num_classes:
        raise ValueError("no label column to probe")
    for column, classes in num_classes.items():
        if len(class_names.get(column, ())) != classes:
            raise ValueError(f"{column!r} has {classes} classes but {len(class_names.get(column, ()))} class names")
        for split, clips in (("training", train_clips), ("test", test_clips)):
            if column not in clips.labels:
                raise ValueError(f"{split} actions have no label column {column!r}; there are {sorted(clips.labels)}")
            labels = clips.labels[column]
            if labels.max() >= classes or labels.min() < IGNORED_LABEL:
                raise ValueError(f"{split} labels of {column!r} reach from {labels.min()} to {labels.max()}, "
                                 f"need [0, {classes})")  # fmt: skip
            if labels.max() == IGNORED_LABEL:
                raise ValueError(f"no {split} action has a label in column {column!r}")
    num_test_actions = len(test_clips.labels[next(iter(num_classes))])
    if test_videos is not None and len(test_videos) != num_test_actions:
        raise ValueError(f"need one video for each of {num_test_actions} test actions, got {len(test_videos)}")
