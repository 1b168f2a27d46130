"""Several moments of a segment in one epoch: which they are, how many, and what an item stands for."""

from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from earmark.clips.dataset import MomentClips
from earmark.clips.sampling import EpochBatches, sample_seed, seed_in_group, shared_seed
from earmark.clips.splitmix64 import random_integers
from earmark.clips.store import PreparedStore
from earmark.datasets.records import ActionRecord
from tests.helpers.made_store import add_video, finish_store

A_FIRST = [0.6, 3.0, 3.7, 9.9]  # the usable moments of the first segment of video a


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PreparedStore:
    folder: Path = tmp_path_factory.mktemp("store")
    rows = [add_video(folder, "a", num_frames=400), add_video(folder, "b", num_frames=160, split="validation")]
    finish_store(folder, rows, {"a": [0.59, *A_FIRST, 20.0, 24.4, 24.41], "b": [5.0]})
    return PreparedStore(folder)


def _of_epoch(clips: MomentClips, epoch: int) -> list[tuple[str, float]]:
    return [clips.moment_of(index, clips.visit_seed(3, epoch, index)) for index in range(len(clips))]


def test_a_segment_has_an_item_for_each_of_so_many_moments(store: PreparedStore) -> None:
    """Segment 0 of a has four usable moments, segment 1 none, segment 2 two; b has one."""
    lengths = {number: len(MomentClips(store, moments_per_segment=number)) for number in (1, 2, 3, 4, 9)}
    assert lengths == {1: 3, 2: 5, 3: 6, 4: 7, 9: 7}
    clips = MomentClips(store, moments_per_segment=3)
    assert (clips.num_segments, clips.num_moments, clips.num_segments_without_moment) == (3, 7, 1)
    assert clips.video_ids == ["a", "b"]
    for epoch in range(20):
        visited = _of_epoch(clips, epoch)
        assert [video_id for video_id, _ in visited] == ["a"] * 5 + ["b"]
        times = [time for _, time in visited]
        assert times[:3] == sorted(set(times[:3]) & set(A_FIRST))  # three different ones, in order of time
        assert times[3:] == [20.0, 24.4, 5.0]


def test_moments_are_drawn_without_replacement_and_every_choice_is_as_likely(store: PreparedStore) -> None:
    clips = MomentClips(store, moments_per_segment=2)
    drawn = Counter(tuple(time for _, time in _of_epoch(clips, epoch)[:2]) for epoch in range(3000))
    assert set(drawn) == set(combinations(A_FIRST, 2))
    assert sum((count - 500) ** 2 / 500 for count in drawn.values()) < 20.5  # 99.9 % point, 5 degrees of freedom


@pytest.mark.parametrize("number", [4, 9])
def test_where_all_moments_are_visited_an_item_is_one_moment_in_all_epochs(store: PreparedStore, number: int) -> None:
    clips = MomentClips(store, moments_per_segment=number)
    expected = [("a", time) for time in (*A_FIRST, 20.0, 24.4)] + [("b", 5.0)]
    assert all(_of_epoch(clips, epoch) == expected for epoch in range(5))


def test_random_moments_are_so_many_times_of_each_segment(store: PreparedStore) -> None:
    clips = MomentClips(store, moments="random", moments_per_segment=3)
    assert (len(clips), clips.num_moments, clips.num_segments) == (12, 12, 4)
    times = np.array([[time for _, time in _of_epoch(clips, epoch)[:3]] for epoch in range(400)])
    assert (np.diff(times, axis=1) > 0).all()
    share = (times - 0.6) / (10.0 - 0.6)  # the three are the order statistics of uniform draws
    np.testing.assert_allclose(share.mean(axis=0), [0.25, 0.5, 0.75], atol=0.05)  # 0.011 standard error
    assert share.min() >= 0
    assert share.max() <= 1


def test_one_moment_a_segment_is_what_it_was(store: PreparedStore) -> None:
    clips = MomentClips(store)
    assert [clips.visit_seed(3, 2, index) for index in range(3)] == [sample_seed(3, 2, index) for index in range(3)]
    assert seed_in_group(3, 2, 7, 0, num_places=1) == sample_seed(3, 2, 7)


def test_what_is_not_drawn_together_differs_within_a_segment() -> None:
    """Crops come of the whole seed: no two items, clips and draws have the same numbers."""
    seeds = torch.tensor([seed_in_group(0, epoch, 7, place, num_places=5) for epoch in range(50) for place in range(5)])
    assert len({shared_seed(seed, num_places=5) for seed in seeds.tolist()}) == 50
    draws = torch.cat([random_integers(seeds, num_draws=4, stream=stream) for stream in (0, 1)])
    assert len(draws.unique()) > 0.999 * draws.numel()


def test_an_index_alone_and_the_batches_of_any_ranks_visit_the_same(store: PreparedStore) -> None:
    clips = MomentClips(store, moments_per_segment=3)
    clips.set_epoch(4, seed=3)
    alone = [clips.visit(index) for index in range(6)]
    batches = [
        EpochBatches(6, 6, seed=3, epoch=4, rank=rank, world_size=2, seed_of=clips.visit_seed) for rank in (0, 1)
    ]
    assert sorted(key for part in batches for keys in part for key in keys) == alone
    assert [clips.moment_of(*visit) for visit in alone] == _of_epoch(clips, 4)


def test_labels_are_those_of_each_items_own_moment(store: PreparedStore) -> None:
    actions = [
        ActionRecord(f"x{number}", "a", time - 0.1, time + 0.1, "P01", {"verb": number})
        for number, time in enumerate(A_FIRST)
    ]
    clips = MomentClips(store, actions=actions, moments_per_segment=3)
    for epoch in range(5):
        keys = [(index, clips.visit_seed(3, epoch, index)) for index in range(6)]
        expected = [A_FIRST.index(time) if time in A_FIRST else -1 for _, time in _of_epoch(clips, epoch)]
        batch = clips.read_batch(keys)
        assert batch["label_verb"].tolist() == expected
        assert batch["index"].tolist() == list(range(6))  # of the item, not of the segment
    assert clips.num_labelled_moments == 4


def test_items_know_their_video_of_which_cuts_are_parts(tmp_path: Path) -> None:
    cuts = ["P01_04_000000_000010", "P01_04_000010_000020", "P01_05"]
    finish_store(tmp_path, [add_video(tmp_path, cut) for cut in cuts], {cut: [2.0, 5.0, 7.0] for cut in cuts})
    clips = MomentClips(PreparedStore(tmp_path), moments_per_segment=2)
    assert clips.video_of_item.tolist() == [0, 0, 0, 0, 1, 1]


def test_numbers_that_make_no_sense_are_refused(store: PreparedStore) -> None:
    with pytest.raises(ValueError, match="need at least one moment of a segment, got 0"):
        MomentClips(store, moments_per_segment=0)
    with pytest.raises(ValueError, match="place 2 is out of range: there are 2"):
        seed_in_group(0, 0, 0, 2, num_places=2)
