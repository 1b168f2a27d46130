"""Which moments lie nearest to one another, and how often they show the same.

Path of a sample: features before and after --change, or their mean--> nearest moments of other videos --> precision.
Neighbours of one video show the same kitchen and the same things, whatever was learned: they are left out.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from earmark.evaluation.ranking import cosine_similarities

__all__ = ["OPPOSITES", "chance_precision", "nearest_of_other_videos", "neighbour_precision", "opposite_pairs"]

OPPOSITES = (("open", "close"), ("take", "put"), ("turn-on", "turn-off"), ("insert", "remove"))

Floats = npt.NDArray[np.float64]


def nearest_of_other_videos(
    vectors: npt.NDArray[np.floating], videos: npt.NDArray[np.int64], *, k: int
) -> npt.NDArray[np.int64]:
    """Return the k nearest moments of other videos by the cosine, nearest first, of equals the first: ``(N, k)``.

    Args:
        vectors: ``(N, D)``.
        videos: Number of each moment's video, ``(N,)``.
        k: How many.

    Returns:
        Numbers of moments; -1 where other videos have fewer than k.

    Example:
        >>> nearest_of_other_videos(np.array([[1.0, 0], [1, 0], [1, 0.1], [0, 1]]), np.array([0, 0, 1, 1]), k=1).T
        array([[2, 2, 0, 0]])
    """
    similarities = cosine_similarities(vectors, vectors)
    other = videos[:, None] != videos[None]
    similarities[~other] = -np.inf
    order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
    nearest = np.where(np.take_along_axis(other, order, axis=1), order, -1)
    return np.pad(nearest, ((0, 0), (0, k - nearest.shape[1])), constant_values=-1)


def neighbour_precision(nearest: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> Floats:
    """Return the share of each moment's neighbours that have its label, ``(N,)``; NaN without a neighbour.

    Args:
        nearest: Numbers of moments ``(N, k)``, -1 for none.
        labels: Class ids, ``(N,)``.

    Example:
        >>> neighbour_precision(np.array([[1, 2], [0, -1], [-1, -1]]), np.array([4, 4, 5]))
        array([0.5, 1. , nan])
    """
    there = nearest >= 0
    same = there & (labels[nearest] == labels[:, None])
    counts = there.sum(axis=1)
    shares: Floats = np.divide(same.sum(axis=1), counts, out=np.full(len(counts), np.nan), where=counts > 0)
    return shares


def chance_precision(labels: npt.NDArray[np.int64], videos: npt.NDArray[np.int64]) -> Floats:
    """Return the share of the moments of other videos that have each moment's label: of neighbours drawn at random.

    Args:
        labels: Class ids, ``(N,)``.
        videos: Number of each moment's video, ``(N,)``.

    Returns:
        Shape ``(N,)``; NaN where there is no other video.

    Example:
        >>> chance_precision(np.array([4, 4, 5]), np.array([0, 1, 1]))
        array([0.5, 1. , 0. ])
    """
    num_labels, num_videos = int(labels.max()) + 1, int(videos.max()) + 1
    counts = np.bincount(videos * num_labels + labels, minlength=num_videos * num_labels).reshape(num_videos, -1)
    same = counts.sum(axis=0)[labels] - counts[videos, labels]
    others = len(labels) - counts.sum(axis=1)[videos]
    shares: Floats = np.divide(same, others, out=np.full(len(labels), np.nan), where=others > 0)
    return shares


def opposite_pairs(names: Sequence[str]) -> list[tuple[int, int]]:
    """Return the classes of verbs that undo one another; Ego4D's names, which list synonyms, are known by the first.

    Args:
        names: Of the verbs, by id.

    Example:
        >>> opposite_pairs(["put_(place,_leave,_drop)", "cut", "close", "take_(pick,_grab,_get)", "open"])
        [(4, 2), (3, 0)]
    """
    numbers = {name.partition("(")[0].strip("_ ").replace("_", "-"): number for number, name in enumerate(names)}
    return [(numbers[one], numbers[other]) for one, other in OPPOSITES if one in numbers and other in numbers]
