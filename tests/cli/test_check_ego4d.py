"""`earmark check` of Ego4D: what is there of each task, and what ego4d.json says against the files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earmark.cli.main import main
from earmark.clips.store import PreparedStore
from earmark.media import VideoWriter
from tests.helpers.ego4d_files import Row, action, change, clip, video, write_ego4d

SECONDS = 32.0


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_video(path: Path, *, seconds: float = SECONDS, sound: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    with VideoWriter(path, width=64, height=48, fps=8, sample_rate=16000) as writer:
        for _ in range(round(8 * seconds)):
            writer.write_frame(rng.integers(0, 255, (48, 64, 3), np.uint8))
        if sound:
            writer.write_sound(rng.normal(0, 0.1, round(16000 * seconds)).astype(np.float32))


def silent(row: Row) -> Row:
    return row | {"video_metadata": {"fps": 30.0, "audio_base_denominator": None}}


@pytest.fixture
def ego4d(tmp_path: Path) -> Path:
    """Return a v2 download with a fault of each kind: a to d train, e validation, f train here and validation there."""
    base = tmp_path / "EGO4D"
    videos = [
        video("a", seconds=SECONDS),
        silent(video("b", seconds=SECONDS)),
        video("c", seconds=SECONDS),
        video("d", seconds=SECONDS),
        video("e", "val", seconds=SECONDS),
        video("f", seconds=SECONDS),
    ]
    train = [action(f"clip_{name}", index, name) for name in "abcd" for index in range(6)]
    train.append(action("clip_a", 6, "a", verb_label=9))
    changes = [
        change("u1", "a"),
        change("u2", "c", state_change=False, parent_pnr_frame=None, clip_pnr_frame=None),
        change("u3", "d"),
        change("u4", "x"),
    ]
    write_ego4d(
        base,
        videos=videos,
        actions={"train": train, "val": [action("clip_e", 0, "e"), action("clip_f", 0, "f")]},
        changes={"train": changes, "val": [change("u5", "e")]},
        files=(),
    )
    folder = base / "v2/full_scale"
    write_video(folder / "a.mp4", sound=False)  # listed with sound
    write_video(folder / "b.mp4")  # listed without
    write_video(folder / "c.mp4", seconds=10)  # of 32
    (folder / "e.mp4").write_bytes(b"no video" * 100)
    write_video(folder / "f.mp4")
    write_video(folder / "z.mp4", seconds=1)
    return base


def checked(base: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    command = ["check", "data=ego4D_10s_audiopeak", f"data.args.base_path={base}", *more, "--workers", "1", "--json"]
    assert main(command) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def test_every_fault_of_the_download_is_counted_and_named(ego4d: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = checked(ego4d, capsys)
    assert (report["num_expected"], report["num_found"], report["num_readable"]) == (6, 5, 4)
    assert {each["video_id"]: each["split"] for each in report["videos"]} == {
        **dict.fromkeys("abcd", "train"),
        **{"e": "validation", "f": "mixed"},
    }
    faults = report["faults"]
    assert [line.split(":")[0] for line in faults["missing"]] == ["d"]
    assert [line.split(":")[0] for line in faults["unreadable"]] == ["e"]
    assert [line.split(" (")[0] for line in faults["cut short"]] == ["c: 10.00 s, listed with 32.00 s"]
    assert faults["without sound"] == ["a"]
    assert [line.split(",")[0] for line in faults["sound is missing"]] == ["a: listed with sound"]
    assert [line.split(",")[0] for line in faults["sound not listed"]] == ["b: listed without sound"]
    assert (report["num_listed_with_sound"], report["num_listed_without_sound"]) == (5, 1)
    assert faults["not read"] == [f"{ego4d}/v2/full_scale: 1 file not listed in ego4d.json: z.mp4"]
    assert [line.partition("json, ")[2].partition(":")[0] for line in faults["annotations"]] == [
        "clips[24]",
        "clips[3]",
    ]
    assert faults["not trained on"] == ["f: validation of fho_lta"]
    assert report["hours"] == pytest.approx(106 / 3600, rel=0.02)
    assert report["hours_with_sound"] == pytest.approx(74 / 3600, rel=0.02)


def test_each_task_says_what_falls_away_and_why(ego4d: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = {(task["task"], task["split"]): task for task in checked(ego4d, capsys)["tasks"]}
    recognition = tasks["action recognition", "train"]
    assert recognition["num_rows"] == 25
    # of d all six; of c, which begins at second 10 of its clip, all begin behind its 10 s
    assert recognition["fall_away"] == {"cannot be used": 1, "begin after their file ends": 6, "video missing": 6}
    counts = ("num_videos", "num_found", "num_readable", "num_cut_short", "num_with_sound")
    assert [recognition[name] for name in counts] == [4, 3, 3, 1, 2]
    assert recognition["seconds"] == pytest.approx(74, rel=0.02)
    assert recognition["seconds_with_sound"] == pytest.approx(42, rel=0.02)
    validation = tasks["action recognition", "validation"]
    assert (validation["num_rows"], validation["fall_away"]) == (2, {"video unreadable": 1})
    changes, points = tasks["state change (OSCC)", "train"], tasks["point of no return (PNR)", "train"]
    assert (changes["num_rows"], points["num_rows"]) == (4, 2)
    assert changes["fall_away"] == {
        **{"cannot be used": 1, "begin after their file ends": 1, "video missing": 1},
    }
    assert points["fall_away"] == {"video missing": 1}
    assert {split for _, split in tasks} == {"train", "validation"}


def test_windows_of_anticipation_fall_away_with_an_action_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [action("c1", k, **({"noun_label": 5} if k == 3 else {})) for k in range(27)]
    write_ego4d(tmp_path / "E", videos=[video("v1", seconds=200)], actions={"train": rows}, files=())
    write_video(tmp_path / "E/v2/full_scale/v1.mp4", seconds=1)
    tasks = {task["task"]: task for task in checked(tmp_path / "E", capsys)["tasks"]}
    windows = tasks["anticipation (4 seen)"]  # 4 of 27 actions, all of which hold action 3
    assert (windows["num_rows"], windows["fall_away"]) == (4, {"with an action that cannot be used": 4})


def test_a_task_of_which_no_row_can_be_used_leaves_the_download_incomplete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [action("c1", k, noun_label=999) for k in range(27)]
    write_ego4d(tmp_path / "E", videos=[video("v1", seconds=4)], actions={"train": rows}, files=())
    write_video(tmp_path / "E/v2/full_scale/v1.mp4", seconds=4)
    report = checked(tmp_path / "E", capsys)
    assert report["unread_splits"] == ["train anticipation"]
    assert not report["complete"]


def test_the_table_has_a_row_for_each_task(ego4d: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["check", "data=ego4D_10s_audiopeak", f"data.args.base_path={ego4d}", "--workers", "1"]
    assert main(command) == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "state change (OSCC), train" in out
    assert "listed with sound 5, without 1" in out
    assert "not complete: 5 of 6 videos found, 4 can be read; what is there can be used" in out


def test_clips_and_an_older_version_are_checked_where_they_are_asked_for(
    ego4d: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_ego4d(
        ego4d,
        videos=[video("a", seconds=SECONDS)],
        clips=[clip("clip_a", "a", 10.0, 12.0)],
        actions={"train": [action("clip_a", 0, "a")]},
        files=(),
        version="v1",
    )
    write_video(ego4d / "v1/clips/clip_a.mp4", seconds=2)
    report = checked(ego4d, capsys, "data.args.version=v1", "data.args.layout=clips")
    assert report["complete"]
    assert [each["video_id"] for each in report["videos"]] == ["clip_a"]
    tasks = {task["task"]: task for task in report["tasks"]}
    assert set(tasks) == {"anticipation (4 seen)", "action recognition"}
    assert (tasks["action recognition"]["num_rows"], tasks["action recognition"]["num_with_sound"]) == (1, 1)


def test_a_layout_of_another_data_set_is_refused(ego4d: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for data, layout in (("ego4D_10s_audiopeak", "segments"), ("epic_10s_audiopeak", "clips")):
        assert main(["check", f"data={data}", f"data.args.base_path={ego4d}", f"data.args.layout={layout}"]) == 2
        assert f"data.args.layout: {layout} is none of" in capsys.readouterr().err


def test_prepare_ends_with_the_same_report(ego4d: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["prepare", "data=ego4D_10s_audiopeak", f"data.args.base_path={ego4d}", "prepare.short_side=128"]
    assert main([*command, "prepare.workers=1", "prepare.isolate=false"]) == 0
    printed = capsys.readouterr()
    out = " ".join(printed.out.replace("│", " ").split())
    assert "not complete: 5 of 6 videos found, 4 can be read; what is there can be used" in out
    assert "listed with sound 5, without 1" in out
    assert "1 video with a part that a task holds out, not trained on: f (validation of fho_lta)" in printed.err
    (root,) = Path("earmark_data/prepared").iterdir()
    splits = {name: video.split for name, video in PreparedStore(root).videos.items()}
    assert splits == {**dict.fromkeys("abc", "train"), "f": "mixed"}  # pretraining takes those of train
