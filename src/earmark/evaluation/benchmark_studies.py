"""A study of a benchmark: what methods reach as one factor changes, and which changes are beyond chance.

Path of a sample: numbers of each point, method and seed --`earmark.evaluation.benchmark`--> one table for each method,
whose rows are the points of the factor --> csv, plain data, figure (`earmark.evaluation.benchmark_figures`).
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from earmark.evaluation.benchmark import BenchmarkTable, Measure, summarise
from earmark.evaluation.benchmark_tables import csv_rows_of, plain_data, table_of_plain_data

__all__ = ["BenchmarkStudy", "study_csv_text", "study_of_plain_data", "study_plain_data", "summarise_study"]

CSV_FIELDS = (
    *("method", "point", "value", "measure", "unit", "higher_is_better", "num_seeds", "mean", "low", "high"),
    *("difference", "difference_low", "difference_high", "p_value", "adjusted_p_value", "verdict", "by_seed"),
)

Scores = Mapping[str, Mapping[str, Mapping[int, float]]]
"""Numbers by label of the measure, row and seed."""


@dataclass(frozen=True, slots=True)
class BenchmarkStudy:
    """What one factor does.

    Attributes:
        name: Of the study.
        title: The factor.
        words: What is changed, and what is held the same.
        axis: Label of the axis, with its unit; or what the points are.
        log: Whether the axis is logarithmic.
        places: Points of the factor by label, in their order, each with its place on the axis; None where the factor is
            no number.
        lines: By method, a table whose rows are the points that were measured; each row is compared with the reference,
            which is the setting of the benchmark's own table.
        beside: Methods that the factor does not touch.
    """

    name: str
    title: str
    words: str
    axis: str
    log: bool
    places: Mapping[str, float | None]
    lines: Mapping[str, BenchmarkTable]
    beside: BenchmarkTable

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What is measured, in the order of the table."""
        return self.beside.measures

    @property
    def is_curve(self) -> bool:
        """Whether the factor is a number."""
        return all(place is not None for place in self.places.values())


def summarise_study(
    name: str,
    *,
    title: str,
    words: str,
    axis: str,
    log: bool,
    places: Mapping[str, float | None],
    reference: str,
    lines: Mapping[str, Scores],
    beside: Scores,
    measures: Sequence[Measure],
    trivial: Mapping[str, float],
) -> BenchmarkStudy:
    """Return a study; the differences of each method from its reference point are tested as `summarise` does.

    Args:
        name: As of `BenchmarkStudy`, as `title`, `words`, `axis`, `log` and `places`.
        title: See above.
        words: See above.
        axis: See above.
        log: See above.
        places: See above.
        reference: Label of the point that the others are compared with.
        lines: By method, numbers by label of the measure, label of the point and seed.
        beside: Numbers of the methods beside, by label of the measure, method and seed.
        measures: What is measured, in order.
        trivial: By label of the measure, what an answer reaches that ignores the video.

    Raises:
        ValueError: If a number is not finite, or a label is not among those given.

    Example:
        >>> study = summarise_study(
        ...     "gap", title="Gap", words="", axis="gap, s", log=False, places={"0": 0.0, "1": 1.0}, reference="0",
        ...     lines={"a": {"top-1": {"0": {0: 30.0, 1: 31.0, 2: 33.0}, "1": {0: 20.0, 1: 22.0, 2: 23.0}}}}, beside={},
        ...     measures=[Measure("top-1")], trivial={},
        ... )
        >>> study.lines["a"].entries["1", "top-1"].difference.verdict
        'worse'
    """
    tables = {
        line: summarise(scores, measures, methods=list(places), reference=reference, trivial=trivial)
        for line, scores in lines.items()
    }
    methods = list(dict.fromkeys(method for by_method in beside.values() for method in by_method))
    return BenchmarkStudy(
        name,
        title,
        words,
        axis,
        log,
        dict(places),
        tables,
        summarise(beside, measures, methods=methods, reference="", trivial=trivial),
    )


def study_csv_text(study: BenchmarkStudy) -> str:
    """Return a study in long form: one row per method, point and measure, with every seed's number.

    Numbers are whole; ``value`` is the place on the axis, and ``point`` is empty for methods beside the points.
    Differences are those from the reference point of the same method.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    for line, table in study.lines.items():
        for row in csv_rows_of(table):
            if row["num_seeds"]:
                writer.writerow({**row, "point": row["method"], "value": study.places[row["method"]], "method": line})
    writer.writerows(csv_rows_of(study.beside))
    return text.getvalue()


def study_plain_data(study: BenchmarkStudy) -> dict[str, Any]:
    """Return a study as plain data, for json; `study_of_plain_data` reads it."""
    return {
        **{"name": study.name, "title": study.title, "words": study.words, "axis": study.axis, "log": study.log},
        "places": [[label, place] for label, place in study.places.items()],
        "lines": [[line, plain_data(table)] for line, table in study.lines.items()],
        "beside": plain_data(study.beside),
    }


def study_of_plain_data(content: Mapping[str, Any]) -> BenchmarkStudy:
    """Return the study that `study_plain_data` made this of.

    Raises:
        ValueError: If it is none.
    """
    try:
        return BenchmarkStudy(
            name=str(content["name"]),
            title=str(content["title"]),
            words=str(content["words"]),
            axis=str(content["axis"]),
            log=bool(content["log"]),
            places={str(label): None if place is None else float(place) for label, place in content["places"]},
            lines={str(line): table_of_plain_data(table) for line, table in content["lines"]},
            beside=table_of_plain_data(content["beside"]),
        )
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"no study of a benchmark ({type(error).__name__}: {error})") from error
