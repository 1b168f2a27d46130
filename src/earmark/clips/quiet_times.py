"""Quiet times: those far from every moment that was found, where nothing is heard to happen.

Beside the path of a sample: `earmark.clips.dataset` draws them in the place of some moments.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["QuietTimes"]


class QuietTimes:
    """The quiet times of videos, from which numbers in [0, 1) draw evenly.

    A time t of a video of d seconds is quiet if ``margin <= t <= d - margin`` and each moment is at least `distance`
    away.

    Args:
        moments: For each video the times of all moments found, in any order.
        durations: Of the videos, in seconds.
        margin_seconds: From both ends of a video.
        distance_seconds: From each moment, above 0.

    Example:
        >>> quiet = QuietTimes([np.array([5.0])], np.array([10.0]), margin_seconds=1.0, distance_seconds=2.0)
        >>> [quiet.time_of(0, draw) for draw in (0.0, 0.25, 0.5, 0.75)]  # from 1 to 3, and from 7 to 9
        [1.0, 2.0, 7.0, 8.0]
    """

    def __init__(
        self,
        moments: Sequence[npt.NDArray[np.float64]],
        durations: npt.NDArray[np.float64],
        *,
        margin_seconds: float,
        distance_seconds: float,
    ) -> None:
        if not distance_seconds > 0:
            raise ValueError(f"need quiet times at some distance from moments, got {distance_seconds} s")
        counts = np.array([len(times) for times in moments], np.int64)
        # one interval before each moment, and one after the last: of video v those from _first[v] to _first[v + 1]
        self._first = np.concatenate([[0], np.cumsum(counts + 1)])
        starts, stops = np.empty(self._first[-1]), np.empty(self._first[-1])
        for video, times in enumerate(moments):
            mine = slice(self._first[video], self._first[video + 1])
            ordered = np.sort(times)
            starts[mine] = np.append(margin_seconds, np.maximum(ordered + distance_seconds, margin_seconds))
            last = durations[video] - margin_seconds
            stops[mine] = np.append(np.minimum(ordered - distance_seconds, last), last)
        self._starts = starts
        # seconds of quiet in all intervals before each one
        self._reached = np.concatenate([[0.0], np.cumsum(np.maximum(stops - starts, 0.0))])

    def seconds(self, video: int) -> float:
        """Return how many seconds of a video are quiet."""
        return float(self._reached[self._first[video + 1]] - self._reached[self._first[video]])

    def time_of(self, video: int, draw: float) -> float:
        """Return the quiet time that a number in [0, 1) draws.

        Args:
            video: Its number.
            draw: The number.

        Raises:
            ValueError: If no time of the video is quiet.
        """
        first, last = self._first[video], self._first[video + 1]
        if not self.seconds(video):
            raise ValueError(f"video {video} has no quiet time")
        reached = self._reached[first] + draw * self.seconds(video)
        # to the right, so that intervals without any length are passed over
        place = int(np.searchsorted(self._reached[first:last], reached, side="right")) - 1 + first
        # A number that rounding takes to the end of all intervals is in the last one of any length.
        while self._reached[place + 1] == self._reached[place]:
            place -= 1
        length = self._reached[place + 1] - self._reached[place]
        return float(self._starts[place] + min(reached - self._reached[place], length))
