import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from earmark.cli.checks import left_out_of_run
from earmark.clips.action_clips import ActionClips
from earmark.clips.dataset import MomentClips, collate
from earmark.clips.sampling import sample_seed
from earmark.clips.store import PreparedStore
from earmark.datasets.records import ActionRecord
from tests.helpers.made_store import FPS, SAMPLE_RATE, add_video, finish_store, number_of, sound_of


@pytest.fixture
def store(tmp_path: Path) -> PreparedStore:
    rows = [
        add_video(tmp_path, "a", num_frames=400),  # 25 s: segments 0, 1, 2
        add_video(tmp_path, "b", num_frames=160, width=32, height=48, split="validation"),
        add_video(tmp_path, "mute", num_frames=40, has_audio=False),
    ]
    finish_store(tmp_path, rows, {"a": [0.59, 0.6, 3.0, 3.7, 9.999, 24.4, 24.41], "b": [5.0], "mute": []})
    return PreparedStore(tmp_path)


def _visits(clips: MomentClips, index: int) -> set[float]:
    return {clips.moment_of(index, seed)[1] for seed in range(200)}


def test_segments_and_the_margin_are_those_of_the_paper(store: PreparedStore) -> None:
    clips = MomentClips(store)
    assert len(clips) == 3  # a: segments 0 and 2; b: segment 0
    assert clips.num_segments_without_moment == 1
    assert clips.num_moments == 6
    # 0.59 s is nearer to the start than gap + clip = 0.6 s, 24.41 s nearer to the end; both limits are closed
    assert _visits(clips, 0) == {0.6, 3.0, 3.7, 9.999}
    assert _visits(clips, 1) == {24.4}
    assert clips.moment_of(2, 7) == ("b", 5.0)


def test_what_is_left_out_is_counted(store: PreparedStore) -> None:
    clips = MomentClips(store)
    assert (clips.num_unusable_moments, clips.num_videos_without_sound, clips.num_labelled_moments) == (2, 1, None)
    lines = left_out_of_run(clips, store, split="all")
    assert lines == [
        "left out: 1 video without sound",
        "left out: 1 segment without a usable moment",
        "left out: 2 moments too near an end of the video for both clips",
    ]
    assert MomentClips(store, splits=["validation"]).num_videos_without_sound == 0
    assert left_out_of_run(MomentClips(store, splits=["validation"]), store, split="validation") == []


def test_moments_in_annotated_actions_are_counted_and_none_is_refused(store: PreparedStore) -> None:
    actions = [_action("x", "a", 0.0, 3.0), _action("y", "a", 2.0, 3.5), _action("z", "b", 5.0, 5.0)]
    clips = MomentClips(store, actions=actions)
    assert clips.num_labelled_moments == 3  # 0.6 and 3.0 of a, 5.0 of b
    assert left_out_of_run(clips, store, split="all")[-1].startswith("3 of 6 moments lie in an annotated action; ")
    assert MomentClips(store, actions=actions, moments="random").num_labelled_moments is None
    with pytest.raises(ValueError, match=r"6 moments, and none lies in one of the annotated actions \(1\):"):
        MomentClips(store, actions=[_action("x", "a", 12.0, 13.0)])


def test_the_moments_of_a_segment_are_drawn_evenly(store: PreparedStore) -> None:
    drawn = [MomentClips(store).moment_of(0, seed)[1] for seed in range(4000)]
    counts = np.unique(drawn, return_counts=True)[1]
    assert (np.abs(counts - 1000) < 4 * np.sqrt(4000 * 0.25 * 0.75)).all()


def test_clips_and_sound_lie_where_the_paper_puts_them(store: PreparedStore) -> None:
    clips = MomentClips(store)
    sample = clips[(2, 5)]  # the moment at 5.0 s of b
    # before: [4.4, 4.9), after: [5.1, 5.6), each time to the nearest frame of 16 a second
    assert [number_of(f) for f in sample["video_before"]] == [
        int(np.floor((4.4 + k / 16) * FPS + 0.5)) for k in range(8)
    ]
    assert [number_of(f) for f in sample["video_after"]] == [
        int(np.floor((5.1 + k / 16) * FPS + 0.5)) for k in range(8)
    ]
    np.testing.assert_array_equal(sample["audio"], sound_of(160000)[4 * SAMPLE_RATE : 6 * SAMPLE_RATE])
    assert (sample["index"], sample["seed"]) == (2, 5)


