"""The hands of the person in the kitchen: where they are at each time of an action, and how they and tools look.

Everything is drawn in view units: the scale of the world, the axes of the picture, so that arms always come in from
below however the camera is turned.
"""

from dataclasses import dataclass

import numpy as np

from earmark.kitchen.objects import MILK, WATER, draw_lid, draw_thing, grip_point
from earmark.kitchen.pen import Colour, Matrix, Pen, Point, mix, shade
from earmark.kitchen.room import Room, Thing
from earmark.kitchen.script import LOOKS, Event, Script, smooth_step

_ARRIVE_SECONDS = {"take": 0.16, "put": 0.05}
_LEAVE_SECONDS = {
    **{"take": 0.06, "put": 0.14, "open": 0.42, "close": 0.12, "turn-on": 0.2, "turn-off": 0.2},
    **{"cut": 0.36, "pour": 0.55, "stir": 0.6, "crack": 0.4},
}
_POSES = {"turn-on": "point", "turn-off": "point", "open": "hook", "close": "hook"}


@dataclass(frozen=True, slots=True)
class _Hand:
    """One hand: where its finger tips are relative to the touched point, in world units, and how it is held."""

    side: int  # +1 right, -1 left
    offset: Point
    pose: str  # "grip", "hook", "point"


def _reach(event: Event, time_seconds: float) -> float:
    """Return how far the hand has come: 0 out of view .. 1 at the thing."""
    contact, start, stop = event.contact_seconds, event.start_seconds, event.stop_seconds
    arrive = contact - min(_ARRIVE_SECONDS.get(event.verb, 0.36), 0.6 * (contact - start))
    leave = contact + min(_LEAVE_SECONDS[event.verb], 0.75 * (stop - contact))
    if time_seconds < contact:
        return smooth_step((time_seconds - start) / (arrive - start))
    return 1 - smooth_step((time_seconds - leave) / (stop - leave))


def _hands(event: Event, elapsed: float) -> list[_Hand]:
    """Return the hands `elapsed` seconds after the contact (negative before)."""
    verb, pose = event.verb, _POSES.get(event.verb, "grip")
    if verb in ("turn-on", "turn-off"):
        return [_Hand(1, (0.0, 0.05 * smooth_step(abs(elapsed) / 0.15)), pose)]
    if verb == "cut":
        lift = 0.15 * smooth_step(-elapsed / 0.22) * smooth_step((elapsed + 0.6) / 0.2)
        slide = 0.05 * np.sin(min(max(elapsed, 0.0), 0.4) / 0.4 * 2 * np.pi)
        return [_Hand(-1, (-0.11, 0.03), "grip"), _Hand(1, (0.13 + slide, 0.07 - lift), pose)]
    if verb == "crack":
        lift = 0.07 * smooth_step(-elapsed / 0.15)
        apart = 0.03 + 0.09 * smooth_step(elapsed / 0.2)
        return [_Hand(-1, (-apart, 0.02 - lift), pose), _Hand(1, (apart, 0.02 - lift), pose)]
    if verb == "pour":
        return [_Hand(1, (0.17, -0.12), pose)]
    if verb == "stir":
        lower = 0.1 * smooth_step(-elapsed / 0.25)
        turn = 2 * np.pi * 2.6 * max(elapsed, 0.0)
        circle = (0.05 * np.cos(turn) - 0.05, 0.032 * np.sin(turn))
        return [_Hand(-1, (-0.12, 0.03), "hook"), _Hand(1, (0.12 + circle[0], -0.07 + circle[1] - lower), pose)]
    return [_Hand(1, (0.0, 0.0), pose)]


def draw_hands(pen: Pen, view: Matrix, room: Room, script: Script, event: Event, time_seconds: float) -> None:
    """Draw the hands of an action, with what they hold.

    Args:
        pen: Draws in view units (pixels over the view's scale).
        view: float64 (2, 3): world units to view units.
        room: The kitchen.
        script: What happens.
        event: The action under way.
        time_seconds: Between the action's start and stop.
    """
    thing = room.things[event.thing]
    elapsed = time_seconds - event.contact_seconds
    reach = _reach(event, time_seconds)
    width, height = pen.image.shape[1] / pen.scale, pen.image.shape[0] / pen.scale
    grip = np.asarray(grip_point(thing, script.look(event.thing, time_seconds)))
    target = view[:, :2] @ grip + view[:, 2]
    tips = []
    hands = _hands(event, elapsed)
    for hand in hands:
        rest = np.array([width / 2 + hand.side * 0.3, height + 0.3])
        tip = rest + (target + hand.offset - rest) * reach
        tips.append(tip)
        pen.ellipse((tip[0] + 0.03, tip[1] + 0.12), (0.1, 0.1), (0, 0, 0), opacity=0.22)
    _draw_held(pen, thing, event, tips[-1], elapsed)
    for hand, tip in zip(hands, tips, strict=True):
        elbow = np.array([width / 2 + hand.side * (0.42 + 0.1 * (1 - reach)), height + 0.38])
        _draw_arm(pen, room, elbow, tip, hand)


