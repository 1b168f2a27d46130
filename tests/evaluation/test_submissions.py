"""Submissions: what is written is read back as it was, and each fault of a file is named with its segment."""

import copy
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earmark.evaluation.action_submissions import read_action_submission, write_action_submission
from earmark.evaluation.detection_metrics import Events
from earmark.evaluation.epic_metrics import best_actions
from earmark.evaluation.sound_submissions import (
    read_detection_submission,
    read_sound_submission,
    write_detection_submission,
    write_sound_submission,
)
from earmark.evaluation.submission_files import SubmissionError, SupervisionLevels
from tests.conftest import ROOT
from tests.helpers.challenge_files import action_submission, detection_submission, sound_submission

LEVELS = SupervisionLevels(pretraining=4, training_labels=3, training_data=3)
IDS = ["a_0", "a_1", "b_0"]


def faults_of(read: Callable[[], Any]) -> str:
    with pytest.raises(SubmissionError) as caught:
        read()
    return "\n".join(caught.value.faults)


def saved(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".zip", ".json"])
@pytest.mark.parametrize("with_actions", [False, True])
def test_actions_come_back_to_the_last_bit_in_the_order_asked_for(
    tmp_path: Path, suffix: str, with_actions: bool
) -> None:
    rng = np.random.default_rng(0)
    verbs, nouns = rng.normal(size=(3, 97)) * 1e3, rng.normal(size=(3, 300)).astype(np.float32)
    actions = best_actions(verbs / 1e3, nouns) if with_actions else None
    path = tmp_path / f"submission{suffix}"
    write_action_submission(
        path,
        "action_recognition",
        segment_ids=IDS,
        verb_scores=verbs,
        noun_scores=nouns,
        levels=LEVELS,
        actions=actions,
    )
    found = read_action_submission(path, "action_recognition", IDS[::-1])
    np.testing.assert_array_equal(found.verb_scores, verbs[::-1])
    np.testing.assert_array_equal(found.noun_scores, nouns[::-1].astype(np.float64))
    assert found.levels == {"sls_pt": 4, "sls_tl": 3, "sls_td": 3}
    assert (found.actions is not None) == with_actions
    for mine, theirs in zip(actions or (), found.actions or (), strict=True):
        np.testing.assert_array_equal(mine[::-1], theirs)


def test_sounds_and_detections_come_back(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).normal(size=(3, 44))
    write_sound_submission(tmp_path / "a.zip", segment_ids=IDS, scores=scores, levels=LEVELS, modality=2)
    sounds = read_sound_submission(tmp_path / "a.zip", IDS)
    np.testing.assert_array_equal(sounds.scores, scores)
    assert sounds.levels == {"sls_pt": 4, "sls_tl": 3, "sls_td": 3, "t_mod": 2}
    events = Events(
        np.array([2, 0, 2]), np.array([1, 43, 0]), np.array([[0.1, 2], [3, 4], [-1, 9]]), np.array([0.5, 2.0, -1.0])
    )
    write_detection_submission(tmp_path / "b.zip", video_ids=IDS, events=events, levels=LEVELS)
    detections = read_detection_submission(tmp_path / "b.zip")
    assert detections.video_ids == tuple(IDS)
    order = [1, 0, 2]  # by video
    np.testing.assert_array_equal(detections.events.video, events.video[order])
    np.testing.assert_array_equal(detections.events.label, events.label[order])
    np.testing.assert_array_equal(detections.events.segment, events.segment[order])
    assert detections.events.score is not None
    assert events.score is not None
    np.testing.assert_array_equal(detections.events.score, events.score[order])


def test_a_written_file_is_the_official_form_and_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        write_action_submission(
            tmp_path / name,
            "action_anticipation",
            segment_ids=["a_0"],
            verb_scores=np.zeros((1, 97)),
            noun_scores=np.ones((1, 300)),
            levels=LEVELS,
        )
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == ["test.json"]
        content = json.loads(archive.read("test.json"))
    scores = {"verb": {str(k): 0.0 for k in range(97)}, "noun": {str(k): 1.0 for k in range(300)}}
    header = {"version": "0.2", "challenge": "action_anticipation", "sls_pt": 4, "sls_tl": 3, "sls_td": 3}
    assert content == header | {"results": {"a_0": scores}}


