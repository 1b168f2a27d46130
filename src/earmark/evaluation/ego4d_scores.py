"""How submissions to Ego4D's challenges of state changes, points of no return and long-term anticipation are scored.

Path of a sample: a file of predictions and the official json files --here--> the challenge's own numbers, beside those
of answers that need no model.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earmark.datasets import DatasetError
from earmark.datasets.ego4d_anticipation import read_anticipation_classes
from earmark.evaluation.challenge_score import ChallengeScore, unlabelled_note
from earmark.evaluation.ego4d_submissions import (
    read_anticipation_submission,
    read_keyframe_submission,
    read_state_change_submission,
)
from earmark.evaluation.ego4d_truth import (
    NO_LABEL,
    AnnotatedActions,
    AnticipationTruth,
    clip_ids_in,
    is_labelled,
    read_annotated_clips,
    window_ids_in,
)
from earmark.evaluation.long_term_anticipation_sequences import most_frequent_classes, repeated_classes
from earmark.evaluation.metrics import area_under_prefix_distances, prefix_edit_distances
from earmark.evaluation.submission_files import (
    EGO4D_ANTICIPATION,
    EGO4D_KEYFRAMES,
    EGO4D_STATE_CHANGES,
    SubmissionError,
    json_items,
    json_members,
)
from earmark.wording import counted

__all__ = ["score_anticipations", "score_keyframes", "score_state_changes"]

STATE_CHANGE_FILES = ("fho_oscc-pnr_val.json", "fho_oscc-pnr_test_unannotated.json")
ANTICIPATION_FILES = ("fho_lta_val.json", "fho_lta_test_unannotated.json")
TAXONOMY = "fho_lta_taxonomy.json"
PLACES = ("", "annotations", "v2/annotations", "v1/annotations")  # below the folder that is given
ACTIONS = ("verb", "noun", "action")


def score_state_changes(path: Path, annotations: Path) -> ChallengeScore:
    """Score a submission of object state change classification: its accuracy in %, beside the majority class.

    Raises:
        SubmissionError: If the file is not valid; ``faults`` names each fault.
        earmark.datasets.DatasetError: If there are no annotations, or they cannot be read.
    """
    source, found = _annotation_file(path, annotations, STATE_CHANGE_FILES, _ids_of_clips(path), clip_ids_in, "clip")
    labelled = is_labelled(source, "state_change")
    clips = read_annotated_clips(source, labelled=labelled, keyframes=False)
    submission = read_state_change_submission(path, clips.unique_ids)
    notes = (*found, *submission.notes, *clips.notes)
    if not labelled:
        return _unlabelled(EGO4D_STATE_CHANGES, source, {"clips": len(clips.unique_ids)}, notes)
    known = clips.state_change != NO_LABEL
    truth = clips.state_change[known] == 1
    if not len(truth):
        raise DatasetError(f"{source}: it has no clip with a label")
    train = source.with_name("fho_oscc-pnr_train.json")
    counted_in, of_training = source, truth
    if train.is_file():
        of_train = read_annotated_clips(train, labelled=True, keyframes=False).state_change
        if (of_train != NO_LABEL).any():
            counted_in, of_training = train, of_train[of_train != NO_LABEL] == 1
    majority = bool(of_training.sum() * 2 > len(of_training))  # of as many of either, no change, the first class
    return ChallengeScore(
        challenge=EGO4D_STATE_CHANGES,
        annotations=source,
        metrics={"accuracy": 100 * float((submission.state_changes[known] == truth).mean())},
        counts={"clips": len(known), "with_a_change": int(truth.sum()), "not_scored": int((~known).sum())},
        levels={},
        majority={"accuracy": 100 * float((truth == majority).mean())},
        majority_source=counted_in,
        notes=notes,
    )


def score_keyframes(path: Path, annotations: Path) -> ChallengeScore:
    """Score a submission of points of no return: the mean error in seconds over the clips with a change.

    Raises:
        SubmissionError: If the file is not valid; ``faults`` names each fault.
        earmark.datasets.DatasetError: If there are no annotations, or they cannot be read.
    """
    source, found = _annotation_file(path, annotations, STATE_CHANGE_FILES, _ids_of_clips(path), clip_ids_in, "clip")
    labelled = is_labelled(source, "state_change")
    clips = read_annotated_clips(source, labelled=labelled, keyframes=True)
    compared = ~np.isnan(clips.pnr_frame) & ~np.isnan(clips.fps)
    num_frames = dict(zip(clips.unique_ids, clips.num_frames.tolist(), strict=True))
    optional = {name for name, needed in zip(clips.unique_ids, compared, strict=True) if labelled and not needed}
    submission = read_keyframe_submission(path, num_frames, optional=optional)
    notes = (*found, *submission.notes, *clips.notes)
    if not labelled:
        return _unlabelled(EGO4D_KEYFRAMES, source, {"clips": len(clips.unique_ids)}, notes)
    if not compared.any():
        raise DatasetError(f"{source}: it has no clip with a point of no return")
    with_change = clips.state_change == 1

    def error(frames: NDArray[np.float64]) -> dict[str, float]:
        seconds = np.abs(frames - clips.pnr_frame)[compared] / clips.fps[compared]
        return {"error_seconds": float(seconds.mean())}

    return ChallengeScore(
        challenge=EGO4D_KEYFRAMES,
        annotations=source,
        metrics=error(submission.pnr_frames),
        counts={
            "clips": len(clips.unique_ids),
            "with_a_change": int(with_change.sum()),
            "not_scored": int((with_change & ~compared).sum()),
        },
        levels={},
        baselines={"centre frame": error(clips.num_frames / 2)},
        notes=notes,
    )


def score_anticipations(path: Path, annotations: Path) -> ChallengeScore:
    """Score a submission of long-term anticipation: edit distance at 20 and the area under it, as shares.

    Raises:
        SubmissionError: If the file is not valid; ``faults`` names each fault.
        earmark.datasets.DatasetError: If there are no annotations, or they cannot be read.
    """
    given = {name for _, name, _ in json_members(path, None)}
    source, found = _annotation_file(path, annotations, ANTICIPATION_FILES, given, window_ids_in, "window")
    classes = read_anticipation_classes(source.with_name(TAXONOMY))
    num_classes = len(classes["verb"]), len(classes["noun"])
    labelled = is_labelled(source, "verb_label")
    actions = AnnotatedActions(source, labelled=labelled, num_classes=num_classes)
    num_seen = actions.num_seen(given)
    truth = actions.windows(num_seen)
    submission = read_anticipation_submission(
        path, truth.window_ids, num_verbs=num_classes[0], num_nouns=num_classes[1]
    )
    notes = (*found, *submission.notes, *actions.notes)
    counts = {"windows": len(truth.window_ids), "seen_actions": num_seen}
    if not labelled:
        return _unlabelled(EGO4D_ANTICIPATION, source, counts, notes)
    if not truth.scored.any():
        raise DatasetError(f"{source}: it has no window of {num_seen} seen and 20 coming actions")
    train = source.with_name("fho_lta_train.json")
    counted_in, of_training = source, actions.labels
    if train.is_file():
        of_train = AnnotatedActions(train, labelled=True, num_classes=num_classes).labels
        if len(of_train):
            counted_in, of_training = train, of_train
    answers = [submission.verbs[truth.scored], submission.nouns[truth.scored]]
    metrics, majority, repeated = _edit_distances(np.stack(answers, axis=-1), truth, of_training, num_classes[1])
    return ChallengeScore(
        challenge=EGO4D_ANTICIPATION,
        annotations=source,
        metrics=metrics,
        counts=counts | {"not_scored": int((~truth.scored).sum())},
        levels={},
        majority=majority,
        majority_source=counted_in,
        baselines={"last action and most frequent classes, each repeated": repeated},
        notes=notes,
    )


def _edit_distances(
    answers: NDArray[np.int32], truth: AnticipationTruth, of_training: NDArray[np.int64], num_nouns: int
) -> tuple[dict[str, float], ...]:
    """Return the measures of answers, of the most frequent classes, each repeated, and of those behind the last action.

    Args:
        answers: Verb and noun of K sequences, shape ``(N, K, Z, 2)``.
        truth: What comes, and what was seen last.
        of_training: Verb and noun of actions whose frequencies count, shape ``(M, 2)``.
        num_nouns: How many noun classes there are.
    """
    num_sequences, num_steps = answers.shape[1:3]
    measures: tuple[dict[str, float], ...] = ({}, {}, {})
    areas: tuple[dict[str, float], ...] = ({}, {}, {})
    for what in ACTIONS:
        given, coming, last, every = (
            _classes_of(what, labels, num_nouns) for labels in (answers, truth.coming, truth.last, of_training)
        )
        frequent = most_frequent_classes(every, num_sequences)
        constant = np.broadcast_to(frequent, (len(coming), num_steps, num_sequences))
        repeated = repeated_classes(last, frequent, num_steps=num_steps)
        for place, sequences in enumerate((given.transpose(0, 2, 1), constant, repeated)):
            distances = prefix_edit_distances(sequences, coming)
            measures[place][f"{what}_ED@{num_steps}"] = float(distances[:, -1].mean())
            areas[place][f"{what}_AUED"] = area_under_prefix_distances(distances)
    return tuple(of_lengths | of_areas for of_lengths, of_areas in zip(measures, areas, strict=True))


def _classes_of(what: str, labels: NDArray[np.integer], num_nouns: int) -> NDArray[np.integer]:
    """Return verbs, nouns, or both as one class each, of labels whose last axis is verb and noun."""
    if what == "action":
        return np.asarray(labels[..., 0].astype(np.int64) * num_nouns + labels[..., 1])
    return np.asarray(labels[..., ACTIONS.index(what)])


def _ids_of_clips(path: Path) -> set[str]:
    rows = (row for row in json_items(path) if isinstance(row, dict))
    return {row["unique_id"] for row in rows if isinstance(row.get("unique_id"), str)}


def _annotation_file(
    path: Path,
    annotations: Path,
    names: Sequence[str],
    given: set[str],
    ids_in: Callable[[Path], set[str]],
    what: str,
) -> tuple[Path, tuple[str, ...]]:
    """Return the file of annotations that a submission is for, and what is said of the choice.

    Of several, as of two versions and two splits, it is the one that lacks fewest of the submission's ids, and of these
    the one of whose ids the submission lacks fewest: version 1 may hold a part of version 2.

    Raises:
        SubmissionError: If none has any of them: it would be compared with another split.
        DatasetError: If there is no such file.
    """
    if annotations.is_file():
        return annotations, ()
    if not annotations.is_dir():
        raise DatasetError(f"{annotations}: no such file or folder")
    there = [file for place in PLACES for name in names if (file := annotations / place / name).is_file()]
    if not there:
        folders = ", ".join(place for place in PLACES if place)
        raise DatasetError(f"{annotations}: none of the annotation files {', '.join(names)} found, nor in {folders}")
    unlike = {}
    for source in there:
        known = ids_in(source)
        unlike[source] = len(given - known), len(known - given)
    source = min(there, key=lambda each: unlike[each])
    if given and unlike[source][0] == len(given):
        absent = [name for name in names if all(each.name != name for each in there)]
        more = f", and {' and '.join(absent)} is not there" if absent else ""
        raise SubmissionError(
            [f"{path}: none of its {counted(len(given), what)} is in {' or '.join(map(str, there))}{more}"]
        )
    same = [str(each) for each in there if each != source and unlike[each] == unlike[source]]
    note = f"{source} is compared; {' and '.join(same)} has the same {what}s: name a file to compare with that"
    return source, (note,) if same else ()


def _unlabelled(challenge: str, source: Path, counts: dict[str, int], notes: Sequence[str]) -> ChallengeScore:
    return ChallengeScore(challenge, source, {}, counts, {}, notes=(*notes, unlabelled_note(source)))
