"""Spectrograms of published weights: the authors' own numbers, other sample rates, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from earmark.clips.spectrograms import MelSpectrogram, SpectrogramOptions
from earmark.encoders import AisfxCnn, PannsCnn

AISFX = AisfxCnn.spectrogram


def panns() -> SpectrogramOptions:
    options = PannsCnn(6).spectrogram
    assert options is not None
    return options


def decaying_tones(sample_rate: int) -> Tensor:
    """Return half a second of five tones up to 6500 Hz, int16 (1, S): what the reference was computed of."""
    t = np.arange(round(sample_rate * 0.5)) / sample_rate
    tones = ((0.3, 440, 0.0), (0.2, 1300, 1.0), (0.1, 3000, 2.0), (0.05, 6500, 3.0), (0.02, 120, 0.5))
    wave = np.exp(-6 * t) * sum(a * np.sin(2 * np.pi * f * t + p) for a, f, p in tones)
    return torch.from_numpy(np.round(32768 * wave).astype(np.int16))[None]


@pytest.fixture(scope="module")
def theirs(reference: Path) -> dict[str, npt.NDArray[np.float32]]:
    """``aisfx``: of Essentia by the package's own settings; ``panns``: of librosa, by those of PANNs' code."""
    with np.load(reference / "spectrograms.npz") as arrays:
        return dict(arrays)


def test_it_is_the_one_that_aisfx_was_trained_with(theirs: dict[str, npt.NDArray[np.float32]]) -> None:
    found = MelSpectrogram(AISFX)(decaying_tones(44100))[0, 0].numpy()
    # Essentia adds a frame whose centre lies behind the sound
    np.testing.assert_allclose(found, theirs["aisfx"][: len(found)], rtol=0, atol=3e-5)
    assert len(theirs["aisfx"]) == len(found) + 1
    assert found.max() > 0.5


def test_it_is_the_one_that_panns_were_trained_with(theirs: dict[str, npt.NDArray[np.float32]]) -> None:
    found = MelSpectrogram(panns())(decaying_tones(32000))[0, 0].numpy()
    assert found.shape == theirs["panns"].shape
    loud = theirs["panns"] > -60  # dB; below, float32 of a spectrum with strong tones rounds
    assert loud.mean() > 0.3
    np.testing.assert_allclose(found[loud], theirs["panns"][loud], rtol=0, atol=0.01)


@pytest.mark.parametrize(("sample_rate", "empty"), [(16000, 25), (22050, 17), (48000, 0)])
def test_sound_of_another_rate_gives_the_same_numbers_where_it_holds_anything(sample_rate: int, empty: int) -> None:
    other = MelSpectrogram(AISFX, sample_rate=sample_rate)
    expected, found = MelSpectrogram(AISFX)(decaying_tones(44100)), other(decaying_tones(sample_rate))
    assert found.shape == expected.shape
    assert other.empty_bands == empty
    filled = slice(0, AISFX.num_mels - empty - 1)
    inner = slice(1, -1)  # the first and the last window reach beyond the sound, whose samples end elsewhere
    difference = (found - expected)[0, 0, inner, filled].abs()
    assert difference.mean() < 0.004
    assert difference.max() < 0.06  # of 1: a window of whole samples is a little longer or shorter
    if empty:
        assert not found[..., -empty:].any()  # log10(1): what silence gives


def test_panns_spectrogram_of_the_store_ends_at_half_its_rate() -> None:
    other = MelSpectrogram(panns(), sample_rate=16000)
    expected, found = MelSpectrogram(panns())(decaying_tones(32000)), other(decaying_tones(16000))
    assert found.shape == expected.shape
    assert 0 < other.empty_bands < 15
    assert (found[..., -other.empty_bands :] == -100).all()  # 10 log10(1e-10)
    loud = expected[0, 0, 2:-2, : -other.empty_bands - 1] > -20
    assert (found - expected)[0, 0, 2:-2, : -other.empty_bands - 1][loud].abs().max() < 1


def test_a_band_of_equal_power_has_that_power_at_any_rate() -> None:
    # white noise: the weighted mean of its power is that of any bin, N sum(w^2) sigma^2
    generator = torch.Generator().manual_seed(0)
    for sample_rate in (44100, 16000):
        noise = 0.01 * torch.randn(1, 20 * sample_rate, generator=generator)
        spectrogram = MelSpectrogram(AISFX, sample_rate=sample_rate)
        power = (10 ** (spectrogram(noise) * AISFX.scale) - 1) / 10_000
        expected = 1e-4 * 3 / 8 * 2048 * 44100 / sample_rate  # sigma^2 of a wider band has less in each Hz
        mean = power[0, 0, 2:-2, 10:60].mean().item()
        assert mean == pytest.approx(expected, rel=0.03)


def test_sound_as_integers_and_as_numbers_is_the_same_and_a_batch_is_its_samples() -> None:
    spectrogram = MelSpectrogram(AISFX, sample_rate=16000)
    stored = torch.randint(-3000, 3000, (3, 16000), dtype=torch.int16, generator=torch.Generator().manual_seed(1))
    found = spectrogram(stored)
    assert (found.dtype, found.shape) == (torch.float32, (3, 1, spectrogram.num_frames(16000), 96))
    torch.testing.assert_close(spectrogram(stored / 32768), found)
    torch.testing.assert_close(spectrogram(stored[1:2]), found[1:2])


def test_what_it_depends_on_is_plain_data() -> None:
    here, there = MelSpectrogram(AISFX, sample_rate=16000).cache_key(), MelSpectrogram(AISFX).cache_key()
    assert here != there
    assert here["options"] == there["options"] != MelSpectrogram(panns()).cache_key()["options"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"hop_length": 4096}, "hops of 4096 and windows of 2048"),
        ({"num_mels": 0}, "0 bands"),
        ({"max_frequency": 30000.0}, "half the sample rate of 44100 Hz"),
        ({"min_frequency": 22050.0}, "got 22050 to 22050 Hz"),
    ],
)
def test_impossible_settings_are_refused(changed: dict[str, Any], message: str) -> None:
    from dataclasses import replace

    with pytest.raises(ValueError, match=message):
        replace(AISFX, **changed)


def test_sound_of_a_wrong_shape_or_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(B, S\) with S >= 1, got \(32000,\)"):
        MelSpectrogram(AISFX)(torch.zeros(32000))
    with pytest.raises(ValueError, match=r"S >= 513, got \(2, 512\)"):
        MelSpectrogram(panns())(torch.zeros(2, 512))
    with pytest.raises(ValueError, match="are none at 40 Hz"):
        MelSpectrogram(AISFX, sample_rate=40)
