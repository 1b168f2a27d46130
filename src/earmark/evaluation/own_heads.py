"""What a checkpoint itself was trained to say of moments: its projection heads, on features of its own encoders.

Path of a sample: features of both clips and of the sound --heads of the checkpoint--> embeddings, order of the clips.

Heads are dropped after pretraining, and few methods have them: what they say stands beside what a probe, which every
encoder gets, says of the same moments.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from earmark.evaluation.feature_cache import Modality
from earmark.methods import l2_normalize

__all__ = ["ProjectionHeads"]


@dataclass(frozen=True)
class ProjectionHeads:
    """The trained heads of a checkpoint, and the encoders that they belong to.

    Attributes:
        encoders: Whose features they take; those of other encoders, such as random ones, mean nothing to them.
        clip: Of the correspondence of clips and sounds: embeds clips; None where the method has no such objective.
        sound: Embeds sounds.
        state: Of the audible state change: embeds the state of a clip; None where the method has no such objective.
        change: Embeds the difference of two states.
        change_sound: Embeds the sound that a change is compared with.
        normalize_states: Whether states are L2-normalized before their difference is taken.
    """

    encoders: Mapping[Modality, nn.Module]
    clip: nn.Module | None = None
    sound: nn.Module | None = None
    state: nn.Module | None = None
    change: nn.Module | None = None
    change_sound: nn.Module | None = None
    normalize_states: bool = False

    def belong_to(self, encoders: Mapping[Modality, nn.Module]) -> bool:
        """Return whether these are the encoders of the heads, as far as they are given."""
        return all(self.encoders.get(modality) is encoder for modality, encoder in encoders.items())

    @property
    def has_correspondence(self) -> bool:
        """Whether clips and sounds can be embedded."""
        return self.clip is not None and self.sound is not None

    @property
    def has_state_change(self) -> bool:
        """Whether the direction of a change can be told."""
        return self.state is not None and self.change is not None and self.change_sound is not None

    @torch.no_grad()
    def embeddings(
        self, clips: npt.NDArray[np.floating], sounds: npt.NDArray[np.floating]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the embeddings of clips and of sounds, whose cosine the correspondence objective compares.

        Args:
            clips: Features ``(..., D)``.
            sounds: Features ``(..., D)``.

        Raises:
            ValueError: If there are no such heads.
        """
        if self.clip is None or self.sound is None:
            raise ValueError("there are no heads of the correspondence of clips and sounds")
        return _applied(self.clip, clips).double().numpy(), _applied(self.sound, sounds).double().numpy()

    @torch.no_grad()
    def direction_margins(
        self, clips: npt.NDArray[np.floating], sounds: npt.NDArray[np.floating]
    ) -> npt.NDArray[np.float64]:
        """Return how much better each change fits its sound than its reverse does: positive where the order is right.

        The difference of cosines, ``(N,)``; what ``direction_accuracy`` counts in training, in the same arithmetic.

        Args:
            clips: Features of the clips before and after, ``(N, 2, D)``.
            sounds: Features of the sounds, ``(N, D)``.

        Raises:
            ValueError: If there are no such heads.
        """
        if self.state is None or self.change is None or self.change_sound is None:
            raise ValueError("there are no heads of the audible state change")
        before, after = _applied(self.state, clips).unbind(dim=1)
        if self.normalize_states:
            before, after = l2_normalize(before), l2_normalize(after)
        sound = l2_normalize(_applied(self.change_sound, sounds))
        forward, backward = (l2_normalize(self.change(change)) for change in (after - before, before - after))
        margins: npt.NDArray[np.float64] = ((forward - backward) * sound).sum(dim=1).double().numpy()
        return margins


def _applied(head: nn.Module, features: npt.NDArray[np.floating]) -> Tensor:
    embeddings: Tensor = head(torch.from_numpy(np.ascontiguousarray(features, np.float32)))
    return embeddings