def test_sound_that_reaches_past_the_recording_is_silent_there(store: PreparedStore) -> None:
    clips = MomentClips(store)
    seed = next(seed for seed in range(200) if clips.moment_of(0, seed)[1] == 0.6)
    audio = clips[(0, seed)]["audio"]
    np.testing.assert_array_equal(audio[:6400], 0)
    np.testing.assert_array_equal(audio[6400:], sound_of(160000)[: 32000 - 6400])


def test_the_same_key_gives_the_same_sample(store: PreparedStore) -> None:
    first, second = MomentClips(store)[(0, 99)], MomentClips(store)[(0, 99)]
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_splits_choose_videos(store: PreparedStore) -> None:
    assert MomentClips(store, splits=["validation"]).moment_of(0, 0)[0] == "b"
    with pytest.raises(ValueError, match="no usable moment"):
        MomentClips(store, splits=["test"])


@pytest.mark.parametrize("options", [{"clip_seconds": 0.0}, {"gap_seconds": -0.1}, {"audio_seconds": 0.0}])
def test_lengths_that_make_no_clip_are_refused(store: PreparedStore, options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"no frame|need a gap"):
        MomentClips(store, **options)


def test_random_moments_are_any_time_at_which_both_clips_lie_in_the_video(store: PreparedStore) -> None:
    clips = MomentClips(store, moments="random")
    assert (len(clips), clips.num_moments) == (4, 4)  # a: all of segments 0, 1, 2; b: segment 0
    limits = [("a", 0.6, 10.0), ("a", 10.0, 20.0), ("a", 20.0, 24.4), ("b", 0.6, 9.4)]
    for index, (video_id, first, last) in enumerate(limits):
        drawn = [clips.moment_of(index, seed) for seed in range(400)]
        assert {video for video, _ in drawn} == {video_id}
        times = np.array([time for _, time in drawn])
        assert first <= times.min() < first + 0.05 * (last - first)
        assert last - 0.05 * (last - first) < times.max() <= last
        assert times.mean() == pytest.approx((first + last) / 2, abs=0.08 * (last - first))
    assert clips.moment_of(1, 5) == clips.moment_of(1, 5)


def test_narrated_moments_are_those_given_whatever_is_heard_there(store: PreparedStore) -> None:
    narrated = {"a": [12.0, 0.5, 2.0, 1.0], "mute": [1.0], "elsewhere": [3.0]}  # in any order
    clips = MomentClips(store, moments="narrated", narrated=narrated)
    assert (len(clips), clips.num_moments, clips.num_unusable_moments) == (2, 3, 1)
    assert clips.num_segments_without_moment == 2  # the third of a, and b
    assert _visits(clips, 0) == {1.0, 2.0}
    assert clips.moment_of(1, 3) == ("a", 12.0)
    assert clips[(1, 3)]["video_before"].shape == MomentClips(store)[(0, 3)]["video_before"].shape
    labelled = MomentClips(store, moments="narrated", narrated=narrated, actions=[_action("x", "a", 1.5, 3.0)])
    assert labelled.num_labelled_moments == 1
    with pytest.raises(ValueError, match="no usable moment"):
        MomentClips(store, moments="narrated", narrated={"b": [0.1]})


def test_a_video_shorter_than_both_clips_has_no_random_moment(tmp_path: Path) -> None:
    finish_store(tmp_path, [add_video(tmp_path, "short", num_frames=16)], {})
    with pytest.raises(ValueError, match="no usable moment"):
        MomentClips(PreparedStore(tmp_path), moments="random")


def test_two_views_of_one_clip_are_the_frames_around_the_moment(store: PreparedStore) -> None:
    sample = MomentClips(store, views="same_clip")[(2, 5)]  # the moment at 5.0 s of b
    for name in ("video_before", "video_after"):
        assert [number_of(frame) for frame in sample[name]] == list(range(76, 84))


