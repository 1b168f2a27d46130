"""Annotation files read row by row, whatever is in them: what is wrong with one row is named and stops no other.

Beside the path of a sample: the data sets of this package and the scores of `earmark.moments` read theirs here. A file
may be of any size; only the row in hand is kept. What becomes of a file that is no such file at all is an error.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, TextIO

from earmark.datasets.json_stream import PATIENT_DECODER, JsonReader, NoListError, RepeatedKey
from earmark.datasets.listing import reason_of
from earmark.datasets.records import DatasetError
from earmark.wording import counted

__all__ = [
    "MAX_VIDEO_SECONDS",
    "RowError",
    "RowFaults",
    "RowRemarks",
    "checked_file_name",
    "checked_id",
    "checked_number",
    "checked_span",
    "csv_columns",
    "csv_rows",
    "json_rows",
    "num_left_out",
    "parse_timestamp",
    "quoted",
    "read_json",
]

MAX_VIDEO_SECONDS = 1e7  # 116 days: no recording lasts longer
MAX_ID_CHARACTERS = 200  # with suffixes and the name of a temporary file it still fits in the 255 bytes of a file name
MAX_LINE_CHARACTERS = 2**20
MAX_NAMED = 1000  # faults of one file; the others are counted
MAX_EXAMPLES = 5  # of each kind of remark
MAX_QUOTED = 60  # characters of a value in a message
MAX_COLUMNS_NAMED = 20

_TIMESTAMP = re.compile(r"([0-9]{1,4}):([0-5][0-9]):([0-5][0-9])(?:\.([0-9]{1,30}))?")
_MORE_ROWS = re.compile(r"(?:^|: )(\d+) more rows? of this kind$")  # as `RowFaults.lines` counts them
_FILE_NAME = re.compile(r"\w[\w-]*", re.ASCII)


class RowError(ValueError):
    """What is wrong with one row, without its place."""


class RowFaults:
    """What is wrong with the rows of one file: named up to a thousand, counted beyond.

    Args:
        path: The file.

    Attributes:
        num_rows: How many rows were left out.

    Example:
        >>> faults = RowFaults(Path("a.csv"))
        >>> faults.add("line 2", "video_id is empty")
        >>> faults.lines()
        ('a.csv, line 2: video_id is empty',)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_rows = 0
        self._named: list[str] = []

    def add(self, place: str, reason: object) -> None:
        """Count a row that is left out."""
        self.num_rows += 1
        if len(self._named) < MAX_NAMED:
            self._named.append(f"{self.path}, {place}: {reason}")

    def lines(self) -> tuple[str, ...]:
        """Return a line for each row that is left out, and one that counts those beyond a thousand."""
        num_more = self.num_rows - len(self._named)
        more = [f"{self.path}: {counted(num_more, 'more row')} of this kind"] if num_more else []
        return (*self._named, *more)

    def require_rows(self, num_usable: int) -> None:
        """Raise if there were rows and none can be used: then it is no such file.

        Raises:
            DatasetError: Naming the first fault and how many there are.
        """
        if self.num_rows and not num_usable:
            others = f" (and so on: none of {counted(self.num_rows, 'row')} can be used)" if self.num_rows > 1 else ""
            raise DatasetError(self._named[0] + others)


def num_left_out(lines: Iterable[str]) -> int:
    """Return of how much lines of problems tell: one each, and of `RowFaults.lines` what the last one counts.

    Args:
        lines: Such as `earmark.datasets.DatasetRecords.problems`.

    Example:
        >>> num_left_out(["a.csv, line 2: video_id is empty", "a.csv: 198999 more rows of this kind"])
        199000
    """
    matches = (_MORE_ROWS.search(line) for line in lines)
    return sum(1 if match is None else int(match[1]) for match in matches)


class RowRemarks:
    """What is unusual in the rows of one file that are read all the same: counted by kind, some of them named.

    Args:
        path: The file.

    Example:
        >>> remarks = RowRemarks(Path("a.json"))
        >>> remarks.add("actions out of order, sorted", "clip c1")
        >>> remarks.lines()
        ('a.json: actions out of order, sorted: 1 (clip c1)',)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._counts: dict[str, int] = {}
        self._named: dict[str, list[str]] = {}

    def add(self, kind: str, name: str) -> None:
        """Count something unusual."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        named = self._named.setdefault(kind, [])
        if len(named) < MAX_EXAMPLES:
            named.append(name)

    def lines(self) -> tuple[str, ...]:
        """Return a line for each kind, with the first examples."""
        lines = []
        for kind, number in self._counts.items():
            more = f" and {number - len(self._named[kind])} more" if number > len(self._named[kind]) else ""
            lines.append(f"{self.path}: {kind}: {number} ({', '.join(self._named[kind])}{more})")
        return tuple(lines)


