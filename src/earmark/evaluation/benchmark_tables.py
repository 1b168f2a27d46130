"""The table of a benchmark as text, csv, LaTeX and plain data.

Path of a sample: numbers of each method and seed --`earmark.evaluation.benchmark`--> table --> files.
"""

import csv
import dataclasses
import io
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from earmark.evaluation.benchmark import BenchmarkTable, Entry, MeanOverSeeds, Measure, PairedDifference

__all__ = [
    "csv_rows_of",
    "csv_text",
    "difference_table",
    "heading",
    "latex_text",
    "mark",
    "mean_table",
    "number",
    "p_text",
    "plain_data",
    "table_of_plain_data",
    "verdict_note",
]

MARKS = {"better": "▲", "worse": "▼", "not told apart": "", "not tested": ""}
LATEX_MARKS = {
    "better": r"^{\blacktriangle}",
    "worse": r"^{\blacktriangledown}",
    "not told apart": "",
    "not tested": "",
}
CSV_FIELDS = (
    *("method", "measure", "unit", "higher_is_better", "num_seeds", "mean", "low", "high"),
    *("difference", "difference_low", "difference_high", "p_value", "adjusted_p_value", "verdict", "by_seed"),
)
TRIVIAL = "ignores the video"


def verdict_note(table: BenchmarkTable) -> str:
    """Return what intervals and marks mean."""
    return (
        f"Mean over seeds ± half of its 95 % interval (Student's t). Better (▲) or worse (▼) than {table.reference}: "
        f"paired t test over the seeds, adjusted for the methods compared by each measure (Holm), at most "
        f"{table.significance:g}."
    )


def mean_table(table: BenchmarkTable, *, title: str = "Means over seeds", rows: str = "method") -> Table:
    """Return means with intervals for the terminal: one row per method or `rows`, one column per measure."""
    shown = Table(title=title, caption=verdict_note(table))
    shown.add_column(rows)
    for measure in table.measures:
        shown.add_column(heading(measure), justify="right")
    for method in table.methods:
        shown.add_row(method, *(_mean_cell(table, method, measure) for measure in table.measures))
    if table.trivial:
        cells = [
            "" if (value := table.trivial.get(measure.label)) is None else number(value, measure)
            for measure in table.measures
        ]
        shown.add_row(TRIVIAL, *cells)
    return shown


def difference_table(table: BenchmarkTable, *, rows: str = "method") -> Table:
    """Return paired differences from the reference for the terminal, each with its interval and adjusted p value."""
    shown = Table(title=f"Paired differences from {table.reference} [95 % interval], adjusted p", show_lines=True)
    shown.add_column(rows)
    for measure in table.measures:
        shown.add_column(heading(measure), justify="right")
    for method in table.methods:
        if method != table.reference:
            shown.add_row(method, *(_difference_cell(table, method, measure) for measure in table.measures))
    return shown


def heading(measure: Measure) -> str:
    """Return the label of a measure with its unit, and an arrow down where lower is better."""
    unit = f", {measure.unit}" if measure.unit else ""
    return f"{measure.label}{unit}" + ("" if measure.higher_is_better else " ↓")


def number(value: float, measure: Measure, *, signed: bool = False) -> str:
    """Return a number with the decimals of its measure.

    Example:
        >>> number(12.345, Measure("verb top-1")), number(-0.5, Measure("error", "s", decimals=3), signed=True)
        ('12.3', '-0.500')
    """
    return f"{value:{'+' if signed else ''}.{measure.decimals}f}"


def mark(entry: Entry) -> str:
    """Return the mark of a difference that is beyond chance; nothing otherwise."""
    return "" if entry.difference is None else MARKS[entry.difference.verdict]


def _mean_cell(table: BenchmarkTable, method: str, measure: Measure) -> str:
    entry = table.entries.get((method, measure.label))
    if entry is None:
        return ""
    half_width = entry.over_seeds.half_width
    interval = "" if half_width is None else f" ± {number(half_width, measure)}"
    return f"{number(entry.over_seeds.mean, measure)}{interval}{' ' + mark(entry) if mark(entry) else ''}"


def _difference_cell(table: BenchmarkTable, method: str, measure: Measure) -> str:
    entry = table.entries.get((method, measure.label))
    if entry is None or entry.difference is None:
        return ""
    found = entry.difference
    text = number(found.mean, measure, signed=True) + (f" {mark(entry)}" if mark(entry) else "")
    if found.low is not None and found.high is not None:
        text += f"\n[{number(found.low, measure, signed=True)}, {number(found.high, measure, signed=True)}]"
    if found.adjusted_p_value is not None:
        text += f"\n{p_text(found.adjusted_p_value)}"
    return text


def p_text(p_value: float) -> str:
    """Return a p value in a few characters.

    Example:
        >>> p_text(0.0312), p_text(0.00004)
        ('p 0.031', 'p < 0.001')
    """
    return "p < 0.001" if p_value < 0.001 else f"p {p_value:.3f}"


