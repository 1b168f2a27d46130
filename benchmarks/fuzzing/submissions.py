"""Damaged submissions to the challenges of EPIC-KITCHENS-100 and EPIC-SOUNDS, as json and in zip files.

A file that is scored counts as right where another reader of json finds no key twice and no number that is none in it,
the segments of the annotations and no other (any videos, for detection), and the very scores that were read.
"""

import csv
import io
import json
import math
import random
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from earmark.evaluation import read_action_submission, read_detection_submission, read_sound_submission
from earmark.evaluation.challenges import score_submission
from fuzzing.mutations import edited_bytes, edited_text, edited_tree, json_text
from fuzzing.running import Input, Kind, WrongError

NUM_VERBS, NUM_NOUNS, NUM_SOUNDS = 3, 4, 44
SEGMENTS = ("P01_1_0", "P01_1_1", "P18_1_0")
SOUNDS = ("P01_1_0", "P01_1_1")
LEVELS = {"sls_pt": 4, "sls_tl": 3, "sls_td": 3}


class Submissions(Kind):
    """Files of predictions, each scored against small annotations."""

    name = "submissions"

    def make(self, folder: Path) -> None:
        self._csv, self._trees = _annotations(), _trees()

    def damaged(self, draw: random.Random, folder: Path) -> Input:
        challenge = draw.choice(sorted(self._trees))
        for name, text in self._csv.items():
            (folder / name).write_text(text)
        content, told = _edited(self._trees[challenge], draw)
        path = folder / draw.choice(("test.json", "test.zip"))
        if path.suffix == ".zip":
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w", draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
                archive.writestr("test.json", content)
            content = packed.getvalue()
            if draw.random() < 0.5:
                content, more = edited_bytes(content, draw)
                told = f"{told}; zip: {more}"
        path.write_bytes(content)

        def attempt() -> None:
            score = score_submission(path, folder)
            _require_right(path, score.challenge)
            numbers = [*score.metrics.values(), *score.majority.values()]
            if not numbers or not all(0 <= number <= 100 for number in numbers):
                raise WrongError(f"a measure that is none: {numbers}")

        return Input(f"{challenge}: {told}", attempt, (str(path), str(folder)))


def _edited(tree: dict[str, Any], draw: random.Random) -> tuple[bytes, str]:
    """Change what a file holds, or its text, or its bytes."""
    match draw.randrange(5):
        case 0 | 1 | 2:
            edited, told = edited_tree(tree, draw)
            return json_text(edited).encode(), told
        case 3:
            text, told = edited_text(json.dumps(tree, indent=1), draw)
            return text.encode("utf-8", "surrogatepass"), told
    return edited_bytes(json.dumps(tree).encode(), draw)


# --- what is undamaged ---


