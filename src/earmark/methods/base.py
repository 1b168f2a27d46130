"""What the compared methods share: both clips of a sample through one encoder.

In the path of a sample it stands where `earmark.methods.replai` does: between the transforms and the training loop.
"""

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

Embeddings = tuple[Tensor, dict[str, Tensor]]  # index int64 (B,), and embeddings (B, D) by name


@runtime_checkable
class EpochAware(Protocol):
    """A method that looks at the whole data set before each epoch."""

    def embed(self, video_before: Tensor, video_after: Tensor, audio: Tensor, /) -> dict[str, Tensor]:
        """Return embeddings (B, D) by name."""

    def start_epoch(
        self, epoch: int, embeddings: Callable[[], Iterable[Embeddings]], /
    ) -> Iterable[nn.Parameter] | None:
        """Prepare an epoch before its first batch.

        Args:
            epoch: Counted from 0.
            embeddings: Goes through the data set, over all processes every sample at least once.

        Returns:
            The parameters that were drawn anew, whose optimizer state and average must be reset; None for none.
        """


def clip_features(encoder: nn.Module, video_before: Tensor, video_after: Tensor) -> tuple[Tensor, Tensor]:
    """Return the features of both clips of each sample, encoded as one batch, as RepLAI's are.

    Args:
        encoder: (B, 3, T, H, W) -> features.
        video_before: Normalised clips (B, 3, T, H, W) before the moments, or one view of each clip.
        video_after: The same after them, or the other view.

    Returns:
        Features (B, output_dim) of both.

    Raises:
        ValueError: If the clips differ in shape.

    Example:
        >>> before, after = torch.ones(2, 5, 3, 4, 8, 8)
        >>> [x.shape for x in clip_features(nn.Flatten(), before, after)]
        [torch.Size([5, 768]), torch.Size([5, 768])]
    """
    if video_before.shape != video_after.shape:
        raise ValueError(
            f"need clips of one shape, got {tuple(video_before.shape)} before, {tuple(video_after.shape)} after"
        )
    before, after = encoder(torch.cat([video_before, video_after])).chunk(2)
    return before, after


def audio_features(encoder: nn.Module, audio: Tensor, *, num_samples: int) -> Tensor:
    """Return the features of the sounds.

    Args:
        encoder: (B, 1, frames, F) -> features.
        audio: Log-mel spectrograms (B, 1, frames, F).
        num_samples: B, as the clips have it.

    Returns:
        Features (B, output_dim).

    Raises:
        ValueError: If there are more or fewer sounds than clips.
    """
    if len(audio) != num_samples:
        raise ValueError(f"need as many sounds as clips, got {len(audio)} and {num_samples}")
    features: Tensor = encoder(audio)
    return features
