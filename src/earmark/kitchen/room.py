"""The kitchen of one participant: where its things stand, what they are made of, and its empty background.

Second station of the generator: everything here is drawn once per kitchen and shared by all its videos. Places are
in world units: the camera sees 0.8 units of height; x grows to the right, y towards the person.
"""

import colorsys
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from earmark.kitchen.pen import Colour, Image, Pen, shade

WORLD_WIDTH, WORLD_HEIGHT = 3.9, 1.95
WALL_END, COUNTER_END = 0.72, 1.42

_MATERIALS: dict[str, tuple[str, ...]] = {
    "drawer": ("wood",),
    "cupboard": ("wood",),
    "fridge": ("plastic",),
    "tap": ("metal",),
    "hob": ("metal",),
    "kettle": ("plastic", "metal"),
    "lid": ("metal", "glass"),
    "plate": ("ceramic", "plastic"),
    "cup": ("ceramic", "glass"),
    "bowl": ("ceramic", "metal", "glass"),
    "carrot": ("food",),
    "onion": ("food",),
    "bread": ("food",),
    "egg": ("food",),
}


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing of a kitchen.

    Attributes:
        name: Key of `script.TRANSITIONS`.
        x: World x of its middle.
        y: World y of its middle.
        size: 1 is usual.
        material: Key of `sound.MATERIALS`.
        colour: Main colour, RGB.
        accent: Second colour, RGB.
        voice: Seed of the partials of its sound, so that a thing always rings alike.
    """

    name: str
    x: float
    y: float
    size: float
    material: str
    colour: Colour
    accent: Colour
    voice: int


@dataclass(frozen=True)
class Room:
    """Layout, colours and light of one kitchen, and the person in it.

    Attributes:
        things: By name.
        wall: Colour of the tiles.
        counter: Colour of the counter.
        front: Colour of cupboard doors and drawers.
        tile: Edge of a tile in world units.
        grain: 0 speckled stone .. 1 wood grain.
        light: Gain of red, green and blue.
        light_from: Direction in radians from which the light comes.
        skin: Colour of the hands.
        sleeve: Colour of the sleeves.
        hum_hz: Frequency of the fridge's hum.
        texture_seed: Seed of the textures of the background.
    """

    things: dict[str, Thing]
    wall: Colour
    counter: Colour
    front: Colour
    tile: float
    grain: float
    light: tuple[float, float, float]
    light_from: float
    skin: Colour
    sleeve: Colour
    hum_hz: float
    texture_seed: int


def draw_room(rng: np.random.Generator) -> Room:
    """Draw a kitchen: layout, colours, materials, light, and the person's skin and sleeves."""
    places = _draw_layout(rng)
    front = _colour(rng, saturation=(0.05, 0.5), value=(0.4, 0.95))
    things = {}
    for name, choices in _MATERIALS.items():
        material = str(rng.choice(choices))
        colour, accent = _thing_colours(rng, name, material, front)
        x, y = places[name]
        size = float(rng.uniform(0.9, 1.12))
        things[name] = Thing(name, x, y, size, material, colour, accent, int(rng.integers(2**31)))
    tone = rng.uniform(0, 1)
    skin = tuple(int(a + (b - a) * tone) for a, b in zip((240, 196, 168), (112, 72, 50), strict=True))
    warmth = rng.uniform(-0.07, 0.07)
    gain = rng.uniform(0.88, 1.08)
    return Room(
        things=things,
        wall=_colour(rng, saturation=(0.03, 0.35), value=(0.65, 0.95)),
        counter=_colour(rng, saturation=(0.05, 0.45), value=(0.35, 0.85)),
        front=front,
        tile=float(rng.uniform(0.1, 0.2)),
        grain=float(rng.integers(2)),
        light=(gain * (1 + warmth), gain, gain * (1 - warmth)),
        light_from=float(rng.uniform(0, np.pi)),
        skin=(skin[0], skin[1], skin[2]),
        sleeve=_colour(rng, saturation=(0.1, 0.8), value=(0.2, 0.9)),
        hum_hz=float(rng.uniform(95, 125)),
        texture_seed=int(rng.integers(2**31)),
    )


