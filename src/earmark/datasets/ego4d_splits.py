"""Which of Ego4D's videos and clips are for training, and which any task holds out for validation or test.

A video can be for training in one task and for validation in another, and a clip for training can share its margins of
8 s with one that is held out: such are for neither.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from earmark.datasets.annotation_files import MAX_VIDEO_SECONDS, RowFaults, json_rows
from earmark.datasets.ego4d_manifest import ManifestClip, ManifestVideo

__all__ = ["FILE_SPLITS", "TASK_FILES", "Listing", "read_listing"]

FILE_SPLITS = {"train": "train", "validation": "val", "test": "test_unannotated"}
TASK_FILES = ("fho_lta", "fho_oscc-pnr")
_EVERYTHING = (0.0, float("inf"))  # where a clip that is held out lies in its video, if that is not said


@dataclass(slots=True)
class ListedClip:
    """A clip file that rows of some tasks name.

    Attributes:
        video_uid: The video that it is cut from.
        span: Where it lies in the video, in seconds, as the rows say; None where they do not.
        splits: By split, the tasks that have it there.
    """

    video_uid: str
    span: tuple[float, float] | None = None
    splits: dict[str, set[str]] = field(default_factory=dict)


class Listing:
    """What the files of the tasks list, whatever else is wrong with their rows.

    Attributes:
        clips: By clip, in the order of the files.
    """

    def __init__(self) -> None:
        self.clips: dict[str, ListedClip] = {}
        self._videos: dict[str, dict[str, set[str]]] = {}
        self._loose: dict[str, list[tuple[tuple[float, float], str]]] = {}  # held out, of no clip file

    def add(self, task: str, split: str, row: Mapping[str, Any]) -> None:
        """Add a row; one without a video is passed over, and named where it is read."""
        video_uid, clip_uid = row.get("video_uid"), row.get("clip_uid")
        if not isinstance(video_uid, str):
            return
        self._videos.setdefault(video_uid, {}).setdefault(split, set()).add(task)
        if isinstance(clip_uid, str):
            clip = self.clips.get(clip_uid)
            if clip is None:
                clip = self.clips[clip_uid] = ListedClip(video_uid)
            clip.span = clip.span or _span(row, "clip_parent_{}_sec")
            clip.splits.setdefault(split, set()).add(task)
        elif split != "train":
            span = _span(row, "parent_{}_sec") or _EVERYTHING
            self._loose.setdefault(video_uid, []).append((span, f"{split} of {task}"))

    def of_video(self, video: ManifestVideo) -> tuple[str, str]:
        """Return the split of a whole video, and what holds it, or a part of it, out; empty if nothing does."""
        listed = self._videos.get(video.video_uid, {})
        splits = ({*listed} | {video.split}) - {"all"}
        reasons = [*_held_out(listed), *video.held_out]
        if video.split not in ("train", "all"):
            reasons.append(f"{video.split} by split_fho")
        if not splits:
            return "all", ", ".join(reasons)
        split = splits.pop() if len(splits) == 1 else "mixed"
        return "mixed" if split == "train" and reasons else split, ", ".join(reasons)

    def of_clips(
        self, videos: Mapping[str, ManifestVideo], known: Mapping[str, ManifestClip]
    ) -> dict[str, tuple[str, str]]:
        """Return the split of each clip file, and what holds it, or a part of it, out; empty if nothing does.

        Args:
            videos: Of the manifest.
            known: Clips of the manifest, which say where each lies in its video.
        """
        held_out: dict[str, list[tuple[tuple[float, float], str]]] = {k: list(v) for k, v in self._loose.items()}
        spans = {}
        for clip_uid, clip in self.clips.items():
            there = known.get(clip_uid)
            spans[clip_uid] = (there.start_seconds, there.stop_seconds) if there else clip.span or _EVERYTHING
            reasons = _held_out(clip.splits)
            if reasons:
                held_out.setdefault(clip.video_uid, []).append((spans[clip_uid], f"{reasons[0]} (clip {clip_uid})"))
        found = {}
        for clip_uid, clip in self.clips.items():
            split = next(iter(clip.splits)) if len(clip.splits) == 1 else "mixed"
            reasons = _held_out(clip.splits)
            if split == "train":
                video = videos.get(clip.video_uid)
                start, stop = spans[clip_uid]
                reasons = list(video.held_out) if video else []
                reasons += [
                    f"overlaps with {what}"
                    for (first, last), what in held_out.get(clip.video_uid, ())
                    if first < stop and start < last
                ]
            found[clip_uid] = ("mixed" if split == "train" and reasons else split, ", ".join(dict.fromkeys(reasons)))
        return found


def read_listing(folder: Path) -> Listing:
    """Read which videos and clips the files of the tasks list; those that are not there list nothing.

    Args:
        folder: Of the annotations.

    Raises:
        DatasetError: If a file is damaged: what it holds out is not known then.
    """
    listing = Listing()
    for task in TASK_FILES:
        for split, name in FILE_SPLITS.items():
            path = folder / f"{task}_{name}.json"
            if path.is_file():
                for _, row in json_rows(path, "clips", RowFaults(path)):  # faults are told where records are read
                    listing.add(task, split, row)
    return listing


def _held_out(splits: Mapping[str, set[str]]) -> list[str]:
    """Return what holds out, a text for each split and task."""
    return [f"{split} of {task}" for split, tasks in splits.items() if split != "train" for task in sorted(tasks)]


def _span(row: Mapping[str, Any], pattern: str) -> tuple[float, float] | None:
    start, stop = row.get(pattern.format("start")), row.get(pattern.format("end"))
    if isinstance(start, int | float) and isinstance(stop, int | float) and 0 <= start < stop <= MAX_VIDEO_SECONDS:
        return float(start), float(stop)
    return None
