"""What a file claims of its length, rates and sizes is believed as far as something bears it out, and no further.

Each claim that is not believed stands beside one of its kind that is.
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import scipy.io.wavfile
from numpy.typing import NDArray

from earmark.media import FrameReader, MediaError, SoundReader, declared, evidence, media_info, read_frames
from earmark.media.plausible import PacketTimes, believed_end
from tests.helpers.media_clips import grey_ramp, number_of, write_clip

HOUR = 3600.0


def rewritten(source: Path, target: Path, change: Callable[[int, Any], None]) -> Path:
    """Copy a file packet by packet; ``change`` is given the number of each and may move or lengthen it."""
    with av.open(str(source)) as read, av.open(str(target), "w") as written:
        streams = {s.index: written.add_stream_from_template(s) for s in read.streams}
        packets = [packet for packet in read.demux() if packet.dts is not None]
        for number, packet in enumerate(packets):
            change(number - len(packets), packet)
            packet.stream = streams[packet.stream.index]
            written.mux(packet)
    return target


def patched(source: Path, target: Path, at: bytes, offset: int, content: bytes) -> Path:
    """Copy a file with some bytes changed, so far behind the first place where others stand."""
    data = bytearray(source.read_bytes())
    start = data.index(at) + offset
    data[start : start + len(content)] = content
    target.write_bytes(data)
    return target


def longest_last(packet_from_end: int, packet: Any) -> None:
    if packet_from_end == -1:
        packet.duration = 2**31 - 1


def tones(seconds: float, rate: int = 16000) -> NDArray[np.float32]:
    return (0.1 * np.sin(np.arange(round(seconds * rate)) * 0.1)).astype(np.float32)


def pictures_of(path: Path, fps: float = 1.0) -> tuple[int, str | None]:
    reader = FrameReader(path, fps=fps)
    return sum(1 for _ in reader), reader.problem


def seconds_of(path: Path, **options: Any) -> tuple[float, str | None]:
    reader = SoundReader(path, **options)
    return sum(len(block) for block in reader) / reader.sample_rate, reader.problem


def test_a_last_picture_that_claims_days_is_shown_as_long_as_usual(tmp_path: Path) -> None:
    write_clip(tmp_path / "good.mp4", frames=grey_ramp(32), video_options={"bf": "0"})
    path = rewritten(tmp_path / "good.mp4", tmp_path / "a.mp4", longest_last)
    assert media_info(tmp_path / "good.mp4").duration_seconds == pytest.approx(2.0, abs=0.01)
    number, problem = pictures_of(path, fps=16)
    assert number == 32
    assert problem is not None
    assert "at 1.94 s claims to stay for" in problem
    assert "breaks off" not in problem
    info = media_info(path)
    assert info.duration_seconds == pytest.approx(31 / 16, abs=0.07)
    assert info.video is not None
    assert info.video.fps == pytest.approx(16, rel=0.01)
    assert info.video.duration_seconds == pytest.approx(31 / 16, abs=0.07)
    assert info.problem is not None
    assert "the picture claims to last until" in info.problem
    assert declared(path)[0] == pytest.approx(31 / 16, abs=0.07)


def test_a_slide_stays_as_long_as_it_is_spoken_to(tmp_path: Path) -> None:
    """A still picture over an hour of sound, whose only packet says nothing of how long it stays."""
    write_clip(tmp_path / "a.mkv", frames=grey_ramp(2), times_ms=[0, 5_400_000], waves=[tones(5400.0, 8000)],
               sample_rate=8000, audio_codec="libmp3lame")  # fmt: skip
    number, problem = pictures_of(tmp_path / "a.mkv", fps=0.1)
    assert (number, problem) == (541, None)
    assert media_info(tmp_path / "a.mkv").duration_seconds == pytest.approx(5400, abs=1)
    first, last = read_frames(tmp_path / "a.mkv", [2600.0, 5399.0])
    assert (number_of(first), number_of(last)) == (0, 1)


@pytest.mark.parametrize("step_seconds", [600, 1000, 3500])
def test_steps_of_an_hour_between_three_pictures_are_not_believed(tmp_path: Path, step_seconds: int) -> None:
    times_ms = [1000 * step_seconds * k for k in range(12)]
    write_clip(tmp_path / "a.mkv", frames=grey_ramp(12), times_ms=times_ms)
    number, problem = pictures_of(tmp_path / "a.mkv", fps=0.1)
    believed = step_seconds if step_seconds == 600 else 0  # a quarter of an hour is, once
    assert number == believed // 10 + 1
    assert problem == (
        f"the time stamps jump from {believed}.00 s to {believed + step_seconds}.00 s, which nothing else in the file "
        "bears out: the rest is not read"
    )
    info = media_info(tmp_path / "a.mkv")
    assert info.duration_seconds == pytest.approx(believed, abs=0.1)
    assert info.problem is not None
    assert declared(tmp_path / "a.mkv")[0] == pytest.approx(believed, abs=0.1)


def test_sound_that_ended_long_ago_bears_out_no_picture(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mkv", frames=grey_ramp(3), times_ms=[0, 3_500_000, 7_000_000], waves=[tones(2.0)],
               sample_rate=16000)  # fmt: skip
    assert pictures_of(tmp_path / "a.mkv")[0] == 1
    assert media_info(tmp_path / "a.mkv").duration_seconds == pytest.approx(2.0, abs=0.1)
    assert seconds_of(tmp_path / "a.mkv")[0] == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("step_seconds", [10, 59])
def test_a_picture_a_minute_is_a_time_lapse(tmp_path: Path, step_seconds: int) -> None:
    write_clip(tmp_path / "a.mkv", frames=grey_ramp(30), times_ms=[1000 * step_seconds * k for k in range(30)])
    number, problem = pictures_of(tmp_path / "a.mkv", fps=0.1)
    assert (number, problem) == (29 * step_seconds // 10 + 1, None)
    assert media_info(tmp_path / "a.mkv").duration_seconds == pytest.approx(29 * step_seconds, abs=0.1)


def test_a_lecture_without_sound_has_pictures_large_enough_to_stay(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (4, 360, 480, 3), dtype=np.uint8)
    write_clip(tmp_path / "a.mkv", frames=list(noise), times_ms=[600_000 * k for k in range(4)])
    assert pictures_of(tmp_path / "a.mkv", fps=0.1) == (181, None)


@pytest.mark.parametrize("pause_seconds", [1500.0, 2300.0])
def test_a_pause_in_a_recording_is_believed_if_the_recording_is_long(tmp_path: Path, pause_seconds: float) -> None:
    """Two and a half minutes of a camera that waits and goes on, picture and sound alike; and one second of one."""
    for length, believed in ((300, True), (1, False)):
        times = [k / 2 for k in range(length)]
        times_ms = [round(1000 * (t if k < length / 2 else t + pause_seconds)) for k, t in enumerate(times)]
        path = tmp_path / f"{length}.mkv"
        frames = [grey_ramp(2)[k % 2] for k in range(length)] if length > 1 else grey_ramp(2)
        times_ms = times_ms if length > 1 else [0, round(1000 * pause_seconds)]
        write_clip(path, frames=frames, times_ms=times_ms, waves=[tones(length / 2)], sample_rate=16000,
                   gap_at=(length / 4, pause_seconds))  # fmt: skip
        whole = length / 2 + pause_seconds if believed else 0.5
        seconds, problem = seconds_of(path)
        assert (problem is None) == believed
        assert seconds == pytest.approx(whole, abs=0.3)
        assert (pictures_of(path)[1] is None) == believed


def test_a_pause_of_the_sound_is_as_long_as_the_picture_goes_on(tmp_path: Path) -> None:
    for name, times_ms in (("on.mkv", [20_000 * k for k in range(240)]), ("off.mkv", [0, 100])):
        frames = [grey_ramp(1)[0]] * len(times_ms)
        write_clip(tmp_path / name, frames=frames, times_ms=times_ms, waves=[tones(2.0)], sample_rate=16000,
                   gap_at=(1.0, 4700.0))  # fmt: skip
    seconds, problem = seconds_of(tmp_path / "on.mkv")
    assert seconds == pytest.approx(4702.0, abs=0.1)
    assert "bears out" not in str(problem)
    seconds, problem = seconds_of(tmp_path / "off.mkv")
    assert seconds == pytest.approx(1.0, abs=0.1)
    assert problem is not None
    assert "which nothing else in the file bears out" in problem


@pytest.mark.parametrize(("scale", "rate"), [(32767, 1), (32767, 16), (32767, 1000)])
def test_an_avi_that_claims_an_hour_a_picture_is_not_believed(tmp_path: Path, scale: int, rate: int) -> None:
    write_clip(tmp_path / "good.avi", frames=grey_ramp(32), video_codec="mjpeg",
               waves=[(9000 * tones(2.0)).astype(np.int16)], sample_rate=16000, audio_codec="pcm_s16le")  # fmt: skip
    assert pictures_of(tmp_path / "good.avi", fps=16) == (32, None)
    path = patched(tmp_path / "good.avi", tmp_path / "a.avi", b"vids", 20, struct.pack("<II", scale, rate))
    number, problem = pictures_of(path, fps=16)
    assert number == (1 if scale / rate > 60 else int(16 * scale / rate) + 1)  # the first one, for as long as it lasts
    assert problem is not None
    assert "which nothing else in the file bears out" in problem
    assert media_info(path).duration_seconds == pytest.approx(max(2.0, (number - 1) / 16), abs=0.1)
    assert seconds_of(path) == (2.0, None)


def test_an_avi_of_32767_pictures_a_second_is_refused_and_its_sound_heard(tmp_path: Path) -> None:
    write_clip(tmp_path / "good.avi", frames=grey_ramp(32), video_codec="mjpeg",
               waves=[(9000 * tones(2.0)).astype(np.int16)], sample_rate=16000, audio_codec="pcm_s16le")  # fmt: skip
    path = patched(tmp_path / "good.avi", tmp_path / "a.avi", b"vids", 20, struct.pack("<II", 1, 32767))
    with pytest.raises(MediaError, match=r"a\.avi: the picture claims 32767 frames per second"):
        FrameReader(path, fps=16)
    info = media_info(path)
    assert info.video is None
    assert info.problem == "the picture claims 32767 frames per second, more than 1000 are not believed"
    assert info.duration_seconds == pytest.approx(2.0, abs=0.01)
    assert seconds_of(path) == (2.0, None)


@pytest.mark.parametrize("rate", [1, 99, 768_001, 2**31 - 1])
def test_sample_rates_that_nobody_records_are_refused(tmp_path: Path, rate: int) -> None:
    scipy.io.wavfile.write(tmp_path / "good.wav", 16000, np.ones(16000, np.int16))
    path = patched(tmp_path / "good.wav", tmp_path / "a.wav", b"fmt ", 12, struct.pack("<I", rate))
    for reading in (SoundReader, media_info):
        with pytest.raises(MediaError, match=rf"a\.wav: the sound claims {rate} Hz"):
            reading(path)


@pytest.mark.parametrize("rate", [100, 8000, 192_000, 384_000, 768_000])
def test_sample_rates_that_are_recorded_are_read(tmp_path: Path, rate: int) -> None:
    scipy.io.wavfile.write(tmp_path / "a.wav", rate, np.ones(2 * rate, np.int16))
    assert seconds_of(tmp_path / "a.wav") == (2.0, None)
    assert media_info(tmp_path / "a.wav").duration_seconds == 2.0


def sized_avi(path: Path, width: int, height: int) -> Path:
    """An AVI of raw pictures whose header claims another size, so that there is no data for it."""
    write_clip(path.with_name("good.avi"), frames=grey_ramp(2), video_codec="rawvideo")
    size = struct.pack("<ii", width, height)
    return patched(path.with_name("good.avi"), path, b"strf", 12, size)


@pytest.mark.parametrize(("width", "height"), [(16000, 16000), (2**31 - 1, 2), (60000, 64), (64, 60000)])
def test_pictures_of_a_size_that_nobody_takes_are_refused(tmp_path: Path, width: int, height: int) -> None:
    path = sized_avi(tmp_path / "a.avi", width, height)
    for reading in (lambda: FrameReader(path, fps=16), lambda: read_frames(path, [0.0]), lambda: media_info(path)):
        with pytest.raises(MediaError, match=rf"a\.avi: .*({width} x {height} pixels|more than 100 million pixels)"):
            reading()


def test_a_picture_larger_than_its_header_says_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder takes memory for the size in the picture itself: here an H.264 of 128 x 96 in a header of 64 x 48."""
    write_clip(tmp_path / "good.mkv", frames=grey_ramp(2, width=128, height=96))
    data = (tmp_path / "good.mkv").read_bytes()
    assert data.count(b"\xb0\x81\x80\xba\x81\x60") == 1  # width 128, height 96
    (tmp_path / "a.mkv").write_bytes(data.replace(b"\xb0\x81\x80\xba\x81\x60", b"\xb0\x81\x40\xba\x81\x30"))
    assert FrameReader(tmp_path / "a.mkv", fps=16).size == (128, 96)
    monkeypatch.setattr("earmark.media.opening._DECODER_OPTIONS", {"max_pixels": "10000"})
    with pytest.raises(MediaError, match="no picture could be decoded"):
        FrameReader(tmp_path / "a.mkv", fps=16)


