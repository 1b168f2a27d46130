"""Moments of streams of sound: the same whatever the blocks, at every rate, in trouble, in flat memory."""

import math
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.io.wavfile
import scipy.signal
from numpy.typing import NDArray

from earmark.moments import (
    DETECTORS,
    Detector,
    Moment,
    MomentStream,
    ReplaiDetector,
    find_moments,
)
from earmark.moments.scoring import read_truth, score_onsets
from tests.helpers.click_sound import RATE, clicks


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
        normalized = (log_power - log_power.mean(1, keepdims=True)) / (log_power.std(1, keepdims=True) + 1e-5)
        curve = normalized.mean(0)
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
    high = list(MomentStream([wave], sample_rate=RATE, min_score=11.5))
    assert 0 < len(high) < len(every)
    assert min(m.score for m in high) >= 11.5


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
