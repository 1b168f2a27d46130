"""Submissions to Ego4D's challenges: what is written is read back as it was, and each fault of a file is named."""

import copy
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earmark.datasets.json_stream import RepeatedKey
from earmark.evaluation.ego4d_submissions import (
    read_anticipation_submission,
    read_keyframe_submission,
    read_state_change_submission,
    write_anticipation_submission,
    write_keyframe_submission,
    write_state_change_submission,
)
from earmark.evaluation.submission_files import SubmissionError, repeated_key

IDS = ["u1", "u2", "u3"]
WINDOWS = ["c1_3", "c1_4", "c_2_10"]
NUM_FRAMES = dict.fromkeys(IDS, 240)
NUM_VERBS, NUM_NOUNS = 115, 478
Read = Callable[[Path], Any]
READ: dict[str, Read] = {
    "oscc": lambda path: read_state_change_submission(path, IDS).state_changes,
    "pnr": lambda path: read_keyframe_submission(path, NUM_FRAMES).pnr_frames,
    "lta": lambda path: (lambda read: np.stack([read.verbs, read.nouns]))(
        read_anticipation_submission(path, WINDOWS, num_verbs=NUM_VERBS, num_nouns=NUM_NOUNS)
    ),
}


def sequences(num_classes: int, *, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(num_classes, size=(len(WINDOWS), 5, 20))


def content_of(kind: str) -> Any:
    if kind == "oscc":
        return [{"unique_id": name, "state_change": name != "u2"} for name in IDS]
    if kind == "pnr":
        return [{"unique_id": name, "pnr_frame": 100.5 + place} for place, name in enumerate(IDS)]
    verbs, nouns = sequences(NUM_VERBS).tolist(), sequences(NUM_NOUNS, seed=1).tolist()
    return {name: {"verb": verbs[place], "noun": nouns[place]} for place, name in enumerate(WINDOWS)}


def saved(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def faults_of(read: Callable[[], Any]) -> tuple[str, ...]:
    with pytest.raises(SubmissionError) as caught:
        read()
    return caught.value.faults


# --- written and read back ---


@pytest.mark.parametrize("suffix", [".json", ".zip"])
def test_what_is_written_comes_back_in_the_order_asked_for(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    write_state_change_submission(path, IDS, np.array([True, False, True]))
    np.testing.assert_array_equal(read_state_change_submission(path, IDS[::-1]).state_changes, [True, False, True])
    write_state_change_submission(path, IDS, [True, True, False])
    np.testing.assert_array_equal(read_state_change_submission(path, IDS[::-1]).state_changes, [False, True, True])
    frames = np.array([0.1, 1 / 3, 240.0])
    write_keyframe_submission(path, IDS, frames)
    reversed_frames = read_keyframe_submission(path, dict.fromkeys(IDS[::-1], 240)).pnr_frames
    np.testing.assert_array_equal(reversed_frames, frames[::-1])
    write_keyframe_submission(path, IDS, np.array([0, 17, 240]))
    np.testing.assert_array_equal(READ["pnr"](path), [0.0, 17.0, 240.0])
    verbs, nouns = sequences(NUM_VERBS), sequences(NUM_NOUNS, seed=1)
    write_anticipation_submission(path, WINDOWS, verbs, nouns)
    np.testing.assert_array_equal(READ["lta"](path), np.stack([verbs, nouns]))


def test_written_files_are_the_official_form_and_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        write_state_change_submission(tmp_path / name, IDS, [True, False, True])
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == ["test.json"]
        assert json.loads(archive.read("test.json")) == content_of("oscc")
    write_keyframe_submission(tmp_path / "c.json", IDS, np.array([100.5, 101.5, 102.5]))
    assert json.loads((tmp_path / "c.json").read_text()) == content_of("pnr")
    write_anticipation_submission(tmp_path / "d.json", WINDOWS, sequences(NUM_VERBS), sequences(NUM_NOUNS, seed=1))
    assert json.loads((tmp_path / "d.json").read_text()) == content_of("lta")


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path: write_state_change_submission(path, IDS, [1, 0, 1]), "need a boolean state change"),
        (lambda path: write_state_change_submission(path, IDS, [True, False]), "3 ids, scores of 2"),
        (lambda path: write_state_change_submission(path, [], np.zeros(0, dtype=bool)), "0 ids"),
        (lambda path: write_state_change_submission(path, ["a", "", "b"], [True] * 3), "the clip's id is ''"),
        (lambda path: write_state_change_submission(path, ["a", "b", "a"], [True] * 3), "clip 'a' is given twice"),
        (lambda path: write_keyframe_submission(path, IDS, [1, np.nan, 2]), "pnr_frame nan of clip 1"),
        (lambda path: write_keyframe_submission(path, IDS, [1, 2, np.inf]), "pnr_frame inf of clip 2"),
        (lambda path: write_keyframe_submission(path, IDS, [-1, 2, 3]), "pnr_frame -1 of clip 0"),
        (lambda path: write_keyframe_submission(path, IDS, [True, False, True]), "need a frame number"),
        (lambda path: write_keyframe_submission(path, IDS, [[1, 2, 3]]), "need a frame number"),
        (lambda path: write_anticipation_submission(path, WINDOWS, sequences(9)[:, :4], sequences(9)), "need verbs"),
        (lambda path: write_anticipation_submission(path, WINDOWS, sequences(9), sequences(9)[..., :19]), "need nouns"),
        (lambda path: write_anticipation_submission(path, WINDOWS, sequences(9) / 2, sequences(9)), "need verbs"),
        (lambda path: write_anticipation_submission(path, WINDOWS, sequences(9) - 9, sequences(9)), "no class id"),
        (lambda path: write_anticipation_submission(path, WINDOWS, sequences(9), sequences(9)[:2]), "nouns of 2"),
        (
            lambda path: write_anticipation_submission(path, ["c1", "c1_4", "c1_5"], sequences(9), sequences(9)),
            "window 'c1' is not named by clip and index",
        ),
    ],
)
def test_what_no_challenge_takes_is_not_written(tmp_path: Path, write: Callable[[Path], None], reason: str) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(ValueError, match=reason):
        write(path)
    assert list(tmp_path.iterdir()) == []


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x\.csv: a submission is a \.zip or \.json file"):
        write_state_change_submission(tmp_path / "x.csv", ["a"], [True])