def _csv_text(columns: str, rows: Sequence[tuple[Any, ...]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([columns.split(), *rows])
    return file.getvalue()


def _annotations() -> dict[str, str]:
    actions = [(name, name[:3], number % NUM_VERBS, number) for number, name in enumerate(SEGMENTS)]
    sounds = [(name, "P01_1", "00:00:01.000", "00:00:02.000", 3 + k) for k, name in enumerate(SOUNDS)]
    return {
        "EPIC_100_validation.csv": _csv_text("narration_id participant_id verb_class noun_class", actions),
        "EPIC_100_verb_classes.csv": _csv_text("id key", [(number, "verb") for number in range(NUM_VERBS)]),
        "EPIC_100_noun_classes.csv": _csv_text("id key", [(number, "noun") for number in range(NUM_NOUNS)]),
        "EPIC_100_tail_verbs.csv": _csv_text("verb", [(1,)]),
        "EPIC_100_tail_nouns.csv": _csv_text("noun", [(2,)]),
        "EPIC_100_unseen_participant_ids_validation.csv": _csv_text("participant_id", [("P18",)]),
        "EPIC_Sounds_validation.csv": _csv_text(
            "annotation_id video_id start_timestamp stop_timestamp class_id", sounds
        ),
    }


def _trees() -> dict[str, dict[str, Any]]:
    draw = random.Random(0)

    def scores(number: int) -> dict[str, float]:
        return {str(place): draw.random() for place in range(number)}

    trees: dict[str, dict[str, Any]] = {}
    for challenge, with_actions in (("action_recognition", True), ("action_anticipation", False)):
        results = {}
        for name in SEGMENTS:
            results[name] = {"verb": scores(NUM_VERBS), "noun": scores(NUM_NOUNS)}
            if with_actions:
                pairs = [f"{verb},{noun}" for verb in range(NUM_VERBS) for noun in range(NUM_NOUNS)]
                results[name]["action"] = {pair: draw.random() for pair in pairs}
        trees[challenge] = {"version": "0.2", "challenge": challenge, **LEVELS, "results": results}
    of_sounds = {"version": "0.1", **LEVELS, "t_mod": 0}
    trees["sound_recognition"] = of_sounds | {
        "challenge": "audio_based_interaction_recognition",
        "results": {name: {"interaction": scores(NUM_SOUNDS)} for name in SOUNDS},
    }
    found = [{"interaction": 3, "score": 0.9, "segment": [1.0, 2.0]}, {"interaction": 4, "score": 0, "segment": [3, 4]}]
    trees["sound_detection"] = of_sounds | {
        "challenge": "audio_based_interaction_detection",
        "results": {"P01_1": found, "P09_1": []},
    }
    return trees


# --- what counts as right ---


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    held = dict(pairs)
    if len(held) < len(pairs):
        raise WrongError("a key that is given twice")
    return held


def _no_number(text: str) -> float:
    raise WrongError(f"{text} is no number of json")


def _tree_of(path: Path) -> Any:
    content = path.read_bytes()
    if path.suffix == ".zip" and content[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(path) as archive:
            content = archive.read("test.json")
    return json.loads(content.decode("utf-8-sig"), object_pairs_hook=_once, parse_constant=_no_number)


def _require_right(path: Path, challenge: str) -> None:
    tree = _tree_of(path)
    if tree["challenge"] != challenge:
        raise WrongError("another challenge than the file names")
    for name, most in {**dict.fromkeys(LEVELS, 5), **({"t_mod": 2} if "audio" in challenge else {})}.items():
        if type(tree[name]) is not int or not 0 <= tree[name] <= most:
            raise WrongError(f"{name} is {tree[name]!r}")
    results = tree["results"]
    if challenge.startswith("action"):
        read = read_action_submission(path, challenge, SEGMENTS, num_verbs=NUM_VERBS, num_nouns=NUM_NOUNS)
        for task, found in (("verb", read.verb_scores), ("noun", read.noun_scores)):
            _require_equal(found, [_row(results[name][task], found.shape[1]) for name in SEGMENTS])
        _require_segments(results, SEGMENTS)
        if read.actions is not None:
            for place, name in enumerate(SEGMENTS):
                given = zip(*(part[place].tolist() for part in read.actions), strict=True)
                pairs = {f"{verb},{noun}": score for verb, noun, score in given}
                if pairs != results[name]["action"]:
                    raise WrongError("other scores of actions than in the file")
    elif challenge.endswith("recognition"):
        _require_segments(results, SOUNDS)
        found = read_sound_submission(path, SOUNDS).scores
        _require_equal(found, [_row(results[name]["interaction"], NUM_SOUNDS) for name in SOUNDS])
    else:
        events = read_detection_submission(path).events
        rows = [found for videos in results.values() for found in videos]
        for found, name in ((events.segment, "segment"), (events.label, "interaction"), (events.score, "score")):
            _require_equal(found, [row[name] for row in rows])


def _row(scores: dict[str, Any], number: int) -> list[float]:
    if sorted(scores) != sorted(map(str, range(number))):
        raise WrongError("other classes than there are")
    values = [scores[str(place)] for place in range(number)]
    if any(type(value) not in (int, float) or not math.isfinite(value) for value in values):
        raise WrongError("a score that is no finite number")
    return values


def _require_segments(results: dict[str, Any], expected: Sequence[str]) -> None:
    if sorted(results) != sorted(expected):
        raise WrongError("other segments than the annotations have")


def _require_equal(found: Any, expected: Any) -> None:
    if not np.array_equal(np.asarray(found, np.float64), np.asarray(expected, np.float64).reshape(np.shape(found))):
        raise WrongError("other numbers than in the file")


KIND = Submissions()
