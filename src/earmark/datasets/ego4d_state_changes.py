"""Ego4D's object state change classification and point of no return: records, read row by row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from earmark.datasets.annotation_files import (
    MAX_VIDEO_SECONDS,
    RowError,
    RowRemarks,
    checked_id,
    checked_number,
    checked_span,
    quoted,
)
from earmark.datasets.ego4d_manifest import MAX_FPS

__all__ = ["MIN_FRAMES", "StateChangeReader", "StateChangeRecord", "StateChangeSpan"]

MAX_FRAMES = int(MAX_VIDEO_SECONDS * MAX_FPS)  # of the longest video at the highest rate
MIN_FRAMES = 16  # as many are sampled of each clip
PNR_NAMES = ("parent_pnr_frame", "pnr_frame", "clip_pnr_frame")  # the first that is given is taken

Coordinates = Literal["parent", "clip"]


@dataclass(frozen=True, slots=True)
class StateChangeRecord:
    """One short span of a video, with or without a change of an object's state.

    Times and frames are those of the file that is read: of the whole video, or of the clip that is cut from it.

    Attributes:
        unique_id: Its name.
        video_id: The video, or the clip file, that it is in.
        start_seconds: Where it starts there.
        stop_seconds: Where it ends.
        start_frame: Its first frame, counted from 0 at the start of the file.
        stop_frame: The frame that it ends before.
        fps: Frames per second in which frames are counted.
        state_change: Whether a state changes; None where labels are held back.
        pnr_frame: Frame of the point of no return, counted as `start_frame`; None without a change.
        participant_id: Who wears the camera; empty where unknown.
    """

    unique_id: str
    video_id: str
    start_seconds: float
    stop_seconds: float
    start_frame: int
    stop_frame: int
    fps: float
    state_change: bool | None
    pnr_frame: int | None
    participant_id: str = ""

    @property
    def pnr_seconds(self) -> float | None:
        """Time of the point of no return in the file; None without a change."""
        return None if self.pnr_frame is None else self.start_seconds + (self.pnr_frame - self.start_frame) / self.fps


class StateChangeSpan(NamedTuple):
    """What a row says of where it is and of its labels, in the coordinates that were asked for."""

    unique_id: str
    start_seconds: float
    stop_seconds: float
    start_frame: int
    stop_frame: int
    state_change: bool | None
    pnr_frame: int | None


class StateChangeReader:
    """Reads the rows of one file.

    Args:
        coordinates: Whose times and frames are returned: those of the parent video, or of the clip file.
        labelled: Whether the file has labels.
        remarks: Gets what is unusual.
        min_frames: How many frames a clip must have at least.
    """

    def __init__(
        self, coordinates: Coordinates, *, labelled: bool, remarks: RowRemarks, min_frames: int = MIN_FRAMES
    ) -> None:
        self._coordinates = coordinates
        self._min_frames = min_frames
        self._labelled = labelled
        self._remarks = remarks
        self._seen: dict[tuple[str, int, int], tuple[bool | None, str]] = {}

    def span(self, row: Mapping[str, Any]) -> StateChangeSpan:
        """Return where a row is, and its labels.

        Raises:
            RowError: If a field is missing or impossible, or there are too few frames.
        """
        unique_id = checked_id("unique_id", row.get("unique_id"))
        start, stop = _seconds(row, f"{self._coordinates}_start_sec"), _seconds(row, f"{self._coordinates}_end_sec")
        seconds = checked_span("the clip", start, stop)
        first, last = self._frames(row, self._coordinates)
        if first >= last:
            raise RowError(f"the clip goes from frame {first} to frame {last}")
        if last - first < self._min_frames:
            raise RowError(f"the clip has {last - first} frames ({first} to {last}), fewer than {self._min_frames}")
        state_change, pnr_frame = None, None
        if self._labelled:
            state_change = row.get("state_change")
            if not isinstance(state_change, bool):
                raise RowError(f"state_change is {quoted(state_change)}, expected true or false")
            if state_change:
                pnr_frame = self._pnr_frame(row, unique_id)
            elif any(row.get(name) is not None for name in PNR_NAMES):
                self._remarks.add("a point of no return without a change, which is not read", unique_id)
        return StateChangeSpan(unique_id, *seconds, first, last, state_change, pnr_frame)

    def note(self, file_id: str, span: StateChangeSpan) -> None:
        """Take note of a row that is read: one span may be listed with a change and without."""
        key = file_id, span.start_frame, span.stop_frame
        state_change, unique_id = self._seen.setdefault(key, (span.state_change, span.unique_id))
        if state_change is not span.state_change:
            self._remarks.add(
                "the same span is listed with a change and without, both are read", f"{unique_id} and {span.unique_id}"
            )

    def _frames(self, row: Mapping[str, Any], coordinates: Coordinates) -> tuple[int, int]:
        return _frame(row, f"{coordinates}_start_frame"), _frame(row, f"{coordinates}_end_frame")

    def _pnr_frame(self, row: Mapping[str, Any], unique_id: str) -> int:
        """Return the point of no return in the coordinates asked for, wherever the row has it and however it counts."""
        places: dict[Coordinates, tuple[int, int]] = {}
        for coordinates in ("parent", "clip"):
            try:
                places[coordinates] = self._frames(row, coordinates)
            except RowError:  # some files have one kind alone; that asked for has been read before
                continue
        order: tuple[Coordinates, ...] = ("parent", "clip") if "parent" in places else ("clip",)
        name = next((name for name in PNR_NAMES if row.get(name) is not None), None)
        if name is None:
            raise RowError("parent_pnr_frame is None, and so is pnr_frame")
        frame = _frame(row, name)
        if name == "pnr_frame":
            self._remarks.add("no parent_pnr_frame, pnr_frame is taken", unique_id)
        if name == "clip_pnr_frame":
            order = ("clip",)
            self._remarks.add("no parent_pnr_frame, clip_pnr_frame is taken", unique_id)
        inside = [each for each in order if each in places and places[each][0] <= frame <= places[each][1]]
        if not inside:
            asked = next((each for each in order if each in places), self._coordinates)
            first, last = places.get(asked, self._frames(row, self._coordinates))
            raise RowError(f"the point of no return at frame {frame} is outside {(first, last)}")
        counted_in = inside[0]
        if counted_in == "clip" and name != "clip_pnr_frame":
            self._remarks.add(f"{name} counts in the clip file", unique_id)
        offset = frame - places[counted_in][0]  # of the span, whose first frame is known in both
        if name == "parent_pnr_frame" and "clip" in places and type(row.get("clip_pnr_frame")) is int:
            other = row["clip_pnr_frame"] - places["clip"][0]
            if abs(other - offset) > 1:
                self._remarks.add("parent_pnr_frame and clip_pnr_frame differ, the former is taken", unique_id)
        return places[self._coordinates][0] + offset


def _frame(row: Mapping[str, Any], name: str) -> int:
    return int(checked_number(name, row.get(name), least=0, most=MAX_FRAMES, whole=True))


def _seconds(row: Mapping[str, Any], name: str) -> float:
    return checked_number(name, row.get(name), least=0, most=MAX_VIDEO_SECONDS)