def _colour(rng: np.random.Generator, *, saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return int(red * 255), int(green * 255), int(blue * 255)


def _thing_colours(rng: np.random.Generator, name: str, material: str, front: Colour) -> tuple[Colour, Colour]:
    """Return (main, accent): food keeps its natural colour, metal and glass are grey, the rest is painted."""
    painted = _colour(rng, saturation=(0.2, 0.75), value=(0.5, 0.95))
    natural: dict[str, tuple[Colour, Colour]] = {
        "carrot": ((232, 128, 40), (90, 150, 60)),
        "onion": ((186, 92, 110), (240, 225, 228)),
        "bread": ((188, 130, 72), (240, 218, 172)),
        "egg": ((232, 208, 180), (246, 190, 40)),
        "drawer": (front, (70, 60, 52)),
        "cupboard": (front, (84, 70, 58)),
        "hob": ((34, 34, 38), (255, 74, 24)),
    }
    if name in natural:
        (red, green, blue), accent = natural[name]
        shift = rng.integers(-12, 13, 3)
        main = (int(red + shift[0]), int(green + shift[1]), int(blue + shift[2]))
        return (main if name not in ("drawer", "cupboard") else front), accent
    if name == "fridge":
        grey = int(rng.integers(180, 240))
        return (grey, grey, grey + 6), (236, 246, 250)
    if material == "metal":
        grey = int(rng.integers(150, 190))
        return (grey, grey + 4, grey + 8), painted
    if material == "glass":
        return (186, 206, 212), painted
    return painted, _colour(rng, saturation=(0.1, 0.6), value=(0.3, 0.95))


def _draw_layout(rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Return the place of every thing: blocks of the counter in random order, the fridge at one end."""
    widths = {"sink": 0.5, "hob": 0.54, "board": 0.58, "crockery": 0.46, "baking": 0.46, "kettle": 0.26}
    order = [str(block) for block in rng.permutation(list(widths))]
    left = 0.78
    centre = {}
    for block in order:
        centre[block] = left + widths[block] / 2
        left += widths[block]

    def near(x: float, y: float, spread: float = 0.025) -> tuple[float, float]:
        return x + rng.uniform(-spread, spread), y + rng.uniform(-spread, spread)

    board = centre["board"]
    foods = [str(food) for food in rng.permutation(["carrot", "onion", "bread"])]
    slots = [(board - 0.16, 1.0), (board + 0.15, 0.98), (board - 0.01, 1.2)]
    drawer, cupboard = (str(block) for block in rng.choice(order[1:-1], 2, replace=False))
    places = {
        "fridge": (0.54, 0.9),
        "tap": (centre["sink"], 0.84),
        "hob": (centre["hob"] + 0.13, 1.06),
        "lid": (centre["hob"] - 0.12, 1.05),
        "kettle": near(centre["kettle"], 0.98),
        "plate": near(centre["crockery"] - 0.08, 1.18),
        "cup": near(centre["crockery"] + 0.1, 0.93),
        "bowl": near(centre["baking"] - 0.07, 1.0),
        "egg": near(centre["baking"] + 0.13, 1.23),
        "drawer": (centre[drawer], 1.55),
        "cupboard": (centre[cupboard], 0.3),
        **dict(zip(foods, slots, strict=True)),
    }
    if rng.random() < 0.5:
        places = {name: (WORLD_WIDTH - x, y) for name, (x, y) in places.items()}
    return places


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
        for step in range(-8, 9):
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
    pen.rectangle(sink.x - 0.22, 0.88, sink.x + 0.22, 1.3, steel)
    pen.rectangle(sink.x - 0.195, 0.905, sink.x + 0.195, 1.275, shade(steel, 0.7))
    pen.rectangle(sink.x - 0.15, 0.96, sink.x + 0.15, 1.25, shade(steel, 0.85))
    pen.ellipse((sink.x, 1.1), (0.025, 0.02), (50, 50, 54))
    hob = room.things["hob"]
    lid = room.things["lid"]
    left, right = min(hob.x, lid.x) - 0.15, max(hob.x, lid.x) + 0.13
    pen.rectangle(left, 0.86, right, 1.34, hob.colour)
    pen.rectangle(left, 0.86, right, 0.87, shade(hob.colour, 2.2))
    for x, y, radius in ((hob.x, hob.y, 0.1), (lid.x, lid.y, 0.12), (hob.x - 0.02, 0.92, 0.05)):
        pen.ellipse((x, y), (radius, radius * 0.85), (70, 70, 74), width=0.008)
    foods = [room.things[name] for name in ("carrot", "onion", "bread")]
    middle = sum(thing.x for thing in foods) / 3
    board: Colour = (196, 152, 100) if room.counter[0] < 150 else (120, 84, 56)
    pen.rectangle(middle - 0.27, 0.87, middle + 0.29, 1.37, (0, 0, 0), opacity=0.3)
    pen.rectangle(middle - 0.28, 0.86, middle + 0.28, 1.35, board)
    for step in range(9):
        y = 0.89 + 0.053 * step
        pen.line([(middle - 0.27, y), (middle + 0.27, y + 0.006)], 0.004, shade(board, 0.92))


def _paint_clutter(rng: np.random.Generator, pen: Pen) -> None:
    """Paint jars and bottles at the wall and cloths on the counter, which nobody touches."""
    for _ in range(rng.integers(5, 9)):
        x, radius = rng.uniform(0.9, WORLD_WIDTH - 0.9), rng.uniform(0.025, 0.045)
        colour = _colour(rng, saturation=(0.1, 0.9), value=(0.25, 0.9))
        top = rng.uniform(0.56, 0.64)
        pen.ellipse((x + 0.02, 0.775), (radius * 1.2, 0.014), (0, 0, 0), opacity=0.35)
        pen.rectangle(x - radius, top, x + radius, 0.77, colour)
        pen.rectangle(x - radius, top, x - radius * 0.4, 0.77, shade(colour, 1.3))
        pen.rectangle(x - radius * 0.6, top - 0.035, x + radius * 0.6, top, shade(colour, 0.5))
    place = rng.uniform([1.0, 1.28], [WORLD_WIDTH - 1.0, 1.34])
    colour = _colour(rng, saturation=(0.2, 0.8), value=(0.4, 0.9))
    corners = np.array([(-0.09, -0.05), (0.08, -0.07), (0.1, 0.05), (-0.07, 0.06)]) + place
    pen.polygon(corners, colour)
    pen.line(
        [tuple(corners[0] * 0.6 + corners[3] * 0.4), tuple(corners[1] * 0.6 + corners[2] * 0.4)], 0.01, (245, 245, 240)
    )
