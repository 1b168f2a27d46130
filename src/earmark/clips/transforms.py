"""From stored clips to model inputs: random crops and log-mel spectrograms, on the device.

In the path of a sample the transforms stand between the batch (uint8 frames, int16 sound) and the encoders. They run on
whole batches, on the device of the model. All randomness is a function of each sample's own seed, computed in integers,
so a sample's crop is the same in any batch, on any device, with any number of workers.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from earmark.clips.splitmix64 import below, random_integers

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_REFERENCE_RATE = 16000  # Hz, in whose powers spectrograms are, as the mean and the deviation below
_RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
_ROUNDING = 1e-6  # tolerance of a number of samples or hops that should be whole
# Width over height of a box of random area, evenly spaced in the logarithm. A table, since not every device computes
# the same exponential.
_ASPECT_RATIOS = tuple((4 / 3) ** (step / 128 - 1) for step in range(257))


class LogMel(nn.Module):
    """Log-mel spectrograms, standardised, with one frame for each hop of the sound.

    Power spectrum of Hann windows that lie fully inside the sound, summed in triangular HTK-mel bands from 0 to
    `max_frequency`, natural logarithm of at least 1e-10, minus `mean`, over `std`. Windows, hops and bands are given in
    seconds and in Hz, and powers are those of the same sound at 16 kHz, so that any sample rate gives the same frames.

    The number of frames is that of whole hops in the sound: 125 for 2 s. Windows of two hops that lie fully inside it
    are one fewer, 124, and the first is repeated, as in the original. Where windows are longer, more frames are
    missing, and as many are repeated, evenly spaced.

    Args:
        sample_rate: Of the sound, Hz; at least twice `max_frequency`.
        window_seconds: Length of a window.
        hop_seconds: From the start of a window to that of the next.
        num_mels: Mel bins, F.
        max_frequency: Where the highest band ends, Hz.
        mean: Of the log-mel values over the data.
        std: The same, standard deviation.

    Attributes:
        window_length: Length of a window in samples.

    Raises:
        ValueError: If the sound cannot hold `max_frequency`, windows or hops are not positive, shorter than a sample,
            or windows are shorter than hops, so that sound between them would be lost.

    Source: the original code of the paper, arXiv 2209.13583, whose mean and std these are.

    Example:
        >>> LogMel()(torch.zeros(2, 32000, dtype=torch.int16)).shape
        torch.Size([2, 1, 125, 80])
    """

    window: Tensor
    filterbank: Tensor

    def __init__(
        self,
        *,
        sample_rate: int = 16000,
        window_seconds: float = 0.032,
        hop_seconds: float = 0.016,
        num_mels: int = 80,
        max_frequency: float = 8000.0,
        mean: float = -7.03,
        std: float = 4.66,
    ) -> None:
        super().__init__()
        if not 1 / sample_rate <= hop_seconds <= window_seconds:
            raise ValueError(
                f"need a hop of at least one sample and windows at least as long, got hops of {hop_seconds:g} s and "
                f"windows of {window_seconds:g} s at {sample_rate} Hz"
            )
        if sample_rate < 2 * max_frequency:
            raise ValueError(
                f"mel bands up to {max_frequency:g} Hz need sound of at least {2 * max_frequency:g} Hz, "
                f"got {sample_rate} Hz"
            )
        self.sample_rate = sample_rate
        self.window_seconds = window_seconds
        self.hop_seconds = hop_seconds
        self.num_mels = num_mels
        self.max_frequency = max_frequency
        self.window_length = math.floor(window_seconds * sample_rate + _ROUNDING)
        self.mean = mean
        self.std = std
        self.register_buffer("window", torch.hann_window(self.window_length, periodic=True), persistent=False)
        filterbank = mel_filterbank(
            sample_rate=sample_rate, n_fft=self.window_length, num_mels=num_mels, max_frequency=max_frequency
        )
        # A spectrum of the same sound grows with the sample rate: power by its square.
        self.register_buffer("filterbank", filterbank * (_REFERENCE_RATE / sample_rate) ** 2, persistent=False)

    def cache_key(self) -> dict[str, Any]:
        """Return what the spectrograms depend on beside the sound, as plain data."""
        return {
            "class": "LogMel",
            "sample_rate": self.sample_rate,
            "window_seconds": self.window_seconds,
            "hop_seconds": self.hop_seconds,
            "num_mels": self.num_mels,
            "max_frequency": self.max_frequency,
            "mean": self.mean,
            "std": self.std,
        }

    def num_frames(self, num_samples: int) -> int:
        """Return how many frames the spectrogram of so many samples has.

        Example:
            >>> LogMel().num_frames(32000), LogMel(sample_rate=48000).num_frames(24000)
            (125, 31)
        """
        return self._whole_hops(num_samples)

    def mel_power(self, audio: Tensor) -> Tensor:
        """Return the power in each mel bin, (B, F, windows), of sound (B, S).

        Raises:
            ValueError: If the sound is not (B, S) or is shorter than one window.
        """
        if audio.ndim != 2 or audio.shape[1] < self.window_length:
            raise ValueError(
                f"sound must have the shape (B, S) with S >= {self.window_length}, got {tuple(audio.shape)}"
            )
        wave = audio / 32768 if audio.dtype == torch.int16 else audio.float()
        num_windows = 1 + self._whole_hops(wave.shape[1] - self.window_length)
        hop = self.hop_seconds * self.sample_rate
        if hop.is_integer():
            windows = wave.unfold(1, self.window_length, int(hop))
        else:  # each window at its own time, to the nearest sample, so that hops do not add up to another length
            starts = (torch.arange(num_windows, dtype=torch.float64, device=wave.device) * hop).round().long()
            windows = wave[:, starts[:, None] + torch.arange(self.window_length, device=wave.device)]
        with torch.autocast(audio.device.type, enabled=False):
            spectrum = torch.fft.rfft(windows * self.window)
            power: Tensor = spectrum.abs().square() @ self.filterbank
            return power.transpose(1, 2)

    def forward(self, audio: Tensor) -> Tensor:
        """Return log-mel spectrograms.

        Args:
            audio: Sound (B, S), int16 or floating point from -1 to 1.

        Returns:
            float32 (B, 1, frames, F), with `num_frames` of S frames.

        Raises:
            ValueError: If the sound is not (B, S) or is shorter than one window.
        """
        log_mel = self.mel_power(audio).clamp_min(1e-10).log().transpose(1, 2)
        frames = evenly_spaced(log_mel.shape[1], self.num_frames(audio.shape[1]), device=audio.device)
        return ((log_mel[:, frames] - self.mean) / self.std).unsqueeze(1)

    def _whole_hops(self, num_samples: int) -> int:
        return math.floor(num_samples / (self.hop_seconds * self.sample_rate) + _ROUNDING)


def mel_filterbank(*, sample_rate: int, n_fft: int, num_mels: int, max_frequency: float) -> Tensor:
    """Return triangular filters (n_fft / 2 + 1, num_mels), of peak 1 and equal width on the HTK mel scale.

    They reach from 0 to `max_frequency`; mel(f) = 2595 log10(1 + f / 700).

    Example:
        >>> mel_filterbank(sample_rate=16000, n_fft=512, num_mels=80, max_frequency=8000).shape
        torch.Size([257, 80])
    """
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * (sample_rate / n_fft)
    mel_points = torch.linspace(0, 2595 * math.log10(1 + max_frequency / 700), num_mels + 2, dtype=torch.float64)
    edges = 700 * (10 ** (mel_points / 2595) - 1)
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp_min(0).float()


def evenly_spaced(num_items: int, num_picks: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Return `num_picks` indices from 0 to `num_items` - 1, evenly spaced and rounded down, int64.

    Args:
        num_items: Of what is picked from.
        num_picks: How many.
        device: Where they are made: sent there, they would be waited for.

    Example:
        >>> evenly_spaced(4, 6)
        tensor([0, 0, 1, 1, 2, 3])
    """
    return torch.arange(num_picks, device=device) * (num_items - 1) // max(num_picks - 1, 1)


