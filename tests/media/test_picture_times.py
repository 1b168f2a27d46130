"""When pictures are shown where time stamps are missing, wrong or repeated: every picture is shown, or counted."""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import simplejpeg
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from earmark.media import FrameReader, SoundReader, media_info, read_frames, write_prepared
from earmark.media.picture import PictureGeometry
from tests.helpers.media_clips import click_track, grey_ramp, number_of, write_clip

FPS = 25
RATE = 48000
WRAPS_AT = 2**33 / 90000  # seconds


def encoded(codec: str, num_frames: int) -> list[tuple[bytes, bool]]:
    """Return (content, key frame) of packets with B-frames, in decoding order, headers within."""
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 48, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, FPS), Fraction(FPS)
    encoder.options = {"bf": "2", "g": "10", "qmin": "2", "qmax": "4", "x264-params": "b-adapt=0:scenecut=0"}
    packets = []
    for k, picture in enumerate(grey_ramp(num_frames)):
        frame = VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
        frame.pts = k
        packets += encoder.encode(frame)
    return [(bytes(packet), packet.is_keyframe) for packet in [*packets, *encoder.encode(None)]]


def write_by_number(path: Path, codec: str = "libx264") -> None:
    """Write packets with B-frames whose decoding and presentation times are both their number."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, width=64, height=48, pix_fmt="yuv420p")
        for number, (content, is_key) in enumerate(encoded(codec, 30)):
            packet = av.Packet(content)
            packet.stream, packet.time_base = stream, Fraction(1, FPS)
            packet.pts = packet.dts = number
            packet.is_keyframe = is_key
            container.mux_one(packet)


def write_video_for_windows_in_matroska(path: Path) -> None:
    """As mkvmerge takes it out of AVI: decoding times, and the codec named by a four-character code."""
    write_by_number(path, "mpeg4")
    content = path.read_bytes()
    private = content.index(b"\x63\xa2") + 3  # CodecPrivate, behind its name and a size of one byte
    length = content[private - 1] & 0x7F
    header = b"".join(n.to_bytes(4, "little") for n in (40, 64, 48)) + b"\x01\0\x18\0XVID"  # BITMAPINFOHEADER
    assert length >= 40
    content = content[:private] + header.ljust(length, b"\0") + content[private + length :]
    assert content.count(b"V_MPEG4/ISO/ASP") == 1
    path.write_bytes(content.replace(b"V_MPEG4/ISO/ASP", b"V_MS/VFW/FOURCC"))


def write_mpeg4(path: Path) -> None:
    write_by_number(path, "mpeg4")


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.avi", write_by_number),
        ("a.asf", write_by_number),
        ("b.avi", write_mpeg4),
        ("b.asf", write_mpeg4),
        ("b.mkv", write_video_for_windows_in_matroska),
    ],
)
@pytest.mark.parametrize("num_threads", [1, 3])
def test_frames_out_of_order_without_presentation_times_are_all_shown(
    tmp_path: Path, name: str, write: Callable[[Path], None], num_threads: int
) -> None:
    path = tmp_path / name
    write(path)
    reader = FrameReader(path, fps=FPS, num_threads=num_threads)
    numbers = [number_of(picture) for _, picture in reader]
    assert numbers == sorted(numbers)
    assert sorted(set(numbers)) == list(range(30))
    assert len(numbers) <= 33  # a codec's delay shows the first one longer
    assert reader.problem is None
    wanted = [k / FPS for k in (29, 3, 0, 11, 17)]
    assert [number_of(p) for p in read_frames(path, wanted)] == [numbers[k] for k in (29, 3, 0, 11, 17)]
    windows = FrameReader(path, fps=FPS, num_threads=num_threads, windows=[(2, 4), (15, 19), (28, 30)])
    assert [number_of(p) for _, p in windows] == [numbers[k] for k in (2, 3, 15, 16, 17, 18, 28, 29)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_where_presentation_times_step_back_the_decoding_times_hold(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_by_number(path)  # its presentation times were lost on the way
    reader = FrameReader(path, fps=FPS)
    numbers = [number_of(picture) for _, picture in reader]
    assert numbers == sorted(numbers)
    lost = set(range(30)) - set(numbers)
    # Until the first step back the wrong times were believed.
    assert len(lost) <= 2
    assert max(lost, default=0) <= 4
    if lost:
        assert f"{len(lost)} picture" in str(reader.problem)


def test_a_long_avi_is_read_the_same_by_seeking_and_in_windows(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, width=64, height=48, pix_fmt="yuv420p")
        stream.codec_context.options = {"bf": "3", "g": "100", "preset": "ultrafast", "x264-params": "bframes=3"}
        for k in range(600):
            frame = VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * (k // 20), np.uint8), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    reader = FrameReader(path, fps=FPS)
    numbers = [number_of(picture) for _, picture in reader]
    assert numbers == [k // 20 for k in range(600)]
    assert reader.problem is None
    ks = [599, 598, 0, 99, 100, 101, 300, 320]
    assert [number_of(p) for p in read_frames(path, [k / FPS for k in ks])] == [numbers[k] for k in ks]
    windows = [(98, 103), (399, 402), (590, 600)]
    read = [number_of(p) for _, p in FrameReader(path, fps=FPS, windows=windows)]
    assert read == [numbers[k] for window in windows for k in range(*window)]


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_picture_and_sound_of_an_avi_agree_whatever_the_codec_holds_back(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=FPS, width=64, height=48, pix_fmt="yuv420p")
        video.codec_context.options = {"bf": "2", "x264-params": "b-adapt=0:scenecut=0"}
        audio = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for k in range(50):
            frame = VideoFrame.from_ndarray(np.full((48, 64, 3), 200 if k >= 30 else 20, np.uint8), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        wave = (click_track(2 * RATE, round(1.2 * RATE)) * 32767).astype(np.int16)
        sound = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = RATE, 0, Fraction(1, RATE)
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    bright = next(time for time, picture in FrameReader(path, fps=FPS) if picture.mean() > 100)
    wave_read = np.abs(np.concatenate(list(SoundReader(path))))
    click = float(np.flatnonzero(wave_read > 0.5)[0]) / RATE
    assert (bright, click) == pytest.approx((1.2, 1.2), abs=0.001)


def test_real_packed_streams_show_each_of_their_frames(media: Path) -> None:
    for name, num_frames in (("mpeg4_mp3.avi", 164), ("hmdb_no_audio.avi", 48)):
        video = media_info(media / name).video
        assert video
        reader = FrameReader(media / name, fps=video.fps)
        pictures = [picture for _, picture in reader]
        distinct = 1 + sum(one is not two for one, two in pairwise(pictures))
        assert distinct == num_frames, name
        assert len(pictures) - num_frames in (0, 1), name
        assert reader.problem is None, name


def test_pictures_that_repeat_a_time_are_counted_and_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10, width=64, height=48, pix_fmt="yuvj420p")
        for picture, time in zip(grey_ramp(6), (0, 100, 100, 200, 200, 300), strict=True):
            packet = av.Packet(simplejpeg.encode_jpeg(picture, colorspace="RGB"))
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.pts = packet.dts = time
            packet.duration, packet.is_keyframe = 100, True
            container.mux_one(packet)
    reader = FrameReader(path, fps=10)
    assert [number_of(picture) for _, picture in reader] == [0, 1, 3, 5]
    assert reader.problem == (
        "2 pictures are not shown: by the time stamps no later than the one before, the first after 0.10 s"
    )


def test_pictures_before_the_start_are_counted_and_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_clip(path, frames=grey_ramp(16), fps=16)
    reader = FrameReader(path, fps=16)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        pictures = list(reader.read(container.demux(stream), stream, 0.5))
    assert [number_of(picture) for _, picture in pictures] == list(range(8, 16))
    assert reader.problem == "8 pictures before the start of the presentation left out"


@pytest.mark.parametrize("num_threads", [1, 4])
def test_an_empty_packet_says_that_the_picture_stays(tmp_path: Path, num_threads: int) -> None:
    jpegs = [simplejpeg.encode_jpeg(picture, colorspace="RGB") for picture in grey_ramp(8)]

    class Packets:
        """What a demuxer of Theora gives, around pictures that any decoder can read."""

        def __init__(self, container: av.container.InputContainer) -> None:
            self._packets = container.demux(container.streams.video[0])

        def __iter__(self):  # type: ignore[no-untyped-def]
            for number, packet in enumerate(self._packets):
                if packet.size and number % 4:
                    empty = av.Packet(0)
                    empty.stream, empty.time_base = packet.stream, packet.time_base
                    empty.pts, empty.dts, empty.duration = packet.pts, packet.dts, packet.duration
                    yield empty
                else:
                    yield packet

    path = tmp_path / "a.mov"
    write_prepared(path, jpegs, fps=FPS, size=(64, 48), sound=None, sample_rate=RATE)
    reader = FrameReader(path, fps=FPS, num_threads=num_threads)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        pictures = list(reader.read(iter(Packets(container)), stream, 0.0))
    assert [number_of(picture) for _, picture in pictures] == [0] * 4 + [4] * 4
    assert reader.problem is None


def with_exif(jpeg: bytes, orientation: int) -> bytes:
    entry = b"\x12\x01\x03\0\x01\0\0\0" + orientation.to_bytes(2, "little") + b"\0\0"
    tiff = b"II*\0\x08\0\0\0\x01\0" + entry + b"\0\0\0\0"
    segment = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg[2:]


def test_frames_that_carry_what_pyav_has_no_name_for_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.mov"
    jpegs = [with_exif(simplejpeg.encode_jpeg(picture, colorspace="RGB"), 1) for picture in grey_ramp(20)]
    write_prepared(path, jpegs, fps=FPS, size=(64, 48), sound=[np.zeros(RATE // 2, np.int16)], sample_rate=RATE)
    info = media_info(path)
    assert info.video
    assert (info.video.width, info.video.height, info.video.rotation) == (64, 48, 0)
    reader = FrameReader(path, fps=FPS)
    assert [number_of(picture) for _, picture in reader] == list(range(20))
    assert reader.problem is None
    assert number_of(read_frames(path, [0.4])[0]) == 10
    assert sum(len(block) for block in SoundReader(path)) == RATE // 2


@pytest.mark.parametrize(
    ("orientation", "mirrored", "quarter_turns"),
    [(1, False, 0), (2, True, 0), (3, False, 2), (6, False, 1), (7, True, 1), (8, False, 3)],
)
def test_such_frames_are_turned_and_mirrored_as_they_say(
    tmp_path: Path, orientation: int, mirrored: bool, quarter_turns: int
) -> None:
    jpeg = simplejpeg.encode_jpeg(grey_ramp(1)[0], colorspace="RGB")
    write_prepared(
        tmp_path / "a.mov", [with_exif(jpeg, orientation)], fps=FPS, size=(64, 48), sound=None, sample_rate=RATE
    )
    with av.open(str(tmp_path / "a.mov")) as container:
        frame = next(container.decode(video=0))
        geometry = PictureGeometry.of(container.streams.video[0], frame)
    assert (geometry.mirrored, geometry.quarter_turns) == (mirrored, quarter_turns)


def events(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times at which the picture lights up and at which the sound clicks."""
    read = [(time, picture.mean() > 100) for time, picture in FrameReader(path, fps=100)]
    lit = [two[0] for one, two in pairwise(read) if two[1] and not one[1]]
    wave = np.abs(np.concatenate(list(SoundReader(path))))
    loud = np.flatnonzero(wave > 0.4 * wave.max()) / RATE
    return np.array(lit), loud[np.insert(np.diff(loud) > 0.2, 0, True)]


