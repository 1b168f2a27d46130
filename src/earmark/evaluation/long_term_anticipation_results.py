"""Numbers of long-term anticipation: edit distances of K sequences, beside those of answers that need no encoder.

Path of a sample: sequences --edit distance--> a number for each window --> means with intervals over videos.

All numbers are edit distances, from 0 to 1: lower is better, and a difference below 0 is a gain. Of verbs, nouns, and
actions, which are the pairs of the k-th sequence of verbs and the k-th of nouns.

Letters: N windows, Z coming actions, K sequences.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from earmark.evaluation.base import Answers
from earmark.evaluation.intervals import mean_interval, paired_interval
from earmark.evaluation.long_term_anticipation_sequences import (
    fit_markov_chain,
    most_frequent_classes,
    repeated_classes,
    sample_sequences,
)
from earmark.evaluation.long_term_anticipation_windows import COLUMNS, Windows
from earmark.evaluation.metrics import prefix_edit_distances
from earmark.evaluation.results import Estimate, Row, Score, compare

__all__ = [
    "Decoding",
    "LongTermAnswers",
    "LongTermResult",
    "NamedEstimate",
    "measure_sequences",
    "official_numbers",
    "uniform_draws",
]

Decoding = Literal["sampled", "most_probable"]
Classes = npt.NDArray[np.int64]
Curves = npt.NDArray[np.float64]
_OfTarget = Callable[[Mapping[str, Classes], str], Classes]

TARGETS = (*COLUMNS, "action")
WORDS: Mapping[Decoding, str] = {"sampled": "sampled", "most_probable": "most probable"}
OFFICIAL_BATCH = 32

_WINDOWS_AT_ONCE = 4096
_BASELINE_SEED = 0


@dataclass(frozen=True, slots=True)
class LongTermAnswers:
    """What a head answers to the test windows.

    Attributes:
        sampled: Sequences of ``verb`` and ``noun`` that were drawn, several times: shape ``(draws, N, Z, K)``.
        most_probable: The most probable sequences of each, shape ``(N, Z, K)``.
        chosen: What the head was trained with, by the columns that share it; see
            `earmark.evaluation.long_term_anticipation_head.FittedHead`.
    """

    sampled: dict[str, Classes]
    most_probable: dict[str, Classes]
    chosen: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NamedEstimate:
    """An answer that needs no encoder, and what the head is above or below it.

    Attributes:
        name: What is answered.
        sees_labels: Whether it is told the labels of the seen actions, which the head is not.
        distance: Its edit distance.
        differences: By decoding, the head's edit distance minus this one on the same windows: below 0 the head is
            better.
    """

    name: str
    sees_labels: bool
    distance: Estimate
    differences: dict[str, Estimate]


@dataclass(frozen=True, slots=True)
class LongTermResult:
    """What was measured for verbs, nouns or actions.

    Attributes:
        column: ``verb``, ``noun`` or ``action``.
        num_classes: Number of classes; of actions, of pairs of a verb and a noun.
        num_train_windows: Windows that the head was trained on.
        num_test_windows: Windows that it was judged on.
        num_test_videos: Videos that these lie in.
        num_coming: Z.
        distances: Edit distance of all Z coming actions, by decoding; that of drawn sequences is the mean over
            draws.
        areas: Area under the edit distance of the first 1 to Z coming actions, by decoding.
        by_length: Edit distance of the first z coming actions, by decoding.
        per_draw: Edit distance of each draw of the sequences, mean over seeds.
        draw_spread: Standard deviation over draws of one head, its square the mean over seeds; None of one draw.
        others: Answers that need no encoder.
        decoding: What comes first in the table.
        metrics: Under their official names, in batches as the official code has them; of the published protocol alone.
        chosen: What the head was trained with, for each seed.
    """

    column: str
    num_classes: int
    num_train_windows: int
    num_test_windows: int
    num_test_videos: int | None
    num_coming: int
    distances: dict[str, Score]
    areas: dict[str, Score]
    by_length: dict[str, tuple[float, ...]]
    per_draw: tuple[float, ...]
    draw_spread: float | None
    others: tuple[NamedEstimate, ...]
    decoding: Decoding = "sampled"
    metrics: dict[str, float] = field(default_factory=dict)
    chosen: tuple[Mapping[str, float], ...] = ()

    def beside(self) -> tuple[str, list[str]]:
        """Return in words what is compared, and a line for each answer that needs no encoder."""
        spread = "" if self.draw_spread is None else f", ± {self.draw_spread:.4f} over draws"
        told = " (told the labels of the seen actions)"
        return f"{self.column} ED@{self.num_coming}, {WORDS[self.decoding]}{spread}, less that of", [
            f"{other.name}{told if other.sees_labels else ''} {other.distance.text(3)}: "
            f"{other.differences[self.decoding].signed(3)}"
            for other in self.others
        ]

    def rows(self) -> list[Row]:
        """Return the edit distance and the area under it, by each decoding."""
        order = sorted(WORDS, key=lambda decoding: decoding != self.decoding)
        return [
            Row(
                f"{self.column} {what}" + ("" if decoding == "sampled" else f", {WORDS[decoding]}"),
                scores[decoding],
                self.num_test_windows,
                self.num_test_videos,
                unit="",
                decimals=3,
                higher_is_better=False,
            )
            for what, scores in ((f"ED@{self.num_coming}", self.distances), ("AUED", self.areas))
            for decoding in order
        ]


def uniform_draws(*, seed: int, draw: int, column: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return numbers from [0, 1), others for each seed, draw and column.

    Example:
        >>> uniform_draws(seed=0, draw=1, column="verb", shape=(2,)).tolist() == [
        ...     *uniform_draws(seed=0, draw=1, column="verb", shape=(2,))
        ... ]
        True
    """
    return np.random.default_rng([seed, draw, zlib.crc32(column.encode())]).random(shape)


