"""Action recognition: which verb and which noun a clip shows, read off frozen features by a linear probe.

Path of a sample: clips of annotated actions --features--> --probe--> scores --top-k accuracy--> result.

All test actions are judged, in evaluation mode, over several clips.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch

from earmark.clips.dataset import ActionClips
from earmark.datasets import parent_of
from earmark.evaluation.base import Answers, ClipOptions, RecordCount, Task
from earmark.evaluation.features import LabelledClips, Modality
from earmark.evaluation.metrics import majority_correct, top_k_correct
from earmark.evaluation.probe import IGNORED_LABEL, ProbeOptions
from earmark.evaluation.probing import ProbeAnswers, fit_probe
from earmark.evaluation.results import Row, Score, compare

if TYPE_CHECKING:
    from earmark.clips.store import PreparedStore
    from earmark.datasets.records import DatasetRecords

__all__ = ["ActionRecognition", "ClassAccuracy", "ColumnResult"]


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class ColumnResult:
    """What was measured for one label column.

    Attributes:
        column: Label column, for example "verb".
        num_classes: Number of classes.
        num_train_actions: Training actions with a label.
        num_test_actions: Test actions with a label: what the accuracies are shares of.
        num_test_videos: Videos that these lie in, which the intervals rest on; None where videos were not given.
        top1: Accuracy of the first guess, in %.
        top5: Accuracy of the first five guesses, in %.
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

    def rows(self) -> list[Row]:
        """Return one row for top-1 and one for top-5."""
        return [
            Row(f"{self.column} top-{score.k}", score, self.num_test_actions, self.num_test_videos)
            for score in (self.top1, self.top5)
        ]


