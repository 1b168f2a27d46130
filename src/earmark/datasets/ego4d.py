"""Ego4D: the official json files and the videos in the layout of the official download.

It reads ``ego4d.json`` and the annotations of two tasks of the Forecasting + Hands and Objects benchmark: long-term
action anticipation, which lists every action, and object state change classification with the point of no return
(Grauman et al., "Ego4D", CVPR 2022; https://ego4d-data.org/docs/data/annotations-schemas).
"""

import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earmark.datasets.listing import is_readable_file
from earmark.datasets.records import ActionRecord, DatasetError, VideoRecord
from earmark.wording import counted

__all__ = ["Ego4D", "StateChangeRecord"]

FILE_SPLITS = {"train": "train", "validation": "val", "test": "test_unannotated"}
VIDEO_SPLITS = {"train": "train", "val": "validation", "test": "test"}
VERSIONS = ("v2", "v1")  # as the download names its folders; the first that is there is read
MANIFESTS = ("ego4d.json", "{version}/ego4d.json", "{version}/annotations/ego4d.json")
VIDEO_FOLDERS = ("full_scale", "video_540ss", "down_scaled")  # the first with a video is taken


@dataclass(frozen=True, slots=True)
class StateChangeRecord:
    """One short span of a video, with or without a change of an object's state.

    Attributes:
        unique_id: Its name.
        video_id: The video it is in.
        start_seconds: Where it starts in the video.
        stop_seconds: Where it ends.
        start_frame: Its first frame, counted from 0 at the start of the video.
        stop_frame: The frame that it ends before.
        fps: Frames per second in which frames are counted.
        state_change: Whether a state changes; None where labels are held back.
        pnr_frame: Frame of the point of no return, counted as `start_frame`; None without a change.
    """

    unique_id: str
    video_id: str
    start_seconds: float
    stop_seconds: float
    start_frame: int
    stop_frame: int
    fps: float
    state_change: bool | None
    pnr_frame: int | None

    @property
    def pnr_seconds(self) -> float | None:
        """Time of the point of no return in the video; None without a change."""
        return None if self.pnr_frame is None else self.start_seconds + (self.pnr_frame - self.start_frame) / self.fps


