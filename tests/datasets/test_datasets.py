"""Data sets: what the official annotation files and a folder of videos become."""

import csv
import errno
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from earmark.datasets import DATASETS, DatasetError, EpicKitchens, Folder, Kitchen
from earmark.datasets.epic_kitchens import parse_timestamp
from earmark.preparation import prepare

TIME_COLUMNS = ["narration_timestamp", "start_timestamp", "stop_timestamp", "start_frame", "stop_frame"]
LABEL_COLUMNS = ["narration", "verb", "verb_class", "noun", "noun_class", "all_nouns", "all_noun_classes"]
COLUMNS = ["narration_id", "participant_id", "video_id", *TIME_COLUMNS, *LABEL_COLUMNS]


def row(narration_id: str = "P01_01_0", **changes: str) -> dict[str, str]:
    """Return a row of an annotation file."""
    video_id = narration_id.rpartition("_")[0]
    values = [narration_id, video_id[:3], video_id, "00:00:01.089", "00:00:00.14", "00:00:03.37", "8", "202"]
    return (
        dict(zip(COLUMNS, [*values, "open door", "open", "1", "door", "2", "['door']", "[2]"], strict=True)) | changes
    )


def write_csv(path: Path, rows: list[dict[str, str]], columns: list[str] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns or list(rows[0]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def write_epic(base_path: Path, train: list[dict[str, str]], validation: list[dict[str, str]] | None = None) -> Path:
    """Write a small EPIC-KITCHENS-100: annotation files and empty videos for all that they name."""
    folder = base_path / "annotations"
    for name, rows in (("train", train), ("validation", validation or [])):
        if rows:
            write_csv(folder / f"EPIC_100_{name}.csv", rows, COLUMNS)
    for label, keys in (("verb", ["take", "open"]), ("noun", ["tap", "plate", "door"])):
        classes = [{"id": str(number), "key": key} for number, key in enumerate(keys)]
        write_csv(folder / f"EPIC_100_{label}_classes.csv", classes)
    for action in [*train, *(validation or [])]:
        path = base_path / action["participant_id"] / "videos" / f"{action['video_id']}.MP4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return base_path


# --- official files ---


def test_official_validation_file_gives_the_published_counts(annotations: Path) -> None:
    epic = EpicKitchens(annotations / "epic100")
    actions = epic.actions("validation")
    assert len(actions) == 9668
    assert {label: len(names) for label, names in epic.classes.items()} == {"verb": 97, "noun": 300}
    share = {
        label: Counter(action.labels[label] for action in actions).most_common(1)[0][1] / len(actions)
        for label in ("verb", "noun")
    }
    assert round(100 * share["verb"], 2) == 20.04
    assert round(100 * share["noun"], 2) == 4.45
    assert sum(action.participant_id in ("P18", "P32") for action in actions) == 1065


def test_official_first_row_is_read_exactly(annotations: Path) -> None:
    action = EpicKitchens(annotations / "epic100").actions("validation")[0]
    assert (action.action_id, action.video_id, action.participant_id) == ("P01_11_0", "P01_11", "P01")
    assert (action.start_seconds, action.stop_seconds, action.labels) == (0.0, 1.89, {"verb": 0, "noun": 2})


def test_official_test_file_has_segments_without_labels(annotations: Path) -> None:
    actions = EpicKitchens(annotations / "epic100").actions("test")
    assert len(actions) == 13092
    assert all(action.labels == {} for action in actions)


def test_official_rows_with_the_columns_of_the_train_file_are_read(annotations: Path, tmp_path: Path) -> None:
    source = annotations / "epic100"
    for name in ("EPIC_100_verb_classes.csv", "EPIC_100_noun_classes.csv"):
        shutil.copy(source / name, tmp_path)
    shutil.copy(source / "EPIC_100_uda_source_train.csv", tmp_path / "EPIC_100_train.csv")
    epic = EpicKitchens(tmp_path)
    assert epic.splits == ("train",)
    assert len(epic.actions("train")) == 16115


def test_official_annotations_without_videos_say_where_one_was_looked_for(annotations: Path) -> None:
    with pytest.raises(DatasetError, match=r"\d+ videos listed, none found \(looked for .*P01/videos/P01_11.MP4"):
        EpicKitchens(annotations / "epic100").videos("validation")


# --- EPIC-KITCHENS ---


def test_timestamps_are_the_nearest_float_of_the_exact_value() -> None:
    assert parse_timestamp("00:00:00.00") == 0.0
    assert parse_timestamp("01:01:01.01") == 3661.01
    assert parse_timestamp("00:27:32.152817") == 1652.152817
    for minutes in range(60):
        for hundredths in range(0, 6000, 7):
            text = f"02:{minutes:02d}:{hundredths // 100:02d}.{hundredths % 100:02d}"
            assert parse_timestamp(text) == (720000 + 6000 * minutes + hundredths) / 100


@pytest.mark.parametrize("text", ["", "1.5", "00:61:00", "00:00:60", "00:00:1e2", "-00:00:01", "٠٠:00:00", "00:00:nan"])
def test_other_text_is_not_a_timestamp(text: str) -> None:
    with pytest.raises(ValueError, match="not a timestamp"):
        parse_timestamp(text)


def test_split_participant_and_first_noun_come_from_the_files(tmp_path: Path) -> None:
    several_nouns = row("P02_03_7", noun_class="0", all_noun_classes="[0, 2]")
    epic = EpicKitchens(write_epic(tmp_path, [row(), row("P01_01_1")], [several_nouns]))
    assert [(video.video_id, video.split, video.participant_id) for video in epic.videos()] == [
        ("P01_01", "train", "P01"),
        ("P02_03", "validation", "P02"),
    ]
    assert [video.video_id for video in epic.videos("validation")] == ["P02_03"]
    assert epic.actions("validation")[0].labels == {"verb": 1, "noun": 0}
    assert epic.classes["noun"] == ["tap", "plate", "door"]


@pytest.mark.parametrize("layout", ["P01/videos", "EPIC-KITCHENS/P01/videos", "videos"])
@pytest.mark.parametrize("suffix", [".MP4", ".mp4", ".MkV"])
def test_videos_are_found_in_every_layout_with_any_suffix(tmp_path: Path, layout: str, suffix: str) -> None:
    write_epic(tmp_path, [row()])
    shutil.rmtree(tmp_path / "P01")
    (tmp_path / layout).mkdir(parents=True)
    (tmp_path / layout / "P01_01.txt").touch()
    (tmp_path / layout / f"P01_01{suffix}").touch()
    assert EpicKitchens(tmp_path).videos()[0].path == tmp_path / layout / f"P01_01{suffix}"


def test_an_absent_video_keeps_its_record_with_the_place_where_it_should_be(tmp_path: Path) -> None:
    write_epic(tmp_path, [row(), row("P01_02_0")])
    (tmp_path / "P01/videos/P01_02.MP4").unlink()
    absent = EpicKitchens(tmp_path).videos()[1]
    assert absent.video_id == "P01_02"
    assert absent.path == tmp_path / "P01/videos/P01_02.MP4"
    assert not absent.path.exists()


def test_a_participant_whose_folder_cannot_be_read_is_refused_for_that_reason(tmp_path: Path) -> None:
    write_epic(tmp_path, [row(), row("P02_01_0")])
    shutil.rmtree(tmp_path / "P02/videos")
    (tmp_path / "P02/videos").symlink_to("videos")  # what is behind it can't be reached, by root either
    report = prepare(EpicKitchens(tmp_path).videos()[1:], tmp_path / "store", progress=False)
    assert [(video.video_id, video.reason.lower()) for video in report.videos] == [
        ("P02_01", "too many levels of symbolic links")
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"start_timestamp": "0:99"}, "'0:99' is not a timestamp"),
        ({"stop_timestamp": "00:00:00.14"}, "the action goes from 0.14 s to 0.14 s"),
        ({"stop_timestamp": "00:00:00.13"}, "the action goes from 0.14 s to 0.13 s"),
        ({"stop_timestamp": "9" * 400 + ":00:00"}, "... (406 characters) is not a timestamp"),
        ({"stop_timestamp": "9999:00:00"}, "the action goes from 0.14 s to 35996400.0 s"),
        ({"stop_timestamp": "inf"}, "'inf' is not a timestamp"),
        ({"start_timestamp": "-00:00:01"}, "'-00:00:01' is not a timestamp"),
        ({"narration_id": "n" * 5000}, "(5000 characters), longer than the 200 characters of a name"),
        ({"narration_id": "a\0b"}, "narration_id is 'a\\x00b', with characters that no name has"),
        ({"narration_id": "a\u202eb"}, "narration_id is 'a\\u202eb', with characters that no name has"),
        ({"video_id": "v" * 5000}, "(5000 characters), longer than the 200 characters of a name"),
        ({"video_id": "../../etc"}, "'../../etc' cannot be the name of a video"),
        ({"verb_class": "9" * 5000}, "(5000 characters), expected 0 to 1"),
        ({"verb_class": "2"}, "verb_class is '2', expected 0 to 1"),
        ({"noun_class": "-1"}, "noun_class is '-1', expected 0 to 2"),
        ({"noun_class": "__import__('os')"}, "expected 0 to 2"),
        ({"video_id": ""}, "video_id is empty"),
        ({"narration_id": "P01_01_0"}, "narration_id 'P01_01_0' is listed twice"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, changes: dict[str, str], reason: str) -> None:
    write_epic(tmp_path, [row()])
    write_csv(tmp_path / "annotations/EPIC_100_train.csv", [row(), row("P01_01_1") | changes, row("P01_01_2")], COLUMNS)
    epic = EpicKitchens(tmp_path)
    assert [action.action_id for action in epic.actions("train")] == ["P01_01_0", "P01_01_2"]
    (problem,) = epic.problems
    assert problem.startswith(f"{tmp_path / 'annotations/EPIC_100_train.csv'}, line 3: ")
    assert reason in problem
    epic.actions("train")
    assert epic.problems == (problem,)
    write_csv(tmp_path / "annotations/EPIC_100_train.csv", [row() | changes, row() | changes], COLUMNS)
    if changes != {"narration_id": "P01_01_0"}:  # which is wrong only the second time
        with pytest.raises(DatasetError, match=r"line 2: .*none of 2 rows can be used"):
            EpicKitchens(tmp_path).actions("train")


@pytest.mark.parametrize("changes", [{"video_id": "../../etc"}, {"participant_id": "../x"}, {"participant_id": "/etc"}])
def test_names_that_could_leave_the_folder_are_refused(tmp_path: Path, changes: dict[str, str]) -> None:
    write_epic(tmp_path, [row()])
    write_csv(tmp_path / "annotations/EPIC_100_train.csv", [row() | changes], COLUMNS)
    with pytest.raises(DatasetError, match=r"line 2: .* cannot be the name of a (video|participant)"):
        EpicKitchens(tmp_path).videos()
    write_csv(tmp_path / "annotations/EPIC_100_train.csv", [row() | changes, row()], COLUMNS)
    epic = EpicKitchens(tmp_path)
    assert [video.video_id for video in epic.videos()] == ["P01_01"]
    (problem,) = epic.problems
    assert "EPIC_100_train.csv, line 2: " in problem


def test_a_video_in_two_splits_is_refused(tmp_path: Path) -> None:
    write_epic(tmp_path, [row()], [row("P01_01_5")])
    with pytest.raises(
        DatasetError, match=r"EPIC_100_validation.csv, line 2: video P01_01 is also listed in the train"
    ):
        EpicKitchens(tmp_path).videos()


@pytest.mark.parametrize("name", ["\u2028", " ", "red \x1b[31m", "x" * 1001])
def test_a_class_without_a_name_is_refused(tmp_path: Path, name: str) -> None:
    write_epic(tmp_path, [row()])
    write_csv(
        tmp_path / "annotations/EPIC_100_verb_classes.csv", [{"id": "0", "key": "take"}, {"id": "1", "key": name}]
    )
    with pytest.raises(DatasetError, match=r"EPIC_100_verb_classes\.csv.*name"):
        EpicKitchens(tmp_path)


def test_a_missing_column_file_or_split_is_named(tmp_path: Path) -> None:
    write_epic(tmp_path, [row()])
    with pytest.raises(DatasetError, match=r"EPIC_100_validation\.csv is missing"):
        EpicKitchens(tmp_path).actions("validation")
    with pytest.raises(DatasetError, match="no such split: 'training'"):
        EpicKitchens(tmp_path).actions("training")
    write_csv(tmp_path / "annotations/EPIC_100_train.csv", [row()], COLUMNS[:-5])
    with pytest.raises(DatasetError, match=r"EPIC_100_train.csv: columns verb_class, noun_class are missing"):
        EpicKitchens(tmp_path).actions("train")
    write_csv(tmp_path / "annotations/EPIC_100_verb_classes.csv", [{"id": "1", "key": "take"}])
    with pytest.raises(DatasetError, match=r"verb_classes.csv, line 2: class id '1', expected 0"):
        EpicKitchens(tmp_path)
    with pytest.raises(DatasetError, match="none of the annotation files"):
        EpicKitchens(tmp_path / "P01")
    with pytest.raises(DatasetError, match="no such folder"):
        EpicKitchens(tmp_path / "nowhere")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    write_epic(tmp_path, [row()])
    (tmp_path / "annotations/EPIC_100_train.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DatasetError, match=r"EPIC_100_train\.csv: not a readable csv file"):
        EpicKitchens(tmp_path).actions("train")


def test_a_value_with_a_line_break_is_two_damaged_lines_and_no_row(tmp_path: Path) -> None:
    write_epic(tmp_path, [row("P01_01_0"), row("a\nb"), row("P01_01_2")])
    dataset = EpicKitchens(tmp_path)
    assert [action.action_id for action in dataset.actions("train")] == ["P01_01_0", "P01_01_2"]
    places = [problem.rpartition(", ")[2] for problem in dataset.problems]
    assert places == ["line 3: a quote is not closed", "line 4: a quote is not closed"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'P01_01_9,P01,P01_01,x,00:00:01,00:00:02,8,202,"open door,open,1,door,2,[],[2]', "a quote is not closed"),
        (b'P01"_9,P01,P01_01,x,00:00:01,00:00:02,8,202,open door,open,1,door,2,[],[2]', "a quote is not closed"),
        (b'"P01"_9,P01,P01_01,x,00:00:01,00:00:02,8,202,open door,open,1,door,2,[],[2]', "its quotes are damaged"),
        (
            b"P01_01_9,P01,P01_01,x,00:00:01,00:00:02,8,202,o,open,1,door,2,[],[2],more",
            "16 fields, the first",
        ),
        (b"P01_01_9,P01,P01_01", "start_timestamp, stop_timestamp, verb_class, noun_class is empty: 3 fields"),
        (
            b"P01_01\xff9,P01,P01_01,x,00:00:01,00:00:02,8,202,o,open,1,door,2,[],[2]",
            "narration_id is 'P01_01\\udcff9'",
        ),
        (b"P01_01_9,P01,P01\0_01,x,00:00:01,00:00:02,8,202,o,open,1,door,2,[],[2]", "video_id is"),
    ],
)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_a_damaged_line_stops_no_other(tmp_path: Path, bad: bytes, reason: str, line_end: bytes, bom: bytes) -> None:
    write_epic(tmp_path, [row("P01_01_0"), row("P01_01_1", narration="a \u00fc, quoted")])
    path = tmp_path / "annotations/EPIC_100_train.csv"
    first, *others = path.read_bytes().splitlines()
    path.write_bytes(bom + line_end.join([first, bad, b"", *others, b""]))
    epic = EpicKitchens(tmp_path)
    assert [action.action_id for action in epic.actions("train")] == ["P01_01_0", "P01_01_1"]
    (problem,) = epic.problems
    assert problem.startswith(f"{path}, line 2: ")
    assert reason.replace("video_id is", "video is 'P01\\x00_01'") in problem


