"""Moments: the original's arithmetic against frozen arrays and a slow oracle, the detectors, streaming, the table."""

import math
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io.wavfile
import scipy.signal
from numpy.typing import NDArray

from earmark.media import MediaError
from earmark.moments import (
    DEFAULT_DETECTOR,
    DETECTORS,
    Detector,
    Moment,
    MomentFinder,
    MomentStream,
    ReplaiDetector,
    detector_from,
    detector_parameters,
    find_moments,
    interaction_curve,
    moments_of_file,
    moments_table,
    read_moments,
    segment_number,
    write_moments,
)
from earmark.moments.scoring import read_truth, score_onsets
from tests.helpers.media_clips import click_track, write_clip

RATE = 8000


def clicks(*times_seconds: float, duration_seconds: float, rate: int = RATE) -> NDArray[np.float32]:
    """Soft noise with short loud bursts."""
    rng = np.random.default_rng(7)
    wave = 0.001 * rng.standard_normal(round(duration_seconds * rate))
    for time in times_seconds:
        start = round(time * rate)
        wave[start : start + 80] += 0.5 * rng.standard_normal(len(wave[start : start + 80]))
    return wave.astype(np.float32)


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
    normalised = [(row - row.mean()) / (np.sqrt(((row - row.mean()) ** 2).mean()) + 1e-5) for row in rows]
    return np.mean(normalised, axis=0)


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
        "detector": "earmark", "segment_seconds": 10.0, "min_score": 4.0, "min_distance_seconds": 0.05
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


def blocks_of(wave: NDArray[np.float32], size: int) -> Iterator[NDArray[np.float32]]:
    """Cut a wave into blocks that lie in one buffer, used again for every block, as a decoder would."""
    buffer = np.empty(size, np.float32)
    for start in range(0, len(wave), size):
        block = wave[start : start + size]
        buffer[: len(block)] = block
        yield buffer[: len(block)]


def heard(wave: NDArray[np.float32], rate: int, **options: float) -> list[float]:
    """Times of the moments that the default detector finds."""
    return [m.time_seconds for m in MomentStream([wave], sample_rate=rate, **options)]  # type: ignore[arg-type]


def f1(moments: list[float], truth: list[float]) -> float:
    return score_onsets(moments, truth, window_seconds=0.05).f1


@pytest.mark.parametrize("rate", [16000, 24000, 44100, 48000])
def test_the_replai_detector_equals_find_moments_value_for_value(rate: int) -> None:
    wave = clicks(0.4, 3.2, 9.97, 12.5, 21.0, duration_seconds=24.1, rate=rate)
    detector = ReplaiDetector(rate)
    found = [m for block in blocks_of(wave, 7919) for m in detector.feed(block)] + detector.finish()
    assert found == find_moments(wave, rate, detector="replai")
    assert len(found) >= 5
    expected = []
    for segment in range(3):  # the original's steps, each segment by itself
        samples = wave[segment * 10 * rate : (segment + 1) * 10 * rate]
        _, times, power = scipy.signal.spectrogram(samples, rate)
        log_power = np.log10(power + 1e-5)
        normalised = (log_power - log_power.mean(1, keepdims=True)) / (log_power.std(1, keepdims=True) + 1e-5)
        curve = normalised.mean(0)
        peaks, properties = scipy.signal.find_peaks(curve, prominence=1, distance=10)
        of_peaks = zip(peaks, properties["prominences"], strict=True)
        expected += [(segment * 10 + times[peak], prominence, curve[peak], segment) for peak, prominence in of_peaks]
    assert [(m.time_seconds, m.score, m.height, m.segment_id) for m in found] == expected


@pytest.mark.parametrize("name", list(DETECTORS))
@pytest.mark.parametrize("size", [1, 997, 80000, 10**6])
def test_every_detector_finds_the_same_whatever_the_blocks(name: str, size: int) -> None:
    wave = clicks(0.4, 3.2, 9.96, 10.04, 12.5, 14.95, 19.5, 21.0, 23.7, duration_seconds=24.13)
    wave = wave[:16000] if size == 1 else wave
    streamed = list(MomentStream(blocks_of(wave, size), sample_rate=RATE, detector=name))
    whole = list(MomentStream([wave], sample_rate=RATE, detector=name))
    assert streamed == whole
    assert len(whole) > 0


