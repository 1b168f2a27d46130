"""EPIC-SOUNDS: what the official annotation files become."""

import re
from collections import Counter
from pathlib import Path

import pytest

from earmark.datasets import DatasetError, EpicSounds
from earmark.datasets.epic_sounds import SOUND_CLASSES

HEADER = "annotation_id,participant_id,video_id,start_timestamp,stop_timestamp,start_sample,stop_sample"
LABELS = ",description,class,class_id"
ROW = "P01_01_0,P01,P01_01,00:00:02.069,00:00:02.993,49656,71832,clang,rustle,4"


def write(folder: Path, *rows: str) -> Path:
    (folder / "annotations").mkdir(parents=True)
    text = "\n".join((HEADER + LABELS, *rows)) + "\n"
    (folder / "annotations/EPIC_Sounds_train.csv").write_text(text)
    return folder


def test_official_files_give_the_published_counts_and_classes(annotations: Path) -> None:
    sounds = EpicSounds(annotations / "epic_sounds")
    actions = sounds.actions("validation")
    assert len(actions) == 8035
    assert len(sounds.classes["sound"]) == len(set(SOUND_CLASSES)) == 44
    most_common = Counter(action.labels["sound"] for action in actions).most_common(1)[0][1]
    assert round(100 * most_common / len(actions), 1) == 17.2
    first = actions[0]
    assert (first.action_id, first.video_id, first.start_seconds, first.stop_seconds) == (
        *("P01_11_0", "P01_11", 2.069, 2.993),
    )
    assert sounds.classes["sound"][first.labels["sound"]] == "ceramic / wood collision"
    held_back = sounds.actions("test")
    assert len(held_back) == 5131
    assert all(action.labels == {} for action in held_back)


def test_a_sound_is_read_with_its_class(tmp_path: Path) -> None:
    (action,) = EpicSounds(write(tmp_path, ROW)).actions("train")
    assert (action.start_seconds, action.stop_seconds, action.labels) == (2.069, 2.993, {"sound": 4})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ROW.replace("rustle,4", "rustle,44"), "line 2: class_id is '44', expected 0 to 43"),
        (ROW.replace("rustle,4", "zip,4"), "line 2: class 4 is 'zip', expected 'rustle'"),
        (ROW.replace("00:00:02.993", "00:00:01.000"), "line 2: the action goes from 2.069 s to 1.0 s"),
        (ROW.replace("00:00:02.993", "3.1"), "line 2: '3.1' is not a timestamp"),
        (f"{ROW}\n{ROW}", "line 3: annotation_id 'P01_01_0' is listed twice"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, row: str, reason: str) -> None:
    good = ROW.replace("P01_01_0", "P01_01_9", 1)
    sounds = EpicSounds(write(tmp_path, f"{row}\n{good}"))
    assert [action.action_id for action in sounds.actions("train")][-1] == "P01_01_9"
    (problem,) = sounds.problems
    assert re.search(rf"EPIC_Sounds_train\.csv, {re.escape(reason)}", problem)
    if row.count("\n") == 0:
        with pytest.raises(DatasetError, match=rf"EPIC_Sounds_train\.csv, {re.escape(reason)}"):
            EpicSounds(write(tmp_path / "alone", row)).actions("train")


def test_a_folder_without_the_files_is_refused_by_their_names(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none of the annotation files EPIC_Sounds_train\.csv"):
        EpicSounds(tmp_path)
