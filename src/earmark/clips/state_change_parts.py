"""Which part of an Ego4D clip is shown, through which frames, and which of these is the point of no return.

Path of a sample: annotated clip of 8 s --whole or a part, 16 frames--> `earmark.clips.state_change_clips` --> frames.
Nothing here reads a video. Frames are those of the annotation's own count, times those of the file that is read.

Two ways of choosing frames: evenly spread, and as the code that published numbers come from does
(https://github.com/EGO4D/hands-and-objects; Grauman et al., "Ego4D", CVPR 2022).
"""

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from earmark.clips.sampling import sample_seed, uniform_draw

if TYPE_CHECKING:
    from earmark.datasets.ego4d_state_changes import StateChangeRecord

__all__ = [
    "NUM_KEYFRAMES",
    "ChangePart",
    "drawn_part",
    "nearest_place",
    "published_frames",
    "published_part",
    "spread_times",
    "whole_clip",
]

NUM_KEYFRAMES = 16  # frames that are shown of a clip, one of which is its point of no return
PART_SECONDS = (5.0, 8.0)  # least and greatest length of a part that is drawn for training


@dataclass(frozen=True, slots=True)
class ChangePart:
    """A clip, or a part of one, with the places at which it is looked at.

    Attributes:
        record: The annotated clip.
        start_seconds: Where the part starts in the file.
        stop_seconds: Where it ends.
        place_seconds: Times of the `NUM_KEYFRAMES` places.
    """

    record: "StateChangeRecord"
    start_seconds: float
    stop_seconds: float
    place_seconds: tuple[float, ...]

    @property
    def place_frames(self) -> tuple[float, ...]:
        """The places in frames of the annotation; a place between two frames has a number between theirs."""
        record = self.record
        return tuple(record.start_frame + (time - record.start_seconds) * record.fps for time in self.place_seconds)

    @property
    def keyframe(self) -> int:
        """The place nearest to the point of no return, the first of equally near ones; -1 without a change."""
        change = self.record.pnr_seconds
        return -1 if change is None else nearest_place(self.place_seconds, change)


def spread_times(start_seconds: float, stop_seconds: float) -> tuple[float, ...]:
    """Return the centres of `NUM_KEYFRAMES` equal parts of a span, in seconds.

    Example:
        >>> spread_times(0.0, 8.0)[:3]
        (0.25, 0.75, 1.25)
    """
    step = (stop_seconds - start_seconds) / NUM_KEYFRAMES
    return tuple(start_seconds + (place + 0.5) * step for place in range(NUM_KEYFRAMES))


def nearest_place(places: npt.ArrayLike, at: float) -> int:
    """Return the number of the place nearest to a time or frame, the first of equally near ones.

    Args:
        places: In ascending order.
        at: In the same unit.

    Example:
        >>> nearest_place([0, 15, 30], 22.5), nearest_place([0, 15, 30], 23)
        (1, 2)
    """
    distances = np.abs(np.asarray(places, np.float64) - at)
    return int(np.argmax(distances <= distances.min() + 1e-9))  # times of equally near ones differ by rounding


def whole_clip(record: "StateChangeRecord") -> ChangePart:
    """Return all of a clip, as it is judged."""
    start, stop = record.start_seconds, record.stop_seconds
    return ChangePart(record, start, stop, spread_times(start, stop))


