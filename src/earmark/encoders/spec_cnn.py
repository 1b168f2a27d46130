"""The audio encoder: nine convolutions over a log-mel spectrogram.

In the path of a sample it turns log-mel spectrograms into features. Modules carry the names of the published AVID and
RepLAI weights, so that those load as they are.
"""

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name

from earmark.encoders.base import Encoder, require_spectrograms


class _Block(nn.Module):
    """Two 3 x 3 convolutions, each with batch norm and ReLU; the first one strides."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)))


class SpecCNN9(Encoder):
    """The spectrogram network of AVID and RepLAI, global max pool at its end.

    At width 64 it has 4,725,696 parameters.

    Args:
        width: Channels of the stem and the first block; the four blocks have 1, 2, 4 and 8 times as many.

    Raises:
        ValueError: If the width is below 1.

    Source: Morgado et al., arXiv 2004.12943, as used in the paper, arXiv 2209.13583, and the original code.

    Example:
        >>> import torch
        >>> encoder = SpecCNN9(width=4)
        >>> encoder(torch.zeros(2, 1, 125, 80)).shape, encoder.output_dim
        (torch.Size([2, 32]), 32)
    """

    def __init__(self, *, width: int = 64) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        self.output_dim = 8 * width
        self.conv1 = nn.Sequential(nn.Conv2d(1, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.block1 = _Block(width, width, stride=2)
        self.block2 = _Block(width, 2 * width, stride=2)
        self.block3 = _Block(2 * width, 4 * width, stride=2)
        self.block4 = _Block(4 * width, 8 * width, stride=1)
        self.initialise()

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the feature map before the pool.

        Args:
            x: Log-mel spectrograms (B, 1, frames, F).

        Returns:
            Feature map (B, output_dim, frames / 16, F / 16), each length rounded up.

        Raises:
            ValueError: If the input is not of this shape.
        """
        require_spectrograms(x)
        for stage in (self.conv1, self.block1, self.block2, self.block3, self.block4):
            x = self.run_stage(stage, x)
        return x