def quoted(value: object) -> str:
    """Return a value as messages show it, shortened.

    Example:
        >>> quoted("a" * 5000)
        "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa... (5000 characters)"
    """
    if isinstance(value, str):
        text = repr(value[: MAX_QUOTED + 1])
        return text if len(value) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}... ({len(value)} characters)"
    if isinstance(value, list | dict):  # nested so deep, perhaps, that it can't be written out
        return "a list" if isinstance(value, list) else "an object"
    text = repr(value)
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}... ({len(text)} characters)"


def checked_id(name: str, value: object) -> str:
    """Return the id of a row.

    Raises:
        RowError: If it is no text, empty, too long, or holds what is not printed (control characters, bytes that are
            not UTF-8).
    """
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"{name} is {quoted(value)}, expected a name")
    if len(value) > MAX_ID_CHARACTERS:
        raise RowError(f"{name} is {quoted(value)}, longer than the {MAX_ID_CHARACTERS} characters of a name")
    if not value.isprintable():
        raise RowError(f"{name} is {value!a}, with characters that no name has")
    return value


def checked_file_name(name: str, value: object) -> str:
    """Return an id that becomes the name of a file or folder.

    Raises:
        RowError: If it could be no such name, or lead out of the folder.

    Example:
        >>> checked_file_name("video", "P01_01")
        'P01_01'
    """
    text = checked_id(name, value)
    if not _FILE_NAME.fullmatch(text):
        raise RowError(f"{quoted(text)} cannot be the name of a {name}")
    return text


def checked_number(name: str, value: object, *, least: float, most: float, whole: bool = False) -> float:
    """Return a number of a row.

    Args:
        name: Of the field.
        value: As it stands in the file.
        least: Smallest value that is possible.
        most: Greatest.
        whole: Whether only integers are.

    Raises:
        RowError: If it is no number, such as a text of digits, or out of bounds, as NaN and infinity are.

    Example:
        >>> checked_number("fps", 30, least=0, most=1000)
        30
    """
    if (type(value) is int or (type(value) is float and not whole)) and least <= value <= most:
        return value
    kind = "whole number" if whole else "number"
    raise RowError(f"{name} is {quoted(value)}, expected a {kind} from {least:,.15g} to {most:,.15g}")


def checked_span(what: str, start_seconds: float, stop_seconds: float) -> tuple[float, float]:
    """Return when something in a recording starts and stops.

    Raises:
        RowError: If it stops at its start or before, or either lies outside any recording.
    """
    if not 0 <= start_seconds < stop_seconds <= MAX_VIDEO_SECONDS:
        raise RowError(f"{what} goes from {start_seconds} s to {stop_seconds} s")
    return start_seconds, stop_seconds


def parse_timestamp(text: str) -> float:
    """Return the seconds of an ``HH:MM:SS.ff`` timestamp, the nearest float to the exact value.

    Raises:
        ValueError: If the text is not such a timestamp.

    Example:
        >>> parse_timestamp("01:02:03.45")
        3723.45
    """
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise RowError(f"{quoted(text)} is not a timestamp HH:MM:SS.ff")
    hours, minutes, seconds, fraction = match.groups("")
    scale: int = 10 ** len(fraction)
    # The quotient of two integers is rounded once, so it is the nearest float.
    return ((3600 * int(hours) + 60 * int(minutes) + int(seconds)) * scale + int(fraction or 0)) / scale


