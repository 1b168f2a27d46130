r"""Augmentation of the sound for pretraining: loudness, the sound of another sample, and masks over the spectrogram.

In the path of a sample it stands around the log-mel of `earmark.clips.transforms`, on the device of the model. Like a
crop, what is drawn for a sample is a function of its own seed, computed in integers. A sample's sound :math:`x_i` of
energy :math:`E_i = \frac1S \sum_t x_i(t)^2` becomes

.. math::
    x_i' = 10^{g_i / 20} \Bigl( x_i + m_i \sqrt{\tfrac{E_i}{E_j}}\, 10^{-r_i / 20} x_j \Bigr), \qquad
    g_i \sim U(-G, G), \quad m_i \sim B(p), \quad r_i \sim U(r_0, r_1),

then its log-mel spectrogram, of which runs of frames and of mel bins are replaced by the spectrogram's mean.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from earmark.clips.spectrograms import MelSpectrogram
from earmark.clips.splitmix64 import below, random_integers, unit
from earmark.clips.transforms import LogMel

__all__ = ["AugmentedLogMel", "SoundAugmentation", "change_loudness", "mask_spectrograms", "mix_sounds"]

MAX_GAIN_DB = 60.0  # beyond it, sound of 16 bits would end at the floor of the log-mel, or at numbers without a power
MAX_SNR_DB = 60.0
NEIGHBOURS = 8  # samples that are mixed with one another
SILENCE = 1 / 32768  # root mean square below one step of 16 bits: made louder, it would be the noise of rounding
# Streams of a seed's draws: 0 and 1 are those of the crops. One for each part, so that a part draws alike whichever
# others are on.
_LOUDNESS, _MIX, _TIME_MASKS, _MEL_MASKS = 2, 3, 4, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundAugmentation:
    """What is done to the sound; by default nothing.

    Attributes:
        gain_db: The sound is made louder or softer by up to so many dB.
        mix: Probability that the sound of another sample is mixed in.
        mix_snr_db: Lowest and highest ratio of a sample's own sound to what is mixed in, dB.
        time_masks: Runs of frames that are masked in each spectrogram.
        time_width: Most frames of such a run.
        mel_masks: Runs of mel bins that are masked.
        mel_width: Most mel bins of such a run.

    Raises:
        ValueError: If a number is out of range, or masks have no width.

    Example:
        >>> SoundAugmentation(mix=0.5).changes_wave, SoundAugmentation().changes_anything
        (True, False)
    """

    gain_db: float = 0.0
    mix: float = 0.0
    mix_snr_db: tuple[float, float] = (5.0, 20.0)
    time_masks: int = 0
    time_width: int = 20
    mel_masks: int = 0
    mel_width: int = 10

    def __post_init__(self) -> None:
        _require_gain(self.gain_db)
        _require_mix(self.mix, self.mix_snr_db)
        _require_masks(self.time_masks, self.time_width, self.mel_masks, self.mel_width)

    @property
    def changes_wave(self) -> bool:
        """Whether the sound is changed before its spectrogram is made."""
        return self.gain_db > 0 or self.mix > 0

    @property
    def changes_anything(self) -> bool:
        """Whether any part is on."""
        return self.changes_wave or self.time_masks > 0 or self.mel_masks > 0


class AugmentedLogMel(nn.Module):
    """Log-mel spectrograms of augmented sound.

    Args:
        log_mel: Makes the spectrograms; an encoder may have one of its own.
        augmentation: What is done to the sound before, and to the spectrogram after.

    Example:
        >>> augmented = AugmentedLogMel(LogMel(), SoundAugmentation(gain_db=6, mix=0.5, time_masks=2))
        >>> augmented(torch.ones(2, 32000, dtype=torch.int16), torch.tensor([7, 8])).shape
        torch.Size([2, 1, 125, 80])
    """

    def __init__(self, log_mel: LogMel | MelSpectrogram, augmentation: SoundAugmentation) -> None:
        super().__init__()
        self.log_mel, self.augmentation = log_mel, augmentation

    def forward(self, audio: Tensor, seed: Tensor) -> Tensor:
        """Return spectrograms.

        Args:
            audio: Sound (B, S), int16 or floating point from -1 to 1.
            seed: int64 (B,), the only source of randomness.

        Returns:
            float32 (B, 1, frames, F).

        Raises:
            ValueError: If the sound is too short for a window, masks could hide all of it, or there is no other sample
                to mix in.
        """
        options = self.augmentation
        if options.mix > 0:
            audio = mix_sounds(audio, seed, probability=options.mix, snr_db=options.mix_snr_db)
        if options.gain_db > 0:
            audio = change_loudness(audio, seed, max_gain_db=options.gain_db)
        spectrograms: Tensor = self.log_mel(audio)
        if options.time_masks or options.mel_masks:
            spectrograms = mask_spectrograms(
                spectrograms,
                seed,
                time_masks=options.time_masks,
                time_width=options.time_width,
                mel_masks=options.mel_masks,
                mel_width=options.mel_width,
            )
        return spectrograms


def change_loudness(audio: Tensor, seed: Tensor, *, max_gain_db: float) -> Tensor:
    r"""Make each sound louder or softer: :math:`10^{g / 20} x` with :math:`g \sim U(-G, G)`.

    Nothing is clipped: floating-point sound may exceed 1, and its log-mel is that of the softer sound plus
    :math:`g \ln 10 / 10`, before `LogMel` standardises it with its fixed mean and deviation. No step after it is
    relative to the loudness of a sample, so nothing undoes the gain.

    Args:
        audio: Sound (B, S), int16 or floating point from -1 to 1.
        seed: int64 (B,), the only source of randomness.
        max_gain_db: G, from 0 to 60.

    Returns:
        float32 (B, S).

    Raises:
        ValueError: If the shapes do not fit each other, or the gain is out of range.

    Example:
        >>> change_loudness(torch.full((2, 3), 0.5), torch.tensor([7, 8]), max_gain_db=6.0)[:, 0]
        tensor([0.5832, 0.7818])
    """
    _require_gain(max_gain_db)
    wave, seed = _wave(audio), _seed_of(seed, audio)
    gain_db = (2 * unit(random_integers(seed, num_draws=1, stream=_LOUDNESS)) - 1) * max_gain_db
    return wave * _amplitude(gain_db).float()


def mix_sounds(audio: Tensor, seed: Tensor, *, probability: float, snr_db: tuple[float, float]) -> Tensor:
    r"""Mix the sound of another sample into some: :math:`x_i + \sqrt{E_i / E_j}\, 10^{-r / 20} x_j`.

    The ratio of the energies :math:`E = \frac1S \sum_t x(t)^2` of both parts is then r dB, drawn from
    :math:`U(r_0, r_1)`. Nothing is clipped. Silence stays as it is, and what is below
    one step of 16 bits (-90 dB) counts as silence, which is not mixed in.

    The other sample is one of the neighbours in the batch: its samples, whose order is random, are taken eight by
    eight, those that are left at the end with the last eight. So processes whose shares of a batch are multiples of
    eight mix as one process does; others mix within their share, too, but not the same.

    Args:
        audio: Sound (B, S), int16 or floating point from -1 to 1.
        seed: int64 (B,), the only source of randomness.
        probability: That a sample has another mixed in.
        snr_db: r_0 and r_1, from -60 to 60: the lower, the louder is the other.

    Returns:
        float32 (B, S).

    Raises:
        ValueError: If the shapes do not fit each other, a number is out of range, or there is one sample only.

    Example:
        >>> sounds = torch.tensor([[0.5, -0.5, 0.5, -0.5], [0.2, 0.2, -0.2, -0.2]])
        >>> mix_sounds(sounds, torch.tensor([7, 8]), probability=1.0, snr_db=(20.0, 20.0))
        tensor([[ 0.5500, -0.4500,  0.4500, -0.5500],
                [ 0.2200,  0.1800, -0.1800, -0.2200]])
    """
    _require_mix(probability, snr_db)
    wave, seed = _wave(audio), _seed_of(seed, audio)
    num_samples, (lowest, highest) = len(wave), snr_db
    if num_samples < 2:
        raise ValueError("mixing in the sound of another sample needs at least two samples, got one")
    draws = random_integers(seed, num_draws=3, stream=_MIX)
    place = torch.arange(num_samples, device=wave.device)
    last = max(num_samples // NEIGHBOURS - 1, 0)  # of the blocks; what is left over belongs to it
    block = (place // NEIGHBOURS).clamp_max(last)
    size = NEIGHBOURS + (block == last) * (num_samples - (last + 1) * NEIGHBOURS)
    first = block * NEIGHBOURS
    other = first + (place - first + 1 + below(draws[:, 1], size - 1)) % size

    # Exact for sound of 16 bits, in whatever order the device adds.
    loudness = wave.double().square().mean(dim=1, keepdim=True).sqrt()
    of_other = loudness[other]
    chosen = (unit(draws[:, :1]) < probability) & (of_other >= SILENCE)
    ratio = loudness / torch.where(chosen, of_other, torch.ones_like(of_other))
    scale = ratio * _amplitude(-(lowest + (highest - lowest) * unit(draws[:, 2:])))
    return torch.where(chosen, wave + scale.float() * wave[other], wave)


def mask_spectrograms(
    spectrograms: Tensor,
    seed: Tensor,
    *,
    time_masks: int = 0,
    time_width: int = 20,
    mel_masks: int = 0,
    mel_width: int = 10,
) -> Tensor:
    """Replace runs of frames and runs of mel bins by the mean of each spectrogram.

    A run is w long, uniform from 0 to its largest width W, and starts anywhere from 0 to L - w, uniformly, of L frames
    or bins; runs may overlap. The mean is that of the sample's own spectrogram, over all its frames and bins before
    they are masked: the 0 that stands for the mean of the data can be far from what a sample sounds like, so that a
    mask would be an event of its own.

    Args:
        spectrograms: (B, 1, frames, F).
        seed: int64 (B,), the only source of randomness.
        time_masks: Runs of frames.
        time_width: Most frames of a run.
        mel_masks: Runs of mel bins.
        mel_width: Most mel bins of a run.

    Returns:
        The same with masks, (B, 1, frames, F).

    Raises:
        ValueError: If the shapes do not fit each other, a number is out of range, or the masks together could hide all
            frames or all bins.

    Source: SpecAugment, Park et al., Interspeech 2019, arXiv 1904.08779, section 2, without time warping. There a run
    starts below L - w, and the spectrogram has been brought to mean 0.

    Example:
        >>> frames = torch.arange(6.0).view(1, 1, 6, 1)
        >>> mask_spectrograms(frames, torch.tensor([3]), time_masks=1, time_width=3).flatten()
        tensor([0.0000, 2.5000, 2.5000, 2.5000, 4.0000, 5.0000])
    """
    _require_masks(time_masks, time_width, mel_masks, mel_width)
    if spectrograms.ndim != 4 or spectrograms.shape[1] != 1:
        raise ValueError(f"spectrograms must have the shape (B, 1, frames, F), got {tuple(spectrograms.shape)}")
    seed = _seed_of(seed, spectrograms)
    num_frames, num_mels = spectrograms.shape[2:]
    for what, length, masks, width in (
        ("frames", num_frames, time_masks, time_width),
        ("mel bins", num_mels, mel_masks, mel_width),
    ):
        if masks * width >= length:
            raise ValueError(f"{masks} masks of up to {width} {what} could hide all {length} of a spectrogram")
    frames = _runs(seed, num_frames, num_runs=time_masks, max_width=time_width, stream=_TIME_MASKS)
    bins = _runs(seed, num_mels, num_runs=mel_masks, max_width=mel_width, stream=_MEL_MASKS)
    hidden = (frames[:, :, None] | bins[:, None, :]).unsqueeze(1)
    mean = spectrograms.double().mean(dim=(1, 2, 3), keepdim=True).to(spectrograms.dtype)
    return torch.where(hidden, mean, spectrograms)


def _runs(seed: Tensor, length: int, *, num_runs: int, max_width: int, stream: int) -> Tensor:
    """Return which of `length` places lie in any of some random runs, bool (B, length)."""
    place = torch.arange(length, device=seed.device)
    draws = random_integers(seed, num_draws=2 * num_runs, stream=stream)
    width = below(draws[:, :num_runs], max_width + 1)
    start = below(draws[:, num_runs:], length - width + 1)
    return ((place >= start[:, :, None]) & (place < (start + width)[:, :, None])).any(dim=1)


def _amplitude(decibels: Tensor) -> Tensor:
    """Return the factors of amplitude that numbers in dB are."""
    return (decibels * (math.log(10) / 20)).exp()


def _wave(audio: Tensor) -> Tensor:
    """Return sound (B, S) as float32 with full scale at 1."""
    if audio.ndim != 2:
        raise ValueError(f"sound must have the shape (B, S), got {tuple(audio.shape)}")
    return audio / 32768 if audio.dtype == torch.int16 else audio.float()


def _seed_of(seed: Tensor, samples: Tensor) -> Tensor:
    if seed.shape != (len(samples),):
        raise ValueError(f"need a seed for each of {len(samples)} samples, got {tuple(seed.shape)}")
    return seed.to(samples.device)


def _require_gain(gain_db: float) -> None:
    if not 0 <= gain_db <= MAX_GAIN_DB:
        raise ValueError(f"a gain must be from 0 to {MAX_GAIN_DB:g} dB, got {gain_db}")


def _require_mix(probability: float, snr_db: Sequence[float]) -> None:
    if not 0 <= probability <= 1:
        raise ValueError(f"the probability of mixing must be from 0 to 1, got {probability}")
    if len(snr_db) != 2 or not -MAX_SNR_DB <= snr_db[0] <= snr_db[1] <= MAX_SNR_DB:
        raise ValueError(
            f"the ratio of sounds must be the lowest and the highest, from {-MAX_SNR_DB:g} to {MAX_SNR_DB:g} dB, "
            f"got {list(snr_db)}"
        )


def _require_masks(time_masks: int, time_width: int, mel_masks: int, mel_width: int) -> None:
    if min(time_masks, mel_masks) < 0:
        raise ValueError(f"numbers of masks can't be negative, got {time_masks} and {mel_masks}")
    if min(time_width, mel_width) < 1:
        raise ValueError(f"masks must be at least 1 wide, got {time_width} frames and {mel_width} mel bins")
