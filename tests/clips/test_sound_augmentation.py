"""Augmentation of the sound: against slow loops in float64 with splitmix64 in plain integers, and its limits."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from earmark.clips.sampling import EpochBatches
from earmark.clips.sound_augmentation import (
    AugmentedLogMel,
    SoundAugmentation,
    change_loudness,
    mask_spectrograms,
    mix_sounds,
)
from earmark.clips.splitmix64 import mixed
from earmark.clips.transforms import LogMel

Array = np.ndarray[Any, np.dtype[np.float64]]
INCREMENT = 0x9E3779B97F4A7C15
LOUDNESS, MIX, TIME_MASKS, MEL_MASKS = 2, 3, 4, 5  # after those of the two crops


def draw(seed: int, number: int, *, stream: int) -> int:
    """The draw of a seed's stream, in [0, 2^31), with python's integers alone."""
    state = mixed(seed + stream * INCREMENT)
    return mixed(state + number * INCREMENT) >> 33


def seeds(count: int, *, start: int = 100) -> Tensor:
    return torch.tensor([mixed(start + number) >> 1 for number in range(count)])


def sounds(count: int, length: int = 4000) -> Tensor:
    """Noise whose loudness differs from sample to sample, int16."""
    generator = np.random.default_rng(count)
    scale = 10 ** generator.uniform(1, 4, (count, 1))
    return torch.from_numpy((generator.standard_normal((count, length)) * scale).clip(-32768, 32767).astype(np.int16))


def decibels_of(wave: Array) -> float:
    return 10 * math.log10(sum(float(sample) ** 2 for sample in wave) / len(wave))


def slowly_mixed(audio: Tensor, seed: Tensor, *, probability: float, snr_db: tuple[float, float]) -> Array:
    """Sample by sample: equation and neighbours as the docstring has them."""
    waves = audio.numpy().astype(np.float64) / 32768
    result = waves.copy()
    num_blocks = max(len(waves) // 8, 1)
    for i, own in enumerate(seed.tolist()):
        block = min(i // 8, num_blocks - 1)
        members = list(range(8 * block, len(waves) if block == num_blocks - 1 else 8 * block + 8))
        others = [*members[i - members[0] + 1 :], *members[: i - members[0]]]  # those that follow, then around
        j = others[draw(own, 1, stream=MIX) * len(others) >> 31]
        energy, of_other = (float(np.mean(waves[k] ** 2)) for k in (i, j))
        if draw(own, 0, stream=MIX) / 2**31 >= probability or of_other < 2**-30:
            continue
        ratio = snr_db[0] + (snr_db[1] - snr_db[0]) * draw(own, 2, stream=MIX) / 2**31
        result[i] = waves[i] + math.sqrt(energy / of_other / 10 ** (ratio / 10)) * waves[j]
    return result


def slowly_masked(spectrograms: Array, seed: Tensor, *, time: tuple[int, int], mel: tuple[int, int]) -> Array:
    result = spectrograms.copy()
    for i, own in enumerate(seed.tolist()):
        mean = spectrograms[i].mean()
        for axis, (count, widest), stream in ((0, time, TIME_MASKS), (1, mel, MEL_MASKS)):
            length = spectrograms.shape[2 + axis]
            for mask in range(count):
                width = draw(own, mask, stream=stream) * (widest + 1) >> 31
                start = draw(own, count + mask, stream=stream) * (length - width + 1) >> 31
                for place in range(start, start + width):
                    if axis == 0:
                        result[i, 0, place, :] = mean
                    else:
                        result[i, 0, :, place] = mean
    return result


# --- loudness


def test_the_gain_is_the_seeds_in_decibels_and_uniform() -> None:
    audio, seed = sounds(5), seeds(5)
    louder = change_loudness(audio, seed, max_gain_db=12).double().numpy()
    for i, own in enumerate(seed.tolist()):
        gain_db = (2 * draw(own, 0, stream=LOUDNESS) / 2**31 - 1) * 12
        np.testing.assert_allclose(louder[i], audio[i].numpy() / 32768 * 10 ** (gain_db / 20), rtol=1e-6)
    many = change_loudness(torch.ones(4000, 1), seeds(4000), max_gain_db=6).log10() * 20
    assert -6 <= many.min() < -5.98
    assert 5.98 < many.max() <= 6
    assert many.mean().abs() < 0.15
    assert (many.var() - 12).abs() < 0.6  # (2 x 6)^2 / 12


def test_no_step_undoes_the_gain_and_silence_stays_silent() -> None:
    audio, seed = sounds(4, 32000), seeds(4)
    audio[0] = 0
    log_mel = LogMel()
    plain, louder = log_mel(audio), AugmentedLogMel(log_mel, SoundAugmentation(gain_db=9))(audio, seed)
    for i, own in enumerate(seed.tolist()):
        gain_db = (2 * draw(own, 0, stream=LOUDNESS) / 2**31 - 1) * 9 if i else 0.0
        expected = plain[i] + gain_db * math.log(10) / 10 / log_mel.std
        torch.testing.assert_close(louder[i], expected, rtol=0, atol=1e-4)


# --- mixing


@pytest.mark.parametrize("count", [2, 3, 8, 9, 15, 16, 21])
@pytest.mark.parametrize("probability", [0.5, 1.0])
def test_mixing_equals_a_slow_loop(count: int, probability: float) -> None:
    audio, seed = sounds(count, 500), seeds(count)
    audio[1] = 0
    options = {"probability": probability, "snr_db": (-3.0, 20.0)}
    found = mix_sounds(audio, seed, **options).double().numpy()
    expected = slowly_mixed(audio, seed, **options)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    if probability == 1 and count > 3:  # of three, both can have drawn the silent one
        assert (found != audio.numpy() / 32768).any(axis=1).sum() > count / 2


def test_the_ratio_of_the_energies_is_that_asked_for() -> None:
    audio, seed = sounds(6), seeds(6)
    waves = audio.double().numpy() / 32768
    added = mix_sounds(audio, seed, probability=1, snr_db=(7.0, 7.0)).double().numpy() - waves
    for i in range(6):
        assert decibels_of(waves[i]) - decibels_of(added[i]) == pytest.approx(7, abs=1e-2)
        alike = [abs(np.corrcoef(added[i], waves[j])[0, 1]) > 0.99 for j in range(6)]
        assert sum(alike) == 1
        assert not alike[i]  # never itself


def test_every_neighbour_is_mixed_in_as_often_as_the_others_and_as_often_as_asked() -> None:
    audio = torch.eye(8) * 0.5
    counts = torch.zeros(8, 8)
    for start in range(400):
        counts += mix_sounds(audio, seeds(8, start=1000 * start), probability=0.7, snr_db=(0.0, 0.0)) > 0
    counts.fill_diagonal_(0)
    assert (counts.sum(dim=1) / 400 - 0.7).abs().max() < 0.08
    assert (counts[~torch.eye(8, dtype=torch.bool)] / 40 - 1).abs().max() < 0.6


def test_silence_and_what_rounds_to_it_is_neither_mixed_in_nor_filled() -> None:
    audio = torch.zeros(4, 1000, dtype=torch.int16)
    audio[2, 500] = 1  # one step of 16 bits in one sample
    audio[3] = sounds(1, 1000)[0]
    mixed_in = mix_sounds(audio, seeds(4), probability=1, snr_db=(5.0, 5.0))
    torch.testing.assert_close(mixed_in[:2], torch.zeros(2, 1000))
    torch.testing.assert_close(mixed_in[3], audio[3] / 32768)
    for value in (0.0, 1e-30, 1e-38, 1.0):
        extreme = torch.tensor([[value, 0.0], [1.0, -1.0], [1e-45, 0.0], [0.0, 0.0]])
        for start in range(20):
            assert mix_sounds(extreme, seeds(4, start=start), probability=1, snr_db=(-60.0, -60.0)).isfinite().all()


# --- masks


@pytest.mark.parametrize(("time", "mel"), [((2, 20), (0, 5)), ((0, 5), (3, 4)), ((2, 20), (2, 10)), ((1, 1), (1, 1))])
def test_masks_equal_a_slow_loop(time: tuple[int, int], mel: tuple[int, int]) -> None:
    spectrograms, seed = np.random.default_rng(0).standard_normal((7, 1, 125, 80)), seeds(7)
    found = mask_spectrograms(
        torch.from_numpy(spectrograms),
        seed,
        time_masks=time[0],
        time_width=time[1],
        mel_masks=mel[0],
        mel_width=mel[1],
    )
    np.testing.assert_allclose(found.numpy(), slowly_masked(spectrograms, seed, time=time, mel=mel), atol=1e-12)


def test_masks_reach_every_place_and_every_width() -> None:
    marked = torch.full((3000, 1, 12, 1), 1.0)
    marked[:, 0, 0] = 13.0  # so that the mean is no value of the spectrogram
    hidden = (mask_spectrograms(marked, seeds(3000), time_masks=1, time_width=3) == 2.0).flatten(1)
    assert set(hidden.sum(dim=1).tolist()) == {0, 1, 2, 3}
    assert (hidden.sum(dim=1).bincount() / 750 - 1).abs().max() < 0.15
    assert hidden.any(dim=0).all()


# --- all together


@pytest.fixture
def augmented() -> AugmentedLogMel:
    return AugmentedLogMel(LogMel(), SoundAugmentation(gain_db=6, mix=0.5, time_masks=2, time_width=9, mel_masks=2))


def test_nothing_is_changed_by_default() -> None:
    audio, log_mel = sounds(3, 8000), LogMel()
    assert not SoundAugmentation().changes_anything
    assert torch.equal(AugmentedLogMel(log_mel, SoundAugmentation())(audio, seeds(3)), log_mel(audio))
    for option in ({"gain_db": 1.0}, {"mix": 1.0}, {"time_masks": 1}, {"mel_masks": 1}):
        options = SoundAugmentation(**option)
        assert options.changes_anything
        assert options.changes_wave == bool({"gain_db", "mix"} & option.keys())
        assert not torch.equal(AugmentedLogMel(log_mel, options)(audio, seeds(3)), log_mel(audio))


def test_the_parts_are_drawn_apart_and_follow_one_another(augmented: AugmentedLogMel) -> None:
    audio, seed, log_mel = sounds(8, 8000), seeds(8), LogMel()
    wave = mix_sounds(audio, seed, probability=0.5, snr_db=(5.0, 20.0))
    masked = log_mel(change_loudness(wave, seed, max_gain_db=6))
    masked = mask_spectrograms(masked, seed, time_masks=2, time_width=9, mel_masks=2)
    assert torch.equal(augmented(audio, seed), masked)
    parts = np.array(
        [[draw(own, 0, stream=stream) for stream in (0, 1, LOUDNESS, MIX, TIME_MASKS, MEL_MASKS)] for own in range(500)]
    )
    assert np.abs(np.corrcoef(parts.T) - np.eye(6)).max() < 0.2


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_processes_with_shares_of_eight_hear_what_one_process_hears(augmented: AugmentedLogMel, num_ranks: int) -> None:
    audio = sounds(40, 8000)

    def heard(rank: int, world_size: int) -> Tensor:
        (keys,) = EpochBatches(40, 32, seed=3, epoch=2, rank=rank, world_size=world_size)
        index, seed = torch.tensor(keys).T
        return augmented(audio[index], seed)

    assert torch.equal(torch.cat([heard(rank, num_ranks) for rank in range(num_ranks)]), heard(0, 1))


def test_without_mixing_a_sample_sounds_the_same_in_any_batch() -> None:
    audio, seed = sounds(9, 8000), seeds(9)
    alone = AugmentedLogMel(LogMel(), SoundAugmentation(gain_db=6, mel_masks=2))
    one_by_one = [alone(audio[i : i + 1], seed[i : i + 1]) for i in range(9)]
    assert torch.equal(torch.cat(one_by_one), alone(audio, seed))


def test_silence_and_full_scale_stay_finite_and_float32_even_under_autocast(augmented: AugmentedLogMel) -> None:
    audio = torch.zeros(9, 8000, dtype=torch.int16)
    audio[3:6] = -32768
    audio[6:] = sounds(3, 8000)
    expected = augmented(audio, seeds(9))
    assert expected.isfinite().all()
    assert (expected[6:].flatten(1).std(dim=1) > 0.1).all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(augmented(audio, seeds(9)), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gain_db": -1}, "a gain must be from 0 to 60 dB, got -1"),
        ({"gain_db": math.nan}, "a gain must be from 0 to 60 dB, got nan"),
        ({"mix": 1.5}, "the probability of mixing must be from 0 to 1, got 1.5"),
        ({"mix_snr_db": (20.0, 5.0)}, r"from -60 to 60 dB, got \[20.0, 5.0\]"),
        ({"mix_snr_db": (0.0, 61.0)}, r"from -60 to 60 dB, got \[0.0, 61.0\]"),
        ({"mix_snr_db": (5.0,)}, r"the lowest and the highest, .* got \[5.0\]"),
        ({"time_masks": -1}, "numbers of masks can't be negative, got -1 and 0"),
        ({"mel_width": 0}, "masks must be at least 1 wide, got 20 frames and 0 mel bins"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SoundAugmentation(**options)


def test_wrong_inputs_are_refused() -> None:
    spectrograms = torch.zeros(2, 1, 40, 10)
    with pytest.raises(ValueError, match=r"2 masks of up to 20 frames could hide all 40 of a spectrogram"):
        mask_spectrograms(spectrograms, seeds(2), time_masks=2)
    with pytest.raises(ValueError, match=r"1 masks of up to 10 mel bins could hide all 10 of a spectrogram"):
        mask_spectrograms(spectrograms, seeds(2), mel_masks=1)
    with pytest.raises(ValueError, match=r"must have the shape \(B, 1, frames, F\), got \(2, 40, 10\)"):
        mask_spectrograms(spectrograms[:, 0], seeds(2), mel_masks=1, mel_width=2)
    with pytest.raises(ValueError, match="need a seed for each of 2 samples, got"):
        mask_spectrograms(spectrograms, seeds(3))
    with pytest.raises(ValueError, match="need a seed for each of 2 samples, got"):
        change_loudness(torch.zeros(2, 5), seeds(1), max_gain_db=1)
    with pytest.raises(ValueError, match=r"sound must have the shape \(B, S\), got \(5,\)"):
        mix_sounds(torch.zeros(5), seeds(5), probability=1, snr_db=(0.0, 0.0))
    with pytest.raises(ValueError, match="needs at least two samples, got one"):
        mix_sounds(torch.zeros(1, 5), seeds(1), probability=1, snr_db=(0.0, 0.0))