def test_each_visit_draws_one_of_several_gaps(store: PreparedStore) -> None:
    gaps = [0.5, 0.0, 1.0]
    clips = MomentClips(store, gap_seconds=gaps)
    assert clips.gap_seconds == 1.0
    assert _visits(clips, 0) == {3.0, 3.7, 9.999}  # usable with the largest gap
    seen = []
    for seed in range(60):
        sample = clips[(1, seed)]  # the moment at 5.0 s of b; the segment of 24.4 has none left
        first = number_of(sample["video_after"][0])
        seen.append({80: 0.0, 88: 0.5, 96: 1.0}[first])
        assert number_of(sample["video_before"][-1]) == 79 - (first - 80)
    assert all(seen.count(gap) > 10 for gap in gaps)
    with pytest.raises(ValueError, match="need a gap"):
        MomentClips(store, gap_seconds=[])


def test_moments_carry_the_labels_of_the_shortest_action_that_covers_them(store: PreparedStore) -> None:
    actions = [
        _action("long", "b", 0.0, 9.0, verb=3),
        _action("short", "b", 5.0, 5.5, verb=4),
        _action("later", "b", 5.1, 5.2, verb=5),
        _action("other", "a", 0.0, 0.7, verb=6),
    ]
    clips = MomentClips(store, actions=actions)
    assert clips[(2, 0)]["label_verb"] == 4
    labels = {clips.moment_of(0, seed)[1]: clips[(0, seed)]["label_verb"] for seed in range(40)}
    assert labels == {0.6: 6, 3.0: -1, 3.7: -1, 9.999: -1}
    assert collate([clips[(2, 0)]])["label_verb"].tolist() == [4]
    assert not any(name.startswith("label") for name in MomentClips(store)[(2, 0)])


def test_pictures_of_different_sizes_are_padded_and_their_sizes_told(store: PreparedStore) -> None:
    clips = MomentClips(store)
    samples = [clips[(0, 1)], clips[(2, 2)]]
    batch = collate(samples)
    assert batch["video_size"].tolist() == [[32, 48], [48, 32]]
    for name in ("video_before", "video_after"):
        assert tuple(batch[name].shape) == (2, 8, 48, 48, 3)
        np.testing.assert_array_equal(batch[name][0, :, :32, :48], samples[0][name])
        np.testing.assert_array_equal(batch[name][1, :, :48, :32], samples[1][name])
        assert not batch[name][0, :, 32:].any()
        assert not batch[name][1, :, :, 32:].any()
    assert batch["audio"].dtype == torch.int16
    assert batch["seed"].tolist() == [1, 2]


def _action(action_id: str, video_id: str, start: float, stop: float, verb: int = 0) -> ActionRecord:
    return ActionRecord(action_id, video_id, start, stop, "P01", {"verb": verb, "noun": 2 * verb})


def test_clips_are_spread_evenly_over_an_action(store: PreparedStore) -> None:
    clips = ActionClips(store, [_action("x", "a", 2.0, 5.5)], num_clips=3)
    assert [clips.start_of(item, 0) for item in range(3)] == pytest.approx([2.5, 3.5, 4.5])
    one = ActionClips(store, [_action("x", "a", 2.0, 5.5)])
    assert one.start_of(0, 0) == pytest.approx(3.5)  # the clip's centre is the action's: 3.75
    assert [number_of(f) for f in one[(0, 0)]["video"]] == [56 + k for k in range(8)]


def test_random_clips_lie_inside_the_action_and_come_from_the_seed(store: PreparedStore) -> None:
    clips = ActionClips(store, [_action("x", "a", 2.0, 5.5)], random=True)
    starts = np.array([clips.start_of(0, seed) for seed in range(500)])
    assert starts.min() >= 2.0
    assert starts.max() <= 5.0
    assert starts.std() == pytest.approx(3.0 / np.sqrt(12), rel=0.1)
    assert clips.start_of(0, 3) == starts[3]


