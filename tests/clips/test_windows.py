"""Clips of given places: which there are, and what they show."""

from pathlib import Path

import numpy as np
import pytest

from earmark.clips.action_clips import ActionClips
from earmark.clips.store import PreparedStore
from earmark.clips.windows import VideoWindows, WindowClips, WindowOptions, plan_windows
from earmark.datasets.records import ActionRecord
from earmark.preparation.catalog import SparseStoreError
from tests.helpers.made_store import number_of


def numbers(clip: np.ndarray) -> list[int]:
    return [number_of(frame) for frame in clip]


def test_windows_follow_one_another_and_lie_wholly_in_their_video(store: PreparedStore) -> None:
    """P01/P01_01 has 160 frames at 16 per second, short 20, mute 10."""
    options = WindowOptions(window_seconds=3.0, stride_seconds=2.0, fps=4.0)
    plan = plan_windows(store, options)
    (video,) = plan.videos
    assert video.video_id == "P01/P01_01"
    assert video.times_seconds.tolist() == [0.0, 2.0, 4.0, 6.0]  # from 8 on one would end at 11
    assert plan.left_out == {
        "broken": "refused: not media",
        "mute": "lasts 0.62 s, a window 3 s",
        "short": "lasts 1.25 s, a window 3 s",
    }
    clips = WindowClips(store, plan.videos, options)
    assert [numbers(clips[k]["video"]) for k in range(4)] == [
        [32 * k + 4 * step if 32 * k + 4 * step < 120 else 32 * k + 4 * step - 120 for step in range(12)]
        for k in range(4)
    ]


def test_a_window_that_ends_with_its_video_is_there(store: PreparedStore) -> None:
    plan = plan_windows(store, WindowOptions(window_seconds=0.1, stride_seconds=0.1, fps=16.0))
    counts = {video.video_id: len(video.times_seconds) for video in plan.videos}
    assert counts == {"P01/P01_01": 100, "short": 12, "mute": 6}  # 10 s, 1.25 s, 0.625 s
    exact = plan_windows(store, WindowOptions(window_seconds=1.25, stride_seconds=1.25))
    assert {video.video_id: len(video.times_seconds) for video in exact.videos} == {"P01/P01_01": 8, "short": 1}


def test_both_sides_of_every_moment_with_its_sound(store: PreparedStore) -> None:
    options = WindowOptions(of="moments", stride_seconds=None, gap_seconds=0.25, window_seconds=0.5, fps=16.0)
    plan = plan_windows(store, options, with_sound=True)
    clips = WindowClips(store, plan.videos, options, modalities=("video", "audio"))
    assert len(clips) == 3
    for item, moment in enumerate([1.5, 4.25, 7.0]):
        sample = clips[item]
        before, after = round((moment - 0.75) * 16), round((moment + 0.25) * 16)
        assert numbers(sample["video_before"]) == [(before + k) % 120 for k in range(8)]
        assert numbers(sample["video_after"]) == [(after + k) % 120 for k in range(8)]
        np.testing.assert_array_equal(sample["audio"], store.sound("P01/P01_01", moment - 1.0, 32000))
    assert plan.videos[0].columns["time_seconds"].tolist() == [1.5, 4.25, 7.0]
    assert plan.places_left_out == {"short at 0.600 s": "nearer than 0.75 s to an end of the video"}
    assert plan.left_out == {
        "broken": "refused: not media",
        "mute": "has no sound",
        "short": "1 moment, all too near an end of the video",
    }


def test_clips_of_actions_are_those_of_the_tasks(store: PreparedStore) -> None:
    actions = [
        ActionRecord("a0", "P01/P01_01", 1.0, 5.0, "", {"verb": 2, "noun": 1}),
        ActionRecord("late", "P01/P01_01", 11.0, 12.0, "", {"verb": 2, "noun": 1}),
        ActionRecord("a1", "P01/P01_01", 9.9, 10.0, "", {}),
        ActionRecord("s0", "short", 0.0, 1.0, "", {"verb": 3, "noun": 0}),
        ActionRecord("elsewhere", "P09", 0.0, 1.0, "", {"verb": 3, "noun": 0}),
    ]
    options = WindowOptions(of="actions", stride_seconds=None, clips_per_action=3)
    plan = plan_windows(store, options, actions=actions, video_ids=["P01/P01_01", "short", "mute", "gone"])
    assert plan.left_out == {"gone": "is not among the prepared videos", "mute": "has no action that can be used"}
    assert list(plan.places_left_out) == ["late"]
    whole, short = plan.videos
    assert whole.columns["action_id"].tolist() == ["a0"] * 3 + ["a1"] * 3
    assert whole.columns["clip"].tolist() == [0, 1, 2] * 2
    assert whole.columns["label_verb"].tolist() == [2, 2, 2, -1, -1, -1]
    assert short.columns["label_verb"].tolist() == [3, 3, 3]
    mine = WindowClips(store, plan.videos, options)
    labelled = [action for action in actions if action.action_id in ("a0", "s0")]
    tasks = ActionClips(store, labelled, num_clips=3)
    for item, same in enumerate([0, 1, 2, 6, 7, 8]):
        np.testing.assert_array_equal(mine[same]["video"], tasks[(item, 0)]["video"])


def test_sound_alone_reads_no_pictures(store: PreparedStore) -> None:
    options = WindowOptions(window_seconds=0.5, stride_seconds=0.5, audio_seconds=1.0, fps=7.0)
    plan = plan_windows(store, options, video_ids=["short"])
    clips = WindowClips(store, plan.videos, options, modalities=("audio",))
    batch = clips.read_batch([(0, 0), (1, 0)])
    assert "video" not in batch
    for row, centre in enumerate([0.25, 0.75]):
        np.testing.assert_array_equal(batch["audio"][row].numpy(), store.sound("short", centre - 0.5, 16000))
    with pytest.raises(ValueError, match="which clips of 7 frames per second do not divide"):
        WindowClips(store, plan.videos, options)


def test_sizes_are_kept_of_videos_and_not_of_their_windows(store: PreparedStore) -> None:
    """A thousand hours have millions of windows."""
    options = WindowOptions()
    clips = WindowClips(store, [VideoWindows("short", np.zeros(10**6), {})], options)
    assert clips.picture_size() == clips.picture_size([5, 999_999]) == (32, 48)
    held = sum(value.nbytes for value in vars(clips).values() if isinstance(value, np.ndarray))
    assert held < 9e6  # of which 8 are the times


def test_options_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="stride_seconds must be positive, got 0"):
        WindowOptions(stride_seconds=0)
    with pytest.raises(ValueError, match=r"clips_per_action must be positive, got None \(features of actions\)"):
        WindowOptions(of="actions")
    with pytest.raises(ValueError, match="fps must be positive, got inf"):
        WindowOptions(fps=float("inf"))


def test_a_store_of_what_is_around_moments_has_no_windows(store: PreparedStore, tmp_path: Path) -> None:
    store.around_seconds = 1.0
    with pytest.raises(SparseStoreError, match="features of windows need the whole videos"):
        plan_windows(store, WindowOptions())
    moments = WindowOptions(of="moments", gap_seconds=0.6, stride_seconds=None)
    with pytest.raises(SparseStoreError, match=r"holds only 1 s .* 1.1 s are read"):
        plan_windows(store, moments)
