"""Submissions to Ego4D's challenges of state changes, points of no return and long-term anticipation, read and written.

Path of a sample: what was predicted for clips or windows --here--> the json of the challenge, and back. These files
name no challenge and no version: those of clips are lists, whose fields tell one challenge from the other, and that of
anticipation is an object of windows (Grauman et al., "Ego4D", CVPR 2022).
"""

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.datasets import NUM_COMING
from earmark.datasets.annotation_files import RowError, RowFaults, checked_id, quoted
from earmark.evaluation.submission_files import (
    WINDOW_ID,
    SubmissionError,
    checked_segment_ids,
    finite_number,
    json_items,
    json_members,
    repeated_key,
    writing_json,
)
from earmark.wording import counted

__all__ = [
    "NUM_CANDIDATES",
    "AnticipationSubmission",
    "KeyframeSubmission",
    "StateChangeSubmission",
    "read_anticipation_submission",
    "read_keyframe_submission",
    "read_state_change_submission",
    "write_anticipation_submission",
    "write_keyframe_submission",
    "write_state_change_submission",
]

NUM_CANDIDATES = 5  # K: sequences of coming actions for each window, of which the best counts
MAX_CLASS = 2**31 - 1  # of int32, in which classes are kept
MAX_NAMED = 10  # fields that are ignored


@dataclass(frozen=True, slots=True)
class StateChangeSubmission:
    """Predictions for N clips.

    Attributes:
        state_changes: Whether a state changes, shape ``(N,)``.
        notes: What of the file was ignored.
    """

    state_changes: NDArray[np.bool_]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyframeSubmission:
    """Predictions for N clips.

    Attributes:
        pnr_frames: Of the points of no return, counted from each clip's first frame, shape ``(N,)``; NaN where the file
            has none and needs none.
        notes: What of the file was ignored.
    """

    pnr_frames: NDArray[np.float64]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AnticipationSubmission:
    """Predictions for N windows: K sequences of Z coming actions.

    Attributes:
        verbs: Class ids, shape ``(N, K, Z)``.
        nouns: Class ids, shape ``(N, K, Z)``.
        notes: What of the file was ignored.
    """

    verbs: NDArray[np.int32]
    nouns: NDArray[np.int32]
    notes: tuple[str, ...]


def write_state_change_submission(
    path: str | os.PathLike[str], unique_ids: Sequence[str], state_changes: ArrayLike
) -> None:
    """Write a submission of object state change classification (OSCC), whole or not at all.

    Args:
        path: ``.json``, or ``.zip`` for a zip file with it as ``test.json``.
        unique_ids: Of N clips.
        state_changes: Whether a state changes in each, boolean, shape ``(N,)``.

    Raises:
        ValueError: If shapes do not fit, values are not boolean, an id is empty or there twice, or the suffix is
            another.
        OSError: Naming the file, if it cannot be written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp()) / "oscc.json"
        >>> write_state_change_submission(path, ["a", "b"], [True, False])
        >>> print(path.read_text())
        [{"unique_id": "a", "state_change": true},
        {"unique_id": "b", "state_change": false}]
    """
    values = np.asarray(state_changes)
    if values.dtype != np.bool_ or values.ndim != 1:
        raise ValueError(f"need a boolean state change of each clip, shape (N,), got {values.dtype} {values.shape}")
    names = checked_segment_ids(unique_ids, len(values), what="clip")
    _write_clips(Path(path), "state_change", names, values.tolist())


def write_keyframe_submission(path: str | os.PathLike[str], unique_ids: Sequence[str], pnr_frames: ArrayLike) -> None:
    """Write a submission of localised points of no return (PNR), whole or not at all.

    Args:
        path: ``.json``, or ``.zip`` for a zip file with it as ``test.json``.
        unique_ids: Of N clips.
        pnr_frames: Frame of each, counted from the clip's first frame and not from the video's; whole or between two
            frames, at least 0, shape ``(N,)``.

    Raises:
        ValueError: If shapes do not fit, a frame is negative or not finite, an id is empty or there twice, or the
            suffix is another.
        OSError: Naming the file, if it cannot be written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp()) / "pnr.json"
        >>> write_keyframe_submission(path, ["a", "b"], [112.5, 0])
        >>> print(path.read_text())
        [{"unique_id": "a", "pnr_frame": 112.5},
        {"unique_id": "b", "pnr_frame": 0.0}]
    """
    values = np.asarray(pnr_frames)
    if values.dtype.kind not in "iuf" or values.ndim != 1:
        raise ValueError(f"need a frame number for each clip, shape (N,), got {values.dtype} {values.shape}")
    wrong = ~np.isfinite(values) | (values < 0)
    if wrong.any():
        place = int(wrong.argmax())
        raise ValueError(f"pnr_frame {values[place]} of clip {place} must be a finite number of frames, at least 0")
    names = checked_segment_ids(unique_ids, len(values), what="clip")
    _write_clips(Path(path), "pnr_frame", names, values.tolist())