def edit(change: Callable[[dict[str, Any]], Any], *, actions: bool = False) -> dict[str, Any]:
    content = copy.deepcopy(action_submission(IDS, actions=actions))
    change(content)
    return content


def results(content: dict[str, Any], segment: str = "a_1") -> dict[str, Any]:
    found: dict[str, Any] = content["results"][segment]
    return found


FAULTS: list[tuple[Callable[[dict[str, Any]], Any], str, bool]] = [
    (lambda c: c.pop("version"), "version: it is missing", False),
    (lambda c: c.update(version="0.1"), "version: it is '0.1', expected '0.2'", False),
    (lambda c: c.update(challenge="x"), "challenge: it is 'x', expected 'action_recognition'", False),
    (lambda c: c.pop("sls_tl"), "sls_tl: it is missing", False),
    (lambda c: c.update(sls_pt=6), "sls_pt: it is 6, expected a whole number from 0 to 5", False),
    (lambda c: c.update(sls_td="3"), "sls_td: it is '3', expected a whole number", False),
    (lambda c: c.update(sls_td=True), "sls_td: it is True, expected a whole number", False),
    (lambda c: c.pop("results"), "results: there are none", False),
    (lambda c: c.update(results=[1]), "results: it is a list, expected an object", False),
    (lambda c: c["results"].pop("a_1"), "segment 'a_1': it is missing", False),
    (lambda c: c["results"].update(z=results(c)), "segment 'z': the annotations have no such segment", False),
    (lambda c: c["results"].update(a_1=3), "segment 'a_1': it is 3, expected an object with verb and noun", False),
    (lambda c: results(c).pop("noun"), "segment 'a_1': noun is missing", False),
    (lambda c: results(c).update(actions={}), "segment 'a_1': 'actions' is neither verb nor noun nor action", False),
    (lambda c: results(c)["verb"].pop("96"), "segment 'a_1': verb: 1 class missing, the first: 96", False),
    (lambda c: results(c)["verb"].update({"97": 0.0}), "'a_1': verb: '97' is no class, expected 0 to 96", False),
    (lambda c: results(c)["noun"].update({"01": 0.0}), "'a_1': noun: '01' is no class, expected 0 to 299", False),
    (lambda c: results(c)["noun"].update({"4": "1"}), "'a_1': the score of noun 4 is '1', expected a finite", False),
    (lambda c: results(c)["noun"].update({"4": None}), "the score of noun 4 is None, expected a finite number", False),
    (lambda c: results(c)["noun"].update({"4": True}), "the score of noun 4 is True, expected a finite number", False),
    (lambda c: results(c)["verb"].update({"4": float("nan")}), "'a_1': the score of verb 4 is nan, expected", False),
    (lambda c: results(c)["verb"].update({"4": float("inf")}), "'a_1': the score of verb 4 is inf, expected", False),
    (lambda c: results(c)["verb"].update({"4": 10**400}), "the score of verb 4 is 1000", False),
    (lambda c: results(c).pop("action"), "'a_1': actions must be given for all segments or for none, and the f", True),
    (lambda c: results(c)["action"].pop("3,4"), "'a_1': action: 99 scores, expected 100", True),
    (lambda c: swap(results(c)["action"], "97,4"), "'a_1': action: 97,4 is beyond the 97 verbs and 300 nouns", True),
    (lambda c: swap(results(c)["action"], "3, 4"), "'a_1': action: '3, 4' is not two class ids 'verb,noun'", True),
    (lambda c: results(c)["action"].update({"3,4": float("nan")}), "the score of action 3,4 is nan", True),
]


def swap(actions: dict[str, float], key: str) -> None:
    actions.pop("3,4")
    actions[key] = 0.5


