"""Which challenges there are, and how submissions to those of EPIC are scored against the official annotations.

Path of a sample: a file of predictions and csv files --here--> the challenge's own numbers, beside those of always
giving the most frequent answers. Those of Ego4D are scored in `earmark.evaluation.ego4d_scores`.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.datasets import SOUND_CLASSES, DatasetError
from earmark.datasets.annotation_files import (
    RowError,
    RowFaults,
    checked_id,
    csv_columns,
    csv_rows,
    parse_timestamp,
    quoted,
)
from earmark.evaluation.action_submissions import NUM_NOUNS, NUM_VERBS, read_action_submission
from earmark.evaluation.challenge_score import ChallengeScore, unlabelled_note
from earmark.evaluation.detection_metrics import Events, detection_metrics
from earmark.evaluation.ego4d_scores import score_anticipations, score_keyframes, score_state_changes
from earmark.evaluation.epic_metrics import (
    ActionLabels,
    anticipation_recalls,
    majority_answers,
    rank_actions,
    recognition_accuracies,
)
from earmark.evaluation.epic_sounds_metrics import BACKGROUND, sound_recognition_metrics
from earmark.evaluation.sound_submissions import read_detection_submission, read_sound_submission
from earmark.evaluation.submission_files import (
    EGO4D_ANTICIPATION,
    EGO4D_KEYFRAMES,
    EGO4D_STATE_CHANGES,
    SubmissionError,
    read_challenge,
    read_first_name,
)
from earmark.wording import counted

__all__ = ["CHALLENGES", "ChallengeScore", "score_submission"]

EPIC_FILES = ("EPIC_100_validation.csv", "EPIC_100_test_timestamps.csv")
SOUND_FILES = ("EPIC_Sounds_validation.csv", "EPIC_Sounds_recognition_test_timestamps.csv")
DETECTION_FILES = ("EPIC_Sounds_validation.csv", "EPIC_Sounds_detection_test_videos.csv")
MAX_NAMED = 5  # videos in a note

Column = tuple[str, ...]


def score_submission(path: str | os.PathLike[str], annotations: str | os.PathLike[str]) -> ChallengeScore:
    """Validate a submission and score it with the official measures of the challenge that it names, or is known by.

    Args:
        path: The json, or a zip file with it as ``test.json``.
        annotations: The folder of the official files, or the one above it; then the split is that of the file's
            segments. Or the file of annotations itself: classes, tail and unseen participants are looked for beside it.

    Raises:
        SubmissionError: If the file is not valid; ``faults`` names each fault.
        earmark.datasets.DatasetError: If annotations are missing or damaged: with a row less, numbers would be others.
    """
    submission = Path(path)
    challenge = read_challenge(submission)
    if challenge not in CHALLENGES:
        names = ", ".join(CHALLENGES)
        raise SubmissionError([f"{submission}, challenge: it is {quoted(challenge)}, expected one of {names}"])
    return CHALLENGES[challenge](submission, Path(annotations))


def _score_recognition(path: Path, annotations: Path) -> ChallengeScore:
    return _score_actions("action_recognition", path, annotations)


def _score_anticipation(path: Path, annotations: Path) -> ChallengeScore:
    return _score_actions("action_anticipation", path, annotations)


def _score_actions(challenge: str, path: Path, annotations: Path) -> ChallengeScore:
    source = _annotation_file(path, annotations, EPIC_FILES, "narration_id")
    num_verbs = _num_classes(source.with_name("EPIC_100_verb_classes.csv"), NUM_VERBS)
    num_nouns = _num_classes(source.with_name("EPIC_100_noun_classes.csv"), NUM_NOUNS)
    labelled = _has_labels(source, "verb_class", EPIC_FILES)
    columns = ("narration_id", "participant_id", *(("verb_class", "noun_class") if labelled else ()))
    ids, participants, *classes = _read_columns(source, columns, unique="narration_id")
    submission = read_action_submission(path, challenge, ids, num_verbs=num_verbs, num_nouns=num_nouns)
    if not labelled:
        return _without_labels(challenge, source, len(ids), submission.levels, submission.notes)
    verb, noun = (
        _class_ids(source, name, texts, most)
        for name, texts, most in zip(columns[2:], classes, (num_verbs, num_nouns), strict=True)
    )
    labels, notes = _parts(source, participants, verb, noun)
    measure = recognition_accuracies if challenge == "action_recognition" else anticipation_recalls
    ranked = rank_actions(submission.verb_scores, submission.noun_scores, submission.actions)
    train = source.with_name("EPIC_100_train.csv")
    counted_in, counted_verb, counted_noun = source, verb, noun
    if train.is_file():
        counted_in = train
        of_train = _read_columns(train, ("verb_class", "noun_class"))
        counted_verb = _class_ids(train, "verb_class", of_train[0], num_verbs)
        counted_noun = _class_ids(train, "noun_class", of_train[1], num_nouns)
    return ChallengeScore(
        challenge=challenge,
        annotations=source,
        metrics=measure(ranked, labels),
        counts={
            "segments": len(ids),
            "unseen": int(labels.unseen.sum()),
            "tail_verb": int(labels.tail_verb.sum()),
            "tail_noun": int(labels.tail_noun.sum()),
            "tail_action": int((labels.tail_verb | labels.tail_noun).sum()),
        },
        levels=submission.levels,
        majority=measure(majority_answers(counted_verb, counted_noun, num_segments=len(ids)), labels),
        majority_source=counted_in,
        notes=(*submission.notes, *notes),
    )


def _score_sounds(path: Path, annotations: Path) -> ChallengeScore:
    source = _annotation_file(path, annotations, SOUND_FILES, "annotation_id")
    labelled = _has_labels(source, "class_id", SOUND_FILES)
    columns = ("annotation_id", *(("class_id",) if labelled else ()))
    ids, *classes = _read_columns(source, columns, unique="annotation_id")
    submission = read_sound_submission(path, ids)
    if not labelled:
        return _without_labels(
            "audio_based_interaction_recognition", source, len(ids), submission.levels, submission.notes
        )
    labels = _class_ids(source, "class_id", classes[0], len(SOUND_CLASSES))
    train = source.with_name("EPIC_Sounds_train.csv")
    counted_in, counted_labels = source, labels
    if train.is_file():
        counted_in = train
        counted_labels = _class_ids(train, "class_id", _read_columns(train, ("class_id",))[0], len(SOUND_CLASSES))
    frequencies = np.bincount(counted_labels, minlength=len(SOUND_CLASSES))
    majority = np.broadcast_to(frequencies, (len(labels), len(SOUND_CLASSES)))
    num_background = int((labels == BACKGROUND).sum())
    return ChallengeScore(
        challenge="audio_based_interaction_recognition",
        annotations=source,
        metrics=_with_and_without_background(submission.scores, labels),
        counts={"segments": len(ids), "background": num_background, "without_background": len(ids) - num_background},
        levels=submission.levels,
        majority=_with_and_without_background(majority, labels),
        majority_source=counted_in,
        notes=submission.notes,
    )


def _with_and_without_background(scores: NDArray[Any], labels: NDArray[np.int64]) -> dict[str, float]:
    metrics = sound_recognition_metrics(scores, labels) if (labels != BACKGROUND).any() else {}
    if (labels == BACKGROUND).any():
        with_background = sound_recognition_metrics(scores, labels, with_background=True)
        metrics |= {f"{name}_with_background": value for name, value in with_background.items()}
    return metrics


def _score_detection(path: Path, annotations: Path) -> ChallengeScore:
    source = _annotation_file(path, annotations, DETECTION_FILES, "video_id")
    submission = read_detection_submission(path)
    challenge = "audio_based_interaction_detection"
    if not _has_labels(source, "class_id", DETECTION_FILES):
        (videos,) = _read_columns(source, ("video_id",))
        known = [*submission.notes, *_unknown_videos(submission.video_ids, set(videos))]
        return _without_labels(challenge, source, len(videos), submission.levels, known, what="videos")
    videos, starts, stops, classes = _read_columns(
        source, ("video_id", "start_timestamp", "stop_timestamp", "class_id")
    )
    numbers = {name: number for number, name in enumerate(submission.video_ids)}
    names = set(videos)
    absent = source.with_name(DETECTION_FILES[1])
    if submission.video_ids and names.isdisjoint(submission.video_ids) and not absent.exists():
        raise SubmissionError(
            [f"{path}: none of its {len(submission.video_ids)} videos is in {source}, and {absent.name} is not there"]
        )
    for name in videos:
        numbers.setdefault(name, len(numbers))
    labels = _class_ids(source, "class_id", classes, len(SOUND_CLASSES))
    segments = np.array([_segment(source, *times) for times in zip(starts, stops, strict=True)]).reshape(-1, 2)
    kept = labels != BACKGROUND
    if not kept.any():
        raise DatasetError(f"{source}: all of its sounds are background: there is nothing to detect")
    video = np.array([numbers[name] for name in videos], dtype=np.int64)
    annotated = Events(video[kept], labels[kept], segments[kept])
    detected = submission.events
    dropped = int((~np.isin(detected.label, annotated.label)).sum())
    notes = [*submission.notes, *_unknown_videos(submission.video_ids, names)]
    if dropped:
        notes.append(
            f"{path}: {counted(dropped, 'detection')} of classes without annotated sounds: dropped, as officially"
        )
    return ChallengeScore(
        challenge=challenge,
        annotations=source,
        metrics=detection_metrics(detected, annotated),
        counts={
            "segments": len(labels),
            "background": int((~kept).sum()),
            "without_background": int(kept.sum()),
            "videos": len(names),
            "detections": len(detected.label),
            "detections_dropped": dropped,
        },
        levels=submission.levels,
        notes=tuple(notes),
    )


CHALLENGES: Mapping[str, Callable[[Path, Path], ChallengeScore]] = {
    "action_recognition": _score_recognition,
    "action_anticipation": _score_anticipation,
    "audio_based_interaction_recognition": _score_sounds,
    "audio_based_interaction_detection": _score_detection,
    EGO4D_STATE_CHANGES: score_state_changes,
    EGO4D_KEYFRAMES: score_keyframes,
    EGO4D_ANTICIPATION: score_anticipations,
}
"""Challenge, as its files name it or, of Ego4D, as they are known by -> what scores a file against annotations."""


def _annotation_file(path: Path, annotations: Path, names: Sequence[str], id_column: str) -> Path:
    """Return the csv file that a submission is for: of those that are there, the first that has its first segment.

    Raises:
        SubmissionError: If none has it, and others are not there: it would be compared with another split.
        DatasetError: If there is no csv file.
    """
    if annotations.is_file():
        return annotations
    if not annotations.is_dir():
        raise DatasetError(f"{annotations}: no such file or folder")
    folder = annotations / "annotations" if (annotations / "annotations").is_dir() else annotations
    there = [folder / name for name in names if (folder / name).is_file()]
    if not there:
        raise DatasetError(f"{folder}: none of the annotation files {', '.join(names)} found")
    first = read_first_name(path)
    for source in there:
        if any(values[0] == first for _, values in csv_rows(source, (id_column,), RowFaults(source))):
            return source
    absent = [name for name in names if folder / name not in there]
    if absent and first is not None and id_column != "video_id":  # detections in unknown videos count, as wrong ones
        places = " and ".join(map(str, there))
        raise SubmissionError(
            [f"{path}, segment {quoted(first)}: {places} has no such segment, and {' and '.join(absent)} is not there"]
        )
    return there[0]


def _has_labels(source: Path, column: str, names: Sequence[str]) -> bool:
    """Return whether a csv file has labels; the official one of the validation split, the first of the names, must."""
    return source.name == names[0] or column in csv_columns(source)


def _read_columns(path: Path, columns: Sequence[str], *, unique: str | None = None) -> list[Column]:
    """Return columns of a csv file, of all its rows: one that can't be read is an error, numbers would be others."""
    faults = RowFaults(path)
    rows: list[tuple[str, ...]] = []
    seen: set[str] = set()
    for place, values in csv_rows(path, columns, faults):
        if unique is not None:
            name = values[columns.index(unique)]
            try:
                checked_id(unique, name)
            except RowError as error:
                raise DatasetError(f"{path}, {place}: {error}") from error
            if name in seen:
                raise DatasetError(f"{path}, {place}: {unique} {quoted(name)} is listed twice")
            seen.add(name)
        rows.append(values)
    if faults.num_rows:
        raise DatasetError(faults.lines()[0])
    if not rows and unique is not None:
        raise DatasetError(f"{path}: it has no rows")
    return list(zip(*rows, strict=True)) if rows else [() for _ in columns]


