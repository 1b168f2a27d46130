"""Results of an evaluation: numbers with intervals, beside those of a random encoder and the majority class.

Path of a sample: features --probe--> scores --metrics--> a `TaskResult` --report--> page. Every task has its results in
this form, so that all are written and printed in one way, with the same cautions.
"""

import dataclasses
import json
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from rich.table import Table

from earmark.datasets.annotation_files import num_left_out
from earmark.evaluation.intervals import FEW_VIDEOS, mean_interval, paired_interval
from earmark.wording import counted, visible

__all__ = ["Estimate", "Row", "Score", "Seen", "TargetResult", "TaskResult", "compare", "format_table", "seen_among"]


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its 95 % interval, in the unit of the measure; of accuracies % (differences: percentage points).

    Attributes:
        value: The number.
        low: Low end of the interval.
        high: High end of the interval.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return self.text()

    def text(self, decimals: int = 1) -> str:
        """Return the number with its interval.

        Example:
            >>> Estimate(0.75, 0.7, 0.8).text(3)
            '0.750 [0.700, 0.800]'
        """
        return f"{self.value:.{decimals}f} [{self.low:.{decimals}f}, {self.high:.{decimals}f}]"

    def signed(self, decimals: int = 1) -> str:
        """Return the text of a difference.

        Example:
            >>> Estimate(3.0, -0.5, 6.5).signed()
            '+3.0 [-0.5, +6.5]'
        """
        return f"{self.value:+.{decimals}f} [{self.low:+.{decimals}f}, {self.high:+.{decimals}f}]"


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """One measure of an encoder, such as top-1 accuracy, beside what it has to beat.

    Attributes:
        k: Number of guesses; None for a measure that does not count guesses.
        encoder: Of the head on the judged encoder's features.
        baseline: Of the head on the baseline encoder's features; None without one.
        gain: Encoder minus baseline on the same samples (paired), so below 0 is better where lower is; None without a
            baseline.
        majority: Of always giving the most frequent answers of the training samples, or of another answer that looks at
            nothing (`Row.majority_name`).
        chance: Of guessing at random.
        per_seed: Of the judged encoder with each seed of the head; ``encoder`` is their mean. Empty with one seed.
        baseline_per_seed: The same of the baseline encoder.
    """

    k: int | None
    encoder: Estimate
    baseline: Estimate | None
    gain: Estimate | None
    majority: Estimate
    chance: float
    per_seed: tuple[float, ...] = ()
    baseline_per_seed: tuple[float, ...] = ()

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds of the head; None with one seed."""
        return statistics.stdev(self.per_seed) if len(self.per_seed) > 1 else None

    @property
    def baseline_spread(self) -> float | None:
        """The same of the baseline encoder."""
        return statistics.stdev(self.baseline_per_seed) if len(self.baseline_per_seed) > 1 else None


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One row of the table.

    Attributes:
        label: What was measured, such as "verb top-1".
        score: The numbers.
        num_samples: How many test samples they are means over.
        num_videos: How many videos these lie in; None where videos were not given.
        unit: Such as "%" or "s"; empty for a number without.
        decimals: How many are shown.
        higher_is_better: Whether it is.
        encoder_name: What ``score.encoder`` is of where it is not of the judged encoder, such as "sound alone".
        majority_name: What ``score.majority`` is of, such as "centre frame"; empty for the most frequent classes.
    """

    label: str
    score: Score
    num_samples: int
    num_videos: int | None
    unit: str = "%"
    decimals: int = 1
    higher_is_better: bool = True
    majority_name: str = ""
    encoder_name: str = ""

    @property
    def heading(self) -> str:
        """The label, with the unit unless it is %, and with an arrow where lower is better.

        Example:
            >>> zero = Estimate(0.0, 0.0, 0.0)
            >>> score = Score(None, zero, None, None, zero, 0.0)
            >>> Row("keyframe error", score, 8, 2, unit="s", decimals=3, higher_is_better=False).heading
            'keyframe error, s \u2193'
        """
        unit = "" if self.unit in ("", "%") else f", {self.unit}"
        return f"{self.label}{unit}" + ("" if self.higher_is_better else " \u2193")

    @property
    def majority_text(self) -> str:
        """What ``score.majority`` is of, in words."""
        if self.majority_name:
            return self.majority_name
        if self.score.k is None:
            return "most frequent classes"
        return "majority class" if self.score.k == 1 else f"{self.score.k} most frequent classes"


