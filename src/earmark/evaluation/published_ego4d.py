"""Action recognition on Ego4D as the paper's numbers were made, for comparison with them.

Path of a sample: one random clip of each annotated action --encoder and classifiers, trained end to end--> scores
--mean over batches--> numbers.

The original fine-tunes with one learning rate for encoder and classifiers along a cosine, sees of each validation
action one clip of 32 frames at every other frame of 30 per second, at a place and with a crop that are drawn at random,
and averages the accuracies of batches of 32: the last batch, which is smaller, counts as much as the others. All of
that is done here, on purpose; `earmark.evaluation.fine_tuned_recognition` is what to go by. Not done is the warm-up of
the learning rate, whose length is not published; that crops in testing have the sizes of those in training is assumed.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import nn

from earmark.evaluation.action_results import ColumnResult, measure_actions
from earmark.evaluation.base import Answers, ClipOptions, Setting
from earmark.evaluation.features import Modality
from earmark.evaluation.fine_tuned_recognition import FineTunedActionRecognition
from earmark.evaluation.fine_tuning import FineTuningOptions
from earmark.evaluation.probe import ProbeOptions
from earmark.evaluation.probing import ProbeAnswers
from earmark.wording import counted

if TYPE_CHECKING:
    from earmark.clips.store import PreparedStore
    from earmark.datasets.records import DatasetRecords

__all__ = ["PUBLISHED_FINE_TUNING", "PublishedEgo4DRecognition", "published_clip"]

CLIP_SECONDS = 32 * 2 / 30
BATCH_SIZE = 32  # over which accuracies are averaged
PUBLISHED_FINE_TUNING = FineTuningOptions(backbone_lr_factor=1.0, batch_size=BATCH_SIZE)


def published_clip(store_fps: float) -> tuple[float, float]:
    """Return length and rate of the clip nearest to the published one, of 32 frames at 15 per second.

    Args:
        store_fps: Frames per second of the prepared videos, whose parts the rate must be.

    Returns:
        Seconds, a whole number of frames, and frames per second.

    Example:
        >>> published_clip(16), published_clip(30), published_clip(60)
        ((2.125, 16.0), (2.1333333333333333, 15.0), (2.1333333333333333, 15.0))
    """
    fps = min((store_fps / part for part in range(1, max(2, round(store_fps)))), key=lambda rate: abs(rate - 15))
    return round(CLIP_SECONDS * fps) / fps, float(fps)


@dataclass(frozen=True)
class PublishedEgo4DRecognition(FineTunedActionRecognition):
    """The task by the published protocol; see above. One seed, the video encoder alone.

    Attributes:
        test_transforms: For each modality, what makes the inputs in testing, such as random crops; those of the setting
            where there is none.
        protocol: What was judged, in words.
    """

    title: ClassVar[str] = "Action recognition by the published protocol, % [95 % interval]"

    fine_tuning: FineTuningOptions = PUBLISHED_FINE_TUNING
    test_transforms: Mapping[Modality, nn.Module] = field(default_factory=dict)
    protocol: str = ""

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
        """Cut one clip, at a place that each visit draws, of each action; see `Task.from_dataset`."""
        seconds, fps = published_clip(store.fps)
        one = dataclasses.replace(clips, clip_seconds=seconds, clip_fps=fps, num_clips=1, random=True)
        task = super().from_dataset(dataset, store, split=split, clips=one, probe=probe)
        return dataclasses.replace(
            task,
            protocol=f"mean over batches of {BATCH_SIZE} of {counted(len(task.test_ids), 'action')}, one random clip "
            f"of {seconds:.3f} s and one random crop each, encoder fine-tuned, one seed",
        )

    def options(self) -> dict[str, Any]:
        """Return those of fine-tuning, and what was judged."""
        return {**super().options(), "protocol": self.protocol}

    def answer(self, encoders: Mapping[Modality, nn.Module], setting: Setting, *, label: str) -> list[ProbeAnswers]:
        """Fine-tune a copy of the encoder, and answer from one random crop of each action."""
        drawn = dataclasses.replace(setting, transforms={**setting.transforms, **self.test_transforms})
        return super().answer(encoders, drawn, label=f"{label}, by the published protocol")

    def measure(self, answers: Sequence[Answers[ProbeAnswers]]) -> tuple[ColumnResult, ...]:
        """Return the means over batches of the accuracies of each label column and of the action."""
        return measure_actions(
            [answer.encoder for answer in answers],
            [answer.baseline for answer in answers if answer.baseline is not None],
            class_names=self.class_names,
            train_labels=self.train_clips.labels,
            test_labels=self.test_clips.labels,
            test_videos=self.test_videos,
            batch_size=BATCH_SIZE,
        )
