"""The video encoder: a residual network of spatial and temporal convolutions, R(2+1)D.

In the path of a sample it turns normalized clips into features. Modules carry the names of the published AVID and
RepLAI weights, so that those load as they are.
"""

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name

from earmark.encoders.base import Encoder, require_clips
from earmark.encoders.folded_convolution import FoldedConv3d, SpatialMaxPool3d

_BLOCKS_OF_STAGE = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def _spatial_conv(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(in_channels, out_channels, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)


def _temporal_conv(channels: int, *, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(channels, channels, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False)


class _Block(nn.Module):
    """Two (spatial, temporal) pairs of convolutions beside a shortcut; batch norm comes after the sum.

    The middle width is the output width: parameters are not matched to a full 3-D convolution as they are in the
    R(2+1)D paper.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.spt_conv1 = _spatial_conv(in_channels, out_channels, stride=stride)
        self.spt_bn1 = nn.BatchNorm3d(out_channels)
        self.tmp_conv1 = _temporal_conv(out_channels, stride=stride)
        self.tmp_bn1 = nn.BatchNorm3d(out_channels)
        self.spt_conv2 = _spatial_conv(out_channels, out_channels)
        self.spt_bn2 = nn.BatchNorm3d(out_channels)
        self.tmp_conv2 = _temporal_conv(out_channels)
        self.out_bn = nn.BatchNorm3d(out_channels)
        self.res_conv: nn.Conv3d | None = None
        if stride != 1 or in_channels != out_channels:
            self.res_conv = nn.Conv3d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.res_conv is None else self.res_conv(x)
        x = F.relu(self.spt_bn1(self.spt_conv1(x)))
        x = F.relu(self.tmp_bn1(self.tmp_conv1(x)))
        x = F.relu(self.spt_bn2(self.spt_conv2(x)))
        return F.relu(self.out_bn(self.tmp_conv2(x) + shortcut))


class R2Plus1D(Encoder):
    """The R(2+1)D network of AVID and RepLAI, global max pool at its end.

    At depth 18 and width 64 it has 15,379,136 parameters.

    Args:
        depth: 10, 18 (the paper's) or 34.
        width: Channels of the stem and the first stage; the four stages have 1, 2, 4 and 8 times as many.

    Raises:
        ValueError: At another depth, or a width below 1.

    Source: Tran et al., arXiv 1711.11248, as used in the paper, arXiv 2209.13583, and the original code.

    Example:
        >>> import torch
        >>> encoder = R2Plus1D(10, width=4)
        >>> encoder(torch.zeros(2, 3, 8, 64, 64)).shape, encoder.output_dim
        (torch.Size([2, 32]), 32)
    """

    def __init__(self, depth: int = 18, *, width: int = 64) -> None:
        super().__init__()
        if depth not in _BLOCKS_OF_STAGE:
            raise ValueError(f"depth must be one of {sorted(_BLOCKS_OF_STAGE)}, got {depth}")
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        self.depth = depth
        self.output_dim = 8 * width
        self.conv1 = nn.Sequential(
            FoldedConv3d(3, width, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(),
            SpatialMaxPool3d(3, 2, 1),
        )
        blocks = _BLOCKS_OF_STAGE[depth]
        self.conv2x = _stage(width, width, num_blocks=blocks[0], stride=1)
        self.conv3x = _stage(width, 2 * width, num_blocks=blocks[1], stride=2)
        self.conv4x = _stage(2 * width, 4 * width, num_blocks=blocks[2], stride=2)
        self.conv5x = _stage(4 * width, 8 * width, num_blocks=blocks[3], stride=2)
        self.initialise()

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the feature map before the pool.

        Args:
            x: Normalized clips (B, 3, T, H, W).

        Returns:
            Feature map (B, output_dim, T / 8, H / 32, W / 32), each length rounded up.

        Raises:
            ValueError: If the input is not of this shape.
        """
        require_clips(x)
        for stage in (self.conv1, self.conv2x, self.conv3x, self.conv4x, self.conv5x):
            x = self.run_stage(stage, x)
        return x


def _stage(in_channels: int, out_channels: int, *, num_blocks: int, stride: int) -> nn.Module:
    first = _Block(in_channels, out_channels, stride=stride)
    rest = [_Block(out_channels, out_channels) for _ in range(num_blocks - 1)]
    # Published depth-10 weights name a stage's only block without an index.
    return nn.Sequential(first, *rest) if rest else first
