"""The videos of a benchmark: kitchens generated and prepared, and how many batches an epoch on them has.

Beside the path of a sample: `earmark.cli.bench` calls this before it runs cells, which find their videos prepared.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from earmark.cli.bench_plan import AS_IN_TABLE, Command, Places, batch_size_of, pretrain_overrides
from earmark.cli.bench_presets import BenchPreset
from earmark.cli.bench_studies import Change
from earmark.cli.config import ConfigError
from earmark.cli.terminal import num_cpus, say
from earmark.wording import counted, duration_text

__all__ = ["EpochLengths", "NoBatchError", "make_changed_kitchens", "make_kitchens", "prepare", "training_hours"]


def make_kitchens(preset: BenchPreset, places: Places, *, tune: bool) -> None:
    """Generate the kitchen of the table, and that of its training videos if learning rates are chosen."""
    from earmark.kitchen.training_part import write_training_part

    _make_kitchen(preset, places.kitchen, AS_IN_TABLE)
    if tune:
        write_training_part(places.kitchen, places.tuning_kitchen)


def make_changed_kitchens(preset: BenchPreset, places: Places, changes: Iterable[Change]) -> None:
    """Generate what changed pretrainings read in the place of the kitchen of the table."""
    from earmark.kitchen.training_part import write_training_share

    for change in changes:
        whole = dataclasses.replace(change, videos=1.0)
        folder = places.kitchen_of(whole)
        if folder != places.kitchen:
            _make_kitchen(preset, folder, change)
        if change.videos < 1:
            count = write_training_share(folder, places.kitchen_of(change), share=change.videos)
            say(f"{places.kitchen_of(change)}: {counted(count, 'training video')}")


def _make_kitchen(preset: BenchPreset, folder: Path, change: Change) -> None:
    from earmark.kitchen import make_kitchen

    if not (folder / "events.parquet").exists():
        say(f"generating videos in {folder}")
    made = make_kitchen(
        folder,
        size=preset.kitchen,
        difficulty=dataclasses.replace(preset.difficulty, **dict(change.difficulty)),
        seed=preset.kitchen_seed,
        test_split=False,  # which nothing here would use
        num_workers=num_cpus(),
        progress=False,
    )
    length = duration_text(made.duration_seconds)
    say(f"kitchen: {counted(made.num_videos, 'video')}, {length}, {counted(made.num_events, 'action')}")


def training_hours(preset: BenchPreset, places: Places, share: float) -> float:
    """Return how many hours of video a share of the training videos of the kitchen has."""
    from earmark.kitchen.training_part import num_videos_of_share, training_videos

    num_videos = num_videos_of_share(len(training_videos(places.kitchen)), share)
    return num_videos * preset.kitchen.video_seconds / 3600


def prepare(command: Command) -> None:
    """Prepare what is not prepared yet, as the command would; what was refused is told."""
    from earmark.cli.build import open_store
    from earmark.cli.config import PretrainConfig, checked, compose

    config = checked(PretrainConfig, compose("default_ssrl", command.overrides), cuts_clips=False)
    open_store(config.data, config.environment, config.prepare)


class NoBatchError(ConfigError):
    """The videos have fewer segments than a batch has samples; the message names how many."""


class EpochLengths:
    """How many whole batches an epoch has, by method and change; the videos are prepared by asking.

    Args:
        preset: The preset.
        places: Where it lies.
    """

    def __init__(self, preset: BenchPreset, places: Places) -> None:
        self._preset, self._places = preset, places
        self._segments: dict[tuple[str, ...], int] = {}

    def __call__(self, method: str, change: Change = AS_IN_TABLE, *, tuning: bool = False) -> int:
        """Return the number of batches.

        Args:
            method: Of the table.
            change: From what the table has.
            tuning: On the videos that learning rates are chosen on.

        Raises:
            NoBatchError: If there is less than one.
        """
        overrides = pretrain_overrides(self._preset, self._places, method, change=change, tuning=tuning)
        if overrides not in self._segments:
            self._segments[overrides] = _num_segments(overrides)
        num_segments, batch_size = self._segments[overrides], batch_size_of(self._preset, change)
        if num_segments < batch_size:
            raise NoBatchError(
                f"{method}: {counted(num_segments, 'segment')} to train on make no batch of {batch_size}"
                + ("" if change == AS_IN_TABLE else f" ({described(change)})")
            )
        return num_segments // batch_size


def _num_segments(overrides: tuple[str, ...]) -> int:
    from earmark.cli.build import open_store
    from earmark.cli.config import PretrainConfig, checked, compose
    from earmark.cli.method import build_clips

    config = checked(PretrainConfig, compose("default_ssrl", overrides))
    clips, _ = build_clips(config, open_store(config.data, config.environment, config.prepare))
    return len(clips)


def described(change: Change) -> str:
    """Return a change in words.

    Example:
        >>> described(Change(("data_augm.shared_crop=true",), steps=0.5))
        'data_augm.shared_crop=true, 0.5 times the steps'
    """
    parts = [*change.overrides, *(f"{name}={value:g}" for name, value in change.difficulty)]
    parts += [
        f"{value:g} times the {what}"
        for what, value in (("steps", change.steps), ("batch", change.batch))
        if value != 1
    ]
    if change.videos < 1:
        parts.append(f"{change.videos:g} of the training videos")
    return ", ".join(parts)
