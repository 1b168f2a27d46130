"""What happens when in a video of Audible Kitchen: things, their states, and the events that change them.

First station of the generator: a script is drawn from a random generator, and both the picture (picture.py) and the
sound (sound.py) are rendered from it, so that it is the truth of both.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

VERB_CATEGORIES = {
    **{"take": "retrieve", "put": "leave", "open": "access", "close": "block", "turn-on": "access"},
    **{"turn-off": "block", "cut": "split", "pour": "merge", "stir": "merge", "crack": "split"},
}
"""Verb classes and their categories, named as in EPIC-KITCHENS-100; the position is the class id."""

NOUN_CATEGORIES = {
    **{"tap": "appliances", "drawer": "furniture", "cupboard": "storage", "fridge": "appliances", "hob": "appliances"},
    **{"kettle": "appliances", "lid": "containers", "plate": "crockery", "cup": "crockery", "bowl": "crockery"},
    **{"carrot": "vegetables", "onion": "vegetables", "bread": "baked goods and grains", "egg": "dairy and eggs"},
    **{"water": "drinks", "milk": "dairy and eggs", "mixture": "prepared food"},
}
"""Noun classes and their categories, named as in EPIC-KITCHENS-100; the position is the class id."""

VERBS, NOUNS = tuple(VERB_CATEGORIES), tuple(NOUN_CATEGORIES)


@dataclass(frozen=True, slots=True)
class Transition:
    """One way to act on a thing: only possible in state `before`, leaves it in state `after`."""

    verb: str
    noun: str
    before: str
    after: str


def _cycle(noun: str, states: Sequence[str], verbs: Sequence[str]) -> tuple[Transition, ...]:
    """Return the transitions through a closed ring of states; a verb is "verb" or "verb noun"."""
    following = (*states[1:], states[0])
    return tuple(
        Transition(verb.split()[0], verb.split()[-1] if " " in verb else noun, before, after)
        for verb, before, after in zip(verbs, states, following, strict=True)
    )


def _food(noun: str, verb: str, changed: str) -> tuple[Transition, ...]:
    return _cycle(noun, ("whole", changed, "away"), (verb, "take", "put"))


TRANSITIONS: dict[str, tuple[Transition, ...]] = {
    **{name: _cycle(name, ("closed", "open"), ("open", "close")) for name in ("drawer", "cupboard", "fridge")},
    **{name: _cycle(name, ("off", "on"), ("turn-on", "turn-off")) for name in ("tap", "hob", "kettle")},
    "lid": _cycle("lid", ("on pan", "away"), ("take", "put")),
    "plate": _cycle("plate", ("on counter", "away"), ("take", "put")),
    "cup": _cycle("cup", ("empty", "full", "away"), ("pour water", "take", "put")),
    "bowl": _cycle("bowl", ("dry", "wet", "mixed", "away"), ("pour milk", "stir mixture", "take", "put")),
    "carrot": _food("carrot", "cut", "cut"),
    "onion": _food("onion", "cut", "cut"),
    "bread": _food("bread", "cut", "cut"),
    "egg": _food("egg", "crack", "cracked"),
}
"""Every thing of a kitchen and the ring of states it goes through."""

LOOKS: dict[str, tuple[float, float, float]] = {
    **dict.fromkeys(("closed", "off", "on pan", "on counter", "empty", "dry", "whole"), (1.0, 0.0, 0.0)),
    **dict.fromkeys(("open", "on", "full", "wet", "cut", "cracked"), (1.0, 1.0, 0.0)),
    "mixed": (1.0, 1.0, 1.0),
    "away": (0.0, 0.0, 0.0),
}
"""What a state looks like: (there, how far open / on / full / apart, how well mixed), each 0..1."""

ANIMATION: dict[str, tuple[float, float]] = {
    "take": (0.0, 0.0),
    "put": (0.0, 0.0),
    "open": (0.0, 0.4),
    "close": (-0.4, 0.0),
    "turn-on": (0.0, 0.0),
    "turn-off": (0.0, 0.0),
    "cut": (0.0, 0.12),
    "pour": (0.0, 0.5),
    "stir": (0.0, 0.5),
    "crack": (0.0, 0.2),
}
"""When the look changes, in seconds after the contact: a door moves after its latch clicks, and before it thumps."""

ACTION_SECONDS = (1.3, 2.1)
IDLE_SHARE = (0.44, 0.55)
_MIN_PAUSE_SECONDS = 0.2
_EAGERNESS = {
    "turn-on": 1.4,
    "turn-off": 1.2,
    "cut": 2.5,
    "crack": 2.5,
    "pour": 3.0,
    "stir": 4.0,
}  # rare states are soon acted on
_THING_EAGERNESS = {"bowl": 3.0, "cup": 2.0, "egg": 2.0}
_NEVER_SILENT = ("turn-on", "turn-off", "pour")  # their sounds go on: a silent one would contradict what follows


@dataclass(frozen=True, slots=True)
class Event:
    """One action on one thing; an off-screen sound has an empty verb, noun, before and after.

    Attributes:
        thing: Key of `TRANSITIONS`.
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


