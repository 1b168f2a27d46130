"""The ground truth of a kitchen in the form of Ego4D's json files: metadata, long-term anticipation, state changes.

Fields and layout are those of the official downloads of both versions, of the same rows::

    OUT/ego4d/ego4d.json
    OUT/ego4d/v2/annotations/fho_lta_{train,val,test_unannotated}.json, fho_lta_taxonomy.json
    OUT/ego4d/v2/annotations/fho_oscc-pnr_{train,val,test_unannotated}.json
    OUT/ego4d/v2/full_scale/<video_uid>.mp4     a relative link to the video in OUT/P01/videos
    OUT/ego4d/v2/clips/<clip_uid>.mp4           by `earmark.kitchen.ego4d_clips`
    OUT/ego4d/v1/..                             the same

Frames count from 0: frame k is shown from k / fps seconds on. Source: Grauman et al., "Ego4D", CVPR 2022.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import numpy as np

from earmark.atomic import replacing
from earmark.kitchen.ego4d_clips import VERSIONS, CanonicalClip, canonical_clips, link_to, named_uid, video_uid
from earmark.kitchen.events import VideoFacts
from earmark.kitchen.script import NOUNS, VERBS

SPLITS = {"train": "train", "validation": "val", "test": "test"}
OSCC_SECONDS = 8.0
_LARGEST_OFFSET = 0.25  # of the point of no return from the middle of its clip, in lengths of the clip
_NUM_DRAWS = 16
_CLEARANCE_SECONDS = 0.55  # between a window without a change and the nearest point of no return: until all is still
_HEADER = {"version": "v1", "date": "2026-11-23"}  # of the form: a date of writing would make equal seeds differ


@dataclass(frozen=True, slots=True)
class _Window:
    """A short span of a video, with a change of state (at its point of no return) or without one."""

    clip: CanonicalClip
    name: str
    uid: str
    start: float
    stop: float
    change_at: float | None


def write_ego4d(out: Path, events: Sequence[Mapping[str, Any]], videos: Sequence[VideoFacts], *, seed: int) -> None:
    """Write the json files and the links to the videos; a split without videos has no file.

    Args:
        out: Folder of the kitchen.
        events: Rows of all videos, with their split.
        videos: All videos, in order.
        seed: Of the kitchen.
    """
    clips = list(canonical_clips(videos, seed))
    on_screen: dict[str, list[Mapping[str, Any]]] = {video.video_id: [] for video in videos}
    for event in events:
        if event["on_screen"]:
            on_screen[event["video_id"]].append(event)
    _write_json(out / "ego4d/ego4d.json", _manifest(videos, clips, seed))
    splits = [split for split in SPLITS if any(video.split == split for video in videos)]
    windows = _choose_windows(clips, on_screen, splits)
    for version in VERSIONS:
        folder = out / "ego4d" / version / "annotations"
        _write_json(folder / "fho_lta_taxonomy.json", {"verbs": list(VERBS), "nouns": list(NOUNS)})
        for split in splits:
            labelled = split != "test"
            name = SPLITS[split] if labelled else "test_unannotated"
            head = {**_HEADER, "version": version, "description": "Audible Kitchen", "split": name}
            mine = [clip for clip in clips if clip.video.split == split]
            actions = [row for clip in mine for row in _actions(clip, on_screen, labelled)]
            _write_json(folder / f"fho_lta_{name}.json", {**head, "clips": actions})
            changes = [_state_change(window, labelled=labelled) for window in windows[split]]
            _write_json(folder / f"fho_oscc-pnr_{name}.json", {**head, "clips": changes})
        for video in videos:
            _link_video(out, version, video, video_uid(seed, video.video_id))


def _manifest(videos: Sequence[VideoFacts], clips: Sequence[CanonicalClip], seed: int) -> dict[str, Any]:
    return {
        **_HEADER,
        "description": "Audible Kitchen in the form of Ego4D",
        "videos": [_manifest_video(video, seed) for video in videos],
        "concurrent_video_sets": [],
        "physical_settings": [],
        "clips": [
            {
                "clip_uid": clip.uid,
                "video_uid": clip.video_uid,
                "video_start_sec": clip.start,
                "video_end_sec": clip.stop,
                "video_start_frame": _frame(clip.start, clip.video),
                "video_end_frame": _frame(clip.stop, clip.video),
                "clip_metadata": _stream_metadata(clip.video, clip.stop - clip.start)
                | {"video_start_sec": None, "audio_start_sec": None},
                "s3_path": "",
                "manifold_path": "",
            }
            for clip in clips
        ],
    }


def _manifest_video(video: VideoFacts, seed: int) -> dict[str, Any]:
    uid, duration = video_uid(seed, video.video_id), video.duration_seconds
    metadata = _stream_metadata(video, duration)
    return {
        "video_uid": uid,
        "duration_sec": duration,
        "scenarios": ["Cooking"],
        "video_metadata": metadata,
        "split_em": None,
        "split_av": None,
        "split_fho": SPLITS[video.split],
        "s3_path": "",
        "origin_video_id": video.video_id,
        "video_source": "audible_kitchen",
        "device": None,
        "physical_setting_name": None,
        "fb_participant_id": int(video.participant_id[1:]),
        "is_stereo": False,
        "has_imu": False,
        "has_gaze": False,
        **dict.fromkeys(("imu_s3_path", "imu_manifold_path", "gaze_s3_path", "gaze_manifold_path")),
        "video_components": [
            {
                "video_component_uid": str(named_uid(seed, f"{video.video_id}/component0")),
                "video_uid": uid,
                "component_idx": 0,
                "redacted": False,
                "canonical_video_start_sec": 0.0,
                "canonical_video_end_sec": duration,
                "canonical_video_start_frame": 0,
                "canonical_video_end_frame": video.num_frames,
                "video_metadata": metadata,
            }
        ],
        "concurrent_sets": None,
        "has_redacted_regions": False,
        "redacted_intervals": [],
        "gaps": None,
    }


def _stream_metadata(video: VideoFacts, duration: float) -> dict[str, Any]:
    """Describe the streams; times in units of one frame and of one sample."""
    return {
        "fps": float(video.fps),
        "num_frames": round(duration * video.fps),
        "video_codec": "h264",
        "display_resolution_width": video.width,
        "display_resolution_height": video.height,
        "sample_resolution_width": video.width,
        "sample_resolution_height": video.height,
        "mp4_duration_sec": duration,
        "video_start_sec": 0.0,
        "video_duration_sec": duration,
        "audio_start_sec": 0.0,
        "audio_duration_sec": duration,
        "video_start_pts": 0,
        "video_duration_pts": round(duration * video.fps),
        "video_base_numerator": 1,
        "video_base_denominator": video.fps,
        "audio_start_pts": 0,
        "audio_duration_pts": round(duration * video.sample_rate),
        "audio_base_numerator": 1,
        "audio_base_denominator": video.sample_rate,
    }


def _actions(
    clip: CanonicalClip, on_screen: Mapping[str, Sequence[Mapping[str, Any]]], labelled: bool
) -> Iterator[dict[str, Any]]:
    """Yield the rows of one canonical clip for long-term anticipation."""
    events = [event for event in on_screen[clip.video.video_id] if clip.holds(event["onset_seconds"])]
    for index, event in enumerate(events):
        start = round(event["onset_seconds"] - clip.start, 3)
        stop = round(event["offset_seconds"] - clip.start, 3)
        row = {
            "video_uid": clip.video_uid,
            "clip_uid": clip.uid,
            **_span("clip_parent_{}", clip.start, clip.stop, clip.video),
            **_span("interval_{}", *clip.interval, clip.video),
            **_span("action_clip_{}", start, stop, clip.video),
            "clip_id": clip.number,
            "action_idx": index,
        }
        labels = {
            "verb": event["verb"],
            "noun": event["noun"],
            "verb_label": event["verb_class"],
            "noun_label": event["noun_class"],
        }
        yield row | labels if labelled else row


def _span(pattern: str, start: float, stop: float, video: VideoFacts) -> dict[str, float]:
    """Return the four fields that give a span in seconds and in frames."""
    return {
        pattern.format("start_sec"): start,
        pattern.format("end_sec"): stop,
        pattern.format("start_frame"): _frame(start, video),
        pattern.format("end_frame"): _frame(stop, video),
    }


def _frame(time_seconds: float, video: VideoFacts) -> int:
    return round(time_seconds * video.fps)


# --- state changes ---


def _choose_windows(
    clips: Sequence[CanonicalClip], on_screen: Mapping[str, Sequence[Mapping[str, Any]]], splits: Sequence[str]
) -> dict[str, list[_Window]]:
    """Return as many windows with a change as without for each split, in order of time."""
    changes = {
        video_id: [event for event in events if event["state_before"] != event["state_after"]]
        for video_id, events in on_screen.items()
    }
    chosen = {}
    for split in splits:
        mine = [clip for clip in clips if clip.video.split == split]
        negatives = [window for clip in mine for window in _windows_without(clip, changes[clip.video.video_id])]
        positives = [window for clip in mine for window in _windows_with(clip, changes[clip.video.video_id])]
        num_each = min(len(negatives), len(positives))
        kept = [*_thinned(positives, num_each), *_thinned(negatives, num_each)]
        chosen[split] = sorted(kept, key=lambda window: (window.clip.number, window.start, window.uid))
    return chosen


def _thinned(windows: Sequence[_Window], num_kept: int) -> list[_Window]:
    """Keep some, as if drawn at random: the names are hashes."""
    return sorted(windows, key=lambda window: window.uid)[:num_kept]


def _windows_without(clip: CanonicalClip, changes: Sequence[Mapping[str, Any]]) -> Iterator[_Window]:
    """Yield windows in which no state changes: side by side in the middle of each rest that is long enough."""
    times = [event["point_of_no_return_seconds"] for event in changes]
    inside = [time for time in times if clip.start < time < clip.stop]
    begins = [clip.start, *(time + _CLEARANCE_SECONDS for time in inside)]
    ends = [*(time - _CLEARANCE_SECONDS for time in inside), clip.stop]
    for begin, end in zip(begins, ends, strict=True):
        num_windows = max(0, int((end - begin) // OSCC_SECONDS))
        first = (begin + end - num_windows * OSCC_SECONDS) / 2
        for part in range(num_windows):
            start = round(first + part * OSCC_SECONDS, 2)
            if clip.holds(start + OSCC_SECONDS / 2):
                name = f"{clip.video.video_id}_rest_{round(start * 100)}"
                uid = str(uuid5(UUID(clip.video_uid), name))
                yield _Window(clip, name, uid, start, round(start + OSCC_SECONDS, 2), None)


def _windows_with(clip: CanonicalClip, changes: Sequence[Mapping[str, Any]]) -> Iterator[_Window]:
    """Yield one window for each change, the point of no return somewhere in its middle half, others outside if so."""
    times = np.array([event["point_of_no_return_seconds"] for event in changes])
    for event in changes:
        time = event["point_of_no_return_seconds"]
        if not clip.holds(time) or clip.stop - clip.start < OSCC_SECONDS:
            continue
        uid = uuid5(UUID(clip.video_uid), event["event_id"])
        offsets = np.random.default_rng(uid.int).uniform(-_LARGEST_OFFSET, _LARGEST_OFFSET, _NUM_DRAWS)
        starts = np.clip(time - OSCC_SECONDS * (0.5 + offsets), clip.start, clip.stop - OSCC_SECONDS).round(2)
        num_inside = [int(((times >= start) & (times <= start + OSCC_SECONDS)).sum()) for start in starts]
        start = float(starts[int(np.argmin(num_inside))])
        yield _Window(clip, event["event_id"], str(uid), start, round(start + OSCC_SECONDS, 2), time)


def _state_change(window: _Window, *, labelled: bool) -> dict[str, Any]:
    """Return the row of one window; without a change it has no point of no return, as in the official files."""
    clip, video = window.clip, window.clip.video
    row: dict[str, Any] = {
        "clip_uid": clip.uid,
        "clip_id": window.name,
        "unique_id": window.uid,
        "video_uid": clip.video_uid,
        **_span("parent_{}", window.start, window.stop, video),
        **_span("clip_{}", round(window.start - clip.start, 2), round(window.stop - clip.start, 2), video),
    }
    if not labelled:
        return row
    row["state_change"] = window.change_at is not None
    if window.change_at is None:
        return row | {"pnr_frame": None}
    return row | {
        "clip_pnr_frame": _frame(window.change_at - clip.start, video),
        "parent_pnr_frame": _frame(window.change_at, video),
    }


def _link_video(out: Path, version: str, video: VideoFacts, uid: str) -> None:
    target = Path("../../..", video.participant_id, "videos", f"{video.video_id}.MP4")
    link_to(out / "ego4d" / version / "full_scale" / f"{uid}.mp4", target)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