def measure_sequences(
    answers: Sequence[Answers[LongTermAnswers]],
    windows: Windows,
    *,
    num_classes: Mapping[str, int],
    num_train_windows: int,
    train_runs: Sequence[Classes],
    decoding: Decoding = "sampled",
    official: bool = False,
) -> tuple[LongTermResult, ...]:
    """Return the edit distances of verbs, nouns and actions.

    Args:
        answers: Of each seed.
        windows: Those that were answered, with what came.
        num_classes: Of verb and noun.
        num_train_windows: How many the head was trained on.
        train_runs: Verb and noun of consecutive training actions, each run of shape ``(n, 2)``.
        decoding: What comes first in the table.
        official: Also give the numbers in batches, under their official names.

    Raises:
        ValueError: If shapes do not fit.
    """
    noun_classes = num_classes["noun"]

    def of_target(values: Mapping[str, Classes], target: str) -> Classes:
        return values["verb"] * noun_classes + values["noun"] if target == "action" else values[target]

    videos, num_videos = np.array(windows.videos), len(set(windows.videos))
    results = []
    for target in TARGETS:
        truth = of_target(windows.coming, target)
        mine = _Distances.of([answer.encoder for answer in answers], target, truth, of_target)
        theirs = [answer.baseline for answer in answers if answer.baseline is not None]
        baseline = _Distances.of(theirs, target, truth, of_target) if theirs else None
        num_draws, num_sequences = mine.num_draws, mine.num_sequences
        runs = [of_target(dict(zip(COLUMNS, run.T, strict=True)), target) for run in train_runs]
        others = list(
            _others(runs, of_target(windows.last, target), truth, num_draws=num_draws, num_sequences=num_sequences)
        )
        majority = others[0][2]
        classes = num_classes["verb"] * noun_classes if target == "action" else num_classes[target]
        uniform = np.random.default_rng(_BASELINE_SEED).integers(classes, size=(*truth.shape, num_sequences))
        chance = _curves(uniform, truth)

        ours, random = mine.by_decoding, None if baseline is None else baseline.by_decoding
        compared = {name: (ours[name], None if random is None else random[name], majority, chance) for name in WORDS}
        mean_over_seeds = {name: curves[..., -1].mean(axis=0) for name, curves in ours.items()}
        per_draw = tuple(float(value) for value in mine.sampled[..., -1].mean(axis=(0, 2)))
        results.append(
            LongTermResult(
                column=target,
                num_classes=classes,
                num_train_windows=num_train_windows,
                num_test_windows=len(truth),
                num_test_videos=num_videos,
                num_coming=truth.shape[1],
                distances={name: _score(*compared[name], videos=videos, number=_last) for name in WORDS},
                areas={name: _score(*compared[name], videos=videos, number=_area) for name in WORDS},
                by_length={name: tuple(curves.mean(axis=(0, 1)).tolist()) for name, curves in ours.items()},
                per_draw=per_draw,
                draw_spread=_spread(mine.sampled[..., -1].mean(axis=2)),
                others=tuple(
                    NamedEstimate(
                        name,
                        sees_labels,
                        _estimate(curves[:, -1], videos),
                        {of: _difference(mean, curves[:, -1], videos) for of, mean in mean_over_seeds.items()},
                    )
                    for name, sees_labels, curves in others
                ),
                decoding=decoding,
                metrics=official_numbers(mine.sampled[0, 0], target) if official else {},
                chosen=tuple(next(iter(answer.encoder.chosen.values()), {}) for answer in answers),
            )
        )
    return tuple(results)