def test_text_in_other_columns_may_be_of_any_encoding(tmp_path: Path) -> None:
    write_epic(tmp_path, [row()])
    path = tmp_path / "annotations/EPIC_100_train.csv"
    path.write_bytes(path.read_bytes().replace(b"open door", b"\xf6ffnen\0"))
    epic = EpicKitchens(tmp_path)
    assert len(epic.actions("train")) == 1
    assert epic.problems == ()


def test_a_column_twice_and_a_line_without_end_are_refused(tmp_path: Path) -> None:
    write_epic(tmp_path, [row()])
    path = tmp_path / "annotations/EPIC_100_train.csv"
    whole = path.read_text()
    path.write_text(whole.replace("narration_timestamp", "video_id"))
    with pytest.raises(DatasetError, match=r"EPIC_100_train\.csv: column video_id is there twice"):
        EpicKitchens(tmp_path).actions("train")
    path.write_text(whole + "x" * 2**21)
    with pytest.raises(DatasetError, match=r"EPIC_100_train\.csv: .*line 3 is longer than 2\^20 characters"):
        EpicKitchens(tmp_path).actions("train")


def test_of_many_bad_rows_a_thousand_are_named_and_the_others_counted(tmp_path: Path) -> None:
    write_epic(tmp_path, [row(), *(row(f"P01_01_{number}", stop_timestamp="nan") for number in range(1, 1500))])
    epic = EpicKitchens(tmp_path)
    assert len(epic.actions("train")) == 1
    assert len(epic.problems) == 1001
    assert epic.problems[999].endswith("line 1002: 'nan' is not a timestamp HH:MM:SS.ff")
    assert epic.problems[1000] == f"{tmp_path / 'annotations/EPIC_100_train.csv'}: 499 more rows of this kind"