@pytest.mark.parametrize("seconds_before", [0.5, 1.7, 3.9])
def test_what_lies_before_a_transport_streams_clock_wraps_is_read(tmp_path: Path, seconds_before: float) -> None:
    times = [0.4, 1.2, 2.0, 2.8]
    wave = np.sum([click_track(4 * RATE, round(t * RATE)) for t in times], axis=0)
    frames = [
        np.full((48, 64, 3), 200 if any(t <= k / FPS < t + 0.2 for t in times) else 20, np.uint8)
        for k in range(4 * FPS)
    ]
    plain, wrapped = tmp_path / "plain.ts", tmp_path / "wrapped.ts"
    for path, start in ((plain, 100.0), (wrapped, WRAPS_AT - seconds_before)):
        write_clip(path, frames=frames, fps=FPS, picture_start=start, sound_start=start, waves=[wave])
    assert media_info(wrapped).duration_seconds == pytest.approx(media_info(plain).duration_seconds, abs=0.05)
    for found, expected in zip(events(wrapped), events(plain), strict=True):
        assert len(expected) == len(times)
        np.testing.assert_allclose(found, expected, atol=0.011)
    for reader in (FrameReader(wrapped, fps=FPS), SoundReader(wrapped)):
        assert list(reader)
        assert reader.problem is None
    assert [bool(p.mean() > 100) for p in read_frames(wrapped, [t + 0.12 for t in times])] == [True] * 4
    assert [bool(p.mean() > 100) for p in read_frames(wrapped, [t - 0.12 for t in times])] == [False] * 4


@pytest.mark.parametrize("seconds_before", [1.0, 75.0])  # FFmpeg corrects a late wrap by itself
@pytest.mark.parametrize("kind", ["picture", "sound"])
def test_a_clock_that_wraps_in_a_file_of_one_stream(tmp_path: Path, kind: str, seconds_before: float) -> None:
    path = tmp_path / "a.ts"
    start = WRAPS_AT - seconds_before
    length = round(seconds_before) + 2
    if kind == "picture":
        frames = [np.full((48, 64, 3), 8 * (k // 25), np.uint8) for k in range(5 * length)]
        write_clip(path, frames=frames, fps=5, picture_start=start)
        reader = FrameReader(path, fps=5)
        assert [number_of(picture) for _, picture in reader] == [k // 25 for k in range(5 * length)]
        assert reader.problem is None
        return
    write_clip(path, waves=[click_track(8000 * length, 8000 * length - 4000)], sample_rate=8000, sound_start=start)
    sound = SoundReader(path)
    wave = np.abs(np.concatenate(list(sound)))
    assert sound.problem is None
    assert len(wave) / 8000 == pytest.approx(length, abs=0.3)
    assert wave.argmax() / 8000 == pytest.approx(length - 0.5 + 1024 / 8000, abs=0.005)