# --- faults ---

FAULTS: list[tuple[str, Callable[[Any], Any], str]] = [
    ("oscc", lambda c: c.pop(1), "clip 'u2': it is missing"),
    (
        "oscc",
        lambda c: c.append({"unique_id": "z", "state_change": True}),
        "clip 'z': the annotations have no such clip",
    ),
    ("oscc", lambda c: c.append(c[0]), "clip 'u1': it is given twice"),
    ("oscc", lambda c: c[1].update(state_change=1), "clip 'u2': state_change is 1, expected true or false"),
    ("oscc", lambda c: c[1].update(state_change="true"), "clip 'u2': state_change is 'true', expected true or false"),
    ("oscc", lambda c: c[1].update(state_change=None), "clip 'u2': state_change is None, expected true or false"),
    ("oscc", lambda c: c[1].pop("state_change"), "clip 'u2': state_change is missing"),
    ("oscc", lambda c: c[1].pop("unique_id"), "entry 1: unique_id is None, expected a name"),
    ("oscc", lambda c: c[1].update(unique_id=7), "entry 1: unique_id is 7, expected a name"),
    ("oscc", lambda c: c.insert(0, "u1"), "entry 0: it is 'u1', expected an object with unique_id and state_change"),
    ("oscc", lambda c: c.insert(0, [[[1]]]), "entry 0: it is a list, expected an object"),
    ("pnr", lambda c: c[2].update(pnr_frame=240.5), "clip 'u3': pnr_frame is 240.5, expected 0 to 240: it counts from"),
    ("pnr", lambda c: c[2].update(pnr_frame=-1), "clip 'u3': pnr_frame is -1, expected 0 to 240"),
    ("pnr", lambda c: c[2].update(pnr_frame=float("nan")), "clip 'u3': pnr_frame is nan, expected a finite number"),
    ("pnr", lambda c: c[2].update(pnr_frame=float("-inf")), "clip 'u3': pnr_frame is -inf, expected a finite number"),
    ("pnr", lambda c: c[2].update(pnr_frame=10**400), "clip 'u3': pnr_frame is 1000"),
    ("pnr", lambda c: c[2].update(pnr_frame="100"), "clip 'u3': pnr_frame is '100', expected a finite number"),
    ("pnr", lambda c: c[2].update(pnr_frame=True), "clip 'u3': pnr_frame is True, expected a finite number"),
    ("pnr", lambda c: c[2].update(pnr_frame=[100]), "clip 'u3': pnr_frame is a list, expected a finite number"),
    ("lta", lambda c: c.pop("c1_4"), "window 'c1_4': it is missing"),
    ("lta", lambda c: c.update({"c1_5": c["c1_4"]}), "window 'c1_5': the annotations have no such window"),
    ("lta", lambda c: c.update({"c1_4": []}), "window 'c1_4': it is a list, expected an object with verb and noun"),
    ("lta", lambda c: c["c1_4"].pop("noun"), "window 'c1_4': noun is missing"),
    ("lta", lambda c: c["c1_4"]["verb"].pop(), "'c1_4': verb is 4 sequences, expected a list of 5 sequences"),
    ("lta", lambda c: c["c1_4"].update(verb=3), "window 'c1_4': verb is 3, expected a list of 5 sequences"),
    ("lta", lambda c: c["c1_4"]["verb"][2].pop(), "sequence 2 of verb is 19 actions, expected a list of 20 classes"),
    ("lta", lambda c: c["c1_4"]["noun"].__setitem__(1, {}), "sequence 1 of noun is an object, expected a list of 20"),
    ("lta", lambda c: c["c1_4"]["verb"][2].__setitem__(7, 115), "verb 7 of sequence 2 is 115, expected a class, a who"),
    ("lta", lambda c: c["c1_4"]["noun"][0].__setitem__(0, -1), "noun 0 of sequence 0 is -1, expected a class, a whol"),
    ("lta", lambda c: c["c1_4"]["noun"][0].__setitem__(0, 1.0), "noun 0 of sequence 0 is 1.0, expected a class"),
    ("lta", lambda c: c["c1_4"]["noun"][0].__setitem__(0, True), "noun 0 of sequence 0 is True, expected a class"),
    ("lta", lambda c: c["c1_4"]["noun"][0].__setitem__(0, 10**400), "noun 0 of sequence 0 is 1000"),
    ("lta", lambda c: c["c1_4"]["noun"][0].__setitem__(0, float("nan")), "noun 0 of sequence 0 is nan"),
]


