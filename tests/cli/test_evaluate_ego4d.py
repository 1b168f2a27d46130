"""`earmark evaluate data=ego4d`: Ego4D's tasks by their command, in both versions and layouts, and with broken rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from earmark.cli.main import main
from tests.helpers.ego4d_files import Row, action, change, clip, video, write_ego4d
from tests.helpers.made_store import add_video, finish_store
from tests.helpers.read_page import Page

VIDEOS = ("v1", "v2", "v3", "v4")  # the first two for training; v2 and v4 without sound
SECONDS = 10
SMALL = [
    *("evaluate.checkpoint=none", "backbone/video=avid_r2plus1d_10", "backbone.video.args.width=4"),
    *("backbone.audio.args.width=4", "data_augm.crop_size=32", "optim.epochs=2", "environment.workers=0"),
    *("evaluate.num_clips=1", "evaluate.baseline=false", "logging.name=tiny", "prepare=default"),
    "prepare.short_side=32",
]


def rows(video_uid: str) -> list[Row]:
    """Return two actions in each of a video's two clips, which have the halves of the video."""
    offsets = {f"{video_uid}a": 0.0, f"{video_uid}b": 5.0}
    return [
        action(clip_uid, index, video_uid, clip_parent_start_sec=offset, clip_parent_end_sec=offset + 5)
        for clip_uid, offset in offsets.items()
        for index in range(2)
    ]


def many_rows(video_uid: str) -> list[Row]:
    """Return 26 actions of a third of a second in a video's first clip, enough for windows of 4 seen and 20 coming."""
    return [
        action(
            f"{video_uid}a",
            index,
            video_uid,
            clip_parent_start_sec=0.0,
            action_clip_start_sec=index / 3,
            action_clip_end_sec=(index + 1) / 3,
        )
        for index in range(26)
    ]


def changes_in(video_uid: str) -> list[Row]:
    """Return 8 s with a change of state in the middle, and 8 s without, half a second later."""
    with_change = change(
        f"{video_uid}_change",
        video_uid,
        clip_uid=f"{video_uid}a",
        parent_start_sec=0.0,
        parent_end_sec=8.0,
        parent_start_frame=0,
        parent_end_frame=240,
        parent_pnr_frame=120,
        clip_pnr_frame=120,
    )
    without = with_change | {
        "unique_id": f"{video_uid}_none",
        "parent_start_sec": 0.5,
        "parent_end_sec": 8.5,
        "parent_start_frame": 15,
        "parent_end_frame": 255,
        "state_change": False,
        "parent_pnr_frame": None,
        "clip_pnr_frame": None,
    }
    return [with_change, without]


def write_all(
    folder: Path,
    *,
    version: str = "v2",
    broken: tuple[Row, ...] = (),
    rows_of: Callable[[str], list[Row]] = rows,
    broken_changes: tuple[Row, ...] = (),
) -> Path:
    """Write an Ego4D with a store of its whole videos and one of its clips; the stores are what is read."""
    sound = {"audio_base_denominator": 48000}
    write_ego4d(
        folder / "EGO4D",
        videos=[
            video(
                name,
                "train" if name in VIDEOS[:2] else "val",
                seconds=SECONDS,
                video_metadata={"fps": 30.0} | (sound if name in ("v1", "v3") else {}),
            )
            for name in VIDEOS
        ],
        clips=[
            clip(f"{name}{half}", name, start, start + 5) for name in VIDEOS for half, start in (("a", 0), ("b", 5))
        ],
        actions={
            "train": [row for name in VIDEOS[:2] for row in rows_of(name)],
            "val": [*(row for name in VIDEOS[2:] for row in rows_of(name)), *broken],
        },
        changes={
            "train": [row for name in VIDEOS[:2] for row in changes_in(name)],
            "val": [*(row for name in VIDEOS[2:] for row in changes_in(name)), *broken_changes],
        },
        files=[f"full_scale/{name}.mp4" for name in VIDEOS]
        + [f"clips/{name}{half}.mp4" for name in VIDEOS for half in "ab"],
        version=version,
    )
    taxonomy = folder / "EGO4D" / version / "annotations/fho_lta_taxonomy.json"
    taxonomy.write_text(json.dumps({"verbs": ["take", "put"], "nouns": ["cup", "lid"]}))
    for layout, parts, frames in (("full_scale", ("",), 160), ("clips", ("a", "b"), 80)):
        root = folder / layout
        added = [
            add_video(
                root,
                f"{name}{part}",
                num_frames=frames,
                split="train" if name in VIDEOS[:2] else "validation",
                has_audio=name in ("v1", "v3"),
            )
            for name in VIDEOS
            for part in parts
        ]
        finish_store(root, added, {}, short_side=32)
    return folder