def test_short_and_border_actions_give_a_whole_clip_inside_the_video(store: PreparedStore) -> None:
    actions = [_action("short", "a", 3.0, 3.1), _action("first", "a", 0.0, 0.2), _action("last", "a", 24.9, 30.0)]
    clips = ActionClips(store, actions, num_clips=2)
    starts = [clips.start_of(item, 0) for item in range(6)]
    assert starts == pytest.approx([2.8, 2.8, 0.0, 0.0, 24.5, 24.5])


def test_frames_that_the_store_does_not_hold_at_their_times_are_refused(store: PreparedStore) -> None:
    actions = [_action("x", "a", 2.0, 4.0)]
    for clip_fps, how in ((32.0, "be repeated"), (12.0, "be unevenly spaced"), (15.0, "be unevenly spaced")):
        message = rf"holds 16 frames per second, which clips of {clip_fps:g} frames per second .*frames would {how}"
        with pytest.raises(ValueError, match=message):
            MomentClips(store, clip_fps=clip_fps)
        with pytest.raises(ValueError, match=message):
            ActionClips(store, actions, clip_fps=clip_fps)
    for clip_fps in (16.0, 8.0, 4.0, 2.0):
        numbers = [
            number_of(f) for f in ActionClips(store, actions, clip_fps=clip_fps, clip_seconds=1)[(0, 0)]["video"]
        ]
        assert set(np.diff(numbers)) == {16 / clip_fps}


def test_a_video_that_is_shorter_than_a_clip_is_told_not_filled_with_its_last_frame(store: PreparedStore) -> None:
    actions = [_action("long", "a", 2.0, 9.0), _action("short", "mute", 0.0, 2.0)]  # mute lasts 2.5 s
    clips = ActionClips(store, actions, clip_seconds=3.0)
    assert [action.action_id for action in clips.actions] == ["long"]
    assert clips.left_out == [("short", "video 'mute' lasts 2.50 s, a clip 3 s")]
    assert len(ActionClips(store, actions, clip_seconds=2.5).actions) == 2


def test_labels_follow_their_actions_and_unusable_ones_are_told(store: PreparedStore) -> None:
    actions = [
        _action("x", "a", 2.0, 5.5, verb=4),
        _action("y", "nowhere", 2.0, 5.5),
        _action("z", "mute", 1.0, 2.0, verb=1),
        _action("w", "b", 12.0, 13.0),
    ]
    clips = ActionClips(store, actions, num_clips=2)
    assert clips.labels["noun"].tolist() == [8, 2]
    assert clips.action_of_item.tolist() == [0, 0, 1, 1]
    batch = collate([clips[(item, 0)] for item in (1, 2)])
    assert batch["label_verb"].tolist() == [4, 1]
    assert "audio" not in batch
    assert clips.left_out == [
        ("y", "video 'nowhere' is not in the store"),
        ("w", "starts at 12.00 s, the video ends at 10.00 s"),
    ]
    with_sound = ActionClips(store, actions, audio_seconds=1.0)
    assert [reason for _, reason in with_sound.left_out][1] == "video 'mute' has no sound"
    # the clip starts at 3.5 s and lasts 0.5 s: a second of sound around its centre is [3.25, 4.25)
    np.testing.assert_array_equal(with_sound[(0, 0)]["audio"], sound_of(400000)[52000:68000])


