"""Clips of given places of given videos: regular windows, the two sides of moments, annotated actions.

Path of a sample: prepared store --windows--> batch --transforms + encoder--> features of whole videos.

`MomentClips` and `ActionClips` are for training and judging: they draw, balance and label. Here every place is an item,
once, in the order of the videos, so that the features of a video can be written as they come.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from earmark.clips.action_clips import ActionClips
from earmark.clips.sampling import Visits
from earmark.clips.store import PreparedStore
from earmark.clips.stored_clips import ClipWindow, StoredClips, num_frames_of
from earmark.preparation.catalog import SparseStoreError
from earmark.wording import counted

if TYPE_CHECKING:
    from earmark.datasets.records import ActionRecord

__all__ = ["VideoWindows", "WindowClips", "WindowOptions", "WindowPlan", "plan_windows"]

ROUNDING_SECONDS = 1e-6  # by which rounding may move a window beyond the end of its video


@dataclass(frozen=True, slots=True)
class WindowOptions:
    """Which places of a video are shown to the encoders, and how much of each.

    Attributes:
        of: ``windows``, one after the other from 0 on; ``moments``, the clip before and the clip after each moment of
            interaction and its sound; ``actions``, clips spread evenly over each annotated action.
        window_seconds: Length of a clip.
        stride_seconds: Of windows: from the start of one to that of the next; None otherwise.
        fps: Frames per second of a clip.
        gap_seconds: Of moments: between the moment and each clip; None otherwise.
        clips_per_action: Of actions; None otherwise.
        audio_seconds: Length of the sound, which is centred on the clip, or on the moment; silent where it reaches past
            the recording.

    Raises:
        ValueError: If a length is not positive, or one that the kind of place needs is missing.
    """

    of: Literal["windows", "moments", "actions"] = "windows"
    window_seconds: float = 0.5
    stride_seconds: float | None = 0.5
    fps: float = 16.0
    gap_seconds: float | None = None
    clips_per_action: int | None = None
    audio_seconds: float = 2.0

    def __post_init__(self) -> None:
        lengths = {"window_seconds": self.window_seconds, "fps": self.fps, "audio_seconds": self.audio_seconds}
        needed = {"windows": "stride_seconds", "moments": "gap_seconds", "actions": "clips_per_action"}[self.of]
        lengths[needed] = getattr(self, needed)
        for name, value in lengths.items():
            if value is None or not (0 < value < float("inf") or (name == "gap_seconds" and value == 0)):
                raise ValueError(f"{name} must be positive, got {value} (features of {self.of})")


@dataclass(frozen=True, slots=True)
class VideoWindows:
    """The places of one video.

    Attributes:
        video_id: The video.
        times_seconds: (N,) the start of each clip; of moments, the moment.
        columns: What else is known of each place, arrays of N: the score of a moment, id and labels of an action.
    """

    video_id: str
    times_seconds: npt.NDArray[np.float64]
    columns: Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """The places of all videos, and what has none.

    Attributes:
        videos: Each with at least one place.
        left_out: By video id, why it has none.
        places_left_out: By action id (of moments, by video and time), why a single place is not among them.
    """

    videos: tuple[VideoWindows, ...]
    left_out: Mapping[str, str]
    places_left_out: Mapping[str, str]


class WindowClips(StoredClips):
    """The clips, or the sound, or both, of every place of some videos; item after item in their order.

    Args:
        store: Prepared videos.
        videos: Places, as `plan_windows` gives them.
        options: What is shown of each place.
        modalities: Of ``video`` and ``audio``; frames are not decoded where only the sound is asked for.

    Attributes:
        first_items: int64 (num_videos + 1,): the items of video k are those from first_items[k] to first_items[k + 1].

    Raises:
        ValueError: If the frame rate does not divide the store's, or no modality is asked for.

    Example:
        >>> store = PreparedStore("data/prepared/kitchen")  # doctest: +SKIP
        >>> options = WindowOptions(stride_seconds=1.0)
        >>> clips = WindowClips(store, plan_windows(store, options).videos, options)  # doctest: +SKIP
        >>> clips[0]["video"].shape  # doctest: +SKIP
        (8, 128, 228, 3)
    """

    def __init__(
        self,
        store: PreparedStore,
        videos: Sequence[VideoWindows],
        options: WindowOptions,
        *,
        modalities: Sequence[str] = ("video",),
    ) -> None:
        super().__init__()
        if not modalities or set(modalities) - {"video", "audio"}:
            raise ValueError(f"modalities are video and audio, got {', '.join(modalities) or 'none'}")
        self.store, self.options = store, options
        self.num_frames, self.num_samples = 0, None
        self.clip_names = ()
        if "video" in modalities:
            self.num_frames = num_frames_of(options.window_seconds, options.fps, store)
            self.clip_names = ("video_before", "video_after") if options.of == "moments" else ("video",)
        if "audio" in modalities:
            self.num_samples = round(options.audio_seconds * store.sample_rate)
        self._video_ids = [video.video_id for video in videos]
        self._times = np.concatenate([np.zeros(0), *(video.times_seconds for video in videos)])
        self.first_items = np.cumsum([0, *(len(video.times_seconds) for video in videos)])
        # of videos and not of items: a thousand hours have millions of windows
        sizes = [(store.videos[name].height, store.videos[name].width) for name in self._video_ids]
        self._sizes = np.array(sizes, np.int64).reshape(-1, 2)
        self._visits = Visits()

    def __len__(self) -> int:
        return len(self._times)

    def picture_size(self, indices: Sequence[int] | None = None) -> tuple[int, int]:
        """Return the height and the width that hold the pictures of some items; None for all."""
        videos = slice(None) if indices is None else np.unique(self._video_of(np.asarray(indices)))
        sizes = self._sizes[videos]
        if not len(sizes):
            raise ValueError("a batch needs at least one sample")
        height, width = sizes.max(axis=0).tolist()
        return height, width

    def _video_of(self, items: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.searchsorted(self.first_items, items, side="right") - 1

    def _window(self, index: int, seed: int) -> ClipWindow:
        video_id = self._video_ids[int(self._video_of(np.asarray(index)))]
        time, options = float(self._times[index]), self.options
        sound_start = time - options.audio_seconds / 2
        steps = np.arange(self.num_frames) / options.fps
        if options.of == "moments":
            assert options.gap_seconds is not None
            before, after = time - options.gap_seconds - options.window_seconds, time + options.gap_seconds
            times = np.concatenate([before + steps, after + steps])
        else:
            times = time + steps
            sound_start += options.window_seconds / 2
        # a clip of rounded length, as in `ActionClips`
        times = np.minimum(times, self.store.videos[video_id].duration_seconds - 1 / self.store.fps)
        return ClipWindow(video_id, times if self.clip_names else np.zeros(0), sound_start)

    def _videos_of_items(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        return self._video_ids, self._video_of(np.arange(len(self)))

    def describe(self, index: int, seed: int) -> str:
        """Name a visit by video and time."""
        return f"{self._video_ids[int(self._video_of(np.asarray(index)))]} at {self._times[index]:.2f} s"


def plan_windows(
    store: PreparedStore,
    options: WindowOptions,
    *,
    video_ids: Sequence[str] | None = None,
    actions: Sequence["ActionRecord"] = (),
    with_sound: bool = False,
) -> WindowPlan:
    """Return the places of videos.

    A window lies wholly in its video: what remains at the end, shorter than a window, is in none, and a video that is
    shorter has no window. A moment is used where both its clips lie in the video. An action is used as in
    `ActionClips`: one shorter than a clip gives the clip around its centre.

    Args:
        store: Prepared videos.
        options: Which places.
        video_ids: Which videos, in the order in which they are to come; None for all of the store, sorted. Those that
            are not in it, or were refused there, are left out and named.
        actions: Of ``of="actions"``: what was annotated. Those of other videos than `video_ids` are passed over.
        with_sound: Leave out videos that have none.

    Raises:
        SparseStoreError: If the store keeps less around its moments than is to be read.

    Example:
        >>> store = PreparedStore("data/prepared/kitchen")  # doctest: +SKIP
        >>> plan_windows(store, WindowOptions()).videos[0].times_seconds[:3]  # doctest: +SKIP
        array([0. , 0.5, 1. ])
    """
    _require_kept(store, options)
    if video_ids is None:
        video_ids = sorted(video.video_id for video in store.catalog)
    refused = {video.video_id: video.reason for video in store.catalog if video.status == "refused"}
    usable: list[str] = []
    left_out: dict[str, str] = {}
    for video_id in video_ids:
        video = store.videos.get(video_id)
        if video is None:
            reason = refused.get(video_id)
            left_out[video_id] = "is not among the prepared videos" if reason is None else f"refused: {reason}"
        elif with_sound and not video.has_audio:
            left_out[video_id] = "has no sound"
        else:
            usable.append(video_id)
    places_left_out: dict[str, str] = {}
    if options.of == "windows":
        found = {name: _regular(store, name, options) for name in usable}
    elif options.of == "moments":
        found = {name: _moments(store, name, options, places_left_out) for name in usable}
    else:
        found = _actions(store, usable, options, actions, places_left_out)
    videos = []
    for name in usable:
        if found[name] is None or not len(found[name].times_seconds):
            left_out[name] = _why_none(store, name, options)
        else:
            videos.append(found[name])
    return WindowPlan(tuple(videos), left_out, places_left_out)


def _require_kept(store: PreparedStore, options: WindowOptions) -> None:
    if store.around_seconds is None:
        return
    if options.of != "moments":
        raise SparseStoreError(
            f"{store.root}: holds only {store.around_seconds:g} s on each side of each moment; features of "
            f"{options.of} need the whole videos"
        )
    needed = max((options.gap_seconds or 0.0) + options.window_seconds, options.audio_seconds / 2)
    if store.around_seconds < needed - 1e-9:
        raise SparseStoreError(
            f"{store.root}: holds only {store.around_seconds:g} s on each side of each moment, {needed:g} s are read",
            needed_seconds=needed,
        )


def _regular(store: PreparedStore, video_id: str, options: WindowOptions) -> VideoWindows:
    assert options.stride_seconds is not None
    room = store.videos[video_id].duration_seconds - options.window_seconds + ROUNDING_SECONDS
    number = 0 if room < 0 else int(room / options.stride_seconds) + 1
    starts: npt.NDArray[np.float64] = np.arange(number, dtype=np.float64) * options.stride_seconds
    return VideoWindows(video_id, starts, {})


def _moments(
    store: PreparedStore, video_id: str, options: WindowOptions, places_left_out: dict[str, str]
) -> VideoWindows:
    assert options.gap_seconds is not None
    margin = options.gap_seconds + options.window_seconds
    times, scores = store.moments[video_id], store.scores[video_id]
    usable = (times >= margin) & (times <= store.videos[video_id].duration_seconds - margin)
    for time in times[~usable].tolist():
        places_left_out[f"{video_id} at {time:.3f} s"] = f"nearer than {margin:g} s to an end of the video"
    return VideoWindows(video_id, times[usable], {"time_seconds": times[usable], "score": scores[usable]})


def _actions(
    store: PreparedStore,
    video_ids: Sequence[str],
    options: WindowOptions,
    actions: Sequence["ActionRecord"],
    places_left_out: dict[str, str],
) -> dict[str, VideoWindows]:
    """Return the clips of actions by video: those of one action after another, in the order of the annotations."""
    assert options.clips_per_action is not None
    found = {name: VideoWindows(name, np.zeros(0), {}) for name in video_ids}
    mine = [action for action in actions if action.video_id in found]
    by_video: dict[str, list[ActionRecord]] = {}
    for action in mine:
        by_video.setdefault(action.video_id, []).append(action)
    for video_id, here in by_video.items():
        # Labels decide nothing here, and actions of several splits may have different ones.
        bare = [replace(action, labels={}) for action in here]
        try:
            clips = ActionClips(
                store,
                bare,
                clip_seconds=options.window_seconds,
                clip_fps=options.fps,
                num_clips=options.clips_per_action,
            )
        except SparseStoreError:
            raise
        except ValueError as error:  # none is usable
            num_frames_of(options.window_seconds, options.fps, store)  # unless it is the rate
            places_left_out.update(dict.fromkeys((action.action_id for action in here), str(error)))
            continue
        places_left_out.update(clips.left_out)
        kept = {action.action_id for action in clips.actions}
        found[video_id] = _clips_of(video_id, clips, [action for action in here if action.action_id in kept])
    return found


def _clips_of(video_id: str, clips: ActionClips, actions: Sequence["ActionRecord"]) -> VideoWindows:
    starts = np.array([clips.start_of(item, 0) for item in range(len(clips))])
    repeated = {
        "action_id": np.array([action.action_id for action in actions]),
        "action_start_seconds": np.array([action.start_seconds for action in actions]),
        "action_stop_seconds": np.array([action.stop_seconds for action in actions]),
    }
    for column in sorted({column for action in actions for column in action.labels}):
        labels = [action.labels.get(column, -1) for action in actions]
        repeated[f"label_{column}"] = np.array(labels, np.int64)
    columns = {name: np.repeat(values, clips.num_clips) for name, values in repeated.items()}
    columns["clip"] = np.tile(np.arange(clips.num_clips), len(actions))
    return VideoWindows(video_id, starts, columns)


def _why_none(store: PreparedStore, video_id: str, options: WindowOptions) -> str:
    duration = store.videos[video_id].duration_seconds
    if options.of == "windows":
        return f"lasts {duration:.2f} s, a window {options.window_seconds:g} s"
    if options.of == "moments":
        number = len(store.moments[video_id])
        return "has no moment" if not number else f"{counted(number, 'moment')}, all too near an end of the video"
    return "has no action that can be used"
