"""The files that the original code cuts EPIC-KITCHENS into, as videos of their own: which part of which video each is.

``segments/P01_04_000070_000080.MP4`` is a video from second 70 to second 80;
``action_segments/P01_11_00000156_00000245.MP4`` is one action, from 00:00:01.56 to 00:00:02.45, named by the digits of
its two timestamps.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from earmark.datasets.annotation_files import MAX_VIDEO_SECONDS, RowError, parse_timestamp
from earmark.datasets.listing import media_named, reason_of
from earmark.datasets.records import VIDEO_SUFFIXES, ActionRecord

__all__ = ["CUTS", "Cut", "CutKind", "actions_in_cuts", "cuts_in", "parent_of"]

CutKind = Literal["segments", "action_segments"]
CUTS: tuple[CutKind, ...] = ("segments", "action_segments")

_SEGMENT = re.compile(r"(P\d{2,3}_\d{2,3})_(\d{6})_(\d{6})", re.ASCII)
_ACTION = re.compile(r"(P\d{2,3}_\d{2,3})_(\d{6}\d{1,3})_(\d{6}\d{1,3})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Cut:
    """A part of a video in a file of its own.

    Attributes:
        video_id: Name of the file without its suffix.
        path: The file.
        parent_id: The video that it is a part of.
        start_seconds: Where it begins there.
        stop_seconds: Where it ends there, as its name says.
    """

    video_id: str
    path: Path
    parent_id: str
    start_seconds: float
    stop_seconds: float


def parent_of(video_id: str) -> str:
    """Return the video that a cut is a part of, by its name; of any other video, itself.

    Example:
        >>> parent_of("P01_04_000070_000080"), parent_of("P01_11_00000156_00000245"), parent_of("P01_04")
        ('P01_04', 'P01_11', 'P01_04')
    """
    match = _SEGMENT.fullmatch(video_id) or _ACTION.fullmatch(video_id)
    return video_id if match is None else match[1]


def cuts_in(folder: Path, kind: CutKind) -> tuple[list[Cut], tuple[str, ...]]:
    """Return the cuts in a folder, by parent and start, and the files that are named otherwise, each with why.

    Nothing is there where the folder is not.
    """
    try:
        names = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return [], ()
    except OSError as error:
        return [], (f"{folder}: {reason_of(error)}, nothing below it is read",)
    cuts: dict[str, Cut] = {}
    problems = []
    for path in media_named(folder, names, VIDEO_SUFFIXES):
        cut = _cut(path, kind)
        if cut is None:
            example = "P01_04_000070_000080.MP4" if kind == "segments" else "P01_11_00000156_00000245.MP4"
            problems.append(f"{path}: not named as one of the {kind}, such as {example}")
        elif cut.video_id in cuts:
            problems.append(f"{path}: the same cut as {cuts[cut.video_id].path}, which is read")
        else:
            cuts[cut.video_id] = cut
    return sorted(cuts.values(), key=lambda cut: (cut.parent_id, cut.start_seconds, cut.video_id)), tuple(problems)


def actions_in_cuts(
    actions: Iterable[ActionRecord], cuts: Sequence[Cut], kind: CutKind
) -> tuple[list[ActionRecord], tuple[str, ...]]:
    """Return actions by the cuts that they lie in, and what is left out of them.

    In ``action_segments`` an action is the file that is named by its times. In ``segments`` it lies in the one that
    holds most of it; what lies beyond that segment's ends is left out. An action without such a file keeps the whole
    video as its own, which is then found to be missing.

    Args:
        actions: By the times of whole videos.
        cuts: Of one kind.
        kind: Which one.

    Returns:
        The actions, with the cut as their video and times in the cut, as many as before; and a line for each that is
        shortened.
    """
    if kind == "action_segments":
        return _actions_as_files(actions, cuts), ()
    by_parent: dict[str, list[Cut]] = {}
    for cut in cuts:
        by_parent.setdefault(cut.parent_id, []).append(cut)
    return _in_segments(actions, by_parent)


def _cut(path: Path, kind: CutKind) -> Cut | None:
    match = (_SEGMENT if kind == "segments" else _ACTION).fullmatch(path.stem)
    if match is None:
        return None
    parent, *texts = match.groups()
    try:
        start, stop = (float(text) if kind == "segments" else _seconds(text) for text in texts)
    except RowError:  # a minute of more than 59, say
        return None
    return Cut(path.stem, path, parent, start, stop) if start < stop <= MAX_VIDEO_SECONDS else None


def _seconds(digits: str) -> float:
    """Return the seconds of a timestamp without its punctuation, HHMMSS and decimals."""
    return parse_timestamp(f"{digits[:2]}:{digits[2:4]}:{digits[4:6]}.{digits[6:]}")


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)


def _actions_as_files(actions: Iterable[ActionRecord], cuts: Sequence[Cut]) -> list[ActionRecord]:
    by_times = {(cut.parent_id, _milliseconds(cut.start_seconds), _milliseconds(cut.stop_seconds)): cut for cut in cuts}
    placed = []
    for action in actions:
        times = _milliseconds(action.start_seconds), _milliseconds(action.stop_seconds)
        cut = by_times.get((action.video_id, *times))
        if cut is not None:
            length = action.stop_seconds - action.start_seconds
            narration = _narration_in(cut, action)
            action = replace(
                action, video_id=cut.video_id, start_seconds=0.0, stop_seconds=length, narration_seconds=narration
            )
        placed.append(action)
    return placed


def _narration_in(cut: Cut, action: ActionRecord) -> float | None:
    """Return when the narrator spoke in the time of the cut that the action lies in; None if that is not in it."""
    narration = action.narration_seconds
    if narration is None or not cut.start_seconds <= narration <= cut.stop_seconds:
        return None
    return narration - cut.start_seconds


def _in_segments(
    actions: Iterable[ActionRecord], by_parent: Mapping[str, Sequence[Cut]]
) -> tuple[list[ActionRecord], tuple[str, ...]]:
    placed, shortened = [], []
    for action in actions:
        cuts = by_parent.get(action.video_id, ())
        spans = [(max(action.start_seconds, c.start_seconds), min(action.stop_seconds, c.stop_seconds)) for c in cuts]
        best = max(range(len(spans)), key=lambda i: spans[i][1] - spans[i][0], default=None)
        if best is None or spans[best][1] <= spans[best][0]:
            placed.append(action)
            continue
        start, stop = spans[best]
        cut = cuts[best]
        if (start, stop) != (action.start_seconds, action.stop_seconds):
            shortened.append(
                f"{action.action_id}: only {start:.2f} to {stop:.2f} s of {action.start_seconds:.2f} to "
                f"{action.stop_seconds:.2f} s lie in {cut.video_id}, the rest is not read"
            )
        offset = cut.start_seconds
        placed.append(
            replace(
                action,
                video_id=cut.video_id,
                start_seconds=start - offset,
                stop_seconds=stop - offset,
                narration_seconds=_narration_in(cut, action),
            )
        )
    return placed, tuple(shortened)
