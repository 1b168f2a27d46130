"""A small Ego4D: rows in the form of the official files, and a folder in the layout of the official download."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from earmark.datasets import Ego4D

Row = dict[str, Any]


def action(clip_uid: str, index: int, video_uid: str = "v1", **changes: Any) -> Row:
    """Return a row of long-term anticipation: action k lasts from second 2 k + 1 of its clip to 2 k + 2."""
    return {
        "video_uid": video_uid,
        "clip_uid": clip_uid,
        "clip_parent_start_sec": 10.0,
        "clip_parent_end_sec": 110.0,
        "action_clip_start_sec": 2.0 * index + 1,
        "action_clip_end_sec": 2.0 * index + 2,
        "action_idx": index,
        "verb_label": index % 2,
        "noun_label": 0,
    } | changes


def change(unique_id: str, video_uid: str = "v1", **changes: Any) -> Row:
    """Return a row of state change classification: 8 s from second 20 of the video, its clip from second 10 on."""
    return {
        "unique_id": unique_id,
        "video_uid": video_uid,
        "clip_uid": "c1",
        "parent_start_sec": 20.0,
        "parent_end_sec": 28.0,
        "parent_start_frame": 600,
        "parent_end_frame": 840,
        "clip_start_sec": 10.0,
        "clip_end_sec": 18.0,
        "clip_start_frame": 300,
        "clip_end_frame": 540,
        "state_change": True,
        "parent_pnr_frame": 700,
        "clip_pnr_frame": 400,
    } | changes


def video(video_uid: str, split: str | None = "train", *, seconds: float = 200.0, **changes: Any) -> Row:
    """Return a video of the manifest, with sound."""
    metadata = {"fps": 30.0, "audio_base_denominator": 48000}
    return {
        "video_uid": video_uid,
        "split_fho": split,
        "fb_participant_id": 7,
        "duration_sec": seconds,
        "video_metadata": metadata,
    } | changes


def clip(clip_uid: str, video_uid: str = "v1", start: float = 10.0, stop: float = 110.0) -> Row:
    """Return a clip of the manifest, with sound."""
    return {
        "clip_uid": clip_uid,
        "video_uid": video_uid,
        "video_start_sec": start,
        "video_end_sec": stop,
        "clip_metadata": {"fps": 30.0, "audio_base_denominator": 48000},
    }


def write_ego4d(
    folder: Path,
    *,
    videos: Sequence[Row],
    clips: Sequence[Row] = (),
    actions: Mapping[str, Sequence[Row]] | None = None,
    changes: Mapping[str, Sequence[Row]] | None = None,
    files: Sequence[str] = ("full_scale/v1.mp4",),
    version: str = "v2",
    **options: str,
) -> Ego4D:
    """Write a small Ego4D, of empty video files, and open it; actions and changes by the split in the file's name."""
    below = folder / version / "annotations"
    below.mkdir(parents=True, exist_ok=True)
    (folder / "ego4d.json").write_text(json.dumps({"videos": list(videos), "clips": list(clips)}))
    (below / "fho_lta_taxonomy.json").write_text(json.dumps({"verbs": ["take", "put"], "nouns": ["cup"]}))
    for task, by_split in (("fho_lta", actions), ("fho_oscc-pnr", changes)):
        for split, rows in (by_split or {}).items():
            (below / f"{task}_{split}.json").write_text(json.dumps({"clips": list(rows)}))
    for name in files:
        (folder / version / name).parent.mkdir(exist_ok=True)
        (folder / version / name).touch()
    return Ego4D(folder, **options)


def write_ego4d_challenges(folder: Path, *, split: str = "val") -> None:
    """Write what `ego4d_submissions` is scored against: a change, none, and one window of 4 seen actions."""
    without = {"state_change": False, "parent_pnr_frame": None, "clip_pnr_frame": None}
    write_ego4d(
        folder,
        videos=[video("v1")],
        actions={split: [action("c1", index, verb_label=0) for index in range(24)]},
        changes={split: [change("u1"), change("u2", **without)]},
    )


def ego4d_submissions() -> dict[str, Any]:
    """Return a valid submission to each of Ego4D's challenges."""
    sequence = [0] * 20
    return {
        "oscc": [{"unique_id": name, "state_change": True} for name in ("u1", "u2")],
        "pnr": [{"unique_id": name, "pnr_frame": 90} for name in ("u1", "u2")],
        "lta": {"c1_3": {"verb": [sequence] * 5, "noun": [sequence] * 5}},
    }
