"""Audible Kitchen: a synthetic data set of first-person videos in which every action is seen and heard.

It comes before all else on a sample's path where no real videos are at hand: `make_kitchen` writes files that the
other stations read as they read downloaded ones. Its truth (what, when, on what, from which state to which) is
complete, so that what is learned from it can be judged.
"""

from earmark.kitchen.presets import PRESETS, Difficulty, KitchenError, KitchenSize, Preset
from earmark.kitchen.states import NOUNS, TRANSITIONS, VERBS
from earmark.kitchen.writing import KitchenSummary, make_kitchen

__all__ = [
    "NOUNS",
    "PRESETS",
    "TRANSITIONS",
    "VERBS",
    "Difficulty",
    "KitchenError",
    "KitchenSize",
    "KitchenSummary",
    "Preset",
    "make_kitchen",
]
