"""The hands of the person in the kitchen: where they are at each time of an action, and how they and tools look.

Everything is drawn in view units: the scale of the world, the axes of the picture, so that arms always come in from
below however the camera is turned.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from earmark.kitchen import tableware
from earmark.kitchen.objects import draw_carried, grip_point
from earmark.kitchen.pen import Colour, Matrix, Pen, Point, mix, shade
from earmark.kitchen.room import Room, Thing
from earmark.kitchen.script import LOOKS, Event, Gesture, Script, smooth_step
from earmark.kitchen.states import TOOLS

_LINGER_SECONDS = (0.06, 0.4)  # between arriving and acting, and between acting and leaving, where acting is short
_LEAVE_SECONDS = {
    **{"open": 0.42, "cut": 0.36, "crack": 0.4, "pour": 0.55, "stir": 0.6},
    **dict.fromkeys(("wash", "dry", "peel", "spread"), 0.58),
}
_TOOL_OF = {"cut": "knife", "spread": "knife", "stir": "spoon", "peel": "peeler", "wash": "sponge", "dry": "cloth"}
_TOOL_SHIFTS = {"wash": (-0.05, -0.035), "dry": (-0.05, -0.03)}  # what a hand would hide peeps out
_LIQUIDS: dict[str, Colour] = {"water": tableware.WATER, "milk": tableware.MILK, "oil": tableware.OIL}
_POSES = {"turn-on": "point", "turn-off": "point", "open": "hook", "close": "hook"}
_STROKES: dict[str, tuple[float, Point, float]] = {
    "peel": (4.4, (0.09, 0.0), 0.035),
    "wash": (3.4, (0.06, 0.045), 0.0),
    "dry": (2.2, (0.1, 0.012), 0.0),
    "spread": (3.0, (0.06, 0.0), 0.0),
}
"""How a tool goes to and fro: strokes per second, how far, and how high it is lifted on the way back."""


@dataclass(frozen=True, slots=True)
class _Hand:
    """One hand: where its finger tips are relative to the touched point, in world units, and how it is held."""

    side: int  # +1 right, -1 left
    offset: Point
    pose: str  # "grip", "hook", "point"


def _reach(event: Event, time_seconds: float) -> float:
    """Return how far the hand has come: 0 out of view .. 1 at the thing.

    How long it lingers is the event's own, so that it does not give the verb away.
    """
    contact, start, stop = event.contact_seconds, event.start_seconds, event.stop_seconds
    shortest, longest = _LINGER_SECONDS
    own = (contact * 1000 % 89 / 88, contact * 1000 % 83 / 82)
    early, late = (shortest + (longest - shortest) * share for share in own)
    arrive = contact - min(max(early, 0.25) if event.verb in _LEAVE_SECONDS else early, 0.45 * (contact - start))
    leave = contact + min(_LEAVE_SECONDS.get(event.verb, late), 0.75 * (stop - contact))
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
    if verb in _STROKES:
        rate, reach, lift = _STROKES[verb]
        phase = 2 * np.pi * rate * max(elapsed, 0.0)
        rise = 0.12 * smooth_step(-elapsed / 0.2)
        offset = (0.05 + reach[0] * np.cos(phase), reach[1] * np.sin(phase) - rise - lift * max(0, np.sin(phase)))
        return [_Hand(-1, (-0.13, 0.03), "hook"), _Hand(1, offset, pose)]
    if event.thing == "jar":  # twisted open or shut
        twist = 0.035 * np.sin(2 * np.pi * 3.0 * elapsed)
        return [_Hand(-1, (-0.09, 0.05), "hook"), _Hand(1, (0.02 + twist, -0.02 + 0.4 * abs(twist)), "grip")]
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
    grip = np.asarray(grip_point(thing, script.look(event.thing, time_seconds)))
    target = view[:, :2] @ grip + view[:, 2]
    _draw_pair(pen, room, target, _hands(event, elapsed), reach, lambda tip: _draw_held(pen, room, event, tip, elapsed))


def draw_gesture(pen: Pen, view: Matrix, room: Room, script: Script, gesture: Gesture, time_seconds: float) -> None:
    """Draw the hands of an idle motion; the arguments are those of `draw_hands`."""
    thing = room.things[gesture.thing]
    size = np.array(pen.image.shape[1::-1]) / pen.scale
    share = (time_seconds - gesture.start_seconds) / (gesture.stop_seconds - gesture.start_seconds)
    there = smooth_step(min(share, 1 - share) / 0.35)
    beat = 2 * np.pi * (time_seconds - gesture.start_seconds)
    middle = size * (0.5, 0.62)
    if gesture.kind in ("withdraw", "point"):
        grip = np.asarray(grip_point(thing, script.look(gesture.thing, time_seconds)))
        target = view[:, :2] @ grip + view[:, 2] + (0.02, 0.1 if gesture.kind == "withdraw" else 0.2)
        hands = [_Hand(1, (0.0, 0.0), "point" if gesture.kind == "point" else "grip")]
        there *= 0.92
    elif gesture.kind == "wipe":
        target, hands = middle, [_Hand(1, (0.16 * np.sin(1.8 * beat), 0.02 * np.cos(1.8 * beat)), "hook")]
    elif gesture.kind == "scratch":
        scratch = 0.02 * np.sin(4.5 * beat)
        target, hands = middle, [_Hand(-1, (-0.03, 0.06), "grip"), _Hand(1, (0.03 + scratch, 0.0), "hook")]
    else:
        sway = 0.05 * np.sin(1.3 * beat)
        target = middle
        hands = [_Hand(-1, (-0.2 - sway, 0.02 + sway), "hook"), _Hand(1, (0.2 + sway, 0.02 - sway), "hook")]
    _draw_pair(pen, room, target, hands, there, None)


def draw_held_tool(pen: Pen, room: Room, tool: str) -> None:
    """Draw the hand that goes on holding a tool, low at the left of the view."""
    width, height = pen.image.shape[1] / pen.scale, pen.image.shape[0] / pen.scale
    tip = np.array([width / 2 - 0.42, height - 0.07])
    _draw_tool(pen.moved((0.0, 0.0), (tip[0], tip[1]), degrees=25), room.things[tool])
    _draw_arm(pen, room, np.array([width / 2 - 0.6, height + 0.42]), tip, _Hand(-1, (0.0, 0.0), "grip"))


def held_tool(script: Script, doing: Event | Gesture | None, time_seconds: float) -> str | None:
    """Return the tool that rests in the left hand: one that was taken, unless what is being done takes that hand."""
    if isinstance(doing, Gesture):
        busy = doing.kind in ("scratch", "talk")
    else:
        busy = doing is not None and (
            doing.thing in TOOLS
            or doing.verb in _TOOL_OF
            or len(_hands(doing, time_seconds - doing.contact_seconds)) > 1
        )
    if busy:
        return None
    return next((tool for tool in TOOLS if script.state(tool, time_seconds) == "in hand"), None)


def _draw_pair(
    pen: Pen,
    room: Room,
    target: Matrix,
    hands: Sequence[_Hand],
    reach: float,
    draw_held: Callable[[Matrix], None] | None,
) -> None:
    """Draw one or two hands that have come as far as `reach` to a target in view units, over their shadows."""
    width, height = pen.image.shape[1] / pen.scale, pen.image.shape[0] / pen.scale
    elbows, tips = [], []
    shift = np.array([0.05 * np.cos(room.light_from), 0.09])
    for hand in hands:
        rest = np.array([width / 2 + hand.side * 0.3, height + 0.3])
        tip = rest + (target + hand.offset - rest) * reach
        elbow = np.array([width / 2 + hand.side * (0.42 + 0.1 * (1 - reach)), height + 0.38])
        along = (tip - elbow) / np.hypot(*(tip - elbow))
        across = np.array([-along[1], along[0]])
        arm = [elbow - across * 0.1, tip - across * 0.06, tip + along * 0.04, tip + across * 0.06, elbow + across * 0.1]
        pen.polygon(np.stack(arm) + shift, (0, 0, 0), opacity=0.22)
        elbows.append(elbow)
        tips.append(tip)
    if draw_held is not None:
        draw_held(tips[-1])
    for hand, elbow, tip in zip(hands, elbows, tips, strict=True):
        _draw_arm(pen, room, elbow, tip, hand)


def _draw_held(pen: Pen, room: Room, event: Event, tip: Matrix, elapsed: float) -> None:
    """Draw the thing carried or the tool used by the (last) hand, beneath its fingers."""
    place = (float(tip[0]), float(tip[1]))
    thing = room.things[event.thing]
    if event.verb in ("take", "put"):
        if (event.verb == "take") == (elapsed >= 0):
            look = LOOKS[event.before if event.verb == "take" else event.after]
            draw_carried(pen.moved(grip_point(thing, look), place, degrees=4), thing, look)
    elif event.verb in _TOOL_OF:
        shift = _TOOL_SHIFTS.get(event.verb, (0.0, 0.0))
        _draw_tool(pen.moved((0.0, 0.0), (place[0] + shift[0], place[1] + shift[1])), room.things[_TOOL_OF[event.verb]])
    elif event.verb == "pour":
        _draw_jug(pen, place, _LIQUIDS[event.noun], elapsed)
    elif event.verb == "crack":
        _draw_shell(pen, place, elapsed)


def _draw_tool(pen: Pen, tool: Thing) -> None:
    """Draw a tool held at the origin."""
    draw = {
        "knife": tableware.draw_knife,
        "spoon": tableware.draw_spoon,
        "peeler": tableware.draw_peeler,
        "sponge": tableware.draw_sponge,
        "cloth": tableware.draw_cloth,
    }
    draw[tool.name](pen, tool)


def _draw_shell(pen: Pen, place: Point, elapsed: float) -> None:
    """Draw the egg between two hands, or the halves of its shell, the white running out."""
    x, y = place
    apart = 0.03 + 0.09 * smooth_step(elapsed / 0.2)
    if elapsed < 0:
        pen.ellipse((x - apart, y + 0.03), (0.05, 0.04), (232, 208, 180))
        pen.ellipse((x - apart - 0.012, y + 0.018), (0.02, 0.013), (250, 232, 210))
        return
    if elapsed < 0.4:
        pen.line([(x - apart, y + 0.03), (x - apart, y + 0.11)], 0.04, (250, 246, 232), opacity=0.85)
    for middle in (x - 2 * apart, x):
        pen.ellipse((middle, y + 0.03), (0.032, 0.04), (232, 208, 180))
        pen.ellipse((middle, y + 0.034), (0.022, 0.03), (180, 158, 134))


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
