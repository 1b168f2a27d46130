"""What is known of each event and each sound of a kitchen, as plain rows.

Made when a video is rendered (writing.py); the tables in official forms (tables.py) are written from them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from earmark.kitchen.room import Room
from earmark.kitchen.script import NOUNS, VERBS, Script

EVENT_SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string()),
        pa.field("participant_id", pa.string()),
        pa.field("split", pa.string()),  # train, validation, test
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


IDLE_MOTION_SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string()),
        pa.field("participant_id", pa.string()),
        pa.field("split", pa.string()),
        pa.field("start_seconds", pa.float64()),
        pa.field("stop_seconds", pa.float64()),
        pa.field("motion", pa.string()),
        pa.field("object", pa.string()),  # the thing it is about
    ]
)


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What the tables say of one video.

    Attributes:
        video_id: Its name, such as "P01_02".
        participant_id: Its kitchen, such as "P01".
        split: ``train``, ``validation`` or ``test``.
        num_frames: Frames in the file.
        fps: Frames per second.
        width: Pixels.
        height: Pixels.
        sample_rate: Samples of sound per second.
    """

    video_id: str
    participant_id: str
    split: str
    num_frames: int
    fps: int
    width: int
    height: int
    sample_rate: int

    @property
    def duration_seconds(self) -> float:
        """Length of the video."""
        return self.num_frames / self.fps


def event_rows(
    script: Script, room: Room, loudness_db: Sequence[float], *, video_id: str, participant_id: str
) -> list[dict[str, Any]]:
    """Return the rows of `EVENT_SCHEMA` of one video, in order of time, all but the split.

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


def idle_motion_rows(script: Script, *, video_id: str, participant_id: str) -> list[dict[str, Any]]:
    """Return the rows of `IDLE_MOTION_SCHEMA` of one video, in order of time, all but the split.

    Args:
        script: What happens in it.
        video_id: Name of the video.
        participant_id: Name of the kitchen.
    """
    return [
        {
            "video_id": video_id,
            "participant_id": participant_id,
            "start_seconds": gesture.start_seconds,
            "stop_seconds": gesture.stop_seconds,
            "motion": gesture.kind,
            "object": gesture.thing,
        }
        for gesture in script.gestures
    ]
