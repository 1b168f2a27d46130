"""From the outcomes of a study's cells to its files: csv, figure, and for variants the table.

Beside the path of a sample: `earmark.cli.bench` calls this when the cells are through.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from earmark.cli.bench_cells import CellOutcome
from earmark.cli.bench_kitchens import training_hours
from earmark.cli.bench_plan import Places
from earmark.cli.bench_presets import BenchPreset
from earmark.cli.bench_results import as_text, measures_of, scores_of, show_results, shown_cell, write_text
from earmark.cli.bench_studies import STUDIES, Change, Curve
from earmark.cli.bench_study_plan import StudyCell, points_of, reference_of
from earmark.evaluation.benchmark_figures import study_svg
from earmark.evaluation.benchmark_studies import BenchmarkStudy, study_csv_text, study_plain_data, summarise_study
from earmark.evaluation.benchmark_tables import latex_text

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["study_of", "write_studies", "write_study"]

NOTHING: Mapping[tuple[str, Change], str] = MappingProxyType({})


def study_of(
    name: str,
    preset: BenchPreset,
    places: Places,
    cells: Sequence[StudyCell],
    outcomes: Mapping[str, CellOutcome],
    *,
    left_out: Mapping[tuple[str, Change], str] = NOTHING,
) -> BenchmarkStudy:
    """Return what a study found; what a cell did not measure is missing in it, and its words name what has no cell.

    Args:
        name: A key of `earmark.cli.bench_studies.STUDIES`.
        preset: The preset.
        places: Where it lies.
        cells: Of the study.
        outcomes: What became of them, by name.
        left_out: Why points could not be pretrained, by method and change.
    """
    study = STUDIES[name]
    factor = study.factor
    lines = list(dict.fromkeys(one.line for one in cells if one.label is not None))
    on_axis: dict[str, float | None] = {}
    missing: dict[str, list[str]] = {}
    for line in lines:
        for point in points_of(study, line, preset):
            if (reason := left_out.get((point.method, point.change))) is not None:
                missing.setdefault(point.label, []).append(reason)
    measured = {one.label for one in cells}
    for point in points_of(study, lines[0], preset):
        if point.label in missing and point.label not in measured:
            continue
        on_axis[point.label] = None
        if isinstance(factor, Curve) and point.value is not None:
            hours = training_hours(preset, places, point.change.videos)
            on_axis[point.label] = factor.place(point.value, preset, hours)
    trivial: dict[str, float] = {}
    by_line: dict[str, Any] = {}
    for line in lines:
        rows = [(one.label, one.cell) for one in cells if one.line == line and one.label is not None]
        by_line[line], found = scores_of(rows, outcomes)
        trivial |= found
    beside, found = scores_of([(one.line, one.cell) for one in cells if one.label is None], outcomes)
    return summarise_study(
        name,
        title=study.title,
        words=" ".join((study.words, *(f"{label} is left out: {'; '.join(why)}." for label, why in missing.items()))),
        axis=factor.label,
        log=isinstance(factor, Curve) and factor.log,
        places=on_axis,
        reference=reference_of(study, preset),
        lines=by_line,
        beside=beside,
        measures=measures_of(preset),
        trivial=trivial | found,
    )


def write_studies(
    of_studies: Mapping[str, Sequence[StudyCell]],
    preset: BenchPreset,
    places: Places,
    outcomes: Mapping[str, CellOutcome],
    *,
    console: "Console | None",
    left_out: Mapping[tuple[str, Change], str] = NOTHING,
) -> dict[str, Any]:
    """Write the files of studies to the folder ``studies``, and print their tables where there is a console.

    Returns:
        By name, what the NAME.json of each holds.
    """
    content = {}
    for name, cells in of_studies.items():
        study = study_of(name, preset, places, cells, outcomes, left_out=left_out)
        content[name] = write_study(places.out, study, cells, outcomes)
        if console is not None:
            for line, table in study.lines.items():
                show_results(console, table, title=f"{study.title}: {line}", rows=study.axis)
    return content


def write_study(
    out: Path, study: BenchmarkStudy, cells: Sequence[StudyCell], outcomes: Mapping[str, CellOutcome]
) -> dict[str, Any]:
    """Write NAME.csv, NAME.svg, NAME.json and NAME.txt to the folder ``studies``; of variants NAME.tex, too.

    Returns:
        What NAME.json holds.
    """
    by_name = {one.cell.name: one.cell for one in cells}
    shown = [shown_cell(out, cell, outcomes[name]) for name, cell in by_name.items()]
    content = {"study": study_plain_data(study), "cells": [dataclasses.asdict(cell) for cell in shown]}
    folder = out / "studies"
    write_text(folder / f"{study.name}.csv", study_csv_text(study))
    titled = {f"{study.title}: {line}": table for line, table in study.lines.items()}
    write_text(folder / f"{study.name}.txt", as_text(titled, rows=study.axis))
    if not study.is_curve:
        write_text(
            folder / f"{study.name}.tex",
            "\n".join(latex_text(table, rows=study.axis) for table in study.lines.values()),
        )
    write_text(folder / f"{study.name}.svg", study_svg(study))
    write_text(folder / f"{study.name}.json", json.dumps(content, indent=2) + "\n")
    return content
