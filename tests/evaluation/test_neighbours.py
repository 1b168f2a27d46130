"""Nearest moments of other videos and what they share, against loops in plain Python."""

import numpy as np

from earmark.evaluation.neighbours import (
    chance_precision,
    nearest_of_other_videos,
    neighbour_precision,
    opposite_pairs,
)


def test_neighbours_precision_and_chance_are_those_of_plain_loops() -> None:
    rng = np.random.default_rng(0)
    vectors, videos, labels = rng.normal(size=(30, 4)), rng.integers(0, 5, 30), rng.integers(0, 3, 30)
    nearest = nearest_of_other_videos(vectors, videos, k=3)
    precision, chance = neighbour_precision(nearest, labels), chance_precision(labels, videos)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for query in range(30):
        others = [k for k in range(30) if videos[k] != videos[query]]
        by_cosine = sorted(others, key=lambda k: -float(unit[k] @ unit[query]))[:3]
        assert nearest[query].tolist() == by_cosine
        assert precision[query] == np.mean([labels[k] == labels[query] for k in by_cosine])
        assert chance[query] == np.mean([labels[k] == labels[query] for k in others])


def test_a_change_and_its_reverse_are_no_neighbours() -> None:
    changes = np.array([[1.0, 0.1], [-1.0, -0.1], [0.2, 1.0], [0.9, 0.0]])
    assert nearest_of_other_videos(changes, np.arange(4), k=3)[0].tolist() == [3, 2, 1]


def test_fewer_others_than_asked_for_leave_gaps() -> None:
    nearest = nearest_of_other_videos(np.eye(3), np.array([0, 0, 1]), k=4)
    assert nearest.tolist() == [[2, -1, -1, -1], [2, -1, -1, -1], [0, 1, -1, -1]]
    alone = nearest_of_other_videos(np.eye(2), np.array([0, 0]), k=1)
    assert np.isnan(neighbour_precision(alone, np.array([1, 1]))).all()
    assert np.isnan(chance_precision(np.array([1, 1]), np.array([0, 0]))).all()


def test_opposites_are_found_by_the_names_of_each_data_set() -> None:
    assert opposite_pairs(["take", "put", "open", "close", "turn-on", "turn-off", "cut"]) == [(2, 3), (0, 1), (4, 5)]
    ego4d = ["close", "insert", "open", "remove_(take_off)", "turn_off_(turn_off,_switch_off)", "turn_on_(switch_on)"]
    assert opposite_pairs(ego4d) == [(2, 0), (5, 4), (1, 3)]
    assert opposite_pairs(["open", "cut"]) == []
