"""Where the videos of EPIC-KITCHENS lie, and the files that the original code cuts them into."""

from pathlib import Path

import pytest

from earmark.datasets import DatasetError, EpicKitchens, EpicKitchens55
from earmark.datasets.epic_kitchens import VIDEO_FOLDERS
from tests.helpers.epic_files import CLASSES, HEADER, annotation

ROWS = [
    annotation("P01_04_0", start="00:01:11.00", stop="00:01:13.50"),
    annotation("P01_04_1", start="00:01:18.00", stop="00:01:21.00"),  # 2 of its 3 seconds before the cut at 80 s
    annotation("P01_04_2", start="00:03:00.00", stop="00:03:01.00"),
]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/EPIC_100_train.csv").write_text(HEADER + "".join(ROWS))
    for name, text in CLASSES.items():
        (tmp_path / "annotations" / name).write_text(text)
    return tmp_path


def put(base: Path, *names: str) -> None:
    for name in names:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).touch()


@pytest.mark.parametrize("folder", VIDEO_FOLDERS)
def test_a_video_is_found_in_the_layouts_of_both_years(base: Path, folder: str) -> None:
    put(base, f"{folder.format(participant='P01')}/P01_04.MP4")
    (video,) = EpicKitchens(base).videos()
    assert (video.video_id, video.path) == ("P01_04", base / folder.format(participant="P01") / "P01_04.MP4")


@pytest.mark.parametrize("folder", ["", "epic-kitchens-100-annotations"])
def test_annotations_are_found_beside_the_videos_and_in_a_clone(base: Path, folder: str) -> None:
    if folder:
        (base / "annotations").rename(base / folder)
    else:
        for path in (base / "annotations").iterdir():
            path.rename(base / path.name)
    assert len(EpicKitchens(base).actions("train")) == 3


def test_segments_of_the_original_are_videos_with_the_actions_that_lie_in_them(base: Path) -> None:
    put(base, "segments/P01_04_000070_000080.MP4", "segments/P01_04_000080_000090.MP4")
    put(base, "segments/P09_04_000080_000090.MP4", "segments/P01_04.MP4")
    epic = EpicKitchens(base)
    assert [video.video_id for video in epic.videos("train")] == ["P01_04_000070_000080", "P01_04_000080_000090"]
    first, cut, missing = epic.actions("train")
    assert (first.video_id, first.start_seconds, first.stop_seconds) == ("P01_04_000070_000080", 1.0, 3.5)
    assert (cut.video_id, cut.start_seconds, cut.stop_seconds) == ("P01_04_000070_000080", 8.0, 10.0)
    assert (missing.video_id, missing.start_seconds) == ("P01_04", 180.0)
    assert any("P01_04_1: only 78.00 to 80.00 s of 78.00 to 81.00 s lie in" in text for text in epic.problems)
    assert any("P01_04.MP4: not named as one of the segments" in text for text in epic.problems)


