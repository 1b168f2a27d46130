"""Damage that does not depend on a format: to bytes, to text, to nested plain data."""

import copy
import math
import random
from typing import Any

NUMBERS: tuple[Any, ...] = (
    *(0, -1, 1, 2, 3, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**31), -(2**63)),
    *(10**30, 10**400, -(10**400), 0.5, -0.0, 1e-308, 1e308, -1e308, math.nan, math.inf, -math.inf),
)
TEXTS = (
    *("", " ", "\t", "0", "-1", "1e400", "NaN", "inf", "9" * 400, "0x10", "1_000", "१२", "null", "None", "true", "~"),
    *("a" * 300, "a" * 5000, "../../escaped", "/tmp/earmark-escaped", "..", ".", "C:\\x", "con", "-", "--help", "a/b"),
    *("\x00", "\x1b[31mred", "\x07", "a\nb", "a\rb", "\u202eabc", "\ufeffa", "\u2028", "e\u0301", "ü", "😀", "\x7f"),
    *("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{7*7}}", "${oc.env:HOME}", "%s%n", "=1+1", "'"),
    *("]]>", "&amp;", "javascript:alert(1)", "[red]x[/red]", "\\", ",", ";", '"', "{", "[", "a=b", "$", "!", "*"),
)
LONE_SURROGATES = ("\ud800", "a\udcffb", "\udc80")


def edited_bytes(data: bytes, draw: random.Random) -> tuple[bytes, str]:
    """Flip, cut, splice, insert, repeat or blank somewhere."""
    if not data:
        return draw.randbytes(draw.randint(1, 64)), "bytes in an empty file"
    where, length = draw.randrange(len(data)), min(len(data), 2 ** draw.randint(0, 12))
    match draw.randrange(7):
        case 0:
            return flipped(data, draw, range(len(data)))
        case 1:
            return data[:where], f"cut after {where} of {len(data)} bytes"
        case 2:
            other = draw.randrange(len(data))
            return data[:where] + data[other : other + length] + data[where + length :], f"spliced at {where}"
        case 3:
            return data[:where] + draw.randbytes(length) + data[where:], f"{length} bytes put in at {where}"
        case 4:
            return data[:where] + data[where + length :], f"{length} bytes taken out at {where}"
        case 5:
            return data[:where] + bytes(length) + data[where + length :], f"{length} zeros at {where}"
    return data + data[where:], f"repeated from {where} on"


def flipped(data: bytes, draw: random.Random, places: range) -> tuple[bytes, str]:
    """Flip 1 to 16 bits within some places."""
    changed = bytearray(data)
    chosen = [draw.choice(places) for _ in range(2 ** draw.randint(0, 4))]
    for place in chosen:
        changed[place] ^= 1 << draw.randrange(8)
    return bytes(changed), f"bits flipped at {sorted(chosen)[:4]}"


def hostile(draw: random.Random) -> Any:
    """Return a value that is seldom thought of."""
    others: tuple[Any, ...] = (None, True, False, [], {}, [[]], {"": None}, [1, 2, 3], {"a": {"b": 1}})
    return draw.choice((draw.choice(NUMBERS), draw.choice(TEXTS), draw.choice(others)))


def places_in(tree: Any, *, max_depth: int = 40) -> list[tuple[Any, ...]]:
    """Return where everything in nested plain data is."""
    found: list[tuple[Any, ...]] = []
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), tree)]
    while waiting:
        place, item = waiting.pop()
        found.append(place)
        if len(place) < max_depth:
            children = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
            waiting += [((*place, key), child) for key, child in children]
    return found


def edited_tree(tree: Any, draw: random.Random) -> tuple[Any, str]:
    """Change one to three things in nested plain data."""
    tree, told = copy.deepcopy(tree), []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        places = places_in(tree)[1:]
        if not places:
            return hostile(draw), "replaced as a whole"
        *parents, key = draw.choice(places)
        parent = tree
        for step in parents:
            parent = parent[step]
        name = ".".join(map(str, [*parents, key]))
        match draw.randrange(6):
            case 0 | 1 | 2:
                parent[key] = hostile(draw)
                told.append(f"{name} set to {str(parent[key])[:40]!r}")
            case 3:
                del parent[key]
                told.append(f"{name} taken out")
            case 4 if isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
                parent[key] = draw.choice((-parent[key], parent[key] + 1, parent[key] * 2, str(parent[key])))
                told.append(f"{name} changed to {parent[key]!r}")
            case 4 | 5 if isinstance(parent, list):
                parent.insert(key, parent[key])
                told.append(f"{name} doubled")
            case _:
                value = parent[key]
                parent[key] = draw.choice(([value], {"x": value}, nested(draw.choice((10, 100, 10_000)))))
                told.append(f"{name} nested")
    return tree, "; ".join(told)


def nested(depth: int) -> Any:
    """Return a list in a list in a list."""
    tree: Any = 0
    for _ in range(depth):
        tree = [tree]
    return tree


def json_text(tree: Any) -> str:
    """Write nested data of any depth, as `json.dumps` does; lone surrogates escaped, numbers of any length."""
    parts: list[str] = []
    waiting: list[Any] = [tree]
    import json

    class Literal(str):
        __slots__ = ()

    while waiting:
        item = waiting.pop()
        if isinstance(item, Literal):
            parts.append(str(item))
        elif isinstance(item, list):
            inner: list[Any] = [Literal("[")]
            for number, child in enumerate(item):
                inner += [Literal(", ")] * (number > 0) + [child]
            waiting.extend(reversed([*inner, Literal("]")]))
        elif isinstance(item, dict):
            inner = [Literal("{")]
            for number, (key, child) in enumerate(item.items()):
                inner += [Literal(("," if number else "") + json.dumps(str(key)) + ": "), child]
            waiting.extend(reversed([*inner, Literal("}")]))
        elif isinstance(item, int) and not isinstance(item, bool) and abs(item) > 2**64:
            parts.append(f"{'-' if item < 0 else ''}1{'0' * (len(hex(item)) * 1204 // 1000)}")  # str() refuses them
        else:
            parts.append(json.dumps(item))
    return "".join(parts)


def edited_text(text: str, draw: random.Random) -> tuple[str, str]:
    """Change a line of a text."""
    lines = text.splitlines(keepends=True) or [""]
    number = draw.randrange(len(lines))
    match draw.randrange(5):
        case 0:
            lines[number] = draw.choice(TEXTS) + "\n"
            told = "replaced"
        case 1:
            del lines[number]
            told = "taken out"
        case 2:
            lines.insert(number, lines[number])
            told = "doubled"
        case 3:
            lines[number] = lines[number][: draw.randrange(len(lines[number]) + 1)]
            told = "cut"
        case _:
            at = draw.randrange(len(lines[number]) + 1)
            lines[number] = lines[number][:at] + draw.choice(TEXTS) + lines[number][at:]
            told = f"put into at {at}"
    return "".join(lines), f"line {number + 1} {told}"