def csv_text(table: BenchmarkTable) -> str:
    """Return the table in long form: one row per method and measure, with every seed's number.

    Numbers are whole; ``by_seed`` is ``SEED:NUMBER`` joined by spaces. What ignores the video has rows without seeds.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(csv_rows_of(table))
    return text.getvalue()


def csv_rows_of(table: BenchmarkTable) -> list[dict[str, Any]]:
    """Return the rows of `csv_text` as values by column."""
    rows = []
    measures = {measure.label: measure for measure in table.measures}
    for (method, label), entry in table.entries.items():
        over, found, measure = entry.over_seeds, entry.difference, measures[label]
        row: dict[str, Any] = {
            **{"method": method, "measure": label, "unit": measure.unit, "higher_is_better": measure.higher_is_better},
            **{"num_seeds": len(over.by_seed), "mean": over.mean, "low": over.low, "high": over.high},
            "by_seed": " ".join(f"{seed}:{value!r}" for seed, value in over.by_seed.items()),
        }
        if found is not None:
            row |= {
                **{"difference": found.mean, "difference_low": found.low, "difference_high": found.high},
                **{"p_value": found.p_value, "adjusted_p_value": found.adjusted_p_value, "verdict": found.verdict},
            }
        rows.append(row)
    for label, value in table.trivial.items():
        measure = measures[label]
        rows.append(
            {
                **{"method": TRIVIAL, "measure": label, "unit": measure.unit},
                **{"higher_is_better": measure.higher_is_better, "num_seeds": 0, "mean": value},
            }
        )
    return rows


def latex_text(table: BenchmarkTable, *, rows: str = "method") -> str:
    """Return means with intervals as a LaTeX table, for packages booktabs and amssymb."""
    lines = [
        "% " + verdict_note(table).replace("▲", "triangle up").replace("▼", "triangle down").replace("±", "+-"),
        r"\begin{tabular}{l" + "r" * len(table.measures) + "}",
        r"\toprule",
        " & ".join([_latex_words(rows), *(_latex_words(heading(measure)) for measure in table.measures)]) + r" \\",
        r"\midrule",
    ]
    for method in table.methods:
        cells = []
        for measure in table.measures:
            entry = table.entries.get((method, measure.label))
            if entry is None:
                cells.append("")
                continue
            half_width = entry.over_seeds.half_width
            interval = "" if half_width is None else rf" \pm {number(half_width, measure)}"
            sign = "" if entry.difference is None else LATEX_MARKS[entry.difference.verdict]
            cells.append(f"${number(entry.over_seeds.mean, measure)}{interval}{sign}$")
        lines.append(" & ".join([_latex_words(method), *cells]) + r" \\")
    if table.trivial:
        cells = [
            "" if (value := table.trivial.get(measure.label)) is None else f"${number(value, measure)}$"
            for measure in table.measures
        ]
        lines += [r"\midrule", " & ".join([TRIVIAL, *cells]) + r" \\"]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _latex_words(text: str) -> str:
    for character in ("\\", "&", "%", "_", "#", "$", "{", "}"):
        replaced = r"\textbackslash " if character == "\\" else "\\" + character
        text = text.replace(character, replaced)
    return text.replace("↓", r"$\downarrow$")


def plain_data(table: BenchmarkTable) -> dict[str, Any]:
    """Return the table as plain data, for json."""
    entries: list[Mapping[str, Any]] = [
        {"method": method, "measure": label, **dataclasses.asdict(entry)}
        for (method, label), entry in table.entries.items()
    ]
    return {
        "reference": table.reference,
        "significance": table.significance,
        "measures": [dataclasses.asdict(measure) for measure in table.measures],
        "methods": list(table.methods),
        "entries": entries,
        "trivial": dict(table.trivial),
    }


def table_of_plain_data(content: Mapping[str, Any]) -> BenchmarkTable:
    """Return the table that `plain_data` made this of.

    Raises:
        ValueError: If it is none.

    Example:
        >>> from earmark.evaluation.benchmark import summarise
        >>> table = summarise({"top-1": {"a": {0: 1.0}}}, [Measure("top-1")], methods=["a"], reference="a")
        >>> table_of_plain_data(plain_data(table)) == table
        True
    """
    try:
        return BenchmarkTable(
            reference=str(content["reference"]),
            measures=tuple(Measure(**measure) for measure in content["measures"]),
            methods=tuple(map(str, content["methods"])),
            entries={(str(one["method"]), str(one["measure"])): _entry(one) for one in content["entries"]},
            trivial={str(label): float(value) for label, value in content["trivial"].items()},
            significance=float(content["significance"]),
        )
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"no table of a benchmark ({type(error).__name__}: {error})") from error


def _entry(content: Mapping[str, Any]) -> Entry:
    over, difference = content["over_seeds"], content["difference"]
    by_seed = {int(seed): float(value) for seed, value in over["by_seed"].items()}  # whose keys json makes text
    if difference is not None:
        difference = PairedDifference(**{**difference, "seeds": tuple(difference["seeds"])})
    return Entry(MeanOverSeeds(**{**over, "by_seed": by_seed}), difference)
