"""Orders whose batches are made of the samples of few videos, so that many of a sample's negatives are from its video.

In the path of a sample this file stands beside `earmark.clips.sampling`, whose `EpochBatches` asks it for an order.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from earmark.clips.splitmix64 import mixed

__all__ = ["BatchesOfVideos"]

_BATCHES = 0x424154  # the stream of draws that batches are put in order by


class BatchesOfVideos:
    """How the items of an epoch are put into batches of few videos each.

    The items are those of the plain order, and no others are left out. They are handed out from the first batch to the
    last. A batch takes equally many from each of its videos, all of one that has fewer left, and the rest from those
    that have more. A video stays until it is used up; then the next one comes, in the order in which the plain order
    first meets them, which makes long videos come early. So that the last batches have as many videos as the first, one
    that could not be used up any more at equal shares comes at once, and one of more than its share of the whole epoch
    gives more to each batch. Where the videos of a batch have too few items left to fill it, it takes a further one.
    At last the whole batches, and the items of each, are put in a drawn order, so that the share of each process and
    each part of a batch has items of all its videos.

    Args:
        video_of_item: Number of the video that each item is of, int64 (num_items,).
        videos_per_batch: Videos of a batch.

    Raises:
        ValueError: If the videos are fewer, or none are asked for.

    Example:
        >>> from earmark.clips.sampling import EpochBatches
        >>> videos = np.arange(24) // 6  # four videos of six items
        >>> batches = EpochBatches(24, 6, seed=0, epoch=0, shuffle=BatchesOfVideos(videos, videos_per_batch=2))
        >>> [len({int(videos[index]) for index, _ in keys}) for keys in batches]
        [2, 2, 2, 2]
    """

    def __init__(self, video_of_item: NDArray[np.integer], *, videos_per_batch: int) -> None:
        numbers, self._video_of_item = np.unique(video_of_item, return_inverse=True)
        self.num_videos, self.videos_per_batch = len(numbers), videos_per_batch
        if not 1 <= videos_per_batch <= self.num_videos:
            raise ValueError(f"can't make batches of {videos_per_batch} videos each: there are {self.num_videos}")

    def order(self, plain: NDArray[np.int64], *, batch_size: int, seed: int, epoch: int) -> NDArray[np.int64]:
        """Put the items of an epoch into the order of their batches.

        Args:
            plain: The items in their plain order, (N,); the last batch is of the rest, if they don't fill it.
            batch_size: Size of the global batch.
            seed: Seed of the run, in [0, 2**64).
            epoch: Epoch, counted from 0.

        Returns:
            The same items, (N,).
        """
        if not len(plain):
            return plain
        videos = self._video_of_item[plain]
        places = np.argsort(videos, kind="stable")  # of the items in the plain order, video by video
        counts = np.bincount(videos, minlength=self.num_videos)
        nexts = np.cumsum(counts) - counts
        sizes = [min(batch_size, len(plain) - start) for start in range(0, len(plain), batch_size)]
        batches = []
        for taken in self._taken(videos, counts, sizes):
            batch = np.concatenate([places[nexts[video] : nexts[video] + number] for video, number in taken])
            for video, number in taken:
                nexts[video] += number
            batches.append(plain[np.sort(batch)])
        num_whole = len(plain) // batch_size
        key = np.array([mixed(seed ^ _BATCHES), epoch], np.uint64)
        drawn = np.argsort(np.random.Philox(key=key).random_raw(num_whole), kind="stable")
        return np.concatenate([*(batches[number] for number in drawn.tolist()), *batches[num_whole:]])

    def _taken(
        self, videos: NDArray[np.intp], counts: NDArray[np.int64], sizes: list[int]
    ) -> Iterator[list[tuple[int, int]]]:
        """Yield for each batch which videos it is of, and how many items it takes from each."""
        met, first = np.unique(videos, return_index=True)
        queue = met[np.argsort(first, kind="stable")]
        left = counts[queue]  # in the order of the queue, so those that were begun stand before the others
        for done, size in enumerate(sizes):
            num_batches = len(sizes) - done
            waiting = np.flatnonzero(left)
            # more left than the batches after this one can take at equal shares
            urgent = left[waiting] * self.videos_per_batch > size * (num_batches - 1)
            waiting = waiting[np.lexsort((waiting, np.where(urgent, -left[waiting], 0), ~urgent))]
            least = left[waiting] // num_batches
            most = np.where(least * self.videos_per_batch > size, -(-left[waiting] // num_batches), left[waiting])
            if most.sum() < size:  # the last batch is smaller, so the others have to take a little more
                most = left[waiting]
            number = max(int(np.searchsorted(np.cumsum(most), size)) + 1, self.videos_per_batch)
            chosen = waiting[:number]
            numbers = _shared_out(size, most[:number], least=least[:number])
            left[chosen] -= numbers
            yield [(int(queue[place]), int(number)) for place, number in zip(chosen, numbers, strict=True) if number]


def _shared_out(size: int, most: NDArray[np.int64], *, least: NDArray[np.int64]) -> NDArray[np.int64]:
    """Share a number out as equally as can be: to each one its most at most, and its least where that is more.

    Args:
        size: The number, at most the sum of the former and at least that of the latter.
        most: (V,).
        least: (V,), none above its most.
    """
    numbers = np.zeros_like(most)
    missing, others = size, list(range(len(most)))
    for place in sorted(others, key=lambda place: -int(least[place])):
        if int(least[place]) * len(others) <= missing:
            break  # an equal share is no less, for the rest of them too
        numbers[place] = least[place]
        missing -= int(least[place])
        others.remove(place)
    for position, place in enumerate(sorted(others, key=lambda place: int(most[place]))):
        numbers[place] = min(int(most[place]), missing // (len(others) - position))
        missing -= int(numbers[place])
    for place in np.argsort(numbers - most, kind="stable").tolist():  # what the others could not take
        more = min(missing, int(most[place] - numbers[place]))
        numbers[place] += more
        missing -= more
    return numbers
