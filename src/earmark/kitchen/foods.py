"""How the food on the counter looks: whole, peeled, cut, spread."""

from earmark.kitchen.pen import Pen, Point, mix, shade
from earmark.kitchen.room import Thing

Look = tuple[float, float, float]

JAM = (150, 22, 48)


def draw_carrot(pen: Pen, thing: Thing, look: Look) -> None:
    """Draw a carrot: with dark skin and leaves, bare, or in slices."""
    there, cut, peeled = look
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
        skin = mix(shade(thing.colour, 0.62), (255, 176, 92), peeled)
        pen.polygon(body, skin)
        pen.ellipse((x - 0.1 * size, y), (0.014, 0.028), shade(skin, 0.9))
        for step in range(5):
            across = x + (-0.08 + 0.036 * step) * size
            pen.line([(across, y - 0.016), (across + 0.006, y + 0.004)], 0.006, shade(skin, 0.75))
        _draw_peelings(pen, thing, peeled, shade(thing.colour, 0.62))
        for tilt in (-0.03, 0.0, 0.03):
            pen.line([(x - 0.1 * size, y), (x - (0.17 - 0.05 * peeled) * size, y + tilt)], 0.012, thing.accent)
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
        _slice(pen, thing, middle, axes, (axes[0] * 0.86, axes[1] * 0.86))
    return middles


def _slice(
    pen: Pen,
    thing: Thing,
    middle: Point,
    axes: tuple[float, float],
    inner_axes: tuple[float, float],
    shadow_drop: float = 0.01,
) -> None:
    """Draw a slice with its rind, its inner face and its shadow."""
    pen.ellipse((middle[0] + 0.006, middle[1] + shadow_drop), axes, (0, 0, 0), opacity=0.3)
    pen.ellipse(middle, axes, thing.colour)
    pen.ellipse(middle, inner_axes, thing.accent)


def _ball(pen: Pen, thing: Thing, axes: tuple[float, float], shadow_drop: float = 0.016) -> None:
    """Draw something round and whole, and its shadow."""
    pen.ellipse((thing.x + 0.01, thing.y + shadow_drop), axes, (0, 0, 0), opacity=0.3)
    pen.ellipse((thing.x, thing.y), axes, thing.colour)


def draw_onion(pen: Pen, thing: Thing, look: Look) -> None:
    """Draw an onion, whole or in halves."""
    there, cut, _ = look
    if not there:
        return
    x, y, r = thing.x, thing.y, 0.056 * thing.size
    if not cut:
        _ball(pen, thing, (r, r * 0.95))
        pen.ellipse((x - r * 0.2, y - r * 0.25), (r * 0.45, r * 0.35), shade(thing.colour, 1.2))
        pen.line([(x + r * 0.8, y), (x + r * 1.35, y - 0.012)], 0.012, (180, 150, 90))
        return
    for middle in _halves(pen, thing, 0.02 + 0.052 * cut, (r * 0.95, r * 0.95)):
        for share in (0.68, 0.46, 0.22):
            pen.ellipse(middle, (r * share, r * share), thing.colour, width=0.005)


def draw_bread(pen: Pen, thing: Thing, look: Look) -> None:
    """Draw a loaf, or its slices, with jam or without."""
    there, cut, jammy = look
    if not there:
        return
    x, y, size = thing.x, thing.y, thing.size
    if not cut:
        _ball(pen, thing, (0.12 * size, 0.06 * size), shadow_drop=0.02)
        pen.ellipse((x - 0.01, y - 0.014), (0.09 * size, 0.034 * size), shade(thing.colour, 1.15))
        for step in (-0.05, 0.0, 0.05):
            pen.line([(x + step - 0.012, y - 0.03), (x + step + 0.012, y + 0.014)], 0.009, thing.accent)
        return
    pen.ellipse((x - 0.05 * size - 0.02 * cut, y), (0.07 * size, 0.058 * size), thing.colour)
    pen.ellipse((x - 0.0 * size - 0.02 * cut, y), (0.03 * size, 0.052 * size), thing.accent)
    for step in (1, 2):
        middle = (x + (0.0 + 0.06 * step) * size * (0.6 + 0.4 * cut), y + 0.012 * step)
        _slice(pen, thing, middle, (0.04 * size, 0.06 * size), (0.033 * size, 0.052 * size), shadow_drop=0.008)
        if jammy:
            pen.ellipse(middle, (0.031 * size * jammy, 0.049 * size * jammy), JAM)