class Ego4D:
    """Ego4D below one folder.

    The annotations lie in ``base_path/v2/annotations``, ``ego4d.json`` there, in ``v2`` or in the folder itself, and a
    video at ``v2/full_scale/<video_uid>.mp4`` (or in ``v2/video_540ss`` or ``v2/down_scaled``); or all that in ``v1``.
    Videos do not change between versions: one that is only in the folder of the other is taken from there.

    Args:
        base_path: The folder.
        version: ``v1`` or ``v2``, whose annotations to read; None for the newest that is there.

    Attributes:
        name: ``ego4d``.
        base_path: The folder.
        version: The one that is read.
        problems: A line where another version's annotations are there, too, and no version was asked for.
        annotations_path: Where the annotations are.
        classes: Names of the verb and noun classes by number, as the taxonomy file counts them; empty without it.

    Raises:
        DatasetError: If the folder or ``ego4d.json`` is missing, or a file is damaged.
        ValueError: If there is no such version.

    Example:
        >>> ego4d = Ego4D("/data/ego4d_data")  # doctest: +SKIP
        >>> ego4d.state_changes("validation")[0].state_change  # doctest: +SKIP
        True
    """

    name = "ego4d"

    def __init__(self, base_path: str | os.PathLike[str], *, version: str | None = None) -> None:
        if version not in (None, *VERSIONS):
            raise ValueError(f"no such version of Ego4D: {version!r} (there is: {', '.join(VERSIONS)})")
        self.base_path = Path(base_path)
        if not self.base_path.is_dir():
            raise DatasetError(f"{self.base_path}: no such folder")
        there = [name for name in VERSIONS if (self.base_path / name).is_dir()]
        self.version = version or (there[0] if there else VERSIONS[0])
        others = [name for name in there if name != self.version]
        self.problems: tuple[str, ...] = ()
        if version is None and any((self.base_path / name / "annotations").is_dir() for name in others):
            self.problems = (f"{self.base_path}: {self.version} is read; {' and '.join(others)} is there, too",)
        self.annotations_path = self.base_path / self.version / "annotations"
        manifests = [name.format(version=self.version) for name in MANIFESTS]
        self._manifest = next((path for name in manifests if (path := self.base_path / name).is_file()), None)
        if self._manifest is None:
            raise DatasetError(f"{self.base_path}: no ego4d.json here (looked for {', '.join(manifests)})")
        self._videos: dict[str, dict[str, Any]] = {}
        for where, row in _rows(self._manifest, "videos"):
            video_uid = _text(where, row, "video_uid")
            if not re.fullmatch(r"\w[\w-]*", video_uid, re.ASCII):  # it becomes a file name
                raise DatasetError(f"{where}: {video_uid!r} cannot be the name of a video")
            if video_uid in self._videos:
                raise DatasetError(f"{where}: video {video_uid} is listed twice")
            self._videos[video_uid] = row
        self.classes = self._read_classes()

    def videos(self, split: str | None = None) -> list[VideoRecord]:
        """Return the videos of ``ego4d.json``, in its order.

        Their split is ``split_fho``. A video whose clips are in several splits, or in none, has the split ``all`` and
        is returned only where no split is asked for. A missing one is returned with the path where it was looked for,
        so that preparing reports it.

        Args:
            split: ``train``, ``validation`` or ``test``; None for all.

        Raises:
            DatasetError: If there is no such split, or all of the videos are missing.
        """
        if split is not None and split not in FILE_SPLITS:
            raise DatasetError(f"{self.base_path}: no such split: {split!r} (splits: {', '.join(FILE_SPLITS)})")
        records = []
        for video_uid, row in self._videos.items():
            of_video = VIDEO_SPLITS.get(str(row.get("split_fho")), "all")
            if split in (None, of_video):
                path = self._find_video(video_uid)
                records.append(VideoRecord(video_uid, path, of_video, self._participant(video_uid)))
        if not any(is_readable_file(record.path) for record in records):
            example = records[0].path if records else self.base_path
            raise DatasetError(
                f"{self.base_path}: {counted(len(records), 'video')} listed, none found (looked for {example})"
            )
        return records

    def actions(self, split: str) -> list[ActionRecord]:
        """Return the actions that long-term anticipation lists, clip by clip in order of their index.

        An action is named ``<clip_uid>_<action_idx>``; times are those of the whole video. In the test split there are
        no labels.

        Args:
            split: ``train``, ``validation`` or ``test``.

        Raises:
            DatasetError: If the file is missing or damaged, or a row has an unknown video or class or a bad time.
        """
        rows: dict[tuple[str, int], ActionRecord] = {}
        clips: dict[str, int] = {}
        for where, row in self._annotations("fho_lta", split):
            clip_uid, index = _text(where, row, "clip_uid"), _count(where, row, "action_idx")
            clips.setdefault(clip_uid, len(clips))
            if (clip_uid, index) in rows:
                raise DatasetError(f"{where}: action {index} of clip {clip_uid} is listed twice")
            video_uid = self._known_video(where, row)
            offset = _number(where, row, "clip_parent_start_sec")
            start = offset + _number(where, row, "action_clip_start_sec")
            stop = offset + _number(where, row, "action_clip_end_sec")
            if not 0 <= start < stop:
                raise DatasetError(f"{where}: the action goes from {start} s to {stop} s")
            labels = {} if split == "test" else self._labels(where, row)
            rows[clip_uid, index] = ActionRecord(
                f"{clip_uid}_{index}", video_uid, start, stop, self._participant(video_uid), labels
            )
        return [rows[key] for key in sorted(rows, key=lambda key: (clips[key[0]], key[1]))]

    def state_changes(self, split: str) -> list[StateChangeRecord]:
        """Return the clips of object state change classification, in the order of their file.

        Args:
            split: ``train``, ``validation`` or ``test``; the last without labels.

        Raises:
            DatasetError: If the file is missing or damaged, or a row has an unknown video or a frame outside its clip.
        """
        records: dict[str, StateChangeRecord] = {}
        for where, row in self._annotations("fho_oscc-pnr", split):
            unique_id, video_uid = _text(where, row, "unique_id"), self._known_video(where, row)
            if unique_id in records:
                raise DatasetError(f"{where}: unique_id {unique_id} is listed twice")
            seconds = _number(where, row, "parent_start_sec"), _number(where, row, "parent_end_sec")
            frames = _count(where, row, "parent_start_frame"), _count(where, row, "parent_end_frame")
            if seconds[0] >= seconds[1] or frames[0] >= frames[1]:
                raise DatasetError(f"{where}: the clip goes from {seconds[0]} s to {seconds[1]} s")
            state_change, pnr_frame = None, None
            if split != "test":
                state_change = row.get("state_change")
                if not isinstance(state_change, bool):
                    raise DatasetError(f"{where}: state_change is {state_change!r}, expected true or false")
                if state_change:
                    pnr_frame = _count(where, row, "parent_pnr_frame" if "parent_pnr_frame" in row else "pnr_frame")
                    if not frames[0] <= pnr_frame <= frames[1]:
                        raise DatasetError(f"{where}: the point of no return at frame {pnr_frame} is outside {frames}")
            fps = self._fps(where, video_uid)
            records[unique_id] = StateChangeRecord(
                unique_id, video_uid, *seconds, *frames, fps, state_change, pnr_frame
            )
        return list(records.values())

    def _annotations(self, task: str, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        if split not in FILE_SPLITS:
            raise DatasetError(f"{self.base_path}: no such split: {split!r} (splits: {', '.join(FILE_SPLITS)})")
        return _rows(self.annotations_path / f"{task}_{FILE_SPLITS[split]}.json", "clips")

    def _known_video(self, where: str, row: dict[str, Any]) -> str:
        video_uid = _text(where, row, "video_uid")
        if video_uid not in self._videos:
            raise DatasetError(f"{where}: video {video_uid} is not in {self._manifest}")
        return video_uid

    def _fps(self, where: str, video_uid: str) -> float:
        metadata = self._videos[video_uid].get("video_metadata")
        fps = _number(f"{self._manifest}, {video_uid}", metadata if isinstance(metadata, dict) else {}, "fps")
        if fps <= 0:
            raise DatasetError(f"{where}: {self._manifest} gives video {video_uid} {fps} frames per second")
        return fps

    def _participant(self, video_uid: str) -> str:
        participant = self._videos[video_uid].get("fb_participant_id")
        return "" if participant is None else str(participant)

    def _labels(self, where: str, row: dict[str, Any]) -> dict[str, int]:
        labels = {}
        for label in ("verb", "noun"):
            number = _count(where, row, f"{label}_label")
            names = self.classes.get(label)
            if names is None:
                raise DatasetError(f"{self.annotations_path}: fho_lta_taxonomy.json is missing")
            if number >= len(names):
                raise DatasetError(f"{where}: {label}_label is {number}, expected 0 to {len(names) - 1}")
            labels[label] = number
        return labels

    def _read_classes(self) -> dict[str, list[str]]:
        path = self.annotations_path / "fho_lta_taxonomy.json"
        if not path.is_file():
            return {}
        taxonomy = _read_json(path)
        if not isinstance(taxonomy, dict):
            raise DatasetError(f"{path}: expected a json object")
        classes = {}
        for label in ("verb", "noun"):
            names = taxonomy.get(f"{label}s")
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise DatasetError(f"{path}: {label}s must be a list of names")
            classes[label] = names
        return classes

    def _find_video(self, video_uid: str) -> Path:
        """Return where a video is, or where it should be."""
        versions = [self.version, *(name for name in VERSIONS if name != self.version)]
        places = [self.base_path / name / folder / f"{video_uid}.mp4" for name in versions for folder in VIDEO_FOLDERS]
        return next((path for path in places if is_readable_file(path)), places[0])


def _read_json(path: Path) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: not a readable json file ({error})") from error
    return content


def _rows(path: Path, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a list in a json file, and where each stands; the list is the file or lies below a key."""
    content = _read_json(path)
    rows = content.get(key) if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise DatasetError(f"{path}: must be a list, or an object whose {key} is one")
    for number, row in enumerate(rows):
        where = f"{path}, {key}[{number}]"
        if not isinstance(row, dict):
            raise DatasetError(f"{where}: expected a json object")
        yield where, row


def _text(where: str, row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value:
        raise DatasetError(f"{where}: {name} is {value!r}, expected a name")
    return value


def _number(where: str, row: dict[str, Any], name: str) -> float:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DatasetError(f"{where}: {name} is {value!r}, expected a number")
    return float(value)


def _count(where: str, row: dict[str, Any], name: str) -> int:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DatasetError(f"{where}: {name} is {value!r}, expected a whole number of at least 0")
    return value