class TargetResult(Protocol):
    """What was measured for one target of a task, such as the verb; a dataclass of plain data.

    Attributes:
        num_test_videos: Videos of its test samples, which the intervals rest on; None where videos were not given.
    """

    @property
    def num_test_videos(self) -> int | None:
        """See above."""

    def rows(self) -> Sequence[Row]:
        """Return its rows of the table, the most important one first."""


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """Test videos that were used before, which makes numbers on them too good.

    Attributes:
        by: By what, in words that stand before "N of M test videos", such as "pretraining saw".
        num_videos: How many of the test videos; None if that is not known.
    """

    by: str
    num_videos: int | None


Target = TypeVar("Target", bound=TargetResult)


@dataclasses.dataclass(frozen=True, slots=True)
class TaskResult(Generic[Target]):
    """Numbers of one evaluation.

    Attributes:
        columns: One result for each target, such as each label column.
        options: How it was measured: options of the head, clips per sample, seed; plain data.
        num_test_videos: Videos of all test samples; None where videos were not given.
        seen: Test videos that were used before.
        left_out: What of the annotations could not be used, each with its place and the reason.
        published: The same encoders judged as the published numbers were made; None where that was not asked for.
    """

    columns: tuple[Target, ...]
    options: dict[str, Any]
    num_test_videos: int | None = None
    seen: tuple[Seen, ...] = ()
    left_out: tuple[str, ...] = ()
    published: "TaskResult[Target] | None" = None

    @property
    def headline(self) -> float:
        """The first number of the first target, for sweepers that look for the best run."""
        return self.columns[0].rows()[0].score.encoder.value

    @property
    def cautions(self) -> tuple[str, ...]:
        """What a reader of the numbers must know: few videos, used before, or without all rows; one sentence each."""
        cautions = []
        fewest = min((column.num_test_videos for column in self.columns if column.num_test_videos), default=None)
        if fewest is not None and fewest < FEW_VIDEOS:
            rests = (
                "interval rests on 1 test video, and says"
                if fewest == 1
                else f"intervals rest on {fewest} test videos, and say"
            )
            cautions.append(f"The {rests} little of other videos; {FEW_VIDEOS} or more are better.")
        for seen in self.seen:
            if seen.num_videos is None:
                cautions.append(f"It is not known whether {seen.by} any of the test videos.")
            elif seen.num_videos:
                share = f"{seen.num_videos} of {counted(self.num_test_videos or 0, 'test video')}"
                cautions.append(f"{seen.by[:1].upper()}{seen.by[1:]} {share}: other videos may score lower.")
        if self.left_out:
            problems = counted(num_left_out(self.left_out), "problem")
            cautions.append(f"Not all annotations could be used; {problems}, the first: {visible(self.left_out[0])}.")
        return tuple(cautions)

    def to_json(self) -> str:
        """Return the result as json, the same for the same numbers.

        All rows of the table stand once more in one list as ``rows``, whatever the task; the first as ``headline``.
        """
        rows = [row for column in self.columns for row in column.rows()]
        first = rows[0]
        headline = {
            "measure": first.label,
            **dataclasses.asdict(first.score.encoder),
            "unit": first.unit,
            "decimals": first.decimals,
            "higher_is_better": first.higher_is_better,
        }
        more = {"cautions": self.cautions, "headline": headline, "rows": [dataclasses.asdict(row) for row in rows]}
        return json.dumps(dataclasses.asdict(self) | more, indent=2)


def compare(
    values: npt.NDArray[Any],
    *,
    baseline: npt.NDArray[Any] | None,
    majority: npt.NDArray[Any],
    chance: float,
    bounds: tuple[float, float] = (0, 1),
    scale: float = 100.0,
    videos: npt.NDArray[Any] | None = None,
    k: int | None = None,
) -> Score:
    """Return the mean of a measure over samples beside those of the baselines, each with its interval.

    Args:
        values: The measure of each test sample, shape ``(N,)``, for example `earmark.evaluation.metrics.top_k_correct`;
            with several seeds ``(seeds, N)``. The interval is then that of each sample's mean over them.
        baseline: The same of the baseline encoder; None without one.
        majority: The same of the most frequent answers, shape ``(N,)``.
        chance: Of guessing at random, scaled already.
        bounds: Least and greatest value that there can be.
        scale: What all numbers are multiplied by: 100 for shares in %, 1 for what has a unit.
        videos: Video of each sample, shape ``(N,)``: the interval is then one for other videos; None where samples are
            independent.
        k: Number of guesses, where the measure has one.

    Raises:
        ValueError: As `earmark.evaluation.intervals.mean_interval`.

    Example:
        >>> import numpy as np
        >>> right = np.array([True] * 30 + [False] * 10)
        >>> score = compare(right, baseline=None, majority=~right, chance=50.0)
        >>> str(score.encoder), str(score.majority), score.chance, score.gain
        ('75.0 [59.1, 86.2]', '25.0 [13.8, 40.9]', 50.0, None)
    """
    scaled_bounds = (scale * bounds[0], scale * bounds[1])
    per_seed, values = _over_seeds(values, scale)
    baseline_per_seed: tuple[float, ...] = ()
    if baseline is not None:
        baseline_per_seed, baseline = _over_seeds(baseline, scale)

    def estimate(of: npt.NDArray[Any]) -> Estimate:
        return Estimate(scale * float(of.mean()), *mean_interval(scale * of, bounds=scaled_bounds, groups=videos))

    gain = None
    if baseline is not None:
        interval = paired_interval(scale * values, scale * baseline, bounds=scaled_bounds, groups=videos)
        gain = Estimate(scale * float(values.mean() - baseline.mean()), *interval)
    return Score(
        k=k,
        encoder=estimate(values),
        baseline=None if baseline is None else estimate(baseline),
        gain=gain,
        majority=estimate(majority),
        chance=chance,
        per_seed=per_seed,
        baseline_per_seed=baseline_per_seed,
    )


