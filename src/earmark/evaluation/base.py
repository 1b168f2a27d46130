"""What a task is, and the one way in which every task is judged.

Path of a sample: labelled clips --features--> --head of the task--> scores --its metrics--> a result with intervals,
beside a random encoder and the majority class --> table, json, page.

A task says which clips it is about, how scores are made from features, and what is measured. All else is here: both
encoders get the same clips, the same head and the same seed, features are computed once and kept, and test videos that
were used before are counted.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from rich.table import Table
from torch import nn

from earmark.evaluation.features import FeatureOptions, LabelledClips, extract_features
from earmark.evaluation.probe import ProbeOptions
from earmark.evaluation.results import Target, TaskResult, format_table, seen_among

if TYPE_CHECKING:
    from earmark.clips.store import PreparedStore
    from earmark.datasets.records import DatasetRecords

__all__ = ["ClipOptions", "RecordCount", "Task", "evaluate_task"]

Scores = TypeVar("Scores")


@dataclass(frozen=True, slots=True)
class ClipOptions:
    """Which clips of a sample are shown to the encoder.

    Attributes:
        clip_seconds: Length of a clip.
        clip_fps: Its frames per second.
        num_clips: Clips of each sample.
        random: Draw their places from the seed in place of spreading them evenly.
    """

    clip_seconds: float = 0.5
    clip_fps: float = 16.0
    num_clips: int = 1
    random: bool = False


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
    """

    name: ClassVar[str]
    title: ClassVar[str]
    sample: ClassVar[str]
    train_clips: LabelledClips
    test_clips: LabelledClips
    train_videos: Sequence[str] | None
    test_videos: Sequence[str] | None
    records: tuple[RecordCount, ...]

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
            train_features: float32 ``(N_train, clips, D)``.
            test_features: float32 ``(N_test, clips, D)``.
            seed: Of everything that the head draws.
            device: Where to train.
        """

    @abstractmethod
    def measure(self, scores: Scores, baseline_scores: Scores | None) -> tuple[Target, ...]:
        """Return the numbers of each target, with intervals (see `earmark.evaluation.results.compare`).

        Args:
            scores: Of the head on the judged encoder's features.
            baseline_scores: Of the head on the baseline encoder's; None without one.
        """

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Return how it is measured, as plain data for the result: options of the head, clips per sample."""

    def table(self, result: TaskResult[Target]) -> Table:
        """Return a result as a table for the terminal.

        Args:
            result: Of this task.
        """
        return format_table(result, title=self.title, samples=f"{self.sample}s")


def evaluate_task(
    task: Task[Scores, Target],
    encoder: nn.Module,
    *,
    transform: nn.Module,
    baseline_encoder: nn.Module | None = None,
    features: FeatureOptions | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    seen_videos: Mapping[str, Collection[str] | None] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> TaskResult[Target]:
    """Judge a frozen encoder by a task, beside a baseline encoder and the majority class.

    Both encoders get the same clips, the same head and the same seed, and are compared sample by sample.

    Args:
        task: What is asked of the encoder.
        encoder: Maps ``(B, 3, T, H, W)`` float to ``(B, D)``; see `extract_features` for what happens to it.
        transform: Called as ``transform(video, seed, video_size)``.
        baseline_encoder: For example the same architecture, randomly initialised.
        features: How features are computed and kept; None for the defaults.
        device: Where encoder and head run.
        seed: Of clips that draw, and of the head.
        seen_videos: Videos by what used them before, such as ``{"pretraining saw": ids}``; None for ids that are not
            known. The result counts the test videos among them, and among those that the head was trained on.
        facts: What else the result's options say, such as which weights of a checkpoint the encoder has; plain data.

    Returns:
        Numbers, intervals and counts.

    Raises:
        ValueError: If labels, classes and clips do not fit together, or features are not finite.
        TypeError: If features are to be cached, and encoder, clips or transform do not say what they depend on.
    """
    task.check()

    def scores(judged: nn.Module, name: str) -> Scores:
        parts = {"training": task.train_clips, "test": task.test_clips}
        train, test = (
            extract_features(
                judged,
                clips,
                transform=transform,
                options=features,
                device=device,
                seed=seed,
                label=f"features: {name}, {part} {task.sample}s",
            )
            for part, clips in parts.items()
        )
        return task.scores(train, test, seed=seed, device=device)

    encoder_scores = scores(encoder, "encoder")
    baseline_scores = scores(baseline_encoder, "random encoder") if baseline_encoder is not None else None
    trained_on = {} if task.train_videos is None else {"the probe was trained on": set(task.train_videos)}
    units = f"{task.sample}s, taken as independent" if task.test_videos is None else "videos"
    return TaskResult(
        columns=task.measure(encoder_scores, baseline_scores),
        options={
            **task.options(),
            "interval": f"95 %, Wilson's with Student's t over {units}",
            "seed": seed,
            **(facts or {}),
        },
        num_test_videos=None if task.test_videos is None else len(set(task.test_videos)),
        seen=seen_among(task.test_videos, {**trained_on, **(seen_videos or {})}),
    )
