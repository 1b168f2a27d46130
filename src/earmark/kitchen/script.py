"""What happens when in a video of Audible Kitchen: actions, idle motions, talk, and sounds from elsewhere.

A script is drawn from a random generator, and both the picture (picture.py) and the sound (sound.py) are rendered from
it, so that it is the ground truth of both.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from earmark.kitchen.activities import Planner
from earmark.kitchen.presets import Difficulty
from earmark.kitchen.states import (
    ANIMATION,
    LOOKS,
    NOUN_CATEGORIES,
    NOUNS,
    TRANSITIONS,
    VERB_CATEGORIES,
    VERBS,
    Transition,
)

__all__ = [
    "ANIMATION",
    "GESTURES",
    "LOOKS",
    "NOUNS",
    "NOUN_CATEGORIES",
    "OFF_SCREEN_SOUNDS",
    "TRANSITIONS",
    "VERBS",
    "VERB_CATEGORIES",
    "Event",
    "Gesture",
    "Script",
    "Transition",
    "smooth_step",
    "write_script",
]

ACTION_SECONDS = (1.3, 2.9)
_LEAD_SECONDS, _FOLLOW_SECONDS = 0.58, 0.6  # least time from the start to the contact, and from there to the stop
IDLE_SPREAD = 0.06  # how far the idle share of a video may be from that of its kitchen
REST_SECONDS = (8.0, 10.6)
_REST_SHARE = 0.66  # of the idle time that is left when every pause has its least
_LARGEST_REST_SHARE = 0.85
_MIN_PAUSE_SECONDS = 0.2
_NEVER_SILENT = ("turn-on", "turn-off", "pour")  # their sounds go on: a silent one would contradict what follows
_GESTURE_SECONDS = (0.78, 2.0)
_SLOT_SECONDS = (1.01, 3.0)  # of a pause in which there is room for one idle motion
_TALK_SECONDS = (1.5, 5.0)

OFF_SCREEN_SOUNDS = {
    **{"thump": "wood", "clink": "glass", "door": "wood", "dishes": "ceramic", "beep": "plastic", "dog": "animal"},
}
"""Sounds with no visible cause, and what makes them."""

GESTURES = ("withdraw", "point", "wipe", "scratch", "talk")
"""Idle motions: reach for a thing and draw back, point at it, wipe the air, scratch a hand, talk with both hands."""


@dataclass(frozen=True, slots=True)
class Event:
    """One action on one thing; an off-screen sound has an empty verb, noun, before and after.

    Attributes:
        thing: Key of `TRANSITIONS`; of an off-screen sound, what makes it: a value of `OFF_SCREEN_SOUNDS`.
        verb: One of `VERBS`.
        noun: One of `NOUNS`: what a narrator would name, such as "milk" when the thing is the bowl.
        start_seconds: The hand starts to reach.
        contact_seconds: Point of no return: the audible contact, at which the state changes.
        stop_seconds: The hand is gone.
        before: State of the thing before.
        after: State of the thing after.
        force_db: How hard it was done, in decibels around 0.
        audible: Whether it makes a sound.
        on_screen: Whether it has a visible cause.
        sound: Key of `OFF_SCREEN_SOUNDS`; empty on screen.
    """

    thing: str
    verb: str
    noun: str
    start_seconds: float
    contact_seconds: float
    stop_seconds: float
    before: str
    after: str
    force_db: float
    audible: bool = True
    on_screen: bool = True
    sound: str = ""


@dataclass(frozen=True, slots=True)
class Gesture:
    """A visible motion of the hands that changes nothing and makes no sound.

    Attributes:
        kind: One of `GESTURES`.
        thing: The thing it is about.
        start_seconds: The hands come into view.
        stop_seconds: They are gone.
    """

    kind: str
    thing: str
    start_seconds: float
    stop_seconds: float


@dataclass(frozen=True)
class Script:
    """All that happens in one video.

    Attributes:
        duration_seconds: Length of the video.
        initial: State of every thing at time 0.
        events: In order of time; on-screen ones never overlap.
        gestures: Idle motions, in order of time, in the pauses between on-screen events.
        talk: (start, stop) in seconds of each time that somebody out of sight talks.
    """

    duration_seconds: float
    initial: dict[str, str]
    events: tuple[Event, ...]
    gestures: tuple[Gesture, ...] = ()
    talk: tuple[tuple[float, float], ...] = ()
    _timelines: dict[str, tuple[list[float], list[Event]]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        timelines: dict[str, tuple[list[float], list[Event]]] = {thing: ([], []) for thing in self.initial}
        for event in self.events:
            if event.on_screen:
                begins, events = timelines[event.thing]
                begins.append(event.contact_seconds + ANIMATION[event.verb][0])
                events.append(event)
        object.__setattr__(self, "_timelines", timelines)

    def events_of(self, thing: str) -> list[Event]:
        """Return the on-screen events that act on a thing, in order of time."""
        return self._timelines[thing][1]

    def state(self, thing: str, time_seconds: float) -> str:
        """Return the state of a thing at a time."""
        begins, events = self._timelines[thing]
        index = bisect_right(begins, time_seconds) - 1
        return self.initial[thing] if index < 0 else events[index].after

    def spans(self, thing: str, states: Sequence[str]) -> list[tuple[float, float]]:
        """Return (start, stop) in seconds of each time that a thing is in one of some states."""
        events = self.events_of(thing)
        turns = [(0.0, self.initial[thing]), *((event.contact_seconds, event.after) for event in events)]
        ends = [*(time for time, _ in turns[1:]), self.duration_seconds]
        spans: list[tuple[float, float]] = []
        for (start, state), end in zip(turns, ends, strict=True):
            if state in states and spans and spans[-1][1] == start:
                spans[-1] = (spans[-1][0], end)
            elif state in states:
                spans.append((start, end))
        return spans

    def look(self, thing: str, time_seconds: float) -> tuple[float, float, float]:
        """Return how a thing looks at a time: (there, how far, how mixed), see `LOOKS`."""
        begins, events = self._timelines[thing]
        index = bisect_right(begins, time_seconds) - 1
        if index < 0:
            return LOOKS[self.initial[thing]]
        event = events[index]
        begin, end = ANIMATION[event.verb]
        elapsed = time_seconds - event.contact_seconds - begin
        if elapsed >= end - begin:
            return LOOKS[event.after]
        share = smooth_step(elapsed / (end - begin))
        before, after = LOOKS[event.before], LOOKS[event.after]
        there, far, mixed = (b + (a - b) * share for b, a in zip(before, after, strict=True))
        return there, far, mixed


def smooth_step(share: float) -> float:
    """Return 0..1 for 0..1 with zero slope at both ends; clipped outside.

    >>> smooth_step(-1.0), smooth_step(0.5), smooth_step(2.0)
    (0.0, 0.5, 1.0)
    """
    share = min(1.0, max(0.0, share))
    return share * share * (3 - 2 * share)


def write_script(rng: np.random.Generator, *, duration_seconds: float, difficulty: Difficulty) -> Script:
    """Draw what happens in one video.

    The number of actions follows from the idle share (drawn around that of the difficulty) and their lengths; two
    thirds of the idle time go to rests of `REST_SECONDS`, what is left to the short pauses. What is done is up to
    `Planner`.

    Args:
        rng: Source of all that is random.
        duration_seconds: Length of the video, at least 5.
        difficulty: How much of the time is idle, how much of the actions silent or unforeseen, and what distracts.

    Returns:
        The script. Its times are multiples of 1 ms (contact) and 10 ms (start and stop). Distractors are drawn
        apart: more or fewer of them leave the actions as they are.

    Raises:
        ValueError: The video is too short for actions.

    >>> script = write_script(np.random.default_rng(0), duration_seconds=20, difficulty=Difficulty())
    >>> first = script.events[0]
    >>> first.start_seconds < first.contact_seconds < first.stop_seconds, script.look(first.thing, 20) in LOOKS.values()
    (True, True)
    """
    if duration_seconds < 5:
        raise ValueError(f"a video of {duration_seconds} s is too short for actions: at least 5 s")
    of_actions, of_sounds, of_gestures, of_talk = rng.spawn(4)
    spans = _deal_time(of_actions, duration_seconds, difficulty.idle_share)
    planner = Planner(of_actions, plan_share=difficulty.plan_share)
    initial = dict(planner.states)
    actions: list[Event] = []
    for start, stop in spans:
        thing, step = planner.next_step()
        contact = round(of_actions.uniform(start + _LEAD_SECONDS, stop - _FOLLOW_SECONDS), 3)
        silent = of_actions.random() < difficulty.silent_share and step.verb not in _NEVER_SILENT
        force = _draw_force(of_actions)
        actions.append(
            Event(thing, step.verb, step.noun, start, contact, stop, step.before, step.after, force, not silent)
        )
    elsewhere = _draw_sounds(of_sounds, duration_seconds, of_sounds.poisson(difficulty.off_screen_share * len(actions)))
    return Script(
        duration_seconds,
        initial,
        tuple(sorted((*actions, *elsewhere), key=lambda event: event.contact_seconds)),
        tuple(_draw_gestures(of_gestures, spans, difficulty.idle_motion_share)),
        tuple(_draw_talk(of_talk, duration_seconds, difficulty.babble_share)),
    )


def _draw_force(rng: np.random.Generator) -> float:
    return round(float(np.clip(rng.normal(0, 2.0), -4, 4)), 2)


def _draw_sounds(rng: np.random.Generator, duration_seconds: float, number: int) -> list[Event]:
    """Return sounds with no visible cause."""
    events = []
    for _ in range(number):
        sound = str(rng.choice(list(OFF_SCREEN_SOUNDS)))
        contact = round(rng.uniform(1.0, duration_seconds - 1.0), 3)
        around = (round(contact - 0.1, 2), contact, round(contact + 0.4, 2))
        force = _draw_force(rng)
        events.append(Event(OFF_SCREEN_SOUNDS[sound], "", "", *around, "", "", force, on_screen=False, sound=sound))
    return events


def _draw_gestures(rng: np.random.Generator, spans: Sequence[tuple[float, float]], share: float) -> list[Gesture]:
    """Return idle motions in the longer pauses between actions: each stretch of about 3 s may have one."""
    gestures = []
    for (_, begin), (end, _) in pairwise(((0.0, 0.0), *spans)):
        shortest, usual = _SLOT_SECONDS
        num_slots = max(1, round((end - begin) / usual)) if end - begin >= shortest else 0
        for slot in range(num_slots):
            if rng.random() >= share:
                continue
            slot_seconds = (end - begin) / num_slots
            room_seconds = slot_seconds - 0.2
            seconds = round(rng.uniform(_GESTURE_SECONDS[0], min(_GESTURE_SECONDS[1], room_seconds - 0.02)), 2)
            start = round(begin + slot * slot_seconds + 0.1 + rng.uniform(0, room_seconds - seconds), 2)
            kind, thing = str(rng.choice(GESTURES)), str(rng.choice(list(TRANSITIONS)))
            gestures.append(Gesture(kind, thing, start, round(start + seconds, 2)))
    return gestures


def _draw_talk(rng: np.random.Generator, duration_seconds: float, share: float) -> list[tuple[float, float]]:
    """Return the spans in which somebody talks: spells of talk with silences drawn to match the share."""
    if not share:
        return []
    spans = []
    silence = sum(_TALK_SECONDS) / 2 * (1 - share) / share
    end = rng.uniform(-_TALK_SECONDS[1], 0.0)  # talk may have begun before the video
    while (start := end + rng.exponential(silence)) < duration_seconds:
        end = start + rng.uniform(*_TALK_SECONDS)
        if end > 0:
            spans.append((round(max(start, 0.0), 2), round(min(end, duration_seconds), 2)))
    return spans


def _deal_time(rng: np.random.Generator, duration_seconds: float, idle_share: float) -> list[tuple[float, float]]:
    """Return (start, stop) of every action: runs with short pauses between the actions, and rests between the runs."""
    # Rounded, so that bounds are the numbers that one would write: of 0.52 they are 0.46 and 0.58.
    least, most = round(idle_share - IDLE_SPREAD, 6), round(idle_share + IDLE_SPREAD, 6)
    busy_seconds = (1 - rng.uniform(least, most)) * duration_seconds
    lengths = _draw_lengths(rng, ACTION_SECONDS, busy_seconds)
    # With little idle time the last action may reach so far beyond its share that nothing is left for the pauses.
    while sum(lengths) + _MIN_PAUSE_SECONDS * (len(lengths) + 1) > duration_seconds - 0.01:
        lengths.pop()
    num_pauses = len(lengths) + 1
    spare = duration_seconds - sum(lengths) - _MIN_PAUSE_SECONDS * num_pauses
    rests = _draw_lengths(rng, REST_SECONDS, _REST_SHARE * spare)[: num_pauses - 1]
    while sum(rests) > _LARGEST_REST_SHARE * spare:
        rests.pop()
    # A rest on either side of an action sets it apart: some changes have seconds around them in which nothing changes.
    sides = dict.fromkeys(int(pause) for action in rng.permutation(len(lengths)) for pause in (action, action + 1))
    rest_of = dict(zip(sides, rests, strict=False))
    shares = rng.dirichlet(np.full(num_pauses - len(rests), 1.5)).tolist()
    short = iter([_MIN_PAUSE_SECONDS * (1 + len(rests) * share) + (spare - sum(rests)) * share for share in shares])
    pauses = [rest_of[pause] if pause in rest_of else next(short) for pause in range(num_pauses)]
    starts = np.cumsum(pauses[:-1]) + np.concatenate([[0.0], np.cumsum(lengths[:-1])])
    return [(round(float(s), 2), round(float(s.round(2)) + n, 2)) for s, n in zip(starts, lengths, strict=True)]


def _draw_lengths(rng: np.random.Generator, bounds: tuple[float, float], total: float) -> list[float]:
    """Return lengths that add up to about a total, none if less than half a length is asked for."""
    lengths: list[float] = []
    while True:
        length = round(rng.uniform(*bounds), 2)
        if sum(lengths) + length / 2 > total:
            return lengths
        lengths.append(length)
