"""The truth of a kitchen as tables: EPIC-KITCHENS-100's csv files, and all events in one parquet file.

Last station of the generator. Layout, columns and formats of the csv files are those of EPIC-KITCHENS-100
(https://github.com/epic-kitchens/epic-kitchens-100-annotations), so that what reads those reads these.
"""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from earmark.atomic import replacing
from earmark.kitchen.room import Room
from earmark.kitchen.script import NOUN_CATEGORIES, NOUNS, VERB_CATEGORIES, VERBS, Script

ANNOTATION_COLUMNS = (
    *("narration_id", "participant_id", "video_id", "narration_timestamp", "start_timestamp", "stop_timestamp"),
    *("start_frame", "stop_frame", "narration", "verb", "verb_class", "noun", "noun_class"),
    *("all_nouns", "all_noun_classes"),
)

EVENT_SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string()),
        pa.field("participant_id", pa.string()),
        pa.field("event_id", pa.string()),  # the narration_id, where the csv files have it
        pa.field("onset_seconds", pa.float64()),
        pa.field("offset_seconds", pa.float64()),
        pa.field("point_of_no_return_seconds", pa.float64()),
        pa.field("verb", pa.string()),  # empty for sounds off screen
        pa.field("noun", pa.string()),
        pa.field("verb_class", pa.int64()),  # -1 for sounds off screen
        pa.field("noun_class", pa.int64()),
        pa.field("object", pa.string()),  # the thing whose state changes: for "pour milk" the bowl
        pa.field("state_before", pa.string()),
        pa.field("state_after", pa.string()),
        pa.field("audible", pa.bool_()),
        pa.field("on_screen", pa.bool_()),
        pa.field("material", pa.string()),
        pa.field("loudness_db", pa.float64()),  # null where silent
    ]
)

_SYNONYMS = {"put": ["put", "put-down"], "take": ["take", "pick-up"], "cut": ["cut", "chop"], "stir": ["stir", "mix"]}


def event_rows(
    script: Script, room: Room, loudness_db: Sequence[float], *, video_id: str, participant_id: str
) -> list[dict[str, Any]]:
    """Return the rows of `EVENT_SCHEMA` of one video, in order of time.

    Args:
        script: What happens in it.
        room: Where.
        loudness_db: Level of each of the script's events, -inf where silent.
        video_id: Name of the video.
        participant_id: Name of the kitchen.
    """
    rows = []
    counts = {True: 0, False: 0}
    for event, loudness in zip(script.events, loudness_db, strict=True):
        number = counts[event.on_screen]
        counts[event.on_screen] += 1
        rows.append(
            {
                "video_id": video_id,
                "participant_id": participant_id,
                "event_id": f"{video_id}_{number}" if event.on_screen else f"{video_id}_offscreen_{number}",
                "onset_seconds": event.start_seconds,
                "offset_seconds": event.stop_seconds,
                "point_of_no_return_seconds": event.contact_seconds,
                "verb": event.verb,
                "noun": event.noun,
                "verb_class": VERBS.index(event.verb) if event.on_screen else -1,
                "noun_class": NOUNS.index(event.noun) if event.on_screen else -1,
                "object": event.thing if event.on_screen else "",
                "state_before": event.before,
                "state_after": event.after,
                "audible": event.audible,
                "on_screen": event.on_screen,
                "material": room.things[event.thing].material if event.on_screen else event.thing,
                "loudness_db": loudness if math.isfinite(loudness) else None,
            }
        )
    return rows


def annotation_row(event: dict[str, Any], *, fps: float) -> list[object]:
    """Return one row of an EPIC-KITCHENS-100 annotation file.

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


def write_tables(
    out: Path,
    events: Sequence[dict[str, Any]],
    *,
    videos: Sequence[str],
    validation: Iterable[str],
    unseen: Sequence[str],
    num_frames: int,
    fps: float,
    resolution: str,
) -> None:
    """Write the csv files, then events.parquet, which so marks a finished kitchen.

    Args:
        out: Folder of the kitchen.
        events: Rows of all videos.
        videos: Names of all videos, in order.
        validation: Names of those held out.
        unseen: Participants of which no video is for training.
        num_frames: Frames of each video.
        fps: Frames per second.
        resolution: Such as "456x256".
    """
    folder = out / "annotations"
    folder.mkdir(exist_ok=True)
    held_out = set(validation)
    seen = [event for event in events if event["on_screen"]]
    for split, wanted in (("train", False), ("validation", True)):
        rows = [annotation_row(event, fps=fps) for event in seen if (event["video_id"] in held_out) == wanted]
        _write_csv(folder / f"EPIC_100_{split}.csv", ANNOTATION_COLUMNS, rows)
    for kind, categories in (("verb", VERB_CATEGORIES), ("noun", NOUN_CATEGORIES)):
        classes = [
            [number, name, str(_SYNONYMS.get(name, [name])), category]
            for number, (name, category) in enumerate(categories.items())
        ]
        _write_csv(folder / f"EPIC_100_{kind}_classes.csv", ("id", "key", "instances", "category"), classes)
    info = [[video, repr(num_frames / fps), repr(float(fps)), resolution] for video in videos]
    _write_csv(folder / "EPIC_100_video_info.csv", ("video_id", "duration", "fps", "resolution"), info)
    _write_csv(
        folder / "EPIC_100_unseen_participant_ids_validation.csv", ("participant_id",), [[name] for name in unseen]
    )
    with replacing(out / "events.parquet") as temporary:
        pq.write_table(pa.Table.from_pylist(list(events), schema=EVENT_SCHEMA), temporary)


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
