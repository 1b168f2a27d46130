"""Whether the time stamps of sound can be believed: they are compared with the number of its samples."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray

from earmark.media.opening import JITTER_SECONDS

# Where a time stamp contradicts the samples before it, so much of what follows is looked at.
JUDGED_SECONDS = 2.0
JUDGED_PIECES = 8
_MIN_STEPS = 3
# Recorders' clocks differ from true time by less than 0.1 %; twice as much as this is a wrong rate in a header.
_MAX_RATE_ERROR = 0.03
# Where recordings were joined or packets lost, a few time stamps are far off, and those between them are right.
_MAX_SHARE_OF_JUMPS = 0.1


@dataclass(frozen=True, slots=True)
class Piece:
    """Sound of one decoded frame.

    Attributes:
        seconds: its time stamp on the file's clock, or None.
        rate: in Hz.
        samples: float32 mono ``(S,)``.
    """

    seconds: float | None
    rate: int
    samples: NDArray[np.float32]

    @property
    def length_seconds(self) -> float:
        """Length by the number of samples."""
        return len(self.samples) / self.rate


class Lookahead:
    """An iterator over pieces that can be asked what comes next."""

    def __init__(self, pieces: Iterator[Piece]) -> None:
        self._pieces = pieces
        self._waiting: deque[Piece] = deque()

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> Piece:
        """Return the next piece."""
        return self._waiting.popleft() if self._waiting else next(self._pieces)

    def ahead(self, length_seconds: float, num_pieces: int) -> Sequence[Piece]:
        """Return what comes next, without taking it: at least this long and this many pieces, or all that is left."""
        seconds = sum(piece.length_seconds for piece in self._waiting)
        while seconds < length_seconds or len(self._waiting) < num_pieces:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._waiting.append(piece)
            seconds += piece.length_seconds
        return tuple(self._waiting)


def clock_is_off(pieces: Sequence[Piece], *, only_slow: bool) -> bool:
    """Return whether the time stamps of neighbouring pieces go at another rate than their samples.

    A few jumps, as at a seam or a gap, do not mean a wrong rate: then the stamps between them agree with the samples.

    Args:
        pieces: in the order of the file.
        only_slow: ignore time stamps that run too fast: codecs that send nothing in silence leave such gaps.

    Example:
        >>> second = np.zeros(8000, np.float32)
        >>> clock_is_off([Piece(0.1 * k, 8000, second) for k in range(8)], only_slow=True)
        True
        >>> clock_is_off([Piece(k % 20, 8000, second) for k in range(40)], only_slow=True)
        False
    """
    steps = np.array(
        [
            (one.length_seconds, two.seconds - one.seconds)
            for one, two in pairwise(pieces)
            if one.seconds is not None and two.seconds is not None
        ],
        np.float64,
    ).reshape(-1, 2)
    lengths, errors = steps[:, 0], steps[:, 1] - steps[:, 0]
    if len(errors) < _MIN_STEPS:
        return False
    # Rounding errors are all kept, since they cancel; of jumps the largest are left out.
    largest = np.argsort(-np.abs(errors), kind="stable")[: int(np.ceil(len(errors) * _MAX_SHARE_OF_JUMPS))]
    jumps = largest[np.abs(errors[largest]) > JITTER_SECONDS]
    kept = np.ones(len(errors), bool)
    kept[jumps] = False
    error = errors[kept].sum() / max(lengths[kept].sum(), 1e-9)
    return bool(error < -_MAX_RATE_ERROR if only_slow else abs(error) > _MAX_RATE_ERROR)
