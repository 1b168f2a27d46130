"""What tasks about moments share: which moments they are judged on, and the clips around them.

Path of a sample: store, its moments --choice--> clips before and after, sound --encoders--> features of the task.

Nothing here needs an annotation; a task that has a use for what the test moments show names the label column.
"""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self, TypeVar

import numpy as np
import numpy.typing as npt
from torch import nn

from earmark.clips.moment_pairs import MomentPairs
from earmark.datasets import parents_in
from earmark.evaluation.base import ClipOptions, RecordCount, Setting, Task
from earmark.evaluation.features import Features, Modality, extract_features
from earmark.evaluation.own_heads import ProjectionHeads
from earmark.evaluation.probe import IGNORED_LABEL, ProbeOptions
from earmark.evaluation.results import Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark.clips.store import PreparedStore
    from earmark.datasets.records import DatasetRecords

__all__ = ["GALLERY_SIZE", "MomentTask"]

GALLERY_SIZE = 1000

Scores = TypeVar("Scores")


@dataclass(frozen=True)
class MomentTask(Task[Scores, Target]):
    """A task on the clips before and after moments, and perhaps on their sound.

    Attributes:
        label_column: What annotated actions name of the moments that they cover; empty where that is not asked.
        train_clips: Training moments.
        test_clips: Test moments.
        class_names: Names of the labels by id; empty where none are annotated, or none asked for.
        probe: Of which the share of held-out videos is used.
        train_videos: Video of each training moment.
        test_videos: Video of each test moment; None takes the moments as independent.
        records: How many moments were used, and which were not and why.
        modalities: What of a moment is looked at.
        heads: Those of the judged checkpoint.
    """

    label_column: ClassVar[str] = ""
    sample: ClassVar[str] = "moment"

    train_clips: MomentPairs
    test_clips: MomentPairs
    class_names: "Sequence[str]" = ()
    probe: ProbeOptions = dataclasses.field(default_factory=ProbeOptions)
    train_videos: "Sequence[str] | None" = None
    test_videos: "Sequence[str] | None" = None
    records: tuple[RecordCount, ...] = ()
    modalities: tuple[Modality, ...] = ("video", "audio")
    heads: ProjectionHeads | None = None

    @classmethod
    def from_dataset(
        cls,
        dataset: "DatasetRecords",
        store: "PreparedStore",
        *,
        split: str,
        clips: ClipOptions,
        probe: ProbeOptions,
        gap_seconds: float = 0.1,
        max_moments: int = GALLERY_SIZE,
        seed: int = 0,
        heads: ProjectionHeads | None = None,
    ) -> Self:
        """Choose moments and cut their clips; see `Task.from_dataset`.

        Args:
            dataset: Which videos are parts of one; its annotated actions name what the moments show, where the task has
                a use for it, and are not needed.
            store: The prepared videos with their moments.
            split: Split to judge on; what is fitted is fitted on ``train``.
            clips: Length and rate of the clips, and the length of the sound where it is heard.
            probe: How much is held out.
            gap_seconds: Time between the moment and each clip.
            max_moments: How many moments of the split there are at most.
            seed: Of their choice.
            heads: Those of the judged checkpoint.

        Raises:
            ValueError: If there is no usable moment.
        """
        is_named = bool(cls.label_column) and cls.label_column in dataset.classes
        train, test = (
            MomentPairs(
                store,
                split=part,
                clip_seconds=clips.clip_seconds,
                clip_fps=clips.clip_fps,
                gap_seconds=gap_seconds,
                audio_seconds=clips.audio_seconds if cls.hears(heads) else None,
                max_moments=most,
                seed=seed,
                actions=dataset.actions(part) if is_named else (),
            )
            for part, most in (("train", None), (split, max_moments))
        )
        parent = parents_in(dataset)  # moments of one video are not independent, nor are those of its cuts
        return cls(
            train_clips=train,
            test_clips=test,
            class_names=dataset.classes[cls.label_column] if is_named else (),
            probe=probe,
            train_videos=[parent(video_id) for video_id in train.video_ids],
            test_videos=[parent(video_id) for video_id in test.video_ids],
            records=tuple(
                RecordCount(part, len(cut.video_ids), tuple(cut.left_out))
                for part, cut in (("train", train), (split, test))
            ),
            heads=heads,
        )

    @classmethod
    def hears(cls, heads: ProjectionHeads | None) -> bool:
        """Return whether the sound of the moments is read.

        Args:
            heads: Those of the judged checkpoint.
        """
        return True

    def check(self) -> None:
        """Refuse moments without videos to hold out, and labels that are no class."""
        if self.train_videos is None or len(self.train_videos) != len(self.train_clips.video_ids):
            raise ValueError(f"need the video of each of {len(self.train_clips.video_ids)} training moments")
        for clips in (self.train_clips, self.test_clips):
            largest = int(self.labels_of(clips).max())
            if largest >= max(1, len(self.class_names)):
                raise ValueError(
                    f"labels of {self.label_column!r} reach to {largest}, need [0, {len(self.class_names)})"
                )

    def labels_of(self, clips: MomentPairs) -> npt.NDArray[np.int64]:
        """Return what moments show, ``(N,)``; -1 where no annotated action covers one.

        Args:
            clips: Of the moments.
        """
        return clips.labels.get(self.label_column, np.full(len(clips.video_ids), IGNORED_LABEL, np.int64))

    def features(
        self, encoder: nn.Module, clips: MomentPairs, setting: Setting, *, modality: Modality, label: str
    ) -> Features:
        """Return the features of moments: ``(N, 2, D)`` of the clips before and after, ``(N, 1, D)`` of the sound.

        Args:
            encoder: Of the modality.
            clips: Of the moments.
            setting: With what it is judged.
            modality: Pictures or sound.
            label: How the progress bar calls encoder and moments.
        """
        return extract_features(
            encoder,
            clips,
            transform=setting.transforms[modality],
            modality=modality,
            options=setting.features,
            device=setting.device,
            seed=setting.seed,
            label=f"features: {label} moments, {modality}",
        )