@pytest.mark.parametrize("name", list(DETECTORS))
def test_loudness_is_the_level_of_the_100_ms_from_the_moment(name: str) -> None:
    wave = clicks(3.2, 9.92, 12.0, 15.94, duration_seconds=16.0)  # the last one's 100 ms are cut short
    moments = list(MomentStream(blocks_of(wave, 1000), sample_rate=RATE, detector=name))
    assert len(moments) >= 3
    for moment in moments:
        start = round(moment.time_seconds * RATE)
        tenth = wave[start : start + RATE // 10].astype(np.float64)
        assert moment.loudness_db == pytest.approx(10 * math.log10((tenth**2).mean()), abs=1e-9)


def test_a_full_scale_square_wave_is_at_0_db_and_nothing_at_minus_infinity() -> None:
    class Always(Detector):
        def _search(self, block: NDArray[np.floating]) -> list[Moment]:
            return []

        def _search_rest(self) -> list[Moment]:
            return [Moment(time, 1.0, 1.0, 0) for time in (0.0, 0.2, 0.5)]

    detector = Always(RATE, latency_seconds=1.0)
    wave = np.zeros(RATE // 2, np.float32)
    wave[:1600] = np.resize([1, -1], 1600)
    assert detector.feed(wave) == []
    assert [m.loudness_db for m in detector.finish()] == [0.0, -math.inf, -math.inf]


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 44100, 48000, 96000, 192000])
def test_onsets_are_found_alike_at_every_rate(rate: int) -> None:
    truth = [0.5, 1.2, 3.0, 5.4, 9.99, 11.3]
    times = heard(clicks(*truth, duration_seconds=12.0, rate=rate), rate)
    np.testing.assert_allclose(times, truth, atol=0.015)


@pytest.mark.parametrize(
    "wave",
    [
        np.zeros(RATE * 12, np.float32),
        np.full(RATE * 12, 0.3, np.float32),
        np.random.default_rng(0).standard_normal(RATE * 12).astype(np.float32) * 0.1,
        np.sin(2 * np.pi * 50 * np.arange(RATE * 12) / RATE).astype(np.float32),
        np.random.default_rng(0).standard_normal(20).astype(np.float32),
        np.empty(0, np.float32),
    ],
    ids=["silence", "constant", "noise", "hum", "a few samples", "empty"],
)
def test_no_onset_is_heard_where_nothing_happens(wave: NDArray[np.float32]) -> None:
    assert heard(wave, RATE) == []


@pytest.mark.parametrize("trouble", ["hum", "fan", "clipping", "slow swell", "low level"])
def test_onsets_are_found_in_trouble(trouble: str) -> None:
    rate = 16000
    rng = np.random.default_rng(1)
    truth = np.cumsum(rng.uniform(0.4, 1.6, 40)).tolist()
    wave = clicks(*truth, duration_seconds=truth[-1] + 1, rate=rate)
    times = np.arange(len(wave)) / rate
    troubled = {
        "hum": wave + 0.3 * np.sin(2 * np.pi * 50 * times) + 0.1 * np.sin(2 * np.pi * 150 * times),
        "fan": wave + 0.05 * rng.standard_normal(len(wave)),
        "clipping": np.clip(20 * wave, -1, 1),
        "slow swell": wave * 10 ** (-1.5 * times / times[-1]),
        "low level": 0.003 * wave,
    }[trouble].astype(np.float32)
    assert f1(heard(troubled, rate), truth) >= 0.95


def test_the_score_does_not_depend_on_the_level() -> None:
    wave = clicks(1.0, 2.0, 4.0, duration_seconds=6.0)
    loud, soft = (list(MomentStream([gain * wave], sample_rate=RATE)) for gain in np.float32([1.0, 0.1]))
    assert [m.score for m in soft] == pytest.approx([m.score for m in loud], rel=0.02)
    assert [m.loudness_db - 20 for m in loud] == pytest.approx([m.loudness_db for m in soft], abs=1e-3)


def test_a_gliding_voice_is_quieter_to_the_detector_than_a_knock() -> None:
    rate = 16000
    times = np.arange(6 * rate) / rate
    pitch = 140 * (1 + 0.15 * np.sin(2 * np.pi * 3 * times))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    voice = sum(np.sin(k * phase) / k for k in range(1, 20)) * (0.05 + 0.05 * np.sin(2 * np.pi * 1.5 * times) ** 2)
    wave = (voice + clicks(1.5, 4.0, duration_seconds=6.0, rate=rate)).astype(np.float32)
    np.testing.assert_allclose(heard(wave, rate), [1.5, 4.0], atol=0.03)


