"""What sounds are made of: modal impacts of materials, friction, liquid, bands of noise, voices.

sound.py mixes them. An impact is modal: decaying sines whose
frequencies and decays belong to the material and, by a seed called its voice, to the thing, plus the broad click of the
contact. All waves are float64 at an arbitrary level; callers scale them.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.signal import butter, sosfilt

Wave: TypeAlias = npt.NDArray[np.float64]

_LOOP_SECONDS = 11.0


@dataclass(frozen=True, slots=True)
class Material:
    """How a struck material rings.

    Attributes:
        lowest_hz: Frequency of its lowest mode at usual size.
        num_modes: Number of modes.
        stretch: Exponent of the mode number: over 1 the modes grow apart, as those of bars and plates do.
        decay_seconds: Time in which the lowest mode falls by 1/e; higher ones fall faster.
        click: Level of the broad click beside the modes.
        gain_db: How loud it is against the others when struck alike.
    """

    lowest_hz: float
    num_modes: int
    stretch: float
    decay_seconds: float
    click: float
    gain_db: float


MATERIALS: dict[str, Material] = {
    "wood": Material(170, 9, 1.25, 0.055, 0.5, 0.0),
    "metal": Material(620, 14, 1.2, 0.3, 0.45, 2.0),
    "ceramic": Material(1150, 8, 1.35, 0.11, 0.5, 0.0),
    "glass": Material(2100, 7, 1.3, 0.2, 0.5, 0.0),
    "plastic": Material(380, 8, 1.15, 0.028, 0.6, -2.0),
    "food": Material(120, 6, 1.1, 0.022, 0.7, -3.0),
    "fabric": Material(90, 4, 1.1, 0.014, 0.9, -8.0),
}


def sample_times(seconds: float, sample_rate: int) -> Wave:
    """Return the times of the samples of so many seconds."""
    return np.arange(round(seconds * sample_rate)) / sample_rate


def filtered_noise(rng: np.random.Generator, seconds: float, sample_rate: int, band: tuple[float, float]) -> Wave:
    """Return filtered noise of unit power."""
    top = min(band[1], 0.45 * sample_rate)
    filters = butter(2, (min(band[0], 0.5 * top), top), "bandpass", fs=sample_rate, output="sos")
    noise: Wave = sosfilt(filters, rng.standard_normal(round(seconds * sample_rate)))
    level = float(noise.std())
    return noise / level


def impact(
    material: str, voice: int, rng: np.random.Generator, sample_rate: int, *, pitch: float = 1.0, damping: float = 1.0
) -> Wave:
    """Return one blow that begins at sample 0; `damping` over 1 shortens the ring, as a hand on the thing does."""
    kind = MATERIALS[material]
    own = np.random.default_rng(voice)
    numbers = np.arange(1, kind.num_modes + 1)
    frequencies = kind.lowest_hz * own.uniform(0.85, 1.2) * pitch * numbers**kind.stretch
    frequencies = frequencies * own.uniform(0.93, 1.07, len(numbers))
    decays = kind.decay_seconds / damping / numbers**0.4
    gains = own.uniform(0.4, 1.0, len(numbers)) / numbers**0.45 * rng.uniform(0.7, 1.3, len(numbers))
    times = sample_times(min(1.2, 6 * float(decays[0]) + 0.06), sample_rate)
    wave = np.zeros(len(times))
    for frequency, decay, gain in zip(frequencies, decays, gains, strict=True):
        if frequency < 0.45 * sample_rate:
            wave += gain * np.exp(-times / decay) * np.sin(2 * np.pi * frequency * times)
    burst = rng.standard_normal(len(times)) * np.exp(-times / 0.006)
    return wave / attack_level(wave, sample_rate) + kind.click * burst / attack_level(burst, sample_rate)


def attack_level(wave: Wave, sample_rate: int) -> float:
    """Return the root mean square of the first 30 ms."""
    return float(np.sqrt(np.mean(wave[: round(0.03 * sample_rate)] ** 2)))


def add_at(base: Wave, wave: Wave, at: int) -> Wave:
    """Return `base` with `wave` added from sample `at` on, made longer where needed."""
    total = np.zeros(max(len(base), at + len(wave)))
    total[: len(base)] = base
    total[at : at + len(wave)] += wave
    return total


def friction(
    rng: np.random.Generator, seconds: float, sample_rate: int, band: tuple[float, float], *, stick_hz: float
) -> Wave:
    """Return something sliding: noise that sticks and slips at a rate, swelling and fading."""
    times = sample_times(seconds, sample_rate)
    rate = stick_hz * (1 + 0.4 * np.sin(np.pi * times / seconds))
    slips = 0.55 + 0.45 * np.sin(2 * np.pi * np.cumsum(rate) / sample_rate + rng.uniform(0, 6))
    bell: Wave = np.sin(np.pi * times / seconds)
    return filtered_noise(rng, seconds, sample_rate, band) * slips * bell


def bubbles(rng: np.random.Generator, seconds: float, sample_rate: int, lowest_hz: float) -> Wave:
    """Return a liquid filling a vessel: a splash, then many short rising tones whose pitch climbs with the level."""
    times = sample_times(seconds, sample_rate)
    wave = 0.35 * filtered_noise(rng, seconds, sample_rate, (900, 7000)) * np.minimum(1, (seconds - times) / 0.1)
    for _ in range(round(90 * seconds)):
        begin = rng.uniform(0, seconds - 0.06)
        pitch = lowest_hz * (1 + 1.2 * begin / seconds) * rng.uniform(0.7, 1.6)
        short = sample_times(0.05, sample_rate)
        tone = np.sin(2 * np.pi * pitch * short * (1 + 3 * short)) * np.exp(-short / 0.012) * rng.uniform(0.2, 1)
        first = round(begin * sample_rate)
        wave[first : first + len(tone)] += tone
    return wave


def noise_loop(rng: np.random.Generator, num_samples: int, sample_rate: int, band: tuple[float, float]) -> Wave:
    """Return noise of unit power in a band with soft edges; a seamless loop, so its cost doesn't grow with length."""
    length = min(num_samples, round(_LOOP_SECONDS * sample_rate))
    frequencies = np.fft.rfftfreq(length, 1 / sample_rate)
    shape = 1 / (1 + (band[0] / np.maximum(frequencies, 1)) ** 4) / (1 + (frequencies / band[1]) ** 4)
    spectrum = np.fft.rfft(rng.standard_normal(length)) * shape
    noise = np.fft.irfft(spectrum, length)
    tiled: Wave = np.resize(noise / noise.std(), num_samples)
    return tiled


