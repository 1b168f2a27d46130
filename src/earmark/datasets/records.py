"""What a data set says about its videos and actions: records, before anything is decoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from earmark.wording import counted

__all__ = ["VIDEO_SUFFIXES", "ActionRecord", "DatasetError", "DatasetRecords", "NoVideoFoundError", "VideoRecord"]

VIDEO_SUFFIXES = frozenset(  # compared in lower case
    "." + name
    for name in ("3gp avi flv m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv ts webm wmv").split()  # noqa: SIM905 - a list to read
)


class DatasetError(ValueError):
    """A data set is missing, damaged or inconsistent; the message names the file, the row (if any) and the reason."""


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """One source video.

    Attributes:
        video_id: Name of the video, unique in its data set; ``/`` makes folders.
        path: The source file. It may be missing: preparing then refuses it by name.
        split: ``train``, ``validation``, ``test``, or ``all`` where the data set has no splits.
        participant_id: Who wore the camera; empty where unknown.
    """

    video_id: str
    path: Path
    split: str
    participant_id: str = ""


class NoVideoFoundError(DatasetError):
    """Not one video of a data set is there.

    Args:
        base_path: Its folder.
        records: Its videos, each with the path where it was looked for.

    Attributes:
        records: The same.
    """

    def __init__(self, base_path: Path, records: Sequence[VideoRecord]) -> None:
        example = records[0].path if records else base_path
        super().__init__(
            f"{base_path}: {counted(len(records), 'video')} listed, none found (looked for {example}); `earmark check` "
            "names what lies there"
        )
        self.records = list(records)


@dataclass(frozen=True, slots=True)
class ActionRecord:
    """One annotated action.

    Attributes:
        action_id: Name of the action, unique in its data set (EPIC-KITCHENS: ``narration_id``).
        video_id: The video it is in.
        start_seconds: Where it starts in the video.
        stop_seconds: Where it ends; always after the start.
        participant_id: Who acts.
        labels: Class by label column, such as ``{"verb": 3, "noun": 12}``; empty where labels are held back. Records
            of the same labels share them: they are not to be changed.
        narration_seconds: When a narrator spoke of it; None where that is not known. It may lie outside of the action.
    """

    action_id: str
    video_id: str
    start_seconds: float
    stop_seconds: float
    participant_id: str
    labels: dict[str, int]
    narration_seconds: float | None = None


class DatasetRecords(Protocol):
    """What every data set offers.

    Attributes:
        name: Its name, a key of `earmark.datasets.DATASETS`.
        classes: Class names by label column, indexed by class number; empty if nothing is labelled.
        problems: What was left out by what was read so far (rows, files), each with its place and the reason.
    """

    name: str
    classes: dict[str, list[str]]

    @property
    def problems(self) -> tuple[str, ...]:
        """What was left out so far."""
        ...

    def videos(self, split: str | None = None) -> list[VideoRecord]:
        """Return the videos of a split, or of all splits; always in the same order."""
        ...

    def actions(self, split: str) -> list[ActionRecord]:
        """Return the annotated actions of a split in the order of the annotations."""
        ...
