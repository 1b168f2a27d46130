"""What a task is, and the one way in which every task is judged.

Path of a sample: labelled clips --features--> --head of the task--> scores --its metrics--> a result with intervals,
beside a random encoder and the majority class --> table, json, page.

A task says which clips it is about, how scores are made from features, and what is measured. All else is here: both
encoders get the same clips, the same head and the same seeds, features are computed once and kept, and test videos that
were used before are counted. Where an encoder of pictures and one of sound are judged together, a clip's features are
those of the one and then those of the other, as in the paper's rows "+A".
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from rich.table import Table
from torch import nn

from earmark.evaluation.features import FeatureOptions, Features, LabelledClips, Modality, extract_features
from earmark.evaluation.probe import ProbeOptions
from earmark.evaluation.results import Target, TaskResult, format_table, seen_among

if TYPE_CHECKING:
    from earmark.clips.store import PreparedStore
    from earmark.datasets.records import DatasetRecords
    from earmark.evaluation.submission_files import SupervisionLevels

__all__ = [
    "Answers",
    "ClipOptions",
    "Judgement",
    "RecordCount",
    "Setting",
    "Task",
    "WithoutFeatures",
    "answer_task",
    "evaluate_task",
    "joined_features",
]

Scores = TypeVar("Scores")


@dataclass(frozen=True, slots=True)
class ClipOptions:
    """Which clips of a sample are shown to the encoder.

    Attributes:
        clip_seconds: Length of a clip.
        clip_fps: Its frames per second.
        num_clips: Clips of each sample.
        random: Draw their places from the seed in place of spreading them evenly.
        modalities: What of a clip is looked at; the features of several are joined in this order.
        audio_seconds: Length of the sound, centred on the clip; of anticipation, that before the clip's end.
        observed_seconds: Of anticipation, how far back from the end of what is observed the first clip begins.
    """

    clip_seconds: float = 0.5
    clip_fps: float = 16.0
    num_clips: int = 1
    random: bool = False
    modalities: tuple[Modality, ...] = ("video",)
    audio_seconds: float = 2.0
    observed_seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class RecordCount:
    """How many records of a split a task could use.

    Attributes:
        split: The split.
        num_used: Records that there are clips of.
        left_out: Id and reason of each other one.
    """

    split: str
    num_used: int
    left_out: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Answers(Generic[Scores]):
    """What heads trained with one seed answer to the test samples.

    Attributes:
        seed: Of the heads.
        encoder: Scores of the head on the judged encoders' features.
        baseline: Of the head on the baseline encoders'; None without them.
    """

    seed: int
    encoder: Scores
    baseline: Scores | None


@dataclass(frozen=True, slots=True)
class Setting:
    """With what encoders are judged.

    Attributes:
        transforms: For each modality, what makes the encoder's inputs, as `extract_features` calls it.
        features: How features are computed and kept.
        device: Where encoders and heads run.
        seed: Of clips that draw, and of the first head.
        num_seeds: How many heads are trained, with ``seed`` and the numbers after it.
    """

    transforms: Mapping[Modality, nn.Module]
    features: FeatureOptions = field(default_factory=FeatureOptions)
    device: torch.device | str = "cpu"
    seed: int = 0
    num_seeds: int = 1

    @property
    def seeds(self) -> range:
        """Those of the heads."""
        return range(self.seed, self.seed + self.num_seeds)


@dataclass(frozen=True, slots=True)
class Judgement(Generic[Scores, Target]):
    """What came of judging encoders by a task.

    Attributes:
        result: The numbers.
        answers: What they were measured on, for each seed.
    """

    result: TaskResult[Target]
    answers: tuple[Answers[Scores], ...]


class Task(ABC, Generic[Scores, Target]):
    """One task on one data set: the clips, the head on frozen features, the metrics.

    A new task is a subclass with the abstract methods below, and a line in `earmark.evaluation.TASKS`;
    `earmark.evaluation.action_recognition.ActionRecognition` is the example. What is chosen by trying (a learning rate,
    an epoch) is chosen in `scores`, on training videos held out there by `train_videos`, never by what `measure` finds.

    Attributes:
        name: Key in `earmark.evaluation.TASKS`.
        title: Heading of the table: what is measured, how, in which unit.
        sample: What one sample is called, in the singular.
        train_clips: Clips to train the head on.
        test_clips: Clips to judge it on.
        train_videos: Video of each training sample; None where it is not known.
        test_videos: Video of each test sample; the intervals are then for other videos, not for other samples of these.
        records: How many records were used, and which were not and why.
        modalities: What of a clip is looked at.
        needs_tokens: Whether the head takes the feature maps before the pool, and not the pooled features.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    sample: ClassVar[str]
    train_clips: LabelledClips
    test_clips: LabelledClips
    train_videos: Sequence[str] | None
    test_videos: Sequence[str] | None
    records: tuple[RecordCount, ...]
    modalities: tuple[Modality, ...]

    @property
    def needs_tokens(self) -> bool:
        """See above."""
        return False

    @property
    def is_labelled(self) -> bool:
        """Whether the test samples have labels, so that there is something to measure."""
        return True

    @classmethod
    @abstractmethod
    def from_dataset(
        cls,
        dataset: "DatasetRecords",
        store: "PreparedStore",
        *,
        split: str,
        clips: ClipOptions,
        probe: ProbeOptions,
    ) -> Self:
        """Cut the clips of a data set's records.

        Args:
            dataset: Records and classes.
            store: Its prepared videos.
            split: Split to judge on; the head is trained on ``train``.
            clips: Which clips.
            probe: How the head is trained.

        Raises:
            ValueError: If no record is usable.
        """

    @abstractmethod
    def check(self) -> None:
        """Refuse what does not fit, before the long work starts.

        Raises:
            ValueError: If labels, classes and clips do not fit together.
        """

    @abstractmethod
    def scores(
        self,
        train_features: npt.NDArray[np.float32],
        test_features: npt.NDArray[np.float32],
        *,
        seed: int,
        device: torch.device | str,
    ) -> Scores:
        """Train the head on the training features and return its answers to the test samples.

        Args:
            train_features: float32 ``(N_train, clips, D)``; those of several modalities one after another in D. Where
                ``needs_tokens``, float16 ``(N_train, clips, tokens, D)``, perhaps memory-mapped.
            test_features: The same of the test samples.
            seed: Of everything that the head draws.
            device: Where to train.
        """

    def answer(self, encoders: Mapping[Modality, nn.Module], setting: Setting, *, label: str) -> list[Scores]:
        """Return what heads on some encoders answer to the test samples, one for each seed.

        Features are computed once for all of them. Tasks whose encoders change while the head is trained do it in
        another way.

        Args:
            encoders: One for each of the task's modalities.
            setting: With what they are judged.
            label: How progress bars call them.
        """
        train, test = (
            joined_features(encoders, clips, task=self, setting=setting, label=f"{label}, {part} {self.sample}s")
            for part, clips in (("training", self.train_clips), ("test", self.test_clips))
        )
        return [self.scores(train, test, seed=seed, device=setting.device) for seed in setting.seeds]

    def submission_paths(self, path: Path) -> tuple[Path, ...]:
        """Return the files that `write_submission` writes: the one, or one for each of several challenges.

        Args:
            path: As of `write_submission`.
        """
        return (path,)

    def write_submission(self, path: Path, scores: Scores, *, levels: "SupervisionLevels") -> tuple[str, ...]:
        """Write the answers as the file that the task's challenge takes, of all its segments.

        Args:
            path: ``.zip`` for the server, or ``.json``.
            scores: Answers to the test samples.
            levels: What the model was trained on.

        Returns:
            What a reader of the file must know, such as how many segments without features have which answer; one
            sentence each.

        Raises:
            ValueError: If there is no such challenge, or scores are not finite.
            OSError: Naming the file, if it cannot be written.
        """
        raise ValueError(f"task {self.name}: there is no challenge of it to write a file for")

    @abstractmethod
    def measure(self, answers: Sequence[Answers[Scores]]) -> tuple[Target, ...]:
        """Return the numbers of each target, with intervals (see `earmark.evaluation.results.compare`).

        Args:
            answers: Of each seed, at least one. A number is the mean over them, and its interval that of each sample's
                mean over them: other videos, not other seeds.
        """

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Return how it is measured, as plain data for the result: options of the head, clips per sample."""

    def also_measured(self, result: TaskResult[Target]) -> tuple[str, ...]:
        """Return what the rows do not say, such as what was answered without being seen; one sentence each.

        Args:
            result: Of this task.
        """
        return ()

    def table(self, result: TaskResult[Target]) -> Table:
        """Return a result as a table for the terminal.

        Args:
            result: Of this task.
        """
        return format_table(result, title=self.title, samples=f"{self.sample}s")


class WithoutFeatures:
    """What a task says whose heads are not trained on one array of features, so that `Task.answer` is its one way.

    Stands before `Task`, or a task with features, among the bases of a class.
    """

    def scores(
        self,
        train_features: npt.NDArray[np.float32],
        test_features: npt.NDArray[np.float32],
        *,
        seed: int,
        device: torch.device | str,
    ) -> NoReturn:
        """Refuse.

        Raises:
            TypeError: Always.
        """
        raise TypeError(f"{type(self).__name__} has no features beforehand; call answer()")


def evaluate_task(
    task: Task[Scores, Target],
    encoders: Mapping[Modality, nn.Module],
    *,
    transforms: Mapping[Modality, nn.Module],
    baseline_encoders: Mapping[Modality, nn.Module] | None = None,
    features: FeatureOptions | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    num_seeds: int = 1,
    seen_videos: Mapping[str, Collection[str] | None] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Judgement[Scores, Target]:
    """Judge frozen encoders by a task, beside baseline encoders and the majority class.

    All get the same clips, the same head and the same seeds, and are compared sample by sample.

    Args:
        task: What is asked of the encoders.
        encoders: For each of the task's modalities, a module that maps ``(B, 3, T, H, W)`` float, or for sound
            ``(B, 1, frames, F)``, to ``(B, D)``; see `extract_features` for what happens to it.
        transforms: For each modality, what makes their inputs, as `extract_features` calls it.
        baseline_encoders: For example the same architectures, randomly initialised.
        features: How features are computed and kept; None for the defaults.
        device: Where encoders and heads run.
        seed: Of clips that draw, and of the first head.
        num_seeds: How many heads are trained, with ``seed`` and the numbers after it, on the same features.
        seen_videos: Videos by what used them before, such as ``{"pretraining saw": ids}``; None for ids that are not
            known. The result counts the test videos among them, and among those that the head was trained on.
        facts: What else the result's options say, such as which weights of a checkpoint the encoder has; plain data.

    Returns:
        Numbers, intervals and counts, and the answers that they were measured on.

    Raises:
        ValueError: If labels, classes and clips do not fit together, a modality lacks an encoder or a transform, or
            features are not finite.
        TypeError: If features are to be cached, and encoder, clips or transform do not say what they depend on.
    """
    if num_seeds < 1:
        raise ValueError(f"need at least one seed, got {num_seeds}")
    if not task.is_labelled:
        raise ValueError(f"task {task.name}: the test {task.sample}s have no labels to measure by")
    setting = Setting(transforms, features or FeatureOptions(), device, seed, num_seeds)
    for judged in (encoders, baseline_encoders):
        if judged is not None:
            _require_modalities(task, judged, transforms)
    task.check()
    of_encoders = task.answer(encoders, setting, label="encoder")
    of_baseline: Sequence[Scores | None] = [None] * len(of_encoders)
    if baseline_encoders is not None:
        of_baseline = task.answer(baseline_encoders, setting, label="random encoder")
    answers = tuple(Answers(*of_seed) for of_seed in zip(setting.seeds, of_encoders, of_baseline, strict=True))
    trained_on = {} if task.train_videos is None else {"the probe was trained on": set(task.train_videos)}
    units = f"{task.sample}s, taken as independent" if task.test_videos is None else "videos"
    result = TaskResult(
        columns=task.measure(answers),
        options={
            **task.options(),
            "interval": f"95 %, Wilson's with Student's t over {units}",
            "seed": seed,
            "num_seeds": num_seeds,
            **(facts or {}),
        },
        num_test_videos=None if task.test_videos is None else len(set(task.test_videos)),
        seen=seen_among(task.test_videos, {**trained_on, **(seen_videos or {})}),
    )
    return Judgement(result, answers)


def answer_task(task: Task[Scores, Any], encoders: Mapping[Modality, nn.Module], setting: Setting) -> Answers[Scores]:
    """Return the answers to test samples that need not have labels, such as those of a challenge; nothing is measured.

    Args:
        task: What is asked of the encoders.
        encoders: For each of the task's modalities.
        setting: With what they answer; of several seeds the first one's heads do.

    Raises:
        ValueError: As `evaluate_task`.
        TypeError: As `evaluate_task`.
    """
    _require_modalities(task, encoders, setting.transforms)
    task.check()
    scores = task.answer(encoders, replace(setting, num_seeds=1), label="encoder")
    return Answers(setting.seed, scores[0], None)


def _require_modalities(
    task: Task[Any, Any], encoders: Mapping[Modality, nn.Module], transforms: Mapping[Modality, nn.Module]
) -> None:
    for what, given in (("encoder", encoders), ("transform", transforms)):
        missing = [modality for modality in task.modalities if modality not in given]
        if missing:
            raise ValueError(f"task {task.name}: no {what} for {' and '.join(missing)}")


def joined_features(
    encoders: Mapping[Modality, nn.Module],
    clips: LabelledClips,
    *,
    task: Task[Any, Any],
    setting: Setting,
    label: str = "",
) -> Features:
    """Return the features that a task's head is shown, those of a clip's encoders one after another.

    Args:
        encoders: By modality.
        clips: Whose features.
        task: Which modalities it looks at, and whether at feature maps before the pool.
        setting: With what they are computed and kept.
        label: What the progress bar says behind "features".

    Returns:
        Shape ``(N, clips, D)``, D the sum of the encoders' own; ``(N, clips, tokens, D)`` of tokens.

    Raises:
        ValueError: As `extract_features`, or if feature maps of several modalities are asked for: theirs have no places
            in common.
    """
    modalities = task.modalities
    if task.needs_tokens and len(modalities) > 1:
        raise ValueError(
            f"feature maps of {' and '.join(modalities)} cannot be joined place by place; take one of them"
        )
    arrays = [
        extract_features(
            encoders[modality],
            clips,
            transform=setting.transforms[modality],
            modality=modality,
            tokens=task.needs_tokens,
            options=setting.features,
            device=setting.device,
            seed=setting.seed,
            label=f"features: {label}" + (f", {modality}" if len(modalities) > 1 else ""),
        )
        for modality in modalities
    ]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)
