"""Audible Kitchen: a synthetic data set of first-person videos in which every action is seen and heard.

`make_kitchen` writes files that the rest of the package reads like downloaded ones, for use where no real videos are at
hand. The ground truth (what, when, on what, from which state to which) is complete, so that what is learned from it can
be judged. The contact sheet (`earmark.kitchen.contact_sheet`) is not imported here, since matplotlib is slow to import.
"""

from earmark.kitchen.presets import PRESETS, Difficulty, KitchenError, KitchenSize, Preset
from earmark.kitchen.states import NOUNS, TRANSITIONS, VERBS
from earmark.kitchen.writing import KitchenSummary, make_kitchen, seconds_to_make

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
    "seconds_to_make",
]
