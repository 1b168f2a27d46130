"""What every encoder shares: a feature map, a global max pool, an output size, an initialisation.

In the path of a sample the encoders stand between the transforms (model inputs) and the projection heads (embeddings).
"""

from torch import Tensor, nn


class Encoder(nn.Module):
    """A convolutional encoder: a feature map, then the maximum over everything but batch and channels.

    Subclasses set ``output_dim`` (the number of channels of the feature map) and define ``forward_features``.
    The pool is a maximum, as in the original code, and not a mean: one strong response anywhere in the clip decides.
    """

    output_dim: int

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
        # amax and not an adaptive pool: its gradient is deterministic on CUDA.
        return self.forward_features(x).flatten(2).amax(dim=2)

    def initialise(self) -> None:
        """Draw all convolutions from N(0, 2 / fan_in) (He et al., arXiv 1502.01852); batch norms keep weight 1, bias 0.

        PyTorch's default, which AVID's code keeps, has a sixth of the variance that ReLU needs. From scratch that
        matters where no batch norm follows at once, in the sum of a residual block, and for every effective step size.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
