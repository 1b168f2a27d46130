"""The parts of the validation actions of EPIC-KITCHENS-100 that are judged by themselves."""

from pathlib import Path

import pytest

from earmark.datasets import DatasetError, EpicKitchens, EpicSubset

ROWS = [  # participant, verb, noun
    ("P01", 0, 0),
    ("P01", 1, 0),
    ("P02", 0, 1),
    ("P02", 1, 1),
]


@pytest.fixture
def epic(tmp_path: Path) -> EpicKitchens:
    header = "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,verb_class,noun_class\n"
    for split, number in (("train", 1), ("validation", 2)):
        lines = [
            f"{name}_{number:02d}_{i},{name},{name}_{number:02d},00:00:0{i}.00,00:00:0{i + 1}.00,{verb},{noun}\n"
            for i, (name, verb, noun) in enumerate(ROWS)
        ]
        (tmp_path / f"EPIC_100_{split}.csv").write_text(header + "".join(lines))
    (tmp_path / "EPIC_100_verb_classes.csv").write_text("id,key\n0,take\n1,peel\n")
    (tmp_path / "EPIC_100_noun_classes.csv").write_text("id,key\n0,tap\n1,kiwi\n")
    (tmp_path / "EPIC_100_tail_verbs.csv").write_text("verb\n1\n")
    (tmp_path / "EPIC_100_tail_nouns.csv").write_text("noun\n1\n")
    (tmp_path / "EPIC_100_unseen_participant_ids_validation.csv").write_text("participant_id\nP02\n")
    return EpicKitchens(tmp_path)


def test_official_lists_select_the_published_counts(annotations: Path) -> None:
    epic = EpicKitchens(annotations / "epic100")
    whole = epic.actions("validation")
    unseen = EpicSubset(epic, "unseen_participants").actions("validation")
    assert len(unseen) == 1065
    assert {action.participant_id for action in unseen} == {"P18", "P32"}
    lists = {label: (annotations / f"epic100/EPIC_100_tail_{label}s.csv").read_text() for label in ("verb", "noun")}
    tail = {label: {int(line) for line in text.split()[1:]} for label, text in lists.items()}
    rare = [[action.labels[label] in classes for label, classes in tail.items()] for action in whole]
    assert [sum(column) for column in zip(*rare, strict=True)] == [1760, 1900]
    either = [action for action, of_tail in zip(whole, rare, strict=True) if any(of_tail)]
    assert EpicSubset(epic, "tail_classes").actions("validation") == either
    not_both = [action for action, of_tail in zip(whole, rare, strict=True) if not all(of_tail)]
    assert EpicSubset(epic, "head_classes").actions("validation") == not_both


@pytest.mark.parametrize(
    ("subset", "kept"),
    [("tail_classes", [1, 2, 3]), ("head_classes", [0, 1, 2]), ("unseen_participants", [2, 3])],
)
def test_a_part_of_the_validation_actions_is_kept_and_all_training_actions(
    epic: EpicKitchens, subset: str, kept: list[int]
) -> None:
    part = EpicSubset(epic, subset)  # type: ignore[arg-type]
    assert part.actions("validation") == [epic.actions("validation")[i] for i in kept]
    assert part.actions("train") == epic.actions("train")
    assert (part.name, part.classes, part.problems) == (epic.name, epic.classes, ())


def test_an_unknown_part_a_missing_list_and_damaged_ones_are_refused_by_name(epic: EpicKitchens) -> None:
    with pytest.raises(DatasetError, match="no subset 'rare'; there are head_classes, tail_classes"):
        EpicSubset(epic, "rare")  # type: ignore[arg-type]
    for text, reason in (
        ("verb\n2\n", "line 2: verb is '2', expected 0 to 1"),
        ("verb\n1.0\n", "line 2: verb is '1.0'"),
        ("noun\n1\n", "column verb is missing"),
    ):
        (epic.base_path / "EPIC_100_tail_verbs.csv").write_text(text)
        with pytest.raises(DatasetError, match=f"EPIC_100_tail_verbs.csv.*{reason}"):
            EpicSubset(epic, "tail_classes")
    (epic.base_path / "EPIC_100_tail_verbs.csv").unlink()
    with pytest.raises(DatasetError, match=r"EPIC_100_tail_verbs\.csv"):
        EpicSubset(epic, "head_classes")


def test_a_part_without_actions_is_refused(epic: EpicKitchens) -> None:
    (epic.base_path / "EPIC_100_unseen_participant_ids_validation.csv").write_text("participant_id\nP09\n")
    with pytest.raises(DatasetError, match="none of 4 validation actions is in the subset unseen_participants"):
        EpicSubset(epic, "unseen_participants").actions("validation")
