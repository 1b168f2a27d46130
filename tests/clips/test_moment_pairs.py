"""Both clips and the sound of chosen moments: which moments, which frames, and what is said of the others."""

from dataclasses import replace

import numpy as np
import pytest

from earmark.clips.moment_pairs import MomentPairs
from earmark.clips.store import PreparedStore
from earmark.datasets.records import ActionRecord
from earmark.preparation.catalog import SparseStoreError
from tests.helpers.made_store import FPS, SAMPLE_RATE, add_video, finish_store, number_of, sound_of

TIMES = {"a": [0.2, 2.0, 2.5, 3.0, 8.0], "b": [5.0], "c": [4.0], "d": [0.1]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PreparedStore:
    root = tmp_path_factory.mktemp("pairs")
    rows = [add_video(root, name, split="train" if name in "ab" else "validation") for name in "abd"]
    rows.append(add_video(root, "e", split="train", has_audio=False))
    rows.append(add_video(root, "c", split="validation", width=64, height=48))
    finish_store(root, rows, TIMES)
    return PreparedStore(root)


def test_moments_are_far_enough_from_the_ends_and_from_one_another(store: PreparedStore) -> None:
    clips = MomentPairs(store, split="train")
    assert list(zip(clips.video_ids, clips.times_seconds.tolist(), strict=True)) == [
        ("a", 2.0),
        ("a", 3.0),
        ("a", 8.0),
        ("b", 5.0),
    ]
    assert dict(clips.left_out) == {
        "a at 0.200 s": "nearer than 0.6 s to an end of the video",
        "a at 2.500 s": "less than 1 s after the moment before it",
        "e": "has no sound",
    }
    near = MomentPairs(store, split="train", min_distance_seconds=0.5)
    assert near.times_seconds.tolist() == [2.0, 2.5, 3.0, 8.0, 5.0]


def test_the_frames_and_the_sound_are_those_around_the_moment(store: PreparedStore) -> None:
    clips = MomentPairs(store, split="train", gap_seconds=0.125, audio_seconds=1.0)
    before, after = clips[(4, 0)], clips[(5, 0)]  # of the moment at 8 s, which frame 128 is of
    assert [number_of(frame) for frame in before["video"]] == [k % 120 for k in range(128 - 2 - 8, 128 - 2)]
    assert [number_of(frame) for frame in after["video"]] == [k % 120 for k in range(128 + 2, 128 + 2 + 8)]
    expected = sound_of(10 * SAMPLE_RATE)[int(7.5 * SAMPLE_RATE) : int(8.5 * SAMPLE_RATE)]
    assert np.array_equal(before["audio"], expected)
    assert np.array_equal(after["audio"], expected)
    assert np.allclose(clips.times_of(2)[1] * FPS, np.arange(130, 138))


def test_one_modality_is_read_alone(store: PreparedStore) -> None:
    clips = MomentPairs(store, split="validation")
    seen, heard = clips.only("video"), clips.only("audio")
    assert (len(seen), len(heard)) == (2, 1)
    assert "audio" not in seen[(0, 0)]
    batch = heard.read_batch([(0, 0)])
    assert set(batch) == {"audio", "video_size", "index", "seed"}
    assert np.array_equal(batch["audio"][0], clips[(1, 0)]["audio"])
    assert heard.action_of_item.tolist() == [0]
    assert seen.read_batch([(0, 0), (1, 0)])["video"].shape == (2, 8, 48, 64, 3)
    with pytest.raises(ValueError, match="no audio"):
        seen.only("audio")
    keys = {str(of.cache_key()) for of in (clips, seen, heard, MomentPairs(store, split="train").only("video"))}
    assert len(keys) == 4


def test_some_are_drawn_by_the_seed_and_the_others_are_named(store: PreparedStore) -> None:
    drawn = [MomentPairs(store, split="train", max_moments=2, seed=seed) for seed in (0, 0, 1, 2, 3, 4)]
    chosen = [tuple(zip(of.video_ids, of.times_seconds.tolist(), strict=True)) for of in drawn]
    assert chosen[0] == chosen[1]
    assert len(set(chosen)) > 1
    assert all(len(of) == 2 and list(of) == sorted(of) for of in chosen)
    assert sum("not among the 2 that were drawn" in reason for _, reason in drawn[0].left_out) == 2


def test_a_moment_has_the_labels_of_the_shortest_action_over_it(store: PreparedStore) -> None:
    wide = ActionRecord("1", "a", 1.0, 4.0, "", {"verb": 3, "noun": 1})
    actions = [wide, replace(wide, action_id="2", start_seconds=2.9, stop_seconds=3.1, labels={"verb": 5, "noun": 2})]
    clips = MomentPairs(store, split="train", actions=actions)
    assert clips.labels["verb"].tolist() == [3, 5, -1, -1]
    assert clips.labels["noun"].tolist() == [1, 2, -1, -1]
    assert MomentPairs(store, split="train").labels == {}


def test_what_cannot_be_cut_is_refused(store: PreparedStore) -> None:
    with pytest.raises(ValueError, match="no usable moment of interaction in 0 videos of the split test"):
        MomentPairs(store, split="test")
    with pytest.raises(ValueError, match="at least one moment"):
        MomentPairs(store, split="train", max_moments=0)
    store.around_seconds = 0.75
    try:
        with pytest.raises(SparseStoreError, match=r"holds only 0.75 s .* 1 s are read"):
            MomentPairs(store, split="train")
        assert len(MomentPairs(store, split="train", audio_seconds=None)) == 8
    finally:
        store.around_seconds = None