@pytest.mark.parametrize(("change", "expected", "actions"), FAULTS, ids=[fault[1] for fault in FAULTS])
def test_each_fault_of_a_file_of_actions_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], expected: str, actions: bool
) -> None:
    path = saved(tmp_path / "x.json", action_submission(IDS, actions=actions))
    read_action_submission(path, "action_recognition", IDS)  # right before the change
    saved(path, edit(change, actions=actions))
    found = faults_of(lambda: read_action_submission(path, "action_recognition", IDS))
    assert expected in found
    assert all(line.startswith(str(path)) for line in found.splitlines())


def test_all_faults_are_told_up_to_a_thousand_and_the_others_counted(tmp_path: Path) -> None:
    content = action_submission(["a_0"])
    content["results"] |= {f"z_{number}": 0 for number in range(1500)}
    content["sls_pt"] = -1
    path = saved(tmp_path / "x.json", content)
    with pytest.raises(SubmissionError) as caught:
        read_action_submission(path, "action_recognition", ["a_0"])
    assert len(caught.value.faults) == 1001
    assert "501 more rows" in caught.value.faults[-1]
    assert "(and 1000 more faults)" in str(caught.value)


def test_keys_that_are_given_twice_are_named(tmp_path: Path) -> None:
    content = json.dumps(action_submission(IDS))
    doubled = content.replace('"a_1": {"verb": {', '"a_1": {"verb": {"0": 1.0, ', 1)
    path = saved(tmp_path / "x.json", doubled)
    assert "segment 'a_1': '0' is given twice" in faults_of(
        lambda: read_action_submission(path, "action_recognition", IDS)
    )
    saved(path, content.replace('"a_1"', '"a_0"'))
    assert "segment 'a_0': it is given twice" in faults_of(
        lambda: read_action_submission(path, "action_recognition", IDS)
    )
    saved(path, content.replace('"sls_pt": 4', '"sls_pt": 4, "sls_pt": 3'))
    assert "sls_pt: it is given twice" in faults_of(lambda: read_action_submission(path, "action_recognition", IDS))
    saved(path, content[:-1] + ', "results": {"a_0": 1}}')
    assert "results is given twice" in faults_of(lambda: read_action_submission(path, "action_recognition", IDS))


def test_the_order_of_fields_classes_and_segments_does_not_matter(tmp_path: Path) -> None:
    content = action_submission(IDS)
    plain = read_action_submission(saved(tmp_path / "a.json", content), "action_recognition", IDS)
    for segment in content["results"].values():
        segment["verb"] = dict(reversed(segment["verb"].items()))
    turned = {"results": dict(reversed(content["results"].items()))} | dict(reversed(content.items()))
    other = read_action_submission(saved(tmp_path / "b.json", turned), "action_recognition", IDS)
    np.testing.assert_array_equal(plain.verb_scores, other.verb_scores)
    np.testing.assert_array_equal(plain.noun_scores, other.noun_scores)


def test_unknown_fields_are_told_and_ignored(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.json", action_submission(IDS) | {"author": "me"})
    assert "'author' is no field" in read_action_submission(path, "action_recognition", IDS).notes[0]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "not readable as json"),
        ("[1]", "must be a json object with results"),
        ('{"version": "0.2", ', "not readable as json"),
        ('{"results": {"a": 1} "b": 2}', "not readable as json"),
        ('{"results": {"a": ' + "[" * 100_000, "nested too deeply"),
        ("\ufffd" * 5, "not readable as json"),
    ],
    ids=["empty", "list", "cut", "no comma", "deep", "no json"],
)
def test_what_is_no_submission_is_refused(tmp_path: Path, content: str, expected: str) -> None:
    path = saved(tmp_path / "x.json", content)
    assert expected in faults_of(lambda: read_action_submission(path, "action_recognition", IDS))