def drawn_part(record: "StateChangeRecord", *, seed: int, number: int) -> ChangePart:
    """Return a part of a clip that is drawn for training: 5 to 8 s long, with the point of no return in it.

    Length and place are drawn evenly among those that are possible. The draw depends on the seed, the number and the
    clip's name, and on no other clip.

    Args:
        record: The annotated clip; a shorter one than 5 s is taken whole.
        seed: Of the draw.
        number: Which of several parts of the clip.

    Example:
        >>> from earmark.datasets import StateChangeRecord
        >>> record = StateChangeRecord("x", "v", 10.0, 18.0, 300, 540, 30.0, True, 420)
        >>> part = drawn_part(record, seed=0, number=0)
        >>> 10 <= part.start_seconds <= record.pnr_seconds <= part.stop_seconds <= 18
        True
    """
    seconds = record.stop_seconds - record.start_seconds
    visit = _seed_of(record, seed, number)
    least, greatest = (min(length, seconds) for length in PART_SECONDS)
    length = least + (greatest - least) * uniform_draw(visit, stream=0x4C454E)
    first, last = 0.0, seconds - length
    if record.pnr_seconds is not None:
        change = min(max(record.pnr_seconds - record.start_seconds, 0.0), seconds)
        first, last = max(first, change - length), min(last, change)
    start = record.start_seconds + first + (last - first) * uniform_draw(visit, stream=0x4F4646)
    stop = min(start + length, record.stop_seconds)
    return ChangePart(record, start, stop, spread_times(start, stop))


def published_frames(start_frame: int, stop_frame: int) -> npt.NDArray[np.int64]:
    """Return the frames of a clip that Ego4D's code shows: those whose number the sampling step divides.

    The step is the number of frames over 16, rounded up, and rounded down where that gives fewer than 16 frames; the
    first 16 are taken. So the first frame can be as many as a step late, and what follows the sixteenth is not seen.

    Args:
        start_frame: The first frame, counted in the whole video.
        stop_frame: The frame that the clip ends before.

    Raises:
        ValueError: If the clip has fewer than 16 frames.

    Example:
        >>> published_frames(601, 841)[[0, -1]].tolist()  # the sixteenth is the last one before frame 841
        [615, 840]
    """
    num_frames = stop_frame - start_frame
    if num_frames < NUM_KEYFRAMES:
        raise ValueError(f"frames {start_frame} to {stop_frame} are {num_frames}, fewer than {NUM_KEYFRAMES}")
    frames = np.arange(start_frame, stop_frame, dtype=np.int64)
    chosen: npt.NDArray[np.int64] = frames[frames % math.ceil(num_frames / NUM_KEYFRAMES) == 0]
    if len(chosen) < NUM_KEYFRAMES:
        chosen = frames[frames % (num_frames // NUM_KEYFRAMES) == 0]
    return chosen[:NUM_KEYFRAMES]


def published_part(record: "StateChangeRecord", *, seed: int | None = None, number: int = 0) -> ChangePart:
    """Return a clip, or a part of it for training, through the frames that Ego4D's code shows.

    Of a part the length L is drawn between 5 and 8 s, and its start between 8 s - L and 1 s, in whichever order these
    stand: what was meant as the end of a range is passed as its beginning. It ends with the clip at the latest, and a
    point of no return outside moves that side to the end of the clip.

    Args:
        record: The annotated clip.
        seed: Of the part; None takes the whole clip.
        number: Which of several parts of the clip.

    Raises:
        ValueError: If there are fewer than 16 frames; with the clip's name.
    """
    first, last = record.start_frame, record.stop_frame
    if seed is not None:
        visit = _seed_of(record, seed, number)
        length = PART_SECONDS[0] + (PART_SECONDS[1] - PART_SECONDS[0]) * uniform_draw(visit, stream=0x4C454E)
        low = PART_SECONDS[1] - length
        start = low + (1.0 - low) * uniform_draw(visit, stream=0x4F4646)
        first, last = (
            min(record.start_frame + math.floor(seconds * record.fps), record.stop_frame)
            for seconds in (start, start + length)
        )
        if record.pnr_frame is not None:
            first = record.start_frame if record.pnr_frame < first else first
            last = record.stop_frame if record.pnr_frame > last else last
    try:
        frames = published_frames(first, last)
    except ValueError as error:
        raise ValueError(f"{record.unique_id}: {error}") from error
    start, stop, *times = (
        record.start_seconds + (frame - record.start_frame) / record.fps for frame in (first, last, *frames.tolist())
    )
    return ChangePart(record, start, stop, tuple(times))


def _seed_of(record: "StateChangeRecord", seed: int, number: int) -> int:
    return sample_seed(seed, number, zlib.crc32(record.unique_id.encode()))
