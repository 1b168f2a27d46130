"""Data sets: which videos, which labels, which split. Records only; nothing here opens a video.

To add one, write a class with the attributes and methods of `DatasetRecords` and add its line to `DATASETS`.
"""

from collections.abc import Callable

from earmark.datasets.ego4d import Ego4D, Ego4DLayout, StateChangeRecord
from earmark.datasets.ego4d_anticipation import (
    NUM_COMING,
    AnticipationClip,
    AnticipationWindow,
    anticipation_windows,
    lost_anticipation_windows,
    num_anticipation_windows,
)
from earmark.datasets.ego4d_files import files_not_read
from earmark.datasets.epic_cuts import parent_of
from earmark.datasets.epic_files import absent_annotations, checksums, stray_files
from earmark.datasets.epic_kitchens import EpicKitchens, parse_timestamp
from earmark.datasets.epic_kitchens_55 import EpicKitchens55
from earmark.datasets.epic_sounds import SOUND_CLASSES, EpicSounds, sounds_of
from earmark.datasets.epic_subsets import EpicSubset
from earmark.datasets.folder import Folder
from earmark.datasets.kitchen import Kitchen, KitchenPreset
from earmark.datasets.listing import Listing, is_readable_file, media_below, reason_of
from earmark.datasets.records import (
    VIDEO_SUFFIXES,
    ActionRecord,
    DatasetError,
    DatasetRecords,
    NoVideoFoundError,
    VideoRecord,
)

__all__ = [
    "DATASETS",
    "NUM_COMING",
    "SOUND_CLASSES",
    "VIDEO_SUFFIXES",
    "ActionRecord",
    "AnticipationClip",
    "AnticipationWindow",
    "DatasetError",
    "DatasetRecords",
    "Ego4D",
    "Ego4DLayout",
    "EpicKitchens",
    "EpicKitchens55",
    "EpicSounds",
    "EpicSubset",
    "Folder",
    "Kitchen",
    "KitchenPreset",
    "Listing",
    "NoVideoFoundError",
    "StateChangeRecord",
    "VideoRecord",
    "absent_annotations",
    "anticipation_windows",
    "checksums",
    "files_not_read",
    "is_readable_file",
    "lost_anticipation_windows",
    "media_below",
    "num_anticipation_windows",
    "parent_of",
    "parents_in",
    "parse_timestamp",
    "reason_of",
    "sounds_of",
    "stray_files",
]

DATASETS = {
    "folder": Folder,
    "epic_kitchens": EpicKitchens,
    "epic_kitchens_55": EpicKitchens55,
    "epic_sounds": EpicSounds,
    "ego4d": Ego4D,
    "kitchen": Kitchen,
}


def parents_in(dataset: DatasetRecords) -> Callable[[str], str]:
    """Return what names the whole video that a video of a data set is a part of.

    Parts of one video, such as the clips of Ego4D or the original's cuts of EPIC-KITCHENS, are not independent: they
    are held out together, and intervals take them as one.

    Args:
        dataset: Whose ids are meant.

    Example:
        >>> parents_in(Folder("."))("P01_04_000070_000080")
        'P01_04'
    """
    return dataset.parent_of if isinstance(dataset, Ego4D) else parent_of
