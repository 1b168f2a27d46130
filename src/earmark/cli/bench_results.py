"""From the outcomes of a benchmark's cells to its table, files and page.

Beside the path of a sample: `earmark.cli.bench` calls this when the cells are through.
"""

import dataclasses
import io
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark import __version__
from earmark.atomic import replacing
from earmark.cli.bench_cells import MAX_RESULTS_BYTES, CellOutcome, read_cost
from earmark.cli.bench_plan import Cell, num_epochs
from earmark.cli.bench_presets import REFERENCE, TASKS, BenchPreset
from earmark.cli.bench_studies import STUDIES
from earmark.cli.bench_tuning import ChosenRate
from earmark.cli.terminal import say
from earmark.evaluation.benchmark import BenchmarkTable, Measure, summarise
from earmark.evaluation.benchmark_page import BenchmarkCell, ShownStudy, ShownTable, write_benchmark_page
from earmark.evaluation.benchmark_studies import study_of_plain_data
from earmark.evaluation.benchmark_tables import (
    csv_text,
    difference_table,
    latex_text,
    mean_table,
    plain_data,
    table_of_plain_data,
)
from earmark.json_text import read_json
from earmark.wording import duration_text

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["as_text", "show_results", "shown_cell", "table_of", "write_page", "write_table", "write_text"]


def table_of(
    preset: BenchPreset, cells: Sequence[Cell], outcomes: Mapping[str, CellOutcome], methods: Sequence[str]
) -> BenchmarkTable:
    """Return the table of what was measured; what a cell did not measure is missing in it.

    Args:
        preset: Its tasks are the columns.
        cells: The cells.
        outcomes: What became of them, by name.
        methods: The rows.
    """
    scores, trivial = scores_of([(cell.method, cell) for cell in cells], outcomes)
    return summarise(scores, measures_of(preset), methods=methods, reference=REFERENCE, trivial=trivial)


def measures_of(preset: BenchPreset) -> list[Measure]:
    """Return what the tasks of a preset measure, in their order."""
    return [measure for task in preset.tasks for measure in TASKS[task].measures.values()]


def scores_of(
    rows: Iterable[tuple[str, Cell]], outcomes: Mapping[str, CellOutcome]
) -> tuple[dict[str, dict[str, dict[int, float]]], dict[str, float]]:
    """Return what cells measured; what one did not measure is missing, and told.

    Args:
        rows: The cells, each with the row of a table that it stands in.
        outcomes: What became of them, by name.

    Returns:
        Numbers by label of the measure, row and seed; and by label of the measure, what ignores the video.
    """
    scores: dict[str, dict[str, dict[int, float]]] = {}
    trivial: dict[str, float] = {}
    for row, cell in rows:
        for task, found in outcomes[cell.name].found.items():
            for label, measure in TASKS[task].measures.items():
                if label in found.values:
                    scores.setdefault(measure.label, {}).setdefault(row, {})[cell.seed] = found.values[label]
                    trivial.setdefault(measure.label, found.trivial[label])
                else:
                    say(f"{cell.name}: {found.folder} has no {label}")
    return scores, trivial


def show_results(
    console: "Console", table: BenchmarkTable, *, title: str = "Means over seeds", rows: str = "method"
) -> None:
    """Print means and differences."""
    console.print(mean_table(table, title=title, rows=rows))
    console.print(difference_table(table, rows=rows))


def write_table(
    out: Path,
    preset: BenchPreset,
    cells: Sequence[Cell],
    outcomes: Mapping[str, CellOutcome],
    *,
    methods: Sequence[str],
    tuned: Mapping[str, ChosenRate],
    rates: Mapping[str, float],
    num_batches: Mapping[str, int],
    console: "Console | None",
) -> dict[str, Any]:
    """Write table.txt, table.csv, table.tex and results.json, and print the table where there is a console.

    Returns:
        What results.json holds.
    """
    table = table_of(preset, cells, outcomes, methods)
    if console is not None:
        show_results(console, table)
    shown = [shown_cell(out, cell, outcomes[cell.name]) for cell in cells]
    setting = _setting(preset, rates=rates, num_batches=num_batches)
    cpu_seconds = sum(read_cost(out, name)[0] for name in outcomes)
    setting["processor time of all runs"] = f"{cpu_seconds:,.0f} s"
    chosen = [{"method": method, **dataclasses.asdict(one)} for method, one in tuned.items()]
    content = {
        "table": plain_data(table),
        "setting": setting,
        "learning_rates": dict(rates),
        "learning_rates_found": preset.rates_found if not tuned else "here, on held-out training videos",
        "tuning": [{**one, "quality": {f"{lr:g}": value for lr, value in one["quality"].items()}} for one in chosen],
        "cells": [dataclasses.asdict(cell) for cell in shown],
    }
    write_text(out / "table.txt", as_text({"Means over seeds": table}))
    write_text(out / "table.csv", csv_text(table))
    write_text(out / "table.tex", latex_text(table))
    write_text(out / "results.json", json.dumps(content, indent=2) + "\n")
    return content