@pytest.mark.parametrize(("kind", "change", "expected"), FAULTS, ids=[f"{kind} {text}" for kind, _, text in FAULTS])
def test_each_fault_is_named_with_its_clip_or_window(
    tmp_path: Path, kind: str, change: Callable[[Any], Any], expected: str
) -> None:
    content = content_of(kind)
    path = saved(tmp_path / "x.json", content)
    READ[kind](path)  # right before the change
    content = copy.deepcopy(content)
    change(content)
    faults = faults_of(lambda: READ[kind](saved(path, content)))
    assert expected in faults[0]
    assert all(line.startswith(f"{path}, ") for line in faults)
    assert len(faults) == 1 + (faults[0].startswith(f"{path}, entry 1"))  # without its id, that clip is missing, too


@pytest.mark.parametrize("kind", READ)
def test_a_key_that_is_given_twice_is_named(tmp_path: Path, kind: str) -> None:
    text = json.dumps(content_of(kind))
    doubled = {
        "oscc": text.replace('"unique_id": "u2"', '"unique_id": "u9", "unique_id": "u2"'),
        "pnr": text.replace('"unique_id": "u2"', '"pnr_frame": 1, "unique_id": "u2"'),
        "lta": text.replace('"c1_4": {', '"c1_4": {"noun": [], '),
    }[kind]
    (fault, *_) = faults_of(lambda: READ[kind](saved(tmp_path / "x.json", doubled)))
    assert "is given twice" in fault
    twice = text.replace('"u2"', '"u1"').replace('"c1_4"', '"c1_3"')
    first, second = faults_of(lambda: READ[kind](saved(tmp_path / "x.json", twice)))
    assert "it is given twice" in first
    assert "it is missing" in second


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text[: len(text) // 2], "not readable as json"),
        (lambda text: text + "]", "text after the end"),
        (lambda text: "", "not readable as json"),
        (lambda text: "3", "must be a json"),
        (lambda text: "[" * 200_000, "not readable as json"),
        (lambda text: ("[" if text[0] == "[" else '{"c1_3":') + "[" * 200_000, "nested too deeply"),
        (lambda text: "{}" if text[0] == "[" else "[]", "must be a json"),
    ],
)
def test_a_file_of_another_form_is_named(tmp_path: Path, kind: str, damage: Callable[[str], str], reason: str) -> None:
    path = saved(tmp_path / "x.json", damage(json.dumps(content_of(kind))))
    (fault,) = faults_of(lambda: READ[kind](path))
    assert reason in fault
    assert str(path) in fault


