"""Media: what a file holds, one clock for sound and picture, sound, refusal of what is no media file."""

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import scipy.io.wavfile
from numpy.typing import NDArray

from earmark.media import FrameReader, MediaError, PacketIndex, Resampler, SoundReader, media_info, read_frames
from earmark.media.opening import open_media
from tests.helpers.media_clips import CLICK_SAMPLES, click_track, grey_ramp, number_of, write_clip

FPS = 16
RATE = 48000
HALF_A_FRAME = 0.5 / FPS


def sound_of(path: Path, **options: int) -> NDArray[np.float32]:
    return np.concatenate(list(SoundReader(path, **options)))


def click_seconds(path: Path) -> float:
    wave = np.abs(sound_of(path))
    return float(np.flatnonzero(wave > wave.max() / 2)[0]) / SoundReader(path).sample_rate


def flash_seconds(path: Path) -> float:
    """Presentation time of the bright frame: the middle of the times it is nearest to."""
    times = [time for time, picture in FrameReader(path, fps=FPS * 20) if picture.mean() > 100]
    return (times[0] + times[-1]) / 2


STARTS = [(0.0, 0.0), (0.0, 0.476), (0.5, 0.0), (1.25, 0.3125), (3.0, 3.476)]


@pytest.mark.parametrize(("picture_start", "sound_start"), STARTS)
@pytest.mark.parametrize(
    ("container", "audio_codec"),
    [("mp4", "aac"), ("mkv", "aac"), ("mkv", "libopus"), ("ts", "aac"), ("mov", "pcm_s16le")],
)
def test_sound_and_picture_agree_however_late_either_starts(
    tmp_path: Path, container: str, audio_codec: str, picture_start: float, sound_start: float
) -> None:
    event = 1.5 + max(picture_start, sound_start)
    event = picture_start + round((event - picture_start) * FPS) / FPS  # at a frame
    frames = [np.zeros((48, 64, 3), np.uint8) for _ in range(64)]
    frames[round((event - picture_start) * FPS)][:] = 255
    wave: NDArray[np.float32] | NDArray[np.int16] = click_track(4 * RATE, round((event - sound_start) * RATE))
    if audio_codec == "pcm_s16le":
        wave = (wave * 32767).astype(np.int16)
    path = tmp_path / f"a.{container}"
    write_clip(
        path,
        frames=frames,
        picture_start=picture_start,
        waves=[wave],
        sound_start=sound_start,
        audio_codec=audio_codec,
    )
    true_seconds = event - min(picture_start, sound_start)
    flash, click = flash_seconds(path), click_seconds(path)
    # A transport stream can't mark the encoder's 1024 priming samples as such: they are part of the presentation.
    priming = 1024 / RATE if container in ("ts", "mp4") else 0.0
    assert abs(flash - click) < 0.004
    assert -0.004 < flash - true_seconds < priming + 0.004 < HALF_A_FRAME
    info = media_info(path)
    assert info.video
    assert info.audio
    late = info.audio.start_seconds - info.video.start_seconds
    assert late == pytest.approx(sound_start - picture_start, abs=priming + 0.004)
    assert min(info.audio.start_seconds, info.video.start_seconds) == pytest.approx(0.0, abs=0.001)


def test_silence_stands_where_the_sound_has_not_started(tmp_path: Path) -> None:
    path = tmp_path / "late.mov"
    wave = np.full(RATE, 1000, np.int16)
    write_clip(path, frames=grey_ramp(20), waves=[wave], sound_start=0.476, audio_codec="pcm_s16le")
    sound = sound_of(path)
    assert len(sound) == round(1.476 * RATE)
    start = round(0.476 * RATE)
    assert not sound[:start].any()
    np.testing.assert_array_equal(sound[start:], np.float32(1000 / 32768))


