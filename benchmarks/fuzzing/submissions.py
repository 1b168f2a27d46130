"""Damaged submissions to the challenges of EPIC-KITCHENS-100, EPIC-SOUNDS and Ego4D, as json and in zip files.

A file that is scored counts as right where another reader of json finds no key twice and no number that is none in it,
the segments of the annotations and no other (any videos, for detection; clips without a change may lack a point of no
return), and the very scores, changes, frames or classes that were read.
"""

import csv
import io
import json
import math
import random
import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from earmark.evaluation import (
    read_action_submission,
    read_anticipation_submission,
    read_detection_submission,
    read_keyframe_submission,
    read_sound_submission,
    read_state_change_submission,
)
from earmark.evaluation.challenges import score_submission
from fuzzing.mutations import edited_bytes, edited_text, edited_tree, json_text
from fuzzing.running import Input, Kind, WrongError

NUM_VERBS, NUM_NOUNS, NUM_SOUNDS = 3, 4, 44
SEGMENTS = ("P01_1_0", "P01_1_1", "P18_1_0")
SOUNDS = ("P01_1_0", "P01_1_1")
CLIPS = {"u0": True, "u1": False, "u2": True}  # unique_id -> whether a state changes
NUM_FRAMES = 240
WINDOWS = ("c1_3", "c1_4", "c1_5")
NUM_CANDIDATES, NUM_COMING = 5, 20
LEVELS = {"sls_pt": 4, "sls_tl": 3, "sls_td": 3}


class Submissions(Kind):
    """Files of predictions, each scored against small annotations."""

    name = "submissions"

    def make(self, folder: Path) -> None:
        self._files, self._trees = _annotations() | _ego4d_annotations(), _trees() | _ego4d_trees()

    def damaged(self, draw: random.Random, folder: Path) -> Input:
        challenge = draw.choice(sorted(self._trees))
        for name, text in self._files.items():
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


def _edited(tree: Any, draw: random.Random) -> tuple[bytes, str]:
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


def _ego4d_annotations() -> dict[str, str]:
    clips = []
    for number, (name, state_change) in enumerate(CLIPS.items()):
        start = 1000 * number
        row = {"unique_id": name, "video_uid": "v1", "clip_uid": "c1", "state_change": state_change}
        row |= {"parent_start_frame": start, "parent_end_frame": start + NUM_FRAMES}
        row |= {"parent_start_sec": start / 30, "parent_end_sec": (start + NUM_FRAMES) / 30}
        clips.append(row | ({"parent_pnr_frame": start + 99} if state_change else {}))
    actions = [
        {"clip_uid": "c1", "action_idx": index, "verb_label": index % NUM_VERBS, "noun_label": index % NUM_NOUNS}
        for index in range(len(WINDOWS) + 3 + NUM_COMING)
    ]
    taxonomy = {"verbs": ["verb"] * NUM_VERBS, "nouns": ["noun"] * NUM_NOUNS}
    return {
        "fho_oscc-pnr_val.json": json.dumps({"clips": clips}),
        "fho_lta_val.json": json.dumps({"clips": actions}),
        "fho_lta_taxonomy.json": json.dumps(taxonomy),
    }


def _ego4d_trees() -> dict[str, Any]:
    draw = random.Random(1)

    def sequences(number: int) -> list[list[int]]:
        return [[draw.randrange(number) for _ in range(NUM_COMING)] for _ in range(NUM_CANDIDATES)]

    return {
        "ego4d_oscc": [{"unique_id": name, "state_change": draw.random() < 0.5} for name in CLIPS],
        "ego4d_pnr": [{"unique_id": name, "pnr_frame": draw.choice((0, 17, 120.5, 240))} for name in CLIPS],
        "ego4d_lta": {name: {"verb": sequences(NUM_VERBS), "noun": sequences(NUM_NOUNS)} for name in WINDOWS},
    }


def _trees() -> dict[str, Any]:
    draw = random.Random(0)

    def scores(number: int) -> dict[str, float]:
        return {str(place): draw.random() for place in range(number)}

    trees: dict[str, Any] = {}
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
    if challenge.startswith("ego4d"):
        _require_right_ego4d(path, challenge, tree)
        return
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
                if pairs != {pair: float(score) for pair, score in results[name]["action"].items()}:  # read as floats
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


def _require_right_ego4d(path: Path, challenge: str, tree: Any) -> None:
    if challenge == "ego4d_lta":
        _require_segments(tree, WINDOWS)
        read = read_anticipation_submission(path, WINDOWS, num_verbs=NUM_VERBS, num_nouns=NUM_NOUNS)
        for task, found, number in (("verb", read.verbs, NUM_VERBS), ("noun", read.nouns, NUM_NOUNS)):
            given = [tree[name][task] for name in WINDOWS]
            labels = [label for window in given for sequence in window for label in sequence]
            if any(type(label) is not int or not 0 <= label < number for label in labels):
                raise WrongError("what is no class")
            _require_equal(found, given)
        return
    field = {"ego4d_oscc": "state_change", "ego4d_pnr": "pnr_frame"}[challenge]
    names = [row["unique_id"] for row in tree]
    given = {row["unique_id"]: row[field] for row in tree}
    if challenge == "ego4d_oscc":
        _require_segments(names, tuple(CLIPS))
        if any(type(value) is not bool for value in given.values()):
            raise WrongError("what is neither true nor false")
        _require_equal(read_state_change_submission(path, tuple(CLIPS)).state_changes, [given[name] for name in CLIPS])
        return
    unchanged = {name for name, state_change in CLIPS.items() if not state_change}
    _require_segments([*names, *(unchanged - set(names))], tuple(CLIPS))
    if any(type(value) not in (int, float) or not 0 <= value <= NUM_FRAMES for value in given.values()):
        raise WrongError("what is no frame of the clip")
    found = read_keyframe_submission(path, dict.fromkeys(CLIPS, NUM_FRAMES), optional=unchanged).pnr_frames
    if [math.isnan(frame) for frame in found.tolist()] != [name not in given for name in CLIPS]:
        raise WrongError("other clips than in the file")
    _require_equal(found[~np.isnan(found)], [given[name] for name in CLIPS if name in given])


def _row(scores: dict[str, Any], number: int) -> list[float]:
    if sorted(scores) != sorted(map(str, range(number))):
        raise WrongError("other classes than there are")
    values = [scores[str(place)] for place in range(number)]
    if any(type(value) not in (int, float) or not math.isfinite(value) for value in values):
        raise WrongError("a score that is no finite number")
    return values


def _require_segments(results: Collection[str], expected: Sequence[str]) -> None:
    if sorted(results) != sorted(expected):
        raise WrongError("other segments than the annotations have")


def _require_equal(found: Any, expected: Any) -> None:
    if not np.array_equal(np.asarray(found, np.float64), np.asarray(expected, np.float64).reshape(np.shape(found))):
        raise WrongError("other numbers than in the file")


KIND = Submissions()
