"""Action recognition with an encoder that is trained on: how good a start its weights are.

Path of a sample: clips of annotated actions --encoder and classifiers, trained end to end--> scores --> numbers.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from earmark.clips.dataset import ActionClips
from earmark.evaluation.action_recognition import ActionRecognition
from earmark.evaluation.base import ClipOptions, Setting
from earmark.evaluation.features import Modality
from earmark.evaluation.fine_tuning import FineTuningOptions, fine_tune
from earmark.evaluation.probe import ProbeOptions
from earmark.evaluation.probing import ProbeAnswers

if TYPE_CHECKING:
    from earmark.clips.store import PreparedStore
    from earmark.datasets.records import DatasetRecords

__all__ = ["FineTunedActionRecognition"]


@dataclass(frozen=True)
class FineTunedActionRecognition(ActionRecognition):
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
        if len(self.modalities) != 1:
            raise ValueError(f"one encoder is fine-tuned at a time, not those of {' and '.join(self.modalities)}")

    def options(self) -> dict[str, Any]:
        """Return how it is trained, and the number of clips of each action."""
        trained = dataclasses.asdict(self.fine_tuning)
        for name in ("num_workers", "progress"):  # which change nothing
            del trained[name]
        return {name: value for name, value in super().options().items() if name != "probe"} | {"fine_tuning": trained}

    def answer(self, encoders: Mapping[Modality, nn.Module], setting: Setting, *, label: str) -> list[ProbeAnswers]:
        """Fine-tune a copy of the encoder with each seed."""
        (modality,) = self.modalities
        return [
            fine_tune(
                encoders[modality],
                self.train_clips,
                self.test_clips,
                num_classes={column: len(names) for column, names in self.class_names.items()},
                train_videos=self.train_videos,
                train_transform=self.train_transforms.get(modality, setting.transforms[modality]),
                test_transform=setting.transforms[modality],
                modality=modality,
                options=self.fine_tuning,
                seed=seed,
                device=setting.device,
            )
            for seed in setting.seeds
        ]

    def scores(
        self,
        train_features: npt.NDArray[np.float32],
        test_features: npt.NDArray[np.float32],
        *,
        seed: int,
        device: torch.device | str,
    ) -> ProbeAnswers:
        """Refuse: there are no features of an encoder that changes.

        Raises:
            TypeError: Always.
        """
        raise TypeError("an encoder that is fine-tuned has no features beforehand; call answer()")