class VideoCrop(nn.Module):
    """Resize, crop, flip and normalize clips, with draws of their own for each sample.

    The short side is scaled to a whole number of pixels, the long side with it, rounded down; a square is cut at whole
    pixels of the resized frame. Sizes, places and flips are uniform, the same for all frames of a clip. Scaling is
    bilinear with anti-aliasing, so it is right in both directions; only the pixels that the crop needs are computed.

    Args:
        crop_size: Side of the square, pixels.
        min_short_side: Smallest short side before the crop, pixels.
        max_short_side: Largest, included.
        flip: Mirror every other clip.
        color_jitter: Strength c from 0 (none) to 1. A clip's brightness, contrast and saturation are multiplied by
            factors in [1 - c, 1 + c] and its hue is turned by up to c / 4 of the circle.
        min_area: Crop a box of random area and shape in place of a square from a random short side, and scale it to the
            square. Its share of the picture's area is uniform from this to 1, its width over its height from 3 / 4 to
            4 / 3 (uniform in the logarithm), as far as it fits into the picture. The short sides are not used then.
        mean: Of red, green, blue in [0, 1], subtracted.
        std: Divided by.
        random: Without it the short side becomes 8 / 7 of the crop, the crop is the centre, nothing is flipped or
            jittered.

    Raises:
        ValueError: If not 0 < crop_size <= min_short_side <= max_short_side (when random), `color_jitter` is outside
            [0, 1], or `min_area` outside (0, 1].

    Source: the original code of the paper, arXiv 2209.13583: short side 128 to 180, crop 112, flip. Boxes of random
    area are those of Szegedy et al., "Going Deeper with Convolutions", CVPR 2015.

    Example:
        >>> video = torch.zeros(2, 8, 128, 228, 3, dtype=torch.uint8)
        >>> VideoCrop()(video, torch.tensor([7, 8]), None).shape
        torch.Size([2, 3, 8, 112, 112])
    """

    mean: Tensor
    std: Tensor
    aspect_ratios: Tensor
    rgb_to_yiq: Tensor
    yiq_to_rgb: Tensor

    def __init__(
        self,
        *,
        crop_size: int = 112,
        min_short_side: int = 128,
        max_short_side: int = 180,
        flip: bool = True,
        color_jitter: float = 0.0,
        min_area: float | None = None,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        random: bool = True,
    ) -> None:
        super().__init__()
        if min_area is not None and not 0 < min_area <= 1:
            raise ValueError(f"min_area must be above 0 and at most 1, got {min_area}")
        if not random:
            min_short_side = max_short_side = round(crop_size * 8 / 7)
        elif min_area is not None:
            min_short_side = max_short_side = crop_size
        if not 0 < crop_size <= min_short_side <= max_short_side:
            raise ValueError(
                "need 0 < crop_size <= min_short_side <= max_short_side, "
                f"got {crop_size}, {min_short_side}, {max_short_side}"
            )
        if not 0 <= color_jitter <= 1:
            raise ValueError(f"color_jitter must be from 0 to 1, got {color_jitter}")
        self.crop_size = crop_size
        self.min_short_side = min_short_side
        self.max_short_side = max_short_side
        self.flip = flip
        self.color_jitter = color_jitter
        self.random = random
        self.min_area = min_area if random else None
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1, 1), persistent=False)
        # here and not where it is used: the host waits for a GPU's inverse, and for what it sends there
        self.register_buffer("rgb_to_yiq", torch.tensor(_RGB_TO_YIQ), persistent=False)
        self.register_buffer("yiq_to_rgb", torch.linalg.inv(self.rgb_to_yiq), persistent=False)
        self.register_buffer("aspect_ratios", torch.tensor(_ASPECT_RATIOS, dtype=torch.float64), persistent=False)

    def cache_key(self) -> dict[str, Any]:
        """Return what the inputs depend on beside clip and seed, as plain data."""
        return {
            "class": "VideoCrop",
            "crop_size": self.crop_size,
            "min_short_side": self.min_short_side,
            "max_short_side": self.max_short_side,
            "flip": self.flip,
            "color_jitter": self.color_jitter,
            "random": self.random,
            "mean": self.mean.flatten().tolist(),
            "std": self.std.flatten().tolist(),
            **({} if self.min_area is None else {"min_area": self.min_area}),
        }

    @torch.no_grad()
    def forward(self, video: Tensor, seed: Tensor, video_size: Tensor | None = None, *, stream: int = 0) -> Tensor:
        """Return model inputs.

        Args:
            video: Frames, uint8 (B, T, H, W, 3).
            seed: int64 (B,), the only source of randomness.
            video_size: int64 (B, 2), height and width of the part of each sample's frames, from the top left, that is
                picture; None where all of it is.
            stream: Which of the seed's independent draws to take: clips of one sample with one stream share crop, flip
                and jitter.

        Returns:
            float32 (B, 3, T, crop_size, crop_size), contiguous.

        Raises:
            ValueError: If a shape or dtype is another, or the pictures are smaller than a crop.
        """
        if video.ndim != 5 or video.shape[4] != 3 or video.dtype != torch.uint8:
            raise ValueError(f"video must be uint8 (B, T, H, W, 3), got {video.dtype} {tuple(video.shape)}")
        num_samples, _, height, width, _ = video.shape
        if min(height, width) < self.crop_size:
            raise ValueError(f"crops of {self.crop_size} pixels need pictures as large, got {width} x {height}")
        if video_size is None:
            # filled on the device: numbers sent there from the host would be waited for
            sizes = [torch.full((num_samples,), length, device=video.device) for length in (height, width)]
            video_size = torch.stack(sizes, dim=1)
        if seed.shape != (num_samples,) or video_size.shape != (num_samples, 2):
            raise ValueError(
                f"need a seed and a size for each of {num_samples} samples, got {seed.shape}, {video_size.shape}"
            )
        seed, video_size = seed.to(video.device), video_size.to(video.device)
        draws = random_integers(seed, num_draws=8, stream=stream)
        resized, corner, mirrored = self._boxes(draws, video_size)

        # Side of a window of source pixels that holds any crop, from plain numbers: the device need not be waited for.
        # Rounding the long side down can scale it a little smaller than the short side, by less than one pixel of it.
        largest_scale = min(height, width) / max(self.min_short_side - 1, 1)
        side = math.floor((self.crop_size - 1) * largest_scale) + 2 * max(1, math.ceil(largest_scale)) + 2
        if self.min_area is not None:
            side = max(height, width)  # a box may be as large as the picture
        axis_y, axis_x = (
            _bilinear_weights(*sizes, num_out=self.crop_size, num_in=min(side, length), length=length)
            for *sizes, length in zip(video_size.T, resized.T, corner.T, (height, width), strict=True)
        )
        weights_x = torch.where(mirrored[:, None, None], axis_x.weights.flip(1), axis_x.weights)
        axis_x = replace(axis_x, weights=weights_x / 255)
        with torch.autocast(video.device.type, enabled=False):
            resample = _resample_by_slice if video.device.type == "cpu" else _resample_by_index
            crops = resample(video, axis_y, axis_x)
            if self.random and self.color_jitter > 0:
                factors = _unit(draws[:, 4:8]) * 2 - 1
                crops = _jitter_colors(crops, factors, self.rgb_to_yiq, self.yiq_to_rgb, strength=self.color_jitter)
            return crops.sub_(self.mean).div_(self.std)

    def _boxes(self, draws: Tensor, video_size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the resized frames' sizes (B, 2), the crops' corners (B, 2), both (y, x), and which are mirrored."""
        if self.min_area is None:
            short_side = self.min_short_side + below(draws[:, 0], self.max_short_side - self.min_short_side + 1)
            resized = video_size * short_side[:, None] // video_size.amin(dim=1, keepdim=True)
        else:
            resized = self._scaled_to_a_box(draws[:, 0], video_size, min_area=self.min_area)
        room = resized - self.crop_size
        if not self.random:
            return resized, room // 2, torch.zeros_like(draws[:, 0], dtype=torch.bool)
        mirrored = below(draws[:, 3], 2).bool() if self.flip else torch.zeros_like(draws[:, 0], dtype=torch.bool)
        return resized, below(draws[:, 1:3], room + 1), mirrored

    def _scaled_to_a_box(self, draws: Tensor, video_size: Tensor, *, min_area: float) -> Tensor:
        """Return the sizes (B, 2) of pictures scaled so that a box of random area and shape fills the crop."""
        height, width = video_size.double().unbind(dim=1)
        # by the draw's low bits; the area has the others
        ratio = self.aspect_ratios[below((draws & 0x7FFF) << 16, len(_ASPECT_RATIOS))]
        largest = torch.minimum(ratio * height / width, width / (height * ratio)).clamp_max(1)  # share that still fits
        smallest = largest.clamp_max(min_area)
        share = smallest + (largest - smallest) * ((draws >> 15) / 2.0**16)
        area = share * height * width
        box = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()], dim=1)
        return (video_size * self.crop_size / box).round().long().clamp_min(self.crop_size)


def _unit(draws: Tensor) -> Tensor:
    """Turn draws in [0, 2^31) into floats in [0, 1]."""
    return draws.float() / 2**31


@dataclass(frozen=True, slots=True)
class _Axis:
    """Resampling along one axis: each pixel of the crop is a weighted sum over a window of the source."""

    first: Tensor  # first source pixel of the window, int64 (B,)
    used: Tensor  # how many of the window's pixels matter, int64 (B,)
    weights: Tensor  # float32 (B, crop pixels, window pixels)


def _bilinear_weights(
    source_size: Tensor, resized_size: Tensor, corner: Tensor, *, num_out: int, num_in: int, length: int
) -> _Axis:
    """Return anti-aliased bilinear resampling along one axis.

    Args:
        source_size: Pixels of the source, (B,).
        resized_size: Pixels after resizing, (B,).
        corner: First pixel of the crop in the resized frame, (B,).
        num_out: Pixels of the crop.
        num_in: Pixels of the window; enough for any sample.
        length: Pixels of the frame that holds the source, which may be larger.
    """
    target = corner[:, None] + torch.arange(num_out, device=corner.device)
    # Centre of a target pixel in the source, (target + 1/2) source / resized, as a whole number and a fraction: exact.
    numerator, denominator = source_size[:, None] * (2 * target + 1), 2 * resized_size[:, None]
    whole, fraction = numerator // denominator, numerator % denominator / denominator
    reach = (source_size / resized_size).clamp_min(1)
    margin = reach.ceil().long()
    first = (whole[:, 0] - margin).clamp(0, length - num_in)
    used = (whole[:, -1] + margin + 1 - first).clamp_max(num_in)
    source = first[:, None, None] + torch.arange(num_in, device=corner.device)
    distance = (source - whole[:, :, None]) + (0.5 - fraction[:, :, None])
    weights = (1 - distance.abs() / reach[:, None, None]).clamp_min(0)
    weights = weights.masked_fill(source >= source_size[:, None, None], 0)
    return _Axis(first, used, weights / weights.sum(dim=2, keepdim=True))


def _resample_by_slice(video: Tensor, axis_y: _Axis, axis_x: _Axis) -> Tensor:
    """Resample (B, T, H, W, 3) -> (B, 3, T, crop, crop): for the CPU, sample by sample, so that all stays in cache."""
    num_samples, num_frames = video.shape[:2]
    size = axis_y.weights.shape[1]
    crops = torch.empty(num_samples, 3, num_frames, size, size)
    windows = torch.stack([axis_y.first, axis_x.first, axis_y.used, axis_x.used], dim=1).tolist()
    for i, (top, left, height, width) in enumerate(windows):
        window = video[i, :, top : top + height, left : left + width].permute(1, 3, 0, 2)
        rows = axis_y.weights[i, :, :height] @ window.float().reshape(height, -1)
        crop = rows.view(-1, width) @ axis_x.weights[i, :, :width].T
        crops[i] = crop.view(size, 3, num_frames, size).permute(1, 2, 0, 3)
    return crops


def _resample_by_index(video: Tensor, axis_y: _Axis, axis_x: _Axis) -> Tensor:
    """Do the same for a GPU: all samples at once, and without asking the device where the windows are."""
    num_samples, num_frames = video.shape[:2]
    size, height = axis_y.weights.shape[1:]
    width, device = axis_x.weights.shape[2], video.device
    sample = torch.arange(num_samples, device=device)[:, None, None, None]
    frame = torch.arange(num_frames, device=device)[:, None]
    row = axis_y.first[:, None, None, None] + torch.arange(height, device=device)[:, None, None]
    column = axis_x.first[:, None, None, None] + torch.arange(width, device=device)
    windows = video[sample, frame, row, column].permute(0, 1, 4, 2, 3)  # (B, height, 3, T, width)
    rows = torch.bmm(axis_y.weights, windows.float().reshape(num_samples, height, -1))
    crops = torch.bmm(rows.view(num_samples, -1, width), axis_x.weights.transpose(1, 2))
    return crops.view(num_samples, size, 3, num_frames, size).permute(0, 2, 3, 1, 4).contiguous()


def _jitter_colors(video: Tensor, draws: Tensor, rgb_to_yiq: Tensor, yiq_to_rgb: Tensor, *, strength: float) -> Tensor:
    """Change brightness, contrast, saturation and hue of clips (B, 3, T, H, W) in [0, 1] by draws (B, 4) in [-1, 1].

    All four are linear in the colours, so they are one 3 x 3 matrix and one offset a clip. Contrast is around the
    clip's mean grey; hue is a turn of the chroma plane (I, Q) of YIQ, which leaves grey and luma as they are.
    """
    brightness, contrast, saturation = (1 + strength * draws[:, :3]).unbind(dim=1)
    angle = 2 * math.pi * strength / 4 * draws[:, 3]
    turn = torch.zeros(len(video), 3, 3, device=video.device)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = saturation * angle.cos()
    turn[:, 2, 1] = saturation * angle.sin()
    turn[:, 1, 2] = -turn[:, 2, 1]
    matrix = yiq_to_rgb @ turn @ rgb_to_yiq * (brightness * contrast)[:, None, None]
    grey = video.mean(dim=(2, 3, 4)) @ rgb_to_yiq[0]
    offset = (1 - contrast) * brightness * grey
    return (torch.bmm(matrix, video.flatten(2)) + offset[:, None, None]).view_as(video).clamp_(0, 1)
