"""Both clips and the sound of chosen moments, each moment once: the data of tasks that are about moments.

Path of a sample: store, its moments --choice by distance and by seed--> clips before and after, sound --> batch.
"""

import copy
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from earmark.clips.store import PreparedStore
from earmark.clips.stored_clips import ClipWindow, StoredClips, num_frames_of
from earmark.preparation.catalog import SparseStoreError
from earmark.wording import counted

if TYPE_CHECKING:
    from earmark.datasets.records import ActionRecord

__all__ = ["MomentPairs"]


class MomentPairs(StoredClips):
    """The clip before, the clip after and the sound of chosen moments of one split.

    A moment is usable where both clips lie in the video, as in `earmark.clips.dataset.MomentClips`: the clip before it
    ends ``gap_seconds`` before it, the clip after it starts as long after it, and the sound is centred on it. Of usable
    moments of one video, those less than ``min_distance_seconds`` after the last one that was kept are left out: their
    clips would overlap, and near-duplicates can't be told apart. Of the rest, at most ``max_moments`` are drawn.

    Items 2 i and 2 i + 1 are the clips before and after moment i; of the sound alone (``only("audio")``), item i is
    moment i. A sample has ``video`` and, where asked for, ``audio``.

    Args:
        store: Prepared videos.
        split: Only videos of this split.
        clip_seconds: Length of a clip.
        clip_fps: Its frames per second; the store's rate must be a multiple of it.
        gap_seconds: Time between the moment and each clip.
        audio_seconds: Length of the sound; None for none.
        min_distance_seconds: Least time between two moments of one video.
        max_moments: How many are drawn at most; None for all.
        seed: Of the draw.
        actions: Annotated actions of the split, whose labels are those of the moments that they cover, of several the
            shortest one's.

    Attributes:
        video_ids: Video of each moment, in the order of their names.
        times_seconds: float64 (N,), time of each, ascending within a video.
        labels: For each label column int64 (N,), -1 where no annotated action covers the moment; empty without actions.
        left_out: What was left out, (name, reason): moments by video and time, and videos without any.
        action_of_item: int64 (num_items,), which moment an item is of.
        num_frames: Frames of a clip.
        num_samples: Samples of sound; None for none.

    Raises:
        ValueError: If a length is not positive, `clip_fps` does not divide the store's frame rate, no moment is usable,
            or the store keeps less around its moments (``around_seconds``) than is read.

    Example:
        >>> clips = MomentPairs(PreparedStore("data/prepared/kitchen"), split="validation")  # doctest: +SKIP
        >>> clips[(0, 0)]["video"].shape, clips.times_seconds[:2]  # doctest: +SKIP
        ((8, 128, 228, 3), array([3.21, 5.84]))
    """

    def __init__(
        self,
        store: PreparedStore,
        *,
        split: str,
        clip_seconds: float = 0.5,
        clip_fps: float = 16.0,
        gap_seconds: float = 0.1,
        audio_seconds: float | None = 2.0,
        min_distance_seconds: float = 1.0,
        max_moments: int | None = None,
        seed: int = 0,
        actions: Sequence["ActionRecord"] = (),
    ) -> None:
        super().__init__()
        self.store, self.clip_names = store, ("video",)
        self.clip_seconds, self.clip_fps = clip_seconds, clip_fps
        self.gap_seconds, self.audio_seconds = gap_seconds, audio_seconds
        self.num_frames = num_frames_of(clip_seconds, clip_fps, store)
        self.num_samples = None if audio_seconds is None else round(audio_seconds * store.sample_rate)
        if gap_seconds < 0 or self.num_samples == 0 or (max_moments is not None and max_moments < 1):
            raise ValueError(
                f"need a gap >= 0 s, some sound and at least one moment, got {gap_seconds} s, {audio_seconds} s and "
                f"{max_moments}"
            )
        self._require_kept()
        self.left_out: list[tuple[str, str]] = []
        self.video_ids, self.times_seconds = self._chosen(split, min_distance_seconds, max_moments, seed)
        if not self.video_ids:
            in_split = sum(video.split == split for video in store.videos.values())
            raise ValueError(
                f"{store.root}: no usable moment of interaction in {counted(in_split, 'video')} of the split {split}"
            )
        self.labels = _labels_at(self.video_ids, self.times_seconds, actions)
        self.action_of_item = np.repeat(np.arange(len(self.video_ids)), 2)

    def _require_kept(self) -> None:
        kept, margin = self.store.around_seconds, self.gap_seconds + self.clip_seconds
        needed = max(margin, (self.audio_seconds or 0.0) / 2)
        if kept is not None and kept < needed - 1e-9:
            raise SparseStoreError(
                f"{self.store.root}: holds only {kept:g} s on each side of each moment, {needed:g} s are read",
                needed_seconds=needed,
            )

    def _chosen(
        self, split: str, min_distance_seconds: float, max_moments: int | None, seed: int
    ) -> tuple[list[str], npt.NDArray[np.float64]]:
        """Return video and time of the chosen moments, and note what was left out and why."""
        margin = self.gap_seconds + self.clip_seconds
        found: list[tuple[str, float]] = []
        for video_id in sorted(self.store.videos):
            video = self.store.videos[video_id]
            if video.split != split:
                continue
            last, before = -np.inf, len(found)
            for time in self.store.moments[video_id].tolist():
                if not margin <= time <= video.duration_seconds - margin:
                    reason = f"nearer than {margin:g} s to an end of the video"
                elif time < last + min_distance_seconds - 1e-9:
                    reason = f"less than {min_distance_seconds:g} s after the moment before it"
                else:
                    found.append((video_id, time))
                    last = time
                    continue
                self.left_out.append((f"{video_id} at {time:.3f} s", reason))
            if len(found) == before:
                self.left_out.append((video_id, "has no usable moment" if video.has_audio else "has no sound"))
        if max_moments is not None and len(found) > max_moments:
            draw = np.random.default_rng([seed, zlib.crc32(b"moments")])
            drawn = set(draw.choice(len(found), max_moments, replace=False).tolist())
            self.left_out += [
                (f"{video_id} at {time:.3f} s", f"not among the {max_moments:,} that were drawn")
                for number, (video_id, time) in enumerate(found)
                if number not in drawn
            ]
            found = [moment for number, moment in enumerate(found) if number in drawn]
        return [video_id for video_id, _ in found], np.array([time for _, time in found], np.float64)

    def __len__(self) -> int:
        return len(self.action_of_item)

    def only(self, modality: Literal["video", "audio"]) -> Self:
        """Return the same moments, of which only the pictures or only the sound are read.

        Raises:
            ValueError: If they have none.
        """
        clips = copy.copy(self)
        clips.__dict__.pop("_picture_sizes", None)  # of other items
        if modality == "video":
            clips.audio_seconds = clips.num_samples = None
            return clips
        if self.num_samples is None:
            raise ValueError("these clips have no audio")
        clips.clip_names, clips.action_of_item = (), np.arange(len(self.video_ids))
        return clips

    def cache_key(self) -> dict[str, Any]:
        """Return what the clips depend on, as plain data: equal keys mean equal clips."""
        places = list(zip(self.video_ids, self.times_seconds.tolist(), strict=True))
        return {
            "class": "MomentPairs",
            "store": self.store.fingerprint,
            "moments": hashlib.sha256(json.dumps(places).encode()).hexdigest(),
            "clip_seconds": self.clip_seconds,
            "clip_fps": self.clip_fps,
            "gap_seconds": self.gap_seconds,
            "audio_seconds": self.audio_seconds,
            **({} if self.clip_names else {"pictures": False}),
        }

    def times_of(self, moment: int) -> npt.NDArray[np.float64]:
        """Return the times of the frames of both clips of a moment, (2, T) in seconds.

        Args:
            moment: Its number.
        """
        time, steps = float(self.times_seconds[moment]), np.arange(self.num_frames) / self.clip_fps
        return np.stack([time - self.gap_seconds - self.clip_seconds + steps, time + self.gap_seconds + steps])

    def _window(self, index: int, seed: int) -> ClipWindow:
        moment = int(self.action_of_item[index])
        time = float(self.times_seconds[moment])
        video_id = self.video_ids[moment]
        times = self.times_of(moment)[index % 2] if self.clip_names else np.zeros(0)
        # a clip of rounded length, as in `ActionClips`
        times = np.minimum(times, self.store.videos[video_id].duration_seconds - 1 / self.store.fps)
        return ClipWindow(video_id, times, time - (self.audio_seconds or 0.0) / 2)

    def describe(self, index: int, seed: int) -> str:
        """Name a visit by video and time of its moment."""
        moment = int(self.action_of_item[index])
        return f"{self.video_ids[moment]} at {self.times_seconds[moment]:.2f} s"

    def _videos_of_items(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        return self.video_ids, self.action_of_item


def _labels_at(
    video_ids: Sequence[str], times_seconds: npt.NDArray[np.float64], actions: Sequence["ActionRecord"]
) -> dict[str, npt.NDArray[np.int64]]:
    """Return the labels of the shortest action that covers each moment, -1 without one."""
    of_video: dict[str, list[ActionRecord]] = {}
    for action in actions:
        of_video.setdefault(action.video_id, []).append(action)
    found: list[Mapping[str, int]] = []
    for video_id, time in zip(video_ids, times_seconds.tolist(), strict=True):
        covering = [a for a in of_video.get(video_id, ()) if a.start_seconds <= time <= a.stop_seconds]
        shortest = min(covering, key=lambda action: action.stop_seconds - action.start_seconds, default=None)
        found.append({} if shortest is None else shortest.labels)
    columns = sorted({column for action in actions for column in action.labels})
    return {column: np.array([labels.get(column, -1) for labels in found], np.int64) for column in columns}