def _draw_held(pen: Pen, thing: Thing, event: Event, tip: Matrix, elapsed: float) -> None:
    """Draw the thing carried or the tool used by the (last) hand, beneath its fingers."""
    place = (float(tip[0]), float(tip[1]))
    if event.verb in ("take", "put"):
        if (event.verb == "take") == (elapsed >= 0):
            look = LOOKS[event.before if event.verb == "take" else event.after]
            carried = pen.moved(grip_point(thing, look), place, degrees=4)
            if thing.name == "lid":
                draw_lid(carried, thing)
            else:
                draw_thing(carried, thing, look)
    elif event.verb == "cut":
        _draw_knife(pen, place)
    elif event.verb == "pour":
        _draw_jug(pen, place, WATER if event.noun == "water" else MILK, elapsed)
    elif event.verb == "stir":
        x, y = place
        pen.line([(x + 0.03, y - 0.09), (x - 0.11, y + 0.06)], 0.018, (150, 100, 60))
        pen.line([(x + 0.028, y - 0.094), (x - 0.11, y + 0.056)], 0.006, (200, 150, 100))
        pen.ellipse((x - 0.12, y + 0.07), (0.026, 0.018), (150, 100, 60), degrees=-40)


def _draw_knife(pen: Pen, place: Point) -> None:
    x, y = place
    outline = [(-0.02, -0.045), (-0.23, -0.1), (-0.25, -0.085), (-0.21, -0.045), (-0.03, 0.0)]
    blade = np.array(outline) + np.array(place)
    pen.polygon(blade + np.array([0.01, 0.03]), (0, 0, 0), opacity=0.25)
    pen.polygon(blade, (206, 212, 218))
    pen.line([tuple(blade[3]), tuple(blade[4])], 0.008, (246, 248, 250))
    pen.line([(x - 0.03, y - 0.025), (x + 0.07, y + 0.0)], 0.032, (44, 38, 36))


def _draw_jug(pen: Pen, place: Point, liquid: Colour, elapsed: float) -> None:
    """Draw a jug that tips before the contact; its stream falls on the touched point."""
    x, y = place
    tipped = smooth_step((elapsed + 0.3) / 0.28) * (1 - smooth_step((elapsed - 0.5) / 0.25))
    if 0 <= elapsed < 0.52:
        sway = 0.004 * np.sin(elapsed * 60)
        pen.line([(x - 0.155, y - 0.045), (x - 0.172 + sway, y + 0.0), (x - 0.172 - sway, y + 0.125)], 0.026, liquid)
        pen.line([(x - 0.16, y - 0.02), (x - 0.176 + sway, y + 0.12)], 0.007, shade(liquid, 1.3))
    body = pen.moved((0.0, 0.0), (x - 0.075, y - 0.04), degrees=-62 * tipped)
    body.line([(0.05, -0.05), (0.105, -0.035), (0.1, 0.05), (0.05, 0.05)], 0.022, (150, 170, 180))
    body.polygon([(-0.06, -0.1), (-0.09, -0.115), (0.06, -0.1), (0.07, 0.09), (-0.065, 0.09)], (196, 212, 220))
    body.polygon([(-0.05, -0.02), (0.058, -0.02), (0.062, 0.08), (-0.057, 0.08)], mix(liquid, (196, 212, 220), 0.25))
    body.line([(-0.045, -0.08), (-0.048, 0.07)], 0.01, (240, 246, 250))


def _draw_arm(pen: Pen, room: Room, elbow: Matrix, tip: Matrix, hand: _Hand) -> None:
    """Draw forearm, palm and fingers."""
    along = (tip - elbow) / np.hypot(*(tip - elbow))
    across = np.array([-along[1], along[0]]) * hand.side
    degrees = float(np.degrees(np.arctan2(along[1], along[0])))
    dark, light = shade(room.skin, 0.68), shade(room.skin, 1.1)
    palm = tip - along * (0.115 if hand.pose == "point" else 0.07)
    wrist = palm - along * 0.09
    cuff = wrist - along * 0.1

    def strip(start: Matrix, end: Matrix, start_half: float, end_half: float) -> Matrix:
        corners: Matrix = np.stack(
            [start - across * start_half, end - across * end_half, end + across * end_half, start + across * start_half]
        )
        return corners

    pen.polygon(strip(cuff, palm, 0.066, 0.056), dark)
    pen.polygon(strip(cuff, palm, 0.06, 0.05), room.skin)
    pen.polygon(strip(elbow, cuff, 0.11, 0.078), shade(room.sleeve, 0.7))
    pen.polygon(strip(elbow, cuff, 0.098, 0.07), room.sleeve)
    pen.line([tuple(cuff - across * 0.07), tuple(cuff + across * 0.07)], 0.022, shade(room.sleeve, 0.8))
    long = {"grip": 0.075, "hook": 0.1, "point": 0.05}[hand.pose]
    spread = {"grip": 1.15, "hook": 0.85, "point": 0.75}[hand.pose]
    fingers = []
    for number, position in enumerate((-0.045, -0.015, 0.015, 0.042)):
        base = palm + along * 0.035 + across * position
        length = long * (1.0, 1.12, 1.05, 0.85)[number]
        if hand.pose == "point" and number == 0:
            length = 0.1
        fingers.append((base, palm + along * (0.02 + length) + across * position * spread))
    thumb = (palm - across * 0.045 - along * 0.01, palm - across * 0.082 + along * 0.045)
    for start, end in (*fingers, thumb):
        pen.line([tuple(start), tuple(end)], 0.036, dark)
    pen.ellipse((palm[0], palm[1]), (0.072, 0.064), dark, degrees=degrees)
    pen.ellipse((palm[0], palm[1]), (0.066, 0.058), room.skin, degrees=degrees)
    for start, end in (*fingers, thumb):
        pen.line([tuple(start), tuple(end)], 0.026, room.skin)
        knuckle = start + (end - start) * 0.25
        pen.ellipse((knuckle[0], knuckle[1]), (0.011, 0.009), light)
        pen.ellipse((end[0], end[1]), (0.009, 0.008), shade(room.skin, 1.18))