@dataclass(frozen=True)
class ActionRecognition(Task[ProbeAnswers, ColumnResult]):
    """The task: linear probes for all label columns at once.

    Attributes:
        train_clips: Labelled clips to train the probe on.
        test_clips: Labelled clips to judge it on; actions without a label in a column do not count there.
        class_names: Names of the classes of each column to probe, by id.
        probe: How the probe is trained.
        train_videos: Video of each training action; None where it is not known.
        test_videos: Video of each test action; None takes the actions as independent.
        records: How many actions were used, and which were not and why.
        modalities: What of a clip is looked at.
    """

    name: ClassVar[str] = "action_recognition"
    title: ClassVar[str] = "Action recognition, linear probe on frozen features, % [95 % interval]"
    sample: ClassVar[str] = "action"

    train_clips: LabelledClips
    test_clips: LabelledClips
    class_names: Mapping[str, Sequence[str]]
    probe: ProbeOptions = field(default_factory=ProbeOptions)
    train_videos: Sequence[str] | None = None
    test_videos: Sequence[str] | None = None
    records: tuple[RecordCount, ...] = ()
    modalities: tuple[Modality, ...] = ("video",)

    @classmethod
    def from_dataset(
        cls,
        dataset: "DatasetRecords",
        store: "PreparedStore",
        *,
        split: str,
        clips: ClipOptions,
        probe: ProbeOptions,
    ) -> Self:
        """Cut the clips of a data set's annotated actions; see `Task.from_dataset`."""

        def cut(part: str, num_clips: int) -> ActionClips:
            return ActionClips(
                store,
                dataset.actions(part),
                clip_seconds=clips.clip_seconds,
                clip_fps=clips.clip_fps,
                num_clips=num_clips,
                random=clips.random,
                audio_seconds=clips.audio_seconds if "audio" in clips.modalities else None,
                pictures="video" in clips.modalities,
            )

        # as many as epochs: drawn anew for each epoch of the probe, as the original code does at each visit
        train = cut("train", probe.epochs if probe.fresh_clips else clips.num_clips)
        test = cut(split, clips.num_clips)
        return cls(
            train_clips=train,
            test_clips=test,
            class_names=dataset.classes,
            probe=probe,
            # actions of one video are not independent, nor are those of its cuts
            train_videos=[parent_of(action.video_id) for action in train.actions],
            test_videos=[parent_of(action.video_id) for action in test.actions],
            modalities=clips.modalities,
            records=tuple(
                RecordCount(part, len(cut.actions), tuple(cut.left_out))
                for part, cut in (("train", train), (split, test))
            ),
        )

    def check(self) -> None:
        """Refuse labels, classes and videos that do not fit together."""
        if not self.class_names:
            raise ValueError("no label column to probe")
        for column, names in self.class_names.items():
            for split, clips in (("training", self.train_clips), ("test", self.test_clips)):
                if column not in clips.labels:
                    raise ValueError(
                        f"{split} actions have no label column {column!r}; there are {sorted(clips.labels)}"
                    )
                labels = clips.labels[column]
                if labels.max() >= len(names) or labels.min() < IGNORED_LABEL:
                    raise ValueError(
                        f"{split} labels of {column!r} reach from {labels.min()} to {labels.max()}, "
                        f"need [0, {len(names)})"
                    )
                if labels.max() == IGNORED_LABEL:
                    raise ValueError(f"no {split} action has a label in column {column!r}")
        for split, clips, videos in (
            ("training", self.train_clips, self.train_videos),
            ("test", self.test_clips, self.test_videos),
        ):
            num_actions = len(next(iter(clips.labels.values())))
            if videos is not None and len(videos) != num_actions:
                raise ValueError(f"need one video for each of {num_actions} {split} actions, got {len(videos)}")

    def scores(
        self,
        train_features: npt.NDArray[np.float32],
        test_features: npt.NDArray[np.float32],
        *,
        seed: int,
        device: torch.device | str,
    ) -> ProbeAnswers:
        """Train a head for each label column; see `earmark.evaluation.probing.fit_probe`."""
        return fit_probe(
            train_features,
            self.train_clips.labels,
            test_features,
            num_classes={column: len(names) for column, names in self.class_names.items()},
            train_videos=self.train_videos,
            options=self.probe,
            seed=seed,
            device=device,
        )

    def measure(self, answers: Sequence[Answers[ProbeAnswers]]) -> tuple[ColumnResult, ...]:
        """Return top-1 and top-5 accuracy of each label column, and the accuracy of each class."""
        baseline = [answer.baseline.scores for answer in answers if answer.baseline is not None]
        return tuple(
            self._measure_column(
                column,
                [answer.encoder.scores[column] for answer in answers],
                [scores[column] for scores in baseline],
            )
            for column in self.class_names
        )

    def options(self) -> dict[str, Any]:
        """Return the options of the probe, and the number of clips per action."""
        return {
            "probe": dataclasses.asdict(self.probe),
            "train_clips_per_action": _clips_per_action(self.train_clips),
            "test_clips_per_action": _clips_per_action(self.test_clips),
        }

    def _measure_column(
        self,
        column: str,
        scores: Sequence[npt.NDArray[np.float32]],
        baseline_scores: Sequence[npt.NDArray[np.float32]],
    ) -> ColumnResult:
        names = self.class_names[column]
        labelled = self.test_clips.labels[column] != IGNORED_LABEL
        truth = self.test_clips.labels[column][labelled]
        train_labels = self.train_clips.labels[column]
        known = train_labels[train_labels != IGNORED_LABEL]
        videos = None if self.test_videos is None else np.asarray(self.test_videos)[labelled]

        def right(of: Sequence[npt.NDArray[np.float32]], k: int) -> npt.NDArray[np.bool_]:
            return np.stack([top_k_correct(of_seed[labelled], truth, k) for of_seed in of])

        top1, top5 = (
            compare(
                right(scores, k),
                baseline=right(baseline_scores, k) if baseline_scores else None,
                majority=majority_correct(known, truth, k),
                chance=100.0 * min(k, len(names)) / len(names),
                videos=videos,
                k=k,
            )
            for k in (1, 5)
        )
        first = right(scores, 1)
        baseline_first = right(baseline_scores, 1) if baseline_scores else None

        def class_accuracy(label: int) -> ClassAccuracy:
            of_class = truth == label
            baseline = None if baseline_first is None else 100.0 * float(baseline_first[:, of_class].mean())
            return ClassAccuracy(names[label], 100.0 * float(first[:, of_class].mean()), baseline, int(of_class.sum()))

        classes = tuple(class_accuracy(label) for label in np.unique(truth).tolist())
        num_videos = None if videos is None else len(np.unique(videos))
        return ColumnResult(column, len(names), len(known), len(truth), num_videos, top1, top5, classes)


def _clips_per_action(clips: LabelledClips) -> int:
    return len(clips) // len(next(iter(clips.labels.values())))
