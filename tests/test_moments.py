"""Moments: the original's arithmetic against frozen arrays and a slow oracle, streaming, the table."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io.wavfile
from numpy.typing import NDArray

from earmark.media import MediaError
from earmark.moments import (
    Moment,
    MomentFinder,
    find_moments,
    interaction_curve,
    moments_of_file,
    moments_table,
    read_moments,
    write_moments,
)

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
    moments = find_moments(frozen["wave"], 44100)
    assert [m.time_seconds for m in moments] == frozen["peaks_before"].tolist()
    assert [m.score for m in moments] == frozen["peak_prom"].tolist()
    assert [m.height for m in moments] == frozen["curve"][frozen["peak_idx"]].tolist()


@pytest.mark.parametrize(("key", "margin"), [("peaks_after_d0.1_v0.5", 0.6), ("peaks_after_d0.0_v0.5", 0.5)])
def test_margin_filter_equals_the_frozen_arrays_exactly(reference: Path, key: str, margin: float) -> None:
    frozen = np.load(reference / "moments.npz")
    moments = find_moments(frozen["wave"], 44100, margin_seconds=margin)
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
    assert find_moments(wave, RATE) == []


def test_moments_are_where_the_clicks_are_and_know_their_segment() -> None:
    truth = [3.2, 7.7, 12.5, 21.0]
    moments = find_moments(clicks(*truth, duration_seconds=24.0), RATE)
    np.testing.assert_allclose([m.time_seconds for m in moments], truth, atol=224 / RATE)
    assert [m.segment_id for m in moments] == [0, 0, 1, 2]


def test_each_segment_is_searched_by_itself() -> None:
    wave = clicks(3.2, 12.5, duration_seconds=20.0)
    second = find_moments(wave[10 * RATE :], RATE)
    assert [(m.time_seconds, m.score) for m in find_moments(wave, RATE) if m.segment_id == 1] == [
        (10.0 + m.time_seconds, m.score) for m in second
    ]


@pytest.mark.parametrize("block_size", [1000, 7919, 80000, 130000, 10**6])
@pytest.mark.parametrize("margin", [0.0, 0.6, 3.0])
def test_streaming_equals_the_whole_whatever_the_blocks(block_size: int, margin: float) -> None:
    wave = clicks(0.4, 3.2, 9.8, 12.5, 19.5, 21.0, 23.7, duration_seconds=24.1)
    finder = MomentFinder(RATE, margin_seconds=margin)
    buffer = np.empty(block_size, np.float32)  # used again for every block, as a decoder would
    streamed = []
    for start in range(0, len(wave), block_size):
        block = wave[start : start + block_size]
        buffer[: len(block)] = block
        streamed += finder.feed(buffer[: len(block)])
    streamed += finder.finish()
    assert streamed == find_moments(wave, RATE, margin_seconds=margin)
    assert [m.time_seconds for m in streamed] == [
        m.time_seconds for m in find_moments(wave, RATE) if margin <= m.time_seconds <= len(wave) / RATE - margin
    ]


def test_a_moment_is_reported_as_soon_as_its_segment_is_complete() -> None:
    finder = MomentFinder(RATE)
    wave = clicks(3.2, duration_seconds=15.0)
    assert finder.feed(wave[: 10 * RATE - 1]) == []
    assert len(finder.feed(wave[10 * RATE - 1 :])) == 1


def test_margin_is_a_closed_interval() -> None:
    wave = clicks(3.2, duration_seconds=10.0)
    (moment,) = find_moments(wave, RATE)
    assert find_moments(wave, RATE, margin_seconds=moment.time_seconds) == [moment]
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


@pytest.mark.parametrize("options", [{"segment_seconds": 0.0}, {"margin_seconds": -1.0}, {"min_distance": 0}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        MomentFinder(RATE, **options)  # type: ignore[arg-type]


def test_moments_of_a_file_are_those_of_its_wave(tmp_path: Path) -> None:
    wave = clicks(3.2, 12.5, duration_seconds=17.0)
    scipy.io.wavfile.write(tmp_path / "a.wav", RATE, np.stack([wave, wave], axis=1))
    moments, info = moments_of_file(tmp_path / "a.wav", margin_seconds=0.6)
    assert moments == find_moments(wave, RATE, margin_seconds=0.6)
    assert len(moments) == 2
    assert info.duration_seconds == pytest.approx(17.0)


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
