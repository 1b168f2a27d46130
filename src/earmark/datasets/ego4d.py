"""Ego4D: the official json files and the videos in the layout of the official download.

It reads ``ego4d.json`` and the annotations of two tasks of the Forecasting + Hands and Objects benchmark: long-term
action anticipation, which lists every action, and object state change classification with the point of no return
(Grauman et al., "Ego4D", CVPR 2022; https://ego4d-data.org/docs/data/annotations-schemas).
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from earmark.datasets.annotation_files import (
    MAX_VIDEO_SECONDS,
    RowError,
    RowFaults,
    checked_file_name,
    checked_id,
    checked_number,
    checked_span,
    json_rows,
    quoted,
    read_json,
)
from earmark.datasets.listing import is_readable_file
from earmark.datasets.records import ActionRecord, DatasetError, NoVideoFoundError, VideoRecord

__all__ = ["Ego4D", "StateChangeRecord"]

FILE_SPLITS = {"train": "train", "validation": "val", "test": "test_unannotated"}
VIDEO_SPLITS = {"train": "train", "val": "validation", "test": "test"}
VERSIONS = ("v2", "v1")  # as the download names its folders; the first that is there is read
MANIFESTS = ("ego4d.json", "{version}/ego4d.json", "{version}/annotations/ego4d.json")
MAX_FPS = 1000.0  # the cameras of Ego4D take 24 to 60 frames per second
MAX_FRAMES = 10**10  # of the longest video at that rate
MAX_INDEX = 10**9
VIDEO_FOLDERS = ("full_scale", "video_540ss", "down_scaled")  # the first with a video is taken

Record = TypeVar("Record")


class _Video(NamedTuple):
    """What is kept of a video's row in ``ego4d.json``."""

    video_uid: str
    split: str
    participant_id: str
    fps: Any  # as it stands there; checked where it is used


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
        problems: A line where another version's annotations are there, too, and no version was asked for; and the rows
            that were left out so far, each with its file, place and reason.
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
        self._problems: dict[tuple[str, str], tuple[str, ...]] = {}
        if version is None and any((self.base_path / name / "annotations").is_dir() for name in others):
            there_too = f"{self.base_path}: {self.version} is read; {' and '.join(others)} is there, too"
            self._problems["", "versions"] = (there_too,)
        self.annotations_path = self.base_path / self.version / "annotations"
        manifests = [name.format(version=self.version) for name in MANIFESTS]
        self._manifest = next((path for name in manifests if (path := self.base_path / name).is_file()), None)
        if self._manifest is None:
            raise DatasetError(f"{self.base_path}: no ego4d.json here (looked for {', '.join(manifests)})")
        self._videos: dict[str, _Video] = {}
        faults = RowFaults(self._manifest)
        for place, row in json_rows(self._manifest, "videos", faults):
            try:
                video_uid = checked_file_name("video", checked_id("video_uid", row.get("video_uid")))
                if video_uid in self._videos:
                    raise RowError(f"video {video_uid} is listed twice")
                self._videos[video_uid] = _video(video_uid, row)
            except RowError as error:
                faults.add(place, error)
        faults.require_rows(len(self._videos))
        self._problems["", "manifest"] = faults.lines()
        self.classes = self._read_classes()

    @property
    def problems(self) -> tuple[str, ...]:
        """What was left out by what was read so far, and why; each once."""
        return tuple(dict.fromkeys(chain.from_iterable(self._problems.values())))

    def videos(self, split: str | None = None) -> list[VideoRecord]:
        """Return the videos of ``ego4d.json``, in its order.

        Their split is ``split_fho``. A video whose clips are in several splits, or in none, has the split ``all`` and
        is returned only where no split is asked for. A missing one is returned with the path where it was looked for,
        so that preparing reports it.

        Args:
            split: ``train``, ``validation`` or ``test``; None for all.

        Raises:
            DatasetError: If there is no such split.
            NoVideoFoundError: If all of the videos are missing.
        """
        if split is not None and split not in FILE_SPLITS:
            raise DatasetError(f"{self.base_path}: no such split: {split!r} (splits: {', '.join(FILE_SPLITS)})")
        records = []
        for video_uid, video in self._videos.items():
            if split in (None, video.split):
                path = self._find_video(video_uid)
                records.append(VideoRecord(video_uid, path, video.split, video.participant_id))
        if not any(is_readable_file(record.path) for record in records):
            raise NoVideoFoundError(self.base_path, records)
        return records

    def actions(self, split: str) -> list[ActionRecord]:
        """Return the actions that long-term anticipation lists, clip by clip in order of their index.

        An action is named ``<clip_uid>_<action_idx>``; times are those of the whole video. In the test split there are
        no labels. A row with an unknown video or class, an impossible time, or an index that was there before is left
        out, and named in `problems`.

        Args:
            split: ``train``, ``validation`` or ``test``.

        Raises:
            DatasetError: If the file is missing or damaged, or all its rows are.
        """
        clips: dict[str, int] = {}
        shared: dict[tuple[int, int], dict[str, int]] = {}

        def action(row: dict[str, Any]) -> tuple[int, ActionRecord]:
            clip_uid = checked_id("clip_uid", row.get("clip_uid"))
            index = _whole(row, "action_idx", most=MAX_INDEX)
            clip = clips.setdefault(clip_uid, len(clips))
            video_uid, video = self._known_video(row)
            offset = _number(row, "clip_parent_start_sec")
            start = offset + _number(row, "action_clip_start_sec", least=-MAX_VIDEO_SECONDS)
            stop = offset + _number(row, "action_clip_end_sec", least=-MAX_VIDEO_SECONDS)
            seconds = checked_span("the action", start, stop)
            labels = {} if split == "test" else self._labels(row, shared)
            return clip * (MAX_INDEX + 1) + index, ActionRecord(
                checked_id("clip_uid and action_idx", f"{clip_uid}_{index}"),
                video_uid,
                *seconds,
                video.participant_id,
                labels,
            )

        def twice(row: dict[str, Any]) -> str:
            return f"action {row['action_idx']} of clip {row['clip_uid']} is listed twice"

        actions = self._records("fho_lta", split, action, twice)
        return [actions[key] for key in sorted(actions)]

    def state_changes(self, split: str) -> list[StateChangeRecord]:
        """Return the clips of object state change classification, in the order of their file.

        A row with an unknown video, impossible times, a frame outside its clip, or an id that was there before is left
        out, and named in `problems`.

        Args:
            split: ``train``, ``validation`` or ``test``; the last without labels.

        Raises:
            DatasetError: If the file is missing or damaged, or all its rows are.
        """

        def change(row: dict[str, Any]) -> tuple[str, StateChangeRecord]:
            unique_id = checked_id("unique_id", row.get("unique_id"))
            video_uid, video = self._known_video(row)
            start, stop = _number(row, "parent_start_sec"), _number(row, "parent_end_sec")
            seconds = checked_span("the clip", start, stop)
            first, last = (
                _frame(row, "parent_start_frame"),
                _frame(row, "parent_end_frame"),
            )
            if first >= last:
                raise RowError(f"the clip goes from frame {first} to frame {last}")
            state_change, pnr_frame = None, None
            if split != "test":
                state_change = row.get("state_change")
                if not isinstance(state_change, bool):
                    raise RowError(f"state_change is {quoted(state_change)}, expected true or false")
                if state_change:
                    pnr_frame = _whole(
                        row, "parent_pnr_frame" if "parent_pnr_frame" in row else "pnr_frame", most=MAX_FRAMES
                    )
                    if not first <= pnr_frame <= last:
                        raise RowError(f"the point of no return at frame {pnr_frame} is outside {(first, last)}")
            try:
                fps = checked_number("fps", video.fps, least=1e-3, most=MAX_FPS)
            except RowError as error:
                raise RowError(f"{self._manifest}, video {video_uid}: {error}") from error
            return unique_id, StateChangeRecord(
                unique_id, video_uid, *seconds, first, last, float(fps), state_change, pnr_frame
            )

        def twice(row: dict[str, Any]) -> str:
            return f"unique_id {row['unique_id']} is listed twice"

        return list(self._records("fho_oscc-pnr", split, change, twice).values())

    def _records(
        self,
        task: str,
        split: str,
        record_of: Callable[[dict[str, Any]], tuple[Any, Record]],
        twice: Callable[[dict[str, Any]], str],
    ) -> dict[Any, Record]:
        """Return the records of a file by key, in its order; note the rows that are left out."""
        if split not in FILE_SPLITS:
            raise DatasetError(f"{self.base_path}: no such split: {split!r} (splits: {', '.join(FILE_SPLITS)})")
        path = self.annotations_path / f"{task}_{FILE_SPLITS[split]}.json"
        faults = RowFaults(path)
        records: dict[Any, Record] = {}
        for place, row in json_rows(path, "clips", faults):
            try:
                key, record = record_of(row)
                if key in records:
                    raise RowError(twice(row))
                records[key] = record
            except RowError as error:
                faults.add(place, error)
        faults.require_rows(len(records))
        self._problems[task, split] = faults.lines()
        return records

    def _known_video(self, row: dict[str, Any]) -> tuple[str, _Video]:
        video_uid = checked_id("video_uid", row.get("video_uid"))
        video = self._videos.get(video_uid)
        if video is None:
            raise RowError(f"video {video_uid} is not in {self._manifest}")
        return video.video_uid, video

    def _labels(self, row: dict[str, Any], shared: dict[tuple[int, int], dict[str, int]]) -> dict[str, int]:
        if not self.classes:
            raise DatasetError(f"{self.annotations_path}: fho_lta_taxonomy.json is missing")
        verb = _whole(row, "verb_label", most=len(self.classes["verb"]) - 1)
        noun = _whole(row, "noun_label", most=len(self.classes["noun"]) - 1)
        return shared.setdefault((verb, noun), {"verb": verb, "noun": noun})

    def _read_classes(self) -> dict[str, list[str]]:
        path = self.annotations_path / "fho_lta_taxonomy.json"
        if not path.is_file():
            return {}
        taxonomy = read_json(path)
        if not isinstance(taxonomy, dict):
            raise DatasetError(f"{path}: expected a json object")
        classes = {}
        for label in ("verb", "noun"):
            names = taxonomy.get(f"{label}s")
            if not isinstance(names, list):
                raise DatasetError(f"{path}: {label}s must be a list of names")
            try:
                classes[label] = [checked_id(f"{label} {number}", name) for number, name in enumerate(names)]
            except RowError as error:
                raise DatasetError(f"{path}: {error}") from error
        return classes

    def _find_video(self, video_uid: str) -> Path:
        """Return where a video is, or where it should be."""
        versions = [self.version, *(name for name in VERSIONS if name != self.version)]
        places = [self.base_path / name / folder / f"{video_uid}.mp4" for name in versions for folder in VIDEO_FOLDERS]
        return next((path for path in places if is_readable_file(path)), places[0])


def _video(video_uid: str, row: dict[str, Any]) -> _Video:
    split, participant = row.get("split_fho"), row.get("fb_participant_id")
    if isinstance(participant, int | float):  # the official file numbers them
        participant = str(participant)
    metadata = row.get("video_metadata")
    return _Video(
        video_uid,
        split=VIDEO_SPLITS.get(split, "all") if isinstance(split, str) else "all",
        participant_id="" if participant in (None, "") else checked_id("fb_participant_id", participant),
        fps=metadata.get("fps") if isinstance(metadata, dict) else None,
    )


def _number(row: dict[str, Any], name: str, *, least: float = 0.0) -> float:
    return checked_number(name, row.get(name), least=least, most=MAX_VIDEO_SECONDS)


def _whole(row: dict[str, Any], name: str, *, most: int) -> int:
    return int(checked_number(name, row.get(name), least=0, most=most, whole=True))


def _frame(row: dict[str, Any], name: str) -> int:
    return _whole(row, name, most=MAX_FRAMES)
