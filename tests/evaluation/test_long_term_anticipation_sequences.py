"""Sequences of coming actions, against enumeration and slow loops."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from earmark.evaluation.long_term_anticipation_sequences import (
    MarkovChain,
    fit_markov_chain,
    most_frequent_classes,
    most_probable_sequences,
    repeated_classes,
    sample_sequences,
)

RUNS = [[4, 4, 9, 2, 4, 9], [9, 9, 4], [2]]


def best_of_all(value_of: Callable[[tuple[int, ...]], float], num_classes: int, num_steps: int, k: int) -> list[float]:
    """Return the K largest values over every sequence that there is."""
    every = itertools.product(range(num_classes), repeat=num_steps)
    return sorted((value_of(sequence) for sequence in every), reverse=True)[:k]


@pytest.mark.parametrize(("num_classes", "num_steps", "k"), [(3, 4, 7), (2, 5, 32), (4, 3, 1), (5, 1, 5), (2, 3, 5)])
@pytest.mark.parametrize("levels", [None, 2, 1])
def test_the_most_probable_sequences_are_those_of_an_enumeration(
    num_classes: int, num_steps: int, k: int, levels: int | None
) -> None:
    rng = np.random.default_rng(num_classes)
    logs = np.log(rng.dirichlet(np.ones(num_classes), size=(6, num_steps)))
    if levels is not None:  # few values, so many ties
        logs = -rng.integers(levels, size=logs.shape).astype(float)
    found = most_probable_sequences(logs, k)
    assert found.shape == (6, num_steps, k)
    for table, sequences in zip(logs, found, strict=True):
        values = [sum(table[step, label] for step, label in enumerate(column)) for column in sequences.T]
        expected = best_of_all(lambda s, t=table: sum(t[z, c] for z, c in enumerate(s)), num_classes, num_steps, k)
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12)
        assert len({tuple(column) for column in sequences.T}) == k


def test_a_class_that_cannot_come_comes_last() -> None:
    with np.errstate(divide="ignore"):
        logs = np.log([[[0.5, 0.5, 0.0]], [[0.0, 0.0, 1.0]]])
    assert most_probable_sequences(logs, 3)[:, 0].tolist() == [[0, 1, 2], [2, 0, 1]]


def test_what_there_is_too_little_of_is_refused() -> None:
    with pytest.raises(ValueError, match="there are no 9 sequences of 3 of 2 classes"):
        most_probable_sequences(np.zeros((1, 3, 2)), 9)
    with pytest.raises(ValueError, match="there are no 28 sequences of 3 of 3 classes"):
        fit_markov_chain(RUNS).most_probable([4], num_steps=3, num_sequences=28)
    with pytest.raises(ValueError, match="that are numbers"):
        most_probable_sequences([[[0.0, np.nan]]], 1)
    with pytest.raises(ValueError, match="there is no action"):
        fit_markov_chain([])
    with pytest.raises(ValueError, match="there is no label"):
        most_frequent_classes([], 5)


def test_drawn_classes_are_as_frequent_as_they_are_probable() -> None:
    probabilities = np.array([[[0.2, 0.0, 0.5, 0.3], [0.0, 1.0, 0.0, 0.0]]])
    grid = (np.arange(1000) + 0.5) / 1000  # each part of [0, 1) once
    drawn = sample_sequences(probabilities, np.broadcast_to(grid, (1, 2, 1000)))
    assert np.bincount(drawn[0, 0], minlength=4).tolist() == [200, 0, 500, 300]
    assert np.bincount(drawn[0, 1], minlength=4).tolist() == [0, 1000, 0, 0]


def test_drawing_equals_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(5, 0.3), size=(7, 3))
    uniform = rng.random((7, 3, 4))
    uniform[0, 0, 0], uniform[1, 1, 1] = 0.0, np.nextafter(1.0, 0.0)
    drawn = sample_sequences(probabilities, uniform)
    for n, z, k in np.ndindex(uniform.shape):
        below = 0.0
        for label in range(5):
            below += probabilities[n, z, label]
            if uniform[n, z, k] < below:
                break
        assert drawn[n, z, k] == label
    with pytest.raises(ValueError, match="negative, not finite or all 0"):
        sample_sequences(np.zeros((1, 1, 2)), np.zeros((1, 1, 1)))
    with pytest.raises(ValueError, match="need probabilities"):
        sample_sequences(np.ones((2, 1, 2)), np.zeros((1, 1, 1)))


def slow_transition(before: int, after: int) -> float:
    every = [label for run in RUNS for label in run]
    pairs = [pair for run in RUNS for pair in itertools.pairwise(run)]
    from_before = sum(first == before for first, _ in pairs)
    return (pairs.count((before, after)) + every.count(after) / len(every)) / (from_before + 1)


def test_transitions_are_counted_within_runs() -> None:
    chain = fit_markov_chain(RUNS)
    assert chain.classes.tolist() == [2, 4, 9]
    expected = [[slow_transition(before, after) for after in (2, 4, 9)] for before in (2, 4, 9, 77)]
    np.testing.assert_allclose(chain.transitions, expected, rtol=0, atol=1e-12)
    assert chain.states([9, 1, 2, 100, 4]).tolist() == [2, 3, 0, 3, 1]


@pytest.mark.parametrize("k", [1, 4, 27])
def test_the_most_probable_ways_of_a_chain_are_those_of_an_enumeration(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earmark.evaluation.long_term_anticipation_sequences._ROWS_AT_ONCE", 6)  # two rows at a time
    chain = fit_markov_chain(RUNS)
    last = [4, 2, 77]
    found = chain.most_probable(last, num_steps=3, num_sequences=k)
    for start, sequences in zip(last, found, strict=True):

        def value_of(places: tuple[int, ...], start: int = start) -> float:
            labels = [start, *(int(chain.classes[place]) for place in places)]
            return float(np.prod([slow_transition(*pair) for pair in itertools.pairwise(labels)]))

        values = [value_of(tuple(np.searchsorted(chain.classes, column))) for column in sequences.T]
        np.testing.assert_allclose(values, best_of_all(value_of, 3, 3, k), rtol=1e-12)
        assert len({tuple(column) for column in sequences.T}) == k


def test_a_chain_draws_each_step_from_the_one_before() -> None:
    chain, rng = fit_markov_chain(RUNS), np.random.default_rng(1)
    last, uniform = [4, 77, 9, 2], rng.random((4, 6, 3))
    drawn = chain.sample(last, uniform)
    for n, k in itertools.product(range(4), range(3)):
        before = last[n]
        for step in range(6):
            shares = np.cumsum([slow_transition(before, after) for after in (2, 4, 9)])
            before = (2, 4, 9)[int((shares <= uniform[n, step, k]).sum())]
            assert drawn[n, step, k] == before


def test_a_chain_that_never_turns_goes_round() -> None:
    sure = MarkovChain(np.array([0, 1, 2]), np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0], [1, 0, 0]]))
    assert sure.sample([1], np.full((1, 4, 1), 0.99))[0, :, 0].tolist() == [2, 0, 1, 2]
    assert sure.most_probable([1], num_steps=4, num_sequences=2)[0, :, 0].tolist() == [2, 0, 1, 2]


def slow_repeated(last: int, frequent: list[int]) -> list[int]:
    return [last, *(label for label in frequent if label != last)][: len(frequent)]


def test_the_last_action_comes_first_and_then_the_most_frequent_others() -> None:
    frequent = most_frequent_classes([3, 3, 3, 8, 8, 1, 1, 0], 4)
    assert frequent.tolist() == [3, 1, 8, 0]
    last: NDArray[np.int64] = np.array([3, 8, 0, 7])
    found = repeated_classes(last, frequent, num_steps=2)
    assert found.shape == (4, 2, 4)
    for label, sequences in zip(last.tolist(), found, strict=True):
        assert sequences.tolist() == [slow_repeated(label, frequent.tolist())] * 2
    assert most_frequent_classes([5, 5, 2], 4).tolist() == [5, 2, 2, 2]
