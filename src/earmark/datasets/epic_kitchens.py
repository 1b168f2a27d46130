"""EPIC-KITCHENS-100: the official annotation files and the videos in the layout of the official download.

The files are those of https://github.com/epic-kitchens/epic-kitchens-100-annotations (Damen et al., "Rescaling
Egocentric Vision", IJCV 2022).
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import ClassVar, Literal

from earmark.datasets.annotation_files import (
    RowError,
    RowFaults,
    checked_file_name,
    checked_id,
    checked_span,
    csv_rows,
    parse_timestamp,
    quoted,
)
from earmark.datasets.epic_cuts import CUTS, Cut, CutKind, actions_in_cuts, cuts_in
from earmark.datasets.listing import is_readable_file
from earmark.datasets.records import VIDEO_SUFFIXES, ActionRecord, DatasetError, NoVideoFoundError, VideoRecord
from earmark.wording import counted

__all__ = ["AmbiguousLayoutError", "EpicKitchens", "parse_timestamp"]

ANNOTATIONS = {
    "train": "EPIC_100_train.csv",
    "validation": "EPIC_100_validation.csv",
    "test": "EPIC_100_test_timestamps.csv",  # without classes: they are held back
}
CLASS_FILES = {"verb": "EPIC_100_verb_classes.csv", "noun": "EPIC_100_noun_classes.csv"}
VIDEO_COLUMNS = ("participant_id", "video_id")
TIME_COLUMNS = ("start_timestamp", "stop_timestamp")
NARRATION_COLUMN = "narration_timestamp"
LABEL_COLUMNS = {"verb": "verb_class", "noun": "noun_class"}  # noun_class: the first noun of the narration
# Where videos lie below the folder; of several places the first that holds a video is taken.
VIDEO_FOLDERS = (
    "{participant}/videos",  # the official downloader's, for the videos of both years
    "EPIC-KITCHENS/{participant}/videos",
    "videos",
    "{participant}",
    "videos/{participant}",
    "videos/train/{participant}",  # the release of 2018
    "videos/test/{participant}",
    "EPIC_KITCHENS_2018/videos/train/{participant}",
    "EPIC_KITCHENS_2018/videos/test/{participant}",
)
ANNOTATION_FOLDERS = (
    *("annotations", ""),
    *("epic-kitchens-100-annotations", "epic-kitchens-100-annotations-master"),  # a clone, or as GitHub packs it
    *("epic-sounds-annotations", "epic-sounds-annotations-main"),
    *("epic-kitchens-55-annotations", "epic-kitchens-55-annotations-master"),
)
Layout = Literal["videos", "segments", "action_segments"]


class AmbiguousLayoutError(DatasetError):
    """Videos are there in two kinds of cuts, which are not mixed."""


class EpicKitchens:
    """EPIC-KITCHENS-100 below one folder.

    The csv files lie in ``base_path/annotations``, in ``base_path`` itself or in a clone of their repository there;
    splits whose file is missing do not exist. A video lies where the official downloads put it
    (``P01/videos/P01_01.MP4``; `VIDEO_FOLDERS` lists all places), with any video suffix in any case. The label of an
    action is its ``verb_class`` and its ``noun_class`` (the first noun), as in the official recognition challenge.

    The original code reads videos that are cut before: ``segments/*.MP4`` of 10 s, and ``action_segments/*.MP4`` of
    one action each (`earmark.datasets.epic_cuts`). Each of these is a video of its own, with the actions that lie in it
    at its own times. One kind of file is read, never several of them.

    Args:
        base_path: The folder.
        layout: Which files are read: ``videos``, ``segments`` or ``action_segments``. None takes whole videos where
            there is one, else the cuts that are there.

    Attributes:
        name: ``epic_kitchens``.
        base_path: The folder.
        annotations_path: Where the csv files are.
        classes: Names of the verb and noun classes by number.
        splits: Those whose csv file is there.
        problems: The rows that were left out so far, each with its file, line and reason.

    Raises:
        DatasetError: If the folder or its csv files are missing, or a class file is damaged.

    Example:
        >>> epic = EpicKitchens("/data/EPIC-KITCHENS")  # doctest: +SKIP
        >>> epic.actions("validation")[0].labels  # doctest: +SKIP
        {'verb': 0, 'noun': 2}
    """

    name = "epic_kitchens"
    _files: ClassVar = ANNOTATIONS
    _id_column = "narration_id"
    _label_columns: ClassVar = LABEL_COLUMNS
    _class_files: ClassVar = CLASS_FILES
    _class_columns: ClassVar = {"verb": ("id", "key"), "noun": ("id", "key")}
    _video_info: ClassVar = ("EPIC_100_video_info.csv", "video_id")  # the file, and its column of videos

    def __init__(self, base_path: str | os.PathLike[str], *, layout: Layout | None = None) -> None:
        self.base_path = Path(base_path).absolute()
        self._layout = layout
        if not self.base_path.is_dir():
            raise DatasetError(f"{self.base_path}: no such folder")
        folders = [self.base_path / name for name in ANNOTATION_FOLDERS]
        holding = [folder for folder in folders if any((folder / name).is_file() for name in self._files.values())]
        self.annotations_path = next(iter([*holding, *filter(Path.is_dir, folders)]))
        self.splits = tuple(split for split, name in self._files.items() if (self.annotations_path / name).is_file())
        if not self.splits:
            names = ", ".join(self._files.values())
            places = ", ".join(filter(None, ANNOTATION_FOLDERS))
            raise DatasetError(f"{self.base_path}: none of the annotation files {names} found, in it or in {places}")
        self.classes = self._read_classes()
        self._found_cuts: dict[CutKind, tuple[list[Cut], tuple[str, ...]]] = {}
        self._problems: dict[tuple[str, str], tuple[str, ...]] = {}

    @property
    def annotation_files(self) -> Mapping[str, str]:
        """Name of the csv file of each split that the data set may have, there or not."""
        return self._files

    @property
    def problems(self) -> tuple[str, ...]:
        """Which rows were left out by what was read so far, and why; each once."""
        return tuple(dict.fromkeys(chain.from_iterable(self._problems.values())))

    def videos(self, split: str | None = None) -> list[VideoRecord]:
        """Return the videos that the csv files name, in their order.

        A missing video is returned with the path where it was looked for, so that preparing reports it. Of videos that
        are cut before, the cuts that are there are returned, by video and time.

        Args:
            split: ``train``, ``validation`` or ``test``; None for all splits that exist.

        A row whose video or participant cannot be the name of a file is left out, and named in `problems`.

        Raises:
            DatasetError: If a csv file is missing or damaged, or all its rows are; or a video is listed in two splits.
            NoVideoFoundError: If all videos are missing.
        """
        records = self._whole_videos(split)
        layout = self.layout_of(records)
        if layout != "videos":
            return self._cut_videos(records, layout)
        if not any(is_readable_file(record.path) for record in records):
            raise NoVideoFoundError(self.base_path, records)
        return records

    def held_out(self) -> dict[str, str]:
        """Return the whole videos that are for validation or test, by name, each with its split; none need be there.

        Raises:
            DatasetError: As of `videos`.
        """
        return {record.video_id: record.split for record in self._whole_videos(None) if record.split != "train"}

    def layout_of(self, records: Sequence[VideoRecord]) -> Layout:
        """Return which kind of files is read.

        Args:
            records: Whole videos of some splits.

        Raises:
            AmbiguousLayoutError: If there is no whole video, both kinds of cuts are there, and none is asked for.
        """
        if self._layout is None:
            whole = any(is_readable_file(record.path) for record in records)
            # Another split may have whole videos: then this one has none, and cuts of it are not mixed with those.
            whole = whole or any(is_readable_file(record.path) for record in self._whole_videos(None))
            there = [kind for kind in CUTS if self._cuts(kind)[0]]
            if not whole and len(there) > 1:
                raise AmbiguousLayoutError(
                    f"{self.base_path}: no whole videos, and both {' and '.join(there)}; say which are to be read"
                )
            if whole and there:
                self._problems["layout", "cuts"] = (
                    f"{self.base_path}: {' and '.join(there)} are not read, since whole videos are there",
                )
            self._layout = there[0] if there and not whole else "videos"
        return self._layout

    def _cuts(self, kind: CutKind) -> tuple[list[Cut], tuple[str, ...]]:
        if kind not in self._found_cuts:
            self._found_cuts[kind] = cuts_in(self.base_path / kind, kind)
        return self._found_cuts[kind]

    def _cut_videos(self, parents: Sequence[VideoRecord], kind: CutKind) -> list[VideoRecord]:
        cuts, problems = self._cuts(kind)
        by_parent: dict[str, list[Cut]] = {}
        for cut in cuts:
            by_parent.setdefault(cut.parent_id, []).append(cut)
        self._problems["layout", kind] = problems
        records = [
            VideoRecord(cut.video_id, cut.path, parent.split, parent.participant_id)
            for parent in parents
            for cut in by_parent.get(parent.video_id, ())
        ]
        if not records:
            raise DatasetError(f"{self.base_path / kind}: no cut of any of {counted(len(parents), 'video')}")
        return records

    def _whole_videos(self, split: str | None) -> list[VideoRecord]:
        """Return the videos that the csv files name, found or not."""
        records: dict[str, VideoRecord] = {}
        listings: dict[Path, dict[str, Path]] = {}
        for name in self.splits if split is None else (split,):
            path = self._path(name)
            faults = RowFaults(path)
            num_before = len(records)
            for place, (video_id, participant_id) in csv_rows(path, ("video_id", "participant_id"), faults):
                known = records.get(video_id)
                if known is not None and known.split != name:
                    raise DatasetError(f"{path}, {place}: video {video_id} is also listed in the {known.split} split")
                if known is not None:
                    continue
                try:
                    for what, text in (("video", video_id), ("participant", participant_id)):
                        checked_file_name(what, text)
                except RowError as error:
                    faults.add(place, error)
                    continue
                found = self._find_video(video_id, participant_id, listings)
                records[video_id] = VideoRecord(video_id, found, name, participant_id)
            faults.require_rows(len(records) - num_before)
            self._problems[name, "videos"] = faults.lines()
        return list(records.values())

    def actions(self, split: str) -> list[ActionRecord]:
        """Return the actions of a split, in the order of its csv file; those of the test split have no labels.

        A row with a bad or impossible time, an unknown class, an id that was there before or that no file can have is
        left out, and named in `problems`. An action whose narration has no time, or none that can be read, has none.

        Raises:
            DatasetError: If the csv file is missing or damaged, or all its rows are.
        """
        path = self._path(split)
        faults = RowFaults(path)
        actions: dict[str, ActionRecord] = {}
        names: dict[str, str] = {}  # the same few of many rows: kept once
        all_labels: dict[tuple[str, ...], dict[str, int]] = {}
        columns = [self._id_column, *VIDEO_COLUMNS, *TIME_COLUMNS]
        if not split.startswith("test"):
            columns += self._label_columns.values()
        for place, values in csv_rows(path, columns, faults, optional=[NARRATION_COLUMN]):
            action_id, participant_id, video_id, start, stop, *classes, narration = values
            try:
                if video_id not in names:
                    names[video_id] = checked_file_name("video", video_id)
                if participant_id not in names:
                    names[participant_id] = checked_file_name("participant", participant_id)
                if action_id in actions:
                    raise RowError(f"{self._id_column} {quoted(action_id)} is listed twice")
                seconds = checked_span("the action", parse_timestamp(start), parse_timestamp(stop))
                texts = tuple(classes)
                if texts not in all_labels:
                    all_labels[texts] = self._labels(texts)
                actions[checked_id(self._id_column, action_id)] = ActionRecord(
                    action_id, names[video_id], *seconds, names[participant_id], all_labels[texts], _time(narration)
                )
            except RowError as error:
                faults.add(place, error)
        faults.require_rows(len(actions))
        self._problems[split, "actions"] = faults.lines()
        layout = self._layout
        if layout is None and any((self.base_path / kind).is_dir() for kind in CUTS):
            layout = self.layout_of(self._whole_videos(None))
        if layout is None or layout == "videos":
            return list(actions.values())
        placed, shortened = actions_in_cuts(actions.values(), self._cuts(layout)[0], layout)
        self._problems[split, "cuts"] = shortened
        return placed

    def seconds_of_videos(self) -> dict[str, float]:
        """Return how long each whole video lasts by the official list, in seconds; nothing where there is no list.

        Raises:
            DatasetError: If the list is damaged.
        """
        name, column = self._video_info
        path = self.annotations_path / name
        if not path.is_file():
            return {}
        faults = RowFaults(path)
        seconds: dict[str, float] = {}
        for place, (video_id, text) in csv_rows(path, (column, "duration"), faults):
            try:
                length = float(text) if re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,30})?", text, re.ASCII) else 0.0
                if not length:
                    raise RowError(f"duration is {quoted(text)}, expected seconds")
                if video_id in seconds:
                    raise RowError(f"video {quoted(video_id)} is listed twice")
                seconds[video_id] = length
            except RowError as error:
                faults.add(place, error)
        faults.require_rows(len(seconds))
        self._problems["video_info", "videos"] = faults.lines()
        return seconds

    def places(self, participant_ids: Iterable[str]) -> list[Path]:
        """Return the folders in which videos of some participants may lie."""
        named = [folder.format(participant=name) for folder in VIDEO_FOLDERS for name in participant_ids]
        return [self.base_path / folder for folder in dict.fromkeys(named)]

    def _read_classes(self) -> dict[str, list[str]]:
        return {
            label: _read_classes(self.annotations_path / name, self._class_columns[label])
            for label, name in self._class_files.items()
        }

    def _labels(self, texts: tuple[str, ...]) -> dict[str, int]:
        """Return the classes of a row by label, from the texts of the label columns; none are given for the test."""
        labels = {}
        for (label, column), text in zip(self._label_columns.items(), texts, strict=False):
            if label not in self.classes:
                continue
            num_classes = len(self.classes[label])
            if not re.fullmatch("[0-9]{1,9}", text, re.ASCII) or int(text) >= num_classes:
                raise RowError(f"{column} is {quoted(text)}, expected 0 to {num_classes - 1}")
            labels[label] = int(text)
        return labels

    def _path(self, split: str) -> Path:
        if split not in self.splits:
            expected = f"{self._files[split]} is missing" if split in self._files else f"no such split: {split!r}"
            raise DatasetError(f"{self.annotations_path}: {expected} (splits: {', '.join(self.splits)})")
        return self.annotations_path / self._files[split]

    def _find_video(self, video_id: str, participant_id: str, listings: dict[Path, dict[str, Path]]) -> Path:
        """Return where a video is, or where it should be."""
        for pattern in VIDEO_FOLDERS:
            folder = self.base_path / pattern.format(participant=participant_id)
            if folder not in listings:
                try:
                    files = sorted(folder.iterdir())
                except OSError:  # the code that opens the video reports why it can't
                    files = []
                listings[folder] = {path.stem: path for path in files if path.suffix.lower() in VIDEO_SUFFIXES}
            if video_id in listings[folder]:
                return listings[folder][video_id]
        return self.base_path / VIDEO_FOLDERS[0].format(participant=participant_id) / f"{video_id}.MP4"


def _time(text: str) -> float | None:
    """Return a time that nothing depends on but what asks for it."""
    try:
        return parse_timestamp(text)
    except RowError:
        return None


def _read_classes(path: Path, columns: tuple[str, str]) -> list[str]:
    """Return the class names of a class file, whose ids must count up from 0: with a row less they would shift."""
    faults = RowFaults(path)
    names: list[str] = []
    for place, (number, name) in csv_rows(path, columns, faults):
        if number != str(len(names)):
            raise DatasetError(
                f"{path}, {place}: class id {quoted(number)}, expected {len(names)}: ids must count up from 0"
            )
        try:
            names.append(checked_id("the name of the class", name))
        except RowError as error:
            raise DatasetError(f"{path}, {place}: {error}") from error
    if faults.num_rows:
        raise DatasetError(faults.lines()[0])
    return names
