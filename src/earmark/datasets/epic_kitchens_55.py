"""EPIC-KITCHENS-55, the release of 2018: its annotation files over the same videos and folders.

The files are those of https://github.com/epic-kitchens/epic-kitchens-55-annotations (Damen et al., "Scaling Egocentric
Vision", ECCV 2018).
"""

from typing import ClassVar

from earmark.datasets.epic_kitchens import EpicKitchens

__all__ = ["EpicKitchens55"]


class EpicKitchens55(EpicKitchens):
    """EPIC-KITCHENS-55 below one folder, laid out as `EpicKitchens`.

    Its test split is that of the kitchens seen in training (S1), ``test_unseen`` that of the others (S2); both are
    without labels, and there is no validation split.

    Args:
        base_path: The folder.
        layout: Which files are read, as of `EpicKitchens`.

    Attributes:
        name: ``epic_kitchens_55``.
        classes: Names of the 125 verb and 352 noun classes by number.

    Raises:
        DatasetError: If the folder or its csv files are missing, or a class file is damaged.

    Example:
        >>> EpicKitchens55("/data/EPIC_KITCHENS_2018").actions("train")[0].labels  # doctest: +SKIP
        {'verb': 2, 'noun': 8}
    """

    name = "epic_kitchens_55"
    _files: ClassVar = {
        "train": "EPIC_train_action_labels.csv",
        "test": "EPIC_test_s1_timestamps.csv",
        "test_unseen": "EPIC_test_s2_timestamps.csv",
    }
    _class_files: ClassVar = {"verb": "EPIC_verb_classes.csv", "noun": "EPIC_noun_classes.csv"}
    _class_columns: ClassVar = {"verb": ("verb_id", "class_key"), "noun": ("noun_id", "class_key")}
    _video_info: ClassVar = ("EPIC_video_info.csv", "video")
    _id_column = "uid"
