"""Ego4D's long-term action anticipation: clips with their actions in order, and the windows that are judged.

A window is some actions that are seen and the coming ones that are to be told (Grauman et al., "Ego4D", CVPR 2022).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from earmark.datasets.annotation_files import RowError, RowRemarks, checked_id, checked_number, read_json
from earmark.datasets.records import ActionRecord, DatasetError

__all__ = [
    "NUM_COMING",
    "AnticipationClip",
    "AnticipationRows",
    "AnticipationWindow",
    "anticipation_windows",
    "lost_anticipation_windows",
    "num_anticipation_windows",
    "read_anticipation_classes",
]

NUM_COMING = 20  # Z of the official task
MAX_INDEX = 10**9

Protocol = Literal["full", "published"]


def read_anticipation_classes(path: Path) -> dict[str, list[str]]:
    """Return the names of the verb and noun classes by number, as ``fho_lta_taxonomy.json`` has them.

    Raises:
        DatasetError: If the file is missing or damaged.
    """
    taxonomy = read_json(path)
    if not isinstance(taxonomy, dict):
        raise DatasetError(f"{path}: expected a json object")
    classes = {}
    for label in ("verb", "noun"):
        names = taxonomy.get(f"{label}s")
        if not isinstance(names, list):
            raise DatasetError(f"{path}: {label}s must be a list of names")
        try:
            classes[label] = [checked_id(f"{label} {number}", name) for number, name in enumerate(names)]
        except RowError as error:
            raise DatasetError(f"{path}: {error}") from error
    return classes


@dataclass(frozen=True, slots=True)
class AnticipationClip:
    """A clip of some minutes and its actions; of the test split, those that may be seen.

    Attributes:
        clip_uid: Its name.
        video_id: The video, or the clip file, that its actions are in.
        actions: In order of their index.
        indices: The ``action_idx`` of each.
        lost_indices: Those of actions that were left out as faulty, or are listed twice: no window holds them, since
            its actions would not be those that follow each other.
        in_order: Whether the place of every faulty action is known; if not, the clip has no windows.
    """

    clip_uid: str
    video_id: str
    actions: tuple[ActionRecord, ...]
    indices: tuple[int, ...]
    lost_indices: tuple[int, ...] = ()
    in_order: bool = True

    @property
    def num_listed(self) -> int:
        """How many actions the file lists, the lost ones with them."""
        return len({*self.indices, *self.lost_indices})


@dataclass(frozen=True, slots=True)
class AnticipationWindow:
    """Some actions that are seen, and those that come.

    Attributes:
        clip_uid: The clip that it is of.
        last_visible_index: The ``action_idx`` of the last action that is seen.
        seen: In order of time.
        coming: In order of time; empty where they are held back.
    """

    clip_uid: str
    last_visible_index: int
    seen: tuple[ActionRecord, ...]
    coming: tuple[ActionRecord, ...]

    @property
    def window_id(self) -> str:
        """Its name in a submission."""
        return f"{self.clip_uid}_{self.last_visible_index}"


def num_anticipation_windows(
    num_actions: int, *, num_seen: int, num_coming: int = NUM_COMING, protocol: Protocol = "full"
) -> int:
    """Return how many windows a clip has.

    Args:
        num_actions: Of the clip.
        num_seen: I, at least 1.
        num_coming: Z; 0 where coming actions are held back.
        protocol: ``published`` for one fewer, as the official code was until 2023-08-08, and the paper's is.

    Raises:
        ValueError: If a number is too small.

    Example:
        >>> num_anticipation_windows(30, num_seen=4), num_anticipation_windows(30, num_seen=4, protocol="published")
        (7, 6)
    """
    if num_actions < 0 or num_seen < 1 or num_coming < 0:
        raise ValueError(f"a window of {num_seen} seen and {num_coming} coming of {num_actions} actions")
    return max(0, num_actions - num_coming - num_seen + (protocol == "full"))


def anticipation_windows(
    clip: AnticipationClip, *, num_seen: int, num_coming: int = NUM_COMING, protocol: Protocol = "full"
) -> list[AnticipationWindow]:
    """Return the windows of a clip, in order of time.

    A window with an action that is lost is left out: `num_anticipation_windows` of `AnticipationClip.num_listed` says
    how many there would be.

    Args:
        clip: The clip.
        num_seen: I, at least 1.
        num_coming: Z; 0 for a clip whose coming actions are held back, of which each visible action from the I-th on
            ends a window.
        protocol: As of `num_anticipation_windows`.

    Raises:
        ValueError: If a number is too small.

    Example:
        >>> action = ActionRecord("c_0", "v", 0.0, 1.0, "", {"verb": 0, "noun": 0})
        >>> clip = AnticipationClip("c", "v", (action,) * 5, (0, 1, 2, 3, 4))
        >>> [window.window_id for window in anticipation_windows(clip, num_seen=2, num_coming=2)]
        ['c_1', 'c_2']
    """
    by_index = _usable_actions(clip)
    windows = []
    for inside in _spans(clip, num_seen=num_seen, num_coming=num_coming, protocol=protocol):
        if clip.in_order and all(index in by_index for index in inside):
            actions = tuple(by_index[index] for index in inside)
            windows.append(
                AnticipationWindow(clip.clip_uid, inside[num_seen - 1], actions[:num_seen], actions[num_seen:])
            )
    return windows


def lost_anticipation_windows(
    clip: AnticipationClip, *, num_seen: int, num_coming: int = NUM_COMING, protocol: Protocol = "full"
) -> list[tuple[str, str]]:
    """Return the windows that `anticipation_windows` leaves out: name and reason of each, in order of time.

    Args:
        clip: The clip.
        num_seen: As of `anticipation_windows`.
        num_coming: As of `anticipation_windows`.
        protocol: As of `anticipation_windows`.

    Raises:
        ValueError: If a number is too small.

    Example:
        >>> action = ActionRecord("c_0", "v", 0.0, 1.0, "", {"verb": 0, "noun": 0})
        >>> clip = AnticipationClip("c", "v", (action,) * 4, (0, 2, 3, 4), lost_indices=(1,))
        >>> lost_anticipation_windows(clip, num_seen=1, num_coming=1)
        [('c_0', 'holds action 1, which was left out'), ('c_1', 'holds action 1, which was left out')]
    """
    by_index = _usable_actions(clip)
    lost = []
    for inside in _spans(clip, num_seen=num_seen, num_coming=num_coming, protocol=protocol):
        reason = "" if clip.in_order else "an action of its clip was left out, and it is not known which"
        missing = next((index for index in inside if index not in by_index), None)
        if missing is not None:
            reason = f"holds action {missing}, which was left out"
        if reason:
            lost.append((f"{clip.clip_uid}_{inside[num_seen - 1]}", reason))
    return lost


def _usable_actions(clip: AnticipationClip) -> dict[int, ActionRecord]:
    by_index = dict(zip(clip.indices, clip.actions, strict=True))
    for index in clip.lost_indices:
        by_index.pop(index, None)
    return by_index


def _spans(clip: AnticipationClip, *, num_seen: int, num_coming: int, protocol: Protocol) -> list[list[int]]:
    """Return the indices of the actions of each window, the lost ones with them."""
    order = sorted({*clip.indices, *clip.lost_indices})
    number = num_anticipation_windows(len(order), num_seen=num_seen, num_coming=num_coming, protocol=protocol)
    return [order[first : first + num_seen + num_coming] for first in range(number)]


@dataclass(slots=True)
class _ClipRows:
    """What is read of one clip so far."""

    video_id: str = ""
    actions: dict[int, ActionRecord] = field(default_factory=dict)
    last: int = -1
    sorted: bool = True
    lost: set[int] = field(default_factory=set)
    in_order: bool = True


class AnticipationRows:
    """Puts the rows of one file together clip by clip, in whatever order they come.

    Attributes:
        num_actions: How many actions were added.
    """

    def __init__(self) -> None:
        self.num_actions = 0
        self._clips: dict[str, _ClipRows] = {}

    def place(self, row: Mapping[str, Any]) -> tuple[str, int]:
        """Return the clip and the index of a row.

        Raises:
            RowError: If they are missing or impossible, or there was such a row before.
        """
        clip_uid = checked_id("clip_uid", row.get("clip_uid"))
        index = int(checked_number("action_idx", row.get("action_idx"), least=0, most=MAX_INDEX, whole=True))
        clip = self._clips.get(clip_uid)
        if clip is None:
            clip = self._clips[clip_uid] = _ClipRows()
        elif index in clip.actions:
            raise RowError(f"action {index} of clip {clip_uid} is listed twice")
        return clip_uid, index

    def add(self, clip_uid: str, index: int, action: ActionRecord) -> None:
        """Add an action at its place.

        Raises:
            RowError: If other actions of the clip are in another video.
        """
        clip = self._clips[clip_uid]
        if not clip.actions:
            clip.video_id = action.video_id
        elif clip.video_id != action.video_id:
            raise RowError(f"clip {clip_uid} is of video {clip.video_id} in rows before, here of {action.video_id}")
        clip.sorted = clip.sorted and index > clip.last
        clip.last = index
        clip.actions[index] = action
        self.num_actions += 1

    def lose(self, row: Mapping[str, Any]) -> None:
        """Take note of a row that is left out, as far as its clip and its index can be told."""
        try:
            clip_uid = checked_id("clip_uid", row.get("clip_uid"))
        except RowError:
            return
        clip = self._clips.setdefault(clip_uid, _ClipRows())
        try:
            clip.lost.add(int(checked_number("action_idx", row.get("action_idx"), least=0, most=MAX_INDEX, whole=True)))
        except RowError:
            clip.in_order = False

    def clips(self, remarks: RowRemarks) -> list[AnticipationClip]:
        """Return the clips that have actions, in the order of the file; note those that were out of order."""
        found = []
        for clip_uid, clip in self._clips.items():
            if not clip.sorted:
                remarks.add("clips whose actions are not in the order of action_idx, sorted", clip_uid)
            if clip.lost or not clip.in_order:
                remarks.add("clips of whose actions some are left out, without the windows that hold them", clip_uid)
            if clip.actions:
                order = tuple(sorted(clip.actions))
                actions = tuple(clip.actions[index] for index in order)
                lost = tuple(sorted(clip.lost))
                found.append(AnticipationClip(clip_uid, clip.video_id, actions, order, lost, clip.in_order))
        return found
