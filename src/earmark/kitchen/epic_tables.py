"""The ground truth of a kitchen in the form of EPIC-KITCHENS-100's csv files.

Names, columns and formats are those of the official files
(https://github.com/epic-kitchens/epic-kitchens-100-annotations), so that readers of those can read these.
"""

import csv
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from earmark.atomic import replacing
from earmark.kitchen.events import VideoFacts
from earmark.kitchen.script import NOUN_CATEGORIES, VERB_CATEGORIES

TIME_COLUMNS = (
    *("narration_id", "participant_id", "video_id", "narration_timestamp", "start_timestamp", "stop_timestamp"),
    *("start_frame", "stop_frame"),
)
ANNOTATION_COLUMNS = (
    *TIME_COLUMNS,
    *("narration", "verb", "verb_class", "noun", "noun_class", "all_nouns", "all_noun_classes"),
)
TAIL_SHARE = 0.2

_SYNONYMS = {"put": ["put", "put-down"], "take": ["take", "pick-up"], "cut": ["cut", "chop"], "stir": ["stir", "mix"]}


def annotation_row(event: Mapping[str, Any], *, fps: float) -> list[object]:
    """Return one row of an annotation file with labels; its first columns are those of the test file.

    Frames count from 1 and are floor(time * fps), as in the official files.
    """
    start, stop = event["onset_seconds"], event["offset_seconds"]
    verb, noun = event["verb"], event["noun"]
    return [
        event["event_id"],
        event["participant_id"],
        event["video_id"],
        timestamp(event["point_of_no_return_seconds"], decimals=3),
        timestamp(start, decimals=2),
        timestamp(stop, decimals=2),
        max(1, math.floor(start * fps + 1e-6)),
        max(1, math.floor(stop * fps + 1e-6)),
        f"{verb.replace('-', ' ')} {noun}",
        verb,
        event["verb_class"],
        noun,
        event["noun_class"],
        str([noun]),
        str([event["noun_class"]]),
    ]


def timestamp(seconds: float, *, decimals: int) -> str:
    """Return a time as HH:MM:SS with decimals.

    >>> timestamp(3723.456, decimals=2)
    '01:02:03.46'
    """
    units = round(seconds * 10**decimals)
    whole, part = divmod(units, 10**decimals)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}.{part:0{decimals}d}"


def tail_classes(labels: Iterable[int]) -> list[int]:
    """Return the tail: the rarest classes that together make at most a fifth of the training instances.

    Classes without training instances are not in it: the official lists leave them out too.

    Args:
        labels: Class of each training instance.

    Source: Damen et al., "Rescaling Egocentric Vision", IJCV 2022, section 4.1.

    >>> tail_classes([0] * 8 + [1] + [2])
    [1, 2]
    """
    counts = Counter(labels)
    budget = TAIL_SHARE * counts.total()
    tail: list[int] = []
    for label, count in sorted(counts.items(), key=lambda item: (item[1], -item[0])):
        budget -= count
        if budget < -1e-9:
            break
        tail.append(label)
    return sorted(tail)


def write_epic_kitchens(folder: Path, events: Sequence[Mapping[str, Any]], videos: Sequence[VideoFacts]) -> None:
    """Write all csv files of EPIC-KITCHENS-100.

    A split without videos has no annotation file.

    Args:
        folder: Where to.
        events: Rows of all videos, with their split.
        videos: All videos, in order.
    """
    fps = {video.video_id: video.fps for video in videos}
    splits = {video.split for video in videos}
    rows: dict[str, list[list[object]]] = {
        split: [
            annotation_row(event, fps=fps[event["video_id"]])
            for event in events
            if event["on_screen"] and event["split"] == split
        ]
        for split in splits
    }
    for split in sorted(splits - {"test"}):
        write_csv(folder / f"EPIC_100_{split}.csv", ANNOTATION_COLUMNS, rows[split])
    if "test" in splits:
        timed = [row[: len(TIME_COLUMNS)] for row in rows["test"]]
        write_csv(folder / "EPIC_100_test_timestamps.csv", TIME_COLUMNS, timed)
    for kind, categories in (("verb", VERB_CATEGORIES), ("noun", NOUN_CATEGORIES)):
        classes = [
            [number, name, str(_SYNONYMS.get(name, [name])), category]
            for number, (name, category) in enumerate(categories.items())
        ]
        write_csv(folder / f"EPIC_100_{kind}_classes.csv", ("id", "key", "instances", "category"), classes)
        trained = [event[f"{kind}_class"] for event in events if event["on_screen"] and event["split"] == "train"]
        write_csv(folder / f"EPIC_100_tail_{kind}s.csv", (kind,), [[label] for label in tail_classes(trained)])
    info = [
        [video.video_id, repr(video.duration_seconds), repr(float(video.fps)), f"{video.width}x{video.height}"]
        for video in videos
    ]
    write_csv(folder / "EPIC_100_video_info.csv", ("video_id", "duration", "fps", "resolution"), info)
    seen = {video.participant_id for video in videos if video.split == "train"}
    for split in ("validation", "test"):
        unseen = sorted({video.participant_id for video in videos if video.split == split} - seen)
        path = folder / f"EPIC_100_unseen_participant_ids_{split}.csv"
        write_csv(path, ("participant_id",), [[name] for name in unseen])


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a csv file whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
