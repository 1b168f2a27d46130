"""The transforms: the original's log-mel, and crops against resize-then-crop, sample by sample."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name

from earmark.clips import splitmix64, transforms
from earmark.clips.splitmix64 import random_integers
from earmark.clips.transforms import IMAGENET_MEAN, IMAGENET_STD, LogMel, VideoCrop, evenly_spaced
from earmark.media import Resampler


@pytest.fixture(scope="module")
def arrays(reference: Path) -> Any:
    return np.load(reference / "log_mel.npz")


# --- log-mel


def test_filters_window_and_frames_are_the_originals(arrays: Any) -> None:
    log_mel = LogMel()
    np.testing.assert_allclose(log_mel.filterbank.numpy(), arrays["mel_filterbank"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(log_mel.window.numpy(), arrays["window"], rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(evenly_spaced(124, 125).numpy(), arrays["subsample_index"])


def test_power_and_log_mel_at_16_khz_are_the_originals(arrays: Any) -> None:
    log_mel, wave = LogMel(), torch.from_numpy(arrays["wave_16000"])[None]
    power = arrays["mel_power_16000"]
    np.testing.assert_allclose(log_mel.mel_power(wave).numpy(), power, rtol=1e-4, atol=1e-4 * power.max())
    np.testing.assert_allclose(log_mel(wave)[0].numpy(), arrays["log_mel_16000"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(log_mel(torch.zeros(1, 32000))[0].numpy(), arrays["silent"], rtol=1e-4)


def test_log_mel_of_resampled_44_khz_sound_is_near_the_originals(arrays: Any) -> None:
    resampler = Resampler(44100, 16000)
    wave = np.concatenate([resampler(arrays["wave_44100"]), resampler.flush()])
    assert wave.shape == (32000,)
    result = LogMel()(torch.from_numpy(wave)[None])[0].numpy()
    assert np.abs(result - arrays["log_mel_44100"]).mean() < 0.01


def test_no_reference_array_is_forgotten(arrays: Any) -> None:
    read = {"mel_filterbank", "window", "subsample_index", "silent"}
    read |= {"wave_16000", "mel_power_16000", "log_mel_16000", "wave_44100", "log_mel_44100"}
    assert set(arrays.files) == read


def test_int16_sound_is_full_scale_at_one() -> None:
    stored = torch.randint(-32768, 32768, (2, 32000), dtype=torch.int16)
    torch.testing.assert_close(LogMel()(stored), LogMel()(stored / 32768))


def test_a_tone_is_loudest_in_its_mel_bin_and_frame() -> None:
    time = torch.arange(32000) / 16000
    tone = torch.sin(2 * torch.pi * 1000 * time) * (time >= 1)
    result = LogMel()(tone[None])[0, 0]
    edges = 700 * (10 ** (torch.linspace(0, 2595 * np.log10(1 + 8000 / 700), 82) / 2595) - 1)
    assert result[100].argmax() == (edges[1:-1] - 1000).abs().argmin()
    assert result[:60].max() < result[66:].amax(dim=1).min()


def test_log_mel_is_float32_even_under_autocast() -> None:
    wave = torch.randn(1, 32000)
    expected = LogMel()(wave)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(LogMel()(wave), expected)
    assert LogMel()(wave.double()).dtype == torch.float32


@pytest.mark.parametrize("sample_rate", [16000, 22050, 24000, 44100, 48000])
@pytest.mark.parametrize(("seconds", "num_frames"), [(0.5, 31), (1.0, 62), (2.0, 125), (8.0, 500)])
def test_there_is_a_frame_for_each_hop_of_16_ms_and_only_the_first_stands_twice(
    sample_rate: int, seconds: float, num_frames: int
) -> None:
    log_mel = LogMel(sample_rate=sample_rate)
    noise = torch.randn(1, round(seconds * sample_rate))
    result = log_mel(noise)[0, 0]
    assert len(result) == log_mel.num_frames(noise.shape[1]) == num_frames
    assert log_mel.mel_power(noise).shape[2] == num_frames - 1
    same_as_the_one_before = (result[1:] == result[:-1]).all(dim=1)
    assert same_as_the_one_before.nonzero().tolist() == [[0]]


@pytest.mark.parametrize("sample_rate", [22050, 32000, 44100, 48000])
def test_the_same_sound_has_the_same_log_mel_at_any_sample_rate(sample_rate: int) -> None:
    def sound(rate: int) -> Tensor:
        time = torch.arange(2 * rate, dtype=torch.float64) / rate
        tones = [(170.0, 0.7), (440.0, 1.3), (1000.0, 2.1), (2600.0, 3.3), (6100.0, 0.4)]
        each = [torch.sin(2 * torch.pi * f * time) * (1.1 + torch.sin(2 * torch.pi * s * time)) for f, s in tones]
        return torch.stack(each).sum(dim=0)[None]

    power, expected = LogMel(sample_rate=sample_rate).mel_power(sound(sample_rate)), LogMel().mel_power(sound(16000))
    assert (power - expected).abs().max() < 0.02 * expected.max()
    loud = expected > 0.05 * expected.max()
    assert (power[loud] / expected[loud]).log().abs().max() < 0.05  # a rate three times as high gave log 9


def test_bands_that_the_sound_cannot_hold_are_refused() -> None:
    with pytest.raises(ValueError, match=r"mel bands up to 8000 Hz need sound of at least 16000 Hz, got 8000 Hz"):
        LogMel(sample_rate=8000)
    assert LogMel(sample_rate=8000, max_frequency=4000, num_mels=40)(torch.randn(1, 16000)).shape == (1, 1, 125, 40)
    for options in ({"hop_seconds": 0.0}, {"hop_seconds": 0.033}, {"hop_seconds": 1e-5}, {"window_seconds": -1.0}):
        with pytest.raises(ValueError, match="need a hop of at least one sample and windows at least as long"):
            LogMel(**options)


def test_sound_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match=r"S >= 512, got \(2, 511\)"):
        LogMel()(torch.zeros(2, 511))
    with pytest.raises(ValueError, match=r"\(B, S\)"):
        LogMel()(torch.zeros(32000))


# --- draws


def test_draws_are_those_of_splitmix64() -> None:
    # The generator's published outputs for the state 1234567.
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    state = torch.tensor(1234567)
    assert [x % 2**64 for x in splitmix64._draws(state, torch.arange(5)).tolist()] == published


def test_integers_and_tensors_give_the_same_outputs() -> None:
    states = [0, 1, 1234567, 2**62 + 11]
    outputs = splitmix64._draws(torch.tensor(states), torch.tensor(0)).tolist()
    assert [output % 2**64 for output in outputs] == [splitmix64.mixed(state) for state in states]


def test_draws_are_uniform_and_independent_over_seeds_draws_and_streams() -> None:
    num = 20000
    seeds = torch.arange(num) + 2**62
    draws = torch.cat([random_integers(seeds, num_draws=3, stream=s) for s in (0, 1)], dim=1).double() / 2**31
    assert 0 <= draws.min() < draws.max() < 1
    for column in draws.T:
        counts = torch.histc(column.float(), bins=20, min=0, max=1)
        chi_square = ((counts - num / 20) ** 2 / (num / 20)).sum()
        assert chi_square < 43.8  # 19 degrees of freedom, p = 0.001
    correlation = torch.corrcoef(draws.T) - torch.eye(6)
    assert correlation.abs().max() < 4 / num**0.5
    neighbours = torch.corrcoef(torch.stack([draws[:-1, 0], draws[1:, 0]]))[0, 1]
    assert abs(neighbours) < 4 / num**0.5


# --- crops


def noise_video(num: int, num_frames: int, height: int, width: int) -> Tensor:
    """Return frames with detail at every scale, down to single pixels."""
    generator = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (num, num_frames, height, width, 3), dtype=torch.uint8, generator=generator)


def draw_of(seed: int, index: int, stream: int) -> int:
    """Return one draw of the generator in plain integers."""

    def splitmix64(state: int, position: int) -> int:
        z = (state + (position + 1) * 0x9E3779B97F4A7C15) % 2**64
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        return z ^ (z >> 31)

    return splitmix64(splitmix64(seed, stream), index) >> 33


def slow_crop(video: Tensor, seed: int, crop: VideoCrop, *, stream: int = 0) -> Tensor:
    """Resize one clip (T, H, W, 3) as a whole, then crop, flip and normalize it: the method as it is described."""
    height, width = video.shape[1:3]
    choices = crop.max_short_side - crop.min_short_side + 1
    short_side = crop.min_short_side + draw_of(seed, 0, stream) * choices // 2**31
    size = [side * short_side // min(height, width) for side in (height, width)]
    if crop.min_area is not None:
        draw = draw_of(seed, 0, stream)
        ratio = (4 / 3) ** ((draw % 2**15) * 257 // 2**15 / 128 - 1)  # of width to height
        largest = min(1.0, ratio * height / width, width / (height * ratio))
        smallest = min(crop.min_area, largest)
        area = (smallest + (largest - smallest) * (draw // 2**15) / 2**16) * height * width
        box = [(area / ratio) ** 0.5, (area * ratio) ** 0.5]
        pairs = zip((height, width), box, strict=True)
        size = [max(crop.crop_size, round(side * crop.crop_size / part)) for side, part in pairs]
    room = [side - crop.crop_size for side in size]
    top, left = (draw_of(seed, 1 + i, stream) * (room[i] + 1) // 2**31 for i in range(2))
    mirrored = crop.flip and draw_of(seed, 3, stream) >= 2**30
    if not crop.random:
        top, left, mirrored = room[0] // 2, room[1] // 2, False
    frames = video.permute(0, 3, 1, 2).double() / 255
    frames = F.interpolate(frames, size=size, mode="bilinear", antialias=True, align_corners=False)
    frames = frames[:, :, top : top + crop.crop_size, left : left + crop.crop_size]
    if mirrored:
        frames = frames.flip(3)
    mean, std = (torch.tensor(x, dtype=torch.float64).view(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    return ((frames - mean) / std).transpose(0, 1).float()


CROPS = {
    "the paper's": ({}, (128, 228)),
    "portrait": ({}, (227, 128)),
    "square": ({}, (128, 128)),
    "small": ({"crop_size": 64, "min_short_side": 72, "max_short_side": 100}, (72, 128)),
    "scaled down": ({"crop_size": 32, "min_short_side": 36, "max_short_side": 50}, (128, 171)),
    "scaled down far": ({"crop_size": 12, "min_short_side": 12, "max_short_side": 14}, (180, 321)),
    "scaled up far": ({"crop_size": 36, "min_short_side": 120, "max_short_side": 150}, (36, 65)),
    "no room": ({"crop_size": 40, "min_short_side": 40, "max_short_side": 40}, (40, 40)),
    "by area": ({"min_area": 0.25}, (128, 228)),
    "by area, portrait": ({"min_area": 0.08, "crop_size": 32}, (171, 128)),
    "not flipped": ({"flip": False}, (128, 228)),
    "evaluation": ({"random": False}, (128, 228)),
    "small evaluation": ({"random": False, "crop_size": 64}, (128, 229)),
}


@pytest.mark.parametrize("name", CROPS)
@pytest.mark.parametrize("resample", ["_resample_by_slice", "_resample_by_index"])
def test_crops_equal_resizing_then_cropping(name: str, resample: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The way of the GPU is tried on the CPU too.
    monkeypatch.setattr(transforms, "_resample_by_slice", getattr(transforms, resample))
    options, (height, width) = CROPS[name]
    crop, video = VideoCrop(**options), noise_video(6, 2, height, width)
    seeds = torch.tensor([0, 1, 2, 2**62 + 3, 2**63 - 1, 77])
    for stream in (0, 1):
        result = crop(video, seeds, stream=stream)
        assert result.is_contiguous()
        expected = torch.stack(
            [slow_crop(*pair, crop, stream=stream) for pair in zip(video, seeds.tolist(), strict=True)]
        )
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("resample", ["_resample_by_slice", "_resample_by_index"])
def test_padding_of_smaller_videos_does_not_show(resample: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforms, "_resample_by_slice", getattr(transforms, resample))
    sizes = [(128, 228), (228, 128), (72, 96), (128, 128)]
    padded = torch.full((4, 2, 228, 228, 3), 255, dtype=torch.uint8)
    for i, (height, width) in enumerate(sizes):
        padded[i, :, :height, :width] = noise_video(1, 2, height, width)[0]
    crop, seeds = VideoCrop(), torch.arange(4)
    result = crop(padded, seeds, torch.tensor(sizes))
    for i, (height, width) in enumerate(sizes):
        expected = slow_crop(padded[i, :, :height, :width], i, crop)
        torch.testing.assert_close(result[i], expected, rtol=0, atol=1e-4)


def test_a_samples_crop_depends_on_its_seed_alone() -> None:
    crop, video = VideoCrop(), noise_video(5, 2, 128, 228)
    seeds = torch.tensor([5, 6, 7, 8, 9])
    together = crop(video, seeds)
    for i in range(5):
        torch.manual_seed(i)
        assert torch.equal(crop(video[i : i + 1], seeds[i : i + 1])[0], together[i])
    assert not torch.equal(crop(video[:1], seeds[1:2])[0], together[0])


def test_streams_draw_apart_and_one_stream_draws_alike() -> None:
    crop, video, seed = VideoCrop(color_jitter=0.4), noise_video(1, 2, 128, 228), torch.tensor([5])
    assert torch.equal(crop(video, seed, stream=1), crop(video, seed, stream=1))
    assert not torch.equal(crop(video, seed, stream=0), crop(video, seed, stream=1))


def test_sizes_places_and_flips_are_uniform() -> None:
    crop, num = VideoCrop(), 30000
    draws = random_integers(torch.arange(num), num_draws=4)
    resized, corner, mirrored = crop._boxes(draws, torch.tensor([[128, 228]]).expand(num, 2))
    short_side = resized[:, 0]
    assert (short_side.min(), short_side.max()) == (128, 180)
    counts = torch.bincount(short_side - 128, minlength=53).float()
    assert ((counts - num / 53) ** 2 / (num / 53)).sum() < 90.6  # 52 degrees of freedom, p = 0.0007
    assert abs(mirrored.float().mean() - 0.5) < 4 * 0.5 / num**0.5
    # All places that fit come up, also the last one, evenly.
    top = corner[short_side == 131, 0]
    counts = torch.bincount(top, minlength=20).float()
    assert len(counts) == 20
    assert ((counts - len(top) / 20) ** 2 / (len(top) / 20)).sum() < 43.8  # 19 degrees of freedom, p = 0.001
    assert ((corner >= 0) & (corner + 112 <= resized)).all()


def test_boxes_of_random_area_are_as_large_and_as_slim_as_they_may_be() -> None:
    crop, num = VideoCrop(min_area=0.25), 20000
    size = torch.tensor([[120, 160]]).expand(num, 2)
    draws = random_integers(torch.arange(num), num_draws=8)
    resized, corner, _ = crop._boxes(draws, size)
    assert (corner >= 0).all()
    assert (corner <= resized - 112).all()
    height, width = (112 / resized * size).T  # of the boxes, in pixels of the source
    share, ratio = height * width / (120 * 160), width / height
    assert 0.24 < share.min() < 0.26
    assert 0.98 < share.max() <= 1
    assert 0.74 < ratio.min() < 0.76
    assert 1.32 < ratio.max() < 1.35
    assert ratio.log().mean().abs() < 0.01
    # A box of ratio r fits up to the share 3 r / 4 into this picture; r's own mean is 1.01386.
    assert abs(share.mean() - (0.25 + 0.75 * 1.01386) / 2) < 0.01


def test_evaluation_takes_the_middle_whatever_the_seed() -> None:
    crop, video = VideoCrop(random=False, color_jitter=0.5), noise_video(1, 2, 128, 228)
    first = crop(video, torch.tensor([1]))
    assert torch.equal(first, crop(video, torch.tensor([2]), stream=1))
    middle = video[0, :, 8:120, 58:170].permute(3, 0, 1, 2) / 255
    mean, std = (torch.tensor(x).view(3, 1, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(first[0], (middle - mean) / std)


def test_crops_are_float32_even_under_autocast() -> None:
    crop, video, seeds = VideoCrop(), noise_video(2, 2, 128, 228), torch.arange(2)
    expected = crop(video, seeds)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(crop(video, seeds), expected)


def unnormalized(crops: Tensor) -> Tensor:
    mean, std = (torch.tensor(x).view(3, 1, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    return crops * std + mean


def jittered(video: Tensor, *draws: float, strength: float = 0.4) -> Tensor:
    crop = VideoCrop()
    return transforms._jitter_colors(video, torch.tensor([draws]), crop.rgb_to_yiq, crop.yiq_to_rgb, strength=strength)


def test_jitter_of_zero_changes_nothing_and_grey_keeps_its_hue() -> None:
    video = torch.rand(1, 3, 2, 8, 8)
    torch.testing.assert_close(jittered(video, 0, 0, 0, 0), video, atol=1e-5, rtol=0)
    grey = torch.rand(1, 1, 2, 8, 8).expand(1, 3, 2, 8, 8)
    torch.testing.assert_close(jittered(grey, 0, 0, 1, 1), grey, atol=1e-5, rtol=0)


def test_each_part_of_the_jitter_does_what_it_says() -> None:
    video = 0.4 + 0.2 * torch.rand(1, 3, 2, 8, 8)
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1, 1)
    grey = (video * luma).sum(dim=1, keepdim=True)
    torch.testing.assert_close(jittered(video, 1, 0, 0, 0), video * 1.4, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        jittered(video, 0, 1, 0, 0), grey.mean() + 1.4 * (video - grey.mean()), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(jittered(video, 0, 0, -1, 0), grey + 0.6 * (video - grey), atol=1e-3, rtol=0)
    turned = jittered(video, 0, 0, 0, 1)
    torch.testing.assert_close((turned * luma).sum(dim=1, keepdim=True), grey, atol=1e-4, rtol=0)
    assert (turned - video).abs().mean() > 0.01
    # A quarter turn four times is a whole one.
    for _ in range(4):
        video = jittered(video, 0, 0, 0, 1, strength=1.0)
    torch.testing.assert_close(video, jittered(video, 0, 0, 0, 0), atol=1e-3, rtol=0)


def test_jitter_keeps_the_place_and_stays_in_range() -> None:
    video, seeds = noise_video(6, 2, 128, 228), torch.arange(6)
    plain, colored = VideoCrop()(video, seeds), VideoCrop(color_jitter=0.4)(video, seeds)
    assert unnormalized(colored).min() > -1e-5
    assert unnormalized(colored).max() < 1 + 1e-5
    for one, other in zip(plain, colored, strict=True):
        assert not torch.allclose(one, other, atol=0.01)
        assert torch.corrcoef(torch.stack([one.mean(0).flatten(), other.mean(0).flatten()]))[0, 1] > 0.7


@pytest.mark.gpu
def test_cpu_and_gpu_draw_the_same_and_compute_nearly_the_same() -> None:
    crop, video, seeds = VideoCrop(color_jitter=0.4), noise_video(4, 2, 128, 228), torch.arange(4) + 2**62
    assert torch.equal(random_integers(seeds.cuda(), num_draws=5).cpu(), random_integers(seeds, num_draws=5))
    torch.testing.assert_close(crop.cuda()(video.cuda(), seeds).cpu(), crop.cpu()(video, seeds), rtol=0, atol=1e-4)
    wave = torch.randint(-32768, 32768, (2, 32000), dtype=torch.int16)
    torch.testing.assert_close(LogMel().cuda()(wave.cuda()).cpu(), LogMel()(wave), rtol=0, atol=1e-3)


def test_wrong_options_and_inputs_are_refused() -> None:
    for options in ({"crop_size": 0}, {"crop_size": 129}, {"min_short_side": 181}):
        with pytest.raises(ValueError, match="crop_size <= min_short_side <= max_short_side"):
            VideoCrop(**options)
    with pytest.raises(ValueError, match="color_jitter"):
        VideoCrop(color_jitter=1.5)
    with pytest.raises(ValueError, match="min_area must be above 0 and at most 1, got 0"):
        VideoCrop(min_area=0)
    video, seeds = noise_video(2, 2, 128, 228), torch.arange(2)
    with pytest.raises(ValueError, match="uint8"):
        VideoCrop()(video.float(), seeds)
    with pytest.raises(ValueError, match=r"\(B, T, H, W, 3\)"):
        VideoCrop()(video.permute(0, 4, 1, 2, 3), seeds)
    with pytest.raises(ValueError, match="a seed and a size for each of 2 samples"):
        VideoCrop()(video, seeds[:1])


def test_pictures_that_are_smaller_than_a_crop_are_refused() -> None:
    video = torch.zeros(1, 2, 128, 228, 3, dtype=torch.uint8)
    for random in (False, True):
        crop = VideoCrop(crop_size=224, min_short_side=256, max_short_side=256, random=random)
        with pytest.raises(ValueError, match=r"crops of 224 pixels need pictures as large, got 228 x 128"):
            crop(video, torch.zeros(1, dtype=torch.int64))
