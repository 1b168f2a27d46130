"""What a method is, and what all of them share: the features of both clips of a sample, and of its sound.

In the path of a sample a method stands between the transforms (model inputs) and the training loop (losses).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from earmark.encoders import Encoder

__all__ = ["Embeddings", "EpochAware", "Method", "Views", "audio_features", "clip_features"]

Views = Literal["before_after", "same_clip"]
Embeddings = tuple[Tensor, dict[str, Tensor]]  # index int64 (B,), and embeddings (B, D) by name


@runtime_checkable
class Method(Protocol):
    """A module that turns the inputs of a batch into the loss to minimize.

    Its encoders are ``backbone.video`` and, where sound is used, ``backbone.audio``. State beside the weights (a memory
    bank, cluster assignments) is in buffers, so that checkpoints hold it. A method that looks at the whole data set
    before each epoch is also `EpochAware`.

    Attributes:
        uses_sound: Whether it is built around an audio encoder and needs `audio`.
        needs_labels: Whether it needs the classes of annotated actions.
        views: Which two clips of a sample it compares: ``before_after``, those before and after the moment, or
            ``same_clip``, two crops of one clip.

    Example:
        >>> from earmark.methods import METHODS
        >>> [name for name, method in METHODS.items() if not method.uses_sound]
        ['simclr_video', 'supervised']
    """

    uses_sound: ClassVar[bool]
    needs_labels: ClassVar[bool]
    views: ClassVar[Views]

    def __init__(self, *encoders: Encoder, **options: Any) -> None:
        """Build the method around a video encoder and, where sound is used, an audio encoder."""

    def forward(
        self,
        video_before: Tensor,
        video_after: Tensor,
        audio: Tensor,
        *,
        index: Tensor,
        labels: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Return the loss and diagnostics.

        Args:
            video_before: Normalized clips (B, 3, T, H, W) before the moments, or one view of each clip.
            video_after: The same after them, or the other view.
            audio: Log-mel spectrograms (B, 1, frames, F).
            index: Which samples of the data set these are, int64 (B,).
            labels: For each label column the classes int64 (B,), -1 where a sample has none; empty for a data set
                without labels.

        Returns:
            Scalars: ``loss``, which is minimized, its terms (``..._loss``), and detached diagnostics.

        Raises:
            ValueError: If the two clips differ in shape or, where sound is used, the sounds in number.
        """


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


def clip_features(encoder: nn.Module, video_before: Tensor, video_after: Tensor) -> Tensor:
    """Return the features of both clips of each sample, encoded as one batch.

    As one batch they share the statistics of batch norm, so these can't tell before from after.

    Args:
        encoder: (B, 3, T, H, W) -> features.
        video_before: Normalized clips (B, 3, T, H, W) before the moments, or one view of each clip.
        video_after: The same after them, or the other view.

    Returns:
        Features (2B, output_dim): those of all clips before, then those of all clips after.

    Raises:
        ValueError: If the clips differ in shape.

    Example:
        >>> before, after = torch.ones(2, 5, 3, 4, 8, 8)
        >>> clip_features(nn.Flatten(), before, after).shape
        torch.Size([10, 768])
    """
    if video_before.shape != video_after.shape:
        raise ValueError(
            f"need clips of one shape, got {tuple(video_before.shape)} before, {tuple(video_after.shape)} after"
        )
    features: Tensor = encoder(torch.cat([video_before, video_after]))
    return features


def audio_features(encoder: nn.Module, audio: Tensor, *, num_samples: int) -> Tensor:
    """Return the features of the sounds.

    Args:
        encoder: (B, 1, frames, F) -> features.
        audio: Log-mel spectrograms (B, 1, frames, F).
        num_samples: The number of samples B that the clips have.

    Returns:
        Features (B, output_dim).

    Raises:
        ValueError: If there are more or fewer sounds than clips.

    Example:
        >>> audio_features(nn.Flatten(), torch.ones(5, 1, 2, 3), num_samples=5).shape
        torch.Size([5, 6])
    """
    if len(audio) != num_samples:
        raise ValueError(f"need as many sounds as clips, got {len(audio)} and {num_samples}")
    features: Tensor = encoder(audio)
    return features
