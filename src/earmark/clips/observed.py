"""Clips of what is seen before an action: the data of anticipation.

Path of a sample: as `earmark.clips.action_clips.ActionClips`, but the clips end a fixed time before the action starts,
and nothing later is read: no picture, and no sound.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from earmark.clips.action_clips import ActionClips
from earmark.clips.sampling import uniform_draw
from earmark.clips.stored_clips import ClipWindow

if TYPE_CHECKING:
    from earmark.clips.store import PreparedStore
    from earmark.datasets.records import ActionRecord

__all__ = ["ObservedClips"]

_ROUNDING = 1e-6  # seconds, of times that should be equal


class ObservedClips(ActionClips):
    """Clips of what was observed until some time before each action.

    The last clip ends ``ahead_seconds`` before the action, the first begins ``observed_seconds`` before that, and the
    others lie evenly between; one clip is the last. Where the video begins later, the first begins there. Sound ends
    where its clip ends, and is silent where it reaches back beyond the recording.

    Args:
        store: Prepared videos.
        actions: What is to be anticipated.
        ahead_seconds: From the end of what is observed to the start of the action.
        observed_seconds: Length of what is observed; at least that of a clip.
        options: As those of `ActionClips`: clip_seconds, clip_fps, num_clips, random, audio_seconds, pictures.

    Attributes:
        actions: The actions whose observation holds a clip, in the order given; times are those of what is observed.
        left_out: (action_id, reason) of the others.
        unobservable: Those of the others of which the video, which is there, shows less than a clip in time.

    Raises:
        ValueError: If a length is negative or shorter than a clip, no action can be observed, or as `ActionClips`.
    """

    def __init__(
        self,
        store: "PreparedStore",
        actions: Sequence["ActionRecord"],
        *,
        ahead_seconds: float = 1.0,
        observed_seconds: float = 2.0,
        **options: Any,
    ) -> None:
        clip_seconds = float(options.get("clip_seconds", 0.5))
        if ahead_seconds < 0 or observed_seconds < clip_seconds - _ROUNDING:
            raise ValueError(
                f"need a time ahead >= 0 s and at least {clip_seconds:g} s observed, the length of a clip; got "
                f"{ahead_seconds:g} s and {observed_seconds:g} s"
            )
        self.ahead_seconds, self.observed_seconds = ahead_seconds, observed_seconds
        self.unobservable: list[ActionRecord] = []
        early, kept = [], []
        for action in actions:
            stop = action.start_seconds - ahead_seconds
            if stop >= clip_seconds - _ROUNDING:
                start = max(0.0, stop - observed_seconds)
                kept.append(dataclasses.replace(action, start_seconds=start, stop_seconds=stop))
            else:
                where = f"starts at {action.start_seconds:.2f} s"
                early.append((action, f"{where}: no clip of {clip_seconds:g} s is {ahead_seconds:g} s before"))
        if not kept:
            raise ValueError(
                f"{store.root}: none of {len(actions)} actions can be observed {ahead_seconds:g} s before it starts"
            )
        super().__init__(store, kept, **options)
        for action, why in early:
            refused = self._unusable(action)
            if not refused:
                self.unobservable.append(action)
            self.left_out.append((action.action_id, refused or why))

    def start_of(self, index: int, seed: int) -> float:
        """Return where a visit's clip starts, in seconds; see `ActionClips.start_of`."""
        action = self.actions[self.action_of_item[index]]
        video = self.store.videos[action.video_id]
        last = min(action.stop_seconds, video.duration_seconds) - self.clip_seconds
        first = min(action.start_seconds, last)
        if self.random:
            back = uniform_draw(seed, stream=0x4F4253)
        else:  # the last clip of one is the one that ends last
            number = index % self.num_clips
            back = 0.0 if self.num_clips == 1 else 1 - number / (self.num_clips - 1)
        return float(max(0.0, last - back * (last - first)))

    def cache_key(self) -> dict[str, Any]:
        """Return what the clips depend on, as plain data; the places of what is observed are among it."""
        return {**super().cache_key(), "class": "ObservedClips"}

    def _window(self, index: int, seed: int) -> ClipWindow:
        window = super()._window(index, seed)
        sound_start = self.start_of(index, seed) + self.clip_seconds - (self.audio_seconds or 0.0)
        return dataclasses.replace(window, sound_start_seconds=sound_start)