def test_a_narration_is_in_the_time_of_the_cut_that_its_action_lies_in(base: Path) -> None:
    path = base / "annotations/EPIC_100_train.csv"
    times = ("narration_timestamp", "00:01:10.50", "00:01:17.00", "00:02:59.50")
    lines = [f"{line},{time}" for line, time in zip(path.read_text().splitlines(), times, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    put(base, "segments/P01_04_000070_000080.MP4")
    assert [action.narration_seconds for action in EpicKitchens(base).actions("train")] == [0.5, 7.0, 179.5]
    (base / "segments/P01_04_000070_000080.MP4").unlink()
    put(base, "action_segments/P01_04_00011100_00011350.MP4", "action_segments/P01_04_00030000_00030100.MP4")
    cut = EpicKitchens(base).actions("train")
    assert [action.narration_seconds for action in cut] == [None, 77.0, None]  # before what their files begin with


def test_action_segments_of_the_original_are_named_by_the_digits_of_timestamps(base: Path) -> None:
    put(base, "action_segments/P01_04_00011100_00011350.MP4", "action_segments/P01_04_00030000_00030100.MP4")
    put(base, "action_segments/P01_04_00990000_00990100.MP4")
    epic = EpicKitchens(base)
    assert [video.video_id for video in epic.videos()] == ["P01_04_00011100_00011350", "P01_04_00030000_00030100"]
    ids = [(action.video_id, action.start_seconds, action.stop_seconds) for action in epic.actions("train")]
    assert ids == [
        ("P01_04_00011100_00011350", 0.0, 2.5),
        ("P01_04", 78.0, 81.0),
        ("P01_04_00030000_00030100", 0.0, 1.0),
    ]
    assert any("P01_04_00990000_00990100.MP4: not named as" in text for text in epic.problems)


def test_whole_videos_and_cuts_are_never_mixed(base: Path) -> None:
    put(base, "segments/P01_04_000070_000080.MP4", "P01/videos/P01_04.MP4")
    epic = EpicKitchens(base)
    assert [video.video_id for video in epic.videos()] == ["P01_04"]
    assert [action.video_id for action in epic.actions("train")] == ["P01_04"] * 3
    assert any("segments are not read, since whole videos are there" in text for text in epic.problems)
    chosen = EpicKitchens(base, layout="segments")
    assert [video.video_id for video in chosen.videos()] == ["P01_04_000070_000080"]


def test_a_split_without_whole_videos_is_not_read_from_cuts_if_another_has_some(base: Path) -> None:
    other = annotation("P02_03_0")
    (base / "annotations/EPIC_100_validation.csv").write_text(HEADER + other)
    put(base, "segments/P02_03_000000_000010.MP4", "P01/videos/P01_04.MP4")
    with pytest.raises(DatasetError, match="1 video listed, none found"):
        EpicKitchens(base).videos("validation")


def test_both_kinds_of_cuts_without_whole_videos_need_a_choice(base: Path) -> None:
    put(base, "segments/P01_04_000070_000080.MP4", "action_segments/P01_04_00011100_00011350.MP4")
    with pytest.raises(DatasetError, match="both segments and action_segments; say which"):
        EpicKitchens(base).videos()
    (base / "action_segments/P01_04_00011100_00011350.MP4").unlink()
    with pytest.raises(DatasetError, match="action_segments: no cut of any of 1 video"):
        EpicKitchens(base, layout="action_segments").videos()


def test_the_official_lengths_are_read_and_impossible_ones_named(base: Path) -> None:
    text = "video_id,duration,fps,resolution\nP01_04,100.5,60,1x1\nP01_05,-3,60,1x1\nP01_04,2,60,1x1\n"
    (base / "annotations/EPIC_100_video_info.csv").write_text(text)
    epic = EpicKitchens(base)
    assert epic.seconds_of_videos() == {"P01_04": 100.5}
    assert [text.partition(", ")[2] for text in epic.problems] == [
        "line 3: duration is '-3', expected seconds",
        "line 4: video 'P01_04' is listed twice",
    ]


def test_the_official_list_of_lengths_has_700_videos(annotations: Path) -> None:
    epic = EpicKitchens(annotations / "epic100")
    lengths = epic.seconds_of_videos()
    assert (len(lengths), epic.problems) == (700, ())
    assert lengths["P01_01"] == 1652.152817


def test_the_csv_files_of_2018_are_read_with_their_own_columns(tmp_path: Path) -> None:
    labels = "verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
    times = "start_timestamp,stop_timestamp,start_frame,stop_frame"
    (tmp_path / "EPIC_train_action_labels.csv").write_text(
        f"uid,participant_id,video_id,narration,{times},{labels}\n"
        "6374,P03,P03_01,peel kiwi,00:00:01.50,00:00:03.00,90,180,peel,1,kiwi,1,['kiwi'],[1]\n"
    )
    for number, video in ((1, "P01_11"), (2, "P09_01")):
        (tmp_path / f"EPIC_test_s{number}_timestamps.csv").write_text(
            f"uid,participant_id,video_id,{times}\n{number},{video[:3]},{video},00:00:00.00,00:00:01.89,1,113\n"
        )
    (tmp_path / "EPIC_verb_classes.csv").write_text("verb_id,class_key,verbs\n0,take,['take']\n1,peel,['peel']\n")
    (tmp_path / "EPIC_noun_classes.csv").write_text("noun_id,class_key,nouns\n0,pan,['pan']\n1,kiwi,['kiwi']\n")
    (tmp_path / "EPIC_video_info.csv").write_text("video,resolution,duration,fps\nP03_01,1920x1080,7.5,59.94\n")
    put(tmp_path, "EPIC_KITCHENS_2018/videos/train/P03/P03_01.MP4")
    epic = EpicKitchens55(tmp_path)
    (action,) = epic.actions("train")
    assert (action.action_id, action.video_id, action.start_seconds) == ("6374", "P03_01", 1.5)
    assert {label: epic.classes[label][number] for label, number in action.labels.items()} == {
        "verb": "peel",
        "noun": "kiwi",
    }
    assert epic.seconds_of_videos() == {"P03_01": 7.5}
    assert [(video.video_id, video.split) for video in epic.videos()] == [
        ("P03_01", "train"),
        ("P01_11", "test"),
        ("P09_01", "test_unseen"),
    ]
    assert epic.actions("test_unseen")[0].labels == {}
