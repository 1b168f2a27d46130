"""Ego4D: the official json files and the videos in the layout of the official download.

It reads ``ego4d.json`` and the annotations of two tasks of the Forecasting + Hands and Objects benchmark: long-term
action anticipation, which lists every action, and object state change classification with the point of no return
(Grauman et al., "Ego4D", CVPR 2022; https://ego4d-data.org/docs/data/annotations-schemas).
"""

import os
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from earmark.datasets.annotation_files import (
    MAX_VIDEO_SECONDS,
    RowError,
    RowFaults,
    RowRemarks,
    checked_file_name,
    checked_id,
    checked_number,
    checked_span,
    json_rows,
)
from earmark.datasets.ego4d_anticipation import AnticipationClip, AnticipationRows, read_anticipation_classes
from earmark.datasets.ego4d_manifest import (
    ManifestClip,
    ManifestVideo,
    checked_fps,
    read_manifest_clips,
    read_manifest_videos,
)
from earmark.datasets.ego4d_splits import FILE_SPLITS, TASK_FILES, Listing, read_listing
from earmark.datasets.ego4d_state_changes import StateChangeReader, StateChangeRecord
from earmark.datasets.listing import is_readable_file
from earmark.datasets.records import ActionRecord, DatasetError, NoVideoFoundError, VideoRecord
from earmark.wording import counted

__all__ = ["Ego4D", "Ego4DLayout", "StateChangeRecord"]

VERSIONS = ("v2", "v1")  # as the download names its folders; the first that is there is read
MANIFESTS = ("ego4d.json", "{version}/ego4d.json", "{version}/annotations/ego4d.json")
TOLERANCE_SECONDS = 1.0  # beyond the length of a video, which containers round
Ego4DLayout = Literal["full_scale", "clips"]
FOLDERS: dict[Ego4DLayout, tuple[str, ...]] = {  # of several the first with a file is taken
    "full_scale": ("full_scale", "video_540ss", "down_scaled"),
    "clips": ("clips", "clips_540ss"),
}
MAX_NAMED = 5


