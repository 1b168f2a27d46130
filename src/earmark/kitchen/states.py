"""What can be done in Audible Kitchen: verbs, nouns, the things with their states, and what each action needs.

activities.py plans with it, script.py times the plan, and picture.py and sound.py render it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

VERB_CATEGORIES = {
    **{"take": "retrieve", "put": "leave", "open": "access", "close": "block", "turn-on": "access"},
    **{"turn-off": "block", "cut": "split", "pour": "merge", "stir": "merge", "crack": "split"},
    **{"wash": "clean", "dry": "clean", "peel": "split", "spread": "merge"},
}
"""Verb classes and their categories, named as in EPIC-KITCHENS-100; the position is the class id."""

NOUN_CATEGORIES = {
    **{"tap": "appliances", "drawer": "furniture", "cupboard": "storage", "fridge": "appliances", "hob": "appliances"},
    **{"kettle": "appliances", "lid": "containers", "plate": "crockery", "cup": "crockery", "bowl": "crockery"},
    **{"carrot": "vegetables", "onion": "vegetables", "bread": "baked goods and grains", "egg": "dairy and eggs"},
    **{"water": "drinks", "milk": "dairy and eggs", "mixture": "prepared food"},
    **{"knife": "cutlery", "spoon": "cutlery", "sponge": "cleaning equipment and material", "cloth": "materials"},
    **{"peeler": "utensils", "tomato": "vegetables", "potato": "vegetables", "oven": "appliances"},
    **{"jar": "containers", "tea": "drinks", "oil": "herbs and spices and oils", "jam": "prepared food"},
}
"""Noun classes and their categories, named as in EPIC-KITCHENS-100; the position is the class id."""

VERBS, NOUNS = tuple(VERB_CATEGORIES), tuple(NOUN_CATEGORIES)

Goal = tuple[str, str]
"""A thing and the state it is to be in."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One way to act on a thing: only possible in state `before`, leaves it in state `after`.

    Attributes:
        verb: One of `VERBS`.
        noun: One of `NOUNS`: what a narrator would name.
        before: State of the thing before.
        after: State of the thing after.
        needs: The states that other things must be in.
    """

    verb: str
    noun: str
    before: str
    after: str
    needs: tuple[Goal, ...] = ()


TOOLS = ("knife", "spoon", "sponge", "cloth", "peeler")
"""Things held while they are used; only one is in hand at a time."""

_FRIDGE, _CUPBOARD = ("fridge", "open"), ("cupboard", "open")
_KNIFE, _SPOON, _PEELER = (("knife", "in hand"),), (("spoon", "in hand"),), (("peeler", "in hand"),)
_WASHING, _DRYING = (("sponge", "in hand"), ("tap", "on")), (("cloth", "in hand"),)
_HEAT = ("hob", "on")

_Step = tuple[str, tuple[Goal, ...]]


def _cycle(noun: str, states: Sequence[str], steps: Sequence[str | _Step]) -> tuple[Transition, ...]:
    """Return the transitions through a closed ring of states; a step is "verb" or "verb noun", with what it needs."""
    transitions = []
    for step, before, after in zip(steps, states, (*states[1:], states[0]), strict=True):
        action, needs = (step, ()) if isinstance(step, str) else step
        verb, _, other = action.partition(" ")
        transitions.append(Transition(verb, other or noun, before, after, needs))
    return tuple(transitions)


def _tool(name: str) -> tuple[Transition, ...]:
    others = tuple((other, "on counter") for other in TOOLS if other != name)
    return _cycle(name, ("on counter", "in hand"), (("take", others), "put"))


_WASH_UP: tuple[str | _Step, ...] = ("take", "put", ("wash", _WASHING), ("dry", _DRYING))

TRANSITIONS: dict[str, tuple[Transition, ...]] = {
    **{name: _cycle(name, ("closed", "open"), ("open", "close")) for name in ("drawer", "cupboard", "fridge", "oven")},
    **{name: _cycle(name, ("off", "on"), ("turn-on", "turn-off")) for name in ("tap", "hob", "kettle")},
    "lid": _cycle("lid", ("on pan", "away"), ("take", "put")),
    "jar": (*_cycle("jar", ("closed", "open"), ("open", "close")), *_cycle("jar", ("closed", "away"), ("take", "put"))),
    "plate": _cycle("plate", ("clean", "away", "dirty", "wet"), _WASH_UP),
    "cup": (
        *_cycle(
            "cup",
            ("empty", "full", "brewed", "away", "dirty", "wet"),
            (("pour water", (("kettle", "off"),)), ("stir tea", _SPOON), *_WASH_UP),
        ),
        Transition("take", "cup", "full", "away"),
    ),
    "bowl": (
        *_cycle("bowl", ("floury", "milky", "mixed", "away"), ("pour milk", ("stir mixture", _SPOON), "take", "put")),
    ),
    "pan": _cycle(
        "egg",
        ("bare", "oiled", "raw egg", "fried"),
        ("pour oil", ("crack", (_HEAT,)), ("stir", (*_SPOON, _HEAT)), "take"),
    ),
    "onion": _cycle("onion", ("whole", "cut", "away"), (("cut", _KNIFE), "take", ("put", (_CUPBOARD,)))),
    "tomato": _cycle("tomato", ("whole", "cut", "away"), (("cut", _KNIFE), "take", ("put", (_FRIDGE,)))),
    **{
        name: _cycle(
            name,
            ("whole", "peeled", "cut", "away"),
            (("peel", _PEELER), ("cut", _KNIFE), "take", ("put", (where,))),
        )
        for name, where in (("carrot", _FRIDGE), ("potato", _CUPBOARD))
    },
    "bread": (
        *_cycle(
            "bread",
            ("whole", "cut", "jammy", "away"),
            (("cut", _KNIFE), ("spread jam", (*_KNIFE, ("jar", "open"))), "take", ("put", (_CUPBOARD,))),
        ),
        Transition("take", "bread", "cut", "away"),
    ),
    **{name: _tool(name) for name in TOOLS},
}
"""Every thing of a kitchen and what can be done to it."""

LOOKS: dict[str, tuple[float, float, float]] = {
    **dict.fromkeys(("closed", "off", "on pan", "on counter", "clean", "empty", "floury", "bare"), (1.0, 0.0, 0.0)),
    "whole": (1.0, 0.0, 0.0),
    **dict.fromkeys(("open", "on", "full", "milky", "cut", "raw egg"), (1.0, 1.0, 0.0)),
    "dirty": (1.0, -1.0, 0.0),
    **dict.fromkeys(("mixed", "brewed", "jammy", "fried"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("wet", "peeled"), (1.0, 0.0, 1.0)),
    "oiled": (1.0, 0.4, 0.0),
    **dict.fromkeys(("away", "in hand"), (0.0, 0.0, 0.0)),
}
"""What a state looks like: (there, how far open / on / full / apart, how mixed / soapy / peeled): 0..1, -1 dirty."""

RUNNING: dict[str, tuple[str, ...]] = {
    **{"tap": ("on",), "hob": ("on",), "kettle": ("on",), "pan": ("raw egg", "fried")},
}
"""What is heard all the while it is in some states."""

ANIMATION: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("take", "put", "turn-on", "turn-off"), (0.0, 0.0)),
    "open": (0.0, 0.4),
    "close": (-0.4, 0.0),
    "cut": (0.0, 0.12),
    "crack": (0.0, 0.2),
    **dict.fromkeys(("pour", "stir", "wash", "dry", "peel", "spread"), (0.0, 0.5)),
}
"""When the look changes, in seconds after the contact: a door moves after its latch clicks, and before it thumps."""
