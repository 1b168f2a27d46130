"""Writing: prepared videos byte for byte, H.264 + AAC files in sync; both the same on every run."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray

from earmark.media import (
    FrameReader,
    MediaError,
    PacketIndex,
    SoundReader,
    VideoWriter,
    media_info,
    write_prepared,
)
from earmark.media.sound import rechunk
from tests.helpers.media_clips import click_track, grey_ramp, number_of, write_clip


def jpegs(count: int, *, width: int = 96, height: int = 64) -> list[bytes]:
    pictures = grey_ramp(32, width=width, height=height)
    return [simplejpeg.encode_jpeg(pictures[k % 32], quality=90) for k in range(count)]


def noise(num_samples: int) -> NDArray[np.int16]:
    return np.random.default_rng(0).integers(-9000, 9000, num_samples).astype(np.int16)


def prepared(path: Path, *, num_frames: int = 30, sound: NDArray[np.int16] | None = None, rate: int = 16000) -> None:
    blocks = None if sound is None else iter(np.array_split(sound, 7))
    write_prepared(path, iter(jpegs(num_frames)), fps=16, size=(96, 64), sound=blocks, sample_rate=rate)


@pytest.mark.parametrize("seconds_of_sound", [0.3, 1.875, 1.9, 4.0])
def test_the_packet_index_agrees_with_the_file_byte_for_byte(tmp_path: Path, seconds_of_sound: float) -> None:
    path, sound = tmp_path / "a.mov", noise(round(seconds_of_sound * 16000))
    prepared(path, sound=sound)
    index = PacketIndex.of_file(path)
    content = path.read_bytes()
    frames = [content[o : o + n] for o, n in zip(index.frame_offsets.tolist(), index.frame_sizes.tolist(), strict=True)]
    assert frames == jpegs(30)
    runs = b"".join(
        content[o : o + n] for o, n in zip(index.sound_offsets.tolist(), index.sound_sizes.tolist(), strict=True)
    )
    np.testing.assert_array_equal(np.frombuffer(runs, "<i2"), sound)
    assert index.file_size == len(content)
    assert (index.num_frames, index.num_samples) == (30, len(sound))


def test_a_prepared_video_is_an_ordinary_file(tmp_path: Path) -> None:
    path, sound = tmp_path / "a.mov", noise(30000)
    prepared(path, sound=sound)
    info = media_info(path)
    assert info.video
    assert info.audio
    assert (info.video.codec, info.video.width, info.video.height, info.video.fps) == ("mjpeg", 96, 64, 16)
    assert (info.audio.codec, info.audio.sample_rate, info.audio.channels) == ("pcm_s16le", 16000, 1)
    assert (info.video.start_seconds, info.audio.start_seconds, info.duration_seconds) == (0, 0, 1.875)
    assert [number_of(p) for _, p in FrameReader(path, fps=16)] == list(range(30))
    np.testing.assert_array_equal(np.concatenate(list(SoundReader(path))), sound.astype(np.float32) / 32768)
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    assert all(packet.is_keyframe for packet in packets)


def test_sound_and_picture_stand_interleaved(tmp_path: Path) -> None:
    prepared(tmp_path / "a.mov", num_frames=64, sound=noise(64000))
    index = PacketIndex.of_file(tmp_path / "a.mov")
    assert len(index.sound_offsets) == 8  # half a second each
    for run, offset in enumerate(index.sound_offsets):
        assert int((index.frame_offsets < offset).sum()) == pytest.approx(run * 8, abs=1)


def test_a_prepared_video_may_lack_sound(tmp_path: Path) -> None:
    prepared(tmp_path / "a.mov")
    index = PacketIndex.of_file(tmp_path / "a.mov")
    assert (index.num_samples, len(index.sound_offsets)) == (0, 0)
    assert media_info(tmp_path / "a.mov").audio is None


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        prepared(tmp_path / f"{name}.mov", sound=noise(30000))
        with VideoWriter(tmp_path / f"{name}.mp4", width=64, height=48, fps=16, sample_rate=16000) as writer:
            for picture in grey_ramp(30):
                writer.write_frame(picture)
            writer.write_sound(noise(30000).astype(np.float32) / 32768)
    assert (tmp_path / "a.mov").read_bytes() == (tmp_path / "b.mov").read_bytes()
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    def failing() -> Iterator[bytes]:
        yield from jpegs(3)
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        write_prepared(tmp_path / "a.mov", failing(), fps=16, size=(96, 64), sound=None, sample_rate=16000)
    with pytest.raises(ValueError, match=r"a\.mov: .*at least one frame"):
        write_prepared(tmp_path / "a.mov", [], fps=16, size=(96, 64), sound=None, sample_rate=16000)
    with pytest.raises(ValueError, match="int16"):
        write_prepared(
            tmp_path / "a.mov", jpegs(3), fps=16, size=(96, 64), sound=[np.zeros(9, np.float32)], sample_rate=16000
        )
    writer = VideoWriter(tmp_path / "a.mp4", width=64, height=48, fps=16, sample_rate=16000)
    with pytest.raises(RuntimeError, match="the source broke"), writer:
        raise RuntimeError("the source broke")
    with (
        pytest.raises(ValueError, match=r"a\.mp4: .*at least one frame"),
        VideoWriter(tmp_path / "a.mp4", width=64, height=48, fps=16, sample_rate=16000),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_no_prepared_videos(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", frames=grey_ramp(8))
    with pytest.raises(MediaError, match=r"a\.mp4: not a prepared video: its pictures"):
        PacketIndex.of_file(tmp_path / "a.mp4")
    prepared(tmp_path / "c.mov", sound=noise(100))
    with av.open(str(tmp_path / "c.mov")) as source, av.open(str(tmp_path / "b.mov"), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
            packet.stream = stream
            if number != 5:
                out.mux_one(packet)
    with pytest.raises(MediaError, match=r"b\.mov: not a prepared video: frame 1 is at"):
        PacketIndex.of_file(tmp_path / "b.mov")
    stereo = [np.zeros((2, 800), np.int16)]
    write_clip(tmp_path / "d.mov", frames=grey_ramp(8), video_codec="mjpeg", waves=stereo, audio_codec="pcm_s16le")
    with pytest.raises(MediaError, match=r"d\.mov: not a prepared video: its sound"):
        PacketIndex.of_file(tmp_path / "d.mov")
    content = (tmp_path / "c.mov").read_bytes()
    (tmp_path / "c.mov").write_bytes(content[: len(content) // 2])
    with pytest.raises(MediaError, match=r"c\.mov: not a media file"):
        PacketIndex.of_file(tmp_path / "c.mov")


@pytest.mark.parametrize("sample_rate", [16000, 24000, 48000])
@pytest.mark.parametrize("block", [160, 1024, 5000])
def test_a_written_flash_and_click_come_back_at_their_instant(tmp_path: Path, sample_rate: int, block: int) -> None:
    path, instant, fps = tmp_path / "a.mp4", 1.25, 16
    frames = [np.zeros((48, 64, 3), np.uint8) for _ in range(40)]
    frames[round(instant * fps)][:] = 255
    wave = click_track(round(2.5 * sample_rate), round(instant * sample_rate))
    with VideoWriter(path, width=64, height=48, fps=fps, sample_rate=sample_rate) as writer:
        for picture in frames:
            writer.write_frame(picture)
        for piece in rechunk([wave], block):
            writer.write_sound(piece)
    sound = np.abs(np.concatenate(list(SoundReader(path))))
    assert np.flatnonzero(sound > sound.max() / 2)[0] / sample_rate == pytest.approx(instant, abs=0.002)
    flashes = [time for time, picture in FrameReader(path, fps=fps) if picture.mean() > 100]
    assert flashes == [instant]
    assert media_info(path).duration_seconds == pytest.approx(2.5)


def test_written_pictures_keep_their_colours(tmp_path: Path) -> None:
    colours = [(255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (120, 200, 40)]
    with VideoWriter(tmp_path / "a.mp4", width=64, height=48, fps=5, sample_rate=16000, crf=10) as writer:
        for colour in colours:
            writer.write_frame(np.full((48, 64, 3), colour, np.uint8))
    read = [picture[9, 9] for _, picture in FrameReader(tmp_path / "a.mp4", fps=5)]
    np.testing.assert_allclose(np.array(read, int), colours, atol=5)


def test_what_a_writer_cannot_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.mp4: H.264 needs even sides, not 65 x 48"):
        VideoWriter(tmp_path / "a.mp4", width=65, height=48, fps=16, sample_rate=16000)
    with VideoWriter(tmp_path / "a.mp4", width=64, height=48, fps=16, sample_rate=16000) as writer:
        writer.write_frame(grey_ramp(1)[0])
        with pytest.raises(ValueError, match=r"expected uint8 \(48, 64, 3\)"):
            writer.write_frame(np.zeros((64, 48, 3), np.uint8))
        with pytest.raises(ValueError, match="expected float32"):
            writer.write_sound(np.zeros(9, np.int16))  # type: ignore[arg-type]


def test_rechunking_keeps_every_sample_in_order() -> None:
    wave = np.arange(1000)
    pieces = np.split(wave, [0, 1, 1, 400, 410, 999])
    for size in (1, 7, 100, 999, 1000, 5000):
        blocks = list(rechunk(pieces, size))
        assert {len(block) for block in blocks[:-1]} <= {size}
        np.testing.assert_array_equal(np.concatenate(blocks), wave)
