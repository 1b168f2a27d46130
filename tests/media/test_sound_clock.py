"""Sound whose time stamps, channels or packets are odd: it comes out whole, and what is left out is named."""

import os
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import scipy.io.wavfile
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

from earmark.media import FrameReader, MediaError, SoundReader, media_info
from earmark.media.mixing import Mixer
from tests.helpers.media_clips import click_track, grey_ramp, write_clip

RATE = 48000
TONES = (200, 250, 300, 100, 400, 450, 500, 550)  # the fourth of eight channels is for low tones only


def read(path: Path) -> tuple[NDArray[np.float32], str | None]:
    reader = SoundReader(path)
    return np.concatenate(list(reader)), reader.problem


def clicks_in(wave: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
    loud = np.flatnonzero(np.abs(wave) > 0.4 * np.abs(wave).max()) / rate
    return loud[np.insert(np.diff(loud) > 0.2, 0, True)]


# --- many channels ---


def frame_of(samples: NDArray[np.int32], layout: str, sample_format: str) -> AudioFrame:
    """Make a frame of int32 samples ``(S, channels)`` in any format; swresample does not mix here."""
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples).reshape(1, -1), format="s32", layout=layout)
    frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
    (converted,) = AudioResampler(format=sample_format).resample(frame)
    return converted


@pytest.mark.parametrize("sample_format", ["u8p", "s16p", "s32p", "fltp", "dblp", "s64", "s64p", "s16", "flt"])
@pytest.mark.parametrize(
    ("layout", "num_channels"),
    [("stereo", 2), ("6.1", 7), ("7.1", 8), ("hexadecagonal", 16), ("22.2", 24), ("12 channels", 12)],
)
def test_the_mean_is_that_of_all_channels_however_many(layout: str, num_channels: int, sample_format: str) -> None:
    rng = np.random.default_rng(0)
    # whole steps of 8 bits, so that every format holds them exactly
    samples = (rng.integers(-127, 127, (500, num_channels)) << 24).astype(np.int32)
    frame = frame_of(samples, layout, sample_format)
    assert frame.format.name == sample_format
    expected = (samples / 2.0**31).mean(axis=1)
    mixer = Mixer()
    for _ in range(2):
        np.testing.assert_allclose(mixer(frame), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("name", "codec"), [("a.m4a", "aac"), ("a.mkv", "aac")])
