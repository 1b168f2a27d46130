"""What Ego4D's annotations say of the clips and windows of a challenge: labels alone, not where the videos are.

Path of a sample: the official json files --here--> what submissions are scored against in
`earmark.evaluation.ego4d_scores`. A row that cannot be used is named, and the others are read.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.datasets import NUM_COMING, num_anticipation_windows
from earmark.datasets.annotation_files import (
    RowError,
    RowFaults,
    RowRemarks,
    checked_id,
    checked_number,
    json_rows,
    quoted,
)
from earmark.datasets.ego4d_manifest import checked_fps, read_manifest_videos
from earmark.datasets.ego4d_state_changes import MAX_FRAMES, Coordinates, StateChangeReader
from earmark.wording import counted

__all__ = [
    "AnnotatedActions",
    "AnnotatedClips",
    "AnticipationTruth",
    "clip_ids_in",
    "is_labelled",
    "read_annotated_clips",
    "window_ids_in",
]

HELD_BACK = "test_unannotated.json"
MAX_INDEX = 10**9
NO_LABEL = -1
COORDINATES: tuple[Coordinates, ...] = ("parent", "clip")


def is_labelled(source: Path, field_name: str) -> bool:
    """Return whether a file has labels; the official ones of the test splits have none, whatever they say."""
    if source.name.endswith(HELD_BACK):
        return False
    return any(field_name in row for _, row in json_rows(source, "clips", RowFaults(source)))


def clip_ids_in(source: Path) -> set[str]:
    """Return the ids of the clips that a file of state changes lists."""
    rows = json_rows(source, "clips", RowFaults(source))
    return {row["unique_id"] for _, row in rows if isinstance(row.get("unique_id"), str)}


def window_ids_in(source: Path) -> set[str]:
    """Return the ids of all windows that any of the actions could end which a file of anticipation lists."""
    rows = json_rows(source, "clips", RowFaults(source))
    return {f"{row.get('clip_uid')}_{row.get('action_idx')}" for _, row in rows if type(row.get("action_idx")) is int}


# --- state changes ---


@dataclass(frozen=True, slots=True)
class AnnotatedClips:
    """N clips of one file, in its order.

    Attributes:
        unique_ids: Of the clips.
        state_change: 1 with a change, 0 without, -1 where that is not known; shape ``(N,)``.
        num_frames: How many frames each lasts, shape ``(N,)``; where that is not known, more than any clip.
        pnr_frame: Of the point of no return, counted from the clip's first frame; NaN where there is none or it is not
            known; shape ``(N,)``.
        fps: Frames per second in which these are counted, shape ``(N,)``; NaN where that is not known.
        notes: What is wrong or unusual with the rows, each with its place.
    """

    unique_ids: tuple[str, ...]
    state_change: NDArray[np.int8]
    num_frames: NDArray[np.int64]
    pnr_frame: NDArray[np.float64]
    fps: NDArray[np.float64]
    notes: tuple[str, ...]


def read_annotated_clips(source: Path, *, labelled: bool, keyframes: bool) -> AnnotatedClips:
    """Read what a file of state changes says of its clips.

    Args:
        source: ``fho_oscc-pnr_*.json``.
        labelled: Whether it has labels.
        keyframes: Whether points of no return are asked for; without, what is wrong with where clips lie is not told.

    Raises:
        DatasetError: If it cannot be read, or none of its rows can.
    """
    faults, span_faults, remarks = RowFaults(source), RowFaults(source), RowRemarks(source)
    readers: dict[Coordinates, StateChangeReader] = {
        coordinates: StateChangeReader(coordinates, labelled=labelled, remarks=remarks, min_frames=1)
        for coordinates in COORDINATES
    }
    clips: dict[str, _Clip] = {}
    for place, row in json_rows(source, "clips", faults):
        try:
            unique_id = checked_id("unique_id", row.get("unique_id"))
            if unique_id in clips:
                raise RowError(f"unique_id {unique_id} is listed twice")
            clip = clips[unique_id] = _Clip(str(row.get("video_uid")))
            if labelled:
                state_change = row.get("state_change")
                if not isinstance(state_change, bool):
                    raise RowError(f"state_change is {quoted(state_change)}, expected true or false")
                clip.state_change = int(state_change)
        except RowError as error:
            faults.add(place, error)
            continue
        try:
            reader = readers["clip" if row.get("parent_start_frame") is None else "parent"]
            span = reader.span(row)
            reader.note(clip.video_uid, span)
        except RowError as error:
            span_faults.add(place, error)
            continue
        clip.num_frames = span.stop_frame - span.start_frame
        clip.seconds = span.stop_seconds - span.start_seconds
        if span.pnr_frame is not None:
            clip.pnr_frame = span.pnr_frame - span.start_frame
    faults.require_rows(len(clips))
    notes = [*faults.lines(), *remarks.lines()]
    rates: dict[str, float] = {}
    if keyframes:
        notes += span_faults.lines()
        rates, told = _frame_rates(source, {clip.video_uid for clip in clips.values()})
        notes += told
    return AnnotatedClips(
        unique_ids=tuple(clips),
        state_change=np.array([clip.state_change for clip in clips.values()], dtype=np.int8),
        num_frames=np.array([clip.num_frames for clip in clips.values()], dtype=np.int64),
        pnr_frame=np.array([clip.pnr_frame for clip in clips.values()]),
        fps=np.array([rates.get(clip.video_uid, clip.num_frames / clip.seconds) for clip in clips.values()]),
        notes=tuple(notes),
    )


@dataclass(slots=True)
class _Clip:
    """What is read of one clip."""

    video_uid: str
    state_change: int = NO_LABEL
    num_frames: int = MAX_FRAMES
    seconds: float = math.nan
    pnr_frame: float = math.nan


def _frame_rates(source: Path, video_uids: Collection[str]) -> tuple[dict[str, float], list[str]]:
    """Return the frames per second of videos by ``ego4d.json``, and what is told where it does not say."""
    folders = list(source.resolve().parents)[2::-1]  # that of the download, of the version, of the annotations
    manifest = next((path for folder in folders if (path := folder / "ego4d.json").is_file()), None)
    own = "frames a second are those of the clips' own frames and seconds"
    if manifest is None:
        return {}, [f"{source}: there is no ego4d.json above it: {own}"]
    videos, _, _ = read_manifest_videos(manifest)
    rates = {}
    for video_uid in video_uids:
        try:
            if video_uid in videos:
                rates[video_uid] = checked_fps(videos[video_uid].fps)
        except RowError:  # told by their number
            continue
    number = len(video_uids) - len(rates)
    return rates, [f"{manifest}: no frames a second of {counted(number, 'video')}: there {own}"] if number else []


# --- long-term anticipation ---


@dataclass(slots=True)
class _ClipActions:
    """The actions of one clip: verb and noun by index, None where they cannot be used."""

    labels: dict[int, tuple[int, int] | None] = field(default_factory=dict)
    in_order: bool = True


@dataclass(frozen=True, slots=True)
class AnticipationTruth:
    """N windows of some actions that are seen, and what comes.

    Attributes:
        window_ids: ``<clip_uid>_<index of the last action that is seen>``, in the order of the file and of the index.
        scored: Whether all actions of the window can be used, shape ``(N,)``.
        coming: Verb and noun of the Z coming actions of those that are scored, shape ``(M, Z, 2)``.
        last: Verb and noun of the last action that is seen, shape ``(M, 2)``.
    """

    window_ids: tuple[str, ...]
    scored: NDArray[np.bool_]
    coming: NDArray[np.int64]
    last: NDArray[np.int64]


class AnnotatedActions:
    """The actions of one file of long-term anticipation, clip by clip in the order of their index.

    Args:
        source: ``fho_lta_*.json``.
        labelled: Whether it has labels.
        num_classes: How many verb and noun classes there are.

    Attributes:
        notes: What is wrong with the rows, each with its place.

    Raises:
        DatasetError: If it cannot be read, or none of its rows can.
    """

    def __init__(self, source: Path, *, labelled: bool, num_classes: tuple[int, int]) -> None:
        faults = RowFaults(source)
        self._labelled = labelled
        self._clips: dict[str, _ClipActions] = {}
        shared: dict[tuple[int, int], tuple[int, int]] = {}
        num_rows = 0
        for place, row in json_rows(source, "clips", faults):
            try:
                clip_uid = checked_id("clip_uid", row.get("clip_uid"))
                clip = self._clips.setdefault(clip_uid, _ClipActions())
                try:
                    index = _whole(row, "action_idx", MAX_INDEX)
                except RowError:
                    clip.in_order = False
                    raise
                again = index in clip.labels
                clip.labels[index] = None
                if again:
                    raise RowError(f"action {index} of clip {clip_uid} is listed twice")
                label = (NO_LABEL, NO_LABEL)
                if labelled:
                    label = _whole(row, "verb_label", num_classes[0] - 1), _whole(row, "noun_label", num_classes[1] - 1)
                clip.labels[index] = shared.setdefault(label, label)
                num_rows += 1
            except RowError as error:
                faults.add(place, error)
        faults.require_rows(num_rows)
        self.notes = faults.lines()

    @property
    def labels(self) -> NDArray[np.int64]:
        """Verb and noun of all actions that can be used, shape ``(N, 2)``."""
        found = [label for clip in self._clips.values() for label in clip.labels.values() if label is not None]
        return np.array(found, dtype=np.int64).reshape(-1, 2)

    def num_seen(self, window_ids: Collection[str]) -> int:
        """Return after how many seen actions the windows of a submission begin: the number that fits them best.

        A window of I seen actions ends at the I-th action of its clip or a later one, so a file for one more has one
        window of each clip less. Windows that the file lacks and those it has too many count the same.

        Args:
            window_ids: That the submission has.
        """
        given = set(window_ids)
        there: dict[int, int] = {}
        found: dict[int, int] = {}
        for clip_uid, clip in self._clips.items():
            for place, index in enumerate(self._ends(clip)):
                there[place] = there.get(place, 0) + 1
                found[place] = found.get(place, 0) + (f"{clip_uid}_{index}" in given)
        wrong = sum(there[place] - found[place] for place in there)
        fewest, best = wrong, 1
        for place in sorted(there):  # windows that end here are no longer missing, and any that are there are too many
            wrong += 2 * found[place] - there[place]
            if wrong < fewest:
                fewest, best = wrong, place + 2
        return best

    def windows(self, num_seen: int) -> AnticipationTruth:
        """Return the windows of some seen actions and the coming ones.

        Args:
            num_seen: I, at least 1.
        """
        names: list[str] = []
        scored: list[bool] = []
        coming: list[Sequence[tuple[int, int]]] = []
        last: list[tuple[int, int]] = []
        for clip_uid, clip in self._clips.items():
            order = sorted(clip.labels)
            for place, index in enumerate(self._ends(clip)):
                if place < num_seen - 1:
                    continue
                labels = [clip.labels[each] for each in order[place - num_seen + 1 : place + 1 + NUM_COMING]]
                usable = [label for label in labels if label is not None]
                names.append(f"{clip_uid}_{index}")
                scored.append(self._labelled and clip.in_order and len(usable) == len(labels))
                if scored[-1]:
                    coming.append(usable[num_seen:])
                    last.append(usable[num_seen - 1])
        return AnticipationTruth(
            tuple(names),
            np.array(scored, dtype=bool),
            np.array(coming, dtype=np.int64).reshape(len(coming), NUM_COMING, 2),
            np.array(last, dtype=np.int64).reshape(-1, 2),
        )

    def _ends(self, clip: _ClipActions) -> list[int]:
        """Return the indices of the actions that end a window of one seen action, in order."""
        order = sorted(clip.labels)
        number = num_anticipation_windows(len(order), num_seen=1, num_coming=NUM_COMING if self._labelled else 0)
        return order[:number]


def _whole(row: dict[str, Any], name: str, most: int) -> int:
    return int(checked_number(name, row.get(name), least=0, most=most, whole=True))
