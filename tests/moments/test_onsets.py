"""The rule of the detector earmark: what it takes for an onset, its versions, and what it must not lose."""

import numpy as np
import pytest
from numpy.typing import NDArray

from earmark.moments import Moment, detector_from, detector_parameters, own_parameters
from earmark.moments.onsets import _RULES, DETECTOR_VERSION, OnsetDetector, _falling, _rise
from earmark.moments.scoring import OnsetScore, score_onsets

RATE = 16000


def found(wave: NDArray[np.float32], **options: int) -> list[Moment]:
    detector = OnsetDetector(RATE, **options)  # type: ignore[arg-type]
    return [*detector.feed(wave), *detector.finish()]


def score(wave: NDArray[np.float32], truth: list[float], **options: int) -> OnsetScore:
    return score_onsets([moment.time_seconds for moment in found(wave, **options)], truth, window_seconds=0.05)


def room(seconds: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """Soft steady noise."""
    return 0.001 * generator.standard_normal(round(seconds * RATE))


def add_hit(wave: NDArray[np.float64], seconds: float, level: float, generator: np.random.Generator) -> None:
    """Add a burst of noise that falls by 60 dB in 0.15 s, as a knock on wood does."""
    start = round(seconds * RATE)
    length = min(RATE // 4, len(wave) - start)
    decay = 1000 ** (-np.arange(length) / RATE / 0.15)
    wave[start : start + length] += level * generator.standard_normal(length) * decay


def quick_hits(seed: int) -> tuple[NDArray[np.float32], list[float]]:
    """Hits 0.1 to 0.4 s apart of levels up to 8 dB apart, in sequences with a second between."""
    generator = np.random.default_rng(seed)
    wave = room(30, generator)
    truth, seconds = [], 1.0
    while seconds < 28:
        for _ in range(6):
            add_hit(wave, seconds, 0.1 * 10 ** (generator.uniform(-4, 4) / 20), generator)
            truth.append(seconds)
            seconds += generator.uniform(0.1, 0.4)
        seconds += 1
    return wave.astype(np.float32), [time for time in truth if time < 29.9]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_hits_in_quick_succession_are_found_where_the_first_version_lost_some(seed: int) -> None:
    wave, truth = quick_hits(seed)
    assert len(truth) > 60
    now, before = score(wave, truth), score(wave, truth, version=1)
    assert now.precision == 1
    assert now.recall >= 0.95
    assert before.recall < now.recall - 0.05


def test_a_hit_is_found_shortly_after_one_as_loud() -> None:
    """12 dB below it masking falls by 90 dB per second, so that 100 ms after a hit 9 dB are left of it."""
    for apart in (0.1, 0.15, 0.25):
        generator = np.random.default_rng(3)
        wave = room(12, generator)
        truth = [float(time) for start in (2, 5, 8) for time in (start, start + apart)]
        for seconds in truth:
            add_hit(wave, seconds, 0.1, generator)
        assert score(wave.astype(np.float32), truth) == OnsetScore(1.0, 1.0, 1.0, 6, 6), apart


def test_syllables_are_no_more_often_taken_for_hits_than_by_the_first_version() -> None:
    """Speech-like: voiced and hissing sounds that swell in 40 ms, four in a second, and a hit each 3 seconds."""
    generator = np.random.default_rng(0)
    wave = room(40, generator)
    times = np.arange(len(wave)) / RATE
    for start in np.arange(0.5, 39, 0.25) + generator.uniform(-0.05, 0.05, 154):
        swell = np.clip((times - start) / 0.04, 0, 1) * np.exp(-np.clip(times - start - 0.1, 0, None) / 0.03)
        near = slice(round(start * RATE), round((start + 0.4) * RATE))
        tone = sum(np.sin(2 * np.pi * k * generator.uniform(110, 190) * times[near]) / k for k in range(1, 25))
        hiss = generator.uniform(0, 0.3) * generator.standard_normal(near.stop - near.start)[: len(times[near])]
        wave[near] += 0.05 * generator.uniform(0.3, 1) * swell[near] * (tone + hiss)
    truth = [float(time) for time in np.arange(2.1, 39, 3)]
    for seconds in truth:
        add_hit(wave, seconds, 0.5, generator)
    now, before = (score(wave.astype(np.float32), truth, version=version) for version in (2, 1))
    assert now.recall == 1
    assert now.precision >= max(0.9, before.precision)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_steady_noise_holds_no_onset(rate: int) -> None:
    """Two minutes: noise is judged before negative values of the curve are cut off, or there would seem to be none."""
    generator = np.random.default_rng(1)
    white = generator.standard_normal(120 * rate)
    pink = np.fft.irfft(np.fft.rfft(white) / np.sqrt(np.arange(1, len(white) // 2 + 2)))
    for wave in (0.05 * white, 0.05 * pink / pink.std()):
        detector = OnsetDetector(rate)
        assert [*detector.feed(wave.astype(np.float32)), *detector.finish()] == []


def test_the_rise_is_that_of_its_definition() -> None:
    """Band by band and frame by frame, in float64."""
    generator = np.random.default_rng(5)
    level = np.maximum(0, generator.normal(1, 2, (7, 150))).astype(np.float32)
    frame_seconds = 0.008
    for version in (1, 2):
        rule = _RULES[version]
        masks = [(0.0, rule.mask_db_per_second)]
        if rule.lasting_mask is not None:
            masks.append(rule.lasting_mask)
        mean = np.zeros(150)
        for frame in range(1, 150):
            masked = np.zeros(7)
            for band in range(7):
                # What masks a band: its levels before, two frames' mean, less what they have fallen by since.
                masked[band] = max(
                    (level[band, then] + level[band, max(0, then - 1)]) / 2
                    - (depth_db + (frame - 1 - then) * frame_seconds * db_per_second) * np.log(10) / 10
                    for depth_db, db_per_second in masks
                    for then in range(frame)
                )
            for band in range(7):
                over = level[band, frame] - masked[max(0, band - 1) : band + 2].max()
                mean[frame] += min(rule.most_rise, max(0, over)) / 7
        weight, seconds = rule.around
        reach = round(seconds / frame_seconds)
        padded = np.pad(mean, reach)
        around = np.array([padded[frame : frame + 2 * reach + 1].mean() for frame in range(150)])
        expected = mean - weight * around if weight else mean
        np.testing.assert_allclose(_rise(level, rule, frame_seconds), expected, atol=1e-5)
        assert expected.max() > 0.1


def test_what_masks_falls_from_the_highest_so_far() -> None:
    level = np.array([[0, 3, 1, 0, 2.5, 0]], np.float32)
    np.testing.assert_allclose(_falling(level, 0.5), [[0, 3, 2.5, 2, 2.5, 2]])


def test_a_faint_peak_by_a_strong_one_is_no_onset() -> None:
    """Less than 40 % of one in the 80 ms after it prepares that, less than 35 % of one in the 600 ms before echoes."""
    detector = OnsetDetector(RATE)
    frame = detector._frame_seconds
    for offset_seconds, share, is_onset in (
        (-0.072, 0.39, False), (-0.072, 0.41, True), (-0.088, 0.1, True),
        (0.59, 0.34, False), (0.59, 0.36, True), (0.62, 0.1, True), (0.1, 0.34, False),
    ):  # fmt: skip
        rise = np.zeros(300, np.float32)
        rise[150] = 2.0
        other = 150 + round(offset_seconds / frame)
        rise[other] = 2.0 * share
        assert (other in detector._peaks(rise, 0.1)) == is_onset, (offset_seconds, share)


def test_parameters_name_the_version_and_those_that_name_none_are_of_the_first() -> None:
    now = detector_parameters()
    assert now["detector_version"] == DETECTOR_VERSION == 2
    before = {"detector": "earmark", "segment_seconds": 10.0, "min_score": 3.0, "min_distance_seconds": 0.05}
    assert own_parameters({"fps": 16, **before}) == before
    assert own_parameters({"fps": 16, **now}) == now
    assert "detector_version" not in detector_parameters("replai")
    wave, _ = quick_hits(4)
    of_now, of_before = (
        [*detector.feed(wave), *detector.finish()]
        for detector in (detector_from(parameters, RATE) for parameters in (now, before))
    )
    assert of_now == found(wave)
    assert of_before == found(wave, version=1) != of_now
    with pytest.raises(ValueError, match="version 3 of the detector earmark is not known, only 1, 2"):
        detector_from({**now, "detector_version": 3}, RATE)


def test_the_first_version_finds_what_it_did() -> None:
    """Stores that were begun with it go on with it: values of commit b8b5ee6."""
    wave, _ = quick_hits(4)
    moments = found(wave, version=1)
    times = [round(moment.time_seconds, 3) for moment in moments[:6]]
    assert (len(moments), times) == (56, [0.996, 1.588, 1.924, 2.276, 2.532, 3.652])
    scores = [22.6849, 7.712, 14.1965, 4.2865, 11.4284, 18.3822]
    np.testing.assert_allclose([moment.score for moment in moments[:6]], scores, rtol=1e-4)
