"""Data sets: which videos, which labels, which split. Records only; nothing here opens a video.

Path of a sample: folder or annotation files --datasets--> records --prepare--> prepared videos.

Adding one: a class with the attributes and methods of `DatasetRecords`, and its line in `DATASETS`.
"""

from earmark.datasets.ego4d import Ego4D, StateChangeRecord
from earmark.datasets.epic_kitchens import EpicKitchens
from earmark.datasets.epic_sounds import EpicSounds
from earmark.datasets.folder import Folder
from earmark.datasets.kitchen import Kitchen
from earmark.datasets.records import ActionRecord, DatasetError, DatasetRecords, VideoRecord

__all__ = [
    "DATASETS",
    "ActionRecord",
    "DatasetError",
    "DatasetRecords",
    "Ego4D",
    "EpicKitchens",
    "EpicSounds",
    "Folder",
    "Kitchen",
    "StateChangeRecord",
    "VideoRecord",
]

DATASETS = {
    "folder": Folder,
    "epic_kitchens": EpicKitchens,
    "epic_sounds": EpicSounds,
    "ego4d": Ego4D,
    "kitchen": Kitchen,
}
