"""Submissions to Ego4D's challenges scored against annotations: by hand, by the reference, and as the tasks are."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earmark.datasets import DatasetError, Ego4D, anticipation_windows
from earmark.evaluation import metrics
from earmark.evaluation.challenges import CHALLENGES, score_submission
from earmark.evaluation.ego4d_submissions import (
    write_anticipation_submission,
    write_keyframe_submission,
    write_state_change_submission,
)
from earmark.evaluation.submission_files import SubmissionError, read_challenge
from tests.helpers.ego4d_files import Row, action, change, video, write_ego4d

VERBS, NOUNS = [f"verb {number}" for number in range(7)], [f"noun {number}" for number in range(9)]


def write_changes(folder: Path, *, version: str = "v2", split: str = "val", rows: Sequence[Row] | None = None) -> Path:
    """Four clips of 240 frames, two with a change (at frames 100 and 30 of the clip). Return the file."""
    without = {"state_change": False, "parent_pnr_frame": None, "clip_pnr_frame": None}
    made = [
        change("u1"),
        change("u2", parent_start_frame=630, parent_end_frame=870, **without),
        change("u3", "v2", parent_pnr_frame=630, clip_pnr_frame=330),
        change("u4", "v2", parent_start_frame=630, parent_end_frame=870, **without),
    ]
    videos = [video("v1"), video("v2", video_metadata={"fps": 60.0})]
    write_ego4d(folder, videos=videos, changes={split: made if rows is None else rows}, version=version)
    return folder / version / f"annotations/fho_oscc-pnr_{split}.json"


def write_actions(folder: Path, rows: Sequence[Row], *, split: str = "val", version: str = "v2") -> Path:
    write_ego4d(folder, videos=[video("v1"), video("v2")], actions={split: rows}, version=version)
    below = folder / version / "annotations"
    (below / "fho_lta_taxonomy.json").write_text(json.dumps({"verbs": VERBS, "nouns": NOUNS}))
    return below / f"fho_lta_{split}.json"


def drawn_actions(*, seed: int = 0, clips: Mapping[str, int] | None = None, classes: int = 2) -> list[Row]:
    """Actions of clips with a few classes each, out of order, with holes in their indices."""
    draw = np.random.default_rng(seed)
    rows = []
    for clip_uid, number in ({"c1": 30, "c_2": 26, "c3": 10} if clips is None else clips).items():
        for index in draw.permutation(np.arange(number) * 3).tolist():
            labels = {"verb_label": int(draw.integers(classes)), "noun_label": int(draw.integers(classes + 1))}
            rows.append(action(clip_uid, index, action_clip_start_sec=1.0, action_clip_end_sec=2.0, **labels))
    return rows


def window_ids(folder: Path, num_seen: int, split: str = "validation", version: str | None = None) -> list[str]:
    coming = 0 if split == "test" else 20
    clips = Ego4D(folder, version=version).anticipation_clips(split)
    return [
        window.window_id
        for clip in clips
        for window in anticipation_windows(clip, num_seen=num_seen, num_coming=coming)
    ]


def sequences(number: int, num_classes: int, *, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(num_classes, size=(number, 5, 20))


def write_sequences(path: Path, names: Sequence[str], *, num_verbs: int = 7, num_nouns: int = 9) -> None:
    verbs, nouns = sequences(len(names), num_verbs), sequences(len(names), num_nouns, seed=1)
    write_anticipation_submission(path, names, verbs, nouns)


# --- numbers ---


def test_state_changes_by_hand_beside_the_majority(tmp_path: Path) -> None:
    source = write_changes(tmp_path)
    file = tmp_path / "x.json"
    write_state_change_submission(file, ["u4", "u1", "u2", "u3"], [True, True, False, True])
    score = score_submission(file, tmp_path)
    assert (score.challenge, score.annotations, score.metrics) == ("ego4d_oscc", source, {"accuracy": 75.0})
    assert score.counts == {"clips": 4, "with_a_change": 2, "not_scored": 0}
    assert (score.majority, score.majority_source) == ({"accuracy": 50.0}, source)
    rows = [change(f"t{number}") for number in range(3)]
    train = write_changes(tmp_path, split="train", rows=[*rows, change("t9", state_change=False)])
    assert score_submission(file, tmp_path).majority_source == train
    (tmp_path / "v2/annotations/fho_oscc-pnr_val.json").write_text(json.dumps([change("u1"), change("u2")]))
    write_state_change_submission(file, ["u1", "u2"], [False, True])
    assert score_submission(file, source).metrics == {"accuracy": 50.0}
    assert score_submission(file, source).majority == {"accuracy": 100.0}  # that of training: a change


def test_points_of_no_return_by_hand_beside_the_centre_frame(tmp_path: Path) -> None:
    write_changes(tmp_path)
    file = tmp_path / "x.json"
    write_keyframe_submission(file, ["u3", "u1"], [60, 40.0])  # 30 frames off at 60 a second, 60 at 30
    score = score_submission(file, tmp_path)
    assert score.challenge == "ego4d_pnr"
    assert score.metrics == {"error_seconds": pytest.approx((0.5 + 2.0) / 2)}
    assert score.baselines == {"centre frame": {"error_seconds": pytest.approx((20 / 30 + 90 / 60) / 2)}}
    assert score.counts == {"clips": 4, "with_a_change": 2, "not_scored": 0}
    write_keyframe_submission(file, ["u1", "u2", "u3", "u4"], [40.0, 0, 60, 240])  # of the others, nothing counts
    assert score_submission(file, tmp_path).metrics == score.metrics
    write_keyframe_submission(file, ["u1", "u2", "u4"], [40.0, 0, 60])
    with pytest.raises(SubmissionError, match="clip 'u3': it is missing"):
        score_submission(file, tmp_path)


def test_without_the_manifest_the_clips_own_frames_and_seconds_count(tmp_path: Path) -> None:
    write_changes(tmp_path)
    file = tmp_path / "x.json"
    write_keyframe_submission(file, ["u3", "u1"], [60, 40.0])
    (tmp_path / "ego4d.json").write_text(json.dumps({"videos": [video("v1")]}))
    partly = score_submission(file, tmp_path)
    assert partly.metrics == {"error_seconds": pytest.approx((1.0 + 2.0) / 2)}
    assert any("ego4d.json: no frames a second of 1 video" in note for note in partly.notes)
    (tmp_path / "ego4d.json").unlink()
    score = score_submission(file, tmp_path)
    assert score.metrics == partly.metrics  # 240 frames in 8 s
    assert any("there is no ego4d.json above it" in note for note in score.notes)


def test_anticipation_by_hand_beside_the_last_action(tmp_path: Path) -> None:
    labels = [3, *[0] * 10, *[1] * 10]  # one seen, twenty coming: the first ten of class 0
    rows = [action("c1", index, verb_label=label, noun_label=2) for index, label in enumerate(labels)]
    write_actions(tmp_path, rows)
    file = tmp_path / "x.json"
    verbs = np.array([[[0] * 20, [6] * 20, [0] * 9 + [1] * 11, [5] * 20, [4] * 20]])
    nouns = np.full((1, 5, 20), 8)
    nouns[0, 4, :5] = 2
    write_anticipation_submission(file, ["c1_0"], verbs, nouns)
    score = score_submission(file, tmp_path)
    assert score.counts == {"windows": 1, "seen_actions": 1, "not_scored": 0}
    assert score.metrics["verb_ED@20"] == 1 / 20  # the third sequence: one deletion
    assert score.metrics["noun_ED@20"] == 15 / 20
    # Of the pairs, the third sequence has no noun right, the fifth no verb, and the first neither.
    assert score.metrics["action_ED@20"] == 1.0
    assert (
        score.baselines["last action and most frequent classes, each repeated"]["verb_ED@20"] == 0.5
    )  # classes 0 and 1 are the most frequent others
    assert score.majority["noun_ED@20"] == 0.0
    assert score.majority["action_ED@20"] == 0.5


# --- the same as the tasks' own measures ---


@pytest.mark.parametrize("num_seen", [1, 2, 4])
def test_anticipation_scores_as_the_measures_do_on_the_adapters_windows(tmp_path: Path, num_seen: int) -> None:
    write_actions(tmp_path, drawn_actions())
    write_actions(tmp_path, drawn_actions(seed=1), split="train")
    names = window_ids(tmp_path, num_seen)
    assert len(names) == (30 - 20 - num_seen + 1) + (26 - 20 - num_seen + 1)
    verbs, nouns = sequences(len(names), 3), sequences(len(names), 3, seed=1)
    write_anticipation_submission(tmp_path / "x.json", names, verbs, nouns)
    score = score_submission(tmp_path / "x.json", tmp_path)
    assert score.counts == {"windows": len(names), "seen_actions": num_seen, "not_scored": 0}
    clips = Ego4D(tmp_path).anticipation_clips("validation")
    windows = [window for clip in clips for window in anticipation_windows(clip, num_seen=num_seen)]
    for what, given in {"verb": verbs, "noun": nouns, "action": verbs * 100 + nouns}.items():
        predictions = given.transpose(0, 2, 1)
        pairs = [[(each.labels["verb"], each.labels["noun"]) for each in window.coming] for window in windows]
        truth = np.array(pairs) @ {"verb": [1, 0], "noun": [0, 1], "action": [100, 1]}[what]
        assert score.metrics[f"{what}_ED@20"] == metrics.edit_distance(predictions, truth)
        assert score.metrics[f"{what}_AUED"] == metrics.area_under_edit_distance(predictions, truth)


def test_state_changes_and_keyframes_score_as_the_measures_do_on_the_adapters_clips(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    rows = []
    for number in range(60):
        start, fps = int(draw.integers(5000)), (30.0, 24.0)[number % 2]
        span = {"parent_start_frame": start, "parent_end_frame": start + 8 * int(fps)}
        span |= {"parent_start_sec": start / fps, "parent_end_sec": start / fps + 8}
        pnr = {"parent_pnr_frame": start + int(draw.integers(8 * int(fps)))} if number % 3 else {"state_change": False}
        rows.append(change(f"u{number}", f"v{number % 2 + 1}", clip_start_frame=None, **span, **pnr))
    videos = [video("v1", seconds=1000.0), video("v2", seconds=1000.0, video_metadata={"fps": 24.0})]
    ego4d = write_ego4d(tmp_path, videos=videos, changes={"val": rows})
    records = ego4d.state_changes("validation")
    names = [record.unique_id for record in records]
    logits = draw.normal(size=(60, 2))
    file = tmp_path / "x.json"
    write_state_change_submission(file, names, logits.argmax(axis=1) == 1)
    truth = np.array([int(bool(record.state_change)) for record in records])
    accuracy = score_submission(file, tmp_path).metrics["accuracy"]
    assert accuracy == 100 * metrics.state_change_accuracy(logits, truth)
    starts = np.array([record.start_frame for record in records])
    lengths = np.array([record.stop_frame - record.start_frame for record in records])
    shown = starts[:, None] + (np.linspace(0, 0.95, 16) * lengths[:, None]).astype(int)
    scores = draw.normal(size=(60, 16))
    write_keyframe_submission(file, names, (shown - starts[:, None])[np.arange(60), scores.argmax(axis=1)])
    error = metrics.mean_keyframe_error_seconds(
        metrics.keyframe_error_seconds(
            scores,
            pnr_frame=[record.pnr_frame or 0 for record in records],
            fps=[record.fps for record in records],
            state_change=truth,
            sampled_frames=shown,
        )
    )
    assert score_submission(file, tmp_path).metrics["error_seconds"] == error


def test_the_reference_sequences_score_as_the_official_code_says(tmp_path: Path, reference: Path) -> None:
    with np.load(reference / "metrics.npz") as file:
        given, coming = file["lta__small__preds"].transpose(0, 2, 1), file["lta__small__labels"]
        distance, area = float(file["lta__small__edit_distance"]), float(file["lta__small__AUED"])
    rows = [
        action(f"c{clip}", index, verb_label=int(label), noun_label=int(label))
        for clip, labels in enumerate(coming)
        for index, label in enumerate([0, *labels])
    ]
    source = write_actions(tmp_path, rows)
    classes = [f"class {number}" for number in range(int(max(given.max(), coming.max())) + 1)]
    source.with_name("fho_lta_taxonomy.json").write_text(json.dumps({"verbs": classes, "nouns": classes}))
    write_anticipation_submission(tmp_path / "x.json", [f"c{clip}_0" for clip in range(len(coming))], given, given)
    found = score_submission(tmp_path / "x.json", source).metrics
    for what in ("verb", "noun", "action"):
        assert found[f"{what}_ED@20"] == pytest.approx(distance, abs=1e-12)
        assert found[f"{what}_AUED"] == pytest.approx(area, abs=1e-12)


def test_the_reference_keyframes_score_as_the_official_code_says(tmp_path: Path, reference: Path) -> None:
    with np.load(reference / "metrics.npz") as file:
        arrays = {name.removeprefix("scod__"): file[name] for name in file.files if name.startswith("scod__")}
    start, end = arrays["clip_start_frame"], arrays["clip_end_frame"]
    changed = arrays["sc_labels"] == 1
    names = [f"u{number}" for number in range(len(start))]
    rows = [
        change(
            name,
            f"v{place}",
            parent_start_frame=int(start[place]),
            parent_end_frame=int(end[place]),
            parent_pnr_frame=int(arrays["pnr_frame"][place]) if changed[place] else None,
            state_change=bool(changed[place]),
        )
        for place, name in enumerate(names)
    ]
    videos = [video(f"v{place}", video_metadata={"fps": float(fps)}) for place, fps in enumerate(arrays["fps"])]
    write_ego4d(tmp_path, videos=videos, changes={"val": rows})
    index = arrays["preds"][..., 0].argmax(axis=1)
    write_keyframe_submission(tmp_path / "x.json", names, (end - start) / 16 * index)
    per_clip = arrays["keyframe_distance_per_sample"][changed]
    found = score_submission(tmp_path / "x.json", tmp_path).metrics["error_seconds"]
    assert found == pytest.approx(per_clip.mean(), rel=1e-6)
    write_state_change_submission(tmp_path / "y.json", names, arrays["sc_preds"].argmax(axis=1) == 1)
    accuracy = score_submission(tmp_path / "y.json", tmp_path).metrics["accuracy"]
    assert accuracy == pytest.approx(100 * float(arrays["state_change_accuracy"]), abs=1e-12)


# --- what a file is, and what it is compared with ---


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([3, {"unique_id": "a"}, {"state_change": True}], "ego4d_oscc"),
        ([{"pnr_frame": 1}], "ego4d_pnr"),
        ({"c_1": 3}, "ego4d_lta"),
        ({"c": {}, "c_12": {}}, "ego4d_lta"),
        ({"challenge": "action_recognition", "c_1": 3}, "action_recognition"),
        ({"results": {"c_1": 3}, "challenge": "x"}, "x"),
    ],
)
def test_the_form_tells_the_challenge(tmp_path: Path, content: Any, expected: str) -> None:
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert read_challenge(tmp_path / "x.json") == expected


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "no entry of this list has state_change or pnr_frame"),
        ([[], 3, {"unique_id": "a"}], "no entry of this list has state_change or pnr_frame"),
        ([{"state_change": True, "pnr_frame": 3}], "entry 0: it has state_change and pnr_frame; a file is for one"),
        ({"c_x": 1, "c": 2, "results": {"c_1": 3}}, "challenge: it is missing, and there is no window of actions"),
        (3, "must be a json object or list"),
        ({"challenge": "y"}, "challenge: it is 'y', expected one of"),
    ],
)
def test_a_file_that_tells_no_challenge_is_refused(tmp_path: Path, content: Any, reason: str) -> None:
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(SubmissionError, match=reason):
        score_submission(tmp_path / "x.json", tmp_path)
    assert {"ego4d_oscc", "ego4d_pnr", "ego4d_lta"} <= CHALLENGES.keys()


def test_of_two_versions_that_is_compared_whose_clips_the_file_has(tmp_path: Path) -> None:
    rows = [change(f"u{number}", state_change=number % 2 == 0) for number in range(6)]
    older, newer = (write_changes(tmp_path, version=version, rows=rows[:n]) for version, n in (("v1", 3), ("v2", 6)))
    file = tmp_path / "x.json"
    for number, source in ((3, older), (6, newer)):
        write_state_change_submission(file, [f"u{each}" for each in range(number)], [True] * number)
        assert score_submission(file, tmp_path).annotations == source
        changed = [f"u{each}" for each in range(0, number, 2)]  # of points of no return the others are not needed
        write_keyframe_submission(file, changed, [0] * len(changed))
        assert score_submission(file, tmp_path).annotations == source
    write_state_change_submission(file, [f"u{each}" for each in range(3)], [True] * 3)
    with pytest.raises(SubmissionError, match="clip 'u3': it is missing"):
        score_submission(file, tmp_path / "v2")
    assert score_submission(file, tmp_path / "v1/annotations").annotations == older
    write_changes(tmp_path, version="v1", rows=rows)
    write_state_change_submission(file, [f"u{each}" for each in range(6)], [True] * 6)
    score = score_submission(file, tmp_path)
    assert score.annotations == newer
    assert score.notes[0] == f"{newer} is compared; {older} has the same clips: name a file to compare with that"


def test_files_for_the_test_split_are_validated_and_not_scored(tmp_path: Path) -> None:
    write_changes(tmp_path)
    held_back = [{k: v for k, v in change(name).items() if "pnr" not in k and k != "state_change"} for name in "ab"]
    source = write_changes(tmp_path, split="test_unannotated", rows=held_back)
    write_actions(tmp_path, drawn_actions())
    write_actions(tmp_path, drawn_actions(clips={"c8": 7, "c9": 4}), split="test_unannotated")
    file = tmp_path / "x.json"
    write_state_change_submission(file, ["a", "b"], [True, False])
    score = score_submission(file, tmp_path)
    assert (score.annotations, score.metrics, score.counts) == (source, {}, {"clips": 2})
    assert score.notes[-1] == (
        f"{source} holds no labels: the file is valid for it, and can be scored by the challenge's server only"
    )
    write_keyframe_submission(file, ["a", "b"], [1, 240])
    assert score_submission(file, tmp_path).counts == {"clips": 2}
    write_keyframe_submission(file, ["a"], [1])
    with pytest.raises(SubmissionError, match="clip 'b': it is missing"):
        score_submission(file, tmp_path)
    names = window_ids(tmp_path, 4, "test")
    assert len(names) == 4 + 1
    write_sequences(file, names)
    score = score_submission(file, tmp_path)
    assert (score.metrics, score.counts) == ({}, {"windows": 5, "seen_actions": 4})
    write_sequences(file, names[1:])
    with pytest.raises(SubmissionError, match=f"window '{names[0]}': it is missing"):
        score_submission(file, tmp_path)


def test_labels_of_a_file_of_the_test_split_are_not_read(tmp_path: Path) -> None:
    write_actions(tmp_path, drawn_actions(clips={"c9": 24}), split="test_unannotated")
    write_sequences(tmp_path / "x.json", window_ids(tmp_path, 4, "test"))
    assert score_submission(tmp_path / "x.json", tmp_path).counts == {"windows": 21, "seen_actions": 4}


@pytest.mark.parametrize("num_seen", [1, 2, 4, 6])
def test_the_number_of_seen_actions_is_that_which_fits_the_windows_best(tmp_path: Path, num_seen: int) -> None:
    write_actions(tmp_path, drawn_actions())
    names = window_ids(tmp_path, num_seen)
    file = tmp_path / "x.json"
    write_sequences(file, [*names[1:], "c3_0"])  # the first is missing, the last is no window at all
    with pytest.raises(SubmissionError) as caught:
        score_submission(file, tmp_path)
    assert [fault.partition(", ")[2] for fault in caught.value.faults] == [
        "window 'c3_0': the annotations have no such window",
        f"window '{names[0]}': it is missing",
    ]


def test_a_file_of_other_clips_than_those_at_hand_is_refused(tmp_path: Path) -> None:
    source = write_changes(tmp_path)
    file = tmp_path / "x.json"
    write_state_change_submission(file, ["a", "b"], [True, False])
    with pytest.raises(SubmissionError) as caught:
        score_submission(file, tmp_path)
    absent = "fho_oscc-pnr_test_unannotated.json is not there"
    assert str(caught.value) == f"{file}: none of its 2 clips is in {source}, and {absent}"
    write_sequences(file, ["c1_0"])
    with pytest.raises(DatasetError, match=r"none of the annotation files fho_lta_val\.json, .* found"):
        score_submission(file, tmp_path)
    with pytest.raises(DatasetError, match="no such file or folder"):
        score_submission(file, tmp_path / "nowhere")
    actions = write_actions(tmp_path, drawn_actions())
    write_sequences(file, window_ids(tmp_path, 4))
    actions.with_name("fho_lta_taxonomy.json").unlink()
    with pytest.raises(DatasetError, match=r"fho_lta_taxonomy\.json: not a readable json file"):
        score_submission(file, tmp_path)


# --- damaged annotations ---


def test_clips_whose_label_is_damaged_are_named_and_the_others_scored(tmp_path: Path) -> None:
    rows = [change("u1"), change("u2", state_change="yes"), change("u1"), {"unique_id": 3}, change("u5")]
    write_changes(tmp_path, rows=rows)
    file = tmp_path / "x.json"
    write_state_change_submission(file, ["u1", "u2", "u5"], [True, False, False])
    score = score_submission(file, tmp_path)
    assert score.metrics == {"accuracy": 50.0}
    assert score.counts == {"clips": 3, "with_a_change": 2, "not_scored": 1}
    assert [note.partition("json, ")[2] for note in score.notes] == [
        "clips[1]: state_change is 'yes', expected true or false",
        "clips[2]: unique_id u1 is listed twice",
        "clips[3]: unique_id is 3, expected a name",
    ]
    write_changes(tmp_path, rows=[change(name, state_change=1) for name in ("u1", "u2", "u5")])
    with pytest.raises(DatasetError, match="it has no clip with a label"):
        score_submission(file, tmp_path)


def test_a_point_of_no_return_outside_its_clip_is_named_and_not_scored(tmp_path: Path) -> None:
    rows = [change("u1"), change("u2", parent_pnr_frame=5000), change("u3", parent_start_sec=None)]
    short = change("u4", parent_end_frame=610, parent_pnr_frame=605, clip_pnr_frame=305)  # no 16 frames, but a label
    write_changes(tmp_path, rows=[*rows, short])
    file = tmp_path / "x.json"
    write_keyframe_submission(file, ["u1", "u2", "u4"], [70, 3, 8])
    score = score_submission(file, tmp_path)
    assert score.metrics == {"error_seconds": pytest.approx((1.0 + 0.1) / 2)}
    assert score.counts == {"clips": 4, "with_a_change": 4, "not_scored": 2}
    assert [note.partition("json, ")[2][:49] for note in score.notes] == [
        "clips[1]: the point of no return at frame 5000 is",
        "clips[2]: parent_start_sec is None, expected a nu",
    ]
    write_state_change_submission(file, ["u1", "u2", "u3", "u4"], [True] * 4)
    assert score_submission(file, tmp_path).metrics == {"accuracy": 100.0}


@pytest.mark.parametrize(
    ("bad", "num_scored"),
    [
        ({"action_idx": 7, "verb_label": 7}, 0),  # each of the windows that end at 3 to 8 holds it
        ({"action_idx": 26}, 3),  # listed twice; the windows that end at 6 to 8 hold it
        ({"action_idx": 28, "noun_label": None}, 5),
        ({"action_idx": "7"}, 0),  # it may be anywhere
    ],
)
def test_windows_with_an_action_that_is_damaged_are_not_scored_as_the_adapter_leaves_them_out(
    tmp_path: Path, bad: Row, num_scored: int
) -> None:
    rows = [action("c1", index) for index in range(29)]
    damaged = action("c1", 0) | bad
    if bad != {"action_idx": 26}:
        rows = [row for row in rows if str(row["action_idx"]) != str(damaged["action_idx"])]
    source = write_actions(tmp_path, [*rows, damaged, *drawn_actions(clips={"c2": 30})])
    kept = [name for name in window_ids(tmp_path, 4) if name.startswith("c1_")]
    assert len(kept) == num_scored
    order = sorted({row["action_idx"] for row in rows} | ({bad["action_idx"]} - {"7"}))
    names = [f"c1_{index}" for index in order[3 : len(order) - 20]]
    others = [name for name in window_ids(tmp_path, 4) if name.startswith("c2_")]
    write_sequences(tmp_path / "x.json", [*names, *others])
    score = score_submission(tmp_path / "x.json", tmp_path)
    assert score.counts["seen_actions"] == 4
    assert score.counts["windows"] - score.counts["not_scored"] == len(kept) + len(others)
    assert any(f"{source}, clips[{len(rows)}]: " in note for note in score.notes)


def test_annotations_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    source = write_changes(tmp_path)
    file = tmp_path / "x.json"
    write_state_change_submission(file, ["u1"], [True])
    for text in ("{", '{"clips": 3}', '[3, "a"]'):
        source.write_text(text)
        with pytest.raises(DatasetError, match=r"fho_oscc-pnr_val\.json"):
            score_submission(file, source)
