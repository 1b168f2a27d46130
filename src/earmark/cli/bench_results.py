"""From the outcomes of a benchmark's cells to its table, files and page.

Beside the path of a sample: `earmark.cli.bench` calls this when the cells are through.
"""

import dataclasses
import io
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark import __version__
from earmark.atomic import replacing
from earmark.cli.bench_cells import CellOutcome, read_cost
from earmark.cli.bench_plan import Cell, num_epochs
from earmark.cli.bench_presets import REFERENCE, TASKS, BenchPreset
from earmark.cli.bench_tuning import ChosenRate
from earmark.cli.terminal import say
from earmark.evaluation.benchmark import BenchmarkTable, summarise
from earmark.evaluation.benchmark_page import BenchmarkCell, write_benchmark_page
from earmark.evaluation.benchmark_tables import csv_text, difference_table, latex_text, mean_table, plain_data
from earmark.wording import duration_text

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["show_results", "table_of", "write_results"]


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
    measures = [measure for task in preset.tasks for measure in TASKS[task].measures.values()]
    scores: dict[str, dict[str, dict[int, float]]] = {measure.label: {} for measure in measures}
    trivial: dict[str, float] = {}
    for cell in cells:
        for task, found in outcomes[cell.name].found.items():
            for row, measure in TASKS[task].measures.items():
                if row in found.values:
                    scores[measure.label].setdefault(cell.method, {})[cell.seed] = found.values[row]
                    trivial.setdefault(measure.label, found.trivial[row])
                else:
                    say(f"{cell.name}: {found.folder} has no {row}")
    return summarise(scores, measures, methods=methods, reference=REFERENCE, trivial=trivial)


def show_results(console: "Console", table: BenchmarkTable) -> None:
    """Print means and differences."""
    console.print(mean_table(table))
    console.print(difference_table(table))


def write_results(
    out: Path,
    preset: BenchPreset,
    table: BenchmarkTable,
    cells: Sequence[Cell],
    outcomes: Mapping[str, CellOutcome],
    *,
    tuned: Mapping[str, ChosenRate],
    rates: Mapping[str, float],
    num_batches: Mapping[str, int],
) -> dict[str, Any]:
    """Write table.txt, table.csv, table.tex, results.json and report.html.

    Returns:
        What results.json holds.
    """
    shown = [_shown_cell(out, cell, outcomes[cell.name]) for cell in cells]
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
    _write(out / "table.txt", _as_text(table))
    _write(out / "table.csv", csv_text(table))
    _write(out / "table.tex", latex_text(table))
    _write(out / "results.json", json.dumps(content, indent=2) + "\n")
    write_benchmark_page(
        out / "report.html",
        table,
        setting=setting,
        rates=rates,
        rates_found=str(content["learning_rates_found"]),
        tried={method: one.quality for method, one in tuned.items()},
        cells=shown,
    )
    return content


def _as_text(table: BenchmarkTable) -> str:
    """Return what `show_results` prints, wide enough for every column."""
    from rich.console import Console

    text = io.StringIO()
    show_results(Console(file=text, width=24 * (1 + len(table.measures)), markup=False, highlight=False), table)
    return text.getvalue()


def _write(path: Path, text: str) -> None:
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


def _shown_cell(out: Path, cell: Cell, outcome: CellOutcome) -> BenchmarkCell:
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
