"""EPIC-KITCHENS-100: the official annotation files and the videos in the layout of the official download.

The files are those of https://github.com/epic-kitchens/epic-kitchens-100-annotations (Damen et al., "Rescaling
Egocentric Vision", IJCV 2022).
"""

import csv
import os
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

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
TIME_COLUMNS = ("participant_id", "video_id", "start_timestamp", "stop_timestamp")
LABEL_COLUMNS = {"verb": "verb_class", "noun": "noun_class"}  # noun_class: the first noun of the narration
VIDEO_FOLDERS = ("{participant}/videos", "EPIC-KITCHENS/{participant}/videos", "videos")  # the first with it is taken

Row = tuple[str, dict[str, str]]  # its place ("FILE, line N") and its values by column


def parse_timestamp(text: str) -> float:
    """Return the seconds of an ``HH:MM:SS.ff`` timestamp, the nearest float to the exact value.

    Raises:
        ValueError: If the text is not such a timestamp.

    Example:
        >>> parse_timestamp("01:02:03.45")
        3723.45
    """
    match = re.fullmatch(r"([0-9]+):([0-5][0-9]):([0-5][0-9](?:\.[0-9]+)?)", text)
    if match is None:
        raise ValueError(f"{text!r} is not a timestamp HH:MM:SS.ff")
    hours, minutes, seconds = match.groups()
    return float(3600 * int(hours) + 60 * int(minutes) + Decimal(seconds))


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

    def videos(self, split: str | None = None) -> list[VideoRecord]:
        """Return the videos that the csv files name, in their order.

        A missing video is returned with the path where it was looked for, so that preparing reports it.

        Args:
            split: ``train``, ``validation`` or ``test``; None for all splits that exist.

        Raises:
            DatasetError: If a csv file is missing or damaged, a video is listed in two splits, or all videos are
                missing.
        """
        records: dict[str, VideoRecord] = {}
        listings: dict[Path, dict[str, Path]] = {}
        for name in self.splits if split is None else (split,):
            for where, row in self._rows(name):
                video_id, participant_id = row["video_id"], row["participant_id"]
                known = records.get(video_id)
                if known is None:
                    for text in (video_id, participant_id):  # they become file names
                        if not re.fullmatch(r"\w[\w-]*", text, re.ASCII):
                            raise DatasetError(f"{where}: {text!r} cannot be a video or participant name")
                    path = self._find_video(video_id, participant_id, listings)
                    records[video_id] = VideoRecord(video_id, path, name, participant_id)
                elif known.split != name:
                    raise DatasetError(f"{where}: video {video_id} is also listed in the {known.split} split")
        if not any(is_readable_file(record.path) for record in records.values()):
            example = next(iter(records.values())).path if records else self.base_path
            raise DatasetError(
                f"{self.base_path}: {counted(len(records), 'video')} listed, none found (looked for {example})"
            )
        return list(records.values())

    def actions(self, split: str) -> list[ActionRecord]:
        """Return the actions of a split, in the order of its csv file; those of the test split have no labels.

        Raises:
            DatasetError: If the csv file is missing, or a row has a bad timestamp, an unknown class or an id twice.
        """
        actions: dict[str, ActionRecord] = {}
        for where, row in self._rows(split):
            action_id = row[self._id_column]
            if action_id in actions:
                raise DatasetError(f"{where}: {self._id_column} {action_id} is listed twice")
            start_seconds, stop_seconds = _times(where, row)
            labels = {} if split == "test" else self._labels(where, row)
            actions[action_id] = ActionRecord(
                action_id, row["video_id"], start_seconds, stop_seconds, row["participant_id"], labels
            )
        return list(actions.values())

    def _read_classes(self) -> dict[str, list[str]]:
        return {label: _read_classes(self.annotations_path / name) for label, name in CLASS_FILES.items()}

    def _labels(self, where: str, row: dict[str, str]) -> dict[str, int]:
        labels = {}
        for label, names in self.classes.items():
            text = row[self._label_columns[label]]
            if not re.fullmatch("[0-9]+", text, re.ASCII) or int(text) >= len(names):
                raise DatasetError(f"{where}: {self._label_columns[label]} is {text!r}, expected 0 to {len(names) - 1}")
            labels[label] = int(text)
        return labels

    def _rows(self, split: str) -> Iterator[Row]:
        if split not in self.splits:
            expected = f"{self._files[split]} is missing" if split in self._files else f"no such split: {split!r}"
            raise DatasetError(f"{self.annotations_path}: {expected} (splits: {', '.join(self.splits)})")
        columns: tuple[str, ...] = (self._id_column, *TIME_COLUMNS)
        if split != "test":
            columns = (*columns, *self._label_columns.values())
        return _read_csv(self.annotations_path / self._files[split], columns)

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


def _read_csv(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a csv file that must have certain columns, each filled in every row."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise DatasetError(f"{path}: column {', '.join(missing)} is missing")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                empty = [column for column in columns if not row[column]]
                if empty:
                    raise DatasetError(f"{where}: {', '.join(empty)} is empty")
                yield where, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: not a readable csv file ({error})") from error


def _read_classes(path: Path) -> list[str]:
    """Return the class names of a class file, whose ids must count up from 0."""
    names: list[str] = []
    for where, row in _read_csv(path, ("id", "key")):
        if row["id"] != str(len(names)):
            raise DatasetError(f"{where}: class id {row['id']!r}, expected {len(names)}: ids must count up from 0")
        names.append(row["key"])
    return names


def _times(where: str, row: dict[str, str]) -> tuple[float, float]:
    """Return when an action starts and stops, in seconds."""
    try:
        start_seconds = parse_timestamp(row["start_timestamp"])
        stop_seconds = parse_timestamp(row["stop_timestamp"])
    except ValueError as error:
        raise DatasetError(f"{where}: {error}") from error
    if stop_seconds <= start_seconds:
        raise DatasetError(f"{where}: the action stops at {stop_seconds} s, not after its start {start_seconds} s")
    return start_seconds, stop_seconds
