"""Published results: every figure is one that can be, and they stand beside official labels only."""

import csv
import dataclasses
import math
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from earmark.evaluation.published_results import PUBLISHED, JudgedLabels, MajorityLine, comparison

EPIC = PUBLISHED["epic_kitchens", "action_recognition"]


def labels_of(counts: list[int], *, num_samples: int, num_classes: int) -> npt.NDArray[np.int64]:
    """Return made-up labels: the first classes with given counts, the others as even a rest as can be."""
    rest, others = num_samples - sum(counts), num_classes - len(counts)
    even = [rest // others + (number < rest % others) for number in range(others)]
    return np.repeat(np.arange(num_classes), [*counts, *even])


def epic_like() -> JudgedLabels:
    """Return labels as many as the official ones, with their majority lines; which class they are of is made up."""
    verbs = labels_of([1067, 1937, 1067, 1067, 1067], num_samples=9668, num_classes=97)
    nouns = labels_of([347, 347, 430, 347, 348], num_samples=9668, num_classes=300)
    return JudgedLabels("validation", 9668, {"verb": verbs, "noun": nouns}, {"verb": 97, "noun": 300})


def test_every_epic_figure_is_a_share_of_2400_segments() -> None:
    assert EPIC.rows[0].name.startswith("majority")
    for row in EPIC.rows[1:]:
        for value in row.values:
            assert value is not None
            assert f"{100 * round(value * 24) / 2400:.2f}" == f"{value:.2f}", f"{row.name}: {value}"
    best = EPIC.rows[-1].values[0]
    assert best == 31.71
    assert 100 * math.sqrt(0.3171 * 0.6829 / 2400) == pytest.approx(0.95, abs=0.005)  # as the page says


def test_every_row_has_a_value_or_none_for_each_measure() -> None:
    for table in PUBLISHED.values():
        assert table.differences
        for row in table.rows:
            assert len(row.values) == len(table.measures), row.name
            assert any(value is not None for value in row.values)
            for measure, value in zip(table.measures, row.values, strict=True):
                assert value is None or value == round(value, measure.decimals) or row.name == "Ego4D's own models"


def test_the_method_is_the_best_of_its_ablations_in_every_measure() -> None:
    worse = []
    for key, table in PUBLISHED.items():
        ours = next(row for row in table.rows if row.name == "RepLAI")
        for row in table.rows:
            if not row.name.startswith("RepLAI "):
                continue
            for measure, theirs, value in zip(table.measures, row.values, ours.values, strict=True):
                assert theirs is not None
                assert value is not None
                if (value <= theirs) == measure.higher_is_better and value != theirs:
                    worse.append((*key, row.name, measure.label))
    assert worse == []


def test_labels_with_the_official_counts_and_majority_lines_are_taken_for_the_official_ones() -> None:
    assert comparison(EPIC, epic_like()) == ""
    missing = dataclasses.replace(epic_like(), num_judged=9600)
    assert comparison(EPIC, missing) == ""


def changed(judged: JudgedLabels, column: str, number: int) -> JudgedLabels:
    """Return the same with some labels of the most frequent class taken for another."""
    labels = {name: np.array(values) for name, values in judged.labels.items()}
    frequent = np.bincount(labels[column]).argmax()
    labels[column][np.flatnonzero(labels[column] == frequent)[:number]] = 50
    return dataclasses.replace(judged, labels=labels)


@pytest.mark.parametrize(
    ("judged", "reason"),
    [
        (dataclasses.replace(epic_like(), split="train"), "split train was judged"),
        (dataclasses.replace(epic_like(), part="tailclasses"), r"only a part was judged \(tailclasses\)"),
        (dataclasses.replace(epic_like(), num_judged=5000), "only 5,000 of the 9,668 samples could be judged"),
        (dataclasses.replace(epic_like(), num_classes={"verb": 14, "noun": 300}), "14 classes of verb.* 97"),
        (dataclasses.replace(epic_like(), num_classes={"verb": 97}), "no classes of noun.* 300"),
        (dataclasses.replace(epic_like(), labels={"verb": [0] * 43}), "these are 43 annotated samples"),
        (dataclasses.replace(epic_like(), labels={}), "these are 0 annotated samples"),
        (changed(epic_like(), "verb", 1), r"other labels: the verb .* 20.02 % \(top-1\)"),
        (changed(epic_like(), "noun", 3), r"other labels: the noun .* 4.42 % \(top-1\)"),
    ],
)
def test_what_is_not_the_official_split_is_told_with_the_reason(judged: JudgedLabels, reason: str) -> None:
    assert re.search(reason, comparison(EPIC, judged))


def test_a_split_that_cannot_be_told_is_not_compared() -> None:
    table = dataclasses.replace(PUBLISHED["ego4d", "state_change"], official=None)
    assert comparison(table, epic_like()) == "the official split of Ego4D v1 is not known here"


@pytest.mark.parametrize("key", [key for key in PUBLISHED if key[0] == "ego4d"])
def test_ego4d_is_told_by_its_classes_since_its_numbers_of_rows_are_not_public(key: tuple[str, str]) -> None:
    table = PUBLISHED[key]
    official = JudgedLabels("validation", 995, {}, {"verb": 115, "noun": 478}, num_annotated=1000)
    assert comparison(table, official) == ""
    assert any("public source gives the number of its rows" in text for text in table.differences)
    newer = dataclasses.replace(official, num_classes={"verb": 117, "noun": 521})
    assert comparison(table, newer) == "these labels have 117 classes of verb, those of Ego4D v1 115"
    kitchen = dataclasses.replace(official, num_classes={"verb": 14, "noun": 29})
    assert "14 classes of verb" in comparison(table, kitchen)
    part = dataclasses.replace(official, num_judged=980)
    assert comparison(table, part) == "only 980 of the 1,000 samples could be judged"
    assert "split train was judged" in comparison(table, dataclasses.replace(official, split="train"))


def test_majority_lines_are_those_of_the_official_file() -> None:
    folder = os.environ.get("EARMARK_TEST_ANNOTATIONS")
    path = Path(folder or "") / "epic100" / "EPIC_100_validation.csv"
    if folder is None or not path.is_file():
        pytest.skip("EARMARK_TEST_ANNOTATIONS names no folder with epic100/EPIC_100_validation.csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    official = EPIC.official
    assert official is not None
    lines = []
    for line in official.majority:  # counted here by a loop, without the package
        counts = Counter(row[f"{line.column}_class"] for row in rows)
        percent = 100 * sum(count for _, count in counts.most_common(line.k)) / len(rows)
        lines.append(MajorityLine(line.column, line.k, round(percent, 2)))
    assert tuple(lines) == official.majority
    assert tuple(line.percent for line in lines) == EPIC.rows[0].values
    labels = {name: [int(row[f"{name}_class"]) for row in rows] for name in ("verb", "noun")}
    assert comparison(EPIC, JudgedLabels("validation", 9668, labels, {"verb": 97, "noun": 300})) == ""
