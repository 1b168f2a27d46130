"""From frozen features to answers: the one call by which a task trains its head.

Path of a sample: features --here--> scores --metrics--> numbers. What is chosen by trying is chosen on training videos
that are held out here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from earmark.evaluation.probe import ProbeOptions, linear_probe

__all__ = ["ProbeAnswers", "fit_probe"]


@dataclass(frozen=True, slots=True)
class ProbeAnswers:
    """What a head answers to test samples.

    Attributes:
        scores: For each label column float32 ``(N_test, num_classes)``: log of the probability.
        chosen: For each label column what was chosen by trying, by name; empty where nothing was.
    """

    scores: dict[str, npt.NDArray[np.float32]]
    chosen: dict[str, dict[str, float]] = field(default_factory=dict)


def fit_probe(
    train_features: npt.NDArray[np.float32],
    train_labels: Mapping[str, npt.NDArray[np.int64]],
    test_features: npt.NDArray[np.float32],
    *,
    num_classes: Mapping[str, int],
    train_videos: Sequence[str] | None,
    options: ProbeOptions,
    seed: int,
    device: torch.device | str,
) -> ProbeAnswers:
    """Train a head on frozen features and return its answers to the test samples.

    Args:
        train_features: Shape ``(N_train, clips, D)``.
        train_labels: Class ids of each label column, shape ``(N_train,)``; -1 where a sample has no label.
        test_features: Shape ``(N_test, clips, D)``.
        num_classes: Classes of each label column.
        train_videos: Video of each training sample; None where it is not known.
        options: How the head is trained.
        seed: Of all that it draws.
        device: Where to train.

    Raises:
        ValueError: As `earmark.evaluation.probe.linear_probe`.
    """
    scores = linear_probe(
        train_features,
        train_labels,
        test_features,
        num_classes=num_classes,
        options=options,
        seed=seed,
        device=device,
    )
    return ProbeAnswers(scores)
