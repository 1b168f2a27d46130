"""EPIC-SOUNDS: the official annotation files over the videos of EPIC-KITCHENS-100.

The files are those of https://github.com/epic-kitchens/epic-sounds-annotations (Huh et al., "EPIC-SOUNDS: A
Large-Scale Dataset of Actions that Sound", TPAMI 2025).
"""

from pathlib import Path
from typing import ClassVar

from earmark.datasets.annotation_files import RowError, RowFaults, checked_file_name, csv_rows, quoted
from earmark.datasets.epic_kitchens import EpicKitchens
from earmark.datasets.records import DatasetError, DatasetRecords, VideoRecord

__all__ = ["SOUND_CLASSES", "EpicSounds", "sounds_of"]

SOUND_CLASSES = (
    *("metal-only collision", "scrub / scrape / scour / wipe", "cut / chop", "open / close", "rustle", "water"),
    *("plastic-only collision", "footstep", "stir / mix / whisk", "slide object", "metal / wood collision"),
    *("metal / plastic collision", "metal / ceramic collision", "background", "ceramic-only collision", "beep"),
    *("click", "metal / glass collision", "paper-only collision", "pour", "glass-only collision"),
    *("wood-only collision", "plastic / paper collision", "metal / paper collision", "human"),
    *("metal / cloth collision", "plastic / ceramic collision", "plastic / wood collision"),
    *("metal / marble collision", "sizzling / boiling", "ceramic / glass collision", "plastic / marble collision"),
    *("plastic / glass collision", "kettle / mixer / appliance", "ceramic / wood collision", "kneading"),
    *("cloth-only collision", "ceramic / marble collision", "glass / marble collision", "wood / glass collision"),
    *("hoover / fan", "spray", "zip", "drink / eat"),
)
"""Names of the 44 classes; the position is the class_id."""


DETECTION_TEST_FILE = "EPIC_Sounds_detection_test_videos.csv"


class EpicSounds(EpicKitchens):
    """EPIC-SOUNDS below one folder, laid out as `EpicKitchens`.

    The csv files lie in ``base_path/annotations`` or in ``base_path`` itself. An action record is one sound, named by
    its ``annotation_id``, with the label ``sound``.

    Args:
        base_path: The folder.

    Attributes:
        name: ``epic_sounds``.
        classes: Names of the 44 classes of sounds.
        splits: Those whose csv file is there; the test split is that of the recognition task, without labels.
        problems: The rows that were left out so far, each with its file, line and reason.

    Raises:
        DatasetError: If the folder or its csv files are missing.

    Example:
        >>> sounds = EpicSounds("/data/EPIC-KITCHENS")  # doctest: +SKIP
        >>> sounds.actions("validation")[0].labels  # doctest: +SKIP
        {'sound': 34}
    """

    name = "epic_sounds"
    _files: ClassVar = {
        "train": "EPIC_Sounds_train.csv",
        "validation": "EPIC_Sounds_validation.csv",
        "test": "EPIC_Sounds_recognition_test_timestamps.csv",
    }
    _id_column = "annotation_id"
    _label_columns: ClassVar = {"sound": "class_id", "name": "class"}  # the name only checks the number

    def detection_videos(self, split: str) -> list[VideoRecord]:
        """Return the videos of a split of the detection challenge.

        Those of training and validation are the annotated ones. The test has videos of its own, in
        ``EPIC_Sounds_detection_test_videos.csv``, none of which the recognition test has; where that list is not there,
        they are those of the recognition test.

        Args:
            split: ``train``, ``validation`` or ``test``.

        Raises:
            DatasetError: As `videos`, or if the list or a name in it is damaged.
        """
        path = self.annotations_path / DETECTION_TEST_FILE
        if split != "test" or not path.is_file():
            return self.videos(split)
        faults = RowFaults(path)
        listings: dict[Path, dict[str, Path]] = {}
        records: dict[str, VideoRecord] = {}
        for place, (video_id,) in csv_rows(path, ("video_id",), faults):
            try:
                participant_id = checked_file_name("video", video_id).partition("_")[0]
            except RowError as error:
                faults.add(place, error)
                continue
            found = self._find_video(video_id, participant_id, listings)
            records[video_id] = VideoRecord(video_id, found, split, participant_id)
        if faults.num_rows:  # a file without one of its videos would score less
            raise DatasetError(faults.lines()[0])
        return list(records.values())

    def _read_classes(self) -> dict[str, list[str]]:
        return {"sound": list(SOUND_CLASSES)}

    def _labels(self, texts: tuple[str, ...]) -> dict[str, int]:
        labels = super()._labels(texts)
        if texts and texts[1] != SOUND_CLASSES[labels["sound"]]:
            expected = SOUND_CLASSES[labels["sound"]]
            raise RowError(f"class {labels['sound']} is {quoted(texts[1])}, expected {expected!r}")
        return labels


def sounds_of(dataset: DatasetRecords) -> DatasetRecords:
    """Return the annotated sounds of a data set: itself, or EPIC-SOUNDS' files beside those of EPIC-KITCHENS-100.

    Args:
        dataset: `EpicSounds` (or any other with the label ``sound``), or one whose folder holds EPIC-SOUNDS' files:
            `EpicKitchens` and `earmark.datasets.Kitchen`.

    Raises:
        DatasetError: If it has none.

    Example:
        >>> sounds_of(EpicKitchens("/data/EPIC-KITCHENS")).name  # doctest: +SKIP
        'epic_sounds'
    """
    if "sound" in dataset.classes:
        return dataset
    if not isinstance(dataset, EpicKitchens):
        raise DatasetError(f"data set {dataset.name} has no annotated sounds, as those of EPIC-SOUNDS are")
    return EpicSounds(dataset.base_path, layout=dataset._layout)
