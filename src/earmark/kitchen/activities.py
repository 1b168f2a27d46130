"""What the person in the kitchen does next: activities as a grammar of goals, pursued with their preconditions.

Comes before script.py, which decides when: here it is decided what follows what. A goal is a thing and the state it is
to be in. The planner reaches it along the thing's transitions, and first sees to what each of them needs: to cut a
carrot that isn't on the board, it opens the fridge, puts the carrot on the board, takes the peeler, peels, swaps the
peeler for the knife, and cuts. So the future follows from the past, but not with certainty: productions are drawn at
random, doors are closed sooner or later, and the person is sometimes distracted.
"""

from collections import Counter, deque

import numpy as np

from earmark.kitchen.states import TOOLS, TRANSITIONS, Goal, Transition

GRAMMAR: dict[str, tuple[tuple[float, str], ...]] = {
    "activity": (
        *((9, "salad"), (7, "tea"), (5, "washing up"), (4, "sandwich"), (2.5, "soup"), (1.5, "fried egg")),
        *((0.8, "pancakes"), (0.6, "roast")),
    ),
    "salad": (
        (3, "vegetable, vegetable, serve"),
        (2, "vegetable, serve"),
        (1, "vegetable, vegetable, vegetable"),
    ),
    "vegetable": (
        *((6, "tomato=cut, tomato=away"), (3, "onion=cut, onion=away"), (1.5, "carrot=cut, carrot=away")),
        (0.5, "potato=cut, potato=away"),
    ),
    "serve": ((2, "plate=away"), (1, "lid=on pan"), (1, "meanwhile")),
    "tea": ((3, "boil, cup=full, finish tea"), (1, "cup=empty, boil, cup=full, finish tea")),
    "boil": ((2, "kettle=on, kettle=off"), (3, "kettle=on, meanwhile, kettle=off")),
    "finish tea": ((2, "cup=brewed, cup=away"), (1, "cup=away"), (1, "cup=brewed")),
    "meanwhile": (
        *((3, "cupboard=open, cupboard=closed"), (2, "drawer=open, drawer=closed"), (2, "tap=on, tap=off")),
        *((1, "lid=away, lid=on pan"), (1, "fridge=open, fridge=closed"), (1, "jar=away")),
    ),
    "washing up": (
        (3, "plate=dirty, plate=clean, tap=off"),
        (2, "plate=dirty, cup=dirty, plate=wet, cup=wet, tap=off, plate=clean, cup=empty"),
        (1, "cup=dirty, cup=wet, tap=off"),
    ),
    "sandwich": (
        (2, "bread=cut, filling, bread=away"),
        (2, "bread=whole, bread=jammy, jar=closed, bread=away"),
    ),
    "filling": ((2, "tomato=cut, tomato=away"), (1, "onion=cut, onion=away"), (1, "meanwhile")),
    "soup": (
        (2, "lid=away, hob=on, carrot=cut, carrot=away, lid=on pan, hob=off"),
        (1, "hob=on, lid=away, potato=cut, potato=away, lid=on pan, hob=off"),
    ),
    "fried egg": ((2, "pan=oiled, hob=on, pan=fried, pan=bare, hob=off"), (1, "hob=on, pan=fried, hob=off, pan=bare")),
    "pancakes": ((2, "bowl=floury, bowl=mixed, bowl=away"), (1, "bowl=mixed, hob=on, pan=oiled, hob=off, bowl=away")),
    "roast": ((1, "potato=cut, oven=open, potato=away, oven=closed"),),
}
"""Symbol -> (weight, production) pairs; a production lists symbols and goals ("thing=state")."""

_TIDY = {**dict.fromkeys(("fridge", "cupboard", "drawer"), "closed"), "tap": "off"}
_TIDY_SOON = 0.7
_PUT_BACK = 0.3
_RARE = {"take": 0.35, "put": 0.5}  # what a free choice takes up less, as every tool brings them along


def expand(rng: np.random.Generator, symbol: str = "activity") -> list[Goal]:
    """Draw the goals of an activity from the grammar.

    >>> expand(np.random.default_rng(0), "roast")[-1]
    ('oven', 'closed')
    """
    if "=" in symbol:
        thing, _, state = symbol.partition("=")
        return [(thing, state)]
    weights = np.array([weight for weight, _ in GRAMMAR[symbol]])
    _, production = GRAMMAR[symbol][int(rng.choice(len(weights), p=weights / weights.sum()))]
    return [goal for part in production.split(", ") for goal in expand(rng, part)]


