"""The parts of EPIC-KITCHENS-100's validation actions that official measures are given for: unseen participants, tail.

Path of a sample: annotated actions --here--> `earmark.evaluation.epic_metrics.ActionLabels` --official measures-->
numbers.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from earmark.datasets import EpicKitchens
from earmark.datasets.epic_subsets import UNSEEN_FILE, tail_classes, unseen_participants
from earmark.evaluation.epic_metrics import ActionLabels

if TYPE_CHECKING:
    from earmark.datasets.records import ActionRecord, DatasetRecords

__all__ = ["action_labels"]


def action_labels(dataset: "DatasetRecords", actions: Sequence["ActionRecord"]) -> tuple[ActionLabels, tuple[str, ...]]:
    """Return what is true of actions and to which parts of the test they belong, and a line for each list not there.

    A part whose list is missing has no actions. An action is of the tail by its verb or by its noun, so of two lists of
    rare classes one alone says nothing.

    Args:
        dataset: Whose lists are looked for beside its annotations; data sets other than EPIC-KITCHENS have none.
        actions: N of them, labelled ``verb`` and ``noun``.

    Raises:
        ValueError: If an action has no label.
        earmark.datasets.DatasetError: If a list is damaged.
    """
    unlabelled = next((action for action in actions if not {"verb", "noun"} <= action.labels.keys()), None)
    if unlabelled is not None:
        raise ValueError(f"action {unlabelled.action_id!r} has no verb and noun")
    verb, noun = (np.array([action.labels[name] for action in actions], dtype=np.int64) for name in ("verb", "noun"))
    unseen: frozenset[str] = frozenset()
    tail: dict[str, frozenset[int]] = {"verb": frozenset(), "noun": frozenset()}
    notes = []
    if isinstance(dataset, EpicKitchens):
        files = [dataset.annotations_path / f"EPIC_100_tail_{label}s.csv" for label in tail]
        missing = [path for path in files if not path.is_file()]
        if not missing:
            tail = {label: tail_classes(dataset, label) for label in tail}
        notes += [f"{path} is not there: no numbers of tail classes" for path in missing]
        path = dataset.annotations_path / UNSEEN_FILE
        if path.is_file():
            unseen = unseen_participants(dataset)
        else:
            notes.append(f"{path} is not there: no numbers of unseen participants")
    labels = ActionLabels(
        verb,
        noun,
        np.array([action.participant_id in unseen for action in actions], dtype=bool),
        np.isin(verb, list(tail["verb"])),
        np.isin(noun, list(tail["noun"])),
    )
    return labels, tuple(notes)