# --- kitchen ---


def test_a_kitchen_is_epic_kitchens_with_a_table_of_events(tmp_path: Path) -> None:
    write_epic(tmp_path, [row()])
    with pytest.raises(DatasetError, match="not a generated kitchen"):
        Kitchen(tmp_path)
    (tmp_path / "kitchen.json").write_text("{}")
    with pytest.raises(DatasetError, match="not finished"):
        Kitchen(tmp_path)
    pq.write_table(pa.table({"video_id": ["P01_01"], "time_seconds": [1.5]}), tmp_path / "events.parquet")
    kitchen = DATASETS["kitchen"](tmp_path)
    assert isinstance(kitchen, Kitchen)
    assert kitchen.name == "kitchen"
    assert kitchen.events().to_pylist() == [{"video_id": "P01_01", "time_seconds": 1.5}]
    assert len(kitchen.actions("train")) == 1
    (tmp_path / "events.parquet").write_bytes(b"not a table")
    with pytest.raises(DatasetError, match="not a readable table of events"):
        kitchen.events()


# --- folder ---


def touch(base_path: Path, *names: str) -> None:
    for name in names:
        (base_path / name).parent.mkdir(parents=True, exist_ok=True)
        (base_path / name).touch()


def test_every_video_below_a_folder_is_named_by_its_path(tmp_path: Path) -> None:
    touch(tmp_path, "b.MP4", "a/c.webm", "a/d.avi", "notes.txt", "a/sound.wav", ".hidden.mp4", ".git/x.mp4", "._b.mp4")
    videos = Folder(tmp_path).videos()
    assert [video.video_id for video in videos] == ["a/c", "a/d", "b"]
    assert [video.path for video in videos] == [tmp_path / "a/c.webm", tmp_path / "a/d.avi", tmp_path / "b.MP4"]
    assert {video.split for video in videos} == {"all"}


