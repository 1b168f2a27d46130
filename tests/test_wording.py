"""Numbers with their nouns."""

import pytest

from earmark.wording import counted


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
