"""The map-style data set of annotated actions.

Path of a sample: prepared store --clips (+ sampling)--> batch --transforms--> model inputs.

Keys are those of `earmark.clips.dataset`. A batch has ``video``, uint8 (B, T, H, W, 3), unless there are no pictures,
``audio``, int16 (B, S), only if asked for, ``index``, ``seed`` and ``video_size`` as there, and ``label_<column>``,
int64 (B,), for each label column.
"""

import copy
import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from earmark.clips.sampling import uniform_draw
from earmark.clips.store import PreparedStore
from earmark.clips.stored_clips import ClipWindow, StoredClips, num_frames_of
from earmark.preparation.catalog import SparseStoreError
from earmark.wording import counted

if TYPE_CHECKING:
    from earmark.datasets.records import ActionRecord

__all__ = ["ActionClips"]


class ActionClips(StoredClips):
    """Labelled clips of annotated actions: the data of the linear probe and of the tasks.

    Every action gives `num_clips` items. Their places are spread evenly over the action (one clip: its centre), or
    drawn at each visit with `random`, as in the original's probe. An action shorter than a clip gives the clip
    around its centre; clips are moved inside the video.

    Args:
        store: Prepared videos.
        actions: What was annotated.
        clip_seconds: Length of a clip.
        clip_fps: Its frames per second; the store's rate must be a multiple of it.
        num_clips: Clips per action.
        random: Draw the clip's place from the visit's seed.
        audio_seconds: Also return sound of this length, centred on the clip; None for none.
        pictures: Read the pictures; without them a sample is its sound alone.

    Attributes:
        actions: The usable actions, in the order given.
        left_out: (action_id, reason) of the others.
        action_of_item: int64 (num_items,), which action an item shows.
        labels: For each label column, int64 (num_actions,).
        num_frames: Frames of a clip.

    Raises:
        ValueError: If `clip_fps` does not divide the store's frame rate, no action is usable, the label columns differ
            between actions, or the store keeps nothing but what is around moments.
    """

    def __init__(
        self,
        store: PreparedStore,
        actions: Sequence["ActionRecord"],
        *,
        clip_seconds: float = 0.5,
        clip_fps: float = 16.0,
        num_clips: int = 1,
        random: bool = False,
        audio_seconds: float | None = None,
        pictures: bool = True,
    ) -> None:
        if not pictures and audio_seconds is None:
            raise ValueError("clips need pictures, sound (audio_seconds) or both")
        if store.around_seconds is not None:
            raise SparseStoreError(
                f"{store.root}: holds only {store.around_seconds:g} s on each side of each moment; clips of actions "
                "need the whole videos"
            )
        super().__init__()
        self.store = store
        self.clip_seconds, self.clip_fps = clip_seconds, clip_fps
        self.num_clips, self.random = num_clips, random
        self.clip_names = ("video",) if pictures else ()
        self.audio_seconds = audio_seconds
        self.num_frames = num_frames_of(clip_seconds, clip_fps, store)
        self.num_samples = None if audio_seconds is None else round(audio_seconds * store.sample_rate)
        self.left_out: list[tuple[str, str]] = []
        self.actions: list[ActionRecord] = []
        for action in actions:
            reason = self._unusable(action)
            if reason:
                self.left_out.append((action.action_id, reason))
            else:
                self.actions.append(action)
        if not self.actions:
            first = f"; the first: {self.left_out[0][0]}: {self.left_out[0][1]}" if self.left_out else ""
            raise ValueError(f"{store.root}: {counted(len(actions), 'action')}, none is usable{first}")
        columns = sorted(self.actions[0].labels)
        if any(sorted(action.labels) != columns for action in self.actions):
            raise ValueError("actions have different label columns")
        self.labels = {
            column: np.array([action.labels[column] for action in self.actions], np.int64) for column in columns
        }
        self.action_of_item = np.repeat(np.arange(len(self.actions)), num_clips)

    def _unusable(self, action: "ActionRecord") -> str:
        video = self.store.videos.get(action.video_id)
        if video is None:
            return f"video {action.video_id!r} is not in the store"
        if self.audio_seconds is not None and not video.has_audio:
            return f"video {action.video_id!r} has no sound"
        if action.start_seconds >= video.duration_seconds:
            return f"starts at {action.start_seconds:.2f} s, the video ends at {video.duration_seconds:.2f} s"
        if video.duration_seconds < self.clip_seconds - 0.5 / self.clip_fps:
            return f"video {action.video_id!r} lasts {video.duration_seconds:.2f} s, a clip {self.clip_seconds:g} s"
        return ""

    def __len__(self) -> int:
        return len(self.action_of_item)

    def cache_key(self) -> dict[str, Any]:
        """Return what the clips depend on, as plain data: equal keys and equal seeds mean equal clips.

        Labels are not among it: the same places of the same videos are the same clips, whatever they are called.
        """
        places = [(action.video_id, action.start_seconds, action.stop_seconds) for action in self.actions]
        return {
            "class": "ActionClips",
            "store": self.store.fingerprint,
            "actions": hashlib.sha256(json.dumps(places).encode()).hexdigest(),
            "clip_seconds": self.clip_seconds,
            "clip_fps": self.clip_fps,
            "num_clips": self.num_clips,
            "random": self.random,
            "audio_seconds": self.audio_seconds,
            **({} if self.clip_names else {"pictures": False}),
        }

    def only(self, modality: Literal["video", "audio"]) -> Self:
        """Return the same clips of the same actions, of which only the pictures or only the sound are read.

        Raises:
            ValueError: If they have none.
        """
        if (self.audio_seconds is None) if modality == "audio" else not self.clip_names:
            raise ValueError(f"these clips have no {modality}")
        clips = copy.copy(self)
        if modality == "audio":
            clips.clip_names = ()
        else:
            clips.audio_seconds = clips.num_samples = None
        return clips

    def start_of(self, index: int, seed: int) -> float:
        """Return where a visit's clip starts, in seconds.

        Args:
            index: Which item.
            seed: Randomness of the visit; used with `random` only.
        """
        action = self.actions[self.action_of_item[index]]
        video = self.store.videos[action.video_id]
        stop_seconds = min(action.stop_seconds, video.duration_seconds)
        room = stop_seconds - action.start_seconds - self.clip_seconds
        if room <= 0:
            start = (action.start_seconds + stop_seconds - self.clip_seconds) / 2
        elif self.random:
            start = action.start_seconds + room * uniform_draw(seed, stream=0x414354)
        else:
            start = action.start_seconds + room * (index % self.num_clips + 0.5) / self.num_clips
        return float(min(max(start, 0.0), max(0.0, video.duration_seconds - self.clip_seconds)))

    def _window(self, index: int, seed: int) -> ClipWindow:
        video_id = self.actions[self.action_of_item[index]].video_id
        start = self.start_of(index, seed)
        last = self.store.videos[video_id].duration_seconds - 1 / self.store.fps
        times = np.minimum(start + np.arange(self.num_frames) / self.clip_fps, last)  # a clip of rounded length
        return ClipWindow(video_id, times, start + (self.clip_seconds - (self.audio_seconds or 0.0)) / 2)

    def _videos_of_items(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        return [action.video_id for action in self.actions], self.action_of_item

    def _labels(self, index: int, seed: int) -> dict[str, int]:
        number = self.action_of_item[index]
        return {f"label_{column}": int(labels[number]) for column, labels in self.labels.items()}
