"""Batches of few videos: which items, how many videos, and that they are functions of seed and epoch alone."""

from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt
import pytest

from earmark.clips.sampling import EpochBatches, epoch_order
from earmark.clips.video_batches import BatchesOfVideos

Videos = npt.NDArray[np.int64]


def _videos(*counts: int) -> Videos:
    return np.repeat(np.arange(len(counts)), counts)


def _indices(videos: Videos, size: int, videos_per_batch: int, *, epoch: int = 1, **options: int) -> list[list[int]]:
    shuffle = BatchesOfVideos(videos, videos_per_batch=videos_per_batch)
    batches = EpochBatches(len(videos), size, seed=3, epoch=epoch, shuffle=shuffle, **options)
    return [[index for index, _ in keys] for keys in batches]


def _numbers(videos: Videos, batches: list[list[int]]) -> list[int]:
    return [len(np.unique(videos[batch])) for batch in batches]


LONG_TAILED = _videos(*(1 + 400 // (1 + number) for number in range(60)))


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize(
    ("videos", "size", "videos_per_batch"),
    [
        (_videos(*[60] * 32), 128, 8),
        (LONG_TAILED, 64, 4),
        (_videos(*[3] * 50), 32, 2),
        (_videos(5, 4, 1), 16, 2),
        (_videos(1, 1, 1, 1, 1), 4, 3),
    ],
    ids=["alike", "long-tailed", "short", "fewer than a batch", "one item each"],
)
def test_the_items_are_those_of_the_plain_order(
    videos: Videos, size: int, videos_per_batch: int, drop_last: bool
) -> None:
    for epoch in range(3):
        batches = _indices(videos, size, videos_per_batch, epoch=epoch, drop_last=drop_last)
        plain = list(EpochBatches(len(videos), size, seed=3, epoch=epoch, drop_last=drop_last))
        assert [len(batch) for batch in batches] == [len(batch) for batch in plain]
        assert sorted(chain(*batches)) == sorted(index for batch in plain for index, _ in batch)


def test_a_batch_is_of_as_many_videos_as_asked_for_and_of_more_only_where_they_run_out() -> None:
    """32 videos of 60, batches of 128: eight videos give 16 each; the last of one's items don't fill a share."""
    videos = _videos(*[60] * 32)
    of_epochs = [_indices(videos, 128, 8, epoch=epoch) for epoch in range(10)]
    numbers = [_numbers(videos, batches) for batches in of_epochs]
    assert min(chain(*numbers)) == 8
    assert sum(number == 8 for number in chain(*numbers)) >= 0.7 * 150
    assert np.mean(numbers) < 8.7
    biggest = [max(np.bincount(videos[batch])) for batches in of_epochs for batch in batches]
    assert np.mean(biggest) < 20
    assert np.median(biggest) == 16


def test_videos_that_fit_exactly_are_never_mixed_with_others() -> None:
    videos = _videos(*[32] * 8)
    for epoch in range(5):
        batches = _indices(videos, 32, 4, epoch=epoch)
        for batch in batches:
            assert np.unique(videos[batch], return_counts=True)[1].tolist() == [8] * 4


def test_a_video_that_has_most_items_is_in_every_batch_with_the_others_spread_over_all() -> None:
    videos = _videos(1000, *[30] * 40)
    for epoch in range(3):
        batches = _indices(videos, 128, 4, epoch=epoch)
        assert min(_numbers(videos, batches)) >= 4
        share = [int((videos[batch] == 0).sum()) for batch in batches]
        assert len(batches) == 17
        assert max(share) - min(share) <= 2  # about 58 of 128, from the first batch to the last


def test_short_videos_fill_a_batch_together() -> None:
    videos = _videos(*[3] * 50)
    numbers = _numbers(videos, _indices(videos, 30, 2))
    assert min(numbers) >= 10  # three items each
    assert max(numbers) <= 12  # whole videos, but for those at the edges


@pytest.mark.parametrize("world_size", [2, 4])
def test_shares_of_the_ranks_make_up_the_batch_from_any_place_on(world_size: int) -> None:
    whole = _indices(LONG_TAILED, 64, 4)
    parts = [
        _indices(LONG_TAILED, 64, 4, rank=rank, world_size=world_size, start_batch=3) for rank in range(world_size)
    ]
    assert [list(chain(*shares)) for shares in zip(*parts, strict=True)] == whole[3:]


def test_each_ranks_share_is_of_all_videos_of_the_batch() -> None:
    videos = _videos(*[64] * 6)
    halves: list[list[int]] = []
    for epoch in range(10):
        for rank in (0, 1):
            halves += _indices(videos, 32, 2, epoch=epoch, rank=rank, world_size=2)
    assert min(_numbers(videos, halves)) == 2
    of_first = [np.unique(videos[half], return_counts=True)[1][0] / 16 for half in halves]
    assert np.mean(of_first) == pytest.approx(0.5, abs=0.05)


def test_the_order_depends_on_seed_and_epoch_alone_and_never_changes_between_versions() -> None:
    """Frozen from the first version: a run resumed under another NumPy must walk the same batches."""
    videos = _videos(3, 5, 4)
    order = BatchesOfVideos(videos + 7, videos_per_batch=2).order(
        epoch_order(12, seed=0, epoch=0), batch_size=4, seed=0, epoch=0
    )
    assert order.tolist() == [11, 9, 3, 6, 1, 8, 10, 7, 0, 2, 5, 4]
    assert _indices(LONG_TAILED, 64, 4, epoch=1) == _indices(LONG_TAILED, 64, 4, epoch=1)
    assert _indices(LONG_TAILED, 64, 4, epoch=1) != _indices(LONG_TAILED, 64, 4, epoch=2)


def test_batches_come_in_a_drawn_order() -> None:
    """Made one after another, they would share videos with the next one; the long video's would come first."""
    videos = _videos(*[64] * 16)
    shared = []
    for epoch in range(20):
        batches = [set(videos[batch].tolist()) for batch in _indices(videos, 32, 2, epoch=epoch)]
        shared += [len(one & other) for one, other in pairwise(batches)]
    assert np.mean(shared) < 0.5  # of two; by chance about 0.2


@pytest.mark.parametrize("videos_per_batch", [0, 4])
def test_more_videos_than_there_are_or_none_are_refused(videos_per_batch: int) -> None:
    with pytest.raises(ValueError, match=f"can't make batches of {videos_per_batch} videos each: there are 3"):
        BatchesOfVideos(_videos(3, 5, 4), videos_per_batch=videos_per_batch)
