"""Numbers with their nouns, and names as they are shown and stored."""

import json
import os
import unicodedata

import pytest

from earmark.wording import counted, printable, visible, visible_lines


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, "video"), "0 videos"),
        ((1, "video"), "1 video"),
        ((2, "video"), "2 videos"),
        ((1, "process", "processes"), "1 process"),
        ((21, "process", "processes"), "21 processes"),
    ],
)
def test_one_is_singular_and_all_others_are_plural(arguments: tuple[int, str], text: str) -> None:
    assert counted(*arguments) == text


def test_nothing_that_controls_a_terminal_or_the_direction_of_text_is_shown() -> None:
    for code in range(0x110000):
        character = chr(code)
        kind, direction = unicodedata.category(character), unicodedata.bidirectional(character)
        if kind in ("Cc", "Cs", "Zl", "Zp") or direction in (
            "LRE",
            "RLE",
            "LRO",
            "RLO",
            "PDF",
            "LRI",
            "RLI",
            "FSI",
            "PDI",
        ):
            assert visible(character).isascii(), hex(code)
            assert visible(character).isprintable(), hex(code)
        if kind[0] in "LMNPS":
            assert visible(character) == printable(character) == character, hex(code)


def test_line_ends_and_tabs_stay_in_text_and_not_in_names() -> None:
    assert visible("a\n\tb\r") == "a\\n\\tb\\r"
    assert visible_lines("a\n\tb\r") == "a\n\tb\\r"


@pytest.mark.parametrize("name", ["caf\udce9", "\ud800", "\udfff\udc80", "a\udcff\x1b"])
def test_names_that_are_no_text_can_be_stored(name: str) -> None:
    printable(name).encode("utf-8")
    visible(name).encode("utf-8")
    assert json.loads(json.dumps(printable(name), ensure_ascii=False)) == printable(name)


def test_what_a_c_locale_could_not_decode_is_read_as_the_text_it_is() -> None:
    name = "\u00fc\u65e5.wav".encode().decode("ascii", "surrogateescape")
    assert name != "\u00fc\u65e5.wav"
    assert printable(name) == visible(name) == visible_lines(name) == "\u00fc\u65e5.wav"
    assert printable(os.fsdecode(b"\xc3\xbc\xff")) == "\u00fc%FF"
