"""Clips of state changes: the frames that are read are those at the places, and what cannot be seen is named."""

from pathlib import Path

import numpy as np
import pytest

from earmark.clips.state_change_clips import StateChangeClips
from earmark.clips.state_change_parts import ChangePart, drawn_part, published_part, whole_clip
from earmark.clips.store import PreparedStore
from earmark.datasets import StateChangeRecord
from tests.helpers.made_store import FPS, SAMPLE_RATE, add_video, finish_store, number_of, sound_of


@pytest.fixture
def store(tmp_path: Path) -> PreparedStore:
    rows = [add_video(tmp_path, "a", num_frames=200), add_video(tmp_path, "b", num_frames=160, has_audio=False)]
    finish_store(tmp_path, rows, {"a": [3.0]})
    return PreparedStore(tmp_path)


def record(
    name: str, start: float, pnr: float | None, *, video: str = "a", stop: float | None = None
) -> StateChangeRecord:
    stop = start + 8 if stop is None else stop
    frames = round(start * 30), round(stop * 30)
    return StateChangeRecord(
        name, video, start, stop, *frames, 30.0, pnr is not None, None if pnr is None else round(pnr * 30)
    )


def test_spread_frames_are_those_nearest_to_the_centres_of_16_equal_parts(store: PreparedStore) -> None:
    clips = StateChangeClips(store, [whole_clip(record("x", 2.0, 5.1)), whole_clip(record("y", 0.0, None))])
    sample = clips[(0, 0)]
    expected = [round((2.25 + 0.5 * place) * FPS) for place in range(16)]
    assert [number_of(frame) for frame in sample["video"]] == [number % 120 for number in expected]
    assert sample["label_keyframe"] == 6  # 5.25 s
    assert clips.labels["state_change"].tolist() == [1, 0]
    assert clips.labels["keyframe"].tolist() == [6, -1]
    assert clips.parts[0].place_seconds == pytest.approx([number / FPS for number in expected])


def test_places_are_where_the_stored_frames_are_so_the_error_of_a_perfect_place_is_known(store: PreparedStore) -> None:
    parts = [drawn_part(record(f"{k}", 1.01, 1.5 + 0.21 * k), seed=k, number=0) for k in range(30)]
    clips = StateChangeClips(store, parts)
    for part, given in zip(clips.parts, parts, strict=True):
        np.testing.assert_allclose(np.array(part.place_seconds) * FPS, np.round(np.array(given.place_seconds) * FPS))
        true = part.record.pnr_seconds
        assert true is not None
        half_step = (part.stop_seconds - part.start_seconds) / 32
        assert abs(part.place_seconds[part.keyframe] - true) <= half_step + 0.5 / FPS + 1e-9
        frame = part.place_frames[part.keyframe]
        assert (frame - part.record.start_frame) / 30 == pytest.approx(part.place_seconds[part.keyframe] - 1.01)


def test_windows_follow_each_other_and_sound_is_centred_on_each(store: PreparedStore) -> None:
    clips = StateChangeClips(store, [whole_clip(record("x", 1.0, 4.0))], view="windows", audio_seconds=0.25)
    assert len(clips) == 16
    for place in range(16):
        sample = clips[(place, 0)]
        first = round((1 + 0.5 * place) * FPS)
        assert [number_of(frame) for frame in sample["video"]] == [n % 120 for n in range(first, first + 8)]
        middle = round((1.25 + 0.5 * place) * SAMPLE_RATE)
        sound = sound_of(round(12.5 * SAMPLE_RATE))[middle - SAMPLE_RATE // 8 : middle + SAMPLE_RATE // 8]
        np.testing.assert_array_equal(sample["audio"], sound)
    assert clips.parts[0].place_seconds == pytest.approx([1.25 + 0.5 * place for place in range(16)])
    assert clips.labels["keyframe"].tolist() == [5]  # 3.75 s and 4.25 s are equally near


def test_published_places_stay_those_of_the_annotation(store: PreparedStore) -> None:
    part = published_part(record("x", 1.01, 4.0))
    assert StateChangeClips(store, [part], as_annotated=True).parts == [part]
    assert StateChangeClips(store, [part]).parts != [part]


def test_what_cannot_be_seen_is_named_and_the_rest_is_kept(store: PreparedStore) -> None:
    parts = [
        whole_clip(record("gone", 0.0, None, video="c")),
        whole_clip(record("past", 6.0, 7.0)),  # ends at 14 s, the video at 12.5
        whole_clip(record("late", 13.0, None)),
        whole_clip(record("rounded", 5.0, 12.9)),  # ends at 13 s
        whole_clip(record("silent", 1.0, 3.0, video="b")),
    ]
    clips = StateChangeClips(store, parts)
    assert [part.record.unique_id for part in clips.parts] == ["rounded", "silent"]
    assert dict(clips.left_out) == {
        "gone": "video 'c' is not in the store",
        "past": "ends at 14.00 s, the video at 12.50 s",
        "late": "starts at 13.00 s, the video ends at 12.50 s",
    }
    assert max(clips.parts[0].place_seconds) <= 12.5 - 1 / FPS
    assert clips[(0, 0)]["video"].shape[0] == 16
    with_sound = StateChangeClips(store, parts, audio_seconds=1.0)
    assert dict(with_sound.left_out)["silent"] == "video 'b' has no sound"


def test_the_key_of_features_says_view_and_places(store: PreparedStore) -> None:
    parts = [whole_clip(record("x", 1.0, 4.0))]
    shifted = [ChangePart(parts[0].record, 1.0, 9.0, tuple(t + 0.0625 for t in parts[0].place_seconds))]
    keys = [
        StateChangeClips(store, parts).cache_key(),
        StateChangeClips(store, shifted).cache_key(),
        StateChangeClips(store, parts, view="windows").cache_key(),
        StateChangeClips(store, parts, audio_seconds=1.0).cache_key(),
    ]
    assert all(a != b for k, a in enumerate(keys) for b in keys[:k])


def test_unlabelled_clips_have_no_labels_and_parts_of_different_size_are_refused(store: PreparedStore) -> None:
    unlabelled = StateChangeRecord("t", "a", 1.0, 9.0, 30, 270, 30.0, None, None)
    assert StateChangeClips(store, [whole_clip(unlabelled)]).labels == {}
    parts = [whole_clip(unlabelled), ChangePart(unlabelled, 1.0, 9.0, (2.0, 3.0))]
    with pytest.raises(ValueError, match=r"same number of places, got \[2, 16\]"):
        StateChangeClips(store, parts)
    with pytest.raises(ValueError, match="view must be spread or windows"):
        StateChangeClips(store, parts[:1], view="dense")  # type: ignore[arg-type]
