"""Quiet times: which they are, how they are drawn in the place of moments, and how samples are labelled by them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from earmark.cli.checks import left_out_of_run
from earmark.clips.dataset import MomentClips
from earmark.clips.quiet_times import QuietTimes
from earmark.clips.sampling import sample_seed
from earmark.clips.store import PreparedStore
from earmark.datasets.records import ActionRecord
from earmark.preparation.catalog import SparseStoreError
from tests.helpers.made_store import add_video, finish_store

MOMENTS = {"a": [3.0, 3.7, 9.9, 20.0, 24.9], "b": [5.0], "c": [1.0, 2.0, 3.0, 4.0]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PreparedStore:
    """25 s of a, 10 of b; c has 5 s, with a moment in each."""
    folder: Path = tmp_path_factory.mktemp("store")
    rows = [
        add_video(folder, "a", num_frames=400),
        add_video(folder, "b", num_frames=160),
        add_video(folder, "c", num_frames=80),
    ]
    finish_store(folder, rows, MOMENTS)
    return PreparedStore(folder)


def test_draws_are_even_over_all_times_far_from_moments() -> None:
    """Against a fine grid of times, of which those are kept that are far from every moment."""
    moments = [np.array([9.0, 2.0, 2.5, 19.9]), np.zeros(0), np.array([0.1, 5.0]), np.array([1.0, 2.0, 3.0])]
    durations = np.array([20.0, 3.0, 6.0, 4.0])
    quiet = QuietTimes(moments, durations, margin_seconds=0.6, distance_seconds=1.0)
    for video, (times, duration) in enumerate(zip(moments, durations, strict=True)):
        grid = np.arange(0.6, duration - 0.6, 1e-3)
        far = grid[(np.abs(grid[:, None] - times) >= 1.0).all(axis=1)] if len(times) else grid
        assert quiet.seconds(video) == pytest.approx(len(far) * 1e-3, abs=0.01)
        if len(far):
            draws = (np.arange(len(far)) + 0.5) / len(far)
            drawn = [quiet.time_of(video, draw) for draw in draws]
            np.testing.assert_allclose(drawn, far, atol=0.01)
    assert quiet.seconds(3) == 0
    with pytest.raises(ValueError, match="video 3 has no quiet time"):
        quiet.time_of(3, 0.5)
    with pytest.raises(ValueError, match="need quiet times at some distance"):
        QuietTimes(moments, durations, margin_seconds=0.6, distance_seconds=0.0)


def test_the_largest_draw_is_still_quiet() -> None:
    quiet = QuietTimes([np.array([3.0])], np.array([6.0]), margin_seconds=0.5, distance_seconds=1.0)
    assert quiet.time_of(0, np.nextafter(1.0, 0.0)) == pytest.approx(5.5)
    assert quiet.time_of(0, 0.0) == 0.5
    # of a video after so long a one that the draw is rounded to the end, past which an empty interval lies
    after = QuietTimes([np.zeros(0), np.array([5.0])], np.array([1e12, 6.0]), margin_seconds=0.5, distance_seconds=1.0)
    assert after.time_of(1, np.nextafter(1.0, 0.0)) == pytest.approx(4.0, abs=1e-3)
    assert after.time_of(1, 0.0) == 0.5


def test_so_many_visits_are_quiet_and_are_labelled_so(store: PreparedStore) -> None:
    clips = MomentClips(store, quiet_share=0.25)
    assert (clips.quiet_distance_seconds, clips.num_videos_without_quiet_time) == (1.2, 1)
    assert "no quiet time: in 1 video, whose samples are all moments" in left_out_of_run(clips, store, split="all")
    assert not any("quiet" in line for line in left_out_of_run(MomentClips(store), store, split="all"))
    counts: Counter[str] = Counter()
    for epoch in range(1500):
        for index in range(len(clips)):
            seed = sample_seed(3, epoch, index)
            video_id, time = clips.moment_of(index, seed)
            distance = min(abs(time - moment) for moment in MOMENTS[video_id])
            if clips.is_quiet(index, seed):
                counts[video_id] += 1
                assert distance >= 1.2 - 1e-9
                assert 0.6 <= time <= store.videos[video_id].duration_seconds - 0.6
            else:
                assert distance == 0
    assert counts["c"] == 0  # where it is never quiet all samples are moments
    for video_id, segments in (("a", 2), ("b", 1)):  # the moment at 24.9 s is not usable
        assert counts[video_id] / (1500 * segments) == pytest.approx(0.25, abs=0.05)


def test_labels_and_clips_are_those_of_the_time_that_is_drawn(store: PreparedStore) -> None:
    actions = [
        ActionRecord("x", "b", 4.9, 5.1, "P01", {"verb": 2}),
        ActionRecord("y", "b", 6.0, 9.0, "P01", {"verb": 1}),
    ]
    clips = MomentClips(store, quiet_share=0.5, actions=actions)
    index = clips.video_ids.index("b") + 1  # a has two segments
    seen = set()
    for epoch in range(40):
        seed = sample_seed(0, epoch, index)
        video_id, time = clips.moment_of(index, seed)
        assert video_id == "b"
        batch = clips.read_batch([(index, seed)])
        assert batch["label_moment"].tolist() == [int(time == 5.0)]
        assert batch["label_verb"].tolist() == [2 if time == 5.0 else 1 if 6 <= time <= 9 else -1]
        seen.add((int(batch["label_moment"]), int(batch["label_verb"])))
    assert seen == {(1, 2), (0, 1), (0, -1)}


def test_without_quiet_times_nothing_is_drawn_otherwise(store: PreparedStore) -> None:
    plain, quiet = MomentClips(store), MomentClips(store, quiet_share=0.4)
    assert "label_moment" not in plain[(0, 1)]
    moments = [(index, sample_seed(0, epoch, index)) for epoch in range(20) for index in range(len(plain))]
    assert not any(plain.is_quiet(*visit) for visit in moments)
    kept = [visit for visit in moments if not quiet.is_quiet(*visit)]
    assert 0 < len(kept) < len(moments)
    assert all(quiet.moment_of(*visit) == plain.moment_of(*visit) for visit in kept)


def test_a_longer_sound_keeps_quiet_times_farther_away(store: PreparedStore) -> None:
    assert MomentClips(store, quiet_share=0.5, audio_seconds=3.0).quiet_distance_seconds == pytest.approx(1.7)
    assert MomentClips(store, quiet_share=0.5, gap_seconds=[0.1, 0.9]).quiet_distance_seconds == pytest.approx(1.6)


def test_several_moments_of_a_segment_can_be_quiet_each(store: PreparedStore) -> None:
    clips = MomentClips(store, quiet_share=0.5, moments_per_segment=3)
    visits = [(index, clips.visit_seed(0, epoch, index)) for epoch in range(60) for index in range(2)]
    by_epoch = {
        (clips.is_quiet(*one), clips.is_quiet(*two)) for one, two in zip(visits[::2], visits[1::2], strict=True)
    }
    assert by_epoch == {(False, False), (False, True), (True, False), (True, True)}


def test_what_has_no_quiet_times_is_refused(store: PreparedStore, tmp_path: Path) -> None:
    for options in ({"quiet_share": 1.0}, {"quiet_share": -0.1}, {"quiet_share": 0.5, "moments": "random"}):
        with pytest.raises(ValueError, match="need a share of quiet times from 0 to below 1, and audible moments"):
            MomentClips(store, **options)  # type: ignore[arg-type]
    store.around_seconds = 2.0
    with pytest.raises(SparseStoreError, match=r"holds only 2 s .* quiet times need the whole videos"):
        MomentClips(store, quiet_share=0.5)
    store.around_seconds = None
    finish_store(tmp_path, [add_video(tmp_path, "c", num_frames=80)], {"c": MOMENTS["c"]})
    with pytest.raises(ValueError, match=r"1 video, and none has a time at least 1.2 s from every moment"):
        MomentClips(PreparedStore(tmp_path), quiet_share=0.5)