def write_page(out: Path) -> None:
    """Write report.html of the table and the studies that were written to a folder, by whichever call."""
    table: ShownTable | None = None
    studies: list[ShownStudy] = []
    if (content := _written(out / "results.json")) is not None:
        table = _shown_table(content)
    for name in STUDIES:
        if (content := _written(out / "studies" / f"{name}.json")) is not None:
            cells = tuple(map(_cell_of_plain_data, content["cells"]))
            studies.append(ShownStudy(study_of_plain_data(content["study"]), _figure(out, name), cells))
    write_benchmark_page(out / "report.html", table, studies)


def _figure(out: Path, name: str) -> str:
    """Return the figure of a study; empty where its file is gone."""
    path = out / "studies" / f"{name}.svg"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _written(path: Path) -> dict[str, Any] | None:
    """Return what was written to a file; None if nothing was, or if it is damaged, which is told."""
    if not path.exists():
        return None
    try:
        content = read_json(path, max_bytes=MAX_RESULTS_BYTES)
        if not isinstance(content, dict):
            raise TypeError("not an object")
        # what is of another version, or changed by hand, is found before the page is begun
        if "study" in content:
            study_of_plain_data(content["study"])
            for cell in content["cells"]:
                _cell_of_plain_data(cell)
        else:
            _shown_table(content)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        say(f"{path}: not what a benchmark writes, so the page is without it ({error})")
        return None
    return content


def _shown_table(content: Mapping[str, Any]) -> ShownTable:
    return ShownTable(
        table_of_plain_data(content["table"]),
        setting=content["setting"],
        rates={method: float(lr) for method, lr in content["learning_rates"].items()},
        rates_found=str(content["learning_rates_found"]),
        tried={
            str(one["method"]): {float(lr): float(value) for lr, value in one["quality"].items()}
            for one in content["tuning"]
        },
        cells=tuple(map(_cell_of_plain_data, content["cells"])),
    )


def _cell_of_plain_data(content: Mapping[str, Any]) -> BenchmarkCell:
    return BenchmarkCell(**{**content, "commands": tuple(content["commands"]), "results": tuple(content["results"])})


def as_text(tables: Mapping[str, BenchmarkTable], *, rows: str = "method") -> str:
    """Return what `show_results` prints of tables by title, wide enough for every column."""
    from rich.console import Console

    text = io.StringIO()
    for title, table in tables.items():
        console = Console(file=text, width=24 * (1 + len(table.measures)), markup=False, highlight=False)
        show_results(console, table, title=title, rows=rows)
    return text.getvalue()


def write_text(path: Path, text: str) -> None:
    """Write a file as a whole."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _setting(preset: BenchPreset, *, rates: Mapping[str, float], num_batches: Mapping[str, int]) -> dict[str, str]:
    size = preset.kitchen
    seconds = size.num_kitchens * size.videos_per_kitchen * size.video_seconds
    by_steps: dict[int, list[str]] = {}
    for method, count in num_batches.items():
        by_steps.setdefault(num_epochs(preset, count) * count, []).append(method)
    of_methods = [f"{', '.join(methods)}: {steps}" for steps, methods in sorted(by_steps.items())]
    steps = str(next(iter(by_steps))) if len(by_steps) == 1 else "; ".join(of_methods)
    return {
        "videos": (
            f"{duration_text(seconds)} of Audible Kitchen, {size.width} x {size.height}, seed {preset.kitchen_seed}"
        ),
        "pretraining": f"batch {preset.batch_size}, steps: {steps}",
        "shared settings": " ".join(preset.shared) or "the defaults of earmark pretrain and evaluate",
        "of pretraining": " ".join(preset.pretrain) or "the defaults",
        "of evaluation": " ".join(preset.evaluate),
        "learning rates tried": ", ".join(f"{lr:g}" for lr in preset.rates_tried),
        "learning rates": ", ".join(f"{method} {lr:g}" for method, lr in rates.items()),
        "seeds": ", ".join(map(str, preset.seeds)),
        "machine": f"{platform.machine()} {platform.system()}, Python {platform.python_version()}",
        "earmark": __version__,
    }


def shown_cell(out: Path, cell: Cell, outcome: CellOutcome) -> BenchmarkCell:
    """Return a cell as the page lists it."""
    commands = [cell.pretrain, *cell.evaluations.values()]
    return BenchmarkCell(
        name=cell.name,
        method=cell.method,
        seed=cell.seed,
        folder=str(out / "outputs" / cell.name),
        commands=tuple(str(command) for command in commands if command is not None),
        results=tuple(found.folder for found in outcome.found.values()),
        cpu_seconds=read_cost(out, cell.name)[0],
        problem=outcome.problem,
    )