@pytest.mark.slow
def test_8k_is_read(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mkv", frames=grey_ramp(2, width=7680, height=4320), video_codec="mjpeg")
    (first, second) = FrameReader(tmp_path / "a.mkv", fps=16, short_side=48)
    assert (number_of(first[1]), number_of(second[1])) == (0, 1)


def times(*packets: tuple[float, float, int]) -> PacketTimes:
    made = PacketTimes()
    for start, length, num_bytes in packets:
        made.add(start, length, num_bytes)
    return made


def steady(start: float, stop: float) -> Iterator[tuple[float, float, int]]:
    return ((float(second), 1.0, 1000) for second in range(round(start), round(stop)))


@pytest.mark.parametrize(
    ("packets", "others", "end"),
    [
        pytest.param([(0.0, 59.0, 9)], [], 59.0, id="what lasts for less than a minute"),
        pytest.param([(0.0, 800.0, 9)], [], 800.0, id="a slide of a quarter of an hour"),
        pytest.param([(0.0, 8 * HOUR, 9)], [], 0.0, id="a slide of a day"),
        pytest.param([(0.0, 8 * HOUR, 9)], [(0, 8 * HOUR)], 8 * HOUR, id="a slide of a day over sound"),
        pytest.param([(0.0, 8 * HOUR, 9)], [(0, 4 * HOUR)], 0.0, id="a slide that outlasts its sound by hours"),
        pytest.param([(0.0, 0.1, 9), (5 * HOUR, 0.1, 9)], [(0, 5 * HOUR)], 5 * HOUR + 0.1, id="two slides over sound"),
        pytest.param([*steady(0, 600), *steady(4000, 4600)], [], 4600.0, id="a pause of an hour between minutes"),
        pytest.param([*steady(0, 600), *steady(4300, 4900)], [], 600.0, id="a pause of more than an hour"),
        pytest.param([(0.0, 9 * HOUR, 0), (0.0, 1.0, 9)], [], 1.0, id="an empty packet that lasts"),
        pytest.param([(1.0, 1.0, 9), (-5.0, 1.0, 9)], [], 2.0, id="what precedes the start"),
        pytest.param([], [(0, 60)], 0.0, id="no packets"),
    ],
)
def test_the_rule(packets: list[tuple[float, float, int]], others: list[tuple[float, float]], end: float) -> None:
    assert believed_end(times(*packets), [times(*steady(*other)) for other in others]) == end


def test_pauses_of_little_data_add_up(tmp_path: Path) -> None:
    """None of the steps is too long by itself."""
    assert believed_end(times(*((300.0 * k, 0.04, 50) for k in range(100))), []) == pytest.approx(900.04)


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg", "mkv", "mp4", "mov", "avi", "ts"])
def test_of_a_file_that_says_the_truth_no_more_is_read_than_its_header_and_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """A walk through all packets takes a minute for a recording of tens of gigabytes."""
    path = tmp_path / f"a.{suffix}"
    codecs = {"flac": "flac", "mp3": "libmp3lame", "ogg": "libopus"} | dict.fromkeys(("mkv", "mp4", "ts"), "aac")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codecs.get(suffix, "pcm_s16le"), rate=16000)
        frame = av.AudioFrame.from_ndarray(
            np.random.default_rng(0).integers(-9999, 9999, (1, 90 * 16000)).astype(np.int16), "s16", "mono"
        )
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)

    def walk(path: Path, zero: float) -> dict[int, PacketTimes]:
        raise AssertionError("all packets were read")

    monkeypatch.setattr(evidence, "_walked", walk)
    assert media_info(path).duration_seconds == pytest.approx(90.0, abs=0.2)