def test_files_that_are_missing_damaged_or_too_large_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faults(path: Path) -> str:
        return faults_of(lambda: read_sound_submission(path, IDS))

    assert "no such file" in faults(tmp_path / "none.json")
    assert "is a directory" in faults(tmp_path)
    path = tmp_path / "x.zip"
    write_sound_submission(path, segment_ids=IDS, scores=np.ones((3, 44)), levels=LEVELS)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert "damaged zip file" in faults(path)
    path.write_bytes(whole[:60] + bytes([whole[60] ^ 255]) + whole[61:])
    assert "damaged zip file" in faults(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("folder/test.json", "{}")
    assert "holds 1 file, and test.json 0 times" in faults(path)
    path.write_bytes(b"\xff\xfe{}")
    assert "not UTF-8" in faults(path)
    monkeypatch.setattr("earmark.evaluation.submission_files.MAX_JSON_BYTES", 1000)
    path.write_bytes(whole)
    assert "more than the 1,000 of any submission" in faults(path)


SOUND_FAULTS: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda c: c.pop("t_mod"), "t_mod: it is missing"),
    (lambda c: c.update(t_mod=3), "t_mod: it is 3, expected a whole number from 0 to 2"),
    (lambda c: results(c)["interaction"].pop("43"), "segment 'a_1': interaction: 1 class missing, the first: 43"),
    (lambda c: results(c)["interaction"].update({"44": 0.0}), "interaction: '44' is no class, expected 0 to 43"),
    (lambda c: results(c).update(verb={}), "expected an object with interaction alone"),
    (lambda c: results(c)["interaction"].update({"4": 1e39}), "interaction 4 is 1e+39, beyond the numbers of float32"),
]


@pytest.mark.parametrize(("change", "expected"), SOUND_FAULTS, ids=[fault[1] for fault in SOUND_FAULTS])
def test_each_fault_of_a_file_of_sounds_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], expected: str
) -> None:
    content = sound_submission(IDS)
    path = saved(tmp_path / "x.json", content)
    read_sound_submission(path, IDS)
    change(content)
    saved(path, content)
    assert expected in faults_of(lambda: read_sound_submission(path, IDS))


def first(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = content["results"]["P01_1"][1]
    return found


DETECTION_FAULTS: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda c: c["results"].update(P02_1={}), "video 'P02_1': it is an object, expected a list of detections"),
    (lambda c: first(c).pop("score"), "video 'P01_1', detection 1: score is missing"),
    (lambda c: first(c).update(interaction=44), "detection 1: interaction is 44, expected a whole number from 0 to 43"),
    (lambda c: first(c).update(interaction=3.0), "detection 1: interaction is 3.0, expected a whole number"),
    (lambda c: first(c).update(interaction="3"), "detection 1: interaction is '3', expected a whole number"),
    (lambda c: first(c).update(segment=[1]), "detection 1: segment must be a list of start and end"),
    (lambda c: first(c).update(segment=[2, 2]), "detection 1: segment goes from 2.0 s to 2.0 s"),
    (lambda c: first(c).update(segment=[1, float("nan")]), "detection 1: the end is nan, expected a finite number"),
    (lambda c: first(c).update(score=float("inf")), "detection 1: score is inf, expected a finite number"),
    (lambda c: c["results"]["P01_1"].append(4), "video 'P01_1', detection 2: it is 4, expected an object"),
]


@pytest.mark.parametrize(("change", "expected"), DETECTION_FAULTS, ids=[fault[1] for fault in DETECTION_FAULTS])
def test_each_fault_of_a_file_of_detections_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], expected: str
) -> None:
    content = detection_submission()
    path = saved(tmp_path / "x.json", content)
    read_detection_submission(path)
    change(content)
    saved(path, content)
    assert expected in faults_of(lambda: read_detection_submission(path))