def write_anticipation_submission(
    path: str | os.PathLike[str], window_ids: Sequence[str], verbs: ArrayLike, nouns: ArrayLike
) -> None:
    """Write a submission of long-term action anticipation (LTA), whole or not at all.

    Args:
        path: ``.json``, or ``.zip`` for a zip file with it as ``test.json``.
        window_ids: Of N windows, ``<clip_uid>_<last_visible_action_idx>``, as `AnticipationWindow.window_id` is.
        verbs: Class ids of 5 sequences of 20 coming actions, whole numbers, shape ``(N, 5, 20)``.
        nouns: The same of nouns.

    Raises:
        ValueError: If shapes do not fit, a class is no whole number from 0 on, an id is empty, there twice or no
            window's, or the suffix is another.
        OSError: Naming the file, if it cannot be written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> path = Path(tempfile.mkdtemp()) / "lta.json"
        >>> verbs = np.zeros((1, 5, 20), dtype=int)
        >>> write_anticipation_submission(path, ["clip_7"], verbs, verbs + 3)
        >>> path.read_text()[:30]
        '{"clip_7": {"verb": [[0, 0, 0,'
    """
    columns = {}
    for what, given in (("verbs", verbs), ("nouns", nouns)):
        values = np.asarray(given)
        if values.dtype.kind not in "iu" or values.ndim != 3 or values.shape[1:] != (NUM_CANDIDATES, NUM_COMING):
            expected = f"whole numbers of shape (N, {NUM_CANDIDATES}, {NUM_COMING})"
            raise ValueError(f"need {what} as {expected}, got {values.dtype} {values.shape}")
        wrong = ((values < 0) | (values > MAX_CLASS)).any(axis=(1, 2))
        if wrong.any():
            raise ValueError(f"{what} of window {int(wrong.argmax())} hold what is no class id")
        columns[what] = values
    if len(columns["verbs"]) != len(columns["nouns"]):
        raise ValueError(f"verbs of {len(columns['verbs'])} windows, nouns of {len(columns['nouns'])}")
    names = checked_segment_ids(window_ids, len(columns["verbs"]), what="window")
    strange = next((name for name in names if WINDOW_ID.fullmatch(name) is None), None)
    if strange is not None:
        raise ValueError(f"window {quoted(strange)} is not named by clip and index of the last action, as 'clip_7' is")
    with writing_json(Path(path)) as file:
        for number, name in enumerate(names):
            content = {"verb": columns["verbs"][number].tolist(), "noun": columns["nouns"][number].tolist()}
            file.write(f"{',' if number else '{'}{json.dumps(name)}: {json.dumps(content)}\n")
        file.write("}")


def _write_clips(path: Path, field: str, names: Sequence[str], values: Sequence[Any]) -> None:
    with writing_json(path) as file:
        for number, (name, value) in enumerate(zip(names, values, strict=True)):
            entry = json.dumps({"unique_id": name, field: value}, allow_nan=False)
            file.write((",\n" if number else "[") + entry)
        file.write("]")


def read_state_change_submission(path: str | os.PathLike[str], unique_ids: Sequence[str]) -> StateChangeSubmission:
    """Read and validate a submission of object state change classification, in the order of the given ids.

    Args:
        path: The json, or a zip file with it as ``test.json``.
        unique_ids: Of all clips that it must have, and no other.

    Raises:
        SubmissionError: If anything is wrong with it; ``faults`` names each fault with its clip.
    """
    entries = _Entries(Path(path), "clip", unique_ids)
    values = np.zeros(len(entries.places), dtype=bool)

    def take(place: int, name: str, value: Any) -> None:
        if type(value) is not bool:
            raise RowError(f"state_change is {quoted(value)}, expected true or false")
        values[place] = value

    entries.read_clips("state_change", take)
    return StateChangeSubmission(values, entries.finish())


def read_keyframe_submission(
    path: str | os.PathLike[str], num_frames: Mapping[str, int], *, optional: Collection[str] = ()
) -> KeyframeSubmission:
    """Read and validate a submission of points of no return, in the order of the given clips.

    Args:
        path: The json, or a zip file with it as ``test.json``.
        num_frames: ``unique_id`` of all clips that it may have -> how many frames each lasts. A frame beyond that is
            refused: no point of no return can be there, and a file that counts in the whole video would have such.
        optional: Those that it need not have: of them no frame is compared, as those without a change.

    Raises:
        SubmissionError: If anything is wrong with it; ``faults`` names each fault with its clip.
    """
    entries = _Entries(Path(path), "clip", list(num_frames), optional)
    values = np.full(len(entries.places), np.nan)

    def take(place: int, name: str, value: Any) -> None:
        frame = finite_number("pnr_frame", value)
        if not 0 <= frame <= num_frames[name]:
            raise RowError(
                f"pnr_frame is {quoted(value)}, expected 0 to {num_frames[name]}: it counts from the clip's first frame"
            )
        values[place] = frame

    entries.read_clips("pnr_frame", take)
    return KeyframeSubmission(values, entries.finish())


