"""Ego4D's json with broken rows: whatever is wrong with a field, its row is named, and all others are read."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from earmark.datasets import DatasetError, Ego4D, anticipation_windows
from tests.helpers.ego4d_files import Row, action, change, clip, video, write_ego4d

MISSING = object()
WRONG = (MISSING, None, "text", [1], {"a": 1}, True, math.nan, math.inf, -1, 10**400, "", "\x1b[31m", "u" * 5000)
OF_ACTIONS = ("clip_uid", "video_uid", "action_idx", "verb_label", "noun_label")
OF_ACTION_TIMES = ("action_clip_start_sec", "action_clip_end_sec", "clip_parent_start_sec")
OF_CHANGES = ("unique_id", "video_uid", "state_change", "parent_pnr_frame")
OF_CHANGE_TIMES = ("parent_start_sec", "parent_end_sec", "parent_start_frame", "parent_end_frame")
FINE = {  # names may be any text; of a frame that is not given another field tells
    "state_change": (True,),
    "parent_pnr_frame": (MISSING, None),
    "unique_id": ("text",),
    "clip_uid": ("text",),
}


def broken(row: Row, name: str, value: Any) -> Row:
    row = {key: each for key, each in row.items() if key != name}
    return row if value is MISSING else row | {name: value}


def wrong_for(field: str) -> list[Any]:
    return [each for each in WRONG if not any(each is fine for fine in FINE.get(field, ()))]


def read(ego4d: Ego4D, task: str) -> list[str]:
    if task == "fho_lta":
        return [each.action_id for each in ego4d.actions("validation")]
    return [each.unique_id for each in ego4d.state_changes("validation")]


def written(tmp_path: Path, task: str, rows: list[Any], layout: str = "full_scale") -> Ego4D:
    files = {"full_scale": ("full_scale/v1.mp4",), "clips": ("clips/c1.mp4",)}[layout]
    of_task = {"actions" if task == "fho_lta" else "changes": {"val": rows}}
    return write_ego4d(tmp_path, videos=[video("v1")], clips=[clip("c1"), clip("c2")], files=files, **of_task)


def rows_of(task: str, number: int) -> list[Row]:
    if task == "fho_lta":
        return [action("c2" if index else "c1", index) for index in range(number)]
    return [change(f"u{index}") for index in range(number)]


def names_of(task: str, places: range | list[int]) -> list[str]:
    return [f"{'c2' if place else 'c1'}_{place}" if task == "fho_lta" else f"u{place}" for place in places]


@pytest.mark.parametrize(
    ("task", "field"),
    [
        *(("fho_lta", name) for name in (*OF_ACTIONS, *OF_ACTION_TIMES)),
        *(("fho_oscc-pnr", name) for name in (*OF_CHANGES, *OF_CHANGE_TIMES)),
    ],
)
def test_whatever_a_field_holds_its_row_is_named_and_the_others_are_read(tmp_path: Path, task: str, field: str) -> None:
    values = wrong_for(field)
    if field in OF_ACTION_TIMES:
        values.remove(-1)  # a clip's margins lie before it
    good = rows_of(task, 2 + len(values))
    rows = [good[0], *(broken(row, field, value) for row, value in zip(good[1:-1], values, strict=True)), good[-1]]
    ego4d = written(tmp_path, task, rows)
    assert read(ego4d, task) == names_of(task, [0, len(rows) - 1])
    assert ego4d.num_left_out(task, "validation") == len(values)
    path = ego4d.annotations_path / f"{task}_val.json"
    assert [text.partition(": ")[0] for text in ego4d.problems] == [
        f"{path}, clips[{k + 1}]" for k in range(len(values))
    ]
    assert all(len(text) < 600 and "\x1b" not in text for text in ego4d.problems)


@pytest.mark.parametrize("field", ["clip_uid", "clip_start_sec", "clip_end_frame"])
def test_where_clips_are_read_their_own_fields_are_needed(tmp_path: Path, field: str) -> None:
    values = wrong_for(field)
    rows = [change("u0"), *(broken(change(f"w{k}"), field, value) for k, value in enumerate(values)), change("u1")]
    ego4d = written(tmp_path, "fho_oscc-pnr", rows, layout="clips")
    assert read(ego4d, "fho_oscc-pnr") == ["u0", "u1"]
    assert len(ego4d.problems) == len(values)


@pytest.mark.parametrize("task", ["fho_lta", "fho_oscc-pnr"])
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda row: row | {"video_uid": "v9"}, "video v9 is not in"),
        (lambda row: row | {"action_clip_end_sec": 500.0, "parent_end_sec": 500.0}, r"lasts 200\.00 s"),
        (lambda row: [row], "expected a json object, got a list"),
        (lambda row: None, "expected a json object, got None"),
    ],
)
def test_an_unknown_video_or_an_end_past_the_videos_own_is_named(
    tmp_path: Path, task: str, damage: Callable[[Row], Any], reason: str
) -> None:
    rows: list[Any] = rows_of(task, 3)
    rows[1] = damage(rows[1])
    ego4d = written(tmp_path, task, rows)
    assert read(ego4d, task) == names_of(task, [0, 2])
    (problem,) = ego4d.problems
    assert f"{task}_val.json, clips[1]: " in problem
    assert re.search(reason, problem)


@pytest.mark.parametrize("task", ["fho_lta", "fho_oscc-pnr"])
@pytest.mark.parametrize("root", ["3", "null", '"clips"', '{"clips": {}}', '{"clips": null}', '{"clip": []}'])
def test_another_root_is_refused(tmp_path: Path, task: str, root: str) -> None:
    ego4d = written(tmp_path, task, rows_of(task, 1))
    (ego4d.annotations_path / f"{task}_val.json").write_text(root)
    with pytest.raises(DatasetError, match=rf"{task}_val\.json: must be a list, or an object whose clips is one"):
        read(ego4d, task)


def test_of_many_broken_rows_a_thousand_are_named_all_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    number, bad = 5_000, 1_500
    rows = [change(f"u{k}", **({"state_change": 3} if k < bad else {})) for k in range(number)]
    ego4d = written(tmp_path, "fho_oscc-pnr", rows)
    assert read(ego4d, "fho_oscc-pnr") == [f"u{k}" for k in range(bad, number)]
    assert ego4d.num_left_out("fho_oscc-pnr", "validation") == bad
    assert len(ego4d.problems) == 1001
    assert ego4d.problems[-1].endswith("fho_oscc-pnr_val.json: 500 more rows of this kind")


def test_windows_that_hold_a_broken_row_are_lost_and_those_of_other_clips_are_not(tmp_path: Path) -> None:
    labels = {"action_clip_start_sec": 1.0, "action_clip_end_sec": 2.0}
    rows = [action(name, index, **labels) for name in ("c1", "c2") for index in range(30)]
    del rows[12]["verb_label"]
    ego4d = written(tmp_path, "fho_lta", rows)
    windows = [anticipation_windows(each, num_seen=4) for each in ego4d.anticipation_clips("validation")]
    assert [len(each) for each in windows] == [0, 7]