def csv_rows(
    path: Path, columns: Sequence[str], faults: RowFaults, *, optional: Sequence[str] = ()
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the place and the values of each row of a csv file that has certain columns.

    A row is a line: a quote that is not closed damages that row, and does not swallow those after it; a value with a
    line break is two damaged rows.

    Args:
        path: The file.
        columns: Which it must have; at least one, filled in every row.
        faults: Gets what is wrong with the rows that are not yielded.
        optional: Columns whose values follow; empty where the file has no such column.

    Raises:
        DatasetError: If the file cannot be read, is no UTF-8 text, or lacks a column or has it twice.
    """
    with _opened(path) as file:
        yield from _values(file, path, _header(file, path), (*columns, *optional), len(columns), faults)


def csv_columns(path: Path) -> list[str]:
    """Return the names of a csv file's columns.

    Raises:
        DatasetError: If the file cannot be read or does not begin with UTF-8 text.
    """
    with _opened(path) as file:
        return _header(file, path)


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            yield file
    except OSError as error:
        raise DatasetError(f"{path}: not a readable csv file ({reason_of(error)})") from error


def _header(file: TextIO, path: Path) -> list[str]:
    text = _line(file, path, 1)
    try:
        text.encode("utf-8")
        return next(csv.reader([text], strict=True), [])
    except (UnicodeEncodeError, csv.Error) as error:
        reason = "it does not begin with UTF-8 text" if isinstance(error, UnicodeEncodeError) else error
        raise DatasetError(f"{path}: not a readable csv file ({reason})") from error


def _values(
    file: TextIO, path: Path, header: Sequence[str], columns: Sequence[str], num_required: int, faults: RowFaults
) -> Iterator[tuple[str, tuple[str, ...]]]:
    required = columns[:num_required]
    missing = [column for column in required if column not in header]
    if missing and not header:
        raise DatasetError(f"{path}: not a readable csv file (its first line, the names of the columns, is empty)")
    if missing:
        names = ", ".join(quoted(name) for name in header[:MAX_COLUMNS_NAMED])
        more = f" and {len(header) - MAX_COLUMNS_NAMED} more" if len(header) > MAX_COLUMNS_NAMED else ""
        lack = f"column {missing[0]} is" if len(missing) == 1 else f"columns {', '.join(missing)} are"
        raise DatasetError(f"{path}: {lack} missing; it has {names}{more}")
    twice = [column for column in columns if header.count(column) > 1]
    if twice:
        raise DatasetError(f"{path}: column {', '.join(twice)} is there twice")
    absent = len(header)  # the place of an empty value behind the row's own
    chosen = itemgetter(*(header.index(name) if name in header else absent for name in (*columns, columns[0])))
    number = 1
    while line := _line(file, path, number := number + 1):
        place = f"line {number}"
        if line.count('"') % 2:  # in either half of a value with a line break, too, whose rest is no row of its own
            faults.add(place, "a quote is not closed")
            continue
        try:
            # Without quotes the same, in half the time.
            fields = next(csv.reader((line,), strict=True), []) if '"' in line else line.rstrip("\r\n").split(",")
        except csv.Error as error:
            faults.add(place, f"its quotes are damaged: {error}")
            continue
        if not line.strip("\r\n"):
            continue
        if len(fields) != len(header):
            empty = [column for column in required if not "".join(fields[header.index(column) :][:1])]
            shorter = f"{', '.join(empty)} is empty: " if empty else ""
            faults.add(place, f"{shorter}{counted(len(fields), 'field')}, the first line has {len(header)}")
            continue
        fields.append("")
        values = chosen(fields)[:-1]
        if "" in values[:num_required]:
            empty = [column for column, value in zip(required, values, strict=False) if not value]
            faults.add(place, f"{', '.join(empty)} is empty")
            continue
        yield place, values


def _line(file: TextIO, path: Path, number: int) -> str:
    line = file.readline(MAX_LINE_CHARACTERS + 1)
    if len(line) > MAX_LINE_CHARACTERS:
        raise DatasetError(f"{path}: not a readable csv file (line {number} is longer than 2^20 characters)")
    return line


def read_json(path: Path) -> Any:
    """Return what a small json file holds.

    Raises:
        DatasetError: If the file cannot be read.
    """
    try:
        return PATIENT_DECODER.decode(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else error
        raise DatasetError(f"{path}: not a readable json file ({reason})") from error
    except RecursionError as error:
        raise DatasetError(f"{path}: not a readable json file (nested too deeply)") from error


def json_rows(path: Path, key: str, faults: RowFaults) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and the content of each object of a list in a json file.

    Args:
        path: The file: the list, or an object that has it.
        key: Under which the object has it.
        faults: Gets what is wrong with the rows that are not yielded: no objects, or with a key twice.

    Raises:
        DatasetError: If the file cannot be read or holds no such list.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            for number, row in enumerate(JsonReader(file).list_below(key)):
                place = f"{key}[{number}]"
                if not isinstance(row, dict):
                    faults.add(place, f"expected a json object, got {quoted(row)}")
                elif isinstance(row, RepeatedKey):
                    faults.add(place, f"{quoted(row.key)} is given twice")
                else:
                    yield place, row
    except NoListError as error:
        raise DatasetError(f"{path}: must be a list, or an object whose {key} is one") from error
    except OSError as error:
        raise DatasetError(f"{path}: not a readable json file ({reason_of(error)})") from error
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at character {error.pos}"
        raise DatasetError(f"{path}: not a readable json file ({reason})") from error
    except RecursionError as error:
        raise DatasetError(f"{path}: not a readable json file (nested too deeply)") from error
