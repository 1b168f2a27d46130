"""Which test actions are judged by themselves, beside all: those of unseen participants, those of rare classes.

Beside the path of a sample: what a data set's lists say of its actions.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from earmark.datasets import EpicKitchens
from earmark.datasets.epic_subsets import UNSEEN_FILE, tail_classes, unseen_participants

if TYPE_CHECKING:
    from earmark.datasets.records import ActionRecord, DatasetRecords

__all__ = ["action_parts"]

UNSEEN, TAIL = "unseen participants", "tail classes"


def action_parts(
    dataset: "DatasetRecords", actions: Sequence["ActionRecord"], split: str
) -> dict[str, dict[str, npt.NDArray[np.bool_]]]:
    """Return which actions belong to the parts that EPIC-KITCHENS-100's challenges judge by themselves.

    An action is of the tail if its verb or its noun is. Participants are told unseen for the validation split alone.

    Args:
        dataset: Where the actions are from; parts are there where its official lists lie beside the annotations.
        actions: N labelled actions.
        split: Their split.

    Returns:
        By the part's name and by ``verb``, ``noun`` and ``action``: bool ``(N,)``.

    Raises:
        earmark.datasets.DatasetError: If a list is damaged.
    """
    if not isinstance(dataset, EpicKitchens):
        return {}
    parts = {}
    if split == "validation" and (dataset.annotations_path / UNSEEN_FILE).is_file():
        names = unseen_participants(dataset)
        unseen = np.array([action.participant_id in names for action in actions], dtype=bool)
        parts[UNSEEN] = dict.fromkeys(("verb", "noun", "action"), unseen)
    lists = {column: dataset.annotations_path / f"EPIC_100_tail_{column}s.csv" for column in ("verb", "noun")}
    if all(
        path.is_file() for path in lists.values()
    ):  # an action is of the tail by either: half would be another number
        tail = {}
        for column in lists:
            rare = tail_classes(dataset, column)
            tail[column] = np.array([action.labels[column] in rare for action in actions], dtype=bool)
        parts[TAIL] = tail | {"action": tail["verb"] | tail["noun"]}
    return parts
