"""From plain values to the dataclasses of a configuration, each checked by its type and rule.

Beside the path of a sample; part of `earmark.cli.config`, which composes what is checked here.
"""

import difflib
import math
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

__all__ = ["ConfigError", "convert", "defaults_of", "near_matches", "not_one_of"]


class ConfigError(ValueError):
    """The configuration is invalid; one line per problem, each with the full name of its key."""


def convert(schema: Any, values: Any, *, section: str, problems: list[str]) -> Any:
    """Convert plain values to the types of a schema, and collect what is wrong with them.

    Args:
        schema: A dataclass of `earmark.cli.config_schema`.
        values: Plain nested values, interpolations resolved.
        section: Their place in the whole configuration, for the names of keys; empty for all of it.
        problems: One line per problem is appended, each with the full name of its key.

    Returns:
        An instance of the schema; None or incomplete if there are problems.
    """
    return _convert(schema, values, section, problems, list(_keys_of_schema(schema)))


def defaults_of(schema: Any, prefix: str = "") -> dict[str, Any]:
    """Return what keys that may be missing stand for then, by dotted key.

    Args:
        schema: A dataclass of `earmark.cli.config_schema`.
        prefix: What all keys begin with.

    Example:
        >>> from earmark.cli.config_schema import PretrainConfig
        >>> defaults_of(PretrainConfig)["optim.accumulate"]
        1
    """
    hints = get_type_hints(schema)
    defaults: dict[str, Any] = {}
    for field in fields(schema):
        if is_dataclass(hints[field.name]):
            defaults |= defaults_of(hints[field.name], f"{prefix}{field.name}.")
        elif field.default is not MISSING:
            defaults[prefix + field.name] = field.default
    return defaults


def _convert(kind: Any, value: Any, key: str, problems: list[str], keys: Sequence[str]) -> Any:
    """Return a value as its type wants it, or add what is wrong with it to the problems."""
    rules: tuple[Any, ...] = ()
    if get_origin(kind) is Annotated:
        kind, *rules = get_args(kind)  # type: ignore[assignment]
    if get_origin(kind) in (Union, types.UnionType):  # only X | None occurs
        if value is None:
            return None
        return _convert(next(part for part in get_args(kind) if part is not type(None)), value, key, problems, keys)
    if is_dataclass(kind):
        return _convert_section(kind, value, key, problems, keys)
    if get_origin(kind) is list:
        (item_kind,) = get_args(kind)
        if not isinstance(value, list):
            problems.append(f"{key}: expected a list, got {value!r}")
            return None
        return [_convert(item_kind, item, f"{key}[{index}]", problems, keys) for index, item in enumerate(value)]
    if get_origin(kind) is Literal:
        known = get_args(kind)
        if (value, type(value)) not in [(one, type(one)) for one in known]:  # True equals 1
            names = [str(one).lower() if isinstance(one, bool) else str(one) for one in known]
            problems.append(f"{key}: {not_one_of(value, names)}")
        return value
    value, problem = _convert_scalar(kind, value)
    if problem is None:
        problem = next((f"must be {rule.words}, got {value!r}" for rule in rules if not rule.holds(value)), None)
    if problem is not None:
        problems.append(f"{key}: {problem}")
    return value


def _convert_section(kind: Any, value: Any, key: str, problems: list[str], keys: Sequence[str]) -> Any:
    if not isinstance(value, Mapping):
        problems.append(
            f"{key}: expected a section with the keys {', '.join(field.name for field in fields(kind))}, got {value!r}"
        )
        return None
    hints = get_type_hints(kind, include_extras=True)
    prefix = f"{key}." if key else ""
    for name in value:
        if name not in hints:
            problems.append(f"{prefix}{name}: no such key{near_matches(f'{prefix}{name}', keys)}")
    parts = {}
    for field in fields(kind):
        if field.name in value:
            parts[field.name] = _convert(hints[field.name], value[field.name], prefix + field.name, problems, keys)
        elif field.default is MISSING:
            problems.append(f"{prefix}{field.name}: is missing")
    return None if problems else kind(**parts)


def _convert_scalar(kind: type, value: Any) -> tuple[Any, str | None]:
    """Return the value, and what is wrong with it if something is."""
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)  # logging.name=2024 is a name
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            return value, f"expected a number of at most {sys.float_info.max:g}"
    words = {int: "an integer", float: "a number", bool: "true or false", str: "text"}[kind]
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        return value, f"expected {words}, got {value!r}"
    if value == "None":
        return value, "got the text 'None'; nothing is written null"
    if isinstance(value, float) and not math.isfinite(value):
        return value, f"expected a finite number, got {value!r}"
    return value, None


def _keys_of_schema(kind: Any, prefix: str = "") -> Iterator[str]:
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint):
            yield from _keys_of_schema(hint, f"{prefix}{name}.")
        else:
            yield prefix + name


def near_matches(text: object, known: Sequence[str]) -> str:
    """Return a question that names the known words that resemble a text, or nothing if none does.

    A key that is given without its sections resembles the one that ends with it.

    Example:
        >>> near_matches("optim.epohcs", ["optim.epochs", "optim.gamma"])
        '; did you mean optim.epochs?'
        >>> near_matches("epochs", ["optim.epochs", "optim.gamma"])
        '; did you mean optim.epochs?'
    """
    whole = [word for word in known if word.endswith(f".{text}")]
    matches = list(dict.fromkeys([*whole, *difflib.get_close_matches(str(text), known, n=3)]))[:3]
    return f"; did you mean {' or '.join(matches)}?" if matches else ""


def not_one_of(value: object, known: Sequence[str]) -> str:
    """Return a message that a value is not one of those known, with those that resemble it.

    Example:
        >>> not_one_of("cude", ["cpu", "cuda"])
        "'cude' is not one of cpu, cuda; did you mean cuda?"
    """
    return f"{str(value)!r} is not one of {', '.join(known)}{near_matches(value, known)}"
