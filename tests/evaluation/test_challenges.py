"""Submissions scored against annotations: the official files whole, and small ones by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earmark.datasets import DatasetError
from earmark.evaluation.action_submissions import write_action_submission
from earmark.evaluation.challenges import CHALLENGES, _read_columns, score_submission
from earmark.evaluation.detection_metrics import Events
from earmark.evaluation.sound_submissions import write_detection_submission, write_sound_submission
from earmark.evaluation.submission_files import SubmissionError, SupervisionLevels
from tests.helpers.challenge_files import (
    DETECTION_HEADER,
    action_submission,
    detection_submission,
    sound_submission,
    write_epic_annotations,
    write_rows,
    write_sound_annotations,
)

LEVELS = SupervisionLevels(pretraining=4, training_labels=3, training_data=3)


def saved(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def perfect_actions(folder: Path, path: Path, challenge: str) -> None:
    """A submission whose best verb and noun are the true ones of the annotations."""
    columns = ("narration_id", "verb_class", "noun_class")
    ids, verbs, nouns = _read_columns(folder / "EPIC_100_validation.csv", columns)
    verb_scores, noun_scores = np.zeros((len(ids), 97)), np.zeros((len(ids), 300))
    verb_scores[np.arange(len(ids)), np.array(verbs, dtype=int)] = 9
    noun_scores[np.arange(len(ids)), np.array(nouns, dtype=int)] = 9
    write_action_submission(
        path, challenge, segment_ids=ids, verb_scores=verb_scores, noun_scores=noun_scores, levels=LEVELS
    )


def test_the_official_files_of_actions_have_the_known_counts_and_majorities(annotations: Path, tmp_path: Path) -> None:
    folder = annotations / "epic100"
    perfect_actions(folder, tmp_path / "a.json", "action_recognition")
    score = score_submission(tmp_path / "a.json", folder)
    assert set(score.metrics.values()) == {100.0}
    counts = {"segments": 9668, "unseen": 1065, "tail_verb": 1760, "tail_noun": 1900}
    assert counts.items() <= score.counts.items()
    assert not (folder / "EPIC_100_train.csv").exists()
    assert score.majority_source == folder / "EPIC_100_validation.csv"
    shown = {name: round(value, 2) for name, value in score.majority.items()}
    published = {"verb_accuracy_at_1": 20.04, "noun_accuracy_at_1": 4.45}
    published |= {"verb_accuracy_at_5": 64.18, "noun_accuracy_at_5": 18.81}
    assert {f"all_{name}": value for name, value in published.items()}.items() <= shown.items()
    assert shown["tail_verb_accuracy_at_1"] == shown["tail_noun_accuracy_at_1"] == 0.0


def test_the_official_files_of_sounds_have_the_known_counts_and_majorities(annotations: Path, tmp_path: Path) -> None:
    folder = annotations / "epic_sounds"
    source = folder / "EPIC_Sounds_validation.csv"
    ids, classes = _read_columns(source, ("annotation_id", "class_id"))
    labels = np.array(classes, dtype=int)
    write_sound_submission(tmp_path / "a.json", segment_ids=ids, scores=np.eye(44)[labels], levels=LEVELS)
    score = score_submission(tmp_path / "a.json", folder)
    assert score.counts == {"segments": 8035, "background": 33, "without_background": 8002}
    assert {round(value, 9) for value in score.metrics.values()} == {100.0, 1.0}
    assert round(score.majority["all_interaction_accuracy_at_1"], 2) == 17.26
    assert round(score.majority["all_interaction_accuracy_at_1_with_background"], 2) == 17.19
    # Every sound detected exactly: all are found, at every threshold.
    videos, starts, stops = _read_columns(source, ("video_id", "start_timestamp", "stop_timestamp"))
    names = sorted(set(videos))
    segments = np.array([[_seconds(a), _seconds(b)] for a, b in zip(starts, stops, strict=True)])
    events = Events(np.array([names.index(name) for name in videos]), labels, segments, np.ones(len(labels)))
    write_detection_submission(tmp_path / "b.json", video_ids=names, events=events, levels=LEVELS)
    detected = score_submission(tmp_path / "b.json", source)
    assert {round(value, 9) for value in detected.metrics.values()} == {100.0}
    assert detected.counts["without_background"] == 8002
    assert detected.counts["detections_dropped"] == 33


def _seconds(text: str) -> float:
    hours, minutes, seconds = map(float, text.split(":"))
    return hours * 3600 + minutes * 60 + seconds


def test_the_numbers_of_a_small_file_of_actions(tmp_path: Path) -> None:
    ids = write_epic_annotations(tmp_path)
    content = action_submission(ids)
    for segment in content["results"].values():  # always verb 0, then 5, and noun 7, then 0
        segment["verb"] |= {"0": 30.0, "5": 29.0}
        segment["noun"] |= {"7": 30.0, "0": 28.0}
    score = score_submission(saved(tmp_path / "x.json", content), tmp_path)
    assert score.counts == {"segments": 6, "unseen": 3, "tail_verb": 2, "tail_noun": 2, "tail_action": 3}
    expected = {
        "all_verb_accuracy_at_1": 100 * 3 / 6,
        "all_noun_accuracy_at_1": 100 * 2 / 6,
        "all_action_accuracy_at_1": 100 * 1 / 6,
        "unseen_verb_accuracy_at_1": 100 * 1 / 3,
        "tail_verb_accuracy_at_1": 0.0,
        "tail_noun_accuracy_at_1": 100.0,
        "tail_action_accuracy_at_1": 100 * 1 / 3,
        "all_action_accuracy_at_5": 100 * 4 / 6,  # 0,7 5,7 0,0 5,0 and one more with verb 0 or 5 and noun 7
    }
    assert {name: score.metrics[name] for name in expected} == pytest.approx(expected)
    # The most frequent of the validation file: verbs 0, 5, 1; nouns 7, 3, 0 (equal counts: the later first).
    assert score.majority["all_verb_accuracy_at_1"] == 50.0
    assert score.majority["all_noun_accuracy_at_1"] == pytest.approx(100 / 3)
    write_rows(tmp_path / "EPIC_100_train.csv", ("verb_class", "noun_class"), [(1, 3), (1, 3), (0, 0)])
    of_train = score_submission(tmp_path / "x.json", tmp_path)
    assert of_train.majority_source == tmp_path / "EPIC_100_train.csv"
    assert of_train.majority["all_action_accuracy_at_1"] == pytest.approx(100 / 6)


def test_anticipation_is_scored_by_class_mean_recall(tmp_path: Path) -> None:
    ids = write_epic_annotations(tmp_path)
    content = action_submission(ids) | {"challenge": "action_anticipation"}
    for segment in content["results"].values():
        segment["verb"] |= dict.fromkeys(("0", "90", "91", "92", "93"), 30.0)
    score = score_submission(saved(tmp_path / "x.json", content), tmp_path)
    assert score.metrics["overall_verb_mt5r"] == pytest.approx(100 / 3)  # of the classes 0, 1 and 5 the first
    assert score.metrics["unseen_verb_mt5r"] == pytest.approx(100 / 2)
    assert score.metrics["tail_verb_mt5r"] == 0.0


def test_the_numbers_of_a_small_file_of_detections(tmp_path: Path) -> None:
    write_sound_annotations(tmp_path)
    score = score_submission(saved(tmp_path / "x.json", detection_submission()), tmp_path)
    assert score.metrics["interaction_map_avg"] == pytest.approx(
        100 * (0.5 + 0) / 2
    )  # one of two of class 3; none of 4
    assert score.counts["segments"] == 4
    assert score.counts["background"] == 1
    assert score.majority == {}
    extra = detection_submission()
    extra["results"]["P77"] = [*extra["results"].pop("P02_1"), {"interaction": 9, "score": 1.0, "segment": [0, 1]}]
    notes = score_submission(saved(tmp_path / "x.json", extra), tmp_path).notes
    assert any("1 video not in the annotations" in note and "'P77'" in note for note in notes)
    assert any("1 annotated video not in the file" in note for note in notes)
    assert any("1 detection of classes without annotated sounds" in note for note in notes)


def test_files_for_the_test_split_are_validated_and_not_scored(tmp_path: Path) -> None:
    write_epic_annotations(tmp_path)
    write_sound_annotations(tmp_path)
    for content in (
        action_submission(["P02_9_1", "P02_9_0"]),
        sound_submission(["P09_1_0"]),
        DETECTION_HEADER | {"results": {"P09_1": []}},
    ):
        score = score_submission(saved(tmp_path / "x.json", content), tmp_path)
        assert score.metrics == {}
        assert "test" in score.annotations.name
        assert "holds no labels" in score.notes[-1]
    with pytest.raises(SubmissionError, match="'P02_9_0': it is missing"):
        score_submission(saved(tmp_path / "x.json", action_submission(["P02_9_1"])), tmp_path)


def test_parts_whose_files_are_missing_are_told(tmp_path: Path) -> None:
    ids = write_epic_annotations(tmp_path)
    (tmp_path / "EPIC_100_tail_nouns.csv").unlink()
    (tmp_path / "EPIC_100_unseen_participant_ids_validation.csv").unlink()
    score = score_submission(saved(tmp_path / "x.json", action_submission(ids)), tmp_path)
    assert not any(name.startswith(("tail", "unseen")) for name in score.metrics)
    assert any("no numbers of tail classes" in note for note in score.notes)
    assert any("no numbers of unseen participants" in note for note in score.notes)


def test_class_files_of_another_data_set_say_how_many_scores_there_are(tmp_path: Path) -> None:
    ids = write_epic_annotations(tmp_path)
    for kind, number in (("verb", 14), ("noun", 29)):
        rows = [(place, f"{kind} {place}") for place in range(number)]
        write_rows(tmp_path / f"EPIC_100_{kind}_classes.csv", ("id", "key"), rows)
    write_action_submission(
        tmp_path / "x.zip",
        "action_recognition",
        segment_ids=ids,
        verb_scores=np.ones((6, 14)),
        noun_scores=np.ones((6, 29)),
        levels=LEVELS,
    )
    assert score_submission(tmp_path / "x.zip", tmp_path).counts["segments"] == 6
    with pytest.raises(SubmissionError, match="'14' is no class, expected 0 to 13"):
        score_submission(saved(tmp_path / "y.json", action_submission(ids)), tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("P01_1_1,P01,0,7", "P01_1_1,P01,97,7", r"row 2: verb_class is '97', expected 0 to 96"),
        ("P01_1_1,P01,0,7", "P01_1_0,P01,0,7", r"line 3: narration_id 'P01_1_0' is listed twice"),
        ("P01_1_1,P01,0,7", "P01_1_1,P01,0", r"line 3: .*3 fields, the first line has 4"),
        ("noun_class", "nuon_class", r"column noun_class is missing"),
        ("verb_class", "class", r"column verb_class is missing"),  # and not taken for a file without labels
    ],
)
def test_damaged_annotations_are_an_error_and_no_other_number(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    ids = write_epic_annotations(tmp_path)
    path = saved(tmp_path / "x.json", action_submission(ids))
    source = tmp_path / "EPIC_100_validation.csv"
    source.write_text(source.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises((DatasetError, SubmissionError), match=expected):
        score_submission(path, source)


def test_a_submission_is_not_compared_with_another_split_where_its_own_is_not_there(tmp_path: Path) -> None:
    ids = write_epic_annotations(tmp_path)
    path = saved(tmp_path / "x.json", action_submission(ids))
    (tmp_path / "EPIC_100_validation.csv").rename(tmp_path / "EPIC_100_Validation.csv")
    with pytest.raises(SubmissionError) as caught:
        score_submission(path, tmp_path)
    assert caught.value.faults == (
        f"{path}, segment 'P01_1_0': {tmp_path}/EPIC_100_test_timestamps.csv has no such segment, and "
        "EPIC_100_validation.csv is not there",
    )


def test_detections_in_videos_of_another_split_are_not_scored_as_wrong_ones(tmp_path: Path) -> None:
    write_sound_annotations(tmp_path)
    content = DETECTION_HEADER | {"results": {"P09_1": [{"interaction": 3, "score": 0.9, "segment": [1.0, 2.0]}]}}
    path = saved(tmp_path / "x.json", content)
    assert score_submission(path, tmp_path).metrics == {}  # of the test
    (tmp_path / "EPIC_Sounds_detection_test_videos.csv").unlink()
    with pytest.raises(SubmissionError, match=r"none of its 1 videos is in .*EPIC_Sounds_validation\.csv, and "):
        score_submission(path, tmp_path)


def test_a_challenge_that_is_not_known_is_named_with_those_that_are(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.json", {"challenge": "state_change", "results": {}})
    with pytest.raises(SubmissionError, match=f"'state_change', expected one of {', '.join(CHALLENGES)}"):
        score_submission(path, tmp_path)
    path = saved(tmp_path / "x.json", {"results": {}})
    with pytest.raises(SubmissionError, match="challenge: it is missing"):
        score_submission(path, tmp_path)
    path = saved(tmp_path / "x.json", action_submission(["a"]))
    with pytest.raises(DatasetError, match=r"none of the annotation files EPIC_100_validation\.csv"):
        score_submission(path, tmp_path)
    with pytest.raises(DatasetError, match="no such file or folder"):
        score_submission(path, tmp_path / "none")
