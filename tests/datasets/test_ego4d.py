"""Ego4D: what the official json files and a folder of videos become."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from earmark.datasets import DATASETS, DatasetError, Ego4D

ACTION = {
    "video_uid": "v1",
    "clip_uid": "c1",
    "clip_parent_start_sec": 292.0,
    "action_clip_start_sec": 10.5,
    "action_clip_end_sec": 12.0,
    "action_idx": 0,
    "verb_label": 1,
    "noun_label": 0,
}
CHANGE = {
    "unique_id": "u1",
    "video_uid": "v1",
    "parent_start_sec": 20.0,
    "parent_end_sec": 28.0,
    "parent_start_frame": 600,
    "parent_end_frame": 840,
    "state_change": True,
    "parent_pnr_frame": 700,
}
VIDEOS = [
    {"video_uid": "v1", "split_fho": "train", "fb_participant_id": 7, "video_metadata": {"fps": 30.0}},
    {"video_uid": "v2", "split_fho": "multi", "fb_participant_id": None, "video_metadata": {"fps": 30.0}},
    {"video_uid": "v3", "split_fho": "val", "fb_participant_id": 8, "video_metadata": {"fps": 30.0}},
]


def write(
    folder: Path,
    *,
    actions: list[dict[str, Any]] | None = None,
    changes: list[dict[str, Any]] | None = None,
    videos: list[dict[str, Any]] | None = None,
    split: str = "train",
    version: str = "v1",
) -> Ego4D:
    """Write a small Ego4D and open it."""
    below = folder / version / "annotations"
    below.mkdir(parents=True)
    (folder / version / "full_scale").mkdir()
    (folder / version / "full_scale/v1.mp4").touch()
    (folder / "ego4d.json").write_text(json.dumps({"videos": VIDEOS if videos is None else videos}))
    (below / "fho_lta_taxonomy.json").write_text(json.dumps({"verbs": ["take", "put"], "nouns": ["cup"]}))
    (below / f"fho_lta_{split}.json").write_text(json.dumps({"clips": actions or []}))
    (below / f"fho_oscc-pnr_{split}.json").write_text(json.dumps({"clips": changes or []}))
    return Ego4D(folder)


def test_videos_have_the_split_of_the_benchmark(tmp_path: Path) -> None:
    ego4d = write(tmp_path)
    assert DATASETS["ego4d"] is Ego4D
    assert [(video.video_id, video.split, video.participant_id) for video in ego4d.videos()] == [
        *(("v1", "train", "7"), ("v2", "mixed", ""), ("v3", "validation", "8"))
    ]
    (video,) = ego4d.videos("train")
    assert video.path == tmp_path / "v1/full_scale/v1.mp4"
    with pytest.raises(DatasetError, match=r"1 video listed, none found \(looked for .*v3\.mp4"):
        ego4d.videos("validation")
    with pytest.raises(DatasetError, match="no such split: 'val'"):
        ego4d.videos("val")


def test_smaller_copies_of_the_videos_are_found(tmp_path: Path) -> None:
    ego4d = write(tmp_path)
    (tmp_path / "v1/video_540ss").mkdir()
    (tmp_path / "v1/video_540ss/v3.mp4").touch()
    assert ego4d.videos("validation")[0].path == tmp_path / "v1/video_540ss/v3.mp4"


def test_actions_are_sorted_by_index_within_their_clip_and_timed_in_the_video(tmp_path: Path) -> None:
    rows = [ACTION | {"action_idx": 10}, ACTION | {"clip_uid": "c0"}, ACTION | {"action_idx": 9}, ACTION]
    actions = write(tmp_path, actions=rows).actions("train")
    assert [action.action_id for action in actions] == ["c1_0", "c1_9", "c1_10", "c0_0"]
    assert (actions[0].start_seconds, actions[0].stop_seconds, actions[0].labels) == (
        302.5,
        304.0,
        {"verb": 1, "noun": 0},
    )


def test_the_test_split_has_neither_classes_nor_changes(tmp_path: Path) -> None:
    action = {name: value for name, value in ACTION.items() if not name.endswith("_label")}
    change = {name: value for name, value in CHANGE.items() if name not in ("state_change", "parent_pnr_frame")}
    ego4d = write(tmp_path, actions=[action], changes=[change], split="test_unannotated")
    assert ego4d.actions("test")[0].labels == {}
    assert ego4d.state_changes("test")[0].state_change is None
    assert ego4d.state_changes("test")[0].pnr_seconds is None


def test_the_point_of_no_return_is_a_frame_of_the_video(tmp_path: Path) -> None:
    older = {**CHANGE, "unique_id": "u2", "pnr_frame": 615}
    del older["parent_pnr_frame"]
    without = {**CHANGE, "unique_id": "u3", "state_change": False, "pnr_frame": None}
    del without["parent_pnr_frame"]
    first, second, third = write(tmp_path, changes=[CHANGE, older, without]).state_changes("train")
    assert first.pnr_seconds == pytest.approx(20 + 100 / 30)
    assert (second.pnr_frame, second.pnr_seconds) == (615, 20.5)
    assert (third.state_change, third.pnr_frame, third.pnr_seconds) == (False, None, None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"action_idx": -1}, "action_idx is -1"),
        ({"action_idx": True}, "action_idx is True"),
        ({"video_uid": "v9"}, "video v9 is not in"),
        ({"action_clip_end_sec": 10.5}, "the action goes from 302.5 s to 302.5 s"),
        ({"action_clip_end_sec": None}, "action_clip_end_sec is None"),
        ({"verb_label": 2}, "verb_label is 2, expected a whole number from 0 to 1"),
        ({"clip_uid": ""}, "clip_uid is ''"),
        ({"clip_uid": "c" * 5000}, r"clip_uid is 'c+\.\.\. \(5000 characters\), longer than the 200 characters"),
        ({"clip_uid": "c\0"}, r"clip_uid is 'c\\x00', with characters that no name has"),
        ({"clip_uid": "\ud800"}, r"clip_uid is '\\ud800', with characters that no name has"),
        ({"action_clip_end_sec": float("nan")}, "action_clip_end_sec is nan, expected a number from"),
        ({"action_clip_end_sec": float("inf")}, "action_clip_end_sec is inf, expected a number from"),
        ({"action_clip_end_sec": 1e308}, r"action_clip_end_sec is 1e\+308, expected a number from"),
        ({"action_clip_end_sec": 10**400}, r"action_clip_end_sec is 10+\.\.\. \(401 characters\), expected a number"),
        ({"action_clip_end_sec": "12.0"}, "action_clip_end_sec is '12.0', expected a number from"),
        ({"action_clip_end_sec": [12.0]}, "action_clip_end_sec is a list, expected a number from"),
        ({"action_clip_start_sec": -300.0}, "the action goes from -8.0 s to 304.0 s"),
        ({"action_idx": 10**30}, r"action_idx is 1000000000000000000000000000000, expected a whole number"),
        ({"verb_label": 1.0}, "verb_label is 1.0, expected a whole number"),
    ],
)
def test_a_bad_action_is_named_by_file_and_place(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    ego4d = write(tmp_path, actions=[ACTION | {"action_idx": 5}, ACTION | change, ACTION | {"action_idx": 6}])
    assert [action.action_id for action in ego4d.actions("train")] == ["c1_5", "c1_6"]
    (problem,) = ego4d.problems
    assert re.search(rf"fho_lta_train\.json, clips\[1\]: {reason}", problem)
    alone = write(tmp_path / "alone", actions=[ACTION | change])
    with pytest.raises(DatasetError, match=rf"fho_lta_train\.json, clips\[0\]: {reason}"):
        alone.actions("train")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"state_change": "yes"}, "state_change is 'yes'"),
        ({"parent_pnr_frame": 900}, "the point of no return at frame 900 is outside"),
        ({"parent_pnr_frame": None}, "parent_pnr_frame is None"),
        ({"parent_end_sec": 20.0}, "the clip goes from 20.0 s to 20.0 s"),
        ({"unique_id": "u1"}, "unique_id u1 is listed twice"),
        ({"parent_start_sec": -1.0}, "parent_start_sec is -1.0, expected a number from 0"),
        ({"parent_end_sec": 10**400}, r"parent_end_sec is 10+\.\.\. \(401 characters\), expected a number from 0"),
        ({"parent_end_frame": 600}, "the clip goes from frame 600 to frame 600"),
        ({"parent_end_frame": 10**90}, "parent_end_frame is 10+"),
        ({"unique_id": "u" * 5000}, "unique_id is 'u+"),
    ],
)
def test_a_bad_state_change_is_named_by_file_and_place(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    ego4d = write(tmp_path, changes=[CHANGE, CHANGE | {"unique_id": "u2"} | change, CHANGE | {"unique_id": "u3"}])
    assert [record.unique_id for record in ego4d.state_changes("train")] == ["u1", "u3"]
    (problem,) = ego4d.problems
    assert re.search(rf"fho_oscc-pnr_train\.json, clips\[1\]: {reason}", problem)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_each_version_of_the_download_is_read_where_it_is_written(tmp_path: Path, version: str) -> None:
    ego4d = write(tmp_path, actions=[ACTION], changes=[CHANGE], version=version)
    assert (ego4d.version, ego4d.problems) == (version, ())
    assert ego4d.videos("train")[0].path == tmp_path / version / "full_scale/v1.mp4"
    assert [action.action_id for action in ego4d.actions("train")] == ["c1_0"]
    assert [change.unique_id for change in ego4d.state_changes("train")] == ["u1"]
    assert ego4d.classes == {"verb": ["take", "put"], "noun": ["cup"]}


def test_of_two_versions_the_newer_is_read_and_said_and_either_can_be_asked_for(tmp_path: Path) -> None:
    write(tmp_path, actions=[ACTION], version="v1")
    newer = write(tmp_path, actions=[ACTION, {**ACTION, "action_idx": 1}], version="v2")
    (tmp_path / "v2/full_scale/v1.mp4").unlink()  # a video that only the older download has is the same one
    assert newer.remarks == (f"{tmp_path}: v2 is read; v1 is there, too",)
    assert newer.videos("train")[0].path == tmp_path / "v1/full_scale/v1.mp4"
    older = Ego4D(tmp_path, version="v1")
    assert (len(newer.actions("train")), len(older.actions("train")), older.problems) == (2, 1, ())
    with pytest.raises(ValueError, match="no such version of Ego4D: 'v3'"):
        Ego4D(tmp_path, version="v3")


def test_annotations_may_be_a_bare_list(tmp_path: Path) -> None:
    ego4d = write(tmp_path, version="v2")
    (tmp_path / "v2/annotations/fho_lta_train.json").write_text(json.dumps([ACTION]))
    (tmp_path / "v2/annotations/fho_oscc-pnr_train.json").write_text(json.dumps([CHANGE]))
    assert [action.action_id for action in ego4d.actions("train")] == ["c1_0"]
    assert [change.unique_id for change in ego4d.state_changes("train")] == ["u1"]
    (tmp_path / "v2/annotations/fho_lta_train.json").write_text('["c1"]')
    with pytest.raises(DatasetError, match=r"fho_lta_train\.json, clips\[0\]: expected a json object"):
        ego4d.actions("train")


def test_an_action_twice_is_refused(tmp_path: Path) -> None:
    ego4d = write(tmp_path, actions=[ACTION, ACTION])
    assert len(ego4d.actions("train")) == 1
    (problem,) = ego4d.problems
    assert problem.endswith("fho_lta_train.json, clips[1]: action 0 of clip c1 is listed twice")


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        Ego4D(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"no ego4d\.json here"):
        Ego4D(tmp_path)
    ego4d = write(tmp_path)
    with pytest.raises(DatasetError, match=r"fho_lta_val\.json: not a readable json file"):
        ego4d.actions("validation")
    (tmp_path / "v1/annotations/fho_lta_train.json").write_text('{"clips": 3}')
    with pytest.raises(DatasetError, match=r"fho_lta_train\.json: must be a list, or an object whose clips is one"):
        ego4d.actions("train")
    (tmp_path / "ego4d.json").write_text("[")
    with pytest.raises(DatasetError, match=r"ego4d\.json: not a readable json file"):
        Ego4D(tmp_path)


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", ".."])
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match="cannot be the name of a video"):
        write(tmp_path, videos=[{**VIDEOS[0], "video_uid": name}])


def test_frames_a_second_come_from_the_metadata(tmp_path: Path) -> None:
    ego4d = write(tmp_path, changes=[CHANGE], videos=[{**VIDEOS[0], "video_metadata": {}}])
    with pytest.raises(DatasetError, match=r"ego4d\.json, video v1: fps is None"):
        ego4d.state_changes("train")


@pytest.mark.parametrize("fps", [1e308, float("inf"), float("nan"), -30.0, 0, 10**400, "30", True])
def test_impossible_frame_rates_leave_out_the_rows_that_need_them(tmp_path: Path, fps: Any) -> None:
    videos = [{**VIDEOS[0], "video_metadata": {"fps": fps}}, VIDEOS[1]]
    ego4d = write(tmp_path, changes=[CHANGE, CHANGE | {"unique_id": "u2", "video_uid": "v2"}], videos=videos)
    assert [record.unique_id for record in ego4d.state_changes("train")] == ["u2"]
    (problem,) = ego4d.problems
    assert re.search(r"fho_oscc-pnr_train\.json, clips\[0\]: .*ego4d\.json, video v1: fps is .*, expected", problem)


def test_a_bad_row_of_the_manifest_stops_no_other(tmp_path: Path) -> None:
    bad = [{"video_uid": "v" * 5000}, {"video_uid": "../v2"}, VIDEOS[0], 3, {**VIDEOS[1], "fb_participant_id": ["x"]}]
    ego4d = write(tmp_path, videos=[VIDEOS[0], *bad, VIDEOS[2]])
    assert [video.video_id for video in ego4d.videos()] == ["v1", "v3"]
    assert [re.sub(r".*ego4d\.json, (\S+): .*", r"\1", text) for text in ego4d.problems] == [
        f"videos[{number}]" for number in (1, 2, 3, 4, 5)
    ]
    assert ego4d.problems[2].endswith("videos[3]: video v1 is listed twice")


ROW = json.dumps(ACTION)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (ROW[:-1] + ', "action_idx": 7}', r"'action_idx' is given twice"),
        (ROW.replace("10.5", "9" * 5000), "action_clip_start_sec is inf"),
        (ROW.replace("10.5", "1e400"), "action_clip_start_sec is inf"),
        (ROW.replace("c1", "c\xff"), r"clip_uid is 'c\\udcff'"),
        ("[" * 50 + "]" * 50, "expected a json object, got a list"),
    ],
)
@pytest.mark.parametrize("start", ["", "\xef\xbb\xbf"])
@pytest.mark.parametrize("padding", ["", " " * 300_000])
def test_what_json_takes_and_no_row_may_hold_is_named(
    tmp_path: Path, bad: str, reason: str, start: str, padding: str
) -> None:
    ego4d = write(tmp_path)
    good = json.dumps(ACTION | {"action_idx": 1})
    text = f'{start}{{"version": "1", "clips": [{padding}{bad},\r\n{padding}{good}{padding}], "more": [1.5]}}{padding}'
    (tmp_path / "v1/annotations/fho_lta_train.json").write_bytes(text.encode("latin-1"))
    assert [action.action_id for action in ego4d.actions("train")] == ["c1_1"]
    (problem,) = ego4d.problems
    assert re.search(rf"fho_lta_train\.json, clips\[0\]: {reason}", problem)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 1_000_000,
        '{"clips": [' + '{"a":' * 200_000,
        '{"clips": [{}',
        '{"clips": [{} {}]}',
        '{"clips": [{}]} {}',
        '{"clips": []',
        '{"clips": [], "clips": []}',
        '{"clips": ["a\0b"]}',
        "\x00\xff\xfe",
        "{",
        "",
    ],
)
def test_text_that_is_no_json_is_refused_whole(tmp_path: Path, text: str) -> None:
    ego4d = write(tmp_path)
    (tmp_path / "v1/annotations/fho_lta_train.json").write_text(text, encoding="latin-1")
    with pytest.raises(DatasetError, match=r"fho_lta_train\.json: not a readable json file"):
        ego4d.actions("train")
    (tmp_path / "v1/annotations/fho_lta_taxonomy.json").write_text(text, encoding="latin-1")
    with pytest.raises(DatasetError, match=r"fho_lta_taxonomy\.json"):
        Ego4D(tmp_path)


@pytest.mark.parametrize("name", ["\u2028", "", "red \x1b[31m", "x" * 1001, 3, None])
def test_a_class_without_a_name_is_refused(tmp_path: Path, name: object) -> None:
    write(tmp_path)
    path = tmp_path / "v1/annotations/fho_lta_taxonomy.json"
    path.write_text(json.dumps({"verbs": ["take", name], "nouns": ["cup"]}))
    with pytest.raises(DatasetError, match=r"fho_lta_taxonomy\.json: verb 1 is .*name"):
        Ego4D(tmp_path)
