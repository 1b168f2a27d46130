"""How large a kitchen is, how hard it is to learn from, and presets of both."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from earmark.datasets.kitchen import KitchenPreset

__all__ = ["PRESETS", "Difficulty", "KitchenError", "KitchenSize", "Preset"]

_SAMPLE_RATES = (16000, 22050, 24000, 32000, 44100, 48000)


class KitchenError(ValueError):
    """A kitchen can't be made as asked; the message names the folder or the option and the reason."""


@dataclass(frozen=True, slots=True)
class KitchenSize:
    """How many videos a kitchen has, and of what size.

    Attributes:
        num_kitchens: Number of kitchens (participants P01, P02, ..), 1 to 99. From three on some are unseen in
            training: one in ten, at least one, for validation, and from four on as many for the test.
        videos_per_kitchen: Number of videos of each kitchen, 1 to 999. Of the kitchens seen in training, one video in
            five, at least one where there are several, is for validation, and from three on one in ten, at least one,
            for the test.
        video_seconds: Length of each video, 5 to 3600.
        width: Width of the pictures in pixels, 64 to 4096 and even.
        height: Height of the pictures in pixels, 64 to 4096 and even.
        fps: Frames per second, 4 to 120.
        sample_rate: Samples of sound per second: 16000, 22050, 24000, 32000, 44100 or 48000.

    Raises:
        KitchenError: If one is out of bounds.

    Example:
        >>> KitchenSize(num_kitchens=1, videos_per_kitchen=2, video_seconds=30).width
        456
    """

    num_kitchens: int
    videos_per_kitchen: int
    video_seconds: float
    width: int = 456
    height: int = 256
    fps: int = 30
    sample_rate: int = 48000

    def __post_init__(self) -> None:
        check_bounds(
            self,
            {
                **{"num_kitchens": (1, 99), "videos_per_kitchen": (1, 999), "video_seconds": (5, 3600)},
                **{"width": (64, 4096), "height": (64, 4096), "fps": (4, 120)},
            },
        )
        for name in ("width", "height"):
            if getattr(self, name) % 2:
                raise KitchenError(f"{name}={getattr(self, name)}: H.264 needs an even size")
        if self.sample_rate not in _SAMPLE_RATES:
            raise KitchenError(f"sample_rate={self.sample_rate}: must be one of {', '.join(map(str, _SAMPLE_RATES))}")


@dataclass(frozen=True, slots=True)
class Difficulty:
    """What makes a kitchen hard to learn from; by default there is little of it.

    Attributes:
        silent_share: Probability that an action that may be silent makes no sound.
        off_screen_share: Expected number of sounds with no visible cause, per action.
        idle_motion_share: Probability that the hands move and change nothing, for each 3 s of a pause (of at least a
            second).
        babble_share: Expected share of the time in which somebody out of sight talks, at most 0.95.
        plan_share: Share of the actions that follow from activities, with classes as unequal as in life; the others
            are chosen freely in favour of rare verbs.
        noise_db: Level of the background (room tone, fridge, outside) in decibels against the usual, -60 to 30.
        idle_share: Share of the time in which no action happens, 0.2 to 0.8; each video's is drawn up to 0.06 above or
            below it.

    Raises:
        KitchenError: If one is out of bounds.

    Example:
        >>> Difficulty(silent_share=0.5).plan_share
        0.2
    """

    silent_share: float = 0.02
    off_screen_share: float = 0.02
    idle_motion_share: float = 0.0
    babble_share: float = 0.0
    plan_share: float = 0.2
    noise_db: float = 0.0
    idle_share: float = 0.52

    def __post_init__(self) -> None:
        check_bounds(
            self,
            {
                **{"silent_share": (0, 1), "off_screen_share": (0, 1), "idle_motion_share": (0, 1)},
                **{"babble_share": (0, 0.95), "plan_share": (0, 1), "noise_db": (-60, 30), "idle_share": (0.2, 0.8)},
            },
        )


class Preset(NamedTuple):
    """Size and difficulty under one name."""

    size: KitchenSize
    difficulty: Difficulty


def check_bounds(options: object, bounds: Mapping[str, tuple[float, float]]) -> None:
    """Refuse options that are out of bounds.

    Args:
        options: Holds the options as attributes.
        bounds: Lowest and highest value by name of the option.

    Raises:
        KitchenError: Naming the first that is out of bounds.
    """
    for name, (low, high) in bounds.items():
        if not low <= getattr(options, name) <= high:
            raise KitchenError(f"{name}={getattr(options, name)}: must be from {low} to {high}")


_EASY = Difficulty()
_HARD = Difficulty(
    silent_share=0.15, off_screen_share=0.3, idle_motion_share=0.4, babble_share=0.15, plan_share=0.9, noise_db=6.0
)

PRESETS: dict[KitchenPreset, Preset] = {
    "demo": Preset(KitchenSize(6, 4, 30, width=160, height=90, fps=16, sample_rate=16000), _EASY),
    "tiny": Preset(KitchenSize(4, 2, 30), _EASY),
    "small": Preset(KitchenSize(6, 5, 120), _HARD),
    "standard": Preset(KitchenSize(12, 10, 300), _HARD),
    "large": Preset(KitchenSize(40, 15, 600), _HARD),
}
"""Size and difficulty by name: about 12 minutes of small pictures (demo); 4 minutes, 1, 10, 100 hours of video."""
