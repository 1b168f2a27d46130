"""How every thing of the kitchen looks in each of its states, drawn at its place in world units.

A look is (there, far, mixed), each 0..1, see `script.LOOKS`. A thing that is not there is not drawn, except the
furniture, which always is.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from earmark.kitchen.pen import Pen, Point, mix, shade
from earmark.kitchen.room import Thing

Look: TypeAlias = tuple[float, float, float]

MILK, WATER, SOUP, BATTER, FLOUR = (246, 244, 236), (110, 170, 214), (188, 84, 36), (222, 176, 92), (236, 224, 200)


def draw_thing(pen: Pen, thing: Thing, look: Look) -> None:
    """Draw a thing at its place."""
    _PAINTERS[thing.name](pen, thing, look)


def grip_point(thing: Thing, look: Look) -> Point:
    """Return where a hand touches the thing: a handle, a switch, a rim; it moves with an opening door."""
    x, y, size, far = thing.x, thing.y, thing.size, look[1]
    points: dict[str, Point] = {
        "drawer": (x, 1.52 + 0.22 * far),
        "cupboard": (x + 0.17 - 0.29 * far, 0.4 + 0.03 * far),
        "fridge": (x + 0.17 - 0.3 * far, 0.75 + 0.04 * far),
        "tap": (x + 0.07, 0.8),
        "hob": (x, 1.3),
        "kettle": (x, y + 0.1 * size),
        "lid": (x, y - 0.03),
        "plate": (x + 0.09 * size, y + 0.02),
        "cup": (x, y),
        "bowl": (x, y + 0.02),
    }
    return points.get(thing.name, (x, y))


def stream_ends(thing: Thing) -> tuple[Point, Point]:
    """Return where the water of the tap leaves it, and where it hits the sink."""
    return (thing.x - 0.005, 0.93), (thing.x - 0.005, 1.1)


def _drawer(pen: Pen, thing: Thing, look: Look) -> None:
    x, out = thing.x, 0.22 * look[1]
    left, right = x - 0.245, x + 0.245
    pen.rectangle(left, 1.47, right, 1.65, thing.accent)
    if out > 0:
        pen.polygon(
            [(left, 1.47), (right, 1.47), (right + 0.01, 1.47 + out), (left - 0.01, 1.47 + out)],
            shade(thing.accent, 0.6),
        )
        for step, colour in enumerate(
            [(206, 208, 212), (180, 182, 186), (172, 120, 70), (206, 208, 212), (192, 194, 200)]
        ):
            across = left + 0.07 + 0.09 * step
            pen.line([(across, 1.48), (across + 0.005, max(1.482, 1.455 + out))], 0.022, colour)
        pen.rectangle(left - 0.01, 1.65 + out, right + 0.01, 1.7 + out, (0, 0, 0), opacity=0.35)
    grow = 0.03 * look[1]
    pen.rectangle(left - grow, 1.47 + out, right + grow, 1.65 + out, shade(thing.colour, 1 + 0.12 * look[1]))
    pen.rectangle(left + 0.04, 1.51 + out, right - 0.04, 1.62 + out, shade(thing.colour, 0.9))
    pen.line([(x - 0.07, 1.52 + out), (x + 0.07, 1.52 + out)], 0.022, (60, 60, 62))
    pen.line([(x - 0.07, 1.516 + out), (x + 0.07, 1.516 + out)], 0.008, (160, 160, 164))


def _hinged(pen: Pen, thing: Thing, look: Look, box: tuple[float, float, float, float], shelves: int) -> None:
    """Draw a door hinged at its left that swings towards the viewer, and what is behind it."""
    left, top, right, bottom = box
    width = right - left
    pen.rectangle(left, top, right, bottom, thing.accent)
    rng = np.random.default_rng(thing.voice)
    for shelf in range(1, shelves + 1):
        y = top + (bottom - top) * shelf / shelves - 0.02
        for slot in range(5):
            tone = tuple(int(channel) for channel in rng.integers(60, 240, 3))
            half, tall, middle = (
                width * 0.07,
                (bottom - top) / shelves * rng.uniform(0.3, 0.7),
                left + width * (0.16 + 0.17 * slot),
            )
            pen.rectangle(middle - half, y - tall, middle + half, y, (tone[0], tone[1], tone[2]))
        pen.rectangle(left, y, right, y + 0.014, shade(thing.accent, 0.6))
    pen.rectangle(left, top, right, top + 0.05, (0, 0, 0), opacity=0.3)
    edge = right - width * 0.72 * look[1]
    sway = 0.09 * np.sin(look[1] * np.pi / 2)
    door = [(left, top), (edge, top - sway), (edge, bottom + sway), (left, bottom)]
    pen.polygon(door, shade(thing.colour, 1 - 0.2 * look[1]))
    inner = [(left + (x - left) * 0.86 + (edge - left) * 0.06, y * 0.86 + (top + bottom) / 2 * 0.14) for x, y in door]
    pen.polygon(inner, shade(thing.colour, 0.92 - 0.2 * look[1]))
    if look[1] > 0:
        pen.line([door[1], door[2]], 0.02, shade(thing.colour, 1.15))


def _cupboard(pen: Pen, thing: Thing, look: Look) -> None:
    _hinged(pen, thing, look, (thing.x - 0.21, 0.085, thing.x + 0.21, 0.515), 2)
    x, y = grip_point(thing, look)
    pen.line([(x, y - 0.04), (x, y + 0.04)], 0.02, (60, 60, 62))


def _fridge(pen: Pen, thing: Thing, look: Look) -> None:
    box = (thing.x - 0.22, 0.12, thing.x + 0.22, 1.6)
    pen.rectangle(box[0] - 0.015, box[1] - 0.02, box[2] + 0.015, box[3] + 0.06, shade(thing.colour, 0.7))
    _hinged(pen, thing, look, box, 5)
    x, y = grip_point(thing, look)
    pen.line([(x, y - 0.14), (x, y + 0.14)], 0.026, (120, 122, 126))


def _tap(pen: Pen, thing: Thing, look: Look) -> None:
    x, steel = thing.x, thing.colour
    pen.ellipse((x, 0.86), (0.05, 0.02), shade(steel, 0.6))
    pen.line([(x, 0.85), (x, 0.77), (x - 0.005, 0.775), (x - 0.005, 0.92)], 0.034, shade(steel, 0.75))
    pen.line([(x - 0.008, 0.84), (x - 0.008, 0.78)], 0.01, shade(steel, 1.4))
    turn = look[1]
    if turn:
        leaves, hits = stream_ends(thing)
        pen.ellipse(hits, (0.055, 0.033), (206, 224, 238), opacity=0.75)
        pen.line([leaves, hits], 0.03, (176, 206, 228))
    pen.line([(x + 0.02, 0.83), (x + 0.08 - 0.02 * turn, 0.82 - 0.06 * turn)], 0.024, shade(steel, 0.95))


def _hob(pen: Pen, thing: Thing, look: Look) -> None:
    x, y, heat = thing.x, thing.y, look[1]
    for share in (1.0, 0.72, 0.45):
        colour = mix((58, 58, 62), thing.accent, heat)
        pen.ellipse((x, y), (0.1 * share, 0.085 * share), colour, width=0.02)
    if heat:
        pen.ellipse((x, y), (0.13, 0.115), thing.accent, opacity=0.3)
        pen.ellipse((x + 0.05, 1.3), (0.008, 0.008), (255, 60, 40))
    pen.ellipse((x, 1.3), (0.026, 0.024), (184, 186, 190))
    tip = (x + 0.02 * heat, 1.3 - 0.02 * (1 - heat))
    pen.line([(x, 1.3), tip], 0.009, (30, 30, 30))


def _kettle(pen: Pen, thing: Thing, look: Look) -> None:
    x, y, r = thing.x, thing.y, 0.095 * thing.size
    pen.ellipse((x + 0.03, y + 0.04), (r * 1.15, r), (0, 0, 0), opacity=0.35)
    pen.polygon(
        [(x - r * 0.6, y - r * 0.5), (x - r * 1.5, y - r * 0.75), (x - r * 0.9, y + r * 0.1)], shade(thing.colour, 0.8)
    )
    pen.ellipse((x, y), (r, r * 1.02), shade(thing.colour, 0.8))
    pen.ellipse((x - 0.008, y - 0.01), (r * 0.84, r * 0.86), thing.colour)
    pen.ellipse((x, y - 0.01), (r * 0.5, r * 0.45), shade(thing.colour, 0.65))
    pen.line([(x + r * 0.2, y - 0.02), (x + r * 1.3, y - r * 0.3), (x + r * 1.25, y + r * 0.5)], 0.03, (46, 46, 50))
    pen.rectangle(x - 0.025, y + r * 0.85, x + 0.025, y + r * 1.25, (46, 46, 50))
    light = mix((70, 40, 40), (60, 160, 255), look[1])
    pen.ellipse((x, y + r * 1.05), (0.016, 0.014), light)
    if look[1]:
        pen.ellipse((x, y + r * 1.05), (0.04, 0.035), light, opacity=0.4)


def _lid(pen: Pen, thing: Thing, look: Look) -> None:
    """Draw the pan, and the lid on it or not."""
    draw_pan(pen, thing)
    if look[0]:
        draw_lid(pen, thing)


def draw_pan(pen: Pen, thing: Thing) -> None:
    """Draw the open pan with soup in it."""
    x, y = thing.x, thing.y
    pen.ellipse((x + 0.02, y + 0.03), (0.14, 0.125), (0, 0, 0), opacity=0.4)
    pen.line([(x - 0.04, y + 0.1), (x - 0.07, y + 0.24)], 0.034, (40, 40, 44))
    pen.ellipse((x, y), (0.13, 0.115), (88, 90, 96))
    pen.ellipse((x, y + 0.004), (0.116, 0.1), (48, 48, 52))
    pen.ellipse((x, y + 0.012), (0.108, 0.09), SOUP)
    for dx, dy, colour in (
        (-0.05, 0.0, (120, 160, 60)),
        (0.03, 0.04, (232, 150, 60)),
        (0.05, -0.02, (120, 160, 60)),
        (-0.01, -0.035, (236, 200, 90)),
    ):
        pen.ellipse((x + dx, y + dy + 0.01), (0.015, 0.012), colour)


def draw_lid(pen: Pen, thing: Thing) -> None:
    """Draw the lid of the pan."""
    x, y = thing.x, thing.y - 0.012
    pen.ellipse((x, y), (0.132, 0.116), shade(thing.colour, 0.7))
    pen.ellipse((x, y - 0.004), (0.12, 0.104), thing.colour)
    pen.ellipse((x - 0.03, y - 0.03), (0.05, 0.035), shade(thing.colour, 1.2))
    pen.ellipse((x, y - 0.015), (0.034, 0.03), (40, 40, 42))
    pen.ellipse((x - 0.004, y - 0.022), (0.024, 0.02), (90, 90, 94))


def _plate(pen: Pen, thing: Thing, look: Look) -> None:
    if not look[0]:
        return
    x, y, r = thing.x, thing.y, 0.12 * thing.size
    pen.ellipse((x + 0.012, y + 0.018), (r * 1.02, r * 0.9), (0, 0, 0), opacity=0.35)
    pen.ellipse((x, y), (r, r * 0.86), thing.colour)
    pen.ellipse((x, y), (r * 0.97, r * 0.83), shade(thing.colour, 1.15), width=0.01)
    pen.ellipse((x, y + 0.003), (r * 0.66, r * 0.56), shade(thing.colour, 0.86))
    pen.ellipse((x, y + 0.006), (r * 0.63, r * 0.53), thing.colour)
    pen.ellipse((x, y), (r * 0.82, r * 0.7), thing.accent, width=0.008)


def _vessel(pen: Pen, thing: Thing, r: float) -> Point:
    """Draw an empty round vessel from above; return the middle of its opening."""
    x, y = thing.x, thing.y
    pen.ellipse((x + 0.014, y + 0.05), (r, r * 0.8), (0, 0, 0), opacity=0.35)
    body = [(x - r, y), (x + r, y), (x + r * 0.7, y + r * 0.85), (x - r * 0.7, y + r * 0.85)]
    pen.polygon(body, shade(thing.colour, 0.72))
    pen.ellipse((x, y + r * 0.8), (r * 0.7, r * 0.3), shade(thing.colour, 0.72))
    pen.ellipse((x, y), (r, r * 0.74), thing.colour)
    pen.ellipse((x, y + 0.004), (r * 0.88, r * 0.63), shade(thing.colour, 0.45))
    return x, y


def _cup(pen: Pen, thing: Thing, look: Look) -> None:
    there, full, _ = look
    if not there:
        return
    r = 0.06 * thing.size
    pen.ellipse((thing.x + r * 1.15, thing.y + r * 0.5), (r * 0.4, r * 0.35), shade(thing.colour, 0.8), width=0.016)
    x, y = _vessel(pen, thing, r)
    pen.line([(x - r * 0.8, y + r * 0.66), (x + r * 0.8, y + r * 0.66)], 0.012, thing.accent)
    if full:
        grow = 0.45 + 0.42 * full
        pen.ellipse((x, y + 0.02 * (1 - full)), (r * grow, r * grow * 0.72), WATER)
        pen.ellipse((x - r * 0.25, y - r * 0.15), (r * 0.2, r * 0.1), (206, 232, 248))


def _bowl(pen: Pen, thing: Thing, look: Look) -> None:
    there, wet, mixed = look
    if not there:
        return
    r = 0.105 * thing.size
    x, y = _vessel(pen, thing, r)
    if mixed >= 1:
        pen.ellipse((x, y + 0.008), (r * 0.83, r * 0.58), BATTER)
        pen.ellipse((x - r * 0.1, y), (r * 0.4, r * 0.22), shade(BATTER, 1.1), width=0.01)
        return
    base = mix((150, 100, 60), BATTER, mixed)
    pen.ellipse((x, y + 0.008), (r * 0.83, r * 0.58), base)
    heap = 1 - mixed
    for dx, dy, colour in (
        (-0.3, -0.1, FLOUR),
        (0.28, 0.1, (124, 74, 40)),
        (0.05, -0.2, FLOUR),
        (-0.1, 0.25, (124, 74, 40)),
    ):
        pen.ellipse((x + dx * r, y + dy * r), (r * 0.26 * heap, r * 0.18 * heap), mix(colour, BATTER, mixed))
    if wet:
        pen.ellipse((x, y + 0.008), (r * 0.8 * wet, r * 0.55 * wet), mix(MILK, BATTER, mixed))
        for dx, dy in ((-0.35, -0.05), (0.3, 0.12), (0.0, 0.25)):
            pen.ellipse((x + dx * r, y + dy * r), (r * 0.12 * heap, r * 0.09 * heap), mix((124, 74, 40), BATTER, mixed))


def _carrot(pen: Pen, thing: Thing, look: Look) -> None:
    there, cut, _ = look
    if not there:
        return
    x, y, size = thing.x, thing.y, thing.size
    if not cut:
        pen.line([(x - 0.09 * size, y + 0.016), (x + 0.1 * size, y + 0.02)], 0.03, (0, 0, 0), opacity=0.3)
        body = [
            (x - 0.1 * size, y - 0.028),
            (x + 0.11 * size, y - 0.004),
            (x + 0.11 * size, y + 0.006),
            (x - 0.1 * size, y + 0.028),
        ]
        pen.polygon(body, thing.colour)
        pen.ellipse((x - 0.1 * size, y), (0.014, 0.028), shade(thing.colour, 0.9))
        for tilt in (-0.03, 0.0, 0.03):
            pen.line([(x - 0.1 * size, y), (x - 0.15 * size, y + tilt)], 0.01, thing.accent)
        return
    for step in range(6):
        wobble = 0.024 * ((step * 7) % 3 - 1) * cut
        middle = (x + (-0.085 + 0.036 * step) * size * (1 + 0.45 * cut), y + wobble)
        r = 0.03 - 0.0032 * step
        pen.ellipse((middle[0] + 0.004, middle[1] + 0.007), (r, r), (0, 0, 0), opacity=0.3)
        pen.ellipse(middle, (r, r), shade(thing.colour, 0.85))
        pen.ellipse((middle[0] - 0.004, middle[1] - 0.004), (r * 0.85, r * 0.85), shade(thing.colour, 1.12))
        pen.ellipse((middle[0] - 0.004, middle[1] - 0.004), (r * 0.4, r * 0.4), (250, 190, 90))


def _halves(pen: Pen, thing: Thing, gap: float, axes: tuple[float, float]) -> list[Point]:
    """Draw the two parts of a thing cut through, their inner faces up; return their middles."""
    middles = [(thing.x - gap, thing.y + 0.008), (thing.x + gap, thing.y - 0.012)]
    for middle in middles:
        pen.ellipse((middle[0] + 0.006, middle[1] + 0.01), axes, (0, 0, 0), opacity=0.3)
        pen.ellipse(middle, axes, thing.colour)
        pen.ellipse(middle, (axes[0] * 0.86, axes[1] * 0.86), thing.accent)
    return middles


def _onion(pen: Pen, thing: Thing, look: Look) -> None:
    there, cut, _ = look
    if not there:
        return
    x, y, r = thing.x, thing.y, 0.056 * thing.size
    if not cut:
        pen.ellipse((x + 0.01, y + 0.016), (r, r * 0.95), (0, 0, 0), opacity=0.3)
        pen.ellipse((x, y), (r, r * 0.95), thing.colour)
        pen.ellipse((x - r * 0.2, y - r * 0.25), (r * 0.45, r * 0.35), shade(thing.colour, 1.2))
        pen.line([(x + r * 0.8, y), (x + r * 1.35, y - 0.012)], 0.012, (180, 150, 90))
        return
    for middle in _halves(pen, thing, 0.02 + 0.052 * cut, (r * 0.95, r * 0.95)):
        for share in (0.68, 0.46, 0.22):
            pen.ellipse(middle, (r * share, r * share), thing.colour, width=0.005)


def _bread(pen: Pen, thing: Thing, look: Look) -> None:
    there, cut, _ = look
    if not there:
        return
    x, y, size = thing.x, thing.y, thing.size
    if not cut:
        pen.ellipse((x + 0.01, y + 0.02), (0.12 * size, 0.06 * size), (0, 0, 0), opacity=0.3)
        pen.ellipse((x, y), (0.12 * size, 0.06 * size), thing.colour)
        pen.ellipse((x - 0.01, y - 0.014), (0.09 * size, 0.034 * size), shade(thing.colour, 1.15))
        for step in (-0.05, 0.0, 0.05):
            pen.line([(x + step - 0.012, y - 0.03), (x + step + 0.012, y + 0.014)], 0.009, thing.accent)
        return
    pen.ellipse((x - 0.05 * size - 0.02 * cut, y), (0.07 * size, 0.058 * size), thing.colour)
    pen.ellipse((x - 0.0 * size - 0.02 * cut, y), (0.03 * size, 0.052 * size), thing.accent)
    for step in (1, 2):
        middle = (x + (0.02 + 0.048 * step) * size * (0.6 + 0.4 * cut), y + 0.012 * step)
        pen.ellipse((middle[0] + 0.006, middle[1] + 0.008), (0.034 * size, 0.052 * size), (0, 0, 0), opacity=0.3)
        pen.ellipse(middle, (0.034 * size, 0.052 * size), thing.colour)
        pen.ellipse(middle, (0.026 * size, 0.044 * size), thing.accent)


def _egg(pen: Pen, thing: Thing, look: Look) -> None:
    there, cracked, _ = look
    if not there:
        return
    x, y, r = thing.x, thing.y, 0.04 * thing.size
    if not cracked:
        pen.ellipse((x + 0.008, y + 0.012), (r * 1.2, r), (0, 0, 0), opacity=0.3)
        pen.ellipse((x, y), (r * 1.25, r), thing.colour)
        pen.ellipse((x - r * 0.3, y - r * 0.3), (r * 0.5, r * 0.3), shade(thing.colour, 1.15))
        return
    pen.ellipse((x, y + 0.012), (r * 2.1 * cracked, r * 1.4 * cracked), (250, 248, 240), opacity=0.85)
    pen.ellipse((x, y + 0.006), (r * 0.75, r * 0.68), thing.accent)
    pen.ellipse((x - r * 0.2, y), (r * 0.25, r * 0.16), (255, 236, 170))
    for side in (-1, 1):
        middle = x + side * (r * 0.7 + r * 1.5 * cracked)
        pen.ellipse((middle, y - 0.004), (r * 0.72, r * 0.9), thing.colour)
        pen.ellipse((middle - side * r * 0.15, y - 0.004), (r * 0.5, r * 0.7), shade(thing.colour, 0.72))


_PAINTERS: dict[str, Callable[[Pen, Thing, Look], None]] = {
    "drawer": _drawer,
    "cupboard": _cupboard,
    "fridge": _fridge,
    "tap": _tap,
    "hob": _hob,
    "kettle": _kettle,
    "lid": _lid,
    "plate": _plate,
    "cup": _cup,
    "bowl": _bowl,
    "carrot": _carrot,
    "onion": _onion,
    "bread": _bread,
    "egg": _egg,
}
