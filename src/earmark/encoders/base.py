"""What every encoder shares: a feature map, a global pool, an output size, an initialisation.

In the path of a sample the encoders stand between the transforms (model inputs) and the projection heads (embeddings).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from earmark.encoders.recomputation import recomputed


class Encoder(nn.Module):
    """An encoder: a feature map, then a pool over everything but batch and channels.

    Subclasses set ``output_dim`` and define ``forward_features``. The pool here is a maximum, as in the original code,
    and not a mean: one strong response anywhere in the clip decides. Encoders published with another pool override
    ``pool``, and those that are not convolutional networks override ``initialise``.

    Attributes:
        output_dim: Size of the features.
        name: The name by which `earmark.encoders.new_encoder` built it; empty where it was built from its class.
        options: The options it was built with, as plain data; an exported file holds name and options.
        origin: Where its weights came from, in words; empty for random ones.
        not_encoder: Top-level modules of the published network that are not part of the encoder, such as a classifier;
            their weights are ignored, and named, when weights are loaded.
        recompute: Whether the activations inside its stages are computed again in the backward pass instead of kept;
            set by `recompute_activations`.
    """

    output_dim: int
    name: str = ""
    options: Mapping[str, Any] = {}
    origin: str = ""
    not_encoder: tuple[str, ...] = ()
    recompute: bool = False

    def recompute_activations(self) -> None:
        """Keep less for the backward pass and compute it again there: less memory, a third more time, the same numbers.

        Example:
            >>> from earmark.encoders import SpecCNN9
            >>> encoder = SpecCNN9(width=4)
            >>> encoder.recompute_activations()
            >>> encoder.recompute
            True
        """
        self.recompute = True

    def run_stage(self, stage: nn.Module, *inputs: Any) -> Any:
        """Call one of the parts that follow each other in ``forward_features``; all calls of large ones go through it.

        Args:
            stage: A module of this encoder.
            inputs: Its inputs.

        Returns:
            What it returns.
        """
        return recomputed(stage, *inputs) if self.recompute and torch.is_grad_enabled() else stage(*inputs)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the feature map (B, output_dim, ...) before the pool."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled features.

        Args:
            x: A batch of inputs (B, channels, ...).

        Returns:
            Features (B, output_dim).
        """
        return self.pool(self.forward_features(x))

    def pool(self, features: Tensor) -> Tensor:
        """Return the features (B, output_dim) of a feature map (B, channels, ...): here its maximum."""
        # amax and not an adaptive pool: its gradient is deterministic on CUDA.
        return features.flatten(2).amax(dim=2)

    def cache_key(self) -> dict[str, Any]:
        """Return what the features depend on beside weights and printed structure, as plain data.

        Subclasses whose features depend on more, such as a setting that neither ``options`` nor ``extra_repr`` shows,
        add it.
        """
        return {"class": type(self).__name__, "name": self.name, "options": dict(self.options)}

    def initialise(self) -> None:
        """Draw all convolutions from N(0, 2 / fan_in) (He et al., arXiv 1502.01852); batch norms keep weight 1, bias 0.

        PyTorch's default, which AVID's code keeps, has a sixth of the variance that ReLU needs. In training from
        scratch that matters where a batch norm does not follow directly, in the sum of a residual block, and for the
        effective step size of every layer.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")


def require_clips(x: Tensor) -> None:
    """Raise unless a batch has the shape of clips, (B, 3, T, H, W).

    Raises:
        ValueError: If it has another shape.

    Example:
        >>> import torch
        >>> require_clips(torch.zeros(2, 3, 8, 64, 64))
    """
    if x.ndim != 5 or x.shape[1] != 3:
        raise ValueError(f"clips must have the shape (B, 3, T, H, W), got {tuple(x.shape)}")


def require_spectrograms(x: Tensor, *, num_mels: int | None = None) -> None:
    """Raise unless a batch has the shape of log-mel spectrograms, (B, 1, frames, F).

    Args:
        x: The batch.
        num_mels: The number of mel bins F that is needed; None for any.

    Raises:
        ValueError: If it has another shape.

    Example:
        >>> import torch
        >>> require_spectrograms(torch.zeros(2, 1, 125, 80), num_mels=80)
    """
    if x.ndim != 4 or x.shape[1] != 1 or num_mels not in (None, x.shape[3]):
        bins = "F" if num_mels is None else num_mels
        raise ValueError(f"spectrograms must have the shape (B, 1, frames, {bins}), got {tuple(x.shape)}")
