"""Numbers of long-term anticipation, against slow loops and the frozen numbers of the official code."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from earmark.evaluation import LongTermAnswers, LongTermResult
from earmark.evaluation.base import Answers
from earmark.evaluation.intervals import mean_interval, paired_interval
from earmark.evaluation.long_term_anticipation_results import measure_sequences
from earmark.evaluation.long_term_anticipation_windows import Windows

Classes = npt.NDArray[np.int64]
NUM = {"verb": 4, "noun": 3}


def slow_distance(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many insertions, deletions and substitutions make one of the other, by the plain recursion's rows."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        previous, row = row, [i]
        for j, b in enumerate(second, 1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (a != b)))
    return row[-1]


def slow_number(sequences: Classes, truth: Classes, length: int) -> float:
    """Return the edit distance of the best of K sequences (Z, K), cut to a length."""
    return min(slow_distance(column[:length], truth[:length]) for column in sequences.T.tolist()) / length


def made(
    num_windows: int, *, num_steps: int = 6, num_draws: int = 3, seed: int = 0
) -> tuple[list[Answers[LongTermAnswers]], Windows, list[Classes]]:
    rng = np.random.default_rng(seed)

    def labels(*shape: int) -> dict[str, Classes]:
        return {column: rng.integers(classes, size=shape) for column, classes in NUM.items()}

    def answers() -> LongTermAnswers:
        return LongTermAnswers(
            labels(num_draws, num_windows, num_steps, 5), labels(num_windows, num_steps, 5), {"both": {"lr": 0.1}}
        )

    windows = Windows(
        tuple(f"c_{n}" for n in range(num_windows)),
        np.zeros((num_windows, 2), np.int64),
        labels(num_windows, num_steps),
        labels(num_windows),
        tuple(f"v{n % 7}" for n in range(num_windows)),
    )
    runs = [np.stack(list(labels(9).values()), axis=1) for _ in range(6)]
    return [Answers(seed, answers(), answers()) for seed in (0, 1)], windows, runs


def measured(
    answers: list[Answers[LongTermAnswers]], windows: Windows, runs: list[Classes], **options: bool
) -> tuple[LongTermResult, ...]:
    return measure_sequences(answers, windows, num_classes=NUM, num_train_windows=9, train_runs=runs, **options)


def pairs(values: dict[str, Classes]) -> Classes:
    return values["verb"] * NUM["noun"] + values["noun"]


def test_numbers_equal_those_of_a_slow_loop_and_actions_are_pairs_of_one_sequence() -> None:
    answers, windows, runs = made(20)
    results = measured(answers, windows, runs)
    assert [result.column for result in results] == ["verb", "noun", "action"]
    for result in results:

        def of(values: dict[str, Classes], column: str = result.column) -> Classes:
            return pairs(values) if column == "action" else values[column]

        truth = of(windows.coming)
        sampled = np.array(
            [
                [
                    [[slow_number(draw[n], truth[n], z) for z in range(1, 7)] for n in range(20)]
                    for draw in of(each.encoder.sampled)
                ]
                for each in answers
            ]
        )  # (seeds, draws, N, Z)
        probable = np.array(
            [
                [[slow_number(of(each.encoder.most_probable)[n], truth[n], z) for z in range(1, 7)] for n in range(20)]
                for each in answers
            ]
        )
        for name, curves in (("sampled", sampled.mean(axis=1)), ("most_probable", probable)):
            score, area = result.distances[name], result.areas[name]
            assert score.encoder.value == pytest.approx(curves[..., -1].mean())
            assert score.per_seed == pytest.approx(curves[..., -1].mean(axis=1))
            groups = np.array(windows.videos)
            interval = mean_interval(curves[..., -1].mean(axis=0), bounds=(0, 1), groups=groups)
            assert (score.encoder.low, score.encoder.high) == pytest.approx(interval)
            trapezoid = [
                sum((a + b) / 2 for a, b in itertools.pairwise(curve)) / 5 for curve in curves.mean(axis=0).tolist()
            ]
            assert area.encoder.value == pytest.approx(np.mean(trapezoid))
            assert result.by_length[name] == pytest.approx(curves.mean(axis=(0, 1)))
            for other in result.others:
                gap = score.encoder.value - other.distance.value
                assert other.differences[name].value == pytest.approx(gap)
        assert result.per_draw == pytest.approx(sampled[..., -1].mean(axis=(0, 2)))
        of_heads = [np.std(head[..., -1].mean(axis=-1), ddof=1) for head in sampled]
        assert result.draw_spread == pytest.approx(np.sqrt(np.mean(np.square(of_heads))))
        # what needs no encoder
        frequent = np.bincount(np.concatenate([of(dict(zip(NUM, run.T, strict=True))) for run in runs]))
        order = np.argsort(-frequent, kind="stable")[: (frequent > 0).sum()][:5]
        constant = np.array([[min(slow_distance([k] * 6, t) for k in order) / 6] for t in truth.tolist()])[:, 0]
        assert result.distances["sampled"].majority.value == pytest.approx(constant.mean())
        last = of(windows.last).tolist()
        repeated = {
            "the last action, repeated": [[own] for own in last],
            "the last action and the most frequent classes, each repeated": [
                [own, *[k for k in order if k != own][:4]] for own in last
            ],
            "the most frequent class, repeated": [order[:1]] * len(last),
        }
        for name, guesses in repeated.items():
            (shown,) = [other for other in result.others if other.name == name]
            plain = [
                min(slow_distance([k] * 6, t) for k in some) / 6
                for some, t in zip(guesses, truth.tolist(), strict=True)
            ]
            assert shown.distance.value == pytest.approx(np.mean(plain))
        ours = sampled.mean(axis=1)[..., -1].mean(axis=0)
        interval = paired_interval(ours, np.array(plain), bounds=(0, 1), groups=np.array(windows.videos))
        assert (shown.differences["sampled"].low, shown.differences["sampled"].high) == pytest.approx(interval)


def test_a_swap_costs_two_and_the_best_of_all_sequences_counts() -> None:
    _, windows, runs = made(1, num_steps=4, num_draws=1)
    truth = np.array([[0, 1, 2, 3]])
    wrong = np.full((1, 4, 5), 3)
    wrong[0, :, 4] = [1, 0, 2, 3]
    values = LongTermAnswers({"verb": wrong[None], "noun": wrong[None] * 0}, {"verb": wrong, "noun": wrong * 0})
    windows = Windows(windows.window_ids, windows.seen, {"verb": truth, "noun": truth * 0}, windows.last, ("v",))
    verb, noun, joint = measured([Answers(0, values, None)], windows, runs)
    assert verb.distances["sampled"].encoder.value == joint.distances["sampled"].encoder.value == 0.5
    assert noun.distances["most_probable"].encoder.value == 0.0


def test_numbers_in_batches_equal_the_frozen_ones_of_the_official_code(reference: Path) -> None:
    with np.load(reference / "metrics.npz", allow_pickle=False) as arrays:
        predictions, labels = arrays["lta__small__preds"], arrays["lta__small__labels"]
        distance, area, by_length = (arrays[f"lta__small__{name}"] for name in ("edit_distance", "AUED", "ED_z"))
    number = len(labels)
    nothing = {"verb": predictions, "noun": np.zeros_like(predictions)}
    answers = LongTermAnswers({column: values[None] for column, values in nothing.items()}, nothing)
    windows = Windows(
        tuple(f"c_{n}" for n in range(number)),
        np.zeros((number, 2), np.int64),
        {"verb": labels, "noun": np.zeros_like(labels)},
        {"verb": labels[:, 0], "noun": labels[:, 0] * 0},
        tuple("abcdef"),
    )
    runs = [np.stack([labels[0], labels[0] * 0], axis=1)]
    num_classes = {"verb": int(max(predictions.max(), labels.max())) + 1, "noun": 1}
    verb, _, joint = measure_sequences(
        [Answers(0, answers, None)],
        windows,
        num_classes=num_classes,
        num_train_windows=1,
        train_runs=runs,
        official=True,
    )
    for result in (verb, joint):
        assert result.metrics[f"{result.column}_ED_19"] == pytest.approx(float(distance), abs=1e-12)  # 20 actions
        assert result.metrics[f"{result.column}_AUED"] == pytest.approx(float(area), abs=1e-12)
        found = [result.metrics[f"{result.column}_ED_{place}"] for place in range(20)]
        np.testing.assert_allclose(found, by_length, rtol=0, atol=1e-12)
        assert result.distances["sampled"].encoder.value == pytest.approx(float(distance), abs=1e-12)
        assert result.areas["most_probable"].encoder.value == pytest.approx(float(area), abs=1e-12)


def test_a_last_batch_that_is_smaller_counts_as_much_as_any_in_the_official_numbers() -> None:
    answers, windows, runs = made(40, num_draws=1)
    for result in measured(answers, windows, runs, official=True)[:2]:
        first = answers[0].encoder.sampled[result.column][0]
        truth = windows.coming[result.column]
        each = [slow_number(first[n], truth[n], 6) for n in range(40)]
        in_batches = (np.mean(each[:32]) + np.mean(each[32:])) / 2
        assert result.metrics[f"{result.column}_ED_5"] == pytest.approx(in_batches)
        assert abs(in_batches - np.mean(each)) > 1e-6
        assert measured(answers, windows, runs)[0].metrics == {}
