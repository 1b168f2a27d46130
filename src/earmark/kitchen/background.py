"""The empty kitchen: walls, counter, fronts, what things stand on, and clutter behind and in front of them.

Painted once per video, in world units, before picture.py draws the things.
"""

import cv2
import numpy as np
import numpy.typing as npt

from earmark.kitchen.pen import Colour, Image, Pen, shade
from earmark.kitchen.room import COUNTER_END, WALL_END, WORLD_HEIGHT, WORLD_WIDTH, Room, Thing, draw_colour

_MOST_HIDDEN = 0.15


def paint_background(room: Room, pixels_per_unit: float) -> Image:
    """Paint the empty kitchen.

    Args:
        room: The kitchen.
        pixels_per_unit: Pixels per world unit.

    Returns:
        uint8 (round(WORLD_HEIGHT * pixels_per_unit), round(WORLD_WIDTH * pixels_per_unit), 3), RGB.
    """
    rng = np.random.default_rng(room.texture_seed)
    height, width = round(WORLD_HEIGHT * pixels_per_unit), round(WORLD_WIDTH * pixels_per_unit)
    image = np.zeros((height, width, 3), np.uint8)
    pen = Pen.scaled(image, pixels_per_unit)
    pen.rectangle(0, 0, WORLD_WIDTH, WALL_END, room.wall)
    pen.rectangle(0, WALL_END, WORLD_WIDTH, COUNTER_END, room.counter)
    pen.rectangle(0, COUNTER_END, WORLD_WIDTH, WORLD_HEIGHT, shade(room.front, 0.55))
    _paint_texture(room, image, rng, pixels_per_unit)
    grout = shade(room.wall, 0.8)
    for x in np.arange(room.tile / 2, WORLD_WIDTH, room.tile):
        pen.line([(x, 0), (x, WALL_END)], 0.006, grout)
    for y in np.arange(room.tile / 3, WALL_END, room.tile):
        pen.line([(0, y), (WORLD_WIDTH, y)], 0.006, grout)
    _paint_fronts(room, pen)
    pen.rectangle(0, WALL_END, WORLD_WIDTH, WALL_END + 0.03, (0, 0, 0), opacity=0.25)
    pen.rectangle(0, COUNTER_END - 0.03, WORLD_WIDTH, COUNTER_END, shade(room.counter, 1.25))
    pen.rectangle(0, COUNTER_END, WORLD_WIDTH, COUNTER_END + 0.025, (0, 0, 0), opacity=0.45)
    _paint_fixtures(room, pen)
    _paint_clutter(rng, pen)
    across = np.cos(room.light_from) * np.linspace(-1, 1, width)[None] + np.linspace(0.5, -0.5, height)[:, None]
    lit = image * (1 + 0.16 * across)[..., None]
    painted: Image = np.clip(lit, 0, 255).astype(np.uint8)
    return painted


def _paint_texture(room: Room, image: Image, rng: np.random.Generator, pixels_per_unit: float) -> None:
    """Add speckles or grain to the counter and a little dirt to all."""
    height, width = image.shape[:2]

    def noise(rows: float, columns: float) -> npt.NDArray[np.float32]:
        field = rng.normal(size=(max(2, round(rows)), max(2, round(columns)))).astype(np.float32)
        resized: npt.NDArray[np.float32] = cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
        return resized

    dirt = 3 * noise(8, 14) + 2 * noise(60, 100)
    grain = 9 * noise(90, 5) + 4 * noise(260, 20) if room.grain else 10 * noise(240, 400) + 5 * noise(40, 70)
    top, end = round(WALL_END * pixels_per_unit), round(COUNTER_END * pixels_per_unit)
    dirt[top:end] += grain[top:end]
    np.copyto(image, np.clip(image + dirt[..., None], 0, 255).astype(np.uint8))


def _paint_fronts(room: Room, pen: Pen) -> None:
    """Paint the doors and drawers that never open; those that do are drawn over them as things."""
    for name, top, bottom, width in (("cupboard", 0.08, 0.52, 0.44), ("drawer", 1.47, 1.65, 0.52)):
        middle = room.things[name].x
        for step in range(-11, 12):
            x = middle + step * width
            pen.rectangle(x - width / 2 + 0.008, top, x + width / 2 - 0.008, bottom, room.front)
            pen.rectangle(
                x - width / 2 + 0.05, top + 0.04, x + width / 2 - 0.05, bottom - 0.04, shade(room.front, 0.94)
            )
        if name == "drawer":
            pen.rectangle(0, 1.67, WORLD_WIDTH, WORLD_HEIGHT, shade(room.front, 0.8))