def evaluate(folder: Path, *overrides: str, layout: str = "full_scale") -> tuple[dict[str, Any], Page]:
    """Judge a random encoder; return results.json and the page."""
    before = set(folder.glob("data/outputs/*/*/results.json"))
    place = [f"data.args.base_path={folder / 'EGO4D'}", f"data.store={folder / layout}", f"data.args.layout={layout}"]
    written = [f"environment.data_dir={folder / 'data'}"]
    assert main(["evaluate", "data=ego4d", *place, *written, *SMALL, *overrides]) == 0
    (new,) = set(folder.glob("data/outputs/*/*/results.json")) - before
    return json.loads(new.read_text()), Page(new.with_name("report.html"))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("version", "layout"), [("v1", "clips"), ("v2", "full_scale")])
def test_every_action_is_recognised_in_either_version_and_layout(tmp_path: Path, version: str, layout: str) -> None:
    write_all(tmp_path, version=version)
    results, page = evaluate(tmp_path, "evaluate.clip_seconds=2.125", layout=layout)
    assert [(of["column"], of["num_test_actions"], of["num_test_videos"]) for of in results["columns"]] == [
        ("verb", 8, 2),  # the clips of one video are one video
        ("noun", 8, 2),
        ("action", 8, 2),
    ]
    assert results["columns"][0]["parts"] == []  # the parts of EPIC-KITCHENS
    assert results["left_out"] == []
    assert results["seen"] == [{"by": "the probe was trained on", "num_videos": 0}]
    assert "these labels have 2 classes of verb, those of Ego4D v1 115" in page.text
    if version == "v2":  # other clips have other results, in a folder of their own
        shorter, _ = evaluate(tmp_path, layout=layout)
        assert shorter["config"]["evaluate"]["clip_seconds"] is None


@pytest.mark.usefixtures("one_thread")
def test_with_sound_actions_of_videos_without_it_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, page = evaluate(write_all(tmp_path), "evaluate.audio=true")
    assert results["options"]["modalities"] == ["video", "audio"]
    assert [of["num_test_actions"] for of in results["columns"]] == [4, 4, 4]
    assert "validation: 4 actions; 4 left out, such as v4a_0: video 'v4' has no sound" in capsys.readouterr().err
    assert "4 actions of train, 4 of validation; left out: 4 and 4" in page.text
    assert "validation: actions: 4 left out" in page.text


@pytest.mark.usefixtures("one_thread")
def test_the_published_protocol_is_that_of_the_numbers_on_ego4d(tmp_path: Path) -> None:
    write_all(tmp_path)
    results, page = evaluate(tmp_path, "evaluate.protocol=published")
    published = results["published"]
    assert published["options"]["protocol"] == (
        "mean over batches of 32 of 8 actions, one random clip of 2.125 s and one random crop each, encoder "
        "fine-tuned, one seed"
    )
    assert published["options"]["fine_tuning"]["backbone_lr_factor"] == 1.0
    assert [of["num_test_actions"] for of in published["columns"]] == [8, 8, 8]
    assert "by the published protocol mean over batches of 32" in page.text


@pytest.mark.usefixtures("one_thread")
def test_broken_rows_are_named_and_counted_on_the_page_and_the_rest_is_judged(tmp_path: Path) -> None:
    missing = action("v3a", 5, "v3", clip_parent_start_sec=0.0)
    del missing["action_clip_start_sec"]
    broken = (
        missing,
        action("v3a", 6, "v3", clip_parent_start_sec="soon"),
        action("v9a", 0, "v9"),
        action("v3a", 7, "v3", clip_parent_start_sec=500.0),
        action("v3a", 0, "v3", clip_parent_start_sec=0.0),
    )
    results, page = evaluate(write_all(tmp_path, broken=broken))
    assert [of["num_test_actions"] for of in results["columns"]] == [8, 8, 8]
    path = tmp_path / "EGO4D/v2/annotations/fho_lta_val.json"
    assert [text.removeprefix(f"{path}, ") for text in results["left_out"]] == [
        "clips[8]: action_clip_start_sec is None, expected a number from -10,000,000 to 10,000,000",
        "clips[9]: clip_parent_start_sec is 'soon', expected a number from 0 to 10,000,000",
        f"clips[10]: video v9 is not in {tmp_path / 'EGO4D/ego4d.json'}",
        "clips[11]: the action ends at 516.00 s, v3 lasts 10.00 s",
        "clips[12]: action 0 of clip v3a is listed twice",
    ]
    assert "annotations: 5 left out" in page.text
    assert "Not all annotations could be used; 5 problems, the first" in page.text


