"""Pages: what they embed is what was given, and they share one style."""

import base64
import io
import wave
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from jinja2 import UndefinedError

import earmark
from earmark.media.page import data_uri, jpeg_uri, render_page, wav_uri


def content_of(uri: str, media_type: str) -> bytes:
    prefix = f"data:{media_type};base64,"
    assert uri.startswith(prefix)
    return base64.b64decode(uri.removeprefix(prefix), validate=True)


def test_sound_and_pictures_are_embedded_whole() -> None:
    sound = np.random.default_rng(0).integers(-32768, 32768, size=1001).astype(np.int16)
    with wave.open(io.BytesIO(content_of(wav_uri(sound, 24000), "audio/wav"))) as reader:
        assert (reader.getframerate(), reader.getnchannels(), reader.getsampwidth()) == (24000, 1, 2)
        np.testing.assert_array_equal(np.frombuffer(reader.readframes(2000), "<i2"), sound)

    frame = np.zeros((40, 30, 3), np.uint8)
    frame[:, :15] = (200, 30, 90)
    flipped = frame[:, ::-1]  # not contiguous
    decoded = simplejpeg.decode_jpeg(content_of(jpeg_uri(flipped, quality=95), "image/jpeg"))
    assert np.abs(decoded.astype(int) - flipped).mean() < 3
    assert content_of(data_uri("image/png", b"\x00\xff"), "image/png") == b"\x00\xff"


@pytest.mark.parametrize(
    ("package", "template", "values"),
    [
        ("earmark.moments", "page_index.html", {"files": [], "heading": "<b>&"}),
        (
            "earmark.moments",
            "moments.html",
            {"title": "a", "heading": "<b>&", "overview": "data:", "cards": [], "rows": [], "index": None},
        ),
    ],
)
def test_pages_share_a_style_escape_what_they_show_and_refuse_what_is_missing(
    package: str, template: str, values: dict[str, object]
) -> None:
    page = render_page(package, template, **values)
    assert "@media (prefers-color-scheme: dark)" in page
    assert "--page: #15181c" in page
    assert "&lt;b&gt;&amp;" in page
    del values["heading"]
    with pytest.raises(UndefinedError, match="heading"):
        render_page(package, template, **values)


def test_no_other_file_makes_data_uris_or_renders_templates() -> None:
    source = Path(earmark.__file__).parent
    files = sorted(path.relative_to(source).as_posix() for path in source.rglob("*.py") if "jinja2" in path.read_text())
    files += [path.relative_to(source).as_posix() for path in source.rglob("*.py") if ";base64," in path.read_text()]
    assert files == ["media/page.py", "media/page.py"]
