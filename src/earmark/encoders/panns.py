"""Audio encoders of PANNs: Cnn6, Cnn10 and Cnn14, pretrained on AudioSet by their authors.

In the path of a sample they turn log-mel spectrograms into features, in place of `SpecCNN9`. Modules carry the names of
the published weights, so that those load as they are.

Published weights are of use only with the input that they were trained on. The files ``Cnn6_mAP=0.343.pth``,
``Cnn10_mAP=0.380.pth`` and ``Cnn14_mAP=0.431.pth`` expect sound of 32 kHz, windows of 1024 samples every 320, 64 mel
bins (Slaney's scale and normalization) from 50 to 14000 Hz, and 10 log10 of the power, not standardized: the first
batch norm does that. An encoder of 64 bins names that spectrogram (`earmark.encoders.spectrogram_for` makes it); one of
any other number, such as the 80 of the paper's spectrogram, is for training from scratch on
`earmark.clips.transforms.LogMel`, and published weights are refused for it, since their batch norm has 64 bins.
"""

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name

from earmark.clips.spectrograms import SpectrogramOptions
from earmark.encoders.base import Encoder, require_spectrograms

PUBLISHED_MELS = 64
_SPECTROGRAM = SpectrogramOptions(
    sample_rate=32000,
    window_length=1024,
    hop_length=320,
    num_mels=PUBLISHED_MELS,
    min_frequency=50.0,
    max_frequency=14000.0,
    mel_scale="slaney",
    triangles="hz",
    normalization="area",
    symmetric_window=False,
    padding="reflection",
    compression="decibels",
)
# For each depth: the channels of the blocks, the number of convolutions per block, their kernel size.
_SHAPE_OF_DEPTH = {
    6: ((64, 128, 256, 512), 1, 5),
    10: ((64, 128, 256, 512), 2, 3),
    14: ((64, 128, 256, 512, 1024, 2048), 2, 3),
}


class _Block(nn.Module):
    """One or two convolutions, each with batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, num_convs: int, kernel: int) -> None:
        super().__init__()
        self.num_convs = num_convs
        for number in range(1, num_convs + 1):
            channels = in_channels if number == 1 else out_channels
            conv = nn.Conv2d(channels, out_channels, kernel, padding=kernel // 2, bias=False)
            self.add_module(f"conv{number}", conv)
            self.add_module(f"bn{number}", nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        for number in range(1, self.num_convs + 1):
            x = F.relu(self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(x)))
        return x


class PannsCnn(Encoder):
    """Cnn6, Cnn10 or Cnn14 of PANNs, without its classifier.

    Blocks of convolutions with 2 x 2 average pools between them; the mean over mel bins; over time the maximum plus the
    mean; a fully connected layer with ReLU, whose output is the embedding that the authors transfer to other tasks.
    Dropout is theirs (0.2 after each block, 0.5 around the last layer). Their masking of the spectrogram in training is
    not part of the encoder.

    Args:
        depth: 6, 10 or 14. The features have 512, 512 or 2048 values.
        num_mels: Mel bins F of the input; with 64, those of published weights, they are those of their spectrogram.

    Raises:
        ValueError: At another depth, or if num_mels is below 1.

    Source: Kong et al., "PANNs", arXiv 1912.10211, section III-A and table I.

    Example:
        >>> import torch
        >>> encoder = PannsCnn(6, num_mels=80).eval()
        >>> encoder(torch.zeros(2, 1, 125, 80)).shape, encoder.output_dim
        (torch.Size([2, 512]), 512)
    """

    not_encoder = ("spectrogram_extractor", "logmel_extractor", "fc_audioset")

    def __init__(self, depth: int = 14, *, num_mels: int = 64) -> None:
        super().__init__()
        if depth not in _SHAPE_OF_DEPTH:
            raise ValueError(f"depth must be one of {sorted(_SHAPE_OF_DEPTH)}, got {depth}")
        if num_mels < 1:
            raise ValueError(f"num_mels must be at least 1, got {num_mels}")
        channels, num_convs, kernel = _SHAPE_OF_DEPTH[depth]
        self.depth = depth
        self.num_mels: int = num_mels
        self.spectrogram = _SPECTROGRAM if num_mels == PUBLISHED_MELS else None
        self.output_dim = channels[-1]
        self.bn0 = nn.BatchNorm2d(num_mels)
        self.num_blocks = len(channels)
        for number, (before, after) in enumerate(zip((1, *channels), channels, strict=False), start=1):
            self.add_module(f"conv_block{number}", _Block(before, after, num_convs=num_convs, kernel=kernel))
        self.fc1 = nn.Linear(self.output_dim, self.output_dim)
        self.initialise()

    def initialise(self) -> None:
        """Draw convolutions and the fully connected layer Xavier-uniform, as the authors do; its bias is 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(self.fc1.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the feature map before the pools over bins and time.

        Args:
            x: Log-mel spectrograms (B, 1, frames, F).

        Returns:
            Feature map (B, output_dim, frames / 16, F / 16) at depths 6 and 10, (B, output_dim, frames / 32, F / 32) at
            14, each length rounded down.

        Raises:
            ValueError: If the input is not of this shape, has another F than the encoder, or too few frames or bins.
        """
        require_spectrograms(x, num_mels=self.num_mels)
        # Depth 14 has no pool after its last block, the others do.
        num_pools = min(self.num_blocks, 5)
        if min(x.shape[2:]) < 2**num_pools:
            raise ValueError(f"spectrograms must have at least {2**num_pools} frames and bins, got {tuple(x.shape)}")
        x = self.bn0(x.transpose(1, 3)).transpose(1, 3)
        for number in range(1, self.num_blocks + 1):
            x = self.run_stage(self.get_submodule(f"conv_block{number}"), x)
            if number <= num_pools:
                x = F.avg_pool2d(x, 2)
            x = F.dropout(x, 0.2, self.training)
        return x

    def pool(self, features: Tensor) -> Tensor:
        """Return the embedding (B, output_dim) of a feature map (B, output_dim, frames, F)."""
        of_time = features.mean(dim=3)
        x = F.dropout(of_time.amax(dim=2) + of_time.mean(dim=2), 0.5, self.training)
        return F.dropout(F.relu(self.fc1(x)), 0.5, self.training)