@pytest.mark.parametrize("kind", READ)
def test_bytes_that_are_no_text_are_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(json.dumps(content_of(kind)).encode().replace(b"u2", b"u\xff").replace(b"c1_4", b"c\xff_4"))
    (fault,) = faults_of(lambda: READ[kind](path))
    assert fault == f"{path}: not readable as json (not UTF-8)"


def test_names_of_control_characters_are_shown_escaped(tmp_path: Path) -> None:
    content = [*content_of("oscc"), {"unique_id": "\x1b[31m", "state_change": True}]
    (fault,) = faults_of(lambda: READ["oscc"](saved(tmp_path / "x.json", content)))
    assert "entry 3: unique_id is '\\x1b[31m', with characters that no name has" in fault
    windows = content_of("lta") | {"\x1b[31m_1": {}}
    (fault,) = faults_of(lambda: READ["lta"](saved(tmp_path / "x.json", windows)))
    assert "window '\\x1b[31m_1'" in fault


def test_other_fields_are_ignored_and_told(tmp_path: Path) -> None:
    content = [row | {"score": 0.5} for row in content_of("oscc")]
    read = read_state_change_submission(saved(tmp_path / "x.json", content), IDS)
    assert read.notes == (f"{tmp_path / 'x.json'}: clips have 'score', which is ignored",)
    windows = {name: row | {"action": []} for name, row in content_of("lta").items()}
    path = saved(tmp_path / "y.json", windows)
    notes = read_anticipation_submission(path, WINDOWS, num_verbs=NUM_VERBS, num_nouns=NUM_NOUNS).notes
    assert notes == (f"{path}: windows have 'action', which is ignored",)


def test_clips_without_a_change_need_no_frame_and_what_is_there_is_checked(tmp_path: Path) -> None:
    content = content_of("pnr")
    path = saved(tmp_path / "x.json", content[:2])
    frames = read_keyframe_submission(path, NUM_FRAMES, optional={"u3"}).pnr_frames
    np.testing.assert_array_equal(frames, [100.5, 101.5, np.nan])
    (fault,) = faults_of(lambda: read_keyframe_submission(path, NUM_FRAMES, optional={"u1"}))
    assert "clip 'u3': it is missing" in fault
    saved(path, [*content[:2], {"unique_id": "u3", "pnr_frame": 500}])
    (fault,) = faults_of(lambda: read_keyframe_submission(path, NUM_FRAMES, optional={"u3"}))
    assert "clip 'u3': pnr_frame is 500, expected 0 to 240" in fault


def test_of_many_faults_a_thousand_are_named_and_the_others_counted(tmp_path: Path) -> None:
    names = [f"u{number}" for number in range(30_000)]
    path = tmp_path / "x.json"
    with path.open("w") as file:
        file.write("[" + ",".join(f'{{"unique_id": "{name}", "state_change": 1}}' for name in names) + "]")
    faults = faults_of(lambda: read_state_change_submission(path, names))
    assert len(faults) == 1001
    assert faults[-1] == f"{path}: 29000 more rows of this kind"


def test_a_repeated_key_is_found_however_deep_it_is() -> None:
    tree: Any = RepeatedKey()
    tree.key = "a"
    for _ in range(10_000):
        tree = [tree]
    assert repeated_key(tree) == "a"
    assert repeated_key({"a": [{"b": 1}, []]}) is None