@dataclass(frozen=True)
class Script:
    """All that happens in one video.

    Attributes:
        duration_seconds: Length of the video.
        initial: State of every thing at time 0.
        events: In order of time; on-screen ones never overlap.
    """

    duration_seconds: float
    initial: dict[str, str]
    events: tuple[Event, ...]
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


def write_script(
    rng: np.random.Generator,
    *,
    duration_seconds: float,
    silent_share: float = 0.0,
    off_screen_share: float = 0.0,
) -> Script:
    """Draw what happens in one video.

    The number of actions follows from the idle share (drawn from `IDLE_SHARE`) and their lengths; the idle time is
    dealt out to the pauses at random. An action is the likelier the fewer things share its verb, so that the verbs are
    not far from equally frequent.

    Args:
        rng: Source of all that is random.
        duration_seconds: Length of the video, at least 5.
        silent_share: Probability that an action which may be silent makes no sound.
        off_screen_share: Expected number of sounds with no visible cause, per action.

    Returns:
        The script. Its times are multiples of 1 ms (contact) and 10 ms (start and stop).

    Raises:
        ValueError: The video is too short for actions.

    >>> script = write_script(np.random.default_rng(0), duration_seconds=20)
    >>> first = script.events[0]
    >>> first.start_seconds < first.contact_seconds < first.stop_seconds, script.look(first.thing, 20) in LOOKS.values()
    (True, True)
    """
    if duration_seconds < 5:
        raise ValueError(f"a video of {duration_seconds} s is too short for actions: at least 5 s")
    spans = _deal_time(rng, duration_seconds)
    states = {thing: str(rng.choice([step.before for step in ring])) for thing, ring in TRANSITIONS.items()}
    initial = dict(states)
    events: list[Event] = []
    last_thing = ""
    for start, stop in spans:
        thing, step = _next_step(rng, states, last_thing)
        contact = round(start + (stop - start) * rng.uniform(0.46, 0.54), 3)
        silent = rng.random() < silent_share and step.verb not in _NEVER_SILENT
        force = round(float(np.clip(rng.normal(0, 2.0), -4, 4)), 2)
        events.append(
            Event(thing, step.verb, step.noun, start, contact, stop, step.before, step.after, force, not silent)
        )
        states[thing], last_thing = step.after, thing
    for _ in range(rng.poisson(off_screen_share * len(events))):
        contact = round(rng.uniform(1.0, duration_seconds - 1.0), 3)
        where = str(rng.choice(["wood", "metal", "ceramic", "plastic"]))
        around = (round(contact - 0.1, 2), contact, round(contact + 0.4, 2))
        events.append(Event(where, "", "", *around, "", "", -4.0, on_screen=False))
    events.sort(key=lambda event: event.contact_seconds)
    return Script(duration_seconds, initial, tuple(events))


def _deal_time(rng: np.random.Generator, duration_seconds: float) -> list[tuple[float, float]]:
    """Return (start, stop) of every action."""
    busy_seconds = (1 - rng.uniform(*IDLE_SHARE)) * duration_seconds
    lengths: list[float] = []
    while True:
        length = round(rng.uniform(*ACTION_SECONDS), 2)
        if sum(lengths) + length / 2 > busy_seconds:
            break
        lengths.append(length)
    spare = duration_seconds - sum(lengths) - _MIN_PAUSE_SECONDS * (len(lengths) + 1)
    pauses = _MIN_PAUSE_SECONDS + spare * rng.dirichlet(np.full(len(lengths) + 1, 1.5))
    starts = np.cumsum(pauses[:-1]) + np.concatenate([[0.0], np.cumsum(lengths[:-1])])
    starts = starts.round(2)
    return [(round(float(s), 2), round(float(s) + n, 2)) for s, n in zip(starts, lengths, strict=True)]


def _next_step(rng: np.random.Generator, states: dict[str, str], last_thing: str) -> tuple[str, Transition]:
    """Choose a thing and what is done to it; never the same thing twice running."""
    steps = [(thing, step) for thing, ring in TRANSITIONS.items() for step in ring if step.before == states[thing]]
    steps = [item for item in steps if item[0] != last_thing]
    verbs = [step.verb for _, step in steps]
    weights = np.array(
        [
            _EAGERNESS.get(step.verb, 1.0) * _THING_EAGERNESS.get(thing, 1.0) / verbs.count(step.verb)
            for thing, step in steps
        ]
    )
    return steps[int(rng.choice(len(steps), p=weights / weights.sum()))]