class Ego4D:
    """Ego4D below one folder.

    The annotations lie in ``base_path/v2/annotations``, ``ego4d.json`` there, in ``v2`` or in the folder itself, and a
    video at ``v2/full_scale/<video_uid>.mp4`` (or in ``v2/video_540ss`` or ``v2/down_scaled``); or all that in ``v1``.
    Videos do not change between versions: one that is only in the folder of the other is taken from there.

    Of the download of clips, ``v2/clips/<clip_uid>.mp4`` (or ``v2/clips_540ss``), each is a video of its own, named by
    its ``clip_uid``, and times are its own. One kind of file is read, never both.

    Args:
        base_path: The folder.
        version: ``v1`` or ``v2``, whose annotations to read; None for the newest that is there.
        layout: ``full_scale`` or ``clips``: which files are read. None takes whole videos where there is one, else
            clips.

    Attributes:
        name: ``ego4d``.
        base_path: The folder.
        version: The one that is read.
        problems: The rows that were left out so far, each with its file, place and reason.
        remarks: A line where another version's annotations are there, too, and no version was asked for; what is
            unusual in what was read so far, and was read all the same, counted; and which videos of the training split
            are held out since another task has them for validation or test.
        annotations_path: Where the annotations are.
        classes: Names of the verb and noun classes by number, as the taxonomy file counts them; empty without it.

    Raises:
        DatasetError: If the folder or ``ego4d.json`` is missing, or a file is damaged.
        ValueError: If there is no such version or layout.

    Example:
        >>> ego4d = Ego4D("/data/ego4d_data")  # doctest: +SKIP
        >>> ego4d.state_changes("validation")[0].state_change  # doctest: +SKIP
        True
    """

    name = "ego4d"

    def __init__(
        self, base_path: str | os.PathLike[str], *, version: str | None = None, layout: str | None = None
    ) -> None:
        if version not in (None, *VERSIONS):
            raise ValueError(f"no such version of Ego4D: {version!r} (there is: {', '.join(VERSIONS)})")
        if layout not in (None, *FOLDERS):
            raise ValueError(f"no such layout of Ego4D: {layout!r} (there is: {', '.join(FOLDERS)})")
        self.base_path = Path(base_path)
        if not self.base_path.is_dir():
            raise DatasetError(f"{self.base_path}: no such folder")
        there = [name for name in VERSIONS if (self.base_path / name).is_dir()]
        self.version = version or (there[0] if there else VERSIONS[0])
        others = [name for name in there if name != self.version]
        self._problems: dict[tuple[str, str], tuple[str, ...]] = {}
        self._remarks: dict[tuple[str, str], tuple[str, ...]] = {}
        self._num_left_out: dict[tuple[str, str], int] = {}
        if version is None and any((self.base_path / name / "annotations").is_dir() for name in others):
            there_too = f"{self.base_path}: {self.version} is read; {' and '.join(others)} is there, too"
            self._remarks["", "versions"] = (there_too,)
        self.annotations_path = self.base_path / self.version / "annotations"
        manifests = [name.format(version=self.version) for name in MANIFESTS]
        manifest = next((path for name in manifests if (path := self.base_path / name).is_file()), None)
        if manifest is None:
            raise DatasetError(f"{self.base_path}: no ego4d.json here (looked for {', '.join(manifests)})")
        self._manifest = manifest
        self._videos, self._problems["", "manifest"], self._remarks["", "manifest"] = read_manifest_videos(manifest)
        self.classes = self._read_classes()
        self._layout: Ego4DLayout | None = None if layout is None else "clips" if layout == "clips" else "full_scale"

    @property
    def problems(self) -> tuple[str, ...]:
        """What was left out by what was read so far, and why; each once."""
        return tuple(dict.fromkeys(chain.from_iterable(self._problems.values())))

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is unusual in what was read so far; each once."""
        return tuple(dict.fromkeys(chain.from_iterable(self._remarks.values())))

    @property
    def layout(self) -> Ego4DLayout:
        """Which files are read: that asked for, else whole videos where there is one, else clips where there is one."""
        if self._layout is None:
            whole = any(is_readable_file(self._find(name, "full_scale")) for name in self._videos)
            clips = any(self._has_files(folder) for layout, folder in self.places() if layout == "clips")
            self._layout = "clips" if clips and not whole else "full_scale"
            if clips and whole:
                self._remarks["", "layout"] = (f"{self.base_path}: clips are not read, since whole videos are there",)
        return self._layout

    def splits(self, task: str) -> list[str]:
        """Return the splits of a task whose file is there.

        Args:
            task: ``fho_lta`` or ``fho_oscc-pnr``.
        """
        return [split for split in FILE_SPLITS if self._task_path(task, split).is_file()]

    def num_left_out(self, task: str, split: str) -> int:
        """Return how many rows of a file were left out when it was last read; `problems` names them."""
        return self._num_left_out.get((task, split), 0)

    def videos(self, split: str | None = None) -> list[VideoRecord]:
        """Return the videos of ``ego4d.json`` in its order, or the clips that the tasks list in theirs.

        The split is ``split_fho``, and what the files of the tasks say. What is for training in one task and held out
        by another (of any benchmark: ``split_em`` and ``split_av`` count, too) is for neither: its split is ``mixed``;
        as is that of a clip for training that overlaps with one that is held out. What is in no split has the split
        ``all``. These two are returned only where no split is asked for. A missing video is returned with the path
        where it was looked for, so that preparing reports it.

        Args:
            split: ``train``, ``validation`` or ``test``; None for all.

        Raises:
            DatasetError: If there is no such split, or a file of a task is damaged.
            NoVideoFoundError: If all of the videos are missing.
        """
        if split is not None:
            self._require_split(split)
        records = []
        kept_back = []
        for video_id, (its_split, reason) in self._splits.items():
            video = self._manifest_video(video_id)
            if its_split == "mixed" and reason:
                kept_back.append(video_id)
            if split in (None, its_split):
                path = self._find(video_id, self.layout)
                records.append(VideoRecord(video_id, path, its_split, video.participant_id if video else ""))
        if kept_back:
            what = "clip" if self.layout == "clips" else "video"
            reasons = [f"{name} ({self._splits[name][1]})" for name in kept_back[:MAX_NAMED]]
            more = f" and {len(kept_back) - MAX_NAMED} more" if len(kept_back) > MAX_NAMED else ""
            self._remarks["", "held out"] = (
                f"{self.base_path}: {counted(len(kept_back), what)} with a part that a task holds out, not trained on: "
                f"{', '.join(reasons)}{more}",
            )
        if not any(is_readable_file(record.path) for record in records):
            raise NoVideoFoundError(self.base_path, records)
        return records

    def held_out(self) -> dict[str, str]:
        """Return what must not be trained on, whole videos and clips by name, each with the tasks that hold it out.

        No video needs to be there.

        Raises:
            DatasetError: If a file of a task is damaged.
        """
        whole = ((name, self._listing.of_video(video)[1]) for name, video in self._videos.items())
        clips = self._listing.of_clips(self._videos, self._clips)
        found = {name: reason for name, reason in whole if reason}
        return found | {name: reason for name, (_, reason) in clips.items() if reason}

    def seconds_of_videos(self) -> dict[str, float]:
        """Return how long each video, or clip file, lasts by ``ego4d.json``, in seconds."""
        if self.layout == "clips":
            return {name: clip.stop_seconds - clip.start_seconds for name, clip in self._clips.items()}
        return {name: video.seconds for name, video in self._videos.items() if video.seconds is not None}

    def parent_of(self, video_id: str) -> str:
        """Return the video that a clip is cut from, by ``ego4d.json`` or a file of a task; of a whole video, itself.

        Args:
            video_id: A ``clip_uid`` or ``video_uid``, of whichever layout.

        Raises:
            DatasetError: If a file of a task is damaged.
        """
        if video_id in self._videos:
            return video_id
        clip = self._clips.get(video_id) or self._listing.clips.get(video_id)
        return video_id if clip is None else clip.video_uid

    def sound_of_videos(self) -> dict[str, bool]:
        """Return whether each video, or clip file, has sound by ``ego4d.json``, as far as it says."""
        known = self._clips if self.layout == "clips" else self._videos
        return {name: each.has_audio for name, each in known.items() if each.has_audio is not None}

    def actions(self, split: str) -> list[ActionRecord]:
        """Return the actions that long-term anticipation lists, clip by clip in order of their index.

        An action is named ``<clip_uid>_<action_idx>``; times are those of the whole video, or of the clip file where
        clips are read. In the test split there are no labels. A row with an unknown video or class, an impossible time
        or one past the end of the video, or an index that was there before is left out, and named in `problems`.

        Args:
            split: ``train``, ``validation`` or ``test``.

        Raises:
            DatasetError: If the file is missing or damaged, or all its rows are.
        """
        return list(chain.from_iterable(clip.actions for clip in self.anticipation_clips(split)))

    def anticipation_clips(self, split: str) -> list[AnticipationClip]:
        """Return the clips of long-term anticipation with their actions in order of their index.

        Args:
            split: As of `actions`.

        Raises:
            DatasetError: As of `actions`.
        """
        rows = AnticipationRows()
        shared: dict[tuple[int, int], dict[str, int]] = {}
        path = self._task_path("fho_lta", split)
        faults, remarks = RowFaults(path), RowRemarks(path)
        whole = self.layout == "full_scale"
        for place, row in json_rows(path, "clips", faults):
            try:
                clip_uid, index = rows.place(row)
                file_id, video, end = self._file_of(row)
                offset = _number(row, "clip_parent_start_sec") if whole else 0.0
                start = offset + _number(row, "action_clip_start_sec", least=-MAX_VIDEO_SECONDS)
                stop = offset + _number(row, "action_clip_end_sec", least=-MAX_VIDEO_SECONDS)
                seconds = checked_span("the action", start, stop)
                _require_inside("the action", stop, file_id, end)
                labels = {} if split == "test" else self._labels(row, shared)
                action_id = checked_id("clip_uid and action_idx", f"{clip_uid}_{index}")
                rows.add(clip_uid, index, ActionRecord(action_id, file_id, *seconds, video.participant_id, labels))
            except RowError as error:
                rows.lose(row)
                faults.add(place, error)
        self._finish("fho_lta", split, faults, rows.num_actions)
        clips = rows.clips(remarks)
        self._remarks["fho_lta", split] = remarks.lines()
        return clips

    def state_changes(self, split: str) -> list[StateChangeRecord]:
        """Return the clips of object state change classification, in the order of their file.

        A row with an unknown video, impossible times or ones past the end of the video, fewer than 16 frames, a point
        of no return outside its clip, or an id that was there before is left out, and named in `problems`.

        Args:
            split: ``train``, ``validation`` or ``test``; the last without labels.

        Raises:
            DatasetError: If the file is missing or damaged, or all its rows are.
        """
        path = self._task_path("fho_oscc-pnr", split)
        faults, remarks = RowFaults(path), RowRemarks(path)
        coordinates: Literal["parent", "clip"] = "clip" if self.layout == "clips" else "parent"
        reader = StateChangeReader(coordinates, labelled=split != "test", remarks=remarks)
        records: dict[str, StateChangeRecord] = {}
        for place, row in json_rows(path, "clips", faults):
            try:
                span = reader.span(row)
                file_id, video, end = self._file_of(row)
                if span.unique_id in records:
                    raise RowError(f"unique_id {span.unique_id} is listed twice")
                _require_inside("the clip", span.stop_seconds, file_id, end)
                records[span.unique_id] = StateChangeRecord(
                    span.unique_id,
                    file_id,
                    span.start_seconds,
                    span.stop_seconds,
                    span.start_frame,
                    span.stop_frame,
                    self._fps(file_id, video),
                    span.state_change,
                    span.pnr_frame,
                    video.participant_id,
                )
                reader.note(file_id, span)
            except RowError as error:
                faults.add(place, error)
        self._finish("fho_oscc-pnr", split, faults, len(records))
        self._remarks["fho_oscc-pnr", split] = remarks.lines()
        return list(records.values())

    def places(self) -> list[tuple[Ego4DLayout, Path]]:
        """Return the folders in which files may lie, each with its layout, in the order of looking."""
        versions = [self.version, *(name for name in VERSIONS if name != self.version)]
        return [
            (layout, self.base_path / version / folder)
            for layout, folders in FOLDERS.items()
            for version in versions
            for folder in folders
        ]

    @cached_property
    def _listing(self) -> Listing:
        return read_listing(self.annotations_path)

    @cached_property
    def _clips(self) -> dict[str, ManifestClip]:
        """The clips of ``ego4d.json``; one of an early release may list none."""
        try:
            clips, self._problems["", "clips"] = read_manifest_clips(self._manifest)
        except DatasetError as error:
            self._problems["", "clips"] = (f"{error}; where clips lie in their videos is taken from the tasks",)
            return {}
        return clips

    @cached_property
    def _splits(self) -> dict[str, tuple[str, str]]:
        """The split of each file that is read, and what holds it out."""
        if self.layout == "full_scale":
            return {name: self._listing.of_video(video) for name, video in self._videos.items()}
        splits = self._listing.of_clips(self._videos, self._clips)
        return {name: splits[name] for name in self._clip_names}

    @cached_property
    def _clip_names(self) -> list[str]:
        """The clips that rows of the tasks name, as far as they can be names of files."""
        names = []
        for name in self._listing.clips:
            try:
                names.append(checked_file_name("clip", name))
            except RowError:  # told where the row is read
                continue
        return names

    def _manifest_video(self, video_id: str) -> ManifestVideo | None:
        clip = self._listing.clips.get(video_id) if self.layout == "clips" else None
        return self._videos.get(clip.video_uid if clip else video_id)

    def _require_split(self, split: str) -> None:
        if split not in FILE_SPLITS:
            raise DatasetError(f"{self.base_path}: no such split: {split!r} (splits: {', '.join(FILE_SPLITS)})")

    def _task_path(self, task: str, split: str) -> Path:
        self._require_split(split)
        if task not in TASK_FILES:
            raise ValueError(f"no such task: {task!r} (there is: {', '.join(TASK_FILES)})")
        return self.annotations_path / f"{task}_{FILE_SPLITS[split]}.json"

    def _finish(self, task: str, split: str, faults: RowFaults, num_usable: int) -> None:
        faults.require_rows(num_usable)
        self._problems[task, split] = faults.lines()
        self._num_left_out[task, split] = faults.num_rows

    def _file_of(self, row: dict[str, Any]) -> tuple[str, ManifestVideo, float | None]:
        """Return the file that a row is in, its video, and how long the file lasts, if that is known."""
        video_uid = checked_id("video_uid", row.get("video_uid"))
        video = self._videos.get(video_uid)
        if video is None:
            raise RowError(f"video {video_uid} is not in {self._manifest}")
        if self.layout == "full_scale":
            return video.video_uid, video, video.seconds
        name = checked_file_name("clip", checked_id("clip_uid", row.get("clip_uid")))
        clip = self._clips.get(name)
        if clip is None:
            return name, video, None
        if clip.video_uid != video_uid:
            raise RowError(f"clip {name} is of video {clip.video_uid} by {self._manifest}, not of {video_uid}")
        return clip.clip_uid, video, clip.stop_seconds - clip.start_seconds

    def _fps(self, file_id: str, video: ManifestVideo) -> float:
        clip = self._clips.get(file_id) if self.layout == "clips" else None
        what, fps = ("video", video.fps) if clip is None or clip.fps is None else ("clip", clip.fps)
        try:
            return checked_fps(fps)
        except RowError as error:
            name = video.video_uid if what == "video" else file_id
            raise RowError(f"{self._manifest}, {what} {name}: {error}") from error

    def _labels(self, row: dict[str, Any], shared: dict[tuple[int, int], dict[str, int]]) -> dict[str, int]:
        if not self.classes:
            raise DatasetError(f"{self.annotations_path}: fho_lta_taxonomy.json is missing")
        verb = _whole(row, "verb_label", most=len(self.classes["verb"]) - 1)
        noun = _whole(row, "noun_label", most=len(self.classes["noun"]) - 1)
        return shared.setdefault((verb, noun), {"verb": verb, "noun": noun})

    def _read_classes(self) -> dict[str, list[str]]:
        path = self.annotations_path / "fho_lta_taxonomy.json"
        return read_anticipation_classes(path) if path.is_file() else {}

    @staticmethod
    def _has_files(folder: Path) -> bool:
        try:
            return any(path.suffix == ".mp4" for path in folder.iterdir())
        except OSError:  # most of the places are not there
            return False

    def _find(self, video_id: str, layout: Ego4DLayout) -> Path:
        """Return where a video or clip is, or where it should be."""
        places = [folder / f"{video_id}.mp4" for its_layout, folder in self.places() if its_layout == layout]
        return next((path for path in places if is_readable_file(path)), places[0])


def _number(row: dict[str, Any], name: str, *, least: float = 0.0) -> float:
    return checked_number(name, row.get(name), least=least, most=MAX_VIDEO_SECONDS)


def _whole(row: dict[str, Any], name: str, *, most: int) -> int:
    return int(checked_number(name, row.get(name), least=0, most=most, whole=True))


def _require_inside(what: str, stop_seconds: float, file_id: str, end_seconds: float | None) -> None:
    """Raise if something ends after the video, or clip file, that it is in."""
    if end_seconds is not None and stop_seconds > end_seconds + TOLERANCE_SECONDS:
        raise RowError(f"{what} ends at {stop_seconds:.2f} s, {file_id} lasts {end_seconds:.2f} s")
