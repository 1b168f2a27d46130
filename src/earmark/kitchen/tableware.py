"""How crockery, pans, jars and tools look: clean, dirty, soapy, full, mixed, open."""

import numpy as np

from earmark.kitchen.foods import JAM, Look
from earmark.kitchen.pen import Pen, Point, mix, shade
from earmark.kitchen.room import Thing

MILK, WATER, OIL = (246, 244, 236), (110, 170, 214), (206, 170, 40)
SOUP, BATTER, FLOUR, TEA = (188, 84, 36), (222, 176, 92), (236, 224, 200), (126, 62, 22)


def draw_pot(pen: Pen, thing: Thing, look: Look) -> None:
    """Draw the pot of soup, and the lid on it or not."""
    _draw_open_pot(pen, thing)
    if look[0]:
        draw_lid(pen, thing)


def _draw_open_pot(pen: Pen, thing: Thing) -> None:
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


def _draw_soiling(pen: Pen, place: Point, r: float, dirty: float, wet: float) -> None:
    """Draw the leftovers of a meal, or suds."""
    x, y = place
    if dirty > 0:
        pen.ellipse((x - 0.1 * r, y), (0.62 * r * dirty, 0.44 * r * dirty), (122, 64, 26))
        for dx, dy, colour in ((-0.45, 0.2, (96, 110, 40)), (0.3, -0.25, (176, 60, 30)), (0.2, 0.3, (96, 110, 40))):
            pen.ellipse((x + dx * r, y + dy * r), (0.17 * r * dirty, 0.13 * r * dirty), colour)
    if wet > 0:
        rng = np.random.default_rng(5)
        for _ in range(16):
            angle, far, size = rng.uniform(0, 2 * np.pi), rng.uniform(0.0, 0.85), rng.uniform(0.13, 0.26) * wet
            middle = (x + far * r * np.cos(angle), y + 0.8 * far * r * np.sin(angle))
            pen.ellipse(middle, (size * r, size * r), (240, 246, 252))
            pen.ellipse(middle, (size * r, size * r), (150, 178, 206), width=0.005)


def draw_plate(pen: Pen, thing: Thing, look: Look) -> None:
    """Draw a plate: clean, dirty, or covered with suds."""
    if not look[0]:
        return
    x, y, r = thing.x, thing.y, 0.12 * thing.size
    pen.ellipse((x + 0.012, y + 0.018), (r * 1.02, r * 0.9), (0, 0, 0), opacity=0.35)
    pen.ellipse((x, y), (r, r * 0.86), thing.colour)
    pen.ellipse((x, y), (r * 0.97, r * 0.83), shade(thing.colour, 1.15), width=0.01)
    pen.ellipse((x, y + 0.003), (r * 0.66, r * 0.56), shade(thing.colour, 0.86))
    pen.ellipse((x, y + 0.006), (r * 0.63, r * 0.53), thing.colour)
    pen.ellipse((x, y), (r * 0.82, r * 0.7), thing.accent, width=0.008)
    _draw_soiling(pen, (x, y), r, -look[1], look[2])


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


def draw_cup(pen: Pen, thing: Thing, look: Look) -> None:
    """Draw a cup: empty, full of water, of tea, dirty, or with suds."""
    there, full, mixed = look
    if not there:
        return
    r = 0.06 * thing.size
    pen.ellipse((thing.x + r * 1.15, thing.y + r * 0.5), (r * 0.4, r * 0.35), shade(thing.colour, 0.8), width=0.016)
    x, y = _vessel(pen, thing, r)
    pen.line([(x - r * 0.8, y + r * 0.66), (x + r * 0.8, y + r * 0.66)], 0.012, thing.accent)
    if full <= 0:
        _draw_soiling(pen, (x, y), r * 0.95, -full, mixed)
    else:
        grow = 0.45 + 0.42 * full
        drink = mix(WATER, TEA, mixed)
        pen.ellipse((x, y + 0.02 * (1 - full)), (r * grow, r * grow * 0.72), drink)
        pen.ellipse((x - r * 0.25, y - r * 0.15), (r * 0.2, r * 0.1), shade(drink, 1.5))


