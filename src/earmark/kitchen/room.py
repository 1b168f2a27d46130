"""The kitchen of one participant: where its things stand and what they are made of.

Everything here is drawn once per kitchen and shared by all its videos. Places are
in world units: the camera sees 0.8 units of height; x grows to the right, y towards the person.
"""

import colorsys
from dataclasses import dataclass

import numpy as np

from earmark.kitchen.pen import Colour

WORLD_WIDTH, WORLD_HEIGHT = 5.0, 1.95
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
    "tomato": ("food",),
    "potato": ("food",),
    "oven": ("metal",),
    "jar": ("glass", "plastic"),
    "pan": ("metal",),
    "knife": ("metal",),
    "spoon": ("wood", "metal"),
    "sponge": ("fabric",),
    "cloth": ("fabric",),
    "peeler": ("metal", "plastic"),
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
    front = draw_colour(rng, saturation=(0.05, 0.5), value=(0.4, 0.95))
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
        wall=draw_colour(rng, saturation=(0.03, 0.35), value=(0.65, 0.95)),
        counter=draw_colour(rng, saturation=(0.05, 0.45), value=(0.35, 0.85)),
        front=front,
        tile=float(rng.uniform(0.1, 0.2)),
        grain=float(rng.integers(2)),
        light=(gain * (1 + warmth), gain, gain * (1 - warmth)),
        light_from=float(rng.uniform(0, np.pi)),
        skin=(skin[0], skin[1], skin[2]),
        sleeve=draw_colour(rng, saturation=(0.1, 0.8), value=(0.2, 0.9)),
        hum_hz=float(rng.uniform(95, 125)),
        texture_seed=int(rng.integers(2**31)),
    )


def draw_colour(rng: np.random.Generator, *, saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
    """Draw a colour of any hue, RGB."""
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return int(red * 255), int(green * 255), int(blue * 255)


def _thing_colours(rng: np.random.Generator, name: str, material: str, front: Colour) -> tuple[Colour, Colour]:
    """Return (main, accent): food keeps its natural colour, metal and glass are grey, the rest is painted."""
    painted = draw_colour(rng, saturation=(0.2, 0.75), value=(0.5, 0.95))
    natural: dict[str, tuple[Colour, Colour]] = {
        "carrot": ((232, 128, 40), (90, 150, 60)),
        "onion": ((186, 92, 110), (240, 225, 228)),
        "bread": ((188, 130, 72), (240, 218, 172)),
        "tomato": ((206, 48, 36), (244, 132, 96)),
        "potato": ((150, 108, 66), (240, 220, 150)),
        "pan": ((52, 52, 56), (90, 92, 96)),
        "knife": ((206, 212, 218), (44, 38, 36)),
        "sponge": ((240, 206, 60), (50, 130, 80)),
        "drawer": (front, (70, 60, 52)),
        "cupboard": (front, (84, 70, 58)),
        "hob": ((34, 34, 38), (255, 74, 24)),
    }
    if name in natural:
        (red, green, blue), accent = natural[name]
        shift = rng.integers(-12, 13, 3)
        main = (int(red + shift[0]), int(green + shift[1]), int(blue + shift[2]))
        return (main if name not in ("drawer", "cupboard") else front), accent
    if name in ("fridge", "oven"):
        grey = int(rng.integers(180, 240))
        return (grey, grey, grey + 6), (236, 246, 250) if name == "fridge" else (58, 44, 40)
    if material == "metal":
        grey = int(rng.integers(150, 190))
        return (grey, grey + 4, grey + 8), painted
    if material == "glass":
        return (186, 206, 212), painted
    return painted, draw_colour(rng, saturation=(0.1, 0.6), value=(0.3, 0.95))


def _draw_layout(rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Return the place of every thing: blocks of the counter in random order, the fridge at one end."""
    widths = {"sink": 0.7, "hob": 0.82, "board": 0.9, "crockery": 0.48, "baking": 0.46, "kettle": 0.26, "bread": 0.34}
    order = [str(block) for block in rng.permutation(list(widths))]
    left = 0.78
    centre = {}
    for block in order:
        centre[block] = left + widths[block] / 2
        left += widths[block]

    def near(x: float, y: float, spread: float = 0.025) -> tuple[float, float]:
        return x + rng.uniform(-spread, spread), y + rng.uniform(-spread, spread)

    sink, hob, board, baking = centre["sink"], centre["hob"], centre["board"], centre["baking"]
    slots = [(board - 0.17, 0.97), (board + 0.15, 0.96), (board - 0.15, 1.21), (board + 0.16, 1.19)]
    foods = [str(food) for food in rng.permutation(["carrot", "onion", "tomato", "potato"])]
    drawer, cupboard = (str(block) for block in rng.choice([b for b in order[1:-1] if b != "hob"], 2, replace=False))
    places = {
        "fridge": (0.54, 0.9),
        "tap": (sink - 0.09, 0.84),
        "sponge": near(sink + 0.235, 0.98, 0.01),
        "cloth": near(sink + 0.235, 1.22, 0.01),
        "hob": (hob + 0.01, 1.06),
        "lid": (hob - 0.26, 1.05),
        "pan": (hob + 0.26, 1.04),
        "oven": (hob, 1.66),
        "kettle": near(centre["kettle"], 0.98),
        "plate": near(centre["crockery"] - 0.08, 1.18),
        "cup": near(centre["crockery"] + 0.1, 0.93),
        "bowl": near(baking - 0.07, 1.0),
        "jar": near(baking + 0.14, 1.06),
        "spoon": near(baking - 0.08, 1.28, 0.01),
        "bread": near(centre["bread"], 1.05),
        "knife": near(board + 0.37, 1.1, 0.01),
        "peeler": near(board - 0.375, 1.1, 0.01),
        "drawer": (centre[drawer], 1.55),
        "cupboard": (centre[cupboard], 0.3),
        **dict(zip(foods, slots, strict=True)),
    }
    if rng.random() < 0.5:
        places = {name: (WORLD_WIDTH - x, y) for name, (x, y) in places.items()}
    return places