def test_a_file_of_eight_planar_channels_is_read_by_a_process_that_lives(tmp_path: Path, name: str, codec: str) -> None:
    time = np.arange(2 * RATE) / RATE
    waves = np.stack([0.3 * np.sin(2 * np.pi * f * time) for f in TONES], axis=1).astype(np.float32)
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=RATE, layout="7.1")
        stream.bit_rate = 512_000
        packed = AudioFrame.from_ndarray(waves.reshape(1, -1), format="flt", layout="7.1")
        packed.sample_rate, packed.pts, packed.time_base = RATE, 0, Fraction(1, RATE)
        container.mux(stream.encode(packed))
        container.mux(stream.encode(None))
    script = (
        "import sys, numpy as np; from earmark.media import SoundReader; "
        "np.save(sys.argv[2], np.concatenate(list(SoundReader(sys.argv[1]))))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    out = tmp_path / "mono.npy"
    done = subprocess.run([sys.executable, "-c", script, tmp_path / name, out], check=False, env=environment)
    assert done.returncode == 0
    wave = np.load(out)
    assert len(wave) == pytest.approx(2 * RATE, abs=1024)
    spectrum = np.abs(np.fft.rfft(wave[RATE // 2 : 3 * RATE // 2])) / (RATE / 2)  # bins of 1 Hz
    assert sorted(np.argsort(spectrum)[-8:]) == sorted(TONES)
    np.testing.assert_allclose(spectrum[list(TONES)], 0.3 / 8, rtol=0.1)


def test_sixteen_planar_channels_are_read(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-3000, 3000, (4000, 16)).astype(np.int16)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("wavpack", rate=RATE, layout="hexadecagonal", format="s16p")
        frame = AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="hexadecagonal")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    script = (
        "import sys, numpy as np; from earmark.media import SoundReader; "
        "np.save(sys.argv[2], np.concatenate(list(SoundReader(sys.argv[1]))))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    out = tmp_path / "mono.npy"
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "a.mkv", out], check=False, env=environment)
    assert done.returncode == 0
    np.testing.assert_allclose(np.load(out), samples.mean(axis=1) / 2**15, rtol=0, atol=1e-7)


def test_64_bit_samples_are_read(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-(2**62), 2**62, 1000)
    content = samples.astype("<i8").tobytes()
    header = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 64000, 8, 64) + b"data"
    body = header + struct.pack("<I", len(content)) + content
    (tmp_path / "a.wav").write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    wave, problem = read(tmp_path / "a.wav")
    np.testing.assert_allclose(wave, samples / 2.0**63, rtol=0, atol=1e-7)
    assert problem is None


# --- clocks that are wrong ---


@pytest.mark.parametrize(
    ("scale", "rate", "sample_size"),
    [
        (8, 30625, 1),  # as in androidx/media's avi/sample-with-large-length.avi: 0.26 ms a packet of 26 ms
        (1152, 2 * RATE, 0),  # twice too slow
        (1152, RATE * 10 // 11, 0),  # a tenth too fast
        (1152, RATE // 10, 0),  # ten times too fast
        (1024, RATE, 0),  # as if its packets were those of AAC
    ],
)
def test_an_avi_that_counts_its_sound_wrongly_is_read_by_its_samples(
    tmp_path: Path, scale: int, rate: int, sample_size: int
) -> None:
    path = tmp_path / "a.avi"
    waves = [np.sum([click_track(4 * RATE, t * RATE) for t in (1, 2, 3)], axis=0)]
    write_clip(path, frames=grey_ramp(25), video_codec="mjpeg", waves=waves, audio_codec="mp3")
    good, problem = read(path)
    assert problem is None
    content = bytearray(path.read_bytes())
    header = content.find(b"auds")
    content[header + 20 : header + 28] = struct.pack("<II", scale, rate)
    content[header + 44 : header + 48] = struct.pack("<I", sample_size)
    path.write_bytes(content)
    wave, problem = read(path)
    assert len(wave) == pytest.approx(len(good), abs=1152)
    np.testing.assert_allclose(clicks_in(wave, RATE), clicks_in(good, RATE), atol=0.03)
    assert "the sound's time stamps do not fit its length" in str(problem)


def retimed(source: Path, target: Path, change: float) -> None:
    """Copy sound with its clock at another rate."""
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(container.streams.audio[0])
        for packet in container.demux(container.streams.audio[0]):
            if packet.size:
                seconds = float(packet.pts * packet.time_base)
                packet.stream = stream
                packet.pts = packet.dts = round(seconds * change / packet.time_base)
                out.mux_one(packet)


@pytest.mark.parametrize("change", [0.01, 0.5, 0.9])
def test_time_stamps_that_run_too_slow_do_not_cut_the_sound(tmp_path: Path, change: float) -> None:
    waves = [np.sum([click_track(4 * RATE, t * RATE) for t in (1, 2, 3)], axis=0)]
    write_clip(tmp_path / "a.mka", waves=waves, audio_codec="libopus")
    good, _ = read(tmp_path / "a.mka")
    retimed(tmp_path / "a.mka", tmp_path / "b.mka", change)
    wave, problem = read(tmp_path / "b.mka")
    assert len(wave) == pytest.approx(len(good), abs=RATE // 10)
    np.testing.assert_allclose(clicks_in(wave, RATE), clicks_in(good, RATE), atol=0.1)
    assert "the sound's time stamps do not fit its length" in str(problem)


def test_a_clock_that_drifts_like_a_recorders_is_followed(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mka", waves=[np.full(20 * RATE, 0.1, np.float32)], audio_codec="libopus")
    retimed(tmp_path / "a.mka", tmp_path / "b.mka", 0.995)
    wave, problem = read(tmp_path / "b.mka")
    assert len(wave) / RATE == pytest.approx(20 * 0.995, abs=0.04)
    assert "s of sound left out where time stamps repeat" in str(problem)


def test_sound_that_repeats_its_times_is_left_out_and_counted(tmp_path: Path) -> None:
    parts = []
    for start in (0.0, 3.3):  # the second one begins 0.7 s before the first one ends
        write_clip(tmp_path / "a.ts", waves=[np.full(4 * RATE, 0.1, np.float32)], sound_start=10.0 + start)
        parts.append((tmp_path / "a.ts").read_bytes())
    (tmp_path / "b.ts").write_bytes(b"".join(parts))
    wave, problem = read(tmp_path / "b.ts")
    assert len(wave) / RATE == pytest.approx(7.3, abs=0.05)
    assert problem
    seconds = float(problem.partition(" s of sound left out where time stamps repeat, the first at 4.0")[0])
    assert seconds == pytest.approx(0.7, abs=0.05)


def test_pauses_of_a_codec_that_sends_nothing_in_silence_stay_pauses(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mka", waves=[np.full(2 * RATE, 0.1, np.float32)], audio_codec="libopus")
    retimed(tmp_path / "a.mka", tmp_path / "b.mka", 4.0)  # a packet of 20 ms every 80 ms
    wave, problem = read(tmp_path / "b.mka")
    assert len(wave) / RATE == pytest.approx(8.0, abs=0.1)
    assert problem is None


# --- wav from a pipe, and wav that was cut ---


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0, 0x7FFFF000])
@pytest.mark.parametrize("num_samples", [1, 2047, 2048, 8001, 384000])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
def test_a_wav_from_a_pipe_is_read_to_its_last_sample(tmp_path: Path, dtype: type, num_samples: int, size: int) -> None:
    rng = np.random.default_rng(0)
    wave = rng.uniform(100, 120, num_samples).astype(dtype) if dtype != np.float32 else rng.random(num_samples, dtype)
    path = tmp_path / "a.wav"
    scipy.io.wavfile.write(path, RATE, wave)
    whole, problem = read(path)
    assert (len(whole), problem) == (num_samples, None)
    content = bytearray(path.read_bytes())
    data = content.find(b"data")
    content[4:8] = content[data + 4 : data + 8] = struct.pack("<I", size)
    path.write_bytes(content)
    streamed, problem = read(path)
    np.testing.assert_array_equal(streamed, whole)
    assert problem is None
    assert media_info(path).duration_seconds == pytest.approx(num_samples / RATE, abs=1e-3)


def test_an_rf64_from_a_pipe_is_read_to_its_last_sample(tmp_path: Path) -> None:
    wave = np.arange(10001, dtype=np.int16)
    content = wave.astype("<i2").tobytes()
    long_sizes = b"ds64" + struct.pack("<IQQQI", 28, 0, 0, 0, 0)
    header = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    body = b"RF64\xff\xff\xff\xffWAVE" + long_sizes + header + b"data\xff\xff\xff\xff" + content
    (tmp_path / "a.wav").write_bytes(body)
    streamed, problem = read(tmp_path / "a.wav")
    np.testing.assert_array_equal(streamed, wave.astype(np.float32) / 2**15)
    assert problem is None


def test_an_avi_from_a_pipe_ends_where_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    write_clip(
        path, frames=grey_ramp(25), video_codec="mjpeg", fps=25, waves=[np.zeros(RATE, np.float32)], audio_codec="mp3"
    )
    content = bytearray(path.read_bytes())
    content[4:8] = b"\xff\xff\xff\xff"
    for kind in (b"vids", b"auds"):  # the placeholder of FFmpeg for the number of packets
        place = content.find(kind) + 32
        content[place : place + 4] = struct.pack("<I", 0x7FFFFFFF // 1000)
    path.write_bytes(content)
    wave, problem = read(path)
    assert problem is None
    assert len(wave) / RATE == pytest.approx(1.0, abs=0.1)
    pictures = FrameReader(path, fps=25)
    assert len(list(pictures)) == 25
    assert pictures.problem is None
    assert media_info(path).duration_seconds == pytest.approx(1.0, abs=0.1)


def test_a_wav_that_is_cut_says_how_much_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    scipy.io.wavfile.write(path, RATE, np.full(RATE, 1000, np.int16))
    path.write_bytes(path.read_bytes()[:-3001])
    wave, problem = read(path)
    assert len(wave) == RATE - 1501
    assert problem == "the sound breaks off at 0.97 s, where the file is cut: 3001 bytes are missing"


# --- containers that are cut ---


def test_an_mp4_without_its_index_is_told_from_other_files(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_clip(path, frames=grey_ramp(20), waves=[np.full(RATE, 0.1, np.float32)])
    content = path.read_bytes()
    index = content.index(b"moov") - 4
    for length, what in ((index, "missing"), (index // 2, "missing"), (60, "missing"), (index + 40, "cut")):
        path.write_bytes(content[:length])
        for read_it in (media_info, SoundReader):
            with pytest.raises(MediaError, match=rf"a\.mp4: .*not finished or is cut: its index \(moov\) is {what}"):
                read_it(path)
    path.write_bytes(content[: index - 8] + b"\0\0\0\0mdat" + content[index : index + 5])  # a length never filled in
    with pytest.raises(MediaError, match="not finished or is cut"):
        media_info(path)


@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "a.ogg", "a.mp4"])
def test_a_file_that_lacks_its_end_is_never_taken_for_whole(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    noise = np.random.default_rng(0).standard_normal(3 * RATE).astype(np.float32) * 0.1
    if name == "a.ogg":
        write_clip(path, waves=[noise], audio_codec="libopus")
    else:
        with av.open(str(path), "w", options={"movflags": "faststart"} if name == "a.mp4" else {}) as container:
            stream = container.add_stream("mp3", rate=RATE, layout="mono")
            frame = AudioFrame.from_ndarray(noise[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    whole, problem = read(path)
    assert problem is None
    content = path.read_bytes()
    for share in (0.5, 0.9, 0.97):
        path.write_bytes(content[: int(share * len(content))])
        wave, problem = read(path)
        assert len(wave) <= len(whole)  # an index at the end may be all that is missing
        assert problem is not None, share
