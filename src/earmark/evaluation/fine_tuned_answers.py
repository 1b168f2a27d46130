"""What every task with an encoder that is trained on has in common: one modality, its options, a copy for each seed."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import nn

from earmark.evaluation.base import Setting
from earmark.evaluation.features import LabelledClips, Modality
from earmark.evaluation.fine_tuning import FineTuningOptions, fine_tune
from earmark.evaluation.probing import ProbeAnswers

__all__ = ["FineTunedTask", "fine_tuned_answers", "fine_tuned_options", "require_one_modality"]


class FineTunedTask(Protocol):
    """What is asked of a task here; see `earmark.evaluation.base.Task` and its fine-tuned kinds."""

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What of a clip is looked at; one."""
        ...

    @property
    def train_clips(self) -> LabelledClips:
        """Clips to train on."""
        ...

    @property
    def test_clips(self) -> LabelledClips:
        """Clips to answer to."""
        ...

    @property
    def train_videos(self) -> Sequence[str] | None:
        """Video of each training sample."""
        ...

    @property
    def train_transforms(self) -> Mapping[Modality, nn.Module]:
        """What makes the inputs in training."""
        ...

    @property
    def fine_tuning(self) -> FineTuningOptions:
        """How the encoder is trained."""
        ...


def require_one_modality(modalities: Sequence[Modality]) -> None:
    """Refuse several modalities.

    Raises:
        ValueError: If there is not one.
    """
    if len(modalities) != 1:
        raise ValueError(f"one encoder is fine-tuned at a time, not those of {' and '.join(modalities)}")


def fine_tuned_options(of_probe: Mapping[str, Any], fine_tuning: FineTuningOptions) -> dict[str, Any]:
    """Return the options of a task with a probe, with those of fine-tuning in place of the probe's."""
    trained = dataclasses.asdict(fine_tuning)
    for name in ("num_workers", "progress"):  # which change nothing
        del trained[name]
    return {name: value for name, value in of_probe.items() if name != "probe"} | {"fine_tuning": trained}


def fine_tuned_answers(
    task: FineTunedTask,
    encoders: Mapping[Modality, nn.Module],
    setting: Setting,
    num_classes: Mapping[str, int],
    label: str,
) -> list[ProbeAnswers]:
    """Fine-tune a copy of the task's encoder with each seed, and return the answers to the test clips."""
    (modality,) = task.modalities
    return [
        fine_tune(
            encoders[modality],
            task.train_clips,
            task.test_clips,
            num_classes=num_classes,
            train_videos=task.train_videos,
            train_transform=task.train_transforms.get(modality, setting.transforms[modality]),
            test_transform=setting.transforms[modality],
            modality=modality,
            options=task.fine_tuning,
            seed=seed,
            device=setting.device,
            label=f"fine-tuning: {label}" + (f", seed {seed}" if setting.num_seeds > 1 else ""),
        )
        for seed in setting.seeds
    ]
