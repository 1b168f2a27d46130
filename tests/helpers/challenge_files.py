"""Annotations and submissions of the EPIC challenges, small and made up."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

VERBS, NOUNS = 97, 300
HEADER = {"version": "0.2", "challenge": "action_recognition", "sls_pt": 4, "sls_tl": 3, "sls_td": 3}
SOUND_HEADER = HEADER | {"version": "0.1", "challenge": "audio_based_interaction_recognition", "t_mod": 0}
DETECTION_HEADER = SOUND_HEADER | {"challenge": "audio_based_interaction_detection"}


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


def write_epic_annotations(folder: Path) -> list[str]:
    """Six segments of P01 and P18, who is unseen; verb 5 and noun 7 are tail classes. Return their ids."""
    rows = [
        ("P01_1_0", "P01", 0, 0),
        ("P01_1_1", "P01", 0, 7),
        ("P01_1_2", "P01", 1, 3),
        ("P18_1_0", "P18", 5, 0),
        ("P18_1_1", "P18", 0, 3),
        ("P18_1_2", "P18", 5, 7),
    ]
    columns = ("narration_id", "participant_id", "verb_class", "noun_class")
    write_rows(folder / "EPIC_100_validation.csv", columns, rows)
    write_rows(folder / "EPIC_100_test_timestamps.csv", columns[:2], [("P02_9_0", "P02"), ("P02_9_1", "P02")])
    write_rows(folder / "EPIC_100_tail_verbs.csv", ("verb",), [(5,)])
    write_rows(folder / "EPIC_100_tail_nouns.csv", ("noun",), [(7,)])
    write_rows(folder / "EPIC_100_unseen_participant_ids_validation.csv", ("participant_id",), [("P18",)])
    return [row[0] for row in rows]


def write_sound_annotations(folder: Path) -> list[str]:
    """Four sounds in two videos, one of them background. Return their ids."""
    rows = [
        ("P01_1_0", "P01_1", "00:00:01.000", "00:00:02.000", 3),
        ("P01_1_1", "P01_1", "00:01:00.500", "00:01:02.500", 13),
        ("P01_1_2", "P01_1", "00:00:05.000", "00:00:06.000", 4),
        ("P02_1_0", "P02_1", "01:00:00.000", "01:00:03.000", 3),
    ]
    columns = ("annotation_id", "video_id", "start_timestamp", "stop_timestamp", "class_id")
    write_rows(folder / "EPIC_Sounds_validation.csv", columns, rows)
    write_rows(folder / "EPIC_Sounds_recognition_test_timestamps.csv", columns[:2], [("P09_1_0", "P09_1")])
    write_rows(folder / "EPIC_Sounds_detection_test_videos.csv", ("video_id",), [("P09_1",)])
    return [row[0] for row in rows]


def action_entry(seed: int, *, actions: bool = False) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(seed)
    entry = {
        task: {str(number): float(score) for number, score in enumerate(rng.normal(size=most))}
        for task, most in (("verb", VERBS), ("noun", NOUNS))
    }
    if actions:
        entry["action"] = {f"{verb},{noun}": float(rng.random()) for verb in range(10) for noun in range(10)}
    return entry


def action_submission(ids: Sequence[str], *, actions: bool = False) -> dict[str, Any]:
    return HEADER | {"results": {name: action_entry(place, actions=actions) for place, name in enumerate(ids)}}


def sound_submission(ids: Sequence[str]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    scores = {name: dict(zip(map(str, range(44)), rng.normal(size=44).tolist(), strict=True)) for name in ids}
    return SOUND_HEADER | {"results": {name: {"interaction": row} for name, row in scores.items()}}


def detection_submission() -> dict[str, Any]:
    found = [
        {"interaction": 3, "score": 0.9, "segment": [1.0, 2.0]},
        {"interaction": 4, "score": 0.5, "segment": [7.0, 8.0]},
    ]
    return DETECTION_HEADER | {"results": {"P01_1": found, "P02_1": []}}
