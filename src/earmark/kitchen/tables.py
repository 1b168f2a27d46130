"""The ground truth of a kitchen in its official forms, and all that is known in three parquet files.

The last step of the generator. What the official forms hold back of the test split is in the parquet files.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from earmark.atomic import replacing
from earmark.kitchen.ego4d_tables import write_ego4d
from earmark.kitchen.epic_sounds_tables import SOUND_SCHEMA, write_epic_sounds
from earmark.kitchen.epic_tables import write_epic_kitchens
from earmark.kitchen.events import EVENT_SCHEMA, IDLE_MOTION_SCHEMA, VideoFacts


def write_tables(
    out: Path,
    events: Sequence[Mapping[str, Any]],
    sounds: Sequence[Mapping[str, Any]],
    idle_motions: Sequence[Mapping[str, Any]],
    videos: Sequence[VideoFacts],
    *,
    seed: int,
) -> None:
    """Write all tables; events.parquet comes last and so marks a finished kitchen.

    Args:
        out: Folder of the kitchen.
        events: Rows of all events, without their split.
        sounds: Rows of all sounds, without their split.
        idle_motions: Rows of all idle motions, without their split.
        videos: All videos, in order.
        seed: Of the kitchen: Ego4D's unique names are made of it.
    """
    split = {video.video_id: video.split for video in videos}
    events, sounds, idle_motions = (
        [{**row, "split": split[row["video_id"]]} for row in rows] for rows in (events, sounds, idle_motions)
    )
    (out / "annotations").mkdir(exist_ok=True)
    write_epic_kitchens(out / "annotations", events, videos)
    write_epic_sounds(out / "annotations", sounds, videos)
    write_ego4d(out, events, videos, seed=seed)
    for name, rows, schema in (
        ("sounds", sounds, SOUND_SCHEMA),
        ("idle_motions", idle_motions, IDLE_MOTION_SCHEMA),
        ("events", events, EVENT_SCHEMA),
    ):
        with replacing(out / f"{name}.parquet") as temporary:
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary)
