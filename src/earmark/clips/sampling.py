"""Order and per-sample seeds: which items make up each batch, as pure functions of (seed, epoch, index).

In the path of a sample this file stands before the data sets: it draws the keys ``(index, seed)`` that a data set turns
into samples. Nothing here touches a global generator, and only `Visits`, for data sets that are asked by index
alone, has any state, the epoch; so a run that is stopped anywhere and started again, with any number of workers or
ranks, walks the same batches.
"""

import operator
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

from earmark.clips.splitmix64 import mixed
from earmark.clips.video_batches import BatchesOfVideos

Key = int | tuple[int, int]
"""An index, or an index and the seed of the visit."""
SeedOf = Callable[[int, int, int], int]
"""From the seed of the run, the epoch and the index to the seed of the visit, such as `sample_seed`."""


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """Return the seed of everything random about one sample in one epoch.

    Args:
        seed: Seed of the run, not negative.
        epoch: Epoch, counted from 0.
        index: Index of the item in the data set.

    Returns:
        A number of 63 bits, never negative, so that it fits an int64 tensor.

    Raises:
        ValueError: If an argument is negative.

    Example:
        >>> sample_seed(0, 0, 7) == sample_seed(0, 0, 7), sample_seed(0, 0, 7) == sample_seed(0, 1, 7)
        (True, False)
    """
    if min(seed, epoch, index) < 0:
        raise ValueError(f"seed, epoch and index can't be negative, got {seed}, {epoch}, {index}")
    return mixed(mixed(mixed(seed) ^ epoch) ^ index) >> 1


def seed_in_group(seed: int, epoch: int, group: int, place: int, *, num_places: int) -> int:
    """Return the seed of a visit that draws together with others: they share all bits but the last few.

    What they draw together comes of the bits that they share (`shared_seed`), all else of the whole seed.

    Args:
        seed: Seed of the run, not negative.
        epoch: Epoch, counted from 0.
        group: Number of the group.
        place: Which of the group, from 0 to below `num_places`.
        num_places: The most that a group has. With one, the seed is `sample_seed` of the group.

    Returns:
        A number of 63 bits, as `sample_seed`.

    Raises:
        ValueError: If a number is negative, or the place out of range.

    Example:
        >>> one, other = (seed_in_group(0, 3, 7, place, num_places=3) for place in (0, 2))
        >>> one == other, shared_seed(one, num_places=3) == shared_seed(other, num_places=3)
        (False, True)
    """
    if not 0 <= place < num_places:
        raise ValueError(f"place {place} is out of range: there are {num_places}")
    num_bits = (num_places - 1).bit_length()
    return sample_seed(seed, epoch, group) >> num_bits << num_bits | place


def shared_seed(seed: int, *, num_places: int) -> int:
    """Return what the seeds of a group have in common (see `seed_in_group`)."""
    return seed >> (num_places - 1).bit_length()


def uniform_draw(seed: int, *, stream: int) -> float:
    """Return the number in [0, 1) that a seed determines.

    A stream of its own, so that the draw does not repeat those the transforms make from the same seed, and Philox's raw
    output, which NumPy promises to keep, so that a run can be resumed under another NumPy.

    Args:
        seed: Of the visit.
        stream: Number of what is drawn.

    Example:
        >>> uniform_draw(5, stream=1) == uniform_draw(5, stream=1) != uniform_draw(5, stream=2)
        True
    """
    raw = int(np.random.Philox(key=np.array([seed, stream], np.uint64)).random_raw())
    return (raw >> 11) / (1 << 53)


class Visits:
    """Turns keys of a data set into visits (index, seed): an index alone gets the seed of its epoch.

    Example:
        >>> visits = Visits()
        >>> visits.of((2, 42), num_items=5)
        (2, 42)
        >>> visits.set_epoch(3, seed=1)
        >>> visits.of(-1, num_items=5) == (4, sample_seed(1, 3, 4))
        True
    """

    def __init__(self) -> None:
        # In memory that the workers of a DataLoader share, so that persistent workers see a new epoch, too.
        self._seed_and_epoch = torch.zeros(2, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int, *, seed: int = 0) -> None:
        """Say which epoch begins; before that, it is epoch 0 of seed 0.

        Args:
            epoch: Counted from 0.
            seed: Seed of the run.

        Raises:
            ValueError: If a number is negative or too large for an int64.
        """
        if not (0 <= epoch < 1 << 63 and 0 <= seed < 1 << 63):
            raise ValueError(f"epoch and seed must be from 0 to below 2^63, got {epoch} and {seed}")
        self._seed_and_epoch.copy_(torch.tensor([seed, epoch]))

    def of(self, key: Key, *, num_items: int, seed_of: SeedOf = sample_seed) -> tuple[int, int]:
        """Return the index, counted from the start, and the seed of a key.

        Args:
            key: An index, negative ones from the end, or (index, seed).
            num_items: Size of the data set.
            seed_of: Gives the seed to an index alone.

        Raises:
            IndexError: If there is no such item.
            TypeError: If the key is neither.
        """
        given, seed = key if isinstance(key, tuple | list) else (key, None)
        index = operator.index(given)
        if not -num_items <= index < num_items:
            raise IndexError(f"item {index} is out of range: there are {num_items}")
        index %= num_items
        if seed is not None:
            return index, operator.index(seed)
        run_seed, epoch = self._seed_and_epoch.tolist()
        return index, seed_of(run_seed, epoch, index)


