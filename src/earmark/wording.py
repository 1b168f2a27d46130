"""Numbers and names in sentences, for messages, tables and pages of all parts.

Beside the path of a sample.
"""

import os
import re
from collections.abc import Iterator, Sequence

__all__ = ["at_most", "counted", "duration_text", "printable", "visible", "visible_lines"]

_SURROGATE = re.compile("[\ud800-\udfff]")
# What moves the cursor, hides or turns round what stands beside it: controls, line and paragraph separators, marks and
# overrides of direction, characters without width at the start of a line or within a word, tags.
_HIDING = (
    "\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
)
_HIDDEN = re.compile(f"[{_HIDING}\ud800-\udfff]")


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun, in the singular for one.

    Args:
        number: How many.
        singular: The noun for one of them.
        plural: The noun for several; None adds an s.

    Example:
        >>> counted(1, "video"), counted(2, "video"), counted(0, "clip")
        ('1 video', '2 videos', '0 clips')
        >>> counted(1, "batch", "batches"), counted(3, "batch", "batches")
        ('1 batch', '3 batches')
    """
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def duration_text(seconds: float) -> str:
    """Return a length of time roughly, as people say it.

    Example:
        >>> duration_text(12.4), duration_text(89), duration_text(240), duration_text(36_000)
        ('12 seconds', '89 seconds', '4 minutes', '10.0 hours')
    """
    if seconds < 90:
        return counted(max(1, round(seconds)), "second")
    if seconds < 5400:
        return counted(round(seconds / 60), "minute")
    return f"{seconds / 3600:.1f} hours"


def at_most(lines: Sequence[str], number: int) -> Iterator[str]:
    """Yield the first lines, and a last one that counts the others.

    Example:
        >>> list(at_most(["a", "b", "c"], 2)), list(at_most(["a", "b"], 2))
        (['a', 'b', '1 more of this kind'], ['a', 'b'])
    """
    yield from lines[:number]
    if len(lines) > number:
        yield f"{len(lines) - number} more of this kind"


def printable(text: str | os.PathLike[str]) -> str:
    r"""Return a name as text that tables and JSON can hold: bytes that are not UTF-8 as ``%`` and two hex digits.

    Example:
        >>> printable(os.fsdecode(b"caf\xe9.mp4"))
        'caf%E9.mp4'
    """
    return _SURROGATE.sub(_without_surrogate, _decoded(str(text)))


def visible(text: str | os.PathLike[str]) -> str:
    r"""Return a name as terminals and pages show it: what would not be seen, or change what is seen, is escaped.

    A name may hold control characters, which a terminal obeys, and marks that turn the direction of text round, so
    that ``gpj.exe`` reads as another name. Letters of all scripts stay.

    Example:
        >>> visible("a\x1b[2J\n\u202e\u00fc.mp4"), visible(os.fsdecode(b"caf\xe9.mp4"))
        ('a\\x1b[2J\\n\\u202e\xfc.mp4', 'caf%E9.mp4')
    """
    return _HIDDEN.sub(_escaped, _decoded(str(text)))


def visible_lines(text: str) -> str:
    r"""Return text as `visible` does, its line ends and tabs kept.

    Example:
        >>> visible_lines("a\x07\nb")
        'a\\x07\nb'
    """
    return _HIDDEN.sub(lambda match: match[0] if match[0] in "\n\t" else _escaped(match), _decoded(text))


def _decoded(text: str) -> str:
    """Return text with the bytes that Python could not decode as UTF-8, if they are that: in a C locale none could."""
    if not _SURROGATE.search(text):
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # surrogates that stand for no byte
        return text


def _escaped(match: re.Match[str]) -> str:
    if _SURROGATE.match(match[0]):
        return _without_surrogate(match)
    return match[0].encode("unicode_escape").decode("ascii")


def _without_surrogate(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"%{code - 0xDC00:02X}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
