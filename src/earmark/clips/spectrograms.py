"""The spectrograms that published weights of other authors were trained with, from sound of any sample rate.

In the path of a sample these stand in the place of `earmark.clips.transforms.LogMel`, the paper's spectrogram, for
encoders that name one of their own.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name

__all__ = ["MelSpectrogram", "SpectrogramOptions"]

_ROUNDING = 1e-6  # tolerance of a number of hops that should be whole


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectrogramOptions:
    """What decides the numbers of a log-mel spectrogram, as the authors of published weights give it.

    Attributes:
        sample_rate: Of the sound that the weights were trained with, Hz.
        window_length: Of a Hann window, in samples at that rate.
        hop_length: From a window to the next, in samples at that rate.
        num_mels: Mel bands, F.
        min_frequency: Where the lowest band begins, Hz.
        max_frequency: Where the highest band ends, Hz.
        mel_scale: ``htk``, 2595 log10(1 + f / 700), or ``slaney``, linear up to 1 kHz and logarithmic above.
        triangles: The scale on which a band rises and falls linearly.
        normalization: What a band is divided by: the ``sum`` of its weights, or its ``area`` in Hz.
        symmetric_window: Whether the window ends in the value that it begins with; else it is periodic.
        padding: What surrounds the sound, since windows are centred on multiples of the hop from its first sample on:
            ``zeros``, or the sound's own ``reflection``.
        compression: ``decibels``, 10 log10 of the power P in a band, at least 1e-10; or ``shifted``, log10(1 + 10000
            P).
        scale: What the result is divided by.

    Raises:
        ValueError: If a length, a number or a frequency is out of range.
    """

    sample_rate: int
    window_length: int
    hop_length: int
    num_mels: int
    min_frequency: float
    max_frequency: float
    mel_scale: Literal["htk", "slaney"]
    triangles: Literal["mel", "hz"]
    normalization: Literal["sum", "area"]
    symmetric_window: bool
    padding: Literal["zeros", "reflection"]
    compression: Literal["decibels", "shifted"]
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.hop_length <= self.window_length:
            raise ValueError(
                "need a hop of at least one sample and windows at least as long, got hops of "
                f"{self.hop_length} and windows of {self.window_length}"
            )
        if self.num_mels < 1 or self.scale <= 0:
            raise ValueError(f"need mel bands and a positive scale, got {self.num_mels} bands, scale {self.scale:g}")
        if not 0 <= self.min_frequency < self.max_frequency <= self.sample_rate / 2:
            raise ValueError(
                f"need bands between 0 and half the sample rate of {self.sample_rate} Hz, got "
                f"{self.min_frequency:g} to {self.max_frequency:g} Hz"
            )


class MelSpectrogram(nn.Module):
    """Log-mel spectrograms of the kind that options describe, from sound of a sample rate of its own.

    Windows, hops and bands are kept in seconds and in Hz, and powers are those of the same sound at the rate that the
    options name, so that a spectrum's bins lie where they lay in training, to the rounding of a window to whole
    samples. Sound of a lower rate holds nothing above half of it: bands there are empty, as they are for sound of the
    rate of training that was recorded so (`empty_bands` counts them).

    Args:
        options: What the weights were trained with.
        sample_rate: Of the sound, Hz; None for that of the options.

    Attributes:
        window_length: Length of a window in samples of the sound.
        num_mels: Mel bands, F.

    Raises:
        ValueError: If a hop is shorter than a sample of this rate.

    Example:
        >>> from earmark.encoders import AisfxCnn
        >>> spectrogram = MelSpectrogram(AisfxCnn.spectrogram, sample_rate=16000)
        >>> spectrogram(torch.zeros(2, 32000, dtype=torch.int16)).shape, spectrogram.empty_bands
        (torch.Size([2, 1, 87, 96]), 25)
    """

    window: Tensor
    filterbank: Tensor

    def __init__(self, options: SpectrogramOptions, *, sample_rate: int | None = None) -> None:
        super().__init__()
        rate = options.sample_rate if sample_rate is None else sample_rate
        self.options, self.sample_rate, self.num_mels = options, rate, options.num_mels
        ratio = rate / options.sample_rate
        self.window_length = round(options.window_length * ratio)
        self._hop = options.hop_length * ratio
        if self._hop < 1:
            raise ValueError(f"hops of {options.hop_length} samples at {options.sample_rate} Hz are none at {rate} Hz")
        window = torch.hann_window(self.window_length, periodic=not options.symmetric_window, dtype=torch.float64)
        self.register_buffer("window", window.float(), persistent=False)
        filterbank = _filterbank(options, bin_hertz=rate / self.window_length)
        # The sound's spectrum may end before the bands do, or go on behind them.
        filterbank = F.pad(filterbank, (0, 0, 0, self.window_length // 2 + 1 - len(filterbank)))
        # A spectrum of the same sound grows with the sample rate: power by its square.
        self.register_buffer("filterbank", (filterbank / ratio**2).float(), persistent=False)

    @property
    def empty_bands(self) -> int:
        """How many of the highest bands hold nothing, since they begin above half the sample rate of the sound."""
        return int((_band_edges(self.options)[:-2] >= self.sample_rate / 2).sum())

    def cache_key(self) -> dict[str, Any]:
        """Return what the spectrograms depend on beside the sound, as plain data."""
        return {"class": "MelSpectrogram", "sample_rate": self.sample_rate, "options": asdict(self.options)}

    def num_frames(self, num_samples: int) -> int:
        """Return how many frames the spectrogram of so many samples has: one more than whole hops in it.

        Example:
            >>> from earmark.encoders import AisfxCnn
            >>> MelSpectrogram(AisfxCnn.spectrogram).num_frames(88200)
            87
        """
        return math.floor(num_samples / self._hop + _ROUNDING) + 1

    def forward(self, audio: Tensor) -> Tensor:
        """Return log-mel spectrograms.

        Args:
            audio: Sound (B, S), int16 or floating point from -1 to 1.

        Returns:
            float32 (B, 1, frames, F), with `num_frames` of S frames.

        Raises:
            ValueError: If the sound is not (B, S), or is too short to be reflected.
        """
        options, half = self.options, self.window_length // 2
        shortest = half + 1 if options.padding == "reflection" else 1
        if audio.ndim != 2 or audio.shape[1] < shortest:
            raise ValueError(f"sound must have the shape (B, S) with S >= {shortest}, got {tuple(audio.shape)}")
        wave = audio / 32768 if audio.dtype == torch.int16 else audio.float()
        frames = self.num_frames(wave.shape[1])
        with torch.autocast(audio.device.type, enabled=False):
            padded = F.pad(wave, (half, half), mode="reflect" if options.padding == "reflection" else "constant")
            # each window at its own time, to the nearest sample, so that hops do not add up to another length
            starts = (torch.arange(frames, dtype=torch.float64, device=wave.device) * self._hop).round().long()
            short = self.window_length - 2 * half  # a window of an odd length reaches one sample further
            padded = F.pad(padded, (0, short))
            windows = padded[:, starts[:, None] + torch.arange(self.window_length, device=wave.device)]
            power: Tensor = torch.fft.rfft(windows * self.window).abs().square() @ self.filterbank
            if options.compression == "decibels":
                levels = 10 * power.clamp_min(1e-10).log10()
            else:
                levels = (power * 10_000 + 1).log10()
            return (levels / options.scale).unsqueeze(1)


def _to_mel(frequency: Tensor, scale: Literal["htk", "slaney"]) -> Tensor:
    """Return frequencies in Hz on a mel scale."""
    if scale == "htk":
        return 2595 * (1 + frequency / 700).log10()
    above = 15 + 27 * (frequency.clamp_min(1000) / 1000).log() / math.log(6.4)
    return torch.where(frequency < 1000, frequency * 3 / 200, above)


def _from_mel(mel: Tensor, scale: Literal["htk", "slaney"]) -> Tensor:
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return torch.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def _band_edges(options: SpectrogramOptions) -> Tensor:
    """Return where bands begin, peak and end, in Hz, float64 (F + 2,): three neighbours are one band's."""
    ends = torch.tensor([options.min_frequency, options.max_frequency], dtype=torch.float64)
    low, high = _to_mel(ends, options.mel_scale).tolist()
    return _from_mel(torch.linspace(low, high, options.num_mels + 2, dtype=torch.float64), options.mel_scale)


def _filterbank(options: SpectrogramOptions, *, bin_hertz: float) -> Tensor:
    """Return triangular filters (bins, F), float64, over the bins from 0 to the highest band's end.

    A spectrum of less sound has fewer bins: bands are normalized before these are taken, so that the part of a band
    that is there weighs what it did in training.
    """
    num_bins = math.floor(options.sample_rate / 2 / bin_hertz + _ROUNDING) + 1
    bins, edges = torch.arange(num_bins, dtype=torch.float64) * bin_hertz, _band_edges(options)
    hertz = edges
    if options.triangles == "mel":
        bins, edges = _to_mel(bins, options.mel_scale), _to_mel(edges, options.mel_scale)
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    weights: Tensor = torch.minimum(rising, falling).clamp_min(0)
    if options.normalization == "sum":
        return weights / weights.sum(dim=0).clamp_min(torch.finfo(torch.float64).tiny)
    return weights * 2 / (hertz[2:] - hertz[:-2])
