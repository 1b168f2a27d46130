"""Json files of any size, read value by value: `json` reads only what is whole in memory.

Beside the path of a sample: `earmark.datasets.annotation_files` reads annotations by it, and submissions of challenges
are read by it in `earmark.evaluation`.
"""

import json
from collections.abc import Iterator
from typing import Any, TextIO

__all__ = ["PATIENT_DECODER", "JsonReader", "NoListError", "RepeatedKey"]

MAX_VALUE_CHARACTERS = 2**26  # of one row of json; those of Ego4D's manifest, the longest, have some 10,000
CHUNK_CHARACTERS = 2**18
MAX_DIGITS = 100  # of a whole number in json: Python itself refuses more than 4,300, and the whole file with it


class NoListError(ValueError):
    """A json file without the list that was looked for."""


class RepeatedKey(dict[str, Any]):
    """An object of a json file that gives a key twice: which of the two is meant?"""

    key = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) == len(pairs):
        return content
    keys = [key for key, _ in pairs]
    repeated = RepeatedKey(content)
    repeated.key = next(key for key in keys if keys.count(key) > 1)
    return repeated


def _whole_number(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_DIGITS else float(digits)  # beyond any bound either way


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
PATIENT_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_whole_number)  # takes twice as long


class JsonReader:
    """Reads a json file value by value, so that only the value in hand is kept.

    Args:
        file: Text, at its beginning.

    Example:
        >>> import io
        >>> list(JsonReader(io.StringIO('{"a": 1, "videos": [1, 2]}')).list_below("videos"))
        [1, 2]
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ""
        self._position = 0  # of the next character in the text
        self._num_passed = 0  # characters before the text
        self._ended = False

    def list_below(self, key: str) -> Iterator[Any]:
        """Yield the items of the list that the file is, or that its object has under a key.

        Raises:
            NoListError: If there is no such list.
            json.JSONDecodeError: If the file is no json; ``pos`` is where.
        """
        if self.is_list():
            yield from self._items()
        else:
            yield from self._list_of_object(key)
        if self._next():
            raise self._error("text after the end")

    def is_list(self) -> bool:
        """Return whether the file is a list rather than an object, by its first character.

        Raises:
            NoListError: If it is neither.
            json.JSONDecodeError: If the file is no json; ``pos`` is where.
        """
        first = self._next()
        if first not in ("[", "{"):
            self._value()
            raise NoListError
        return first == "["

    def items(self) -> Iterator[Any]:
        """Yield the items of the list that the file is.

        Raises:
            NoListError: If it is none.
            json.JSONDecodeError: If the file is no json; ``pos`` is where.

        Example:
            >>> import io
            >>> list(JsonReader(io.StringIO('[{"a": 1}, 2]')).items())
            [{'a': 1}, 2]
        """
        if not self.is_list():
            for _ in self._names():  # read to its end, since damage is to be told first, and never kept
                self._value()
            raise NoListError
        yield from self._items()
        if self._next():
            raise self._error("text after the end")

    def members(self, key: str | None) -> Iterator[tuple[str | None, str, Any]]:
        """Yield the members of the object that the file is; for that of a key, the members of the object it has.

        Of the others, ``(None, name, value)``; of that one, ``(key, name, value)`` for each of its members. Other
        names can come twice. Where the value of the key is no object, it is yielded as those of the others are.

        Args:
            key: Whose object is read member by member; None for no such key.

        Raises:
            NoListError: If the file is no object.
            json.JSONDecodeError: If it is no json, or has the key twice; ``pos`` is where.

        Example:
            >>> import io
            >>> list(JsonReader(io.StringIO('{"version": "0.2", "results": {"a": 1}}')).members("results"))
            [(None, 'version', '0.2'), ('results', 'a', 1)]
        """
        if self.is_list():
            for _ in self._items():  # as in `items`
                pass
            raise NoListError
        found = False
        for name in self._names():
            if name == key and found:
                raise self._error(f"{key} is given twice")
            found |= name == key
            if name == key and self._next() == "{":
                for inner in self._names():
                    yield key, inner, self._value()
            else:
                yield None, name, self._value()
        if self._next():
            raise self._error("text after the end")

    def _names(self) -> Iterator[str]:
        """Yield the names of an object; whoever takes one reads its value before the next."""
        self._take("{")
        while self._next() != "}":
            if self._next() != '"':
                raise self._error("expected a name in quotes")
            name: str = self._value()
            self._take(":")
            yield name
            if self._next() != "}":
                self._take(",")
                if self._next() == "}":
                    raise self._error("expected a name in quotes")
        self._take("}")

    def _list_of_object(self, key: str) -> Iterator[Any]:
        self._take("{")
        found = False
        while self._next() != "}":
            name = self._value()
            self._take(":")
            if name == key and found:
                raise self._error(f"{key} is given twice")
            if name == key:
                found = True
                if self._next() != "[":
                    raise NoListError
                yield from self._items()
            else:
                self._value()
            if self._next() != "}":
                self._take(",")
        self._take("}")
        if not found:
            raise NoListError

    def _items(self) -> Iterator[Any]:
        self._take("[")
        while self._next() != "]":
            yield self._value()
            if self._next() != "]":
                self._take(",")
        self._take("]")

    def _next(self) -> str:
        """Return the next character that is no white space, and go there; nothing at the end of the file."""
        while True:
            while self._position < len(self._text):
                if self._text[self._position] not in " \t\r\n":
                    return self._text[self._position]
                self._position += 1
            if self._ended:
                return ""
            self._read_on()

    def _take(self, character: str) -> None:
        if self._next() != character:
            raise self._error(f"expected {character!r}")
        self._position += 1

    def _value(self) -> Any:
        self._next()
        decoder = _DECODER
        while True:
            num_left = len(self._text) - self._position
            try:
                value, end = decoder.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:  # damaged, or cut by the end of what is read
                if self._ended or num_left > MAX_VALUE_CHARACTERS:
                    raise self._error(error.msg, error.pos) from error
            except ValueError:  # a number of more digits than Python converts
                if decoder is PATIENT_DECODER:
                    raise
                decoder = PATIENT_DECODER
                continue
            else:
                if end < len(self._text) or self._ended:  # else a number may go on
                    self._position = end
                    return value
            self._read_on()

    def _read_on(self) -> None:
        self._num_passed += self._position
        rest = self._text[self._position :]
        more = self._file.read(max(CHUNK_CHARACTERS, len(rest)))
        self._text, self._position, self._ended = rest + more, 0, not more

    def _error(self, message: str, position: int | None = None) -> json.JSONDecodeError:
        error = json.JSONDecodeError(message, "", 0)
        error.pos = self._num_passed + (self._position if position is None else position)
        return error
