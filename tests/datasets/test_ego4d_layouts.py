"""Ego4D's two downloads, of whole videos and of clips; what is held out; what is unusual in the official files."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from earmark.datasets import DatasetError, Ego4D, files_not_read, parents_in
from tests.helpers.ego4d_files import Row, action, change, clip, video, write_ego4d

# --- clips ---


@pytest.fixture
def clips_only(tmp_path: Path) -> Ego4D:
    return write_ego4d(
        tmp_path,
        videos=[video("v1")],
        clips=[clip("c1"), clip("c2", start=102.0, stop=200.0)],
        actions={"train": [action("c1", 1), action("c1", 0), action("c2", 0, clip_parent_start_sec=102.0)]},
        changes={"train": [change("u1"), change("u2", clip_uid=None)]},
        files=("clips/c1.mp4",),
    )


def test_clip_files_are_videos_of_their_own_with_times_of_their_own(clips_only: Ego4D, tmp_path: Path) -> None:
    assert clips_only.layout == "clips"
    assert [(each.video_id, each.path, each.split, each.participant_id) for each in clips_only.videos()] == [
        ("c1", tmp_path / "v2/clips/c1.mp4", "train", "7"),
        ("c2", tmp_path / "v2/clips/c2.mp4", "train", "7"),
    ]
    actions = clips_only.actions("train")
    assert [(each.action_id, each.video_id, each.start_seconds, each.stop_seconds) for each in actions] == [
        *(("c1_0", "c1", 1.0, 2.0), ("c1_1", "c1", 3.0, 4.0), ("c2_0", "c2", 1.0, 2.0))
    ]
    (record,) = clips_only.state_changes("train")
    assert (record.video_id, record.start_seconds, record.stop_seconds) == ("c1", 10.0, 18.0)
    assert (record.start_frame, record.stop_frame, record.pnr_frame) == (300, 540, 400)
    assert record.pnr_seconds == pytest.approx(10 + 100 / 30)
    assert clips_only.problems[-1].endswith("clips[1]: clip_uid is None, expected a name")
    assert clips_only.seconds_of_videos() == {"c1": 100.0, "c2": 98.0}
    assert clips_only.sound_of_videos() == {"c1": True, "c2": True}


def test_the_video_of_a_clip_is_known_in_either_layout(clips_only: Ego4D, tmp_path: Path) -> None:
    """By ego4d.json, or where that lists no such clip by the rows of a task; other ids are their own."""
    names = ("c1", "c2", "v1", "other")
    assert [clips_only.parent_of(name) for name in names] == ["v1", "v1", "v1", "other"]
    content = json.loads((tmp_path / "ego4d.json").read_text())
    (tmp_path / "ego4d.json").write_text(json.dumps(content | {"clips": []}))
    for layout in ("clips", "full_scale"):
        assert [parents_in(Ego4D(tmp_path, layout=layout))(name) for name in names] == ["v1", "v1", "v1", "other"]


def test_the_same_rows_are_timed_in_the_whole_video_where_that_is_read(clips_only: Ego4D, tmp_path: Path) -> None:
    (tmp_path / "v2/full_scale").mkdir()
    (tmp_path / "v2/full_scale/v1.mp4").touch()
    whole = Ego4D(tmp_path)
    assert whole.layout == "full_scale"
    assert [(each.video_id, each.start_seconds) for each in whole.actions("train")] == [
        *(("v1", 11.0), ("v1", 13.0), ("v1", 103.0))
    ]
    first, second = whole.state_changes("train")
    assert (first.start_seconds, first.pnr_frame) == (second.start_seconds, second.pnr_frame) == (20.0, 700)
    assert f"{tmp_path}: clips are not read, since whole videos are there" in whole.remarks
    assert files_not_read(whole, whole.videos()) == (
        f"{tmp_path}/v2/clips: 1 file not read, since whole videos are: c1.mp4",
    )
    cut = Ego4D(tmp_path, layout="clips")
    assert [each.video_id for each in cut.videos()] == ["c1", "c2"]
    with pytest.raises(ValueError, match="no such layout of Ego4D: 'segments'"):
        Ego4D(tmp_path, layout="segments")


def test_smaller_clips_are_found(clips_only: Ego4D, tmp_path: Path) -> None:
    (tmp_path / "v2/clips_540ss").mkdir()
    (tmp_path / "v2/clips_540ss/c2.mp4").touch()
    assert clips_only.videos()[1].path == tmp_path / "v2/clips_540ss/c2.mp4"


def test_a_clip_of_another_video_or_past_its_end_is_named(tmp_path: Path) -> None:
    rows = [action("c1", 0), action("c2", 0), action("c1", 49), action("c1", 50), action("../c", 1), action("c9", 0)]
    ego4d = write_ego4d(
        tmp_path,
        videos=[video("v1"), video("v2")],
        clips=[clip("c1"), clip("c2", "v2")],
        actions={"train": rows},
        files=("clips/c1.mp4",),
    )
    assert [each.action_id for each in ego4d.actions("train")] == ["c1_0", "c1_49", "c9_0"]
    reasons = [text.partition("json, ")[2] for text in ego4d.problems]
    assert reasons == [
        f"clips[1]: clip c2 is of video v2 by {tmp_path}/ego4d.json, not of v1",
        "clips[3]: the action ends at 102.00 s, c1 lasts 100.00 s",
        "clips[4]: '../c' cannot be the name of a clip",
    ]
    assert [each.video_id for each in ego4d.videos()] == ["c1", "c2", "c9"]


def test_files_that_are_not_read_are_counted_by_folder(tmp_path: Path) -> None:
    names = ("full_scale/v1.mp4", "video_540ss/v1.mp4", "full_scale/x.mp4", "full_scale/v1.txt", "clips/c1.mp4")
    ego4d = write_ego4d(tmp_path, videos=[video("v1")], files=names)
    assert files_not_read(ego4d, ego4d.videos()) == (
        f"{tmp_path}/v2/full_scale: 1 file not listed in ego4d.json: x.mp4",
        f"{tmp_path}/v2/video_540ss: 1 file of videos that are read from another place: v1.mp4",
        f"{tmp_path}/v2/clips: 1 file not read, since whole videos are: c1.mp4",
    )


# --- what is held out ---


@pytest.mark.parametrize(
    ("videos", "actions", "changes", "split", "reason"),
    [
        ([video("v1")], {}, {}, "train", ""),
        ([video("v1", None)], {}, {}, "all", ""),
        ([video("v1", None)], {"train": [action("c1", 0)]}, {}, "train", ""),
        ([video("v1", "val")], {}, {}, "validation", "validation by split_fho"),
        ([video("v1", "multi")], {}, {}, "mixed", "mixed by split_fho"),
        ([video("v1")], {"val": [action("c1", 0)]}, {}, "mixed", "validation of fho_lta"),
        ([video("v1")], {}, {"test_unannotated": [change("u1")]}, "mixed", "test of fho_oscc-pnr"),
        ([video("v1")], {"val": [action("c1", 0, verb_label=99)]}, {}, "mixed", "validation of fho_lta"),
        ([video("v1", split_em="val")], {}, {}, "mixed", "validation by split_em"),
        ([video("v1", split_av="test")], {}, {}, "mixed", "test by split_av"),
        ([video("v1", split_em="train", split_av=None)], {}, {}, "train", ""),
    ],
)
def test_a_video_is_for_training_only_where_no_task_holds_it_out(
    tmp_path: Path,
    videos: list[Row],
    actions: dict[str, list[Row]],
    changes: dict[str, list[Row]],
    split: str,
    reason: str,
) -> None:
    ego4d = write_ego4d(tmp_path, videos=videos, actions=actions, changes=changes)
    (record,) = ego4d.videos()
    assert record.split == split
    assert {name: why for name, why in ego4d.held_out().items() if name == "v1"} == ({"v1": reason} if reason else {})
    if split == "mixed":
        assert ego4d.remarks == (
            f"{tmp_path}: 1 video with a part that a task holds out, not trained on: v1 ({reason})",
        )
    (tmp_path / "v2/full_scale/v1.mp4").unlink()
    assert bool(Ego4D(tmp_path).held_out()) == bool(reason)  # the annotations are enough


def test_a_clip_that_overlaps_with_one_that_is_held_out_is_not_trained_on(tmp_path: Path) -> None:
    spans = {"a": (0.0, 50.0), "b": (34.0, 100.0), "c": (100.0, 160.0), "d": (152.0, 190.0), "e": (150.0, 160.0)}
    clips = [clip(name, start=start, stop=stop) for name, (start, stop) in spans.items()]
    train = [action(name, 0) for name in "acd"]
    loose = change("u1", clip_uid=None, parent_start_sec=180.0, parent_end_sec=188.0)
    ego4d = write_ego4d(
        tmp_path,
        videos=[video("v1", "multi"), video("v2", split_em="test")],
        clips=[*clips, clip("f", "v2")],
        actions={"train": [*train, action("f", 0, "v2")], "val": [action("b", 0)]},
        changes={"train": [change("u2", clip_uid="b")], "test_unannotated": [loose]},
        files=("clips/a.mp4",),
    )
    assert {each.video_id: each.split for each in ego4d.videos()} == {
        **{"a": "mixed", "c": "train", "d": "mixed", "f": "mixed", "b": "mixed"}
    }
    held_out = ego4d.held_out()
    assert held_out["a"] == "overlaps with validation of fho_lta (clip b)"
    assert held_out["d"] == "overlaps with test of fho_oscc-pnr"
    assert held_out["f"] == "test by split_em"
    assert "c" not in held_out


def test_a_damaged_file_of_what_is_held_out_is_an_error(tmp_path: Path) -> None:
    ego4d = write_ego4d(tmp_path, videos=[video("v1")], actions={"val": []})
    (tmp_path / "v2/annotations/fho_lta_val.json").write_text("{")
    with pytest.raises(DatasetError, match=r"fho_lta_val\.json: not a readable json file"):
        ego4d.videos()


# --- what is unusual ---


def state_changes(tmp_path: Path, *rows: Row, **options: Any) -> tuple[list[int | None], tuple[str, ...], Ego4D]:
    ego4d = write_ego4d(tmp_path, videos=[video("v1", **options)], changes={"train": rows})
    return [record.pnr_frame for record in ego4d.state_changes("train")], ego4d.remarks, ego4d


def without(row: Row, *names: str) -> Row:
    return {name: value for name, value in row.items() if name not in names}


@pytest.mark.parametrize(
    ("row", "frame", "remark"),
    [
        (change("u1"), 700, ""),
        (change("u1", parent_pnr_frame=400), 700, "parent_pnr_frame counts in the clip file: 1 (u1)"),
        (without(change("u1", pnr_frame=700), "parent_pnr_frame"), 700, "no parent_pnr_frame, pnr_frame is taken"),
        (without(change("u1", pnr_frame=400), "parent_pnr_frame"), 700, "pnr_frame counts in the clip file"),
        (without(change("u1"), "parent_pnr_frame"), 700, "no parent_pnr_frame, clip_pnr_frame is taken"),
        (change("u1", clip_pnr_frame=410), 700, "parent_pnr_frame and clip_pnr_frame differ"),
        (change("u1", state_change=False), None, "a point of no return without a change, which is not read"),
    ],
)
def test_the_point_of_no_return_is_found_wherever_it_stands_and_that_is_counted(
    tmp_path: Path, row: Row, frame: int | None, remark: str
) -> None:
    frames, remarks, _ = state_changes(tmp_path, row)
    assert frames == [frame]
    assert any(remark in text for text in remarks) if remark else remarks == ()


def test_of_a_clip_file_the_point_of_no_return_may_stand_in_the_video_alone(tmp_path: Path) -> None:
    ego4d = write_ego4d(
        tmp_path,
        videos=[video("v1")],
        clips=[clip("c1")],
        changes={"train": [without(change("u1"), "clip_pnr_frame")]},
        files=("clips/c1.mp4",),
    )
    assert [record.pnr_frame for record in ego4d.state_changes("train")] == [400]


def test_one_span_with_both_labels_is_read_twice_and_named(tmp_path: Path) -> None:
    other = without(change("u2", state_change=False), "parent_pnr_frame", "clip_pnr_frame")
    frames, remarks, _ = state_changes(tmp_path, change("u1"), other)
    assert frames == [700, None]
    (remark,) = remarks
    assert remark.endswith("the same span is listed with a change and without, both are read: 1 (u1 and u2)")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (change("u1", parent_end_frame=615, parent_pnr_frame=610), r"has 15 frames \(600 to 615\), fewer than 16"),
        (change("u1", parent_end_sec=41.1), r"the clip ends at 41\.10 s, v1 lasts 40\.00 s"),
        (change("u1", video_uid="v9"), "video v9 is not in"),
        (without(change("u1"), "parent_start_sec"), "parent_start_sec is None"),
        (change("u1", parent_start_frame="600"), "parent_start_frame is '600'"),
        (change("u1", parent_pnr_frame=900), r"the point of no return at frame 900 is outside \(600, 840\)"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_and_the_rest_is_read(tmp_path: Path, row: Row, reason: str) -> None:
    frames, _, ego4d = state_changes(tmp_path, row, change("u2"), seconds=40.0)
    assert frames == [700]
    (problem,) = ego4d.problems
    assert re.search(rf"fho_oscc-pnr_train\.json, clips\[0\]: .*{reason}", problem)
    assert ego4d.num_left_out("fho_oscc-pnr", "train") == 1


def test_an_action_past_the_end_of_its_video_is_named(tmp_path: Path) -> None:
    rows = [action("c1", k) for k in range(3)]  # in the video from 11, 13 and 15 s on
    ego4d = write_ego4d(tmp_path, videos=[video("v1", seconds=14.5)], actions={"train": rows})
    assert [each.action_id for each in ego4d.actions("train")] == ["c1_0", "c1_1"]
    (problem,) = ego4d.problems
    assert problem.endswith("clips[2]: the action ends at 16.00 s, v1 lasts 14.50 s")


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"audio_base_denominator": 48000}, True),
        ({"audio_base_denominator": None}, False),
        ({"streams": [{"codec_type": "video"}, {"codec_type": "audio"}]}, True),
        ({"streams": [{"codec_type": "video"}]}, False),
        ({"streams": "?"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_the_manifest_says_which_videos_have_sound(
    tmp_path: Path, metadata: dict[str, Any] | None, expected: bool | None
) -> None:
    ego4d = write_ego4d(tmp_path, videos=[video("v1", video_metadata=metadata)])
    assert ego4d.sound_of_videos().get("v1") is expected


def test_a_length_that_is_none_is_named_and_the_video_is_read(tmp_path: Path) -> None:
    ego4d = write_ego4d(tmp_path, videos=[video("v1", duration_sec="long"), video("v2")])
    assert ego4d.seconds_of_videos() == {"v2": 200.0}
    assert len(ego4d.videos()) == 2
    (remark,) = ego4d.remarks
    assert remark.endswith("ego4d.json, videos[0]: the duration_sec of video v1 is no length, and is not compared")


def test_a_manifest_without_clips_is_enough(tmp_path: Path) -> None:
    write_ego4d(tmp_path, videos=[video("v1")], actions={"train": [action("c1", 0)]}, files=("clips/c1.mp4",))
    (tmp_path / "ego4d.json").write_text(json.dumps({"videos": [video("v1")]}))
    ego4d = Ego4D(tmp_path)
    assert [each.video_id for each in ego4d.videos("train")] == ["c1"]
    assert [each.start_seconds for each in ego4d.actions("train")] == [1.0]
    assert any("where clips lie in their videos is taken from the tasks" in text for text in ego4d.problems)


@pytest.mark.parametrize("place", ["ego4d.json", "v2/ego4d.json", "v2/annotations/ego4d.json"])
def test_the_manifest_may_lie_at_the_top_or_below_the_version(tmp_path: Path, place: str) -> None:
    write_ego4d(tmp_path, videos=[video("v1")], actions={"train": [action("c1", 0)]})
    (tmp_path / "ego4d.json").rename(tmp_path / place)
    ego4d = Ego4D(tmp_path)
    assert [each.video_id for each in ego4d.videos("train")] == ["v1"]
    assert [each.action_id for each in ego4d.actions("train")] == ["c1_0"]


def test_a_part_of_the_annotations_is_enough(tmp_path: Path) -> None:
    ego4d = write_ego4d(tmp_path, videos=[video("v1")], changes={"val": [change("u1")]})
    assert (ego4d.splits("fho_lta"), ego4d.splits("fho_oscc-pnr")) == ([], ["validation"])
    assert [each.unique_id for each in ego4d.state_changes("validation")] == ["u1"]
    with pytest.raises(DatasetError, match=r"fho_lta_train\.json: not a readable json file"):
        ego4d.actions("train")
    with pytest.raises(ValueError, match="no such task: 'fho_sta'"):
        ego4d.splits("fho_sta")
