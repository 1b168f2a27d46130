"""Recognition with an encoder that is trained on: how good a start its weights are, for actions and for sounds.

Path of a sample: clips of annotated actions --encoder and classifiers, trained end to end--> scores --> numbers.

The clips, the numbers and the challenge's file are those of the tasks with a probe; a clip of each training action is
drawn anew in each epoch.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import nn

from earmark.clips.action_clips import ActionClips
from earmark.datasets import sounds_of
from earmark.evaluation.action_recognition import ActionRecognition
from earmark.evaluation.base import ClipOptions, Setting, WithoutFeatures
from earmark.evaluation.features import Modality
from earmark.evaluation.fine_tuned_answers import fine_tuned_answers, fine_tuned_options, require_one_modality
from earmark.evaluation.fine_tuning import FineTuningOptions
from earmark.evaluation.probe import ProbeOptions
from earmark.evaluation.probing import ProbeAnswers
from earmark.evaluation.sound_recognition import COLUMN, SoundRecognition, sound_windows

if TYPE_CHECKING:
    from earmark.clips.store import PreparedStore
    from earmark.datasets.records import DatasetRecords

__all__ = ["FineTunedActionRecognition", "FineTunedSoundRecognition"]


@dataclass(frozen=True)
class FineTunedActionRecognition(WithoutFeatures, ActionRecognition):
    """The task with a copy of the encoder that is fine-tuned, of one modality alone.

    A training action shows a clip at another place in each epoch; test actions are judged as by the probes.

    Attributes:
        fine_tuning: How it is trained.
        train_transforms: For each modality, what makes the inputs in training, such as random crops; those of the
            setting where there is none.
    """

    title: ClassVar[str] = "Action recognition, fine-tuned encoder, % [95 % interval]"

    fine_tuning: FineTuningOptions = field(default_factory=FineTuningOptions)
    train_transforms: Mapping[Modality, nn.Module] = field(default_factory=dict)

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
        """Cut the clips of a data set's annotated actions; see `Task.from_dataset`. ``probe`` is not used."""
        task = super().from_dataset(dataset, store, split=split, clips=clips, probe=ProbeOptions())
        train = ActionClips(
            store,
            dataset.actions("train"),
            clip_seconds=clips.clip_seconds,
            clip_fps=clips.clip_fps,
            random=True,
            audio_seconds=clips.audio_seconds if "audio" in clips.modalities else None,
            pictures="video" in clips.modalities,
        )
        return dataclasses.replace(task, train_clips=train)

    @property
    def head(self) -> str:
        """What answers, in words."""
        return "fine-tuned encoder"

    def check(self) -> None:
        """Refuse what does not fit together, and several modalities."""
        super().check()
        require_one_modality(self.modalities)

    def options(self) -> dict[str, Any]:
        """Return how it is trained, and the number of clips of each action."""
        return fine_tuned_options(super().options(), self.fine_tuning)

    def answer(self, encoders: Mapping[Modality, nn.Module], setting: Setting, *, label: str) -> list[ProbeAnswers]:
        """Fine-tune a copy of the encoder with each seed."""
        num_classes = {column: len(names) for column, names in self.class_names.items()}
        return fine_tuned_answers(self, encoders, setting, num_classes, label)


@dataclass(frozen=True)
class FineTunedSoundRecognition(WithoutFeatures, SoundRecognition):
    """The task with a copy of the encoder that is fine-tuned, of one modality alone.

    A training sound is heard through a window, in each epoch at another place if the sound is longer; a test sound
    through windows spread over it, whose probabilities are averaged, where the probe's logarithms are summed.

    Attributes:
        fine_tuning: How it is trained.
        train_transforms: For each modality, what makes the inputs in training; those of the setting where there is
            none.
    """

    title: ClassVar[str] = "EPIC-SOUNDS recognition, fine-tuned encoder, % [95 % interval]"

    fine_tuning: FineTuningOptions = field(default_factory=FineTuningOptions)
    train_transforms: Mapping[Modality, nn.Module] = field(default_factory=dict)

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
        """Cut the windows of the annotated sounds; see `Task.from_dataset`. ``probe`` is not used."""
        task = super().from_dataset(dataset, store, split=split, clips=clips, probe=ProbeOptions())
        at_random = dataclasses.replace(clips, random=True)
        train = sound_windows(store, sounds_of(dataset).actions("train"), at_random, num_clips=1)
        return dataclasses.replace(task, train_clips=train)

    def check(self) -> None:
        """Refuse what does not fit together, and several modalities."""
        super().check()
        require_one_modality(self.modalities)

    def options(self) -> dict[str, Any]:
        """Return how it is trained, and the number of windows of each sound."""
        return fine_tuned_options(super().options(), self.fine_tuning)

    def answer(self, encoders: Mapping[Modality, nn.Module], setting: Setting, *, label: str) -> list[ProbeAnswers]:
        """Fine-tune a copy of the encoder with each seed."""
        return fine_tuned_answers(self, encoders, setting, {COLUMN: len(self.class_names)}, label)
