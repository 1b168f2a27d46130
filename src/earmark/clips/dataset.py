"""The map-style data set of moments, and the batch contract.

Path of a sample: prepared store --clips (+ sampling)--> batch --transforms--> model inputs.

An item is asked for by a key ``(index, seed)``: which item, and the randomness of this visit (see
`earmark.clips.sampling`). An index alone is a key, too, as in any data set of torch: its seed is a function of the
index and of the epoch given to `set_epoch`. The data sets draw nothing themselves, so loader workers, their number
and the place where a run was resumed change nothing.

Batch of `MomentClips` (B samples, T frames, S samples of sound)::

    video_before, video_after   uint8 (B, T, H, W, 3)
    audio                       int16 (B, S)
    index, seed                 int64 (B,)
    video_size                  int64 (B, 2), valid height and width

Frames of smaller videos are padded with zeros to the largest of the batch; ``video_size`` says what is picture, and
the transforms use nothing else. With `actions`, `MomentClips` adds ``label_<column>`` int64 (B,), -1 where no annotated
action covers the moment, and with `quiet_share` ``label_moment``, 1 for moments and 0 for quiet times.
`earmark.clips.action_clips` has the data set of annotated actions.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from earmark.clips.collation import collate
from earmark.clips.quiet_times import QuietTimes
from earmark.clips.sampling import seed_in_group, shared_seed, uniform_draw
from earmark.clips.store import PreparedStore
from earmark.clips.stored_clips import ClipWindow, StoredClips, num_frames_of
from earmark.moments import segment_number
from earmark.preparation.catalog import SparseStoreError
from earmark.wording import counted

if TYPE_CHECKING:
    from earmark.datasets.records import ActionRecord

__all__ = ["MomentClips", "collate"]


QUIET_TOLERANCE_SECONDS = 0.2  # by which what is heard may be earlier or later than the moment found


class MomentClips(StoredClips):
    """Before clip, after clip and sound of one moment of each segment: the pretraining data.

    An item is a segment with at least one usable moment; each visit draws one of its moments, as in the paper
    (arXiv 2209.13583, section 4.1, and the original code's data set). A moment t is usable when both clips lie in the
    video: ``gap + clip <= t <= duration - gap - clip``. The before clip ends at ``t - gap`` and the after clip starts
    at ``t + gap``; the sound is centred on t, silent where it reaches past the recording. Segments without a usable
    moment are left out and counted, never replaced by others.

    With ``moments_per_segment=k`` a segment has up to k items: one for each of its moments, k if it has more. An epoch
    draws k of those without replacement, and item n of the segment is the n-th of them in time (all n-th moments, where
    none is left out). So the length of an epoch is fixed: the sum of min(k, moments) over the segments. The items of a
    segment draw together by their seeds, which `visit_seed` gives; with other seeds, each draws for itself.

    With ``quiet_share=p`` each visit is, by chance p, one to a quiet time of the segment's video in place of a moment:
    any time whose clips lie in the video, and so far from every moment found that none of them lies in its clips or its
    sound, or within 0.2 s of these. A video without such times has moments alone.

    With ``moments="random"`` each visit draws any time of the segment at which both clips lie in the video, whatever is
    heard there: the paper's comparison without moments of interaction; of several per segment, item n is the n-th in
    time of k such times. With ``moments="narrated"`` the moments are times that were written down, whatever is heard
    there. With ``views="same_clip"`` both clips are the one centred on the moment, for methods that compare two crops
    of one clip.

    Args:
        store: Prepared videos.
        splits: Only videos of these splits; None for all.
        clip_seconds: Length of a clip.
        clip_fps: Its frames per second; the store's rate must be a multiple of it.
        gap_seconds: Time between the moment and each clip; of several gaps each visit draws one, and moments are usable
            with all of them.
        audio_seconds: Length of the sound.
        moments: ``audible``, those found in the sound, ``random``, or ``narrated``, those of `narrated`.
        narrated: Times in seconds by video, in any order.
        views: ``before_after`` or ``same_clip``.
        actions: Annotated actions, whose labels are those of the moments they cover, of several the shortest one's.
        moments_per_segment: The most moments of a segment that an epoch visits.
        quiet_share: Chance of a quiet time; only with ``audible`` moments.

    Attributes:
        num_segments: Segments that have items.
        num_frames: Frames of a clip, T.
        num_samples: Samples of sound, S.
        sample_rate: Sample rate of the sound in Hz.
        num_moments: Usable moments in all; for random moments, as many as there are items.
        num_segments_without_moment: Segments of videos with sound that have no usable moment.
        num_unusable_moments: Moments found that are too near an end of their video; 0 for random moments.
        num_videos_without_sound: Videos of the splits that are left out because they have none.
        quiet_distance_seconds: From a quiet time to the nearest moment.
        num_videos_without_quiet_time: Videos with items that have no quiet time; 0 if none are drawn.
        num_labelled_moments: Usable moments that lie in one of the actions; None without actions or of random moments.

    Raises:
        ValueError: If a length is not positive, `clip_fps` does not divide the store's frame rate, there is no gap, no
            usable moment is left, none lies in one of the actions, the store keeps less around its moments
            (``around_seconds``) than is read, or quiet times are asked for with other moments than audible ones, with a
            share that is not from 0 to below 1, or where no video has any.

    Example:
        >>> clips = MomentClips(PreparedStore("data/prepared/kitchen"), splits=["train"])  # doctest: +SKIP
        >>> clips[(0, 1234)]["video_before"].shape  # doctest: +SKIP
        (8, 128, 228, 3)
    """

    clip_names: tuple[str, ...] = ("video_before", "video_after")
    num_samples: int

    def __init__(
        self,
        store: PreparedStore,
        *,
        splits: Collection[str] | None = None,
        clip_seconds: float = 0.5,
        clip_fps: float = 16.0,
        gap_seconds: float | Sequence[float] = 0.1,
        audio_seconds: float = 2.0,
        moments: Literal["audible", "random", "narrated"] = "audible",
        narrated: Mapping[str, Sequence[float]] | None = None,
        views: Literal["before_after", "same_clip"] = "before_after",
        actions: Sequence["ActionRecord"] = (),
        moments_per_segment: int = 1,
        quiet_share: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= quiet_share < 1 or (quiet_share and moments != "audible"):
            raise ValueError(
                f"need a share of quiet times from 0 to below 1, and audible moments with it, got {quiet_share} and "
                f"{moments} moments"
            )
        if moments_per_segment < 1:
            raise ValueError(f"need at least one moment of a segment, got {moments_per_segment}")
        self.store, self.moments_per_segment, self.quiet_share = store, moments_per_segment, quiet_share
        self.clip_seconds, self.clip_fps = clip_seconds, clip_fps
        self._gaps = tuple(gap_seconds) if isinstance(gap_seconds, Sequence) else (gap_seconds,)
        self.gap_seconds, self.audio_seconds = max(self._gaps, default=-1.0), audio_seconds
        self.moments, self.views = moments, views
        if views == "same_clip":
            self.clip_names, self.same_clips = ("video_before",), {"video_after": "video_before"}
        self.num_frames = num_frames_of(clip_seconds, clip_fps, store)
        self.sample_rate = store.sample_rate
        self.num_samples = round(audio_seconds * store.sample_rate)
        if min(self._gaps, default=-1.0) < 0 or self.num_samples < 1:
            raise ValueError(f"need a gap >= 0 s and some sound, got {gap_seconds} s and {audio_seconds} s")
        if store.around_seconds is not None:
            self._require_kept(store.around_seconds)
        self._actions: dict[str, list[ActionRecord]] = {}
        for action in actions:
            self._actions.setdefault(action.video_id, []).append(action)
        self._label_columns = sorted({column for action in actions for column in action.labels})
        # Flat arrays, not objects: a large store has a million segments, and every worker gets a copy of this.
        chosen = [v for v in sorted(store.videos) if splits is None or store.videos[v].split in splits]
        self._video_ids = [video_id for video_id in chosen if store.videos[video_id].has_audio]
        self.num_videos_without_sound = len(chosen) - len(self._video_ids)
        self.num_unusable_moments = 0
        self.num_labelled_moments: int | None = None
        durations = np.array([store.videos[video_id].duration_seconds for video_id in self._video_ids])
        segment_seconds = float(store.parameters["segment_seconds"])
        num_segments = np.maximum(1, np.ceil(durations / segment_seconds)).astype(np.int64)
        # segment i, of video _videos[i], has the times from place _starts[i] to _starts[i + 1]
        if moments != "random":
            self._find_moments(store.moments if moments == "audible" else narrated or {}, durations, segment_seconds)
            num_items = np.minimum(np.diff(self._starts), moments_per_segment)
        else:
            self._bound_segments(durations, num_segments, segment_seconds)
            num_items = np.full(len(self._videos), moments_per_segment)
        self._find_quiet_times(durations)
        self.num_segments = len(self._videos)
        # item i is of segment _segments[i], whose first item is _first_items[_segments[i]]
        self._segments = np.repeat(np.arange(self.num_segments, dtype=np.int32), num_items)
        self._first_items = np.cumsum(num_items) - num_items
        self.num_moments = len(self) if moments == "random" else len(self._times)
        self.num_segments_without_moment = int(num_segments.sum()) - self.num_segments
        if not len(self):
            where = f"{store.root}" + (f", splits {sorted(splits)}" if splits is not None else "")
            num_refused = len(store.catalog) - len(store.videos)
            raise ValueError(
                f"{where}: no usable moment of interaction in {counted(len(store.videos), 'video')}"
                + (f"; {num_refused} more refused, `earmark prepare` says why" if num_refused else "")
            )
        if actions and moments != "random":
            self.num_labelled_moments = self._count_labelled()
            if not self.num_labelled_moments:
                raise ValueError(
                    f"{store.root}: {counted(self.num_moments, 'moment')}, and none lies in one of the annotated "
                    f"actions ({len(actions)}): there is nothing to learn classes from"
                )

    def _require_kept(self, around_seconds: float) -> None:
        """Raise if a store that keeps what is around its moments has less of that than is read."""
        if self.moments != "audible":
            raise SparseStoreError(
                f"{self.store.root}: holds only {around_seconds:g} s on each side of each audible moment; "
                f"{self.moments} moments need the whole videos"
            )
        if self.quiet_share:
            raise SparseStoreError(
                f"{self.store.root}: holds only {around_seconds:g} s on each side of each audible moment; quiet times "
                "need the whole videos"
            )
        margin = self.gap_seconds + self.clip_seconds
        needed = max(margin, self.audio_seconds / 2)
        if around_seconds < needed - 1e-9:
            raise SparseStoreError(
                f"{self.store.root}: holds only {around_seconds:g} s on each side of each moment, less than is read: "
                f"gap and clip are {margin:g} s, half of the sound is {self.audio_seconds / 2:g} s",
                needed_seconds=needed,
            )

    def _find_moments(
        self,
        times_of: Mapping[str, Sequence[float] | npt.NDArray[np.float64]],
        durations: npt.NDArray[np.float64],
        segment_seconds: float,
    ) -> None:
        """Find the usable moments of each segment."""
        margin = self.gap_seconds + self.clip_seconds
        found = [np.sort(np.asarray(times_of.get(video_id, ()), np.float64)) for video_id in self._video_ids]
        times = np.concatenate([*found, np.zeros(0)])
        videos = np.repeat(np.arange(len(found), dtype=np.int32), [len(mine) for mine in found])
        usable = (times >= margin) & (times <= durations[videos] - margin)
        self._times, videos = times[usable], videos[usable]
        self.num_unusable_moments = len(usable) - len(self._times)
        segments = segment_number(self._times, segment_seconds)
        first = np.ones(len(self._times), bool)  # whether a moment is the first of its segment
        first[1:] = (np.diff(segments) != 0) | (np.diff(videos) != 0)
        self._starts = np.append(np.flatnonzero(first), len(self._times))
        self._videos = videos[first]

    def _find_quiet_times(self, durations: npt.NDArray[np.float64]) -> None:
        """Find the quiet times of each video, if any are drawn."""
        self.num_videos_without_quiet_time = 0
        margin = self.gap_seconds + self.clip_seconds
        self.quiet_distance_seconds = max(margin, self.audio_seconds / 2) + QUIET_TOLERANCE_SECONDS
        self._quiet: QuietTimes | None = None
        if not self.quiet_share:
            return
        self._quiet = QuietTimes(
            [np.asarray(self.store.moments.get(video_id, ()), np.float64) for video_id in self._video_ids],
            durations,
            margin_seconds=margin,
            distance_seconds=self.quiet_distance_seconds,
        )
        seconds = [self._quiet.seconds(number) for number in np.unique(self._videos).tolist()]
        self.num_videos_without_quiet_time = seconds.count(0.0)
        if seconds and not any(seconds):
            raise ValueError(
                f"{self.store.root}: {counted(len(seconds), 'video')}, and none has a time at least "
                f"{self.quiet_distance_seconds:g} s from every moment: there are no quiet times"
            )

    def _count_labelled(self) -> int:
        """Count the usable moments that lie in an action."""
        videos = np.repeat(self._videos, np.diff(self._starts))
        count = 0
        for number in np.unique(videos):
            times = self._times[videos == number]
            covered = np.zeros(len(times), bool)
            for action in self._actions.get(self._video_ids[number], ()):
                covered |= (action.start_seconds <= times) & (times <= action.stop_seconds)
            count += int(covered.sum())
        return count

    def _bound_segments(
        self, durations: npt.NDArray[np.float64], num_segments: npt.NDArray[np.int64], segment_seconds: float
    ) -> None:
        """Find the first and the last time of each segment at which both clips lie in the video."""
        margin = self.gap_seconds + self.clip_seconds
        videos = np.repeat(np.arange(len(durations), dtype=np.int32), num_segments)
        numbers = np.arange(len(videos)) - np.repeat(np.cumsum(num_segments) - num_segments, num_segments)
        limits = np.stack([numbers, numbers + 1], axis=1) * segment_seconds
        limits = np.clip(limits, margin, (durations[videos] - margin)[:, None])
        usable = limits[:, 0] < limits[:, 1]
        self._times, self._videos = limits[usable].ravel(), videos[usable]
        self._starts = np.arange(0, len(self._times) + 1, 2)

    def __len__(self) -> int:
        return len(self._segments)

    @property
    def video_ids(self) -> list[str]:
        """The videos that there are items of, sorted."""
        return [self._video_ids[number] for number in np.unique(self._videos).tolist()]

    def moment_of(self, index: int, seed: int) -> tuple[str, float]:
        """Return (video_id, time_seconds) of the moment, or the quiet time, that a visit draws.

        Args:
            index: Which item.
            seed: Randomness of the visit.
        """
        segment = int(self._segments[index])
        if self.is_quiet(index, seed):
            assert self._quiet is not None
            video = int(self._videos[segment])
            draw = uniform_draw(seed, stream=0x515444)
            return self._video_ids[video], self._quiet.time_of(video, draw)
        times = self._times[self._starts[segment] : self._starts[segment + 1]]
        if self.moments_per_segment > 1:
            time_seconds = self._one_of_several(times, index - int(self._first_items[segment]), seed)
        else:
            draw = uniform_draw(seed, stream=0x4D4F4D)
            time_seconds = (
                times[0] + draw * (times[1] - times[0]) if self.moments == "random" else times[int(len(times) * draw)]
            )
        return self._video_ids[self._videos[segment]], float(time_seconds)

    def is_quiet(self, index: int, seed: int) -> bool:
        """Return whether a visit draws a quiet time in place of a moment.

        Args:
            index: Which item.
            seed: Randomness of the visit.
        """
        if self._quiet is None or uniform_draw(seed, stream=0x515553) >= self.quiet_share:
            return False
        return self._quiet.seconds(int(self._videos[self._segments[index]])) > 0

    def _one_of_several(self, times: npt.NDArray[np.float64], place: int, seed: int) -> float:
        """Return the moment of one of the items that draw together from a segment."""
        number = self.moments_per_segment
        key = np.array([shared_seed(seed, num_places=number), 0x534547], np.uint64)
        raw = np.random.Philox(key=key).random_raw(number if self.moments == "random" else len(times))
        if self.moments == "random":
            draws = np.sort(raw >> np.uint64(11)) / (1 << 53)
            return float(times[0] + draws[place] * (times[1] - times[0]))
        drawn = np.sort(np.argsort(raw, kind="stable")[:number])
        return float(times[drawn[place]])

    def visit_seed(self, seed: int, epoch: int, index: int) -> int:
        """Return the seed of an item's visit in an epoch; the items of a segment draw together by it.

        Args:
            seed: Seed of the run.
            epoch: Counted from 0.
            index: Which item.
        """
        segment = int(self._segments[index])
        place = index - int(self._first_items[segment])
        return seed_in_group(seed, epoch, segment, place, num_places=self.moments_per_segment)

    def _window(self, index: int, seed: int) -> ClipWindow:
        video_id, moment = self.moment_of(index, seed)
        steps = np.arange(self.num_frames) / self.clip_fps
        if self.views == "same_clip":
            times = moment - self.clip_seconds / 2 + steps
        else:
            gap = self._gaps[int(len(self._gaps) * uniform_draw(seed, stream=0x474150))]
            times = np.concatenate([moment - gap - self.clip_seconds + steps, moment + gap + steps])
        return ClipWindow(video_id, times, moment - self.audio_seconds / 2)

    def _videos_of_items(self) -> tuple[list[str], npt.NDArray[np.int32]]:
        return self._video_ids, self._videos[self._segments]

    def _labels(self, index: int, seed: int) -> dict[str, int]:
        of_moment = {} if self._quiet is None else {"label_moment": int(not self.is_quiet(index, seed))}
        if not self._label_columns:
            return of_moment
        video_id, moment = self.moment_of(index, seed)
        covering = [
            action
            for action in self._actions.get(video_id, ())
            if action.start_seconds <= moment <= action.stop_seconds
        ]
        shortest = min(covering, key=lambda action: action.stop_seconds - action.start_seconds, default=None)
        labels = {} if shortest is None else shortest.labels
        return {f"label_{column}": labels.get(column, -1) for column in self._label_columns} | of_moment
