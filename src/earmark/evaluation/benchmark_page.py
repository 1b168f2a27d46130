"""The page of a benchmark: table, studies, figures, setting, and the command and folder of every cell.

Path of a sample: numbers of each method and seed --`earmark.evaluation.benchmark`--> table --> page. It is one HTML
file that opens from disk and asks nothing of any server.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earmark.atomic import replacing
from earmark.evaluation.benchmark import BenchmarkTable, Measure
from earmark.evaluation.benchmark_studies import BenchmarkStudy
from earmark.evaluation.benchmark_tables import TRIVIAL, heading, mark, number, p_text, verdict_note
from earmark.media.page import data_uri, render_page

__all__ = ["BenchmarkCell", "ShownStudy", "ShownTable", "write_benchmark_page"]


@dataclass(frozen=True, slots=True)
class BenchmarkCell:
    """One method with one seed, as the page lists it.

    Attributes:
        name: Of the cell.
        method: The method.
        seed: The seed.
        folder: Of its run.
        commands: What makes it, in this order.
        results: Folders of its results.
        cpu_seconds: Of processor time that it took; 0 where that is not known.
        problem: Why it is not whole; None if it is.
    """

    name: str
    method: str
    seed: int
    folder: str
    commands: tuple[str, ...]
    results: tuple[str, ...]
    cpu_seconds: float
    problem: str | None


@dataclass(frozen=True, slots=True)
class ShownTable:
    """The table of a benchmark, and how it was made.

    Attributes:
        table: What was measured.
        setting: Facts by name, shown in this order.
        rates: Learning rate by method.
        rates_found: Where they were found.
        tried: By method, what each rate that was tried reached on held-out training videos, in %; empty where they were
            known before.
        cells: All of them, whole or not.
    """

    table: BenchmarkTable
    setting: Mapping[str, str]
    rates: Mapping[str, float]
    rates_found: str
    tried: Mapping[str, Mapping[float, float]]
    cells: tuple[BenchmarkCell, ...]


@dataclass(frozen=True, slots=True)
class ShownStudy:
    """A study, and how it was made.

    Attributes:
        study: What was found.
        figure: `earmark.evaluation.benchmark_figures.study_svg` of it; empty for none.
        cells: All of them, whole or not.
    """

    study: BenchmarkStudy
    figure: str
    cells: tuple[BenchmarkCell, ...]


def write_benchmark_page(path: Path, table: ShownTable | None, studies: Sequence[ShownStudy] = ()) -> None:
    """Write the page. The same arguments give the same bytes.

    Args:
        path: HTML file to write; it is replaced as a whole.
        table: The table; None if it was not made.
        studies: In their order.

    Example:
        >>> import tempfile
        >>> from earmark.evaluation.benchmark import Measure, summarise
        >>> table = summarise({"top-1": {"a": {0: 1.0}}}, [Measure("top-1")], methods=["a"], reference="a")
        >>> page = Path(tempfile.mkdtemp()) / "report.html"
        >>> write_benchmark_page(page, ShownTable(table, setting={}, rates={}, rates_found="", tried={}, cells=()))
        >>> "top-1" in page.read_text(encoding="utf-8")
        True
    """
    page = render_page(
        "earmark.evaluation",
        "benchmark.html",
        title="Does it work?",
        table=None if table is None else _table(table),
        studies=[_study(shown) for shown in studies],
        trivial_name=TRIVIAL,
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _table(shown: ShownTable) -> dict[str, Any]:
    """Return the table with all that is shown around it."""
    table = shown.table
    return {
        **_rows(table),
        "figures": [figure for measure in table.measures if (figure := _figure(table, measure)) is not None],
        "setting": dict(shown.setting),
        "rates": [
            {"method": method, "lr": f"{lr:g}", "tried": _tried(shown.tried.get(method, {}))}
            for method, lr in shown.rates.items()
        ],
        "rates_found": shown.rates_found,
        "cells": shown.cells,
        "num_seeds": len({cell.seed for cell in shown.cells}),
        "num_failed": sum(cell.problem is not None for cell in shown.cells),
    }


def _study(shown: ShownStudy) -> dict[str, Any]:
    """Return a study as it is shown."""
    study = shown.study
    return {
        "name": study.name,
        "title": study.title,
        "words": study.words,
        "axis": study.axis,
        "is_curve": study.is_curve,
        "figure": data_uri("image/svg+xml", shown.figure.encode("utf-8")) if shown.figure else "",
        "alt": f"{study.title}: {', '.join(heading(measure) for measure in study.measures)} by {study.axis}",
        "lines": [{"line": line, **_rows(table)} for line, table in study.lines.items()],
        "cells": shown.cells,
        "seeds": ", ".join(str(seed) for seed in sorted({cell.seed for cell in shown.cells})),
        "num_failed": sum(cell.problem is not None for cell in shown.cells),
    }


def _rows(table: BenchmarkTable) -> dict[str, Any]:
    """Return means and differences of a table as they are shown."""
    return {
        "reference": table.reference,
        "note": verdict_note(table),
        "headings": [heading(measure) for measure in table.measures],
        "rows": [_row(table, method) for method in table.methods],
        "differences": [_differences(table, method) for method in table.methods if method != table.reference],
        "trivial": [_trivial(table, measure) for measure in table.measures] if table.trivial else [],
    }


def _row(table: BenchmarkTable, method: str) -> dict[str, Any]:
    """Return the means of a method as they are shown."""
    cells = []
    for measure in table.measures:
        entry = table.entries.get((method, measure.label))
        half_width = None if entry is None else entry.over_seeds.half_width
        cells.append(
            {
                "value": "" if entry is None else number(entry.over_seeds.mean, measure),
                "interval": "" if half_width is None else f"± {number(half_width, measure)}",
                "mark": "" if entry is None else mark(entry),
                "by_seed": ""
                if entry is None
                else ", ".join(
                    f"seed {seed}: {number(value, measure)}" for seed, value in entry.over_seeds.by_seed.items()
                ),
            }
        )
    return {"method": method, "cells": cells}


def _differences(table: BenchmarkTable, method: str) -> dict[str, Any]:
    """Return how a method differs from the reference as it is shown."""
    cells = []
    for measure in table.measures:
        entry = table.entries.get((method, measure.label))
        found = None if entry is None else entry.difference
        if entry is None or found is None:
            cells.append({"value": "", "interval": "", "p": "", "mark": ""})
            continue
        interval = ""
        if found.low is not None and found.high is not None:
            interval = f"{number(found.low, measure, signed=True)} to {number(found.high, measure, signed=True)}"
        cells.append(
            {
                "value": number(found.mean, measure, signed=True),
                "interval": interval,
                "p": "not tested" if found.adjusted_p_value is None else p_text(found.adjusted_p_value),
                "mark": mark(entry),
            }
        )
    return {"method": method, "cells": cells}


def _trivial(table: BenchmarkTable, measure: Measure) -> str:
    value = table.trivial.get(measure.label)
    return "" if value is None else number(value, measure)


def _tried(quality: Mapping[float, float]) -> str:
    return ", ".join(f"{lr:g}: {value:.1f} %" for lr, value in quality.items())


def _figure(table: BenchmarkTable, measure: Measure) -> dict[str, Any] | None:
    """Return means, intervals and the number of each seed as places on a line, in % of its length."""
    entries = {m: table.entries[m, measure.label] for m in table.methods if (m, measure.label) in table.entries}
    if not entries:
        return None
    trivial = table.trivial.get(measure.label)
    values = [value for entry in entries.values() for value in entry.over_seeds.by_seed.values()]
    ends = [
        end for entry in entries.values() for end in (entry.over_seeds.low, entry.over_seeds.high) if end is not None
    ]
    shown = [*values, *ends, *([] if trivial is None else [trivial])]
    low, high = min(shown), max(shown)
    width = (high - low) or 1.0

    def place(value: float) -> float:
        return round(100 * (value - low) / width, 2)

    lines = []
    for method, entry in entries.items():
        over = entry.over_seeds
        start, stop = (over.mean if end is None else end for end in (over.low, over.high))
        lines.append(
            {
                "method": method,
                "is_reference": method == table.reference,
                "value": number(over.mean, measure),
                "mark": mark(entry),
                "mean": place(over.mean),
                "start": place(start),
                "length": round(place(stop) - place(start), 2),
                "seeds": [place(value) for value in over.by_seed.values()],
            }
        )
    return {
        "heading": heading(measure),
        "lines": lines,
        "low": number(low, measure),
        "high": number(high, measure),
        "trivial": None if trivial is None else place(trivial),
    }
