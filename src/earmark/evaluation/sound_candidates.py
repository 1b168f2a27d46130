"""Times at which sounds may begin: the moments of a store, beside them what they are compared with, and the truth.

Path of a sample: moments of the store --here--> candidates, each with the annotated event that it is of --windows-->
features --probe--> scores.

Letters: N candidates, E annotated events, C classes.
"""

import dataclasses
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from earmark.datasets import ActionRecord, EpicSounds
from earmark.evaluation.detection_metrics import Events
from earmark.evaluation.epic_sounds_metrics import BACKGROUND
from earmark.evaluation.sound_events import VideoMoments, match_moments
from earmark.evaluation.sound_recognition import COLUMN
from earmark.wording import counted

if TYPE_CHECKING:
    from earmark.clips.store import PreparedStore
    from earmark.datasets.records import DatasetRecords

__all__ = [
    "TOLERANCE_SECONDS",
    "Candidates",
    "candidate_records",
    "events_in",
    "find_candidates",
    "heard_share",
    "videos_with_moments",
]

TOLERANCE_SECONDS = 0.2  # how far a moment may lie from the start of the sound that it is of

Floats = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Candidates:
    """Times in videos at which sounds may begin, and what is annotated there.

    Attributes:
        video: Number of each candidate's video, rising, shape ``(N,)``.
        times: In seconds, shape ``(N,)``.
        weights: Share of the training moments, and itself, with at most its score; 1 where it has none. Shape ``(N,)``.
        is_moment: Whether it is a moment of the store; else a random time, or in training an annotated onset. ``(N,)``.
        labels: Class of the event that it is of, or C for nothing; shape ``(N,)``.
        event_starts: Start of that event less the time of the candidate, in seconds; 0 for nothing. Shape ``(N,)``.
        video_ids: Of the videos that the numbers mean, those without a candidate included.
        durations: Of these, in seconds.
        annotated: Events of these, without background.
    """

    video: Classes
    times: Floats
    weights: Floats
    is_moment: npt.NDArray[np.bool_]
    labels: Classes
    event_starts: Floats
    video_ids: tuple[str, ...]
    durations: tuple[float, ...]
    annotated: Events

    def some(self, chosen: npt.NDArray[np.bool_] | Classes) -> "Candidates":
        """Return some of the candidates, of all videos."""
        names = ("video", "times", "weights", "is_moment", "labels", "event_starts")
        return dataclasses.replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def in_videos(self) -> list[VideoMoments]:
        """Return the candidates by video."""
        rows = zip(self.by_video(self.times), self.by_video(self.weights), self.durations, strict=True)
        return [VideoMoments(times, weights, duration) for times, weights, duration in rows]

    def by_video(self, values: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """Return rows of values, one for each candidate, by video."""
        return np.split(values, np.searchsorted(self.video, np.arange(1, len(self.video_ids))))


def videos_with_moments(
    store: "PreparedStore", sounds: "DatasetRecords", split: str
) -> tuple[list[str], tuple[tuple[str, str], ...]]:
    """Return the videos of a split that sounds are to be detected in, and those that have none or are not there.

    Videos without sound are among the first: nothing is detected there, and what is annotated there counts as missed.

    Args:
        store: The prepared videos.
        sounds: The data set.
        split: Which videos.

    Returns:
        Ids, and id and reason of each video that is not there, or silent.

    Raises:
        ValueError: If no video has a moment.
    """
    listed = sounds.detection_videos(split) if isinstance(sounds, EpicSounds) else sounds.videos(split)
    names = [video.video_id for video in listed]
    there = [name for name in names if name in store.videos]
    left_out = [(name, "the video is not in the store") for name in names if name not in store.videos]
    if not any(store.videos[name].has_audio and len(store.moments[name]) for name in there):
        raise ValueError(f"{store.root}: none of {counted(len(names), f'{split} video')} has a moment")
    silent = [(name, "it has no sound: all sounds annotated there are missed") for name in there]
    return there, (*left_out, *(row for row in silent if not store.videos[row[0]].has_audio))


def find_candidates(
    store: "PreparedStore",
    video_ids: Sequence[str],
    sounds: Sequence[ActionRecord],
    train_scores: Floats,
    num_classes: int,
    *,
    is_training: bool,
) -> Candidates:
    """Return the candidates of videos: their moments, and beside them onsets (training) or random times (test).

    Training videos add the annotated onsets that no moment is near, so that rare sounds are learned from, too. Test
    videos add as many random times as they have moments. Sounds of the class background are nothing.

    Args:
        store: The prepared videos.
        video_ids: Which of them, in the order of their numbers.
        sounds: What is annotated.
        train_scores: Scores of the moments of the training videos, ascending.
        num_classes: How many classes there are, C.
        is_training: Which of the two.
    """
    of_video: dict[str, list[ActionRecord]] = {}
    for sound in sounds:
        if sound.labels.get(COLUMN) != BACKGROUND:
            of_video.setdefault(sound.video_id, []).append(sound)
    columns: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in ("video", "times", "weights", "is_moment")}
    labels, event_starts, events = [], [], []
    for number, video_id in enumerate(video_ids):
        mine = [sound for sound in of_video.get(video_id, ()) if COLUMN in sound.labels]
        segments = np.array([(sound.start_seconds, sound.stop_seconds) for sound in mine]).reshape(-1, 2)
        classes = np.array([sound.labels[COLUMN] for sound in mine], dtype=np.int64)
        events.append((np.full(len(mine), number), classes, segments))
        if not store.videos[video_id].has_audio:
            continue
        moments, scores = store.moments[video_id], store.scores[video_id]
        if is_training:
            others = _onsets_without_moment(moments, segments[:, 0])
        else:
            rng = np.random.default_rng(zlib.crc32(video_id.encode()))
            others = np.sort(rng.random(len(moments))) * store.videos[video_id].duration_seconds
        times = np.concatenate([moments, others])
        event = match_moments(times, segments, tolerance_seconds=TOLERANCE_SECONDS)
        is_of = event >= 0
        labels.append(np.where(is_of, np.append(classes, 0)[event], num_classes))
        event_starts.append(np.where(is_of, np.append(segments[:, 0], 0.0)[event] - times, 0.0))
        columns["video"].append(np.full(len(times), number))
        columns["times"].append(times)
        columns["is_moment"].append(np.arange(len(times)) < len(moments))
        share = (1 + np.searchsorted(train_scores, scores, side="right")) / (1 + len(train_scores))
        columns["weights"].append(np.concatenate([share, np.ones(len(others))]))
    video, label, segment = (np.concatenate(column) for column in zip(*events, strict=True))
    return Candidates(
        **{name: np.concatenate(parts) for name, parts in columns.items()},
        labels=np.concatenate(labels),
        event_starts=np.concatenate(event_starts),
        video_ids=tuple(video_ids),
        durations=tuple(store.videos[name].duration_seconds for name in video_ids),
        annotated=Events(video, label, segment),
    )


