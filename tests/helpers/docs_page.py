"""The commands of a page of the documentation, as its tests run them."""

import re
import shlex

from tests.conftest import ROOT

_BLOCK = re.compile(r"^    earmark ([a-z].*)$", re.MULTILINE)


def text_of(page: str) -> str:
    """Return the text of a page below ``docs``."""
    return (ROOT / "docs" / page).read_text()


def commands_of(page: str) -> list[list[str]]:
    """Return the commands of a page below ``docs``, without ``earmark``, in their order."""
    return [shlex.split(line) for line in _BLOCK.findall(text_of(page))]
