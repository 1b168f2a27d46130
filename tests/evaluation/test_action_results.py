"""Accuracies of verbs, nouns and actions: the official ones to the digit, and those of the parts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earmark.datasets import EpicKitchens, EpicSubset
from earmark.datasets.records import ActionRecord
from earmark.evaluation import ProbeAnswers
from earmark.evaluation.action_parts import action_parts
from earmark.evaluation.action_results import ColumnResult, measure_actions
from earmark.evaluation.epic_metrics import ActionLabels, majority_answers, rank_actions, recognition_accuracies

NAMES = {"verb": [f"v{number}" for number in range(7)], "noun": [f"n{number}" for number in range(11)]}


def made_answers(seed: int, num_actions: int = 80) -> ProbeAnswers:
    """Scores with many ties."""
    rng = np.random.default_rng(seed)
    scores = {name: rng.integers(0, 4, size=(num_actions, len(of))).astype(np.float32) for name, of in NAMES.items()}
    return ProbeAnswers(scores, {"verb": {"lr": float(seed)}, "noun": {"lr": 0.5}})


def made_labels(seed: int, num_actions: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.integers(0, len(of) - 1, size=num_actions) for name, of in NAMES.items()}


def made_parts(labels: dict[str, np.ndarray]) -> tuple[ActionLabels, dict[str, Any]]:
    unseen = np.random.default_rng(5).random(len(labels["verb"])) < 0.3
    tail = {"verb": np.isin(labels["verb"], [2, 5]), "noun": np.isin(labels["noun"], [1, 3, 4])}
    official = ActionLabels(labels["verb"], labels["noun"], unseen, tail["verb"], tail["noun"])
    either = tail["verb"] | tail["noun"]
    parts = {
        "unseen participants": dict.fromkeys(("verb", "noun", "action"), unseen),
        "tail classes": tail | {"action": either},
    }
    return official, parts


def numbers(columns: tuple[ColumnResult, ...], of: str = "encoder") -> dict[str, float]:
    """The numbers under their official names."""
    parts = {"unseen participants": "unseen", "tail classes": "tail"}
    found = {}
    for column in columns:
        for score in (column.top1, column.top5):
            found[f"all_{column.column}_accuracy_at_{score.k}"] = getattr(score, of).value
        for part in column.parts:
            found[f"{parts[part.name]}_{column.column}_accuracy_at_1"] = getattr(part.top1, of).value
    return found


def test_the_numbers_are_those_of_the_challenge_to_the_digit() -> None:
    train, test = made_labels(0, 300), made_labels(1, 80)
    official, parts = made_parts(test)
    answers, baseline = made_answers(2), made_answers(3)
    columns = measure_actions(
        [answers], [baseline], class_names=NAMES, train_labels=train, test_labels=test, parts=parts
    )
    for of, given in (("encoder", answers), ("baseline", baseline)):
        ranked = rank_actions(given.scores["verb"], given.scores["noun"])
        assert numbers(columns, of) == recognition_accuracies(ranked, official)
    assert numbers(columns, "majority") == recognition_accuracies(
        majority_answers(train["verb"], train["noun"], num_segments=80), official
    )
    verb, noun, action = columns
    assert (action.num_classes, action.top5.chance) == (77, pytest.approx(500 / 77))
    assert (verb.chosen, action.chosen) == (({"lr": 2.0},), ())
    assert [part.num_test_actions for part in noun.parts] == [int(official.unseen.sum()), int(official.tail_noun.sum())]
    assert sum(entry.num_actions for entry in action.classes) == 80
    assert action.classes[0].name.split()[0] in NAMES["verb"]
    rows = [row.label for column in columns for row in column.rows()]
    assert rows[:4] == ["verb top-1", "verb top-5", "verb top-1, unseen participants", "verb top-1, tail classes"]
    assert rows[8:10] == ["action top-1", "action top-5"]


def test_actions_are_counted_where_verb_and_noun_are_known_by_a_slow_loop() -> None:
    """With unlabelled actions, videos and two seeds."""
    train, test = made_labels(0, 300), made_labels(1, 80)
    test["verb"][::7], test["noun"][::5] = -1, -1
    answers = [made_answers(2), made_answers(4)]
    videos = [f"video {number % 9}" for number in range(80)]
    verb, _, action = measure_actions(
        answers, [], class_names=NAMES, train_labels=train, test_labels=test, test_videos=videos
    )
    right = {"verb": [], "action": []}  # type: ignore[var-annotated]
    for of in answers:
        for name in right:
            right[name].append(0)
        for row in range(80):
            best = {}
            for column in NAMES:
                scores = of.scores[column][row]
                best[column] = max(range(len(scores)), key=lambda number: (scores[number], number))
            right["verb"][-1] += test["verb"][row] == best["verb"] != -1
            known = test["verb"][row] != -1 and test["noun"][row] != -1
            right["action"][-1] += known and all(best[column] == test[column][row] for column in NAMES)
    num_known = sum(test["verb"][row] != -1 and test["noun"][row] != -1 for row in range(80))
    assert action.num_test_actions == num_known < verb.num_test_actions == int((test["verb"] != -1).sum())
    assert action.top1.per_seed == tuple(pytest.approx(100 * count / num_known) for count in right["action"])
    assert verb.top1.per_seed == tuple(pytest.approx(100 * n / verb.num_test_actions) for n in right["verb"])
    assert (verb.num_test_videos, verb.parts) == (9, ())


def test_means_over_batches_are_those_of_a_slow_loop() -> None:
    """80 actions in batches of 32: the last 16 count twice as much as each of the others."""
    train, test = made_labels(0, 300), made_labels(1, 80)
    answers, baseline = made_answers(2), made_answers(3)
    verb, noun, action = measure_actions(
        [answers], [baseline], class_names=NAMES, train_labels=train, test_labels=test, batch_size=32
    )
    for of, given in (("encoder", answers), ("baseline", baseline)):
        ranked = rank_actions(given.scores["verb"], given.scores["noun"]).of_task
        for column in (verb, noun):
            for score in (column.top1, column.top5):
                right = [
                    truth in classes[: score.k]
                    for truth, classes in zip(test[column.column], ranked[column.column], strict=True)
                ]
                means = [np.mean(right[start : start + 32]) for start in (0, 32, 64)]
                assert getattr(score, of).value == pytest.approx(100 * np.mean(means), abs=1e-9)
                assert getattr(score, of).low <= getattr(score, of).value <= getattr(score, of).high
    plain = measure_actions([answers], [baseline], class_names=NAMES, train_labels=train, test_labels=test)
    assert plain[0].top5.baseline != verb.top5.baseline
    assert plain[0].classes == verb.classes
    assert action.num_test_actions == 80


def test_other_label_columns_have_no_action() -> None:
    scores = np.eye(4, dtype=np.float32)[[0, 1, 2, 2]]
    (column,) = measure_actions(
        [ProbeAnswers({"label": scores}, {})],
        [],
        class_names={"label": ["a", "b", "c", "d"]},
        train_labels={"label": np.array([3, 3, 1, 1, 0])},
        test_labels={"label": np.array([0, 1, 2, 1])},
    )
    assert column.top1.encoder.value == 75.0
    assert column.top1.majority.value == 50.0  # of equally frequent classes the first
    with pytest.raises(ValueError, match="scores of segment 0 are not all finite"):
        measure_actions(
            [ProbeAnswers({"label": np.full((4, 4), np.nan, np.float32)}, {})],
            [],
            class_names={"label": ["a", "b", "c", "d"]},
            train_labels={"label": np.array([3])},
            test_labels={"label": np.array([0, 1, 2, 1])},
        )


def epic_folder(root: Path, *, lists: bool = True) -> EpicKitchens:
    columns = "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,verb_class,noun_class"
    for split in ("train", "validation"):
        (root / f"EPIC_100_{split}.csv").write_text(f"{columns}\nP01_{split}_0,P01,P01_{split},0:0:0,0:0:1,0,0\n")
    for kind in ("verb", "noun"):
        (root / f"EPIC_100_{kind}_classes.csv").write_text("id,key\n0,a\n1,b\n2,c\n")
        if lists:
            (root / f"EPIC_100_tail_{kind}s.csv").write_text(f"{kind}\n{1 if kind == 'verb' else 2}\n")
    if lists:
        (root / "EPIC_100_unseen_participant_ids_validation.csv").write_text("participant_id\nP02\n")
    return EpicKitchens(root)


def test_parts_are_those_of_the_official_lists(tmp_path: Path) -> None:
    epic = epic_folder(tmp_path)
    actions = [
        ActionRecord(str(number), "v", 0, 1, participant, {"verb": verb, "noun": noun})
        for number, (participant, verb, noun) in enumerate([("P01", 1, 0), ("P02", 0, 2), ("P02", 0, 1), ("P01", 1, 2)])
    ]
    parts = action_parts(epic, actions, "validation")
    assert {name: {column: mask.astype(int).tolist() for column, mask in of.items()} for name, of in parts.items()} == {
        "unseen participants": {column: [0, 1, 1, 0] for column in ("verb", "noun", "action")},
        "tail classes": {"verb": [1, 0, 0, 1], "noun": [0, 1, 0, 1], "action": [1, 1, 0, 1]},
    }
    assert list(action_parts(epic, actions, "train")) == ["tail classes"]
    (tmp_path / "EPIC_100_tail_nouns.csv").unlink()
    assert list(action_parts(epic, actions, "validation")) == ["unseen participants"]
    (tmp_path / "other").mkdir()
    assert action_parts(epic_folder(tmp_path / "other", lists=False), actions, "validation") == {}
    assert action_parts(EpicSubset(epic, "unseen_participants"), actions, "validation") == {}


def test_parts_and_majority_of_the_official_validation_split(annotations: Path) -> None:
    """The counts that the challenge names, and the shares of its most frequent classes."""
    epic = EpicKitchens(annotations / "epic100")
    actions = epic.actions("validation")
    labels = {column: np.array([action.labels[column] for action in actions]) for column in ("verb", "noun")}
    rng = np.random.default_rng(0)
    answers = ProbeAnswers({column: rng.random((9668, len(epic.classes[column]))) for column in labels}, {})  # type: ignore[arg-type]
    columns = measure_actions(
        [answers],
        [],
        class_names=epic.classes,
        train_labels=labels,
        test_labels=labels,
        test_videos=[action.video_id for action in actions],
        parts=action_parts(epic, actions, "validation"),
    )
    counts = {(column.column, part.name): part.num_test_actions for column in columns for part in column.parts}
    assert {counts[column, "unseen participants"] for column in ("verb", "noun", "action")} == {1065}
    assert (counts["verb", "tail classes"], counts["noun", "tail classes"]) == (1760, 1900)
    verb, noun, action = columns
    majority = [score.majority.value for score in (verb.top1, noun.top1, verb.top5, noun.top5)]
    assert [round(value, 2) for value in majority] == [20.04, 4.45, 64.18, 18.81]
    assert (action.num_classes, action.num_test_actions, action.num_test_videos) == (29100, 9668, 138)
