"""What the pages have in common: one HTML file with pictures and sounds inside, which opens from disk.

Beside the path of a sample: pages of moments and of results are written with it. A page asks nothing of any server, its
own security policy forbids it to, and the template escapes whatever comes from outside.
"""

import base64
import io
import wave
from importlib.resources import files
from typing import Any

import numpy as np
import simplejpeg
from jinja2 import Environment, FunctionLoader, StrictUndefined
from numpy.typing import NDArray

from earmark.wording import visible_lines

__all__ = ["data_uri", "jpeg_uri", "render_page", "wav_uri"]


def render_page(package: str, template: str, **values: Any) -> str:
    """Return a page as text; the same arguments give the same text.

    Args:
        package: Package that the template lies in, such as ``earmark.moments``.
        template: Name of the template's file, which may include others of the package. It gets the style that all pages
            share as ``base_style``.
        values: What the template shows by name; every name that it uses must be here.

    Raises:
        jinja2.UndefinedError: If a name is missing.
    """
    environment = Environment(
        loader=FunctionLoader(lambda name: files(package).joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.globals["base_style"] = files("earmark.media").joinpath("page.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(values)


def _shown(value: Any) -> Any:
    """Return a value as it stands on the page: text without what would hide or turn round what is beside it."""
    return visible_lines(value) if type(value) is str else value


def data_uri(media_type: str, content: bytes) -> str:
    """Return content as a URI that holds it.

    Example:
        >>> data_uri("text/plain", b"hello")
        'data:text/plain;base64,aGVsbG8='
    """
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def jpeg_uri(frame: NDArray[np.uint8], *, quality: int) -> str:
    """Return a frame as the data URI of a JPEG.

    Args:
        frame: uint8 ``(H, W, 3)`` RGB.
        quality: Of the JPEG, from 1 to 100.
    """
    return data_uri("image/jpeg", simplejpeg.encode_jpeg(np.ascontiguousarray(frame), quality=quality))


def wav_uri(sound: NDArray[np.int16], sample_rate: int) -> str:
    """Return sound as the data URI of a WAV, which browsers play.

    Args:
        sound: int16 ``(S,)``.
        sample_rate: Hz.

    Example:
        >>> wav_uri(np.zeros(4, np.int16), 8000)[:30]
        'data:audio/wav;base64,UklGRiwA'
    """
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(sample_rate)
        writer.writeframes(sound.astype("<i2").tobytes())
    return data_uri("audio/wav", buffer.getvalue())