def _equal(batch: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return batch.keys() == other.keys() and all(torch.equal(batch[name], other[name]) for name in batch)


@pytest.mark.parametrize("indices", [[0, 1, 0], [0, 2]], ids=["one size", "two sizes"])
def test_a_batch_read_whole_equals_the_one_assembled_of_samples(store: PreparedStore, indices: list[int]) -> None:
    keys = [(index, 10 + place) for place, index in enumerate(indices)]
    moments = MomentClips(store)
    actions = [_action("x", "a", 2.0, 5.5, verb=4), _action("y", "a", 1.0, 2.0), _action("z", "b", 1.0, 2.0)]
    anywhere = MomentClips(store, moments="random", gap_seconds=[0.1, 0.4], actions=actions)
    one_clip = MomentClips(store, views="same_clip", actions=actions)
    of_actions = [ActionClips(store, actions), ActionClips(store, actions, audio_seconds=1.0, random=True)]
    for clips in (moments, anywhere, one_clip, *of_actions):
        expected = collate([clips[key] for key in keys])
        assert _equal(clips.read_batch(keys), expected)
        with ThreadPoolExecutor(3) as pool:
            assert _equal(clips.read_batch(keys, run=pool.map), expected)


def test_a_data_loader_with_processes_gives_the_same_batches(store: PreparedStore) -> None:
    clips = MomentClips(store)
    keys = [[(0, 1), (1, 2)], [(0, 3), (2, 4)], [(1, 5)]]  # the second has pictures of two sizes
    loader = DataLoader(
        clips, batch_sampler=keys, collate_fn=collate, num_workers=1, multiprocessing_context="forkserver"
    )
    batches = list(loader)
    assert all(batch["audio"].is_shared() and batch["video_before"].is_shared() for batch in batches)
    for batch, expected in zip(batches, keys, strict=True):
        assert _equal(batch, collate([clips[key] for key in expected]))


def test_many_segments_are_sent_to_workers_in_little_space(tmp_path: Path) -> None:
    times = list(np.arange(1.0, 3599.0, 0.5))
    hour = replace(add_video(tmp_path, "hour", num_frames=2), duration_seconds=3600.0, num_frames=3600 * FPS)
    finish_store(tmp_path, [hour], {"hour": times})
    clips = MomentClips(PreparedStore(tmp_path))
    assert (len(clips), clips.num_moments) == (360, len(times))
    assert len(pickle.dumps(clips)) < 8 * (3 * len(times) + 2 * len(clips)) + 10_000
    assert all(t // 10 == 17 for t in _visits(clips, 17))


# --- keys without a seed: what a DataLoader of torch asks for ---


def _action_clips(store: PreparedStore) -> ActionClips:
    return ActionClips(store, [_action("x", "a", 2.0, 20.0), _action("y", "b", 1.0, 9.0)], random=True)


@pytest.mark.parametrize("make", [MomentClips, _action_clips])
def test_an_index_alone_is_the_visit_of_its_epoch(store: PreparedStore, make: Any) -> None:
    clips = make(store)
    assert _equal(collate([clips[1]]), collate([clips[(1, sample_seed(0, 0, 1))]]))
    assert clips[-1]["index"] == len(clips) - 1
    assert clips[np.int64(1)]["seed"] == clips[torch.tensor(1)]["seed"] == sample_seed(0, 0, 1)
    clips.set_epoch(3, seed=7)
    assert _equal(collate([clips[1]]), collate([clips[(1, sample_seed(7, 3, 1))]]))
    assert [sample["index"] for sample in clips] == list(range(len(clips)))
    for key in (len(clips), -len(clips) - 1, (len(clips), 5)):
        with pytest.raises(IndexError, match=f"is out of range: there are {len(clips)}"):
            clips[key]
    with pytest.raises(TypeError):
        clips["1"]
    with pytest.raises(ValueError, match="from 0 to below"):
        clips.set_epoch(-1)


@pytest.mark.parametrize("make", [MomentClips, _action_clips])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_plain_data_loader_of_torch_takes_the_data_set(store: PreparedStore, make: Any, num_workers: int) -> None:
    """Shuffled, in parts, with workers that live on: each item is the visit of its epoch."""
    clips = make(store)
    loader = DataLoader(
        clips,
        batch_size=2,
        shuffle=True,
        collate_fn=collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )
    seen = []
    for epoch in range(2):
        clips.set_epoch(epoch)
        batches = list(loader)
        keys = [key for b in batches for key in zip(b["index"].tolist(), b["seed"].tolist(), strict=True)]
        assert sorted(keys) == [(index, sample_seed(0, epoch, index)) for index in range(len(clips))]
        for batch in batches:
            visits = list(zip(batch["index"].tolist(), batch["seed"].tolist(), strict=True))
            assert _equal(batch, clips.read_batch(visits))
        seen.append(keys)
    part = DataLoader(Subset(clips, [1]), batch_size=1, collate_fn=collate)
    assert [batch["index"].tolist() for batch in part] == [[1]]
