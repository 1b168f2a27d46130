"""Submissions to EPIC-SOUNDS' challenges of recognition and detection, read and written.

Path of a sample: scores of sounds, or sounds detected in whole videos --here--> the official json, and back.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.datasets import SOUND_CLASSES
from earmark.datasets.annotation_files import RowError, quoted
from earmark.evaluation.action_submissions import scores_by_class
from earmark.evaluation.detection_metrics import Events
from earmark.evaluation.epic_metrics import finite_matrix
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
    "DETECTION_FORM",
    "RECOGNITION_FORM",
    "DetectionSubmission",
    "SoundSubmission",
    "read_detection_submission",
    "read_sound_submission",
    "write_detection_submission",
    "write_sound_submission",
]

RECOGNITION_FORM = Form("audio_based_interaction_recognition", "0.1", has_modality=True)
DETECTION_FORM = Form("audio_based_interaction_detection", "0.1", has_modality=True)
NUM_CLASSES = len(SOUND_CLASSES)
LARGEST = float(np.finfo(np.float32).max)  # the official measures are computed in float32


@dataclass(frozen=True, slots=True)
class SoundSubmission:
    """Predictions for N segments.

    Attributes:
        scores: Shape ``(N, 44)``.
        levels: ``sls_pt``, ``sls_tl``, ``sls_td``, ``t_mod``.
        notes: What of the file was ignored.
    """

    scores: NDArray[np.float64]
    levels: dict[str, int]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DetectionSubmission:
    """Sounds detected in videos.

    Attributes:
        video_ids: Of the videos, in the file's order; the events number them.
        events: With scores, in the file's order.
        levels: ``sls_pt``, ``sls_tl``, ``sls_td``, ``t_mod``.
        notes: What of the file was ignored.
    """

    video_ids: tuple[str, ...]
    events: Events
    levels: dict[str, int]
    notes: tuple[str, ...]


def read_sound_submission(path: str | os.PathLike[str], segment_ids: Sequence[str]) -> SoundSubmission:
    """Read and validate a submission of recognised sounds, in the order of the given ids.

    Args:
        path: The json, or a zip file with it as ``test.json``.
        segment_ids: All that it must have, and no other.

    Raises:
        SubmissionError: If anything is wrong with it; ``faults`` names each fault with its segment.
    """
    reader = SubmissionReader(Path(path), RECOGNITION_FORM)
    places = {name: place for place, name in enumerate(segment_ids)}
    keys = {str(number): number for number in range(NUM_CLASSES)}
    scores = np.zeros((len(places), NUM_CLASSES))
    found: set[str] = set()
    for name, value in reader.entries():
        where = f"segment {quoted(name)}"
        if name not in places:
            reader.faults.add(where, "the annotations have no such segment")
            continue
        found.add(name)
        try:
            if not isinstance(value, dict) or list(value) != ["interaction"]:
                held = (
                    f"an object with {', '.join(map(quoted, value)) or 'nothing'}"
                    if isinstance(value, dict)
                    else quoted(value)
                )
                raise RowError(f"it is {held}, expected an object with interaction alone")
            row = class_scores(value["interaction"], "interaction", keys)
            beyond = next((number for number, score in enumerate(row) if abs(score) > LARGEST), None)
            if beyond is not None:
                raise RowError(f"the score of interaction {beyond} is {row[beyond]}, beyond the numbers of float32")
            scores[places[name]] = row
        except RowError as error:
            reader.faults.add(where, error)
    for name in places:
        if name not in found:
            reader.faults.add(f"segment {quoted(name)}", "it is missing")
    reader.require_valid()
    return SoundSubmission(scores, reader.levels, tuple(reader.notes))


def write_sound_submission(
    path: str | os.PathLike[str],
    *,
    segment_ids: Sequence[str],
    scores: ArrayLike,
    levels: SupervisionLevels,
    modality: int = 0,
) -> None:
    """Write a submission that `read_sound_submission` takes.

    Args:
        path: ``.zip`` for the server, or ``.json``.
        segment_ids: ``annotation_id`` of each segment, N of them.
        scores: Shape ``(N, 44)``.
        levels: What the model was trained on.
        modality: What it perceives: 0 sound, 1 picture, 2 both.

    Raises:
        ValueError: If shapes do not fit, a score is not finite in float32, an id is empty or there twice; or as
            `write_submission`.
        OSError: Naming the file, if it cannot be written.
    """
    matrix = finite_matrix(scores, "scores")
    if matrix.shape[1] != NUM_CLASSES or np.abs(matrix).max() > LARGEST:
        raise ValueError(f"need scores of shape (N, {NUM_CLASSES}) within the numbers of float32, got {matrix.shape}")
    names = checked_segment_ids(segment_ids, len(matrix))
    entries = ((name, {"interaction": scores_by_class(row)}) for name, row in zip(names, matrix, strict=True))
    write_submission(path, RECOGNITION_FORM, levels, entries, modality=modality)


def read_detection_submission(path: str | os.PathLike[str]) -> DetectionSubmission:
    """Read and validate a submission of detected sounds.

    Args:
        path: The json, or a zip file with it as ``test.json``.

    Raises:
        SubmissionError: If anything is wrong with it; ``faults`` names each fault with video and detection.
    """
    reader = SubmissionReader(Path(path), DETECTION_FORM)
    video_ids: list[str] = []
    counts: list[int] = []
    rows: list[tuple[int, float, float, float]] = []
    extra: set[str] = set()
    for name, value in reader.entries():
        if not isinstance(value, list):
            reader.faults.add(f"video {quoted(name)}", f"it is {quoted(value)}, expected a list of detections")
            continue
        video_ids.append(name)
        num_before = len(rows)
        for number, detection in enumerate(value):
            try:
                rows.append(_detection(detection))
                if len(detection) > 3 and len(extra) < 10:
                    extra |= detection.keys() - {"interaction", "score", "segment"}
            except RowError as error:
                reader.faults.add(f"video {quoted(name)}, detection {number}", error)
        counts.append(len(rows) - num_before)
    reader.require_valid()
    notes = [f"{reader.path}: detections have {quoted(key)}, which is ignored" for key in sorted(extra)]
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    videos = np.repeat(np.arange(len(video_ids)), np.array(counts, dtype=np.int64))
    events = Events(videos, table[:, 0].astype(np.int64), table[:, 1:3], table[:, 3])
    return DetectionSubmission(tuple(video_ids), events, reader.levels, (*reader.notes, *notes))


def write_detection_submission(
    path: str | os.PathLike[str],
    *,
    video_ids: Sequence[str],
    events: Events,
    levels: SupervisionLevels,
    modality: int = 0,
) -> None:
    """Write a submission that `read_detection_submission` takes; a video without detections has an empty list.

    Args:
        path: ``.zip`` for the server, or ``.json``.
        video_ids: Of all videos; the events number them.
        events: With scores.
        levels: What the model was trained on.
        modality: What it perceives: 0 sound, 1 picture, 2 both.

    Raises:
        ValueError: If events have no scores, a class or video does not exist, an id is empty or there twice; or as
            `write_submission`.
        OSError: Naming the file, if it cannot be written.
    """
    names = checked_segment_ids(video_ids, len(video_ids))
    if events.score is None:
        raise ValueError("detections need scores")
    for what, numbers, most in (("class", events.label, NUM_CLASSES), ("video", events.video, len(names))):
        wrong = (numbers < 0) | (numbers >= most)
        if wrong.any():
            number = int(wrong.argmax())
            raise ValueError(f"{what} {numbers[number]} of detection {number} must be from 0 to {most - 1}")
    score = events.score

    def entries() -> Iterator[tuple[str, Any]]:
        order = np.argsort(events.video, kind="stable")
        bounds = np.searchsorted(events.video[order], np.arange(len(names) + 1))
        for number, name in enumerate(names):
            chosen = order[bounds[number] : bounds[number + 1]]
            columns = (events.label[chosen].tolist(), score[chosen].tolist(), events.segment[chosen].tolist())
            yield (
                name,
                [
                    {"interaction": label, "score": sure, "segment": segment}
                    for label, sure, segment in zip(*columns, strict=True)
                ],
            )

    write_submission(path, DETECTION_FORM, levels, entries(), modality=modality)


def _detection(value: Any) -> tuple[int, float, float, float]:
    if not isinstance(value, dict):
        raise RowError(f"it is {quoted(value)}, expected an object with interaction, score and segment")
    missing = next((key for key in ("interaction", "score", "segment") if key not in value), None)
    if missing is not None:
        raise RowError(f"{missing} is missing")
    label, segment = value["interaction"], value["segment"]
    if type(label) is not int or not 0 <= label < NUM_CLASSES:
        raise RowError(f"interaction is {quoted(label)}, expected a whole number from 0 to {NUM_CLASSES - 1}")
    if not isinstance(segment, list) or len(segment) != 2:
        raise RowError("segment must be a list of start and end")
    start, end = finite_number("the start", segment[0]), finite_number("the end", segment[1])
    if not start < end:
        raise RowError(f"segment goes from {start} s to {end} s")
    return label, start, end, finite_number("score", value["score"])
