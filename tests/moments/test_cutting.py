"""Clips of moments: they play, and their picture and sound are those of the source, at the same time."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io.wavfile

from earmark.media import FrameReader, MediaError, SoundReader, iter_frames, media_info, read_frames
from earmark.moments.cutting import _windows, cut_clips
from tests.helpers.media_clips import click_track, grey_ramp, number_of, write_clip


def sound_of(path: Path) -> np.ndarray:
    return np.concatenate(list(SoundReader(path)))


def source(path: Path, **changes: object) -> Path:
    """Write 3 s at 10 fps whose frame k is 8 k grey, with a click at 1.5 s."""
    arguments = {"frames": grey_ramp(30), "fps": 10, "waves": [click_track(144000, 72000)], **changes}
    write_clip(path, **arguments)  # type: ignore[arg-type]
    return path


def test_a_picture_of_silence_is_dark_and_one_of_sound_is_not(tmp_path: Path) -> None:
    for name, wave, least, most in (("silence", np.zeros(48000), 0, 60), ("hit", click_track(48000, 24000), 100, 255)):
        scipy.io.wavfile.write(tmp_path / f"{name}.wav", 16000, (wave * 32767).astype(np.int16))
        (clip,) = cut_clips(tmp_path / f"{name}.wav", [1.5], tmp_path / "out")
        picture = read_frames(clip, [0.9])[0][:, 20:]  # without the line that moves through it, at its left edge
        columns = np.sort(picture.mean(axis=(0, 2)))[:-8]
        assert least <= columns.max() <= most


def test_a_clip_holds_the_frames_and_the_sound_of_its_time(tmp_path: Path) -> None:
    (clip,) = cut_clips(source(tmp_path / "a.mp4"), [1.5], tmp_path / "out", before_seconds=0.5, after_seconds=0.7)
    assert clip == tmp_path / "out" / "a_0001_1.500s.mp4"
    assert [number_of(picture) for _, picture in FrameReader(clip, fps=10)] == list(range(10, 22))
    info = media_info(clip)
    assert info.video
    assert info.audio
    assert (info.video.codec, info.video.width, info.video.height, info.video.fps) == ("h264", 64, 48, 10)
    assert (info.audio.codec, info.audio.sample_rate, info.audio.start_seconds) == ("aac", 48000, 0)
    wave = sound_of(clip)
    assert np.abs(wave).argmax() / 48000 == pytest.approx(0.5, abs=0.002)  # the click, where frame 15 begins
    reference = sound_of(tmp_path / "a.mp4")[48000:105600]
    shift = np.correlate(wave[: len(reference)], reference, "same").argmax() - len(reference) // 2
    assert abs(shift) <= 1


@pytest.mark.parametrize(("picture_start", "sound_start"), [(0.5, 0.0), (0.0, 0.5)])
def test_picture_and_sound_stay_in_sync_whatever_their_start(
    tmp_path: Path, picture_start: float, sound_start: float
) -> None:
    path = source(tmp_path / "a.mkv", picture_start=picture_start, sound_start=sound_start)
    click = 1.5 + sound_start
    (clip,) = cut_clips(path, [click], tmp_path, before_seconds=0.4, after_seconds=0.4)
    wave = sound_of(clip)
    heard = np.abs(wave).argmax() / 48000
    assert heard == pytest.approx(0.4, abs=0.002)
    (seen,) = read_frames(clip, [heard + 0.01])
    assert number_of(seen) == round((click - picture_start) * 10)


def test_clips_are_shorter_at_both_ends_of_the_recording(tmp_path: Path) -> None:
    clips = cut_clips(source(tmp_path / "a.mp4"), [0.2, 2.9], tmp_path / "out", name="b")
    assert [clip.name for clip in clips] == ["b_0001_0.200s.mp4", "b_0002_2.900s.mp4"]
    shown = [[number_of(picture) for _, picture in FrameReader(clip, fps=10)] for clip in clips]
    assert shown == [list(range(12)), list(range(19, 30))]


def test_overlapping_moments_get_clips_of_their_own(tmp_path: Path) -> None:
    clips = cut_clips(source(tmp_path / "a.mp4"), [1.0, 1.1, 1.1], tmp_path, before_seconds=0.2, after_seconds=0.2)
    shown = [[number_of(picture) for _, picture in FrameReader(clip, fps=10)] for clip in clips]
    assert shown == [[8, 9, 10, 11], [9, 10, 11, 12], [9, 10, 11, 12]]


@pytest.mark.parametrize(("rate", "written"), [(8000, 16000), (11025, 16000), (44100, 44100), (192000, 48000)])
def test_sound_alone_becomes_a_clip_with_a_picture_of_it(tmp_path: Path, rate: int, written: int) -> None:
    scipy.io.wavfile.write(tmp_path / "a.wav", rate, (click_track(3 * rate, 2 * rate) * 32767).astype(np.int16))
    (clip,) = cut_clips(tmp_path / "a.wav", [2.0], tmp_path, before_seconds=1.0, after_seconds=0.5)
    info = media_info(clip)
    assert info.audio
    assert info.video
    assert (info.audio.sample_rate, info.video.duration_seconds) == (written, 1.52)  # whole frames at 25 fps
    assert np.abs(sound_of(clip)).argmax() / written == pytest.approx(1.0, abs=0.01)
    pictures = [picture for _, picture in FrameReader(clip, fps=25)]
    columns = [int((picture.min(axis=(0, 2)) > 150).argmax()) for picture in pictures[1:]]
    assert np.diff(columns) == pytest.approx(640 / 38, abs=2)  # the line moves on


def test_sides_that_h264_cannot_hold_are_made_even(tmp_path: Path) -> None:
    path = source(tmp_path / "a.mkv", frames=grey_ramp(30, width=75, height=49), video_codec="mjpeg")
    (clip,) = cut_clips(path, [1.0], tmp_path)
    info = media_info(clip)
    assert info.video
    assert (info.video.width, info.video.height) == (74, 48)


def test_silence_after_the_end_of_the_sound(tmp_path: Path) -> None:
    path = source(tmp_path / "a.mp4", waves=[click_track(72000, 48000)])
    (clip,) = cut_clips(path, [1.4], tmp_path)
    wave = sound_of(clip)
    assert len(wave) / 48000 == pytest.approx(2.0, abs=0.05)
    assert np.abs(wave[60000:]).max() < 1e-3


def test_windows_are_the_samples_asked_for_whatever_the_blocks() -> None:
    generator = np.random.default_rng(0)
    wave = generator.normal(size=1000).astype(np.float32)
    spans = [(0, 10), (5, 300), (5, 6), (290, 310), (700, 900), (950, 1100), (1200, 1210)]
    padded = np.pad(wave, (0, 500))
    for size in (1, 7, 333, 2000):
        blocks = [wave[start : start + size] for start in range(0, 1000, size)]
        for (start, stop), window in zip(spans, _windows(blocks, spans), strict=True):
            np.testing.assert_array_equal(window, padded[start:stop])


def test_no_moments_are_no_clips_and_bad_lengths_are_refused(tmp_path: Path) -> None:
    assert cut_clips(tmp_path / "not even there.mp4", [], tmp_path) == []
    with pytest.raises(ValueError, match="must not be negative or both 0"):
        cut_clips(tmp_path / "a.mp4", [1.0], tmp_path, before_seconds=0, after_seconds=0)
    with pytest.raises(MediaError, match="no such file"):
        cut_clips(tmp_path / "a.mp4", [1.0], tmp_path)


def test_frames_one_by_one_are_those_read_at_once(tmp_path: Path) -> None:
    path, times = source(tmp_path / "a.mp4"), [0.0, 0.31, 0.31, 2.5, 9.0]
    np.testing.assert_array_equal(np.stack(list(iter_frames(path, times))), read_frames(path, times))


@pytest.mark.parametrize(
    "name", ["chopping.mp4", "weightlifting_vfr.mp4", "odd_fps.mp4", "mpeg4_mp3.avi", "epic_sounds.webm"]
)
def test_clips_of_real_footage_sound_and_look_like_it(media: Path, tmp_path: Path, name: str) -> None:
    (clip,) = cut_clips(media / name, [2.0], tmp_path, before_seconds=0.5, after_seconds=0.5)
    rate = SoundReader(clip).sample_rate
    whole = np.concatenate(list(SoundReader(media / name, sample_rate=rate)))
    start = round((2.0 - (media_info(clip).duration_seconds / 2)) * rate)
    wave, around = sound_of(clip), whole[max(0, start - rate // 4) :]
    wave = wave[: rate * 3 // 4]
    offsets = np.correlate(around[: len(wave) + rate // 2], wave, "valid").argmax() + max(0, start - rate // 4)
    video = media_info(clip).video
    assert video
    assert 1.5 - 1 / video.fps <= offsets / rate <= 1.501  # on the grid of the frames
    begins = offsets / rate
    for later in (0.1, 0.5):
        (ours,), (theirs,) = (
            read_frames(clip, [later], short_side=64),
            read_frames(media / name, [begins + later], short_side=64),
        )
        assert ours.shape == theirs.shape
        assert np.abs(ours.astype(float) - theirs).mean() < 6