def test_videos_that_would_share_a_name_keep_their_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "kitchen.mp4", "kitchen.webm", "kitchen.part2.mp4", "a/kitchen.mp4")
    names = [video.video_id for video in Folder(tmp_path).videos()]
    assert names == ["a/kitchen", "kitchen.mp4", "kitchen.part2", "kitchen.webm"]


def test_no_two_videos_share_a_name(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "a.mov", "a.mp4.mkv")
    assert [video.video_id for video in Folder(tmp_path).videos()] == ["a.mov", "a.mp4", "a.mp4.mkv"]


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    touch(tmp_path, "inside/a.mp4", "outside/secret.mp4")
    (tmp_path / "inside/b.mp4").symlink_to(tmp_path / "outside/secret.mp4")
    (tmp_path / "inside/c").symlink_to(tmp_path / "outside")
    (tmp_path / "inside/d.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / "inside/e.mp4").symlink_to(tmp_path / "inside/a.mp4")
    folder = Folder(tmp_path / "inside")
    assert [video.video_id for video in folder.videos()] == ["a", "e"]
    assert folder.problems == (
        f"{tmp_path}/inside/b.mp4: a link to a file outside {tmp_path}/inside, left out",
        f"{tmp_path}/inside/c: a link to a folder, which is not followed",
        f"{tmp_path}/inside/d.mp4: a link to a file outside {tmp_path}/inside, left out",
    )


def test_links_to_nowhere_or_in_a_circle_are_videos_that_preparing_refuses(tmp_path: Path) -> None:
    touch(tmp_path, "videos/a.txt")
    (tmp_path / "videos/gone.mp4").symlink_to("nowhere.mp4")
    (tmp_path / "videos/circle.mp4").symlink_to("circle.mp4")
    report = prepare(Folder(tmp_path / "videos").videos(), tmp_path / "store", progress=False)
    assert {video.video_id: (video.status, video.reason.lower()) for video in report.videos} == {
        "circle": ("refused", "too many levels of symbolic links"),
        "gone": ("refused", "no such file"),
    }


def test_folders_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.mp4", "shut/b.mp4", "sub/c.mp4")
    scandir = os.scandir

    def denied(path: Any) -> Any:
        if os.fspath(path).endswith(("shut", "P02/videos")):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    folder = Folder(tmp_path)
    assert [video.video_id for video in folder.videos()] == ["a", "sub/c"]
    assert folder.problems == (f"{tmp_path}/shut: permission denied, nothing below it is read",)
    with pytest.raises(DatasetError, match=r"shut: permission denied, nothing below it is read"):
        Folder(tmp_path / "shut")


def test_excluded_folders_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "earmark_data/prepared/x/videos/a.mov")
    assert [video.video_id for video in Folder(tmp_path, exclude=[tmp_path / "earmark_data"]).videos()] == ["a"]
    below = Folder(tmp_path / "earmark_data", exclude=[tmp_path / "earmark_data"])
    assert len(below.videos()) == 1  # the folder itself was asked for


