"""The audio encoder of aiSFX, pretrained on libraries of sound effects by its authors.

In the path of a sample it turns log-mel spectrograms into features, in place of `SpecCNN9`. Modules carry the names of
the published weights, so that those load as they are. The weights are in the Python package ``aisfx``, as a file that
is read without importing it; their authors, Alison B. Ma and Alexander Lerch, give them under CC BY 4.0.
"""

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name

from earmark.clips.spectrograms import SpectrogramOptions
from earmark.encoders.base import Encoder, require_spectrograms

NUM_POOLS = 3  # that halve frames and bands


class _Block(nn.Module):
    """Two 3 x 3 convolutions, each with batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)))


class AisfxCnn(Encoder):
    """The embedding network of aiSFX (X-Sequential-CE), without its classifiers.

    Four blocks of two convolutions, with 2 x 2 maximum pools between them; then the mean over mel bands and the maximum
    over time. At width 64, that of the published weights, it has 4,686,144 parameters and 512 features.

    Its published weights were trained on sound of 44.1 kHz, about 2.3 s at a time: windows of 2048 samples every 1024,
    96 HTK mel bands up to 22,050 Hz, each the weighted mean of the power, log10(1 + 10000 power), over its maximum in
    the authors' data, 9.4578. That is `spectrogram`, whatever the weights.

    Args:
        width: Channels of the first block; the others have 2, 4 and 8 times as many.

    Raises:
        ValueError: If the width is below 1.

    Source: Ma and Lerch, "Representation learning for the automatic indexing of sound effects libraries", ISMIR 2022,
    and the package ``aisfx`` 0.1.2 for the numbers of the spectrogram.

    Example:
        >>> import torch
        >>> encoder = AisfxCnn(width=4)
        >>> encoder(torch.zeros(2, 1, 87, 96)).shape, encoder.output_dim
        (torch.Size([2, 32]), 32)
    """

    not_encoder = ("fc",)
    num_mels = 96
    spectrogram = SpectrogramOptions(
        sample_rate=44100,
        window_length=2048,
        hop_length=1024,
        num_mels=num_mels,
        min_frequency=0.0,
        max_frequency=22050.0,
        mel_scale="htk",
        triangles="mel",
        normalization="sum",
        symmetric_window=True,
        padding="zeros",
        compression="shifted",
        scale=9.457798957824707,
    )

    def __init__(self, *, width: int = 64) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        self.output_dim = 8 * width
        channels = (1, width, 2 * width, 4 * width, 8 * width)
        blocks = {f"conv_block{i}": _Block(channels[i - 1], channels[i]) for i in range(1, 5)}
        self.embedding_net = nn.ModuleDict(blocks)
        self.initialise()

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the feature map before the pools over bands and time.

        Args:
            x: Log-mel spectrograms (B, 1, frames, F).

        Returns:
            Feature map (B, output_dim, frames / 8, F / 8), each length rounded down.

        Raises:
            ValueError: If the input is not of this shape, has another F than 96, or fewer than 8 frames.
        """
        require_spectrograms(x, num_mels=self.num_mels)
        if x.shape[2] < 2**NUM_POOLS:
            raise ValueError(f"spectrograms must have at least {2**NUM_POOLS} frames, got {tuple(x.shape)}")
        for number, block in enumerate(self.embedding_net.values(), start=1):
            x = self.run_stage(block, x)
            if number <= NUM_POOLS:
                x = F.max_pool2d(x, 2)
        return x

    def pool(self, features: Tensor) -> Tensor:
        """Return the features (B, output_dim) of a feature map (B, output_dim, frames, F)."""
        return features.mean(dim=3).amax(dim=2)