def voice(rng: np.random.Generator, seconds: float, sample_rate: int) -> Wave:
    """Return talk-like babble of unit power: a gliding pitch, harmonics shaped by vowels that change by syllable."""
    times = sample_times(seconds, sample_rate)
    knots = np.arange(0.0, seconds + 0.5, 0.22)  # a syllable each
    pitch = rng.uniform(95, 210) * np.interp(times, knots, rng.uniform(0.85, 1.2, len(knots)))
    formants = [np.interp(times, knots, rng.uniform(*band, len(knots))) for band in ((300, 800), (900, 2200))]
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    wave = np.zeros(len(times))
    for harmonic in range(1, 18):
        hertz = harmonic * pitch
        gain = sum(1 / (1 + ((hertz - formant) / 120) ** 2) for formant in formants) + 0.04
        wave += gain / harmonic**0.5 * np.sin(harmonic * phase)
    halves = np.arange(0.0, seconds + 0.25, 0.11)
    loudness = np.interp(times, halves, np.resize([0.15, 1.0], len(halves)) * rng.uniform(0.6, 1.0, len(halves)))
    ramp = np.minimum(1.0, np.minimum(times, seconds - times) / 0.1)
    wave *= loudness * ramp
    unit: Wave = wave / wave.std()
    return unit