def read_anticipation_submission(
    path: str | os.PathLike[str], window_ids: Sequence[str], *, num_verbs: int, num_nouns: int
) -> AnticipationSubmission:
    """Read and validate a submission of long-term anticipation, in the order of the given windows.

    Args:
        path: The json, or a zip file with it as ``test.json``.
        window_ids: Of all windows that it must have, and no other.
        num_verbs: How many verb classes there are.
        num_nouns: How many noun classes.

    Raises:
        SubmissionError: If anything is wrong with it; ``faults`` names each fault with its window.
    """
    entries = _Entries(Path(path), "window", window_ids)
    shape = (len(entries.places), NUM_CANDIDATES, NUM_COMING)
    verbs, nouns = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.int32)

    def take(place: int, content: dict[str, Any]) -> None:
        for what, array, num_classes in (("verb", verbs, num_verbs), ("noun", nouns, num_nouns)):
            if what not in content:
                raise RowError(f"{what} is missing")
            array[place] = _sequences(what, content[what], num_classes)

    entries.read_windows(take)
    return AnticipationSubmission(verbs, nouns, entries.finish())


class _Entries:
    """Takes the entries of one file, each of them once, and counts what is wrong with them.

    Args:
        path: The file.
        what: What its entries are of.
        names: Of those that it may have.
        optional: Those of them that it need not have.
    """

    def __init__(self, path: Path, what: str, names: Sequence[str], optional: Collection[str] = ()) -> None:
        self.places = {name: place for place, name in enumerate(names)}
        self._path, self._what, self._optional = path, what, frozenset(optional)
        self._faults = RowFaults(path)
        self._found: set[str] = set()
        self._ignored: dict[str, None] = {}  # fields, in the order of the file

    def read_clips(self, field: str, take: Callable[[int, str, Any], None]) -> None:
        """Read a list of objects with ``unique_id`` and a field, and give each place, id and value of the field."""
        for number, row in enumerate(json_items(self._path)):
            where = f"entry {number}"
            try:
                self._require_object(row, f"unique_id and {field}")
                name = checked_id("unique_id", row.get("unique_id"))
                where = f"{self._what} {quoted(name)}"
                place = self._place_of(name)
                if field not in row:
                    raise RowError(f"{field} is missing")
                self._ignore(row, ("unique_id", field))
                take(place, name, row[field])
            except RowError as error:
                self._faults.add(where, error)

    def read_windows(self, take: Callable[[int, dict[str, Any]], None]) -> None:
        """Read an object of windows, and give each one's place and content."""
        for _, name, content in json_members(self._path, None):
            try:
                place = self._place_of(name)
                self._require_object(content, "verb and noun")
                self._ignore(content, ("verb", "noun"))
                take(place, content)
            except RowError as error:
                self._faults.add(f"{self._what} {quoted(name)}", error)

    def finish(self) -> tuple[str, ...]:
        """Return what was ignored, if nothing was wrong.

        Raises:
            SubmissionError: With all faults.
        """
        for name in self.places:
            if name not in self._found and name not in self._optional:
                self._faults.add(f"{self._what} {quoted(name)}", "it is missing")
        if self._faults.num_rows:
            raise SubmissionError(self._faults.lines())
        return tuple(f"{self._path}: {self._what}s have {quoted(key)}, which is ignored" for key in self._ignored)

    def _place_of(self, name: str) -> int:
        place = self.places.get(name)
        if place is None:
            raise RowError(f"the annotations have no such {self._what}")
        if name in self._found:
            raise RowError("it is given twice")
        self._found.add(name)
        return place

    def _require_object(self, value: Any, fields: str) -> None:
        if not isinstance(value, dict):
            raise RowError(f"it is {quoted(value)}, expected an object with {fields}")
        repeated = repeated_key(value)
        if repeated is not None:
            raise RowError(f"{quoted(repeated)} is given twice")

    def _ignore(self, row: dict[str, Any], known: tuple[str, str]) -> None:
        if len(row) > 2 and len(self._ignored) < MAX_NAMED:
            self._ignored |= dict.fromkeys(key for key in row if key not in known)


def _sequences(what: str, value: Any, num_classes: int) -> list[list[int]]:
    """Return the sequences of a window's verbs or nouns."""
    if not isinstance(value, list) or len(value) != NUM_CANDIDATES:
        held = counted(len(value), "sequence") if isinstance(value, list) else quoted(value)
        raise RowError(f"{what} is {held}, expected a list of {NUM_CANDIDATES} sequences of coming actions")
    for number, sequence in enumerate(value):
        if not isinstance(sequence, list) or len(sequence) != NUM_COMING:
            held = counted(len(sequence), "action") if isinstance(sequence, list) else quoted(sequence)
            raise RowError(f"sequence {number} of {what} is {held}, expected a list of {NUM_COMING} classes")
        for place, label in enumerate(sequence):
            if type(label) is not int or not 0 <= label < num_classes:
                raise RowError(
                    f"{what} {place} of sequence {number} is {quoted(label)}, "
                    f"expected a class, a whole number from 0 to {num_classes - 1}"
                )
    return value
