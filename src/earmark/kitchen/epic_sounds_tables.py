"""The sounds of a kitchen: start, stop and class of each, and EPIC-SOUNDS' csv files of them.

Names, columns, formats and classes are those of the official
files (https://github.com/epic-kitchens/epic-sounds-annotations; Huh et al., TPAMI 2025). As there, the class follows
from what is done and what it is done to: collisions by the two materials that meet, the rest by the action. What fits
no class goes to the file of sounds that are not categorised.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from earmark.datasets.epic_sounds import SOUND_CLASSES
from earmark.kitchen.epic_tables import timestamp, write_csv
from earmark.kitchen.events import VideoFacts
from earmark.kitchen.script import Script
from earmark.kitchen.states import RUNNING

TIME_COLUMNS = (
    *("annotation_id", "participant_id", "video_id", "start_timestamp", "stop_timestamp"),
    *("start_sample", "stop_sample"),
)
LABEL_COLUMNS = ("description", "class", "class_id")
SAMPLE_RATE = 24000  # of the official files' start_sample and stop_sample, whatever the rate of the video's sound

SOUND_SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string()),
        pa.field("participant_id", pa.string()),
        pa.field("split", pa.string()),
        pa.field("annotation_id", pa.string()),
        pa.field("event_id", pa.string()),  # the event that makes it; empty for what lasts: running things, talk
        pa.field("start_seconds", pa.float64()),
        pa.field("stop_seconds", pa.float64()),
        pa.field("description", pa.string()),
        pa.field("sound", pa.string()),  # name of the class; empty where none fits
        pa.field("sound_class", pa.int64()),  # -1 where none fits
    ]
)

_CLASS_OF_VERB = {
    **dict.fromkeys(("open", "close"), "open / close"),
    **dict.fromkeys(("turn-on", "turn-off"), "click"),
    **dict.fromkeys(("cut", "crack", "chop", "slice", "grate", "break"), "cut / chop"),
    **dict.fromkeys(("stir", "mix", "whisk", "beat"), "stir / mix / whisk"),
    **dict.fromkeys(("wash", "rinse", "fill"), "water"),
    **dict.fromkeys(("scrub", "scrape", "wipe", "dry", "peel", "spread"), "scrub / scrape / scour / wipe"),
    **dict.fromkeys(("move", "push", "pull", "slide"), "slide object"),
    **dict.fromkeys(("eat", "drink"), "drink / eat"),
    "pour": "pour",
    "knead": "kneading",
}
_CLASS_OFF_SCREEN = {
    **{"thump": "wood-only collision", "clink": "glass-only collision", "dishes": "ceramic-only collision"},
    **{"door": "open / close", "beep": "beep"},
}
_CLASS_RUNNING = {
    **{"tap": "water", "pan": "sizzling / boiling"},
    **dict.fromkeys(("hob", "kettle"), "kettle / mixer / appliance"),
}

_COUNTER = "wood"  # what things are put down on and taken from sounds of wood
_LONGEST_SECONDS = 2.5
_BLOCK_SECONDS = 0.01


def collision_class(first: str, second: str) -> str:
    """Return the class of two materials meeting; empty where there is none.

    >>> collision_class("wood", "metal"), collision_class("wood", "wood"), collision_class("food", "wood")
    ('metal / wood collision', 'wood-only collision', '')
    """
    names = (
        [f"{first}-only collision"]
        if first == second
        else [f"{first} / {second} collision", f"{second} / {first} collision"]
    )
    return next((name for name in names if name in SOUND_CLASSES), "")


def sound_class(verb: str, material: str) -> str:
    """Return the class of an action's sound; empty where none fits.

    Args:
        verb: What is done.
        material: Of the thing it is done to.

    >>> sound_class("close", "wood"), sound_class("put", "ceramic")
    ('open / close', 'ceramic / wood collision')
    """
    return _CLASS_OF_VERB.get(verb) or collision_class(material, _COUNTER)


def sound_stop(wave: npt.NDArray[np.float32], sample_rate: int, *, start_seconds: float, limit_seconds: float) -> float:
    """Return where a sound that starts at a time has died away, in seconds.

    That is after the last 10 ms that are within 20 dB of its loudest and stand out from the quietest of the span.

    Args:
        wave: Sound of the video, shape (S,).
        sample_rate: Its samples per second.
        start_seconds: Where it starts.
        limit_seconds: Where the next begins, or the video ends.
    """
    size = round(_BLOCK_SECONDS * sample_rate)
    first = round(start_seconds * sample_rate)
    last = min(round(min(limit_seconds, start_seconds + _LONGEST_SECONDS) * sample_rate), len(wave))
    num_blocks = max(1, (last - first) // size)
    blocks = wave[first : first + num_blocks * size].astype(np.float64)
    blocks = np.resize(blocks, (num_blocks, size)) if len(blocks) else np.zeros((1, size))
    levels = np.sqrt((blocks**2).mean(axis=1))
    heard = np.flatnonzero(levels >= max(0.1 * levels.max(), min(1.5 * levels.min(), levels.max())))
    return start_seconds + (int(heard[-1]) + 1) * _BLOCK_SECONDS


def sound_rows(
    script: Script,
    events: Sequence[Mapping[str, Any]],
    wave: npt.NDArray[np.float32],
    *,
    sample_rate: int,
    video_id: str,
    participant_id: str,
) -> list[dict[str, Any]]:
    """Return the rows of `SOUND_SCHEMA` of one video in order of time, all but the split.

    Args:
        script: What happens in the video.
        events: The rows of its events.
        wave: Its sound, shape (S,).
        sample_rate: Samples per second.
        video_id: Name of the video.
        participant_id: Name of the kitchen.
    """
    rows: list[dict[str, Any]] = []

    def add(start: float, stop: float, description: str, sound: str, event_id: str) -> None:
        names = {"video_id": video_id, "participant_id": participant_id, "event_id": event_id}
        times = {"start_seconds": round(start, 3), "stop_seconds": round(stop, 3)}
        number = SOUND_CLASSES.index(sound) if sound else -1
        rows.append({**names, **times, "description": description, "sound": sound, "sound_class": number})

    audible = [(event, row) for event, row in zip(script.events, events, strict=True) if event.audible]
    limits = [*(event.contact_seconds for event, _ in audible[1:]), script.duration_seconds]
    for (event, row), limit in zip(audible, limits, strict=True):
        start = event.contact_seconds
        stop = sound_stop(wave, sample_rate, start_seconds=start, limit_seconds=limit)
        if event.on_screen:
            what = f"{event.verb.replace('-', ' ')} ({row['material']})"
            add(start, stop, what, sound_class(event.verb, row["material"]), row["event_id"])
        else:
            add(start, stop, event.sound, _CLASS_OFF_SCREEN.get(event.sound, ""), row["event_id"])
    for thing, states in RUNNING.items():
        for start, stop in script.spans(thing, states):
            add(start, stop, f"running {thing}", _CLASS_RUNNING[thing], "")
    for start, stop in script.talk:
        add(start, stop, "talk", "human", "")
    rows.sort(key=lambda row: (row["start_seconds"], row["stop_seconds"]))
    counts: dict[bool, int] = defaultdict(int)
    for row in rows:
        fits = row["sound_class"] >= 0
        row["annotation_id"] = f"{video_id}_{counts[fits]}" if fits else f"{video_id}_NC_{counts[fits]}"
        counts[fits] += 1
    return rows


def write_epic_sounds(folder: Path, sounds: Sequence[Mapping[str, Any]], videos: Sequence[VideoFacts]) -> None:
    """Write the csv files of EPIC-SOUNDS; a split without videos has none.

    Args:
        folder: Where to.
        sounds: Rows of all videos, with their split.
        videos: All videos.
    """
    splits = {video.split for video in videos}

    def rows(split: str) -> list[list[object]]:
        return [
            [*_time_values(sound), sound["description"], sound["sound"], sound["sound_class"]]
            for sound in sounds
            if sound["split"] == split and sound["sound_class"] >= 0
        ]

    for split in ("train", "validation"):
        if split in splits:
            write_csv(folder / f"EPIC_Sounds_{split}.csv", (*TIME_COLUMNS, *LABEL_COLUMNS), rows(split))
    if "test" in splits:
        timed = [row[: len(TIME_COLUMNS)] for row in rows("test")]
        write_csv(folder / "EPIC_Sounds_recognition_test_timestamps.csv", TIME_COLUMNS, timed)
        names = [[video.video_id] for video in videos if video.split == "test"]
        write_csv(folder / "EPIC_Sounds_detection_test_videos.csv", ("video_id",), names)
    others = [
        [*_time_values(sound), sound["description"]]
        for sound in sounds
        if sound["sound_class"] < 0 and sound["split"] != "test"
    ]
    write_csv(folder / "sound_events_not_categorised.csv", (*TIME_COLUMNS, "description"), others)


def _time_values(sound: Mapping[str, Any]) -> list[object]:
    start, stop = sound["start_seconds"], sound["stop_seconds"]
    return [
        sound["annotation_id"],
        sound["participant_id"],
        sound["video_id"],
        timestamp(start, decimals=3),
        timestamp(stop, decimals=3),
        round(start * SAMPLE_RATE),
        round(stop * SAMPLE_RATE),
    ]
