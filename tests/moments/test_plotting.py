"""Pictures and pages of moments: they show the sound they are given, and stay small and safe."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.io.wavfile
from numpy.typing import NDArray
from PIL import Image

from earmark.media import MediaError, SoundReader
from earmark.moments import DETECTORS, Moment, moments_of_file
from earmark.moments.plotting import _IN_PAGE, SHOWN_HTML, Columns, _levels, _listen, _spectrum, write_plot
from tests.helpers.media_clips import click_track, grey_ramp, write_clip

INK = tuple(int(_IN_PAGE.ink[k : k + 2], 16) for k in (1, 3, 5))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Return a video of 3 s with a click at 1.5 s, frame k 8 k grey."""
    write_clip(tmp_path / "a.mp4", frames=grey_ramp(30), fps=10, waves=[click_track(144000, 72000)])
    return tmp_path / "a.mp4"


def embedded(page: str, media_type: str) -> list[bytes]:
    return [base64.b64decode(text) for text in re.findall(rf'src="data:{media_type};base64,([^"]+)"', page)]


def test_columns_keep_the_greatest_value_of_each_step_whatever_the_blocks() -> None:
    generator = np.random.default_rng(0)
    times, values = np.sort(generator.uniform(0, 9000, 20000)), generator.normal(size=(20000, 3)).astype(np.float32)
    whole = Columns(0.5)
    whole.add(times, values)
    assert whole.step_seconds == 2.0  # 4800 steps hold 9000 s
    expected = np.full((int(times[-1] // 2) + 1, 3), -np.inf, np.float32)
    for time, row in zip(times, values, strict=True):
        expected[int(time // 2)] = np.maximum(expected[int(time // 2)], row)
    np.testing.assert_array_equal(whole.values(), expected)
    pieces = Columns(0.5)
    for part in np.array_split(np.arange(20000), 37):
        pieces.add(times[part], values[part])
    np.testing.assert_array_equal(pieces.values(), expected)


@pytest.mark.parametrize("detector", ["earmark", "replai"])
def test_the_overview_is_the_same_whatever_the_blocks_and_shows_the_click(tmp_path: Path, detector: str) -> None:
    wave = click_track(48000, 24000) * 0.5 + np.random.default_rng(0).normal(0, 1e-3, 48000).astype(np.float32)
    scipy.io.wavfile.write(tmp_path / "a.wav", 8000, wave)
    reference, windows = _listen(SoundReader(tmp_path / "a.wav"), detector, [0.5, 3.0, 5.9])
    for seconds in (0.013, 1.0, 2.7):
        other, again = _listen(SoundReader(tmp_path / "a.wav", block_seconds=seconds), detector, [0.5, 3.0, 5.9])
        for name in ("wave", "levels", "curve"):
            np.testing.assert_allclose(getattr(other, name).values(), getattr(reference, name).values(), atol=1e-6)
        np.testing.assert_array_equal(again, windows)
    assert reference.curve.values().argmax() * reference.curve.step_seconds == pytest.approx(3.0, abs=0.02)
    assert reference.wave.values()[:, 0].argmax() * reference.wave.step_seconds == pytest.approx(3.0, abs=0.004)
    assert reference.levels.values().mean(axis=1).argmax() * reference.levels.step_seconds == pytest.approx(3, abs=0.03)
    np.testing.assert_array_equal(windows[1], wave[16000:32000])
    np.testing.assert_array_equal(windows[0], np.concatenate([np.zeros(4000), wave[:12000]]).astype(np.float32))
    np.testing.assert_array_equal(windows[2], np.concatenate([wave[39200:], np.zeros(7200)]).astype(np.float32))


@pytest.mark.parametrize("rate", [8000, 44100, 192000])
def test_a_tone_lies_in_its_band(rate: int) -> None:
    edges = np.geomspace(60, min(20000, rate / 2), 97)
    tone = np.sin(2 * np.pi * 1000 * np.arange(rate) / rate).astype(np.float32)
    levels = _levels(tone, _spectrum(rate), edges)
    band = int(levels.mean(axis=0).argmax())
    assert edges[max(0, band - 1)] <= 1000 <= edges[band + 2]
    assert levels.max() == pytest.approx(20 * np.log10(0.5), abs=2)  # half the amplitude on either side of zero


def test_a_png_shows_frames_and_marks(clip: Path, tmp_path: Path) -> None:
    moments, _ = moments_of_file(clip)
    assert [round(moment.time_seconds, 1) for moment in moments] == [1.5]
    write_plot(tmp_path / "a.png", clip, moments, title="a $x_ <b>", detector="replai")
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    assert 1400 < pixels.shape[1] < 1800
    red = (pixels[..., 0] > 180) & (pixels[..., 1] < 60) & (pixels[..., 2] < 70)
    assert red.any(axis=0)[pixels.shape[1] // 4 : -pixels.shape[1] // 4].any()
    for number in (10, 20):  # half a second before and after
        assert (np.abs(pixels - 8 * number).max(axis=-1) <= 3).sum() > 5000


def test_a_page_holds_all_it_shows_and_asks_for_nothing(clip: Path, tmp_path: Path) -> None:
    moments, _ = moments_of_file(clip)
    write_plot(tmp_path / "a.html", clip, moments, title="<script>alert(1)</script>", detector="replai")
    page = (tmp_path / "a.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "default-src 'none'" in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    before, after = (np.asarray(Image.open(io.BytesIO(content))) for content in embedded(page, "image/jpeg"))
    assert (round(before.mean() / 8), round(after.mean() / 8)) == (10, 20)
    assert len(embedded(page, "image/png")) == 2
    (sound,) = embedded(page, "audio/wav")
    rate, wave = scipy.io.wavfile.read(io.BytesIO(sound))
    assert (rate, len(wave)) == (24000, 48000)
    assert np.abs(wave.astype(int)).argmax() / rate == pytest.approx(1.0 + 1.5 - moments[0].time_seconds, abs=0.002)


def test_of_many_moments_the_best_are_shown_and_all_are_listed(tmp_path: Path) -> None:
    scipy.io.wavfile.write(tmp_path / "a.wav", 8000, np.zeros(160000, np.int16))
    moments = [Moment(0.1 * k, float(k), 1.0, 0, -20.0) for k in range(SHOWN_HTML + 5)]
    write_plot(tmp_path / "a.html", tmp_path / "a.wav", moments, title="a", detector="replai")
    page = (tmp_path / "a.html").read_text()
    assert f"{SHOWN_HTML + 5} moments in 0:20.00, detector replai; below, the {SHOWN_HTML} of the highest score" in page
    shown = [int(text) for text in re.findall(r"<figcaption><b>(\d+)</b>", page)]
    assert shown == list(range(6, SHOWN_HTML + 6))
    assert page.count("<tr>") == 1 + SHOWN_HTML + 5
    assert not embedded(page, "image/jpeg")


@pytest.mark.parametrize("suffix", [".png", ".html"])
@pytest.mark.parametrize("num_samples", [1, 100, 8000])
def test_silence_and_hardly_any_sound_can_be_drawn(tmp_path: Path, suffix: str, num_samples: int) -> None:
    scipy.io.wavfile.write(tmp_path / "a.wav", 8000, np.zeros(num_samples, np.int16))
    write_plot(tmp_path / f"a{suffix}", tmp_path / "a.wav", [], title="a", detector="replai")
    assert (tmp_path / f"a{suffix}").stat().st_size > 1000


def opened(content: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))


def test_silence_is_dark_and_a_loud_sound_is_bright(tmp_path: Path) -> None:
    bright = {}
    for name, wave in (("silence", np.zeros(40000)), ("noise", np.random.default_rng(0).normal(0, 5000, 40000))):
        scipy.io.wavfile.write(tmp_path / "a.wav", 8000, wave.astype(np.int16))
        write_plot(tmp_path / "a.html", tmp_path / "a.wav", [Moment(2.0, 2, 2, 0)], title="a", detector="earmark")
        pictures = map(opened, embedded((tmp_path / "a.html").read_text(), "image/png"))
        bright[name] = [  # the upper half of the colours of a spectrogram; marks have less green, white has more blue
            ((p[..., 0] > 200) & (p[..., 1] > 110) & (p[..., 2] < 230) & (p[..., 3] == 255)).mean() for p in pictures
        ]
    assert max(bright["silence"]) < 0.001  # the dashes of the line at the moment
    assert min(bright["noise"]) > 0.015  # a few of the loudest cells; silence has none


def test_plots_in_a_page_let_its_colour_through_and_can_be_read_on_light_and_dark(tmp_path: Path) -> None:
    wave = click_track(40000, 16000)
    scipy.io.wavfile.write(tmp_path / "a.wav", 8000, (wave * 32767).astype(np.int16))
    write_plot(tmp_path / "a.html", tmp_path / "a.wav", [Moment(2.0, 2, 2, 0)], title="a", detector="earmark")
    for pixels in map(opened, embedded((tmp_path / "a.html").read_text(), "image/png")):
        opaque_white = (pixels[..., :3] > 250).all(axis=-1) & (pixels[..., 3] > 5)
        assert opaque_white.mean() < 0.01  # the line at the moment
        assert (pixels[..., 3] == 0).mean() > 0.1
        axis = pixels[int(0.85 * len(pixels)) :]  # the times below the spectrogram or curve: ink and nothing else
        (ink,) = {tuple(colour) for colour in axis[axis[..., 3] == 255][:, :3].tolist() if max(colour) < 250} & {INK}
        linear = [(channel / 255) ** 2.2 for channel in ink]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        on_white, on_dark = 1.05 / (luminance + 0.05), (luminance + 0.05) / (0.014 + 0.05)
        assert min(on_white, on_dark) > 3  # the contrast that WCAG asks of graphics


@pytest.mark.parametrize(
    ("time", "picture_start", "labels"),
    [
        (0.16, 0.0, ["0.16 s before", "0.5 s after"]),
        (1.5, 0.0, ["0.5 s before", "0.5 s after"]),
        (0.0, 0.0, ["at the moment", "0.5 s after"]),
        (2.7, 0.0, ["0.5 s before", "0.2 s after"]),
        (5.0, 0.0, ["2.1 s before", "2.1 s before"]),  # the picture has ended
        (1.5, 2.0, ["0.5 s after", "0.5 s after"]),  # it has not begun
        (3.9, 2.0, ["0.5 s before", "0.5 s after"]),
    ],
)
def test_frames_say_how_far_from_the_moment_they_are(
    tmp_path: Path, time: float, picture_start: float, labels: list[str]
) -> None:
    waves = [click_track(288000, 72000)]
    write_clip(tmp_path / "a.mkv", frames=grey_ramp(30), fps=10, picture_start=picture_start, waves=waves)
    write_plot(tmp_path / "a.html", tmp_path / "a.mkv", [Moment(time, 2, 2, 0)], title="a", detector="earmark")
    page = (tmp_path / "a.html").read_text()
    assert re.findall(r"<span>([^<]*(?:before|after|moment))</span>", page) == labels
    shown = [np.asarray(Image.open(io.BytesIO(content))).mean() / 8 for content in embedded(page, "image/jpeg")]
    offsets = [0.0 if "at" in label else float(label.split()[0]) * (-1 if "before" in label else 1) for label in labels]
    assert shown == pytest.approx([10 * (time + offset - picture_start) for offset in offsets], abs=0.7)


def test_a_page_names_its_detector_and_the_page_that_leads_to_it(tmp_path: Path) -> None:
    scipy.io.wavfile.write(tmp_path / "a.wav", 8000, np.zeros(8000, np.int16))
    for detector in DETECTORS:
        write_plot(tmp_path / "a.html", tmp_path / "a.wav", [], title="a", detector=detector, index="../all files.html")
        page = (tmp_path / "a.html").read_text()
        assert f"0 moments in 0:01.00, detector {detector}" in page
        assert '<a href="../all files.html">all files</a>' in page


def test_what_cannot_be_drawn_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("no sound")
    with pytest.raises(MediaError, match=r"a\.wav"):
        write_plot(tmp_path / "a.png", tmp_path / "a.wav", [], title="a", detector="replai")
    with pytest.raises(ValueError, match=r"a\.pdf.*\.png"):
        write_plot(tmp_path / "a.pdf", tmp_path / "a.wav", [], title="a", detector="replai")
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


@pytest.mark.parametrize("name", ["pancake.mkv", "failing_audio.mp4", "multi_stream.mp4"])
def test_real_footage_can_be_drawn(media: Path, tmp_path: Path, name: str) -> None:
    moments, _ = moments_of_file(media / name)
    write_plot(tmp_path / "a.html", media / name, moments, title=name, detector="replai")
    page = (tmp_path / "a.html").read_text()
    assert len(embedded(page, "image/jpeg")) == 2 * min(len(moments), SHOWN_HTML)
