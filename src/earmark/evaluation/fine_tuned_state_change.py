"""Ego4D's state changes with an encoder that is trained on: how good a start its weights are.

Path of a sample: parts of clips, 16 frames each --encoder and both heads, trained end to end--> scores --> numbers.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from earmark.evaluation.base import Setting
from earmark.evaluation.features import Modality
from earmark.evaluation.fine_tuning import FineTuningOptions, fine_tune
from earmark.evaluation.state_change import NUM_CLASSES, StateChange
from earmark.evaluation.state_change_results import StateChangeAnswers

__all__ = ["FineTunedStateChange"]


@dataclass(frozen=True)
class FineTunedStateChange(StateChange):
    """The task with a copy of the encoder that is fine-tuned, with both heads, on 16 spread frames.

    The loss is the cross-entropy of the place, on clips with a change, plus that of the state. An epoch shows each of
    the parts drawn of a clip once. Where features change most is looked for with the encoder as it came.

    Attributes:
        fine_tuning: How it is trained.
        train_transforms: For each modality, what makes the inputs in training, such as random crops; those of the
            setting where there is none.
    """

    title: ClassVar[str] = "Object state change and point of no return, fine-tuned encoder, % and s [95 % interval]"

    fine_tuning: FineTuningOptions = field(default_factory=FineTuningOptions)
    train_transforms: Mapping[Modality, nn.Module] = field(default_factory=dict)

    @property
    def needs_tokens(self) -> bool:
        """Never: the heads are linear."""
        return False

    def check(self) -> None:
        """Refuse what does not fit together, windows, and several modalities."""
        super().check()
        if len(self.modalities) != 1:
            raise ValueError(f"one encoder is fine-tuned at a time, not those of {' and '.join(self.modalities)}")
        if self.seeing.view != "spread":
            raise ValueError("an encoder is fine-tuned on spread frames, which are one clip, and not on windows")

    def options(self) -> dict[str, Any]:
        """Return how it is trained, and what is seen of a clip."""
        trained = dataclasses.asdict(self.fine_tuning)
        for name in ("num_workers", "progress"):  # which change nothing
            del trained[name]
        return {"fine_tuning": trained, "seeing": dataclasses.asdict(self.seeing)}

    def answer(
        self, encoders: Mapping[Modality, nn.Module], setting: Setting, *, label: str
    ) -> list[StateChangeAnswers]:
        """Fine-tune a copy of the encoder with each seed."""
        (modality,) = self.modalities
        peaks = self.change_peaks(encoders, setting, label=label)
        answers = []
        for seed in setting.seeds:
            tuned = fine_tune(
                encoders[modality],
                self.train_clips,
                self.test_clips,
                num_classes=NUM_CLASSES,
                train_videos=self.train_videos,
                train_transform=self.train_transforms.get(modality, setting.transforms[modality]),
                test_transform=setting.transforms[modality],
                modality=modality,
                options=self.fine_tuning,
                seed=seed,
                device=setting.device,
                label=f"fine-tuning: {label}" + (f", seed {seed}" if setting.num_seeds > 1 else ""),
            )
            answers.append(StateChangeAnswers(tuned.scores, tuned.chosen, peaks))
        return answers

    def scores(
        self,
        train_features: npt.NDArray[np.float32],
        test_features: npt.NDArray[np.float32],
        *,
        seed: int,
        device: torch.device | str,
    ) -> StateChangeAnswers:
        """Refuse: there are no features of an encoder that changes.

        Raises:
            TypeError: Always.
        """
        raise TypeError("an encoder that is fine-tuned has no features beforehand; call answer()")