def _class_ids(path: Path, column: str, texts: Sequence[str], num_classes: int) -> NDArray[np.int64]:
    known = {str(number): number for number in range(num_classes)}
    for number, text in enumerate(texts):
        if text not in known:
            raise DatasetError(f"{path}, row {number + 1}: {column} is {quoted(text)}, expected 0 to {num_classes - 1}")
    return np.array([known[text] for text in texts], dtype=np.int64)


def _num_classes(path: Path, official: int) -> int:
    """Return how many classes a class file lists; where there is none, how many the official one does."""
    if not path.is_file():
        return official

    (numbers,) = _read_columns(path, ("id",))
    if list(numbers) != [str(number) for number in range(len(numbers))] or not numbers:
        raise DatasetError(f"{path}: the ids of classes must count up from 0")
    return len(numbers)


def _parts(
    source: Path, participants: Sequence[str], verb: NDArray[np.int64], noun: NDArray[np.int64]
) -> tuple[ActionLabels, list[str]]:
    """Return labels with what belongs to the parts of the test, and what is not known of these."""
    notes = []
    lists: dict[str, set[str]] = {}
    files = {
        "participant_id": "EPIC_100_unseen_participant_ids_validation.csv",
        "verb": "EPIC_100_tail_verbs.csv",
        "noun": "EPIC_100_tail_nouns.csv",
    }
    for column, name in files.items():
        path = source.with_name(name)
        lists[column] = set(_read_columns(path, (column,))[0]) if path.is_file() else set()
        if not path.is_file():
            what = "unseen participants" if column == "participant_id" else "tail classes"
            notes.append(f"{path} is not there: no numbers of {what}")
    if not (source.with_name(files["verb"]).is_file() and source.with_name(files["noun"]).is_file()):
        lists["verb"] = lists["noun"] = set()  # an action is of the tail by either: half of it would be another number
    tail = {
        column: np.array([str(number) in lists[column] for number in range(most)], dtype=bool)
        for column, most in (("verb", int(verb.max()) + 1), ("noun", int(noun.max()) + 1))
    }
    unseen = np.array([name in lists["participant_id"] for name in participants], dtype=bool)
    return ActionLabels(verb, noun, unseen, tail["verb"][verb], tail["noun"][noun]), notes