def test_writers_refuse_what_readers_would(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    nan = np.full((3, 44), np.nan)

    def sounds(**changed: Any) -> None:
        given: dict[str, Any] = {"segment_ids": IDS, "scores": np.ones((3, 44)), "levels": LEVELS} | changed
        write_sound_submission(changed.pop("path", path), **{k: v for k, v in given.items() if k != "path"})

    def actions(classes: Any) -> None:
        write_action_submission(
            path,
            "action_recognition",
            segment_ids=["a"],
            verb_scores=np.ones((1, 97)),
            noun_scores=np.ones((1, 300)),
            levels=LEVELS,
            actions=classes,
        )

    distinct = np.arange(100)[None]
    for attempt, expected in (
        (lambda: sounds(scores=nan), "segment 0 are not all finite"),
        (lambda: sounds(scores=np.full((3, 44), 1e39)), "within the numbers of float32"),
        (lambda: sounds(scores=np.ones((3, 43))), r"need scores of shape \(N, 44\)"),
        (lambda: sounds(segment_ids=["a", "b", "a"]), "'a' is given twice"),
        (lambda: sounds(segment_ids=["a", "b"]), "2 ids, scores of 3"),
        (lambda: sounds(segment_ids=["a", "b", ""]), "expected a name"),
        (lambda: sounds(modality=3), "the modality"),
        (lambda: sounds(path=tmp_path / "a.txt"), "a submission is a .zip or .json file"),
        (lambda: SupervisionLevels(6, 3, 3), "sls_pt is 6"),
        (lambda: actions((distinct[:, :99] % 97, distinct[:, :99], np.ones((1, 99)))), "need actions of shape"),
        (
            lambda: actions((distinct, distinct, np.ones((1, 100)))),
            "verbs of actions must be whole numbers from 0 to 96",
        ),
        (lambda: actions((distinct * 0, distinct * 0, np.ones((1, 100)))), "segment 0 gives an action twice"),
    ):
        with pytest.raises(ValueError, match=expected):
            attempt()
    table = Events(np.array([1]), np.array([44]), np.array([[0.0, 1.0]]), np.array([1.0]))
    with pytest.raises(ValueError, match="class 44 of detection 0"):
        write_detection_submission(path, video_ids=["a", "b"], events=table, levels=LEVELS)
    with pytest.raises(ValueError, match="no challenge of actions"):
        write_action_submission(path, "x", segment_ids=["a"], verb_scores=[[1.0]], noun_scores=[[1.0]], levels=LEVELS)
    assert list(tmp_path.iterdir()) == []  # nothing is left half written


def test_the_python_of_the_page_writes_a_valid_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/challenges.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(code, {})
    read_action_submission("test.zip", "action_recognition", ["P01_101_0", "P01_101_1"])


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Bytes replaced, cut out, doubled or put in, at a few places."""
    for _ in range(rng.integers(1, 4)):
        start = int(rng.integers(len(content)))
        stop = start + int(rng.integers(1, 12))
        put_in = [rng.bytes(3), b"", content[start:stop] * 2, b"[{", b'"', b"NaN", b"-1e999", b"null", b"}}"]
        content = content[:start] + put_in[rng.integers(len(put_in))] + content[stop:]
    return content


@pytest.mark.parametrize("suffix", [".json", ".zip"])
@pytest.mark.parametrize("kind", ["actions", "sounds", "detections"])
def test_damaged_files_are_refused_or_read_never_anything_else(tmp_path: Path, kind: str, suffix: str) -> None:
    content = {
        "actions": lambda: action_submission(["a_0"], actions=True),
        "sounds": lambda: sound_submission(["a_0", "a_1"]),
        "detections": detection_submission,
    }[kind]()
    read: dict[str, Callable[[Path], Any]] = {
        "actions": lambda path: read_action_submission(path, "action_recognition", ["a_0"]),
        "sounds": lambda path: read_sound_submission(path, ["a_0", "a_1"]),
        "detections": read_detection_submission,
    }
    path = tmp_path / f"x{suffix}"
    whole = json.dumps(content).encode()
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("test.json", whole)
        whole = path.read_bytes()
    path.write_bytes(whole)
    read[kind](path)
    rng = np.random.default_rng(0)
    faults: list[tuple[str, ...]] = []
    for _ in range(150):
        path.write_bytes(damaged(whole, rng))
        try:
            found = read[kind](path)
        except SubmissionError as error:
            faults.append(error.faults)
        else:
            numbers = found.events.score if kind == "detections" else getattr(found, "scores", np.zeros(1))
            assert np.isfinite(numbers).all()
    assert len(faults) > 75
    assert all(str(path) in fault for of_one in faults for fault in of_one)
