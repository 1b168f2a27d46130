"""JSON that others may have written: of bounded size and depth, and with numbers that are numbers."""

import json
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["parse_json", "read_json"]


def read_json(path: Path, *, max_bytes: int) -> Any:
    """Read a JSON file.

    Args:
        path: The file, in UTF-8.
        max_bytes: Size from which on it is refused unread.

    Raises:
        OSError: If it can't be read.
        ValueError: If it is larger, not UTF-8, not JSON, or nested too deeply; the message does not name the file.
    """
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"larger than {max_bytes:,} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8, at byte {error.start:,}") from error
    return parse_json(text)


def parse_json(text: str) -> Any:
    """Return what a JSON text says.

    Raises:
        ValueError: If it is not JSON (NaN and Infinity are not), or nested too deeply.

    Example:
        >>> parse_json('{"step": 1}')
        {'step': 1}
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number of JSON")