def _draw_peelings(pen: Pen, thing: Thing, peeled: float, colour: tuple[int, int, int]) -> None:
    """Draw the strips that a peeler left beside the thing."""
    for step in range(5):
        if peeled > step / 5:
            x, y = thing.x + (0.045 * step - 0.09), thing.y + 0.07 + 0.012 * (step * 2 % 3)
            pen.line([(x - 0.03, y), (x, y - 0.012), (x + 0.03, y + 0.006)], 0.013, colour)


def draw_potato(pen: Pen, thing: Thing, look: Look) -> None:
    """Draw a potato: brown, peeled, or in chunks."""
    there, cut, peeled = look
    if not there:
        return
    x, y, size = thing.x, thing.y, thing.size
    flesh = thing.accent
    if not cut:
        skin = mix(thing.colour, flesh, peeled)
        pen.ellipse((x + 0.01, y + 0.018), (0.085 * size, 0.056 * size), (0, 0, 0), opacity=0.3)
        pen.ellipse((x, y), (0.085 * size, 0.056 * size), skin, degrees=-8)
        pen.ellipse((x - 0.02, y - 0.014), (0.05 * size, 0.026 * size), shade(skin, 1.12), degrees=-8)
        for dx, dy in ((-0.04, 0.01), (0.03, -0.01), (0.01, 0.024)):
            pen.ellipse((x + dx * size, y + dy * size), (0.007, 0.005), shade(skin, 0.7))
        _draw_peelings(pen, thing, peeled, shade(thing.colour, 0.85))
        return
    for step, (dx, dy) in enumerate(((-0.8, -0.3), (0.0, -0.5), (0.8, -0.2), (-0.45, 0.5), (0.4, 0.5))):
        middle = (x + dx * 0.085 * size * (0.5 + 0.5 * cut), y + dy * 0.08 * size * (0.5 + 0.5 * cut))
        box = [(-0.03, -0.022), (0.026, -0.03), (0.032, 0.02), (-0.024, 0.026)]
        corners = [(middle[0] + a * size, middle[1] + b * size) for a, b in (box if step % 2 else box[::-1])]
        pen.polygon([(a + 0.006, b + 0.01) for a, b in corners], (0, 0, 0), opacity=0.3)
        pen.polygon(corners, flesh)
        pen.line([corners[1], corners[2]], 0.01, shade(flesh, 0.75))


def draw_tomato(pen: Pen, thing: Thing, look: Look) -> None:
    """Draw a tomato, whole or in slices."""
    there, cut, _ = look
    if not there:
        return
    x, y, r = thing.x, thing.y, 0.058 * thing.size
    if not cut:
        _ball(pen, thing, (r, r * 0.92))
        pen.ellipse((x - r * 0.35, y - r * 0.35), (r * 0.3, r * 0.2), shade(thing.colour, 1.6))
        for tip in ((-0.5, 0.1), (0.45, 0.2), (0.1, -0.5), (-0.2, 0.5)):
            pen.line([(x, y), (x + tip[0] * r, y + tip[1] * r)], 0.012, (60, 130, 50))
        return
    for step in range(4):
        middle = (x + (step - 1.5) * r * 1.25 * (0.4 + 0.6 * cut), y + 0.014 * (step % 2))
        _slice(pen, thing, middle, (r * 0.8, r * 0.86), (r * 0.66, r * 0.72))
        for dx, dy in ((-0.3, -0.25), (0.3, -0.2), (0.0, 0.35)):
            pen.ellipse((middle[0] + dx * r, middle[1] + dy * r), (r * 0.18, r * 0.16), (246, 206, 120))