@pytest.mark.usefixtures("one_thread")
def test_broken_state_changes_are_named_and_counted_and_the_rest_is_judged(tmp_path: Path) -> None:
    (row, _) = changes_in("v3")
    missing = {key: value for key, value in row.items() if key != "parent_start_sec"} | {"unique_id": "missing"}
    broken = (
        missing,
        row | {"unique_id": "type", "state_change": "yes"},
        row | {"unique_id": "unknown", "video_uid": "v9"},
        row | {"unique_id": "past", "parent_start_sec": 95.0, "parent_end_sec": 103.0},
        row,
    )
    folder = write_all(tmp_path, broken_changes=broken)
    results, page = evaluate(folder, "evaluate.task=oscc_pnr", "evaluate.train_parts=1")
    state, keyframe = results["columns"]
    assert (state["num_test_clips"], state["num_test_videos"], keyframe["num_test_clips"]) == (4, 2, 2)
    path = tmp_path / "EGO4D/v2/annotations/fho_oscc-pnr_val.json"
    assert [text.removeprefix(f"{path}, ").partition(":")[0] for text in results["left_out"]] == [
        *(f"clips[{number}]" for number in range(4, 9)),
    ]
    for reason in ("parent_start_sec is None", "state_change is 'yes'", "v9 is not in", "v3 lasts 10.00 s", "twice"):
        assert sum(reason in text for text in results["left_out"]) == 1
    assert "annotations: 5 left out" in page.text
    assert "those of Ego4D v1 115" in page.text  # why no published results are shown


@pytest.mark.usefixtures("one_thread")
def test_broken_rows_of_anticipation_are_named_and_counted_and_the_rest_is_judged(tmp_path: Path) -> None:
    late = {"clip_parent_start_sec": 0.0, "action_clip_start_sec": 9.0, "action_clip_end_sec": 9.3}
    broken = (
        action("v3a", 30, "v3", **late, verb_label="cut"),
        action("v9a", 0, "v9"),
        action("v3b", 0, "v3", clip_parent_start_sec=500.0),
    )
    folder = write_all(tmp_path, rows_of=many_rows, broken=broken)
    results, page = evaluate(folder, "evaluate.task=lta", "evaluate.num_layers=1")
    # 26 - 20 - 4 + 1 windows of each video; the lost action 30 of the first clip takes one more with it
    assert [column["num_test_windows"] for column in results["columns"]] == [6, 6, 6]
    assert len(results["left_out"]) == 3
    for reason in ("verb_label is 'cut'", "v9 is not in", "v3 lasts 10.00 s"):
        assert sum(reason in text for text in results["left_out"]) == 1
    assert "annotations: 3 left out" in page.text


def test_what_ego4d_has_not_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", "data=ego4d", f"data.args.base_path={tmp_path}", *SMALL]
    for overrides, message in (
        (["evaluate.task=anticipation"], "evaluate.task: anticipation is that of EPIC-KITCHENS"),
        (["evaluate.protocol=published", "evaluate.audio=true"], "evaluate.audio: must be false with"),
        (["evaluate.split=test", "evaluate.submission=a.json"], "labels of Ego4D's test actions are not public"),
    ):
        assert main([*command, *overrides]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    write_all(tmp_path)
    place = [f"data.args.base_path={tmp_path / 'EGO4D'}", f"data.store={tmp_path / 'full_scale'}"]
    assert main(["evaluate", "data=ego4d", *place, *SMALL, "evaluate.submission=a.json"]) == 2
    assert "evaluate.submission: Ego4D has no challenge of action_recognition" in capsys.readouterr().err
