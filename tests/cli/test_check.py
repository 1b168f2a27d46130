"""`earmark check` and the same report of `earmark prepare`: what of a data set is there, and what is wrong with it."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earmark.cli.main import main
from earmark.media import VideoWriter
from tests.helpers.epic_files import CLASSES, HEADER, annotation

DATA = ["data=epic_10s_audiopeak", "prepare.short_side=128"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_video(path: Path, *, seconds: float = 3.0, sound: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    with VideoWriter(path, width=64, height=48, fps=8, sample_rate=16000) as writer:
        for _ in range(round(8 * seconds)):
            writer.write_frame(rng.integers(0, 255, (48, 64, 3), np.uint8))
        if sound:
            writer.write_sound(rng.normal(0, 0.1, round(16000 * seconds)).astype(np.float32))


@pytest.fixture
def epic(tmp_path: Path) -> Path:
    """Return a data set with a fault of each kind."""
    base = tmp_path / "EPIC"
    (base / "annotations").mkdir(parents=True)
    names = [f"P01_0{number}" for number in range(1, 7)]
    rows = [
        annotation(f"{name}_{i}", start=f"00:00:0{i}.00", stop=f"00:00:0{i + 1}.00") for name in names for i in (0, 4)
    ]
    (base / "annotations/EPIC_100_train.csv").write_text(HEADER + "".join(rows))
    (base / "annotations/EPIC_100_validation.csv").write_text(HEADER + annotation("P02_101_0"))
    lengths = "".join(f"{name},5.0,8,64x48\n" for name in [*names, "P02_101"])
    (base / "annotations/EPIC_100_video_info.csv").write_text("video_id,duration,fps,resolution\n" + lengths)
    for name, text in CLASSES.items():
        (base / "annotations" / name).write_text(text)
    videos = base / "P01/videos"
    write_video(videos / "P01_01.MP4", seconds=5)
    write_video(videos / "P01_02.MP4", seconds=5, sound=False)
    write_video(videos / "P01_03.MP4", seconds=3)  # of 5
    (videos / "P01_04.MP4").write_bytes(b"no video" * 100)
    write_video(videos / "p1_5.mp4", seconds=5)
    shutil.copy(videos / "P01_01.MP4", base / "P01/P01_01.MP4")
    shutil.copy(videos / "P01_01.MP4", videos / "P01_01 (1).MP4")
    write_video(base / "P02/videos/P02_101.MP4", seconds=5)
    return base


def checked(epic: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    assert main(["check", *DATA, f"data.args.base_path={epic}", "--workers", "1", "--json", *more]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def test_every_fault_is_counted_and_named(epic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = checked(epic, capsys)
    assert (report["complete"], report["usable"]) == (False, True)
    assert (report["num_expected"], report["num_found"], report["num_readable"]) == (7, 5, 4)
    faults = report["faults"]
    assert [line.split(":")[0] for line in faults["missing"]] == ["P01_05", "P01_06"]
    assert [line.split(":")[0] for line in faults["unreadable"]] == ["P01_04"]
    assert len(faults["cut short"]) == 1
    assert faults["cut short"][0].startswith("P01_03: 3.00 s, listed with 5.00 s")
    assert faults["without sound"] == ["P01_02"]
    strays = "\n".join(faults["not read"])
    assert len(faults["not read"]) == 3
    assert "p1_5.mp4: misspelt, not read: the video is called P01_05" in strays
    assert "P01/P01_01.MP4: video P01_01 again" in strays
    assert "P01_01 (1).MP4: not a video of the annotations" in strays
    assert report["hours"] == pytest.approx(18 / 3600, rel=0.02)
    assert report["hours_with_sound"] == pytest.approx(13 / 3600, rel=0.02)
    # two of P01_04, P01_05 and P01_06 each, and the one that begins behind the end of P01_03
    assert report["actions"] == {
        "train": {"annotated": 12, "fall_away": 7},
        "validation": {"annotated": 1, "fall_away": 0},
    }


def test_an_action_that_ends_after_its_video_is_reported_and_read(
    epic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = annotation("P01_01_0"), annotation("P01_01_1", start="00:00:02.00", stop="00:00:09.00")
    (epic / "annotations/EPIC_100_train.csv").write_text(HEADER + "".join(rows))
    report = checked(epic, capsys)
    assert report["actions"]["train"] == {"annotated": 2, "fall_away": 0}
    assert report["faults"]["doubtful times"] == ["P01_01_1: ends at 9.00 s, its video P01_01 is listed with 5.00 s"]


def test_the_table_ends_with_a_verdict(epic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *DATA, f"data.args.base_path={epic}", "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "not complete: 5 of 7 videos found, 4 can be read; what is there can be used" in out
    assert "the video is called P01_05" in out


def test_a_whole_data_set_is_called_complete(epic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (epic / "annotations/EPIC_100_train.csv").write_text(HEADER + annotation("P01_01_0"))
    report = checked(epic, capsys)
    assert report["complete"]
    assert report["verdict"] == "complete: 2 of 2 videos found, 2 can be read"


def failed(epic: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["check", *DATA, f"data.args.base_path={epic}", "--workers", "1", "--json"]) == 1
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def test_where_no_video_is_found_what_lies_there_is_named(epic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in sorted((epic / "P01/videos").glob("P01_0*.MP4")):
        path.rename(path.with_name(path.name.replace("_0", "-0")))
    (epic / "P01/P01_01.MP4").unlink()
    (epic / "P02/videos/P02_101.MP4").unlink()
    report = failed(epic, capsys)
    assert (report["usable"], report["num_found"], report["num_expected"]) == (False, 0, 7)
    assert len(report["faults"]["missing"]) == 7
    strays = "\n".join(report["faults"]["not read"])
    assert "P01-02.MP4: misspelt, not read: the video is called P01_02" in strays
    assert main(["prepare", *DATA, f"data.args.base_path={epic}"]) == 1
    message = capsys.readouterr().err
    assert "7 videos listed, none found" in message
    assert "`earmark check` names what lies there" in message


def test_a_folder_of_another_case_is_named_and_not_said_to_be_read(
    epic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (epic / "P02").rename(epic / "p02")
    report = checked(epic, capsys)
    assert "P02_101: looked for" in "\n".join(report["faults"]["missing"])
    (line,) = [line for line in report["faults"]["not read"] if "p02" in line]
    assert line == (
        f"{epic}/p02/videos/P02_101.MP4: not read: video P02_101 is looked for as {epic}/P02/videos/P02_101.MP4"
    )


@pytest.mark.parametrize("name", ["EPIC_100_Train.csv", "EPIC_100_train (1).csv"])
def test_a_misspelt_csv_file_is_named(name: str, epic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (epic / "annotations/EPIC_100_train.csv").rename(epic / "annotations" / name)
    report = checked(epic, capsys)
    assert report["faults"]["annotations"] == [
        f"{epic}/annotations/EPIC_100_train.csv: not there, so there is no train split; {name} lies there: misspelt?"
    ]


def test_a_data_set_whose_actions_cannot_be_read_is_not_complete(
    epic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = HEADER.replace("verb_class", "verb") + annotation("P01_01_0")
    (epic / "annotations/EPIC_100_train.csv").write_text(text)
    report = checked(epic, capsys)
    assert (report["complete"], report["unread_splits"]) == (False, ["train"])
    assert report["verdict"] == (
        "not complete: 2 of 2 videos found, 2 can be read, the train actions cannot; what is there can be used"
    )
    (line,) = report["faults"]["annotations"]
    assert "EPIC_100_train.csv: column verb_class is missing; it has 'narration_id', 'participant_id'" in line


def test_checksums_are_compared_with_the_downloaders_list(
    epic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right = hashlib.md5((epic / "P01/videos/P01_01.MP4").read_bytes()).hexdigest()
    listed = tmp_path / "md5.csv"
    rows = [
        f"{right},videos/train/P01/P01_01.MP4,55",
        f"{'0' * 32},P02/videos/P02_101.MP4,100",
        f"{'1' * 32},frames_rgb_flow/rgb/train/P01/P01_02.tar,55",
        "12,videos/train/P01/P01_03.MP4,55",
    ]
    listed.write_text("md5,file_remote_path,version\n" + "\n".join(rows) + "\n")
    report = checked(epic, capsys, "--md5", str(listed))
    assert report["num_checksums"] == 2
    assert len(report["faults"]["wrong checksum"]) == 1
    assert "P02_101.MP4: MD5" in report["faults"]["wrong checksum"][0]
    assert any("line 5: md5 is '12'" in line for line in report["faults"]["annotations"])


def test_a_data_set_without_a_readable_video_fails(epic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (epic / "annotations/EPIC_100_train.csv").write_text(HEADER + annotation("P01_04_0"))
    (epic / "annotations/EPIC_100_validation.csv").unlink()
    assert main(["check", *DATA, f"data.args.base_path={epic}", "--workers", "1"]) == 1
    assert "not usable: 1 of 1 videos found, 0 can be read" in capsys.readouterr().out


def test_a_folder_is_checked_for_what_can_be_said_of_it(epic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["check", "data=folder", f"data.args.base_path={epic / 'P01'}", "--workers", "1", "--json"]
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["num_expected"], report["num_readable"], report["num_lengths_known"]) == (7, 6, 0)
    assert report["actions"] == {}


def test_prepare_reports_the_same(epic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["prepare", *DATA, f"data.args.base_path={epic}", "prepare.workers=1", "prepare.isolate=false"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "not complete: 5 of 7 videos found, 4 can be read; what is there can be used" in out
    assert "12 annotated, 7 fall away" in out
    assert "P01_03: 3.00 s, listed with 5.00 s" in out