def draw_bowl(pen: Pen, thing: Thing, look: Look) -> None:
    """Draw the mixing bowl: flour, milk on it, or batter."""
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


def draw_pan(pen: Pen, thing: Thing, look: Look) -> None:
    """Draw the frying pan: bare, oiled, with a raw or a fried egg."""
    x, y = thing.x, thing.y
    pen.ellipse((x + 0.02, y + 0.03), (0.135, 0.12), (0, 0, 0), opacity=0.4)
    pen.line([(x + 0.03, y + 0.1), (x + 0.06, y + 0.25)], 0.032, (30, 30, 32))
    pen.ellipse((x, y), (0.13, 0.115), thing.accent)
    pen.ellipse((x, y + 0.004), (0.116, 0.1), thing.colour)
    oil = min(1.0, look[1] / 0.4)
    if oil > 0:
        pen.ellipse((x, y + 0.008), (0.1 * oil, 0.084 * oil), mix(OIL, thing.colour, 0.25))
        pen.ellipse((x - 0.03, y - 0.02), (0.03 * oil, 0.018 * oil), shade(OIL, 1.2))
    draw_egg(pen, (x, y), look)


def draw_egg(pen: Pen, place: Point, look: Look) -> None:
    """Draw the egg in the pan, as far as it is cracked and stirred."""
    x, y = place
    raw, fried = max(0.0, (look[1] - 0.4) / 0.6), look[2]
    if raw <= 0:
        return
    pen.ellipse((x, y + 0.008), (0.082 * raw, 0.068 * raw), mix((250, 248, 240), (240, 196, 70), fried))
    if fried < 0.5:
        pen.ellipse((x + 0.01, y), (0.032 * raw, 0.029 * raw), (246, 178, 30))
    for step in range(int(7 * fried)):
        angle = step * 2.4
        middle = (x + 0.05 * np.cos(angle), y + 0.008 + 0.04 * np.sin(angle))
        pen.ellipse(middle, (0.024, 0.018), (226, 150, 36) if step % 2 else (252, 222, 120))


def draw_jar(pen: Pen, thing: Thing, look: Look) -> None:
    """Draw the jar of jam, its lid on it or beside it."""
    there, opened, _ = look
    if not there:
        return
    x, y, r = thing.x, thing.y, 0.058 * thing.size
    pen.ellipse((x + 0.016, y + 0.06), (r, r * 0.8), (0, 0, 0), opacity=0.35)
    pen.rectangle(x - r, y, x + r, y + r * 1.3, (206, 216, 220))
    pen.rectangle(x - r * 0.85, y + r * 0.3, x + r * 0.85, y + r * 1.25, JAM)
    pen.rectangle(x - r * 0.85, y + r * 0.55, x + r * 0.85, y + r * 1.0, (244, 238, 220))
    pen.ellipse((x, y), (r, r * 0.72), (206, 216, 220))
    pen.ellipse((x, y), (r * 0.84, r * 0.58), JAM)
    lid = (x - r * 2.0 * opened, y - r * 0.3 * (1 - opened) + r * 0.9 * opened)
    pen.ellipse((lid[0] + 0.005, lid[1] + 0.01), (r * 1.04, r * 0.78), shade(thing.accent, 0.6))
    pen.ellipse(lid, (r * 1.02, r * 0.76), thing.accent)
    pen.ellipse(lid, (r * 0.7, r * 0.5), shade(thing.accent, 1.15), width=0.007)