def _onsets_without_moment(moments: Floats, onsets: Floats) -> Floats:
    """Return the onsets that no moment is near: rare sounds are to be learned from, too."""
    edges = np.concatenate([[-np.inf], np.sort(moments), [np.inf]])
    after = np.searchsorted(edges, onsets)
    nearest = np.minimum(onsets - edges[after - 1], edges[after] - onsets)
    return np.sort(onsets[nearest > TOLERANCE_SECONDS])


def candidate_records(found: Candidates) -> list[ActionRecord]:
    """Return candidates as actions that last no time, each named by its number.

    Args:
        found: The candidates.
    """
    all_labels = {label: {COLUMN: label} for label in np.unique(found.labels).tolist()}
    rows = zip(found.video.tolist(), found.times.tolist(), found.labels.tolist(), strict=True)
    return [
        ActionRecord(str(place), found.video_ids[video], time, time, "", all_labels[label])
        for place, (video, time, label) in enumerate(rows)
    ]


def events_in(events: Events, videos: Classes) -> Events:
    """Return the annotated events of some videos.

    Args:
        events: Of all.
        videos: Their numbers.
    """
    chosen = np.isin(events.video, videos)
    return Events(events.video[chosen], events.label[chosen], events.segment[chosen])


def heard_share(found: Candidates, annotated: Events) -> float:
    """Return the share of the events whose onset a candidate is near, from 0 to 1.

    Args:
        found: The candidates.
        annotated: At least one event.
    """
    near = [
        len(onsets) - len(_onsets_without_moment(found.times[found.video == number], onsets))
        for number in np.unique(annotated.video).tolist()
        for onsets in [annotated.segment[annotated.video == number, 0]]
    ]
    return sum(near) / len(annotated.label)