def test_real_hits_are_found_where_they_were_labelled_by_hand(media: Path) -> None:
    num_met = num_moments = num_truth = 0.0
    for file in sorted((Path(__file__).parents[1] / "labels").glob("*.txt")):
        (path,) = media.glob(f"{file.stem}.*")
        times = [moment.time_seconds for moment in MomentStream(path)]
        score = score_onsets(times, read_truth(file)[file.stem], window_seconds=0.05)
        num_met += score.recall * score.num_truth
        num_moments += score.num_moments
        num_truth += score.num_truth
    assert 2 * num_met / (num_moments + num_truth) >= 0.9


def test_moments_of_a_stream_keep_distance_margins_and_count() -> None:
    rng = np.random.default_rng(2)
    truth = np.cumsum(rng.uniform(0.2, 1.2, 180)).tolist()
    wave = clicks(*truth, duration_seconds=130.0)
    assert np.diff(heard(wave, RATE, min_distance_seconds=0.5)).min() >= 0.49
    every = list(MomentStream([wave], sample_rate=RATE))
    inner = list(MomentStream(blocks_of(wave, 5000), sample_rate=RATE, margin_seconds=3.0))
    assert inner == [m for m in every if 3.0 <= m.time_seconds <= 127.0]
    few = list(MomentStream([wave], sample_rate=RATE, max_per_minute=5))
    for minute in range(3):
        of_minute = [m for m in every if m.time_seconds // 60 == minute]
        best = sorted(of_minute, key=lambda m: -m.score)[:5]
        assert [m for m in few if m.time_seconds // 60 == minute] == sorted(best, key=lambda m: m.time_seconds)
    high = list(MomentStream([wave], sample_rate=RATE, min_score=8.0))
    assert 0 < len(high) < len(every)
    assert min(m.score for m in high) >= 8.0


def test_a_stream_gives_moments_before_its_source_has_ended() -> None:
    wave = clicks(*np.arange(1.0, 119.0, 2.0), duration_seconds=120.0)
    stream = MomentStream(blocks_of(wave, RATE), sample_rate=RATE)
    first = next(iter(stream))
    assert first.time_seconds == pytest.approx(1.0, abs=0.02)
    assert stream.duration_seconds <= 20.0


@pytest.mark.parametrize("name", list(DETECTORS))
def test_memory_does_not_grow_with_the_length_of_the_sound(name: str) -> None:
    def peak(num_blocks: int) -> int:
        noisy = clicks(0.3, duration_seconds=1.0)
        tracemalloc.start()
        for _ in MomentStream((noisy for _ in range(num_blocks)), sample_rate=RATE, detector=name):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(40)
    assert peak(600) <= 1.1 * peak(60)


def test_a_stream_of_a_file_knows_the_file_and_its_damage(media: Path, tmp_path: Path) -> None:
    stream = MomentStream(media / "chopping.mp4")
    assert len(list(stream)) == len(list(stream))  # read anew
    assert stream.info is not None
    assert stream.info.audio is not None
    assert stream.duration_seconds == pytest.approx(8.0, abs=0.1)
    assert stream.problem is None
    wave = clicks(1.0, duration_seconds=4.0)
    scipy.io.wavfile.write(tmp_path / "a.wav", RATE, wave)
    content = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "short.wav").write_bytes(content[: len(content) // 2])
    wave[3 * RATE] = np.nan
    scipy.io.wavfile.write(tmp_path / "nan.wav", RATE, wave)
    damaged = MomentStream(tmp_path / "nan.wav")
    assert [round(m.time_seconds, 1) for m in damaged] == [1.0]
    assert damaged.problem == "1 sample that is not finite was set to 0"


@pytest.mark.parametrize("name", list(DETECTORS))
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_score": -1.0}, "min_score"),
        ({"min_score": math.nan}, "min_score"),
        ({"min_distance_seconds": -0.1}, "min_distance_seconds"),
        ({"segment_seconds": 0.0}, "segment_seconds"),
        ({"margin_seconds": -1.0}, "margin_seconds"),
        ({"max_per_minute": 0}, "max_per_minute"),
    ],
)
def test_options_of_a_stream_out_of_range_are_refused(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MomentStream([], sample_rate=RATE, detector=name, **options)  # type: ignore[arg-type]


def test_a_stream_wants_a_known_detector_and_a_rate_for_blocks_only() -> None:
    with pytest.raises(ValueError, match="one of earmark, replai"):
        MomentStream([], sample_rate=RATE, detector="ears")
    with pytest.raises(ValueError, match="need a sample_rate"):
        MomentStream([])
    with pytest.raises(ValueError, match="its own rate"):
        MomentStream("a.wav", sample_rate=RATE)
    with pytest.raises(ValueError, match="sample_rate must be positive"):
        MomentStream([], sample_rate=0)


@pytest.mark.parametrize("name", list(DETECTORS))
@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (np.zeros((2, 9), np.float32), "one-dimensional"),
        (np.zeros(900, np.int16), "floating point"),
        (np.full(900, np.nan, np.float32), "finite"),
    ],
)
def test_a_block_that_is_none_is_refused(name: str, wave: NDArray[np.float32], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(MomentStream([wave], sample_rate=RATE, detector=name))


def test_table_survives_the_disk(tmp_path: Path) -> None:
    found = {"b": [Moment(1.5, 2.0, 3.0, 0), Moment(11.0, 1.0, 0.5, 1)], "empty": [], "a": [Moment(0.1, 1.2, 3.4, 0)]}
    table = moments_table(found, detector="audio_peaks", parameters={"min_distance": 10, "min_prominence": 1.0})
    write_moments(tmp_path / "moments.parquet", table)
    assert [p.name for p in tmp_path.iterdir()] == ["moments.parquet"]
    read = read_moments(tmp_path / "moments.parquet")
    assert read.equals(table, check_metadata=True)
    assert read.schema.metadata == {
        b"detector": b"audio_peaks",
        b"parameters": b'{"min_distance": 10, "min_prominence": 1.0}',
    }
    assert read.column("video_id").to_pylist() == ["b", "b", "a"]


def test_a_table_without_any_moment_survives_the_disk(tmp_path: Path) -> None:
    write_moments(tmp_path / "moments.parquet", moments_table({}, detector="audio_peaks", parameters={}))
    assert read_moments(tmp_path / "moments.parquet").num_rows == 0


def test_an_interrupted_write_leaves_the_old_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "moments.parquet"
    old = moments_table({"a": [Moment(1.5, 2.0, 3.0, 0)]}, detector="audio_peaks", parameters={})
    write_moments(path, old)

    def fail(table: pa.Table, file: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        write_moments(path, moments_table({}, detector="audio_peaks", parameters={}))
    assert [p.name for p in tmp_path.iterdir()] == ["moments.parquet"]
    assert read_moments(path).equals(old)


def test_other_files_are_no_moments_tables(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_text("not parquet")
    with pytest.raises(ValueError, match=r"x.parquet: not a moments table"):
        read_moments(path)
    pq.write_table(pa.table({"video_id": ["a"], "score": [1.0]}), path)
    with pytest.raises(ValueError, match=r"x.parquet: .*missing: time_seconds, height, segment_id"):
        read_moments(path)
    table = moments_table({"a": [Moment(1.5, 2.0, 3.0, 0)]}, detector="d", parameters={})
    pq.write_table(table.set_column(1, "time_seconds", pa.array(["soon"])), path)
    with pytest.raises(ValueError, match=r"x.parquet: .*expected"):
        read_moments(path)


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_the_moments_are_peaks_of_the_curve_that_the_detector_tells(name: str) -> None:
    wave = clicks(0.4, 3.2, 9.97, 12.5, 21.0, duration_seconds=25.0)
    detector, pieces = DETECTORS[name](RATE), []
    detector.on_curve = lambda times, values: pieces.append((times, values))
    moments = [m for block in blocks_of(wave, 7001) for m in detector.feed(block)]
    moments += detector.finish()
    times, values = (np.concatenate(part) for part in zip(*pieces, strict=True))
    assert (np.diff(times) > 0).all()
    assert times[-1] > 24.9
    assert len(moments) >= 3
    for moment in moments:
        place = int(np.abs(times - moment.time_seconds).argmin())
        assert times[place] == pytest.approx(moment.time_seconds, abs=1e-9)
        assert values[place] == pytest.approx(moment.score if name == "earmark" else moment.height)
        assert values[place] >= values[max(0, place - 1) : place + 2].max()