def _over_seeds(values: npt.NDArray[Any], scale: float) -> tuple[tuple[float, ...], npt.NDArray[Any]]:
    """Return the mean of each seed where there are several, and the mean over seeds of each sample."""
    rows = np.atleast_2d(values)
    return (() if len(rows) == 1 else tuple(scale * float(row.mean()) for row in rows)), (
        rows[0] if len(rows) == 1 else rows.mean(axis=0)
    )


def seen_among(videos: Iterable[str] | None, seen_videos: Mapping[str, Collection[str] | None]) -> tuple[Seen, ...]:
    """Count the test videos among those that were used before.

    Args:
        videos: The test videos; None where they are not known.
        seen_videos: Ids of videos by what used them before; None for ids that are not known.

    Example:
        >>> seen_among(["a", "b", "b"], {"pretraining saw": ["b", "c"]})
        (Seen(by='pretraining saw', num_videos=1),)
    """
    judged = None if videos is None else set(videos)
    return tuple(
        Seen(by, None if ids is None or judged is None else len(judged & set(ids))) for by, ids in seen_videos.items()
    )


def format_table(result: TaskResult[Any], *, title: str, samples: str) -> Table:
    """Return a result as a table for the terminal: one row per measure.

    Args:
        result: The result.
        title: Heading of the table.
        samples: What test samples are called, in the plural.
    """
    rows: list[Row] = [row for column in result.columns for row in column.rows()]
    num_full = len(rows)
    notes = [f"Caution: {caution}" for caution in result.cautions]
    if result.published is not None:
        of_published = [row for column in result.published.columns for row in column.rows()]
        rows += [dataclasses.replace(row, label=f"published: {row.label}") for row in of_published]
        notes.insert(0, f"published: {result.published.options['protocol']}")
    names = dict.fromkeys(f"{row.label}: {row.majority_name}" for row in rows[:num_full] if row.majority_name)
    shared = {row.majority_name for row in rows[:num_full]}
    if names and len(shared) == 1:
        notes.insert(0, f"majority: {shared.pop()}")
    elif names:
        notes.insert(0, f"majority: of {'; '.join(names)}")
    if not all(row.higher_is_better for row in rows):
        notes.insert(0, "\u2193: lower is better; a gain below 0 is for the encoder")
    has_baseline = any(row.score.baseline is not None for row in rows)
    has_spread = any(row.score.spread is not None for row in rows)
    has_videos = result.num_test_videos is not None
    judged = result.options.get("judged")
    table = Table(
        title=title + (f"\n{judged}" if judged else ""),
        caption="\n".join(notes) or None,
    )
    table.add_column("")
    seeds = ("over seeds",) if has_spread else ()
    headings = ["encoder", *seeds, *(("random encoder", "gain") if has_baseline else ()), "majority", "chance", samples]
    for heading in (*headings, *(("videos",) if has_videos else ())):
        table.add_column(heading, justify="right")
    for row in rows:
        score = row.score
        decimals = row.decimals
        cells = [row.heading, score.encoder.text(decimals)]
        if has_spread:
            cells.append("" if score.spread is None else f"± {score.spread:.{decimals + 1}f}")
        if has_baseline:
            cells += [
                "" if score.baseline is None else score.baseline.text(decimals),
                "" if score.gain is None else score.gain.signed(decimals),
            ]
        cells += [score.majority.text(decimals), f"{score.chance:.{decimals}f}", f"{row.num_samples:,}"]
        if has_videos:
            cells.append(f"{row.num_videos:,}")
        table.add_row(*cells, end_section=len(table.rows) + 1 == num_full < len(rows))
    return table
