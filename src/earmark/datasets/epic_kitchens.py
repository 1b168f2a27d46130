"""EPIC-KITCHENS-100: the official annotation files and the videos in the layout of the official download.

The files are those of https://github.com/epic-kitchens/epic-kitchens-100-annotations (Damen et al., "Rescaling
Egocentric Vision", IJCV 2022).
"""

import os
import re
from itertools import chain
from pathlib import Path
from typing import ClassVar

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
from earmark.datasets.listing import is_readable_file
from earmark.datasets.records import VIDEO_SUFFIXES, ActionRecord, DatasetError, VideoRecord
from earmark.wording import counted

__all__ = ["EpicKitchens", "parse_timestamp"]

ANNOTATIONS = {
    "train": "EPIC_100_train.csv",
    "validation": "EPIC_100_validation.csv",
    "test": "EPIC_100_test_timestamps.csv",  # without classes: they are held back
}
CLASS_FILES = {"verb": "EPIC_100_verb_classes.csv", "noun": "EPIC_100_noun_classes.csv"}
VIDEO_COLUMNS = ("participant_id", "video_id")
TIME_COLUMNS = ("start_timestamp", "stop_timestamp")
LABEL_COLUMNS = {"verb": "verb_class", "noun": "noun_class"}  # noun_class: the first noun of the narration
VIDEO_FOLDERS = ("{participant}/videos", "EPIC-KITCHENS/{participant}/videos", "videos")  # the first with it is taken


class EpicKitchens:
    """EPIC-KITCHENS-100 below one folder.

    The csv files lie in ``base_path/annotations`` or in ``base_path`` itself; splits whose file is missing do not
    exist. A video lies at ``P01/videos/P01_01.MP4``, ``EPIC-KITCHENS/P01/videos/P01_01.MP4`` or
    ``videos/P01_01.MP4``, with any video suffix in any case. The label of an action is its ``verb_class`` and its
    ``noun_class`` (the first noun), as in the official recognition challenge.

    Args:
        base_path: The folder.

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

    def __init__(self, base_path: str | os.PathLike[str]) -> None:
        self.base_path = Path(base_path).absolute()
        if not self.base_path.is_dir():
            raise DatasetError(f"{self.base_path}: no such folder")
        below = self.base_path / "annotations"
        self.annotations_path = below if below.is_dir() else self.base_path
        self.splits = tuple(split for split, name in self._files.items() if (self.annotations_path / name).is_file())
        if not self.splits:
            names = ", ".join(self._files.values())
            raise DatasetError(f"{self.annotations_path}: none of the annotation files {names} found")
        self.classes = self._read_classes()
        self._problems: dict[tuple[str, str], tuple[str, ...]] = {}

    @property
    def problems(self) -> tuple[str, ...]:
        """Which rows were left out by what was read so far, and why; each once."""
        return tuple(dict.fromkeys(chain.from_iterable(self._problems.values())))

    def videos(self, split: str | None = None) -> list[VideoRecord]:
        """Return the videos that the csv files name, in their order.

        A missing video is returned with the path where it was looked for, so that preparing reports it.

        Args:
            split: ``train``, ``validation`` or ``test``; None for all splits that exist.

        A row whose video or participant cannot be the name of a file is left out, and named in `problems`.

        Raises:
            DatasetError: If a csv file is missing or damaged, or all its rows are; a video is listed in two splits; or
                all videos are missing.
        """
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
        if not any(is_readable_file(record.path) for record in records.values()):
            example = next(iter(records.values())).path if records else self.base_path
            raise DatasetError(
                f"{self.base_path}: {counted(len(records), 'video')} listed, none found (looked for {example})"
            )
        return list(records.values())

    def actions(self, split: str) -> list[ActionRecord]:
        """Return the actions of a split, in the order of its csv file; those of the test split have no labels.

        A row with a bad or impossible time, an unknown class, an id that was there before or that no file can have is
        left out, and named in `problems`.

        Raises:
            DatasetError: If the csv file is missing or damaged, or all its rows are.
        """
        path = self._path(split)
        faults = RowFaults(path)
        actions: dict[str, ActionRecord] = {}
        names: dict[str, str] = {}  # the same few of many rows: kept once
        all_labels: dict[tuple[str, ...], dict[str, int]] = {}
        columns = [self._id_column, *VIDEO_COLUMNS, *TIME_COLUMNS]
        if split != "test":
            columns += self._label_columns.values()
        for place, (action_id, participant_id, video_id, start, stop, *classes) in csv_rows(path, columns, faults):
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
                    action_id, names[video_id], *seconds, names[participant_id], all_labels[texts]
                )
            except RowError as error:
                faults.add(place, error)
        faults.require_rows(len(actions))
        self._problems[split, "actions"] = faults.lines()
        return list(actions.values())

    def _read_classes(self) -> dict[str, list[str]]:
        return {label: _read_classes(self.annotations_path / name) for label, name in CLASS_FILES.items()}

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


def _read_classes(path: Path) -> list[str]:
    """Return the class names of a class file, whose ids must count up from 0: with a row less they would shift."""
    faults = RowFaults(path)
    names: list[str] = []
    for place, (number, name) in csv_rows(path, ("id", "key"), faults):
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