def official_numbers(curves: Curves, target: str, *, batch_size: int = OFFICIAL_BATCH) -> dict[str, float]:
    """Return edit distances as the official validation names and averages them: as shares, means of means of batches.

    Its ``ED_z`` is the edit distance of the first z + 1 coming actions.

    Args:
        curves: Edit distance of the first 1 to Z coming actions of each window, shape ``(N, Z)``.
        target: ``verb``, ``noun`` or ``action``.
        batch_size: Windows per batch; the last one may be smaller, and counts as much as any other.

    Example:
        >>> import numpy as np
        >>> official_numbers(np.array([[0.0, 0.5], [1.0, 0.5], [1.0, 1.0]]), "verb", batch_size=2)
        {'verb_ED_0': 0.75, 'verb_ED_1': 0.75, 'verb_AUED': 0.75}
    """
    batches = [curves[start : start + batch_size].mean(axis=0) for start in range(0, len(curves), batch_size)]
    mean = np.mean(batches, axis=0)
    numbers = {f"{target}_ED_{place}": float(value) for place, value in enumerate(mean)}
    return numbers | {f"{target}_AUED": float(_area(mean))}


@dataclass(frozen=True, slots=True)
class _Distances:
    """Edit distances of the first 1 to Z coming actions of some answers."""

    sampled: Curves  # (seeds, draws, N, Z)
    by_decoding: dict[str, Curves]  # (seeds, N, Z)
    num_draws: int
    num_sequences: int

    @classmethod
    def of(cls, answers: Sequence[LongTermAnswers], target: str, truth: Classes, of_target: _OfTarget) -> "_Distances":
        sampled = np.stack(
            [np.stack([_curves(draw, truth) for draw in of_target(answer.sampled, target)]) for answer in answers]
        )
        probable = np.stack([_curves(of_target(answer.most_probable, target), truth) for answer in answers])
        num_draws, _, _, num_sequences = answers[0].sampled["verb"].shape
        return cls(sampled, {"sampled": sampled.mean(axis=1), "most_probable": probable}, num_draws, num_sequences)


