"""What every encoder shares: a feature map, a global pool, an output size, an initialisation.

In the path of a sample the encoders stand between the transforms (model inputs) and the projection heads (embeddings).
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from earmark.clips.spectrograms import MelSpectrogram, SpectrogramOptions
from earmark.clips.transforms import LogMel
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
        spectrogram: Of an audio encoder: the spectrogram that its published weights were trained with, which
            `spectrogram_for` makes; None for that of the paper, `earmark.clips.transforms.LogMel`.
        num_mels: Of an audio encoder: mel bins F of its input; None where it takes any number.
        recompute: Whether the activations inside its stages are computed again in the backward pass instead of kept;
            set by `recompute_activations`.
    """

    output_dim: int
    name: str = ""
    options: Mapping[str, Any] = {}
    origin: str = ""
    not_encoder: tuple[str, ...] = ()
    recompute: bool = False
    spectrogram: SpectrogramOptions | None = None
    num_mels: int | None = None

    def freeze(self) -> None:
        """Keep all weights, and the statistics of batch norm, as they are, whatever is trained on the features.

        An encoder none of whose weights are trained stays in evaluation mode: batch norm and dropout do then what they
        do where features are computed.

        Example:
            >>> from earmark.encoders import SpecCNN9
            >>> encoder = SpecCNN9(width=4)
            >>> encoder.freeze()
            >>> encoder.train().training, encoder.frozen
            (False, True)
        """
        self.requires_grad_(False)
        self.eval()

    @property
    def frozen(self) -> bool:
        """Whether none of its weights are trained, as after `freeze`."""
        return not any(parameter.requires_grad for parameter in self.parameters())

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode, as PyTorch's modules do; a frozen encoder stays in evaluation mode."""
        return super().train(mode and not self.frozen)

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
        kept = not self.recompute or not torch.is_grad_enabled() or self.frozen  # a frozen one keeps nothing anyway
        return stage(*inputs) if kept else recomputed(stage, *inputs)

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


def spectrogram_for(encoder: nn.Module, *, sample_rate: int) -> LogMel | MelSpectrogram:
    """Return the transform that makes an audio encoder's input from sound: the one its weights are made for.

    Args:
        encoder: An audio encoder; one that says nothing of its input gets the paper's spectrogram.
        sample_rate: Of the sound, Hz.

    Raises:
        ValueError: If sound of this rate can't hold the paper's spectrogram.

    Example:
        >>> from earmark.encoders import new_encoder
        >>> spectrogram_for(new_encoder("cnn6", num_mels=40), sample_rate=16000)(torch.zeros(2, 32000)).shape
        torch.Size([2, 1, 125, 40])
        >>> spectrogram_for(new_encoder("aisfx", width=4), sample_rate=16000)(torch.zeros(2, 32000)).shape
        torch.Size([2, 1, 87, 96])
    """
    options = getattr(encoder, "spectrogram", None)
    if options is not None:
        return MelSpectrogram(options, sample_rate=sample_rate)
    num_mels = getattr(encoder, "num_mels", None)
    return LogMel(sample_rate=sample_rate) if num_mels is None else LogMel(sample_rate=sample_rate, num_mels=num_mels)


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