def draw_tool(pen: Pen, thing: Thing, look: Look) -> None:
    """Draw a knife, spoon, peeler, sponge or cloth where it lies."""
    if not look[0]:
        return
    x, y = thing.x, thing.y
    if thing.name == "knife":
        draw_knife(pen.moved((0.0, 0.0), (x, y + 0.05), degrees=90), thing)
    elif thing.name == "spoon":
        draw_spoon(pen.moved((0.0, 0.0), (x + 0.1, y), degrees=35), thing)
    elif thing.name == "peeler":
        draw_peeler(pen.moved((0.0, 0.0), (x, y + 0.04), degrees=80), thing)
    elif thing.name == "sponge":
        draw_sponge(pen.moved((0.0, 0.0), (x, y)), thing)
    else:
        draw_cloth(pen.moved((0.0, 0.0), (x, y)), thing)


def draw_knife(pen: Pen, thing: Thing) -> None:
    """Draw the knife held at the origin, its blade to the left."""
    blade = np.array([(-0.02, -0.045), (-0.23, -0.1), (-0.25, -0.085), (-0.21, -0.045), (-0.03, 0.0)])
    pen.polygon(blade + np.array([0.01, 0.03]), (0, 0, 0), opacity=0.25)
    pen.polygon(blade, thing.colour)
    pen.line([tuple(blade[3]), tuple(blade[4])], 0.008, (246, 248, 250))
    pen.line([(-0.03, -0.025), (0.07, 0.0)], 0.032, thing.accent)


def draw_spoon(pen: Pen, thing: Thing) -> None:
    """Draw the spoon held at the origin, its bowl at the lower left."""
    colour = (150, 100, 60) if thing.material == "wood" else (176, 180, 186)
    pen.line([(0.03, -0.09), (-0.11, 0.06)], 0.018, colour)
    pen.line([(0.028, -0.094), (-0.11, 0.056)], 0.006, shade(colour, 1.33))
    pen.ellipse((-0.12, 0.07), (0.032, 0.022), colour, degrees=-40)
    pen.ellipse((-0.12, 0.068), (0.02, 0.012), shade(colour, 0.75), degrees=-40)


def draw_peeler(pen: Pen, thing: Thing) -> None:
    """Draw the peeler held at the origin, its blade to the left."""
    pen.line([(-0.05, 0.0), (0.08, 0.01)], 0.034, thing.accent)
    pen.line([(-0.05, 0.0), (-0.1, -0.035)], 0.012, (190, 194, 200))
    pen.line([(-0.05, 0.0), (-0.1, 0.035)], 0.012, (190, 194, 200))
    pen.line([(-0.1, -0.04), (-0.1, 0.04)], 0.016, (222, 226, 232))


def draw_sponge(pen: Pen, thing: Thing) -> None:
    """Draw the sponge around the origin."""
    pen.rectangle(-0.06, -0.03, 0.07, 0.05, (0, 0, 0), opacity=0.25)
    pen.rectangle(-0.065, -0.04, 0.065, 0.04, thing.colour)
    pen.rectangle(-0.065, -0.04, 0.065, -0.016, thing.accent)
    for dx, dy in ((-0.04, 0.005), (0.0, 0.02), (0.035, 0.0), (0.05, 0.026), (-0.02, 0.028)):
        pen.ellipse((dx, dy), (0.006, 0.005), shade(thing.colour, 0.75))


def draw_cloth(pen: Pen, thing: Thing) -> None:
    """Draw the checked cloth around the origin."""
    corners = [(-0.1, -0.06), (0.0, -0.075), (0.1, -0.055), (0.09, 0.065), (0.0, 0.055), (-0.09, 0.075)]
    pen.polygon([(x + 0.008, y + 0.014) for x, y in corners], (0, 0, 0), opacity=0.3)
    pen.polygon(corners, (236, 232, 224))
    for across in (-0.06, -0.01, 0.04):
        pen.line([(across, -0.06), (across + 0.004, 0.055)], 0.016, thing.colour)
    for down in (-0.03, 0.02):
        pen.line([(-0.09, down), (0.09, down + 0.004)], 0.014, thing.colour)