def test_a_folder_without_videos_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    with pytest.raises(DatasetError, match=r"no video below this folder \(suffixes looked for: .*\.mp4"):
        Folder(tmp_path)
    with pytest.raises(DatasetError, match="no such folder"):
        Folder(tmp_path / "nowhere")


def test_a_folder_has_neither_splits_nor_actions(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    folder = Folder(tmp_path)
    assert folder.videos("all") == folder.videos()
    with pytest.raises(DatasetError, match="no split 'train'"):
        folder.videos("train")
    with pytest.raises(DatasetError, match="no annotated actions"):
        folder.actions("all")


def test_all_real_clips_are_found_with_unique_names(media: Path) -> None:
    videos = Folder(media).videos()
    assert len(videos) == 21
    assert len({video.video_id for video in videos}) == 21
    assert {"epic_sounds.mp4", "epic_sounds.webm", "pancake"} <= {video.video_id for video in videos}


def test_the_time_of_a_narration_is_that_of_its_column_and_none_where_there_is_none(tmp_path: Path) -> None:
    rows = [
        row("P01_01_0"),
        row("P01_01_1", narration_timestamp=""),
        row("P01_01_2", narration_timestamp="soon"),
        row("P01_01_3", narration_timestamp="00:01:02.5"),
    ]
    actions = EpicKitchens(write_epic(tmp_path / "epic", rows)).actions("train")
    assert [action.narration_seconds for action in actions] == [1.089, None, None, 62.5]
    old = write_epic(tmp_path / "old", rows)
    write_csv(old / "annotations/EPIC_100_train.csv", rows, [name for name in COLUMNS if name != "narration_timestamp"])
    assert {action.narration_seconds for action in EpicKitchens(old).actions("train")} == {None}
