"""Ego4D's state changes with an encoder that is trained on: how good a start its weights are.

Path of a sample: parts of clips, 16 frames each --encoder and both heads, trained end to end--> scores --> numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn

from earmark.evaluation.base import Setting, WithoutFeatures
from earmark.evaluation.features import Modality
from earmark.evaluation.fine_tuned_answers import fine_tuned_answers, fine_tuned_options, require_one_modality
from earmark.evaluation.fine_tuning import FineTuningOptions
from earmark.evaluation.state_change import NUM_CLASSES, StateChange
from earmark.evaluation.state_change_results import StateChangeAnswers

__all__ = ["FineTunedStateChange"]


@dataclass(frozen=True)
class FineTunedStateChange(WithoutFeatures, StateChange):
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
        require_one_modality(self.modalities)
        if self.seeing.view != "spread":
            raise ValueError("an encoder is fine-tuned on spread frames, which are one clip, and not on windows")

    def options(self) -> dict[str, Any]:
        """Return how it is trained, and what is seen of a clip."""
        return fine_tuned_options(super().options(), self.fine_tuning)

    def answer(
        self, encoders: Mapping[Modality, nn.Module], setting: Setting, *, label: str
    ) -> list[StateChangeAnswers]:
        """Fine-tune a copy of the encoder with each seed."""
        peaks = self.change_peaks(encoders, setting, label=label)
        return [
            StateChangeAnswers(tuned.scores, tuned.chosen, peaks)
            for tuned in fine_tuned_answers(self, encoders, setting, NUM_CLASSES, label)
        ]
