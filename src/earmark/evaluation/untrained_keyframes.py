"""The point of no return without training: where a clip sounds strongest, and where its pictures change most.

Path of a sample: moments of the prepared video, or features along the clip --here--> a time --metrics--> error.

The paper's moments of interaction are found by sound alone, so a moment is itself a guess of where the state changes;
and features that are sensitive to change should change most there. Neither looks at a label. How far the nearest moment
of a clip is from its point of no return is no guess, but says how good the best choice among the moments would be.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from earmark.clips.state_change_parts import ChangePart

if TYPE_CHECKING:
    from earmark.clips.store import PreparedStore

__all__ = ["NUM_ALONG", "SoundGuesses", "along_part", "peak_of_change", "sound_guesses"]

NUM_ALONG = 31  # clips along which change is looked for


@dataclass(frozen=True, slots=True)
class SoundGuesses:
    """Where the sound of clips says that a state changes, in seconds of the file.

    Attributes:
        strongest: The moment with the highest score in each clip, of equals the first, (N,); the centre without one.
        most_central: The moment nearest to the centre of each clip, (N,); the centre without one.
        nearest: The moment of each clip nearest to its point of no return, (N,); NaN without either. It is no guess: it
            looks at the label.
        num_moments: Moments in each clip, int64 (N,).
        has_sound: Whether each clip's video has sound, (N,).
    """

    strongest: npt.NDArray[np.float64]
    most_central: npt.NDArray[np.float64]
    nearest: npt.NDArray[np.float64]
    num_moments: npt.NDArray[np.int64]
    has_sound: npt.NDArray[np.bool_]


def sound_guesses(store: "PreparedStore", parts: Sequence[ChangePart]) -> SoundGuesses:
    """Return what the moments of a store say of clips.

    Args:
        store: With the moments of their videos.
        parts: The clips.
    """
    rows = []
    for part in parts:
        video_id = part.record.video_id
        times = store.moments[video_id]
        inside = (times >= part.start_seconds) & (times <= part.stop_seconds)
        times, scores = times[inside], store.scores[video_id][inside]
        centre, change = (part.start_seconds + part.stop_seconds) / 2, part.record.pnr_seconds
        guesses = [centre, centre, np.nan]
        if len(times):
            guesses[:2] = [times[np.argmax(scores)], times[np.argmin(np.abs(times - centre))]]
            if change is not None:
                guesses[2] = times[np.argmin(np.abs(times - change))]
        rows.append((*guesses, len(times), store.videos[video_id].has_audio))
    strongest, central, nearest, counts, has_sound = zip(*rows, strict=True)
    return SoundGuesses(
        np.array(strongest, np.float64),
        np.array(central, np.float64),
        np.array(nearest, np.float64),
        np.array(counts, np.int64),
        np.array(has_sound, bool),
    )


def along_part(part: ChangePart, *, clip_seconds: float) -> ChangePart:
    """Return a part with the places of `NUM_ALONG` clips, evenly from its start to its end, 0.25 s apart in one of 8 s.

    Args:
        part: Of any length.
        clip_seconds: Length of a clip.

    Example:
        >>> from earmark.clips.state_change_parts import whole_clip
        >>> from earmark.datasets import StateChangeRecord
        >>> part = whole_clip(StateChangeRecord("x", "v", 10.0, 18.0, 300, 540, 30.0, True, 420))
        >>> along_part(part, clip_seconds=0.5).place_seconds[:3]
        (10.25, 10.5, 10.75)
    """
    room = max(part.stop_seconds - part.start_seconds - clip_seconds, 0.0)
    first = part.start_seconds + clip_seconds / 2
    places = tuple(first + room * number / (NUM_ALONG - 1) for number in range(NUM_ALONG))
    return dataclasses.replace(part, place_seconds=places)


def peak_of_change(
    features: npt.NDArray[np.float32], middles: npt.NDArray[np.float64], *, apart_seconds: float
) -> npt.NDArray[np.float64]:
    """Return where features before and after differ most, in the unit and from the start of the middles.

    Compared are clips whose middles lie so far apart, to the nearest of the steps between them; their features are
    compared by their cosine, as scales mean nothing between encoders.

    Args:
        features: Of the clips along each part, (N, clips, D).
        middles: Of these clips, in seconds, ascending and evenly spaced, (N, clips).
        apart_seconds: From the middle of the clip before to that of the clip after: a clip and two gaps.

    Returns:
        (N,), of equals the first.

    Raises:
        ValueError: If there are too few clips, or features and middles do not fit together.

    Example:
        >>> features = np.zeros((1, 31, 2), np.float32)
        >>> features[0, :14, 0] = features[0, 14:, 1] = 1  # others from the clip at second 3.75 on
        >>> peak_of_change(features, 0.25 + 0.25 * np.arange(31)[None], apart_seconds=0.25)
        array([3.625])
    """
    if features.ndim != 3 or features.shape[:2] != middles.shape or not len(features):
        raise ValueError(f"need features (N, clips, D) and middles (N, clips), got {features.shape}, {middles.shape}")
    num_clips = middles.shape[1]
    step = float(np.median(middles[:, -1] - middles[:, 0])) / max(num_clips - 1, 1)
    apart = max(1, round(apart_seconds / step)) if step > 0 else num_clips
    if num_clips <= apart:
        raise ValueError(f"{num_clips} clips along a part are too few to compare those {apart_seconds:g} s apart")
    length = np.linalg.norm(features, axis=2, keepdims=True)
    directions = (features / np.maximum(length, np.finfo(np.float32).tiny)).astype(np.float64)
    cosines = (directions[:, apart:] * directions[:, :-apart]).sum(axis=2)
    between = (middles[:, apart:] + middles[:, :-apart]) / 2
    peaks: npt.NDArray[np.float64] = between[np.arange(len(between)), np.argmin(cosines, axis=1)]
    return peaks
