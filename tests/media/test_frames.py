"""Frames: the nearest one in presentation time, scaled, turned, in true colours; damage skipped and named."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from earmark.media import FrameReader, MediaError, VideoWriter, media_info, read_frames
from tests.helpers.media_clips import grey_ramp, number_of, write_clip

VFR_MS = [0, 40, 50, 200, 210, 220, 500, 530, 800, 1300, 1340, 1400, 1900, 1950]


def nearest(times: NDArray[np.float64], wanted: float) -> int:
    """Index of the nearest time, the earlier one where two are as near."""
    return int(np.argmin(np.abs(times - wanted).round(9)))


def corners(picture: NDArray[np.uint8]) -> list[str]:
    """The colours of the corners, clockwise from the top left."""
    h, w = picture.shape[0] // 4, picture.shape[1] // 4
    names = {0: "r", 1: "g", 2: "b"}
    return [
        "w" if picture[y, x].min() > 128 else names[int(picture[y, x].argmax())]
        for y, x in ((h, w), (h, -w), (-h, -w), (-h, w))
    ]


def four_corners(width: int = 96, height: int = 64) -> NDArray[np.uint8]:
    """Red, green, blue, white clockwise from the top left."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2, 0] = 255
    picture[: height // 2, width // 2 :, 1] = 255
    picture[height // 2 :, width // 2 :, 2] = 255
    picture[height // 2 :, : width // 2] = 255
    return picture


@pytest.mark.parametrize("fps", [5, 16, 24, 29.97, 100])
@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
def test_each_picture_is_the_nearest_frame_of_a_variable_rate(tmp_path: Path, container: str, fps: float) -> None:
    path = tmp_path / f"a.{container}"
    write_clip(path, frames=grey_ramp(len(VFR_MS)), times_ms=VFR_MS, video_options={"bf": "2", "g": "5"})
    source = np.array(VFR_MS) / 1000
    read = list(FrameReader(path, fps=fps))
    assert [time for time, _ in read] == [k / fps for k in range(len(read))]
    assert [number_of(picture) for _, picture in read] == [nearest(source, time) for time, _ in read]
    assert read[-1][0] >= 1.95 - 1 / fps
    wanted = np.random.default_rng(0).uniform(-0.3, 2.3, 40)  # any order, beyond both ends
    assert [number_of(p) for p in read_frames(path, wanted)] == [nearest(source, time) for time in wanted]


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts", "avi"])
def test_a_single_frame_is_a_picture(tmp_path: Path, container: str) -> None:
    path = tmp_path / f"a.{container}"
    write_clip(path, frames=grey_ramp(1))  # in a transport stream it has no length
    assert [time for time, _ in FrameReader(path, fps=16)] == [0.0]


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts", "avi"])
def test_frames_far_apart_are_found_by_seeking(tmp_path: Path, container: str) -> None:
    path = tmp_path / f"a.{container}"
    frames = [np.full((48, 64, 3), 8 * (k // 32), np.uint8) for k in range(30 * 32)]
    write_clip(path, frames=frames, video_options={"bf": "2", "g": "50", "preset": "ultrafast"})
    wanted = [59.9, 0.0, 31.0, 16.5, 45.2, 45.3]
    assert [number_of(p) for p in read_frames(path, wanted)] == [29, 0, 15, 8, 22, 22]


def test_times_that_are_none_are_refused(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", frames=grey_ramp(4))
    with pytest.raises(ValueError, match="finite"):
        read_frames(tmp_path / "a.mp4", [0.0, float("nan")])
    assert read_frames(tmp_path / "a.mp4", []).shape == (0, 48, 64, 3)


@pytest.mark.parametrize("fps", [0, -1.0, float("nan")])
def test_a_rate_that_is_none_is_refused(tmp_path: Path, fps: float) -> None:
    with pytest.raises(ValueError, match="fps must be positive"):
        FrameReader(tmp_path / "a.mp4", fps=fps)


@pytest.mark.parametrize("fps", [4, 16, 30])
def test_the_last_picture_lies_before_the_end_of_the_last_frame(tmp_path: Path, fps: int) -> None:
    write_clip(tmp_path / "a.mp4", frames=grey_ramp(24), fps=16)  # 1.5 s
    assert len(list(FrameReader(tmp_path / "a.mp4", fps=fps))) == round(1.5 * fps)


def test_before_the_first_frame_it_is_shown_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    write_clip(path, frames=grey_ramp(8), picture_start=0.5, waves=[np.zeros(48000, np.float32)])
    numbers = [number_of(picture) for _, picture in FrameReader(path, fps=16)]
    assert numbers == [0] * 8 + list(range(8))


@pytest.mark.parametrize(
    ("clockwise", "mirrored", "expected"),
    [
        (0, False, "rgbw"),
        (90, False, "wrgb"),
        (180, False, "bwrg"),
        (270, False, "gbwr"),
        (0, True, "grwb"),
        (180, True, "wbgr"),
    ],
)
def test_pictures_are_turned_as_the_file_says(tmp_path: Path, clockwise: int, mirrored: bool, expected: str) -> None:
    path = tmp_path / "a.mp4"
    write_clip(path, frames=[four_corners()] * 4, rotation=-clockwise, mirrored=mirrored)
    size = (64, 96) if clockwise % 180 else (96, 64)
    video = media_info(path).video
    assert video
    assert (video.rotation, video.width, video.height) == (clockwise, *size)
    reader = FrameReader(path, fps=16)
    assert reader.size == size
    for picture in (next(iter(reader))[1], read_frames(path, [0.1])[0], read_frames(path, [0.1], short_side=32)[0]):
        assert "".join(corners(picture)) == expected
    assert read_frames(path, [0.0], short_side=32)[0].shape == ((48, 32, 3) if clockwise % 180 else (32, 48, 3))


def test_the_real_upside_down_clip_is_turned(media: Path) -> None:
    with av.open(str(media / "odd_fps.mp4")) as container:
        coded = next(container.decode(video=0)).reformat(width=228, height=128, format="rgb24").to_ndarray()
    shown = read_frames(media / "odd_fps.mp4", [0.0], short_side=128)[0].astype(float)
    upright, turned = (np.abs(shown - version).mean() for version in (coded, coded[::-1, ::-1]))
    assert turned < 8 < upright


@pytest.mark.parametrize(("rotation", "size"), [(None, (192, 64)), (-90, (64, 192))])
def test_pixels_that_are_not_square_are_widened(tmp_path: Path, rotation: int | None, size: tuple[int, int]) -> None:
    path = tmp_path / "a.mp4"
    write_clip(path, frames=[four_corners()] * 4, pixel_aspect=Fraction(2, 1), rotation=rotation)
    video = media_info(path).video
    assert video
    assert (video.width, video.height) == size
    assert FrameReader(path, fps=16).size == size
    assert sorted(FrameReader(path, fps=16, short_side=32).size) == [32, 96]


@pytest.mark.parametrize(("short_side", "size"), [(None, (96, 70)), (32, (44, 32)), (35, (48, 35)), (140, (192, 140))])
def test_the_short_side_is_exact_and_the_other_even(
    tmp_path: Path, short_side: int | None, size: tuple[int, int]
) -> None:
    write_clip(tmp_path / "a.mp4", frames=[four_corners(96, 70)] * 2)
    reader = FrameReader(tmp_path / "a.mp4", fps=16, short_side=short_side)
    assert reader.size == size
    assert {picture.shape for _, picture in reader} == {(size[1], size[0], 3)}


def test_shrinking_does_not_alias(tmp_path: Path) -> None:
    stripes = np.zeros((480, 640, 3), np.uint8)
    stripes[:, ::2] = 255  # finer than the small picture can show: grey, whatever the phase
    write_clip(tmp_path / "a.mkv", frames=[stripes], video_codec="ffv1")
    small = read_frames(tmp_path / "a.mkv", [0.0], short_side=100)[0].astype(float)
    assert np.abs(small - 127.5)[:, 2:-2].max() < 4  # at the edges the filter has one side only


COLOURS = [(255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (120, 200, 40)]


@pytest.mark.parametrize(
    ("tag", "matrix", "full_range", "height"),
    [
        (1, "ITU709", False, 240),
        (1, "ITU709", True, 240),
        (6, "ITU601", False, 720),
        (5, "ITU601", True, 240),
        (None, "ITU601", False, 240),
        (None, "ITU709", False, 720),
    ],
)
def test_colours_are_true_whatever_matrix_and_range(
    tmp_path: Path, tag: int | None, matrix: str, full_range: bool, height: int
) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10, width=320, height=height, pix_fmt="yuv420p")
        if tag:
            stream.codec_context.colorspace = tag
        stream.codec_context.color_range = 2 if full_range else 1
        for k, colour in enumerate(COLOURS):
            frame = VideoFrame.from_ndarray(np.full((height, 320, 3), colour, np.uint8), format="rgb24").reformat(
                format="yuv420p",
                dst_colorspace=av.video.reformatter.Colorspace[matrix],
                src_color_range="JPEG",
                dst_color_range="JPEG" if full_range else "MPEG",
            )
            frame.pts = k
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    read = [picture[9, 9] for _, picture in FrameReader(path, fps=10)]
    np.testing.assert_allclose(np.array(read, int), COLOURS, atol=4)


def garble_video(path: Path, *, start: float, stop: float) -> None:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        places = [(p.pos, p.size) for p in container.demux(stream) if p.size and start < p.pts * p.time_base < stop]
    content = bytearray(path.read_bytes())
    for pos, size in places:
        content[pos : pos + size] = np.random.default_rng(1).bytes(size)
    path.write_bytes(content)


def test_damaged_pictures_are_skipped_named_and_keep_time(tmp_path: Path) -> None:
    path = tmp_path / "a.mov"
    write_clip(path, frames=grey_ramp(30), video_codec="mpeg4", video_options={"g": "1"})
    garble_video(path, start=0.9, stop=1.1)
    reader = FrameReader(path, fps=16)
    numbers = [number_of(picture) for _, picture in reader]
    assert reader.problem
    assert "damaged packet" in reader.problem
    assert len(numbers) == 30
    sound_ones = [k for k in range(30) if not 14 <= k <= 18]
    assert [numbers[k] for k in sound_ones] == sound_ones


def test_pictures_that_break_off_say_where(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    noise = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3), dtype=np.uint8)
    write_clip(path, frames=list(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    reader = FrameReader(path, fps=16)
    seconds = len(list(reader)) / 16
    assert 1 < seconds < 3
    assert reader.problem
    assert f"the picture breaks off at {seconds:.2f} s of 3.75 s" in reader.problem


def test_a_file_in_which_no_picture_decodes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_clip(path, frames=grey_ramp(20))
    garble_video(path, start=-1, stop=9)
    for read in (lambda: FrameReader(path, fps=16), lambda: read_frames(path, [0.0])):
        with pytest.raises(MediaError, match=r"a\.mp4: no picture could be decoded"):
            read()
    assert media_info(path).video  # its header still says what it was meant to be


def test_a_picture_time_stamp_far_off_does_not_become_hours_of_pictures(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    write_clip(path, frames=grey_ramp(4), times_ms=[0, 62, 125, 50_000_000])
    reader = FrameReader(path, fps=16)
    assert len(list(reader)) == 3
    assert reader.problem
    assert "the time stamps jump" in reader.problem


def test_the_real_clips_agree_between_both_ways_of_reading(media: Path) -> None:
    for name in ("weightlifting_vfr.mp4", "odd_fps.mp4", "pancake.mkv", "mpeg4_mp3.avi", "epic_sounds.webm"):
        read = list(FrameReader(media / name, fps=4, short_side=64))
        picked = read[:: max(1, len(read) // 6)]
        found = read_frames(media / name, [time for time, _ in picked], short_side=64)
        for (time, picture), other in zip(picked, found, strict=True):
            np.testing.assert_array_equal(picture, other, err_msg=f"{name} at {time} s")


def test_an_odd_rate_is_read_by_time_stamps(media: Path) -> None:
    with av.open(str(media / "weightlifting_vfr.mp4")) as container:
        frames = list(container.decode(video=0))
    times = np.array([frame.time for frame in frames])
    decoded = [frame.reformat(width=86, height=64, format="rgb24").to_ndarray() for frame in frames]
    for time, picture in FrameReader(media / "weightlifting_vfr.mp4", fps=3, short_side=64):
        expected = decoded[nearest(times, time)].astype(float)
        assert np.abs(expected - picture).mean() < 4


def test_written_frames_come_back_one_by_one(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", width=64, height=48, fps=25, sample_rate=16000) as writer:
        for picture in grey_ramp(30):
            writer.write_frame(picture)
    assert [number_of(p) for _, p in FrameReader(tmp_path / "a.mp4", fps=25)] == list(range(30))