def _paint_fixtures(room: Room, pen: Pen) -> None:
    """Paint what things stand on or belong to: sink, hob plate with its pan, chopping board."""
    sink = room.things["tap"]
    steel: Colour = (150, 156, 160)
    pen.rectangle(sink.x - 0.24, 0.88, sink.x + 0.2, 1.3, steel)
    pen.rectangle(sink.x - 0.215, 0.905, sink.x + 0.175, 1.275, shade(steel, 0.7))
    pen.rectangle(sink.x - 0.15, 0.96, sink.x + 0.15, 1.25, shade(steel, 0.85))
    pen.ellipse((sink.x, 1.1), (0.025, 0.02), (50, 50, 54))
    hob = room.things["hob"]
    lid = room.things["lid"]
    left, right = hob.x - 0.42, hob.x + 0.42
    pen.rectangle(left, 0.86, right, 1.34, hob.colour)
    pen.rectangle(left, 0.86, right, 0.87, shade(hob.colour, 2.2))
    pan = room.things["pan"]
    for x, y, radius in ((hob.x, hob.y, 0.1), (lid.x, lid.y, 0.12), (pan.x, pan.y, 0.12)):
        pen.ellipse((x, y), (radius, radius * 0.85), (70, 70, 74), width=0.008)
    foods = [room.things[name] for name in ("carrot", "onion", "tomato", "potato")]
    middle = sum(thing.x for thing in foods) / 4
    board: Colour = (196, 152, 100) if room.counter[0] < 150 else (120, 84, 56)
    pen.rectangle(middle - 0.29, 0.87, middle + 0.32, 1.37, (0, 0, 0), opacity=0.3)
    pen.rectangle(middle - 0.3, 0.86, middle + 0.31, 1.35, board)
    for step in range(9):
        y = 0.89 + 0.053 * step
        pen.line([(middle - 0.29, y), (middle + 0.3, y + 0.006)], 0.004, shade(board, 0.92))


def _paint_clutter(rng: np.random.Generator, pen: Pen) -> None:
    """Paint jars and bottles at the wall and cloths on the counter, which nobody touches."""
    for _ in range(rng.integers(5, 9)):
        x, radius = rng.uniform(0.9, WORLD_WIDTH - 0.9), rng.uniform(0.025, 0.045)
        colour = draw_colour(rng, saturation=(0.1, 0.9), value=(0.25, 0.9))
        top = rng.uniform(0.56, 0.64)
        pen.ellipse((x + 0.02, 0.775), (radius * 1.2, 0.014), (0, 0, 0), opacity=0.35)
        pen.rectangle(x - radius, top, x + radius, 0.77, colour)
        pen.rectangle(x - radius, top, x - radius * 0.4, 0.77, shade(colour, 1.3))
        pen.rectangle(x - radius * 0.6, top - 0.035, x + radius * 0.6, top, shade(colour, 0.5))
    place = rng.uniform([1.0, 1.28], [WORLD_WIDTH - 1.0, 1.34])
    colour = draw_colour(rng, saturation=(0.2, 0.8), value=(0.4, 0.9))
    corners = np.array([(-0.09, -0.05), (0.08, -0.07), (0.1, 0.05), (-0.07, 0.06)]) + place
    pen.polygon(corners, colour)
    pen.line(
        [tuple(corners[0] * 0.6 + corners[3] * 0.4), tuple(corners[1] * 0.6 + corners[2] * 0.4)], 0.01, (245, 245, 240)
    )


def draw_front_clutter(pen: Pen, room: Room) -> None:
    """Draw bottles and jars at the front edge of the counter, which hide a part of what stands behind them."""
    rng = np.random.default_rng(room.texture_seed + 1)
    for _ in range(14):
        x, half, tall = rng.uniform(0.85, WORLD_WIDTH - 0.85), rng.uniform(0.025, 0.045), rng.uniform(0.16, 0.26)
        colour = draw_colour(rng, saturation=(0.1, 0.9), value=(0.25, 0.9))
        top, foot = COUNTER_END - 0.03 - tall, COUNTER_END - 0.03
        if any(_hidden_share(thing, x - half, x + half, top) > _MOST_HIDDEN for thing in room.things.values()):
            continue
        pen.ellipse((x + 0.03, foot), (half * 1.5, 0.016), (0, 0, 0), opacity=0.35)
        pen.rectangle(x - half, top + 0.05, x + half, foot, colour)
        pen.ellipse((x, foot), (half, half * 0.4), colour)
        pen.polygon(
            [
                (x - half, top + 0.055),
                (x - half * 0.4, top + 0.01),
                (x + half * 0.4, top + 0.01),
                (x + half, top + 0.055),
            ],
            shade(colour, 0.9),
        )
        pen.rectangle(x - half * 0.45, top - 0.015, x + half * 0.45, top + 0.015, shade(colour, 0.5))
        pen.rectangle(x - half, top + 0.09, x + half, foot - 0.04, (236, 232, 222))
        pen.rectangle(x - half * 0.9, top + 0.05, x - half * 0.5, foot, shade(colour, 1.35), opacity=0.6)


def _hidden_share(thing: Thing, left: float, right: float, top: float) -> float:
    """Return how much of the middle of a thing on the counter a bottle from `top` to the counter's edge hides."""
    if thing.name == "hob":
        return float(left - 0.08 < thing.x < right + 0.08)  # its knob is at the edge
    if thing.y > COUNTER_END or thing.y < WALL_END:
        return 0.0
    across = max(0.0, min(right, thing.x + 0.09) - max(left, thing.x - 0.09))
    down = max(0.0, thing.y + 0.08 - max(top, thing.y - 0.08))
    return across * down / (0.18 * 0.16)
