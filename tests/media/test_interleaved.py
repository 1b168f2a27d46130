from pathlib import Path

import av
import numpy as np
import pytest

import earmark.media.interleaved as interleaved
from earmark.media import FrameReader, MediaError, SoundReader, read_interleaved
from tests.helpers.clicking import make_video


def assert_as_if_read_apart(path: Path) -> None:
    frames, sound = FrameReader(path, fps=16, short_side=64), SoundReader(path, block_seconds=1.0)
    apart = list(frames), list(sound)
    problems = frames.problem, sound.problem
    with read_interleaved(frames, sound) as (pictures, blocks):
        both = list(pictures), list(blocks)  # all pictures first: the worst order
    assert (frames.problem, sound.problem) == problems
    assert [time for time, _ in both[0]] == [time for time, _ in apart[0]]
    for (_, one), (_, other) in zip(both[0], apart[0], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(np.concatenate(both[1]), np.concatenate(apart[1]))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_pictures_and_sound_are_those_of_the_readers_alone(tmp_path: Path, suffix: str) -> None:
    make_video(tmp_path / "a.mp4", seconds=3.0, times=(1.0,))
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(tmp_path / f"b.{suffix}"), "w") as output:
        streams = {stream.index: output.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                output.mux(packet)
    assert_as_if_read_apart(tmp_path / f"b.{suffix}")


@pytest.mark.parametrize(
    "name", ["chopping.mp4", "pancake.mkv", "mpeg4_mp3.avi", "multi_stream.mp4", "epic_sounds.webm"]
)
def test_real_clips_read_the_same_together(media: Path, name: str) -> None:
    assert_as_if_read_apart(media / name)


def test_streams_that_stand_one_after_the_other_are_read_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_video(tmp_path / "a.mp4", seconds=4.0, times=(1.0, 2.0))
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(tmp_path / "b.mkv"), "w") as output:
        streams = {stream.index: output.add_stream_from_template(stream) for stream in source.streams}
        packets = [packet for packet in source.demux() if packet.dts is not None]
        for kind in ("video", "audio"):
            for packet in packets:
                if packet.stream.type == kind:
                    packet.stream = streams[packet.stream_index]
                    output.mux_one(packet)
    monkeypatch.setattr(interleaved, "_MAX_WAITING_BYTES", 2000)
    openings = []
    monkeypatch.setattr(
        interleaved, "open_media", lambda path, real=interleaved.open_media: (openings.append(path), real(path))[1]
    )
    frames, sound = FrameReader(tmp_path / "b.mkv", fps=16), SoundReader(tmp_path / "b.mkv", block_seconds=0.5)
    with read_interleaved(frames, sound) as (pictures, blocks):
        first = next(blocks)  # lies behind all pictures
        num_pictures = len(list(pictures))
        rest = list(blocks)
    assert len(openings) == 2
    assert num_pictures == len(list(FrameReader(tmp_path / "b.mkv", fps=16)))
    np.testing.assert_array_equal(np.concatenate([first, *rest]), np.concatenate(list(SoundReader(tmp_path / "b.mkv"))))


def test_readers_of_different_files_are_refused(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", seconds=1.0, times=())
    make_video(tmp_path / "b.mp4", seconds=1.0, times=())
    with (
        pytest.raises(ValueError, match="different files"),
        read_interleaved(FrameReader(tmp_path / "a.mp4", fps=16), SoundReader(tmp_path / "b.mp4")),
    ):
        pass


def windows_of(num_pictures: int) -> list[tuple[int, int]]:
    return [
        (0, 3),
        (20, 24),
        (25, 26),
        (num_pictures // 2, num_pictures // 2 + 5),
        (num_pictures - 4, num_pictures + 9),
    ]


@pytest.mark.parametrize("options", [{}, {"g": "12", "bf": "3"}, {"g": "12", "x264-params": "open-gop=1:bframes=3"}])
def test_pictures_of_windows_are_those_of_the_whole(tmp_path: Path, options: dict[str, str]) -> None:
    rng = np.random.default_rng(0)
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=30, width=96, height=64, pix_fmt="yuv420p", options=options)
        scene = rng.integers(0, 255, (64, 400, 3), np.uint8)
        for k in range(240):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(scene[:, k : k + 96]), "rgb24")))
        output.mux(stream.encode(None))
    whole = list(FrameReader(tmp_path / "a.mp4", fps=16))
    windows = windows_of(len(whole))
    reader = FrameReader(tmp_path / "a.mp4", fps=16, windows=windows)
    parts = list(reader)
    expected = [whole[k] for window in windows for k in range(*window) if k < len(whole)]
    assert [time for time, _ in parts] == [time for time, _ in expected]
    for (_, part), (_, picture) in zip(parts, expected, strict=True):
        np.testing.assert_array_equal(part, picture)
    assert reader.problem is None


@pytest.mark.parametrize(
    "name", ["chopping.mp4", "pancake.mkv", "weightlifting_vfr.mp4", "epic_sounds.webm", "mpeg4_mp3.avi"]
)
def test_windows_of_real_clips_are_those_of_the_whole(media: Path, name: str) -> None:
    whole = list(FrameReader(media / name, fps=16, short_side=64))
    windows = windows_of(len(whole))
    parts = list(FrameReader(media / name, fps=16, short_side=64, windows=windows))
    expected = [whole[k] for window in windows for k in range(*window) if k < len(whole)]
    assert [time for time, _ in parts] == [time for time, _ in expected]
    assert all(np.array_equal(part, picture) for (_, part), (_, picture) in zip(parts, expected, strict=True))


def test_what_lies_between_windows_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=30, width=96, height=64, pix_fmt="yuv420p", options={"g": "15"})
        for k in range(600):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 96, 3), k % 200, np.uint8), "rgb24")))
        output.mux(stream.encode(None))
    decoded = []
    real = interleaved.FrameReader.read.__globals__["decode"]

    def counting(packets: object, *rest: object) -> object:
        return real((decoded.append(packet) or packet for packet in packets), *rest)  # type: ignore[attr-defined]

    monkeypatch.setitem(interleaved.FrameReader.read.__globals__, "decode", counting)
    list(FrameReader(tmp_path / "a.mp4", fps=16, windows=[(160, 164)]))
    assert 7 <= len(decoded) <= 40  # 0.25 s of pictures, and at most a group of pictures before them


def test_windows_out_of_order_are_refused(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", seconds=1.0, times=())
    with pytest.raises(ValueError, match="ascending order"):
        FrameReader(tmp_path / "a.mp4", fps=16, windows=[(5, 9), (2, 4)])


def test_no_windows_give_no_pictures(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", seconds=1.0, times=())
    assert list(FrameReader(tmp_path / "a.mp4", fps=16, windows=[])) == []


def test_a_file_that_breaks_off_is_told_of_by_both_readers(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", seconds=6.0)
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(tmp_path / "b.mkv"), "w") as output:
        streams = {stream.index: output.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                output.mux(packet)
    content = (tmp_path / "b.mkv").read_bytes()
    (tmp_path / "c.mkv").write_bytes(content[: len(content) // 2])
    frames, sound = FrameReader(tmp_path / "c.mkv", fps=16), SoundReader(tmp_path / "c.mkv")
    with read_interleaved(frames, sound) as (pictures, blocks):
        list(pictures)
        list(blocks)
    assert frames.problem is not None
    assert sound.problem is not None
    with pytest.raises(MediaError, match="no such file"):
        FrameReader(tmp_path / "gone.mkv", fps=16)
