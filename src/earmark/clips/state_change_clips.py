"""Clips of Ego4D's object state changes, through 16 frames or through 16 short clips.

Path of a sample: parts of annotated clips (`earmark.clips.state_change_parts`) --here--> frames, sound, labels.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from earmark.clips.action_clips import ActionClips
from earmark.clips.state_change_parts import NUM_KEYFRAMES, PART_SECONDS, ChangePart
from earmark.clips.store import PreparedStore
from earmark.clips.stored_clips import ClipWindow
from earmark.datasets.records import ActionRecord

__all__ = ["StateChangeClips", "View"]

View = Literal["spread", "windows"]
TOLERANCE_SECONDS = 1.0  # that a clip may reach past the end of its file, which containers round


class StateChangeClips(ActionClips):
    """What is seen of parts of Ego4D's clips at 16 places, in the order of time.

    As ``spread`` a part is one item: a clip of 16 frames, one at each place, however long the part is. As ``windows``
    it is 16 items (as many as the parts have places): a clip of ``clip_seconds`` around each place, as short and as
    dense as those of pretraining. Frames are the stored ones nearest to these times, and places are moved to where
    these really are; of windows, to the middle of what they show. With ``as_annotated`` places stay where they were
    given, as the published protocol counts.

    Args:
        store: Prepared videos.
        parts: What is to be seen; several of one annotated clip are samples of their own.
        view: See above.
        clip_seconds: Length of a window.
        clip_fps: Its frames per second; the store's rate must be a multiple of it.
        audio_seconds: Also return sound of this length, centred on the item; None for none.
        pictures: Read the pictures; without them a sample is its sound alone.
        as_annotated: See above.

    Attributes:
        parts: Those that can be seen, in the order given, with the places that are really shown.
        labels: ``state_change`` 0 or 1, ``keyframe`` the place of the point of no return, -1 without one; empty where a
            part's labels are held back.
        actions, left_out, action_of_item, num_frames: As those of `ActionClips`.

    Raises:
        ValueError: If the store has too few frames per second to show 16 different ones, or as `ActionClips`.

    Example:
        >>> parts = [whole_clip(record) for record in Ego4D("DIR").state_changes("train")]  # doctest: +SKIP
        >>> StateChangeClips(PreparedStore("STORE"), parts)[(0, 0)]["video"].shape  # doctest: +SKIP
        (16, 128, 228, 3)
    """

    def __init__(
        self,
        store: PreparedStore,
        parts: Sequence[ChangePart],
        *,
        view: View = "spread",
        clip_seconds: float = 0.5,
        clip_fps: float = 16.0,
        audio_seconds: float | None = None,
        pictures: bool = True,
        as_annotated: bool = False,
    ) -> None:
        if view not in ("spread", "windows"):
            raise ValueError(f"view must be spread or windows, got {view!r}")
        if view == "spread" and store.fps * PART_SECONDS[0] < NUM_KEYFRAMES:
            raise ValueError(
                f"{store.root}: holds {store.fps:g} frames per second, too few for {NUM_KEYFRAMES} different ones in "
                f"{PART_SECONDS[0]:g} s"
            )
        counts = {len(part.place_seconds) for part in parts}
        if len(counts) > 1:
            raise ValueError(f"every part needs the same number of places, got {sorted(counts)}")
        num_places = max(counts, default=NUM_KEYFRAMES)
        self.view = view
        self._part_of: dict[str, ChangePart] = {}
        actions = []
        for number, part in enumerate(parts):
            name = f"{number}"  # several parts have the clip's name
            self._part_of[name] = part
            change, labels = part.record.state_change, {}
            if change is not None:
                labels = {"state_change": int(change), "keyframe": part.keyframe}
            span = part.start_seconds, part.stop_seconds
            actions.append(ActionRecord(name, part.record.video_id, *span, part.record.participant_id, labels))
        spread = view == "spread"
        super().__init__(
            store,
            actions,
            clip_seconds=num_places / store.fps if spread else clip_seconds,
            clip_fps=store.fps if spread else clip_fps,
            num_clips=1 if spread else num_places,
            audio_seconds=audio_seconds,
            pictures=pictures,
        )
        given = [self._part_of[action.action_id] for action in self.actions]
        self.parts = given if as_annotated else [self._as_shown(part) for part in given]
        self.actions = [
            dataclasses.replace(action, action_id=part.record.unique_id)
            for action, part in zip(self.actions, self.parts, strict=True)
        ]
        self.left_out = [(self._part_of[name].record.unique_id, reason) for name, reason in self.left_out]
        if self.labels:
            self.labels["keyframe"] = np.array([part.keyframe for part in self.parts], np.int64)
        del self._part_of

    def _unusable(self, action: ActionRecord) -> str:
        reason = super()._unusable(action)
        if reason:
            return reason
        duration = self.store.videos[action.video_id].duration_seconds
        part = self._part_of[action.action_id]
        if part.record.stop_seconds > duration + TOLERANCE_SECONDS:
            return f"ends at {part.record.stop_seconds:.2f} s, the video at {duration:.2f} s"
        return ""

    def _as_shown(self, part: ChangePart) -> ChangePart:
        """Return a part with its places where what is shown of them really is."""
        duration = self.store.videos[part.record.video_id].duration_seconds
        if self.view == "spread":
            rate, last = self.store.fps, duration - 1 / self.store.fps
            shown = [min(round(time * rate) / rate, last) for time in part.place_seconds]
        else:
            middle = self.clip_seconds / 2
            shown = [min(max(time, middle), max(duration - middle, middle)) for time in part.place_seconds]
        return dataclasses.replace(part, place_seconds=tuple(shown))

    def start_of(self, index: int, seed: int) -> float:
        """Return where an item starts, in seconds: its window, or its part."""
        part = self.parts[self.action_of_item[index]]
        if self.view == "spread":
            return float(part.place_seconds[0])
        return float(part.place_seconds[index % self.num_clips] - self.clip_seconds / 2)

    def cache_key(self) -> dict[str, Any]:
        """Return what the clips depend on, as plain data; the times of all places are among it."""
        places = json.dumps([part.place_seconds for part in self.parts])
        return {
            **super().cache_key(),
            "class": "StateChangeClips",
            "view": self.view,
            "places": hashlib.sha256(places.encode()).hexdigest(),
        }

    def _window(self, index: int, seed: int) -> ClipWindow:
        if self.view == "windows":
            return super()._window(index, seed)
        part = self.parts[self.action_of_item[index]]
        middle = (part.start_seconds + part.stop_seconds) / 2
        last = self.store.videos[part.record.video_id].duration_seconds - 1 / self.store.fps
        times = np.minimum(part.place_seconds, last)
        return ClipWindow(part.record.video_id, times, middle - (self.audio_seconds or 0.0) / 2)