def _segment(path: Path, start: str, stop: str) -> tuple[float, float]:
    times = _official_seconds(path, start), _official_seconds(path, stop)
    if not times[0] < times[1]:
        raise DatasetError(f"{path}: a sound goes from {start} to {stop}")
    return times


def _official_seconds(path: Path, text: str) -> float:
    """Return the seconds of a timestamp as the official code adds them up.

    That can differ in the last digit from the nearest float, and an overlap on a threshold is decided by it.
    """
    try:
        parse_timestamp(text)
    except RowError as error:
        raise DatasetError(f"{path}: {error}") from error
    hours, minutes, seconds = map(float, text.split(":"))
    return hours * 3600 + minutes * 60 + seconds


def _unknown_videos(video_ids: Sequence[str], known: set[str]) -> list[str]:
    unknown = [name for name in video_ids if name not in known]
    missing = len(known - set(video_ids))
    notes = []
    if unknown:
        named = ", ".join(map(quoted, unknown[:MAX_NAMED]))
        notes.append(
            f"{counted(len(unknown), 'video')} not in the annotations, all detections there are wrong: {named}"
        )
    if missing:
        notes.append(f"{counted(missing, 'annotated video')} not in the file: none of the sounds there is detected")
    return notes


def _without_labels(
    challenge: str, source: Path, number: int, levels: dict[str, int], notes: Sequence[str], *, what: str = "segments"
) -> ChallengeScore:
    return ChallengeScore(challenge, source, {}, {what: number}, levels, notes=(*notes, unlabelled_note(source)))