def epoch_order(num_items: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order in which an epoch visits the items of a data set.

    The items are sorted by the raw output of a Philox generator keyed with (seed, epoch). NumPy promises that output
    for good, which it does not for ``Generator.permutation``: a run can be resumed under another NumPy.

    Args:
        num_items: Number of items of the data set.
        seed: Seed of the run, in [0, 2**64).
        epoch: Epoch, counted from 0.

    Returns:
        A permutation of ``range(num_items)``, int64 (N,).

    Example:
        >>> sorted(epoch_order(5, seed=0, epoch=0).tolist())
        [0, 1, 2, 3, 4]
    """
    generator = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64))
    return np.argsort(generator.random_raw(num_items), kind="stable").astype(np.int64)


def num_full_batches(num_items: int, batch_size: int) -> int:
    """Return how many batches an epoch has that leaves out what does not fill one: one, if there are fewer items.

    Args:
        num_items: Number of items of the data set.
        batch_size: Size of the global batch.

    Example:
        >>> num_full_batches(10, 4), num_full_batches(3, 4)
        (2, 1)
    """
    return max(1, num_items // batch_size)


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """The batches of one epoch, as lists of the keys ``(index, seed)`` of one rank's samples.

    Every global batch is cut into contiguous slices, one per rank: the ranks' slices put together are the global batch,
    whatever the number of ranks.

    Args:
        num_items: Number of items of the data set.
        batch_size: Size of the global batch, over all ranks together.
        seed: Seed of the run.
        epoch: Epoch, counted from 0.
        rank: This process's rank.
        world_size: Number of ranks.
        start_batch: Batch of the epoch to start at, for a resume in mid-epoch.
        drop_last: Leave out an incomplete last batch, unless it is the only one.
        shuffle: Visit the items in the order of `epoch_order`; otherwise in their own. Given `BatchesOfVideos`, the
            same items are visited, in batches of few videos each.
        seed_of: Gives each sample its seed; `MomentClips.visit_seed` for moments that are drawn together.

    Raises:
        ValueError: If there are no items, a number is out of range, or a batch can't be shared out equally.

    Example:
        >>> [[index for index, _ in keys] for keys in EpochBatches(5, 2, seed=0, epoch=0, shuffle=False)]
        [[0, 1], [2, 3]]
    """

    def __init__(
        self,
        num_items: int,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        rank: int = 0,
        world_size: int = 1,
        start_batch: int = 0,
        drop_last: bool = True,
        shuffle: bool | BatchesOfVideos = True,
        seed_of: SeedOf = sample_seed,
    ) -> None:
        if num_items < 1 or batch_size < 1:
            raise ValueError(f"need at least one item and one sample per batch, got {num_items} and {batch_size}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is out of range: there are {world_size} ranks")
        last_size = min(num_items, batch_size) if drop_last else num_items % batch_size or batch_size
        if batch_size % world_size or last_size % world_size:
            raise ValueError(
                f"batches of {batch_size} from {num_items} items can't be shared out equally among {world_size} ranks; "
                f"give a batch size of at most {num_items} that {world_size} divides"
            )
        self.num_batches = num_full_batches(num_items, batch_size) if drop_last else -(-num_items // batch_size)
        if not 0 <= start_batch <= self.num_batches:
            raise ValueError(f"can't start at batch {start_batch} of an epoch of {self.num_batches}")
        self._num_items, self._batch_size = num_items, batch_size
        self._seed, self._epoch = seed, epoch
        self._rank, self._world_size = rank, world_size
        self._start_batch, self._shuffle, self._seed_of = start_batch, shuffle, seed_of

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        if self._shuffle:
            order = epoch_order(self._num_items, seed=self._seed, epoch=self._epoch)
        else:
            order = np.arange(self._num_items)
        if isinstance(self._shuffle, BatchesOfVideos):
            order = self._shuffle.order(
                order[: self.num_batches * self._batch_size],  # without those that are left out
                batch_size=self._batch_size,
                seed=self._seed,
                epoch=self._epoch,
            )
        for batch in range(self._start_batch, self.num_batches):
            indices = order[batch * self._batch_size : (batch + 1) * self._batch_size]
            share = len(indices) // self._world_size
            mine = indices[self._rank * share : (self._rank + 1) * share].tolist()
            yield [(index, self._seed_of(self._seed, self._epoch, index)) for index in mine]

    def __len__(self) -> int:
        return self.num_batches - self._start_batch
