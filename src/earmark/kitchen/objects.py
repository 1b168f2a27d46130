"""How every thing of the kitchen looks in each of its states, drawn at its place in world units.

A look is (there, far, mixed), see `states.LOOKS`. A thing that is not there is not drawn, except the
furniture, which always is.
"""

from collections.abc import Callable

import numpy as np

from earmark.kitchen import foods, tableware
from earmark.kitchen.foods import Look
from earmark.kitchen.pen import Pen, Point, mix, shade
from earmark.kitchen.room import Thing
from earmark.kitchen.states import TOOLS


def draw_thing(pen: Pen, thing: Thing, look: Look) -> None:
    """Draw a thing at its place."""
    _PAINTERS[thing.name](pen, thing, look)


def draw_carried(pen: Pen, thing: Thing, look: Look) -> None:
    """Draw what a hand takes away or brings when it takes or puts the thing."""
    if thing.name == "lid":
        tableware.draw_lid(pen, thing)
    elif thing.name == "pan":
        tableware.draw_egg(pen, (thing.x, thing.y), look)
    else:
        draw_thing(pen, thing, look)


def grip_point(thing: Thing, look: Look) -> Point:
    """Return where a hand touches the thing: a handle, a switch, a rim; it moves with an opening door."""
    x, y, size, far = thing.x, thing.y, thing.size, look[1]
    points: dict[str, Point] = {
        "drawer": (x, 1.52 + 0.22 * far),
        "cupboard": (x + 0.17 - 0.29 * far, 0.4 + 0.03 * far),
        "fridge": (x + 0.17 - 0.3 * far, 0.75 + 0.04 * far),
        "oven": (x, 1.52 + 0.27 * far),
        "tap": (x + 0.07, 0.8),
        "hob": (x, 1.3),
        "kettle": (x, y + 0.1 * size),
        "lid": (x, y - 0.03),
        "plate": (x + 0.09 * size, y + 0.02),
        "cup": (x, y),
        "bowl": (x, y + 0.02),
        "pan": (x, y + 0.01),
        "jar": (x, y - 0.01),
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


def _oven(pen: Pen, thing: Thing, look: Look) -> None:
    """Draw the oven, whose door swings down towards the viewer."""
    x, far = thing.x, look[1]
    left, top, right, bottom = x - 0.25, 1.47, x + 0.25, 1.88
    pen.rectangle(left, top, right, bottom, shade(thing.colour, 0.7))
    pen.rectangle(left + 0.02, top + 0.02, right - 0.02, bottom - 0.02, thing.accent)
    for step in (0.1, 0.2):
        pen.line([(left + 0.03, top + step), (right - 0.03, top + step)], 0.012, (150, 150, 154))
    pen.rectangle(left + 0.08, top + 0.11, right - 0.08, top + 0.19, (206, 130, 60))
    edge = top + 0.3 * far  # upper edge of the door
    grow = 0.04 * far
    door = [(left - grow, edge), (right + grow, edge), (right, bottom + 0.05 * far), (left, bottom + 0.05 * far)]
    pen.polygon(door, shade(thing.colour, 1 - 0.15 * far))
    tall = bottom - edge
    pane = [(left + 0.06, edge + 0.3 * tall), (right - 0.06, edge + 0.3 * tall)]
    pen.polygon([*pane, (right - 0.07, bottom - 0.05), (left + 0.07, bottom - 0.05)], (40, 36, 36))
    y = grip_point(thing, look)[1]
    pen.line([(x - 0.16, y), (x + 0.16, y)], 0.024, (70, 72, 76))
    pen.line([(x - 0.16, y - 0.004), (x + 0.16, y - 0.004)], 0.008, (190, 192, 196))


_PAINTERS: dict[str, Callable[[Pen, Thing, Look], None]] = {
    **{"drawer": _drawer, "cupboard": _cupboard, "fridge": _fridge, "oven": _oven, "tap": _tap, "hob": _hob},
    **{"kettle": _kettle, "lid": tableware.draw_pot, "pan": tableware.draw_pan, "plate": tableware.draw_plate},
    **{"cup": tableware.draw_cup, "bowl": tableware.draw_bowl, "jar": tableware.draw_jar},
    **{"carrot": foods.draw_carrot, "potato": foods.draw_potato, "onion": foods.draw_onion},
    **{"tomato": foods.draw_tomato, "bread": foods.draw_bread},
    **dict.fromkeys(TOOLS, tableware.draw_tool),
}