def test_two_channels_are_averaged_and_keep_their_length(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    wave = rng.integers(-32768, 32767, (2, RATE), dtype=np.int16)
    write_clip(tmp_path / "a.mov", frames=grey_ramp(16), waves=[wave], audio_codec="pcm_s16le")
    sound = sound_of(tmp_path / "a.mov")
    np.testing.assert_array_equal(sound, wave.astype(np.float64).mean(axis=0).astype(np.float32) / 32768)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_sample_formats_have_one_scale(tmp_path: Path, dtype: type) -> None:
    wave = np.random.default_rng(0).uniform(-0.9, 0.9, (1000, 2))
    scale, offset = {"u": (128, 128), "i": (2.0 ** (8 * np.dtype(dtype).itemsize - 1), 0), "f": (1, 0)}[
        np.dtype(dtype).kind
    ]
    stored = (wave * scale + offset).astype(dtype)
    scipy.io.wavfile.write(tmp_path / "a.wav", 8000, stored)
    expected = ((stored.astype(np.float64) - offset) / scale).mean(axis=1)
    np.testing.assert_allclose(sound_of(tmp_path / "a.wav"), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("rate", [None, 16000, 44100])
def test_blocks_are_equal_and_add_up(tmp_path: Path, rate: int | None) -> None:
    write_clip(tmp_path / "a.mov", waves=[np.ones(RATE * 3, np.int16)], audio_codec="pcm_s16le")
    reader = SoundReader(tmp_path / "a.mov", sample_rate=rate, block_seconds=0.8)
    rate = rate or RATE
    assert reader.sample_rate == rate
    for _ in range(2):  # a reader can be read again
        lengths = [len(block) for block in reader]
        assert lengths == [round(0.8 * rate)] * 3 + [3 * rate - 3 * round(0.8 * rate)]
        assert reader.num_samples == 3 * rate
        assert reader.problem is None


@pytest.mark.parametrize("rates", [(44100, 16000), (16000, 44100), (48000, 8000), (22050, 16000)])
def test_resampling_keeps_time_and_length(rates: tuple[int, int]) -> None:
    source, target = rates
    num_samples = 2 * source + 137

    def tone(rate: int, count: int) -> NDArray[np.float32]:
        time = np.arange(count) / rate
        return (np.sin(2 * np.pi * 440 * time) * np.exp(-((time - 1) ** 2) / 0.02)).astype(np.float32)

    resampler = Resampler(source, target)
    pieces = np.array_split(tone(source, num_samples), 13)
    out = np.concatenate([*(resampler(piece) for piece in pieces), resampler.flush()])
    assert len(out) == round(num_samples * target / source)
    np.testing.assert_allclose(out, tone(target, len(out)), atol=2e-3)


def test_a_rate_that_changes_within_the_stream_keeps_time(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.aac", waves=[click_track(RATE, RATE // 2)])
    write_clip(tmp_path / "b.aac", waves=[np.stack([click_track(44100, 22050)] * 2)], sample_rate=44100)
    clock = Fraction(0)
    starts = []
    with av.open(str(tmp_path / "c.ts"), "w") as out:
        stream = None
        for name, rate in (("a.aac", RATE), ("b.aac", 44100)):
            starts.append(clock)
            with av.open(str(tmp_path / name)) as source:
                stream = stream or out.add_stream_from_template(source.streams.audio[0])
                for packet in source.demux():
                    if packet.size:
                        packet.stream = stream
                        packet.time_base = Fraction(1, 90000)
                        packet.pts = packet.dts = round(clock * 90000)
                        out.mux_one(packet)
                        clock += Fraction(1024, rate)
    for rate in (None, 16000):
        reader = SoundReader(tmp_path / "c.ts", sample_rate=rate)
        sound = np.concatenate(list(reader))
        assert reader.problem is None
        assert len(sound) / reader.sample_rate == pytest.approx(float(clock), abs=0.001)
        loud = np.flatnonzero(np.abs(sound) > 0.3 * np.abs(sound).max()) / reader.sample_rate
        truth = [float(starts[0]) + 0.5 + 1024 / RATE, float(starts[1]) + 0.5 + 1024 / 44100]
        assert [loud[0], loud[-1]] == pytest.approx(truth, abs=0.002)


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
def test_a_gap_in_the_sound_is_silence_and_the_clock_goes_on(tmp_path: Path, container: str) -> None:
    path = tmp_path / f"a.{container}"
    noise = np.random.default_rng(0).standard_normal(3 * RATE).astype(np.float32) * 0.1
    write_clip(path, waves=[noise], gap_at=(1.0, 0.7))
    sound = sound_of(path)
    silent = np.flatnonzero(sound == 0) / RATE
    assert len(sound) / RATE == pytest.approx(3.7, abs=0.05)
    assert silent[0] == pytest.approx(1.0, abs=0.05)
    assert silent[-1] - silent[0] == pytest.approx(0.7, abs=0.005)


def test_sound_that_overlaps_is_cut(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.ts", waves=[np.ones(2 * RATE, np.float32) * 0.1])
    once = len(sound_of(tmp_path / "a.ts"))
    (tmp_path / "b.ts").write_bytes(2 * (tmp_path / "a.ts").read_bytes())  # the second half has the first one's times
    assert len(sound_of(tmp_path / "b.ts")) == pytest.approx(once, abs=2048)


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "libopus"), ("a.mkv", "mp3"), ("a.mp4", "mp3"), ("a.ts", "aac")])
def test_rounded_time_stamps_neither_insert_nor_drop_samples(tmp_path: Path, name: str, codec: str) -> None:
    time = np.arange(4 * RATE) / RATE
    write_clip(tmp_path / name, waves=[0.5 * np.sin(2 * np.pi * 220 * time).astype(np.float32)], audio_codec=codec)
    sound = sound_of(tmp_path / name)[RATE // 2 : 3 * RATE]
    # A pure tone obeys x[k + 1] + x[k - 1] = 2 cos(w) x[k]; one sample more or less breaks that by up to 0.03.
    residual = sound[2:] + sound[:-2] - 2 * np.cos(2 * np.pi * 220 / RATE) * sound[1:-1]
    assert np.abs(residual).max() < 0.002


def garble(path: Path, kind: str, start: float, stop: float) -> None:
    """Overwrite the packets of a kind within some seconds by noise."""
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        places = [(p.pos, p.size) for p in container.demux(stream) if p.size and start < p.pts * p.time_base < stop]
    content = bytearray(path.read_bytes())
    for pos, size in places:
        content[pos : pos + size] = np.random.default_rng(1).bytes(size)
    path.write_bytes(content)


def test_damaged_sound_is_skipped_named_and_keeps_time(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    wave = click_track(4 * RATE, 3 * RATE)
    wave += np.random.default_rng(0).standard_normal(len(wave)).astype(np.float32) * 0.01
    write_clip(path, waves=[wave])
    garble(path, "audio", 1.5, 1.8)
    reader = SoundReader(path)
    sound = np.concatenate(list(reader))
    assert reader.problem
    assert "damaged packets skipped, the first at 1.5" in reader.problem
    assert np.abs(sound[round(2.8 * RATE) : round(3.2 * RATE)]).argmax() == pytest.approx(
        0.2 * RATE, abs=2 * CLICK_SAMPLES
    )
    assert len(sound) == pytest.approx(4 * RATE, abs=1024)


def test_a_hole_in_a_transport_stream_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    noise = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3), dtype=np.uint8)
    write_clip(path, frames=list(noise), waves=[np.ones(4 * RATE, np.float32) * 0.1])
    content = path.read_bytes()
    hole = len(content) // 188 // 2 * 188
    path.write_bytes(content[:hole] + bytes(188 * 60) + content[hole + 188 * 60 :])
    reader = FrameReader(path, fps=FPS)
    assert len(list(reader)) == pytest.approx(60, abs=3)
    assert reader.problem
    assert "damaged packet" in reader.problem


def test_recordings_joined_with_their_clocks_are_read_to_the_seam_and_say_so(tmp_path: Path) -> None:
    one, joined = tmp_path / "one.ts", tmp_path / "joined.ts"
    write_clip(one, frames=grey_ramp(32), waves=[click_track(96000, 48000)])
    joined.write_bytes(one.read_bytes() * 2)
    for reader in (FrameReader(joined, fps=16), SoundReader(joined)):
        for _ in reader:
            pass
        assert "the time stamps jump back at" in str(reader.problem)


def test_sound_that_breaks_off_says_where(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    noise = np.random.default_rng(0).standard_normal(4 * RATE).astype(np.float32) * 0.1
    write_clip(path, frames=grey_ramp(31) * 2, waves=[noise])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    reader = SoundReader(path)
    seconds = sum(len(block) for block in reader) / RATE
    assert seconds < 3
    assert reader.problem == f"the sound breaks off at {seconds:.2f} s of 4.02 s"


def test_sound_in_which_nothing_decodes_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_clip(path, waves=[np.random.default_rng(0).standard_normal(RATE).astype(np.float32)])
    garble(path, "audio", -1, 2)
    with pytest.raises(MediaError, match=r"a\.mp4: no sound could be decoded \(\d+ damaged packets"):
        list(SoundReader(path))


def test_samples_that_are_no_numbers_become_silence_and_are_named(tmp_path: Path) -> None:
    wave = np.full(1000, 0.5, np.float32)
    wave[[3, 700, 701]] = np.nan, np.inf, -np.inf
    scipy.io.wavfile.write(tmp_path / "a.wav", 8000, wave)
    reader = SoundReader(tmp_path / "a.wav")
    (sound,) = reader
    np.testing.assert_array_equal(sound, np.where(np.isfinite(wave), wave, 0))
    assert reader.problem == "3 samples that are not finite were set to 0"


def test_a_time_stamp_far_off_does_not_become_hours_of_silence(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    write_clip(path, waves=[np.ones(2 * RATE, np.float32) * 0.1], gap_at=(1.0, 50_000.0))
    reader = SoundReader(path)
    assert sum(len(block) for block in reader) / RATE == pytest.approx(1.0, abs=0.05)
    assert reader.problem
    assert "the time stamps jump" in reader.problem


def test_each_of_several_streams_can_be_chosen(tmp_path: Path) -> None:
    waves = [click_track(RATE, at) for at in (RATE // 4, RATE // 2)]
    path = tmp_path / "a.mkv"
    write_clip(path, frames=grey_ramp(16), waves=waves)
    assert media_info(path).num_audio_streams == 2
    for number, at in enumerate((0.25, 0.5)):
        sound = np.abs(sound_of(path, audio_stream=number))
        assert sound.argmax() / RATE == pytest.approx(at, abs=0.002)
        audio = media_info(path, audio_stream=number).audio
        assert audio
        assert audio.index == 1 + number
    with pytest.raises(MediaError, match=r"no audio stream 2, it has 2"):
        SoundReader(path, audio_stream=2)
    with pytest.raises(MediaError, match=r"no video stream 1, it has 1"):
        media_info(path, video_stream=1)


def test_a_cover_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    with av.open(str(path), "w") as container:
        audio = container.add_stream("mp3", rate=RATE, layout="mono")
        cover = container.add_stream("mjpeg", rate=1, width=64, height=48, pix_fmt="yuvj420p")
        cover.disposition = av.stream.Disposition.attached_pic
        for packet in cover.encode(av.VideoFrame(64, 48, "yuvj420p")):
            container.mux(packet)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.float32), format="fltp", layout="mono")
        frame.sample_rate = RATE
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    with av.open(str(path)) as container:
        assert [s.type for s in container.streams] == ["audio", "video"]  # the cover is there
    info = media_info(path)
    assert info.video is None
    assert info.num_video_streams == 0
    with pytest.raises(MediaError, match="no picture stream"):
        FrameReader(path, fps=1)


def test_a_recording_streamed_to_disk_is_walked_for_its_length(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", frames=grey_ramp(30), fps=25)
    with (
        av.open(str(tmp_path / "a.mp4")) as source,
        av.open(str(tmp_path / "a.mkv"), "w", options={"live": "1"}) as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux():
            if packet.size:
                packet.stream = stream
                out.mux_one(packet)
    info = media_info(tmp_path / "a.mkv")
    assert info.duration_seconds == pytest.approx(1.2, abs=0.05)
    assert info.video
    assert info.video.duration_seconds is None
    assert [number_of(p) for _, p in FrameReader(tmp_path / "a.mkv", fps=25)] == list(range(30))


def test_a_declared_rate_that_is_a_time_base_is_measured_instead(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    write_clip(path, frames=grey_ramp(30), fps=1000, times_ms=[40 * k for k in range(30)])
    video = media_info(path).video
    assert video
    assert video.fps == pytest.approx(25, abs=1)


ENTRIES = [
    media_info,
    SoundReader,
    lambda path: FrameReader(path, fps=16),
    lambda path: read_frames(path, [0.0]),
    PacketIndex.of_file,
]


@pytest.mark.parametrize(
    "entry", ENTRIES, ids=["media_info", "SoundReader", "FrameReader", "read_frames", "PacketIndex"]
)
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"", "the file is empty"),
        (b"just text\n" * 500, "not a media file"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n", "not a media file"),
        (b"ffconcat version 1.0\nfile other.mp4\n", "not a media file"),
        ("half", "not a media file"),
    ],
    ids=["missing", "empty", "text", "playlist", "concat script", "no index"],
)
def test_what_is_no_media_file_is_refused_by_name(tmp_path: Path, entry, content, reason: str) -> None:  # type: ignore[no-untyped-def]
    write_clip(tmp_path / "other.mp4", frames=grey_ramp(8), waves=[np.zeros(RATE, np.float32)])
    path = tmp_path / "a.mp4"
    if content == "half":
        whole = (tmp_path / "other.mp4").read_bytes()
        content = whole[: whole.index(b"moov") - 100]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MediaError, match=rf"a\.mp4: {reason}"):
        entry(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="a directory"):
        media_info(tmp_path)


def test_nothing_is_printed_about_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_clip(
        path, frames=grey_ramp(30), waves=[np.random.default_rng(0).standard_normal(2 * RATE).astype(np.float32)]
    )
    garble(path, "audio", 0.5, 1.0)
    garble(path, "video", 0.5, 1.0)
    script = (
        "import sys; from earmark.media import *; p = sys.argv[1]; s = SoundReader(p); list(s); "
        "f = FrameReader(p, fps=16); list(f); print(bool(s.problem), bool(f.problem))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout == "True True\n"
    assert done.stderr == ""


def test_memory_does_not_grow_with_the_length_of_the_sound(tmp_path: Path) -> None:
    scipy.io.wavfile.write(tmp_path / "a.wav", RATE, np.zeros((RATE * 240, 2), np.int16))
    script = (
        "import resource, sys; from earmark.media import SoundReader; r = SoundReader(sys.argv[1], sample_rate=16000)\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "marks = [peak() for block in r]; print(marks[-1] - marks[2])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.wav")],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert int(done.stdout) < 4096  # KiB; the sound is 15 MB even at 16 kHz


def test_every_real_clip_is_read_to_its_end(media: Path) -> None:
    clips = sorted(media.iterdir())
    assert len(clips) == 21
    for path in clips:
        info = media_info(path)
        assert info.video, path
        pictures = FrameReader(path, fps=8, short_side=64)
        times = [time for time, picture in pictures if picture.shape[:2] == pictures.size[::-1]]
        assert pictures.problem is None, path
        assert min(pictures.size) == 64, path
        assert times[-1] == pytest.approx(info.video.duration_seconds, abs=0.2), path
        if "no_audio" in path.name:
            assert info.audio is None, path
            continue
        assert info.audio, path
        assert info.audio.duration_seconds, path
        sound = SoundReader(path)
        seconds = sum(len(block) for block in sound) / sound.sample_rate
        assert sound.problem is None, path
        assert seconds == pytest.approx(info.audio.start_seconds + info.audio.duration_seconds, abs=0.2), path


def test_real_clips_are_described_as_they_are(media: Path) -> None:
    odd = media_info(media / "odd_fps.mp4").video
    assert odd
    assert odd.fps == pytest.approx(25 / 2.38, abs=0.01)
    assert odd.rotation == 180
    several = media_info(media / "multi_stream.mp4", video_stream=0, audio_stream=0)
    assert several.num_video_streams == several.num_audio_streams == 2
    assert several.video
    assert several.audio
    assert (several.video.width, several.audio.sample_rate) == (320, 8000)
    other = media_info(media / "multi_stream.mp4", video_stream=1, audio_stream=1)
    assert other.video
    assert other.audio
    assert (other.video.width, other.audio.sample_rate) == (480, 16000)
    silent = sound_of(media / "ego_silent_track.mp4")
    assert len(silent) > 90000
    assert not silent.any()


def test_tags_that_are_not_utf8_keep_nobody_from_reading(tmp_path: Path) -> None:
    wave = (click_track(8000, 4000) * 32767).astype(np.int16)
    scipy.io.wavfile.write(tmp_path / "a.wav", 8000, wave)
    title = b"caf\xe9\0"  # Latin-1, as older recorders write it
    item = b"INFOINAM" + len(title).to_bytes(4, "little") + title + b"\0" * (len(title) % 2)
    content = (tmp_path / "a.wav").read_bytes() + b"LIST" + len(item).to_bytes(4, "little") + item
    content = content[:4] + (len(content) - 8).to_bytes(4, "little") + content[8:]
    (tmp_path / "b.wav").write_bytes(content)
    info = media_info(tmp_path / "b.wav")
    assert info.audio is not None
    assert info.audio.sample_rate == 8000
    np.testing.assert_array_equal(sound_of(tmp_path / "b.wav"), sound_of(tmp_path / "a.wav"))
    with open_media(tmp_path / "b.wav") as container:
        assert container.metadata["title"] == "caf\udce9"  # and nothing of it is lost, whatever PyAV's version
