"""Moments: the original's arithmetic against frozen arrays and a slow oracle, the detectors, streaming, the table."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.io.wavfile
import scipy.signal
from numpy.typing import NDArray

from earmark.media import MediaError
from earmark.moments import (
    DEFAULT_DETECTOR,
    DETECTORS,
    Moment,
    MomentFinder,
    MomentStream,
    detector_from,
    detector_parameters,
    find_moments,
    interaction_curve,
    moments_of_file,
    segment_number,
)
from tests.helpers.click_sound import RATE, clicks
from tests.helpers.media_clips import click_track, write_clip


def slow_curve(wave: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """The curve by its definition, one window after the other."""
    window = np.ones(256)
    for i in range(256):  # periodic Tukey: a quarter of the window, half on each side, is a cosine taper
        edge = min(i, 256 - i) / (0.25 * 256 / 2)
        if edge < 1:
            window[i] = 0.5 * (1 - np.cos(np.pi * edge))
    columns = []
    for start in range(0, len(wave) - 255, 224):
        samples = wave[start : start + 256]
        spectrum = np.fft.rfft((samples - samples.mean()) * window)
        density = np.abs(spectrum) ** 2 / (rate * (window**2).sum())
        density[1:-1] *= 2  # one-sided: the negative frequencies' share, none for 0 and the half rate
        columns.append(np.log10(density + 1e-5))
    rows = np.array(columns).T
    normalized = [(row - row.mean()) / (np.sqrt(((row - row.mean()) ** 2).mean()) + 1e-5) for row in rows]
    return np.mean(normalized, axis=0)


def test_curve_and_peaks_equal_the_frozen_arrays_exactly(reference: Path) -> None:
    frozen = np.load(reference / "moments.npz")
    times, curve = interaction_curve(frozen["wave"], 44100)
    np.testing.assert_array_equal(curve, frozen["curve"])
    np.testing.assert_array_equal(times, frozen["t"])
    moments = find_moments(frozen["wave"], 44100, detector="replai")
    assert [m.time_seconds for m in moments] == frozen["peaks_before"].tolist()
    assert [m.score for m in moments] == frozen["peak_prom"].tolist()
    assert [m.height for m in moments] == frozen["curve"][frozen["peak_idx"]].tolist()


@pytest.mark.parametrize(("key", "margin"), [("peaks_after_d0.1_v0.5", 0.6), ("peaks_after_d0.0_v0.5", 0.5)])
def test_margin_filter_equals_the_frozen_arrays_exactly(reference: Path, key: str, margin: float) -> None:
    frozen = np.load(reference / "moments.npz")
    moments = find_moments(frozen["wave"], 44100, margin_seconds=margin, detector="replai")
    assert [m.time_seconds for m in moments] == frozen[key].tolist()


@pytest.mark.parametrize("rate", [8000, 44100])
def test_curve_equals_the_slow_oracle_in_float64(rate: int) -> None:
    wave = np.random.default_rng(3).standard_normal(5000) * np.linspace(0, 1, 5000)
    times, curve = interaction_curve(wave, rate)
    np.testing.assert_allclose(curve, slow_curve(wave, rate), rtol=0, atol=1e-10)
    np.testing.assert_allclose(times, (128 + 224 * np.arange(len(curve))) / rate, rtol=1e-12)


@pytest.mark.parametrize(
    "wave",
    [
        np.zeros(RATE * 10, np.float32),
        np.full(RATE * 10, 0.3, np.float32),
        np.random.default_rng(0).standard_normal(RATE * 10).astype(np.float32),
        np.random.default_rng(0).standard_normal(255).astype(np.float32),
        np.random.default_rng(0).standard_normal(256).astype(np.float32),
        np.empty(0, np.float32),
    ],
    ids=["silence", "constant", "noise", "below one window", "one window", "empty"],
)
def test_uneventful_sound_has_no_moment(wave: NDArray[np.float32]) -> None:
    assert find_moments(wave, RATE, detector="replai") == []


def test_moments_are_where_the_clicks_are_and_know_their_segment() -> None:
    truth = [3.2, 7.7, 12.5, 21.0]
    moments = find_moments(clicks(*truth, duration_seconds=24.0), RATE, detector="replai")
    np.testing.assert_allclose([m.time_seconds for m in moments], truth, atol=224 / RATE)
    assert [m.segment_id for m in moments] == [0, 0, 1, 2]


def test_each_segment_is_searched_by_itself() -> None:
    wave = clicks(3.2, 12.5, duration_seconds=20.0)
    second = find_moments(wave[10 * RATE :], RATE, detector="replai")
    assert [(m.time_seconds, m.score) for m in find_moments(wave, RATE, detector="replai") if m.segment_id == 1] == [
        (10.0 + m.time_seconds, m.score) for m in second
    ]


@pytest.mark.parametrize("block_size", [1000, 7919, 80000, 130000, 10**6])
@pytest.mark.parametrize("margin", [0.0, 0.6, 3.0])
def test_streaming_equals_the_whole_whatever_the_blocks(block_size: int, margin: float) -> None:
    wave = clicks(0.4, 3.2, 9.8, 12.5, 19.5, 21.0, 23.7, duration_seconds=24.1)
    buffer = np.empty(block_size, np.float32)  # used again for every block, as a decoder would

    def blocks() -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(wave), block_size):
            block = wave[start : start + block_size]
            buffer[: len(block)] = block
            yield buffer[: len(block)]

    streamed = list(MomentStream(blocks(), sample_rate=RATE, detector="replai", margin_seconds=margin))
    assert streamed == find_moments(wave, RATE, margin_seconds=margin, detector="replai")
    assert [m.time_seconds for m in streamed] == [
        m.time_seconds
        for m in find_moments(wave, RATE, detector="replai")
        if margin <= m.time_seconds <= len(wave) / RATE - margin
    ]


def test_a_moment_is_reported_as_soon_as_its_segment_is_complete() -> None:
    finder = MomentFinder(RATE)
    wave = clicks(3.2, duration_seconds=15.0)
    assert finder.feed(wave[: 10 * RATE - 1]) == []
    assert len(finder.feed(wave[10 * RATE - 1 :])) == 1


def test_margin_is_a_closed_interval() -> None:
    wave = clicks(3.2, duration_seconds=10.0)
    (moment,) = find_moments(wave, RATE, detector="replai")
    assert find_moments(wave, RATE, margin_seconds=moment.time_seconds, detector="replai") == [moment]
    assert find_moments(wave, RATE, margin_seconds=float(np.nextafter(moment.time_seconds, 10))) == []


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (np.zeros((2, 9), np.float32), "one-dimensional"),
        (np.zeros(900, np.int16), "floating point"),
        (np.full(900, np.nan, np.float32), "finite"),
    ],
)
def test_a_wave_that_is_none_is_refused(wave: NDArray[np.float32], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        interaction_curve(wave, RATE)


@pytest.mark.parametrize("options", [{"segment_seconds": 0.0}, {"min_prominence": -1.0}, {"min_distance": 0}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        MomentFinder(RATE, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", DETECTORS)
def test_moments_of_a_file_are_those_of_its_wave(tmp_path: Path, name: str) -> None:
    wave = clicks(3.2, 12.5, duration_seconds=17.0)
    scipy.io.wavfile.write(tmp_path / "a.wav", RATE, np.stack([wave, wave], axis=1))
    moments, info = moments_of_file(tmp_path / "a.wav", margin_seconds=0.6, detector=name)
    assert moments == find_moments(wave, RATE, margin_seconds=0.6, detector=name)
    assert len(moments) == 2
    assert info.duration_seconds == pytest.approx(17.0)


def test_one_detector_is_the_default_everywhere(tmp_path: Path) -> None:
    wave = clicks(1.0, 4.0, 12.5, duration_seconds=15.0, rate=16000)
    scipy.io.wavfile.write(tmp_path / "a.wav", 16000, (wave * 32767).astype(np.int16))
    by_default = moments_of_file(tmp_path / "a.wav")[0]
    assert (
        by_default
        == list(MomentStream(tmp_path / "a.wav"))
        == moments_of_file(tmp_path / "a.wav", detector="earmark")[0]
    )
    assert by_default != moments_of_file(tmp_path / "a.wav", detector="replai")[0]
    assert find_moments(wave, 16000) == list(MomentStream([wave], sample_rate=16000))
    assert detector_parameters()["detector"] == DEFAULT_DETECTOR == "earmark"


@pytest.mark.parametrize(
    ("rate", "segment_seconds"), [(44100, 10.0), (8000, 1.0), (11025, 0.7), (8001, 0.5), (22050, 7.3)]
)
@pytest.mark.parametrize("name", DETECTORS)
def test_a_moment_belongs_to_the_segment_that_its_time_lies_in(name: str, rate: int, segment_seconds: float) -> None:
    # Hits all over and about the seams; a segment that is no whole number of samples drifts if its length is rounded.
    seconds = 400.0 if rate < 10000 else 60.0
    generator = np.random.default_rng(5)
    wave = (0.001 * generator.standard_normal(round(seconds * rate))).astype(np.float32)
    seams = np.arange(1, seconds / segment_seconds) * segment_seconds
    for time in [*seams[:: max(1, len(seams) // 40)], *generator.uniform(0, seconds, 40)]:
        start = round(time * rate)
        burst = generator.standard_normal(rate // 50) * np.exp(-np.arange(rate // 50) / (rate / 200))
        wave[start : start + len(burst)] += 0.3 * burst[: len(wave) - start].astype(np.float32)
    moments = find_moments(wave, rate, detector=name, segment_seconds=segment_seconds)
    assert len(moments) > 20
    times = np.array([m.time_seconds for m in moments])
    assert [m.segment_id for m in moments] == np.floor(times / segment_seconds).astype(int).tolist()
    assert [m.segment_id for m in moments] == segment_number(times, segment_seconds).tolist()


def test_each_detector_takes_its_own_options_and_no_others() -> None:
    assert detector_parameters("replai") == {
        "detector": "replai", "segment_seconds": 10.0, "min_prominence": 1.0, "min_distance": 10
    }  # fmt: skip
    assert detector_parameters("earmark", min_score=4.0, min_prominence=None) == {
        "detector": "earmark", "segment_seconds": 10.0, "min_score": 4.0, "min_distance_seconds": 0.05,
        "detector_version": 2,
    }  # fmt: skip
    with pytest.raises(
        ValueError, match="min_prominence is not an option of the detector earmark, which has min_score"
    ):
        detector_parameters("earmark", min_prominence=1.0)
    with pytest.raises(ValueError, match="min_score is not an option of the detector replai, which has min_prominence"):
        find_moments(np.zeros(9, np.float32), RATE, detector="replai", min_score=1.0)
    with pytest.raises(ValueError, match="'ears': must be one of earmark, replai"):
        detector_parameters("ears")
    for name, wrong in (("earmark", {"min_score": -1.0}), ("replai", {"min_prominence": -1.0})):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            detector_parameters(name, **wrong)


def test_the_parameters_build_the_detector() -> None:
    wave = clicks(1.0, 4.0, 12.5, duration_seconds=15.0, rate=16000)
    for name, option in (("earmark", {"min_score": 6.0}), ("replai", {"min_prominence": 3.0})):
        detector = detector_from({"fps": 16, **detector_parameters(name, **option)}, 16000)
        found = [*detector.feed(wave), *detector.finish()]
        assert found == list(
            MomentStream([wave], sample_rate=16000, detector=name, min_score=next(iter(option.values())))
        )
        assert found


@pytest.mark.parametrize("name", ["earmark", "replai"])
def test_a_thread_finds_what_the_main_one_finds_to_the_last_bit(name: str) -> None:
    """NumPy 2.1.0 and 2.1.1 promote a float32 beside a float otherwise in threads: pyproject.toml leaves them out."""
    waves = np.random.default_rng(0).normal(scale=0.01, size=(8, 3 * RATE)).astype(np.float32)
    waves[:, RATE : RATE + 100] += 0.5

    def found() -> list[list[Moment]]:
        return [find_moments(wave, RATE, detector=name) for wave in waves]

    elsewhere: list[list[list[Moment]]] = []
    thread = threading.Thread(target=lambda: elsewhere.append(found()))
    thread.start()
    thread.join()
    assert elsewhere == [found()]
    assert all(elsewhere[0])


def test_a_sound_track_can_be_chosen(tmp_path: Path) -> None:
    waves = [click_track(144000, round(48000 * time)) for time in (0.7, 2.1)]
    write_clip(tmp_path / "a.mkv", waves=waves)
    for number, time in ((0, 0.7), (1, 2.1)):
        (moment,) = moments_of_file(tmp_path / "a.mkv", audio_stream=number)[0]
        assert moment.time_seconds == pytest.approx(time, abs=0.02)
        assert moments_of_file(tmp_path / "a.mkv", audio_stream=number)[1].audio.number == number  # type: ignore[union-attr]
    with pytest.raises(MediaError, match=r"a\.mkv: no audio stream 2, it has 2"):
        MomentStream(tmp_path / "a.mkv", audio_stream=2)
    with pytest.raises(ValueError, match="audio_stream is for files"):
        MomentStream([], sample_rate=RATE, audio_stream=0)


def test_hits_of_real_clips_are_found(media: Path) -> None:
    chopping, _ = moments_of_file(media / "chopping.mp4")
    assert 10 <= len(chopping) <= 18  # about 15 hits, half a second apart
    assert np.median(np.diff([m.time_seconds for m in chopping])) == pytest.approx(0.5, abs=0.06)
    weeding, _ = moments_of_file(media / "ego_weeding.mp4")
    assert max(weeding, key=lambda m: m.score).time_seconds == pytest.approx(1.6, abs=0.1)
    carpenter, _ = moments_of_file(media / "ego_carpenter.mp4")
    assert max(carpenter, key=lambda m: m.score).time_seconds == pytest.approx(1.7, abs=0.1)
    assert moments_of_file(media / "ego_silent_track.mp4")[0] == []


def test_a_file_without_sound_is_refused_by_name(media: Path) -> None:
    with pytest.raises(MediaError, match=r"tennis_no_audio.mp4: no sound"):
        moments_of_file(media / "tennis_no_audio.mp4")
