"""What every encoder shares: a feature map, a global pool, an output size, an initialisation.

In the path of a sample the encoders stand between the transforms (model inputs) and the projection heads (embeddings).
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class Encoder(nn.Module):
    """An encoder: a feature map, then a pool over everything but batch and channels.

    Subclasses set ``output_dim`` and define ``forward_features``. The pool here is a maximum, as in the original code,
    and not a mean: one strong response anywhere in the clip decides. Encoders published with another pool override
    ``pool``, and those that are no convolutional networks ``initialise``.

    Attributes:
        output_dim: Size of the features.
        name: Under which name `earmark.encoders.new_encoder` built it; empty where it was built by its class.
        options: With which options, as plain data: name and options are what an exported file says of it.
        origin: Where its weights came from, in words; empty for random ones.
        published_beside: First parts of the names of published tensors that are no part of the encoder, such as a
            classifier; they are left out, and named, when weights are read.
    """

    output_dim: int
    name: str = ""
    options: Mapping[str, Any] = {}
    origin: str = ""
    published_beside: tuple[str, ...] = ()

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

        PyTorch's default, which AVID's code keeps, has a sixth of the variance that ReLU needs. From scratch that
        matters where no batch norm follows at once, in the sum of a residual block, and for every effective step size.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
