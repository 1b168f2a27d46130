"""The parts of EPIC-KITCHENS-100's validation actions that are judged by themselves: unseen participants, rare classes.

The official lists lie beside the annotations: ``EPIC_100_tail_verbs.csv``, ``EPIC_100_tail_nouns.csv`` and
``EPIC_100_unseen_participant_ids_validation.csv``.
"""

import re
from typing import Literal, get_args

from earmark.datasets.annotation_files import RowFaults, csv_rows, quoted
from earmark.datasets.epic_kitchens import EpicKitchens
from earmark.datasets.records import ActionRecord, DatasetError, VideoRecord

__all__ = ["EpicSubset", "Subset", "tail_classes", "unseen_participants"]

Subset = Literal["head_classes", "tail_classes", "unseen_participants"]

SPLIT = "validation"
UNSEEN_FILE = "EPIC_100_unseen_participant_ids_validation.csv"


class EpicSubset:
    """EPIC-KITCHENS-100 with a part of its validation actions; all other splits are whole.

    ``unseen_participants`` are the actions of the participants of the official list. ``tail_classes`` are those whose
    verb or noun (or both) is of the official list of rare classes, as in the official accuracy of tail actions.
    ``head_classes`` are those whose verb or noun is not in it: an action of a rare verb and a frequent noun is in both
    parts, as in the original code.

    Args:
        epic: The whole.
        subset: Which part of the validation split.

    Attributes:
        name: As of the whole.
        classes: As of the whole.
        subset: Which part.

    Raises:
        DatasetError: If there is no such part, or the list that it needs is missing or damaged.

    Example:
        >>> epic = EpicSubset(EpicKitchens("/data/EPIC-KITCHENS"), "unseen_participants")  # doctest: +SKIP
        >>> len(epic.actions("validation"))  # doctest: +SKIP
        1065
    """

    def __init__(self, epic: EpicKitchens, subset: Subset) -> None:
        if subset not in get_args(Subset):
            raise DatasetError(f"{epic.base_path}: no subset {subset!r}; there are {', '.join(get_args(Subset))}")
        self._epic = epic
        self.name, self.classes, self.subset = epic.name, epic.classes, subset
        self._unseen: frozenset[str] = frozenset()
        self._tail: dict[str, frozenset[int]] = {}
        if subset == "unseen_participants":
            self._unseen = unseen_participants(epic)
        else:
            self._tail = {label: tail_classes(epic, label) for label in ("verb", "noun")}

    @property
    def problems(self) -> tuple[str, ...]:
        """What was left out by what was read so far."""
        return self._epic.problems

    def videos(self, split: str | None = None) -> list[VideoRecord]:
        """Return the videos of a split, as those of the whole."""
        return self._epic.videos(split)

    def actions(self, split: str) -> list[ActionRecord]:
        """Return the actions of a split; of the validation split, those of the part.

        Raises:
            DatasetError: If the csv file is missing or damaged, or the part is empty.
        """
        actions = self._epic.actions(split)
        if split != SPLIT:
            return actions
        part = [action for action in actions if self._holds(action)]
        if not part:
            where = self._epic.annotations_path
            raise DatasetError(f"{where}: none of {len(actions)} validation actions is in the subset {self.subset}")
        return part

    def _holds(self, action: ActionRecord) -> bool:
        if self.subset == "unseen_participants":
            return action.participant_id in self._unseen
        rare = [action.labels[label] in classes for label, classes in self._tail.items()]
        return any(rare) if self.subset == "tail_classes" else not all(rare)


def tail_classes(epic: EpicKitchens, label: str) -> frozenset[int]:
    """Return the rare classes of a label, ``verb`` or ``noun``, by the official list.

    Raises:
        DatasetError: If the list is missing, or a line of it is no class.
    """
    path = epic.annotations_path / f"EPIC_100_tail_{label}s.csv"
    faults = RowFaults(path)
    num_classes = len(epic.classes[label])
    found = set()
    for place, (text,) in csv_rows(path, (label,), faults):
        if not re.fullmatch("[0-9]{1,9}", text, re.ASCII) or int(text) >= num_classes:
            raise DatasetError(f"{path}, {place}: {label} is {quoted(text)}, expected 0 to {num_classes - 1}")
        found.add(int(text))
    if faults.num_rows:
        raise DatasetError(faults.lines()[0])
    return frozenset(found)


def unseen_participants(epic: EpicKitchens) -> frozenset[str]:
    """Return the participants of the validation split who are not in the training split, by the official list.

    Raises:
        DatasetError: If the list is missing or damaged.
    """
    path = epic.annotations_path / UNSEEN_FILE
    faults = RowFaults(path)
    found = frozenset(name for _, (name,) in csv_rows(path, ("participant_id",), faults))
    if faults.num_rows:
        raise DatasetError(faults.lines()[0])
    return found
