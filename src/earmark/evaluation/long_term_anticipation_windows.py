"""Windows of long-term anticipation: some actions that are seen, as clips, and the coming ones, as labels.

Path of a sample: annotated clips --windows--> clips of each seen action --features, once for each action--> a window's
features are those of its actions.

Letters: N windows, I actions seen, Z actions to come.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from earmark.clips.action_clips import ActionClips
from earmark.datasets import anticipation_windows, lost_anticipation_windows
from earmark.evaluation.base import ClipOptions, RecordCount
from earmark.wording import counted

if TYPE_CHECKING:
    from earmark.clips.store import PreparedStore
    from earmark.datasets import ActionRecord, AnticipationClip, AnticipationWindow

__all__ = ["COLUMNS", "Windows", "action_runs", "cut_windows"]

COLUMNS = ("verb", "noun")

Classes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows, whose seen actions are told by their place among the actions that there are clips of.

    Attributes:
        window_ids: ``<clip_uid>_<index of the last visible action>``.
        seen: Places of the seen actions, in order of time, shape ``(N, I)``.
        coming: Class ids of the coming actions for ``verb`` and ``noun``, shape ``(N, Z)``; Z is 0 where they are held
            back.
        last: Class ids of the last seen action, shape ``(N,)``; empty where labels are held back.
        videos: Video of each window.
    """

    window_ids: tuple[str, ...]
    seen: Classes
    coming: dict[str, Classes]
    last: dict[str, Classes]
    videos: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit together.

        Raises:
            ValueError: Naming them.
        """
        number = len(self.window_ids)
        if self.seen.ndim != 2 or len(self.seen) != number or len(self.videos) != number:
            raise ValueError(
                f"need the seen actions and the video of each of {number} windows, got {self.seen.shape} and "
                f"{len(self.videos)}"
            )
        shapes = {column: labels.shape for column, labels in self.coming.items()}
        if any(len(shape) != 2 or shape[0] != number for shape in shapes.values()) or len(set(shapes.values())) > 1:
            raise ValueError(f"need labels (N, Z) of the actions that come after {number} windows, got {shapes}")
        if any(labels.shape != (number,) for labels in self.last.values()):
            raise ValueError(f"need one label of the last action of each of {number} windows")

    def __len__(self) -> int:
        return len(self.window_ids)


def cut_windows(
    store: "PreparedStore",
    annotated: Sequence["AnticipationClip"],
    *,
    split: str,
    clips: ClipOptions,
    num_seen: int,
    num_coming: int,
    labelled: bool = True,
    protocol: Literal["full", "published"] = "full",
    parent_of: Callable[[str], str] = str,
) -> tuple[ActionClips, Windows, RecordCount]:
    """Cut the clips of all actions that some window sees, each action once though windows share it.

    Args:
        store: The prepared videos.
        annotated: Clips with their actions.
        split: What they are of, for the count.
        clips: Which clips of each action.
        num_seen: I.
        num_coming: Z; 0 where coming actions are held back.
        labelled: Whether the actions have labels.
        protocol: ``published`` for one window of each clip fewer.
        parent_of: Gives the video that a file of the annotations is a part of; windows of one video are not
            independent.

    Returns:
        The clips, the windows all of whose seen actions can be read, and how many there are of all that the
        annotations hold: each other one with the reason.

    Raises:
        ValueError: If no window is left, naming the first and its reason.
    """
    windows: list[AnticipationWindow] = []
    left_out: list[tuple[str, str]] = []
    for clip in annotated:
        numbers = {"num_seen": num_seen, "num_coming": num_coming}
        windows += anticipation_windows(clip, **numbers, protocol=protocol)
        left_out += lost_anticipation_windows(clip, **numbers, protocol=protocol)
    if not windows:
        longest = max((clip.num_listed for clip in annotated), default=0)
        raise ValueError(
            f"{split}: none of {counted(len(annotated), 'annotated clip')} has a window of {num_seen} seen and "
            f"{num_coming} coming actions that are all listed; the longest has {counted(longest, 'action')}"
        )
    seen = {action.action_id: action for window in windows for action in window.seen}
    cut = ActionClips(
        store,
        list(seen.values()),
        clip_seconds=clips.clip_seconds,
        clip_fps=clips.clip_fps,
        num_clips=clips.num_clips,
        random=clips.random,
        audio_seconds=clips.audio_seconds if "audio" in clips.modalities else None,
        pictures="video" in clips.modalities,
    )
    place = {action.action_id: number for number, action in enumerate(cut.actions)}
    reason = dict(cut.left_out)
    kept = []
    for window in windows:
        unreadable = next((action.action_id for action in window.seen if action.action_id not in place), None)
        if unreadable is None:
            kept.append(window)
        else:
            left_out.append((window.window_id, f"action {unreadable}: {reason[unreadable]}"))
    if not kept:
        raise ValueError(f"{split}: none of {counted(len(windows), 'window')} is left; {': '.join(left_out[0])}")
    places = np.array([[place[action.action_id] for action in window.seen] for window in kept], np.int64)
    coming, last = {}, {}
    if labelled:
        for column in COLUMNS:
            labels = [[action.labels[column] for action in window.coming] for window in kept]
            coming[column] = np.array(labels, np.int64).reshape(len(kept), num_coming)
            last[column] = np.array([window.seen[-1].labels[column] for window in kept], np.int64)
    found = Windows(
        window_ids=tuple(window.window_id for window in kept),
        seen=places,
        coming=coming,
        last=last,
        videos=tuple(parent_of(window.seen[0].video_id) for window in kept),
    )
    return cut, found, RecordCount(split, len(found), tuple(left_out))


def action_runs(annotated: Collection["AnticipationClip"]) -> tuple[Classes, ...]:
    """Return verb and noun of the actions that follow each other, each run of shape ``(n, 2)``.

    A run ends where an action is lost, and where it is not known which was, each action is a run. No video needs to be
    there.

    Args:
        annotated: Clips with their labelled actions.
    """
    runs = []
    for clip in annotated:
        by_index = dict(zip(clip.indices, clip.actions, strict=True))
        actions: list[ActionRecord] = []
        for index in sorted({*clip.indices, *clip.lost_indices}):
            if index in clip.lost_indices or not clip.in_order:
                runs.append(_labels(actions))
                actions = []
            if index in by_index and index not in clip.lost_indices:
                actions.append(by_index[index])
        runs.append(_labels(actions))
    return tuple(run for run in runs if len(run))


def _labels(actions: Sequence["ActionRecord"]) -> Classes:
    return np.array([[action.labels[column] for column in COLUMNS] for action in actions], np.int64).reshape(-1, 2)
