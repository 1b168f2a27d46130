"""Submissions to EPIC-KITCHENS-100's challenges of action recognition and anticipation, read and written.

Path of a sample: scores of verbs and nouns --here--> the official json, and back.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.datasets.annotation_files import RowError, quoted
from earmark.evaluation.epic_metrics import NUM_ACTIONS_KEPT, finite_matrix
from earmark.evaluation.submission_files import (
    Form,
    SubmissionReader,
    SupervisionLevels,
    checked_segment_ids,
    class_scores,
    finite_number,
    write_submission,
)

__all__ = [
    "ACTION_FORMS",
    "ActionSubmission",
    "read_action_submission",
    "scores_by_class",
    "write_action_submission",
]

ACTION_FORMS = {name: Form(name, "0.2") for name in ("action_recognition", "action_anticipation")}
NUM_VERBS, NUM_NOUNS = 97, 300
_ACTION = re.compile(r"(0|[1-9][0-9]{0,8}),(0|[1-9][0-9]{0,8})", re.ASCII)

Actions = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class ActionSubmission:
    """Predictions for N segments.

    Attributes:
        verb_scores: Shape ``(N, V)``.
        noun_scores: Shape ``(N, C)``.
        actions: Verbs, nouns and scores of 100 actions, each of shape ``(N, 100)``; None where the file gives none.
        levels: ``sls_pt``, ``sls_tl``, ``sls_td``.
        notes: What of the file was ignored.
    """

    verb_scores: NDArray[np.float64]
    noun_scores: NDArray[np.float64]
    actions: Actions | None
    levels: dict[str, int]
    notes: tuple[str, ...]


def read_action_submission(
    path: str | os.PathLike[str],
    challenge: str,
    segment_ids: Sequence[str],
    *,
    num_verbs: int = NUM_VERBS,
    num_nouns: int = NUM_NOUNS,
) -> ActionSubmission:
    """Read and validate a submission; its segments come in the order of the given ids, whatever theirs is.

    Args:
        path: The json, or a zip file with it as ``test.json``.
        challenge: ``action_recognition`` or ``action_anticipation``.
        segment_ids: All that it must have, and no other.
        num_verbs: How many verb classes each segment must give a score.
        num_nouns: How many noun classes.

    Raises:
        SubmissionError: If anything is wrong with it; ``faults`` names each fault with its segment.
    """
    reader = SubmissionReader(Path(path), ACTION_FORMS[challenge])
    places = {name: place for place, name in enumerate(segment_ids)}
    verb_keys, noun_keys = ({str(number): number for number in range(most)} for most in (num_verbs, num_nouns))
    num_actions = min(NUM_ACTIONS_KEPT, num_verbs * num_nouns)
    verbs, nouns = np.zeros((len(places), num_verbs)), np.zeros((len(places), num_nouns))
    action_verbs, action_nouns = (np.zeros((len(places), num_actions), dtype=np.int64) for _ in range(2))
    action_scores = np.zeros((len(places), num_actions))
    found: set[str] = set()
    has_actions: bool | None = None
    for name, value in reader.entries():
        where = f"segment {quoted(name)}"
        if name not in places:
            reader.faults.add(where, "the annotations have no such segment")
            continue
        found.add(name)
        place = places[name]
        try:
            if not isinstance(value, dict):
                raise RowError(f"it is {quoted(value)}, expected an object with verb and noun")
            unknown = next((key for key in value if key not in ("verb", "noun", "action")), None)
            if unknown is not None:
                raise RowError(f"{quoted(unknown)} is neither verb nor noun nor action")
            missing = next((key for key in ("verb", "noun") if key not in value), None)
            if missing is not None:
                raise RowError(f"{missing} is missing")
            if has_actions is None:
                has_actions = "action" in value
            elif has_actions != ("action" in value):
                raise RowError(
                    "actions must be given for all segments or for none, and the first one has "
                    + ("them" if has_actions else "none")
                )
            verbs[place] = class_scores(value["verb"], "verb", verb_keys)
            nouns[place] = class_scores(value["noun"], "noun", noun_keys)
            if has_actions:
                given = _actions(value["action"], num_verbs, num_nouns, num_actions)
                action_verbs[place], action_nouns[place], action_scores[place] = given
        except RowError as error:
            reader.faults.add(where, error)
    for name in places:
        if name not in found:
            reader.faults.add(f"segment {quoted(name)}", "it is missing")
    reader.require_valid()
    actions = (action_verbs, action_nouns, action_scores) if has_actions else None
    return ActionSubmission(verbs, nouns, actions, reader.levels, tuple(reader.notes))


def write_action_submission(
    path: str | os.PathLike[str],
    challenge: str,
    *,
    segment_ids: Sequence[str],
    verb_scores: ArrayLike,
    noun_scores: ArrayLike,
    levels: SupervisionLevels,
    actions: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
) -> None:
    """Write a submission that `read_action_submission` takes.

    Args:
        path: ``.zip`` for the server, or ``.json``.
        challenge: ``action_recognition`` or ``action_anticipation``.
        segment_ids: ``narration_id`` of each segment, N of them.
        verb_scores: Shape ``(N, V)``.
        noun_scores: Shape ``(N, C)``.
        levels: What the model was trained on.
        actions: Verbs, nouns and scores of 100 actions, as `earmark.evaluation.epic_metrics.best_actions` gives them;
            None to leave it to the server, which makes the same of the scores.

    Raises:
        ValueError: If shapes do not fit, a score is not finite, an id is empty or there twice, an action is there
            twice or has no such class; or as `write_submission`.
        OSError: Naming the file, if it cannot be written.

    Example:
        >>> levels = SupervisionLevels(pretraining=4, training_labels=3, training_data=3)
        >>> write_action_submission(
        ...     "a.zip", "action_recognition", segment_ids=ids, verb_scores=verbs, noun_scores=nouns, levels=levels
        ... )  # doctest: +SKIP
    """
    if challenge not in ACTION_FORMS:
        raise ValueError(f"{challenge!r} is no challenge of actions: {', '.join(ACTION_FORMS)}")
    verbs, nouns = finite_matrix(verb_scores, "verb scores"), finite_matrix(noun_scores, "noun scores")
    if len(verbs) != len(nouns):
        raise ValueError(f"{len(verbs)} segments have verb scores, {len(nouns)} noun scores")
    names = checked_segment_ids(segment_ids, len(verbs))
    given = None if actions is None else _checked_actions(actions, verbs.shape, nouns.shape)

    def entries() -> Iterator[tuple[str, Any]]:
        for row, name in enumerate(names):
            content = {"verb": scores_by_class(verbs[row]), "noun": scores_by_class(nouns[row])}
            if given is not None:
                columns = (column[row].tolist() for column in given)
                content["action"] = {f"{verb},{noun}": score for verb, noun, score in zip(*columns, strict=True)}
            yield name, content

    write_submission(path, ACTION_FORMS[challenge], levels, entries())


def scores_by_class(scores: NDArray[np.float64]) -> dict[str, float]:
    """Return the scores of one segment as they stand in files."""
    return {str(number): score for number, score in enumerate(scores.tolist())}


def _actions(value: Any, num_verbs: int, num_nouns: int, num_actions: int) -> tuple[list[int], list[int], list[float]]:
    if not isinstance(value, dict):
        raise RowError(f"action is {quoted(value)}, expected an object of scores")
    if len(value) != num_actions:
        raise RowError(f"action: {len(value)} scores, expected {num_actions}")
    verbs, nouns, scores = [], [], []
    for key, score in value.items():
        match = _ACTION.fullmatch(key)
        if match is None:
            raise RowError(f"action: {quoted(key)} is not two class ids 'verb,noun'")
        verb, noun = int(match[1]), int(match[2])
        if verb >= num_verbs or noun >= num_nouns:
            raise RowError(f"action: {key} is beyond the {num_verbs} verbs and {num_nouns} nouns")
        verbs.append(verb)
        nouns.append(noun)
        scores.append(finite_number(f"the score of action {key}", score))
    return verbs, nouns, scores


def _checked_actions(
    actions: tuple[ArrayLike, ArrayLike, ArrayLike], verb_shape: tuple[int, ...], noun_shape: tuple[int, ...]
) -> Actions:
    verbs, nouns = np.asarray(actions[0]), np.asarray(actions[1])
    scores = finite_matrix(actions[2], "action scores")
    expected = (verb_shape[0], min(NUM_ACTIONS_KEPT, verb_shape[1] * noun_shape[1]))
    if not verbs.shape == nouns.shape == scores.shape == expected:
        raise ValueError(f"need actions of shape {expected}, got {verbs.shape}, {nouns.shape} and {scores.shape}")
    for what, classes, most in (("verb", verbs, verb_shape[1]), ("noun", nouns, noun_shape[1])):
        if not np.issubdtype(classes.dtype, np.integer) or ((classes < 0) | (classes >= most)).any():
            raise ValueError(f"the {what}s of actions must be whole numbers from 0 to {most - 1}")
    pairs = np.sort(verbs.astype(np.int64) * noun_shape[1] + nouns, axis=1)
    twice = (np.diff(pairs, axis=1) == 0).any(axis=1)
    if twice.any():
        raise ValueError(f"segment {int(twice.argmax())} gives an action twice")
    return verbs, nouns, scores