def draw_states(rng: np.random.Generator) -> dict[str, str]:
    """Draw the states in which a video begins: tools on the counter, mostly closed and off, else anything."""
    states = {}
    for thing, transitions in TRANSITIONS.items():
        names = list(dict.fromkeys(step.before for step in transitions))
        still = thing in TOOLS or (names[0] in ("closed", "off") and rng.random() < 0.8)
        states[thing] = names[0] if still else str(rng.choice(names))
    return states


class Planner:
    """Says what is done next, and keeps the states.

    Args:
        rng: Source of all that is random.
        plan_share: Probability that the person goes on with the activity rather than doing something freely chosen.
            Free choices favour the verbs that were rare so far: at 0 the verbs are not far from equally frequent.

    Attributes:
        states: State of every thing.

    >>> planner = Planner(np.random.default_rng(0), plan_share=1.0)
    >>> thing, step = planner.next_step()
    >>> planner.states[thing] == step.after
    True
    """

    def __init__(self, rng: np.random.Generator, *, plan_share: float) -> None:
        self.states = draw_states(rng)
        self._rng, self._plan_share = rng, plan_share
        self._goals: deque[Goal] = deque()
        self._aside: tuple[str, Transition] | None = None
        self._counts: Counter[str] = Counter()
        self._last_thing = ""

    def next_step(self) -> tuple[str, Transition]:
        """Return the next thing acted on and what is done to it; its needs are met."""
        if self._aside is None and self._rng.random() >= self._plan_share:
            self._aside = self._choose_freely()
        chosen = self._aside or self._next_of_plan()
        thing, step = self._first_needed(*chosen)
        if (thing, step) == chosen:
            self._aside = None
            self._tidy(step)
        self.states[thing], self._last_thing = step.after, thing
        self._counts[step.verb] += 1
        return thing, step

    def _next_of_plan(self) -> tuple[str, Transition]:
        while True:
            while self._goals and self.states[self._goals[0][0]] == self._goals[0][1]:
                self._goals.popleft()
            if self._goals:
                return self._towards(self._goals[0])
            self._goals.extend(expand(self._rng))

    def _towards(self, goal: Goal) -> tuple[str, Transition]:
        """Return the first transition of a shortest way to a state that isn't yet reached."""
        thing, wanted = goal
        ways = deque((step, step) for step in TRANSITIONS[thing] if step.before == self.states[thing])
        seen = {self.states[thing]}
        while True:
            first, last = ways.popleft()
            if last.after == wanted:
                return thing, first
            if last.after not in seen:
                seen.add(last.after)
                ways.extend((first, step) for step in TRANSITIONS[thing] if step.before == last.after)

    def _first_needed(self, thing: str, step: Transition) -> tuple[str, Transition]:
        """Return the transition itself, or what must be done before it."""
        for need in step.needs:
            if self.states[need[0]] != need[1]:
                return self._first_needed(*self._towards(need))
        return thing, step

    def _choose_freely(self) -> tuple[str, Transition]:
        """Choose among all that the states allow, whatever it needs; not the last thing again."""
        choices = [
            (thing, step)
            for thing, transitions in TRANSITIONS.items()
            for step in transitions
            if step.before == self.states[thing] and thing != self._last_thing and thing not in TOOLS
        ]
        alike = Counter(step.verb for _, step in choices)
        weights = np.array(
            [_RARE.get(s.verb, 1.0) / alike[s.verb] / (1 + self._counts[s.verb]) ** 1.5 for _, s in choices]
        )
        return choices[int(self._rng.choice(len(choices), p=weights / weights.sum()))]

    def _tidy(self, step: Transition) -> None:
        """Often close at once what had to be opened, now and then put the tool back."""
        for thing, _ in step.needs:
            if thing in _TIDY and self._rng.random() < _TIDY_SOON:
                self._goals.appendleft((thing, _TIDY[thing]))
            elif thing in TOOLS and self._rng.random() < _PUT_BACK:
                self._goals.appendleft((thing, "on counter"))
