"""Action recognition: which verb and which noun a clip shows, read off frozen features by a linear probe.

Path of a sample: clips of annotated actions --features--> --probe--> scores --top-k accuracy--> result.

All test actions are judged, in evaluation mode, over several clips.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from rich.table import Table

from earmark.clips.action_clips import ActionClips
from earmark.datasets import parents_in
from earmark.evaluation.action_parts import action_parts
from earmark.evaluation.action_results import ACTION_COLUMNS, ClassAccuracy, ColumnResult, measure_actions
from earmark.evaluation.action_submissions import write_action_submission
from earmark.evaluation.base import Answers, ClipOptions, RecordCount, Task
from earmark.evaluation.features import LabelledClips, Modality
from earmark.evaluation.probe import IGNORED_LABEL, ProbeOptions
from earmark.evaluation.probing import ProbeAnswers, fit_probe
from earmark.evaluation.results import TaskResult, format_table
from earmark.evaluation.submission_files import SupervisionLevels
from earmark.wording import counted

if TYPE_CHECKING:
    from earmark.clips.store import PreparedStore
    from earmark.datasets.records import DatasetRecords

__all__ = ["ActionRecognition", "ClassAccuracy", "ColumnResult"]

MAX_NAMED = 5  # segments in a sentence
PROBES = {
    "linear": "linear probe on frozen features",
    "attentive": "attentive probe on frozen feature maps",
    "knn": "nearest neighbours of frozen features",
}


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
        parts: Which test actions belong to parts that are judged by themselves; see
            `earmark.evaluation.action_parts.action_parts`.
        test_ids: Name of each test action; for a submission.
        segment_ids: Names of all actions of the split, those without clips too, in the order of the annotations.
    """

    name: ClassVar[str] = "action_recognition"
    title: ClassVar[str] = "Action recognition from frozen features, % [95 % interval]"
    sample: ClassVar[str] = "action"

    train_clips: LabelledClips
    test_clips: LabelledClips
    class_names: Mapping[str, Sequence[str]]
    probe: ProbeOptions = field(default_factory=ProbeOptions)
    train_videos: Sequence[str] | None = None
    test_videos: Sequence[str] | None = None
    records: tuple[RecordCount, ...] = ()
    modalities: tuple[Modality, ...] = ("video",)
    parts: Mapping[str, Mapping[str, npt.NDArray[np.bool_]]] = field(default_factory=dict)
    test_ids: Sequence[str] = ()
    segment_ids: Sequence[str] = ()

    @property
    def is_labelled(self) -> bool:
        """Whether the test actions have labels; those of a challenge are held back."""
        return bool(self.test_clips.labels)

    @property
    def head(self) -> str:
        """What answers, in words."""
        return PROBES[self.probe.kind]

    @property
    def needs_tokens(self) -> bool:
        """Of the attentive probe, which weighs places and times itself."""
        return self.probe.kind == "attentive"

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
        actions = {part: dataset.actions(part) for part in ("train", split)}

        def cut(part: str, num_clips: int) -> ActionClips:
            return ActionClips(
                store,
                actions[part],
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
        parent = parents_in(dataset)
        return cls(
            train_clips=train,
            test_clips=test,
            class_names=dataset.classes,
            probe=probe,
            # actions of one video are not independent, nor are those of its cuts
            train_videos=[parent(action.video_id) for action in train.actions],
            test_videos=[parent(action.video_id) for action in test.actions],
            modalities=clips.modalities,
            parts=action_parts(dataset, test.actions, split) if test.labels else {},
            test_ids=[action.action_id for action in test.actions],
            segment_ids=[action.action_id for action in actions[split]],
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
            labelled = {"training": self.train_clips} | ({"test": self.test_clips} if self.is_labelled else {})
            for split, clips in labelled.items():
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
            num_actions = int(clips.action_of_item.max()) + 1
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
        """Return the accuracies of each label column and of the action; see `measure_actions`."""
        return measure_actions(
            [answer.encoder for answer in answers],
            [answer.baseline for answer in answers if answer.baseline is not None],
            class_names=self.class_names,
            train_labels=self.train_clips.labels,
            test_labels=self.test_clips.labels,
            test_videos=self.test_videos,
            parts=self.parts,
        )

    def options(self) -> dict[str, Any]:
        """Return the options of the probe, and the number of clips per action."""
        return {
            "probe": dataclasses.asdict(self.probe),
            "train_clips_per_action": _clips_per_action(self.train_clips),
            "test_clips_per_action": _clips_per_action(self.test_clips),
        }

    def write_submission(self, path: Path, scores: ProbeAnswers, *, levels: SupervisionLevels) -> tuple[str, ...]:
        """Write the file of EPIC-KITCHENS-100's action recognition challenge; see `Task.write_submission`.

        The server takes a file of all segments or none. A segment without clips, as of a video that is missing, gets
        the shares of the classes among the training actions, and is named: better than to lose the others for it.
        """
        missing_columns = [column for column in ACTION_COLUMNS if column not in self.class_names]
        if missing_columns or not self.segment_ids:
            raise ValueError(
                f"a submission needs named actions with verb and noun; this data set has no {missing_columns}"
            )
        places = {name: place for place, name in enumerate(self.test_ids)}
        without = [name for name in self.segment_ids if name not in places]
        matrices = []
        for column in ACTION_COLUMNS:
            labels = self.train_clips.labels[column]
            counts = np.bincount(labels[labels != IGNORED_LABEL], minlength=len(self.class_names[column])) + 1.0
            rows = np.tile(np.log(counts / counts.sum()), (len(self.segment_ids), 1))
            has_clips = [number for number, name in enumerate(self.segment_ids) if name in places]
            rows[has_clips] = scores.scores[column][[places[self.segment_ids[number]] for number in has_clips]]
            matrices.append(rows)
        write_action_submission(
            path,
            "action_recognition",
            segment_ids=self.segment_ids,
            verb_scores=matrices[0],
            noun_scores=matrices[1],
            levels=levels,
        )
        if not without:
            return ()
        named = ", ".join(without[:MAX_NAMED]) + (" and others" if len(without) > MAX_NAMED else "")
        return (
            f"{counted(len(without), 'segment')} of {len(self.segment_ids):,} without clips have the shares of the "
            f"classes in training for an answer: {named}",
        )

    def table(self, result: TaskResult[ColumnResult]) -> Table:
        """Return a result as a table for the terminal, named by the kind of the probe."""
        title = f"Action recognition, {self.head}, % [95 % interval]"
        return format_table(result, title=title, samples=f"{self.sample}s")


def _clips_per_action(clips: LabelledClips) -> int:
    return len(clips) // (int(clips.action_of_item.max()) + 1)
