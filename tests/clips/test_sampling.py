"""Order and seeds are pure functions, and the same for any number of ranks and any place to start at."""

from itertools import chain

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from earmark.clips.sampling import EpochBatches, epoch_order, sample_seed
from earmark.clips.splitmix64 import mixed


def test_mixed_gives_the_published_outputs_of_splitmix64() -> None:
    """The first three outputs from state 0; SplitMix64 adds a constant to its state at each step."""
    golden = 0x9E3779B97F4A7C15
    outputs = [mixed(golden * step) for step in range(3)]
    assert outputs == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_sample_seeds_are_63_bits_and_differ_by_seed_epoch_and_index() -> None:
    seeds = [sample_seed(s, e, i) for s in range(8) for e in range(8) for i in range(200)]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 0
    assert max(seeds) < 2**63
    bits = np.array([[seed >> bit & 1 for bit in range(63)] for seed in seeds])
    np.testing.assert_allclose(bits.mean(axis=0), 0.5, atol=0.03)  # 12,800 draws: 0.0044 standard error
    assert sample_seed(2**63, 10**6, 2**40) >= 0


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="can't be negative"):
        sample_seed(-1, 0, 0)


def test_the_order_is_a_permutation_that_depends_on_seed_and_epoch_alone() -> None:
    order = epoch_order(1000, seed=3, epoch=5)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(1000))
    np.testing.assert_array_equal(order, epoch_order(1000, seed=3, epoch=5))
    assert (order == epoch_order(1000, seed=3, epoch=6)).mean() < 0.02
    assert (order == epoch_order(1000, seed=5, epoch=3)).mean() < 0.02
    assert (order == np.arange(1000)).mean() < 0.02


def test_the_order_never_changes_between_versions() -> None:
    """A run resumed under another NumPy must walk the same batches: frozen from this implementation's first version."""
    assert epoch_order(8, seed=0, epoch=0).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]
    assert sample_seed(0, 0, 0) == 1279368494785126216


def test_every_place_of_the_order_is_equally_likely() -> None:
    first = np.bincount([epoch_order(10, seed=0, epoch=epoch)[0] for epoch in range(3000)], minlength=10)
    chi_squared = ((first - 300) ** 2 / 300).sum()
    assert chi_squared < 27.9  # the 99.9 % point for 9 degrees of freedom


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("start_batch", [0, 3])
def test_slices_of_the_ranks_make_up_the_global_batch(world_size: int, start_batch: int) -> None:
    def batches(rank: int, world_size: int) -> EpochBatches:
        return EpochBatches(43, 8, seed=1, epoch=2, rank=rank, world_size=world_size, start_batch=start_batch)

    whole = list(batches(0, 1))
    slices = [list(batches(rank, world_size)) for rank in range(world_size)]
    assert [list(chain(*parts)) for parts in zip(*slices, strict=True)] == whole
    assert len(whole) == len(batches(0, 1)) == 5 - start_batch
    order = epoch_order(43, seed=1, epoch=2)
    expected = [(int(index), sample_seed(1, 2, int(index))) for index in order[start_batch * 8 : 40]]
    assert list(chain(*whole)) == expected


def test_the_incomplete_batch_is_dropped_unless_it_is_wanted_or_the_only_one() -> None:
    def sizes(num_items: int, *, drop_last: bool) -> list[int]:
        batches = EpochBatches(num_items, 4, seed=0, epoch=0, drop_last=drop_last)
        assert len(batches) == len(list(batches))
        return [len(batch) for batch in batches]

    assert sizes(10, drop_last=True) == [4, 4]
    assert sizes(10, drop_last=False) == [4, 4, 2]
    assert sizes(8, drop_last=False) == [4, 4]
    assert sizes(3, drop_last=True) == [3]


def test_without_shuffling_items_come_in_their_own_order() -> None:
    batches = EpochBatches(5, 2, seed=0, epoch=9, drop_last=False, shuffle=False)
    assert [[index for index, _ in batch] for batch in batches] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_items": 0}, "at least one item"),
        ({"batch_size": 0}, "at least one item"),
        ({"rank": 2, "world_size": 2}, "rank 2 is out of range: there are 2 ranks"),
        ({"start_batch": 6}, "can't start at batch 6 of an epoch of 5"),
        ({"world_size": 3}, "batches of 8 from 43 items can't be shared out equally among 3 ranks"),
        ({"num_items": 3, "world_size": 2}, "can't be shared out equally"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        EpochBatches(**{"num_items": 43, "batch_size": 8, "seed": 0, "epoch": 0} | options)


class _Keys(Dataset[tuple[int, int]]):
    def __getitem__(self, key: tuple[int, int]) -> tuple[int, int]:
        return key


def test_no_global_generator_is_drawn_from() -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    loader = DataLoader(
        _Keys(), batch_sampler=EpochBatches(64, 8, seed=0, epoch=0), collate_fn=list, generator=torch.Generator()
    )
    assert sum(len(batch) for batch in loader) == 64
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert all(map(np.array_equal, np.random.get_state(), numpy_before))  # noqa: NPY002