def _others(
    runs: Sequence[Classes], last: Classes, truth: Classes, *, num_draws: int, num_sequences: int
) -> Iterator[tuple[str, bool, Curves]]:
    """Yield what needs no encoder: its name, whether it sees labels, and its edit distances (N, Z)."""
    num_windows, num_steps = truth.shape
    every = np.concatenate(list(runs))
    frequent = most_frequent_classes(every, num_sequences)
    shape = (num_windows, num_steps, num_sequences)
    draws = [uniform_draws(seed=_BASELINE_SEED, draw=draw, column="baseline", shape=shape) for draw in range(num_draws)]
    yield (
        f"each of the {num_sequences} most frequent classes, repeated",
        False,
        _curves(np.broadcast_to(frequent, shape), truth),
    )
    yield "the most frequent class, repeated", False, _curves(np.broadcast_to(frequent[:1], (*shape[:2], 1)), truth)
    classes, counts = np.unique(every, return_counts=True)
    flat = counts.astype(np.float64).reshape(1, 1, -1)
    drawn = [_curves(classes[sample_sequences(flat, draw.reshape(1, 1, -1))].reshape(shape), truth) for draw in draws]
    yield "drawn from the frequencies of classes", False, np.mean(drawn, axis=0)
    repeated = np.broadcast_to(last[:, None, None], (*shape[:2], 1))
    yield "the last action, repeated", True, _curves(repeated, truth)
    repeated = repeated_classes(last, frequent, num_steps=num_steps)
    yield "the last action and the most frequent classes, each repeated", True, _curves(repeated, truth)
    chain = fit_markov_chain(runs)
    drawn = [_curves(chain.sample(last, draw), truth) for draw in draws]
    yield "bigram, sampled", True, np.mean(drawn, axis=0)
    if len(chain.classes) ** num_steps >= num_sequences:
        best = chain.most_probable(last, num_steps=num_steps, num_sequences=num_sequences)
        yield "bigram, most probable", True, _curves(best, truth)


def _curves(sequences: Classes, truth: Classes) -> Curves:
    """Return the edit distances (N, Z) of the first 1 to Z coming actions, some windows at a time."""
    return np.concatenate(
        [
            prefix_edit_distances(sequences[start : start + _WINDOWS_AT_ONCE], truth[start : start + _WINDOWS_AT_ONCE])
            for start in range(0, len(truth), _WINDOWS_AT_ONCE)
        ]
    )


def _score(
    encoder: Curves,
    baseline: Curves | None,
    majority: Curves,
    chance: Curves,
    *,
    videos: npt.NDArray[np.str_],
    number: Callable[[Curves], Curves],
) -> Score:
    """Compare one number of the edit distances (.., N, Z)."""
    return compare(
        number(encoder),
        baseline=None if baseline is None else number(baseline),
        majority=number(majority),
        chance=float(number(chance).mean()),
        videos=videos,
        scale=1.0,
    )


def _spread(draws: npt.NDArray[np.float64]) -> float | None:
    """Return the standard deviation over draws (seeds, draws) of one head."""
    return None if draws.shape[1] == 1 else float(np.sqrt(draws.var(axis=1, ddof=1).mean()))


def _last(curves: Curves) -> Curves:
    return curves[..., -1]


def _area(curves: Curves) -> Curves:
    """Return the area under edit distances (.., Z) by the trapezoidal rule, over Z - 1; of one step, that step's."""
    if curves.shape[-1] == 1:
        return curves[..., 0]
    area: Curves = (curves[..., 1:] + curves[..., :-1]).sum(axis=-1) / (2 * (curves.shape[-1] - 1))
    return area


def _estimate(values: Curves, videos: npt.NDArray[np.str_]) -> Estimate:
    interval = mean_interval(values, bounds=(0, 1), groups=videos)
    return Estimate(float(values.mean()), *interval)


def _difference(ours: Curves, theirs: Curves, videos: npt.NDArray[np.str_]) -> Estimate:
    interval = paired_interval(ours, theirs, bounds=(0, 1), groups=videos)
    return Estimate(float((ours - theirs).mean()), *interval)
