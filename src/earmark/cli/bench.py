"""`earmark bench`: does it work? Methods by seeds on one kitchen, with one budget, judged by the same probes.

Beside the path of a sample: it generates and prepares a kitchen, has the commands of every cell run, and writes what
`earmark.evaluation.benchmark` makes of their numbers as a table and a page.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path

from earmark.atomic import replacing, require_writable
from earmark.cli.bench_cells import CellOutcome, run_cells, stored_outcome
from earmark.cli.bench_kitchens import EpochLengths, NoBatchError, make_changed_kitchens, make_kitchens, prepare
from earmark.cli.bench_plan import Cell, Places, cells_of, prepare_commands, tuning_cells
from earmark.cli.bench_presets import METHODS, PRESETS, TASKS, BenchPreset
from earmark.cli.bench_studies import STUDIES, Change
from earmark.cli.bench_study_plan import changes_of, methods_of, study_cells
from earmark.cli.bench_tuning import ChosenRate, chosen_rates
from earmark.cli.config import ConfigError
from earmark.cli.terminal import DONE, FAILED, num_cpus, positive, print_json, say, screen
from earmark.json_text import read_json
from earmark.wording import counted, duration_text, visible

__all__ = ["add_arguments", "run", "run_bench"]

FORMAT_VERSION = 1
MAX_JOBS_ON_GPU = 4
# What of a preset may change between two calls for the same folder: which cells there are, not what a cell is.
NOT_COMPARED = ("words", "seeds", "tasks", "rates_found")


@dataclasses.dataclass(frozen=True, slots=True)
class Running:
    """How cells are run.

    Attributes:
        num_jobs: Cells at a time.
        num_threads: Of each of them.
        num_workers: Processes that load data, for each of them.
    """

    num_jobs: int
    num_threads: int
    num_workers: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    presets = "; ".join(f"{name}: {preset.words}" for name, preset in PRESETS.items())
    parser.add_argument("--preset", choices=tuple(PRESETS), default="quick", help=f"{presets} (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for all that is made (default: earmark_data/bench/PRESET)"
    )
    parser.add_argument(
        "--methods", nargs="+", choices=tuple(METHODS), metavar="NAME", help=f"some of {', '.join(METHODS)}"
    )
    parser.add_argument("--tasks", nargs="+", choices=tuple(TASKS), metavar="NAME", help=f"some of {', '.join(TASKS)}")
    parser.add_argument(
        "--studies",
        nargs="+",
        choices=("all", *STUDIES),
        metavar="NAME",
        help=f"in place of the table, what the quality depends on, one factor at a time: all, or some of "
        f"{', '.join(STUDIES)}; the page has both",
    )
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="in place of the preset's")
    parser.add_argument(
        "--jobs", type=positive, metavar="N", help="cells at a time (default: one per core, on a GPU at most four)"
    )
    parser.add_argument(
        "--threads", type=positive, default=1, metavar="N", help="threads of each of them (default: %(default)s)"
    )
    parser.add_argument(
        "--tune", action="store_true", help="choose the learning rates anew, where the preset has them already"
    )
    parser.add_argument(
        "--list",
        action="store_true",
        help="print the commands, and train nothing; what they leave here, run anywhere, counts",
    )
    parser.add_argument("--json", action="store_true", help="print JSON: an object with the table and every cell")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run a benchmark, or go on with it.

    Args:
        options: As parsed.

    Returns:
        The exit code: 1 if a cell failed.
    """
    out = options.out or Path("earmark_data") / "bench" / options.preset
    preset = PRESETS[options.preset]
    preset = dataclasses.replace(
        preset, seeds=tuple(options.seeds or preset.seeds), tasks=tuple(options.tasks or preset.tasks)
    )
    if options.tune:
        preset = dataclasses.replace(preset, rates={}, rates_found="")
    return run_bench(
        preset,
        out,
        methods=options.methods or tuple(METHODS),
        studies=tuple(name for name in STUDIES if {name, "all"} & set(options.studies or ())),
        num_jobs=options.jobs,
        num_threads=options.threads,
        only_list=options.list,
        as_json=options.json,
    )


def run_bench(
    preset: BenchPreset,
    out: Path,
    *,
    methods: Sequence[str] = tuple(METHODS),
    studies: Sequence[str] = (),
    num_jobs: int | None = None,
    num_threads: int = 1,
    only_list: bool = False,
    as_json: bool = False,
) -> int:
    """Run the cells that are not done of the table, or of studies, and write what they show, with one page of all.

    Args:
        preset: What is run; with the seeds and tasks that are wanted.
        out: Folder for all that is made; another call for it goes on.
        methods: Rows of the table; of studies, those of their methods that are wanted.
        studies: Names of `earmark.cli.bench_studies.STUDIES`, run in place of the table.
        num_jobs: Cells at a time; None for one per core, or up to four on a GPU.
        num_threads: Of each of them.
        only_list: Print the commands of the cells in place of running them.
        as_json: Print the table as JSON.

    Returns:
        The exit code: 1 if a cell failed.

    Raises:
        ConfigError: If the folder holds a benchmark of other settings, a seed is given twice, the studies have no
            point of the methods, or the training videos make no batch. A point of a study whose videos make none is
            named and left out.
        ValueError: If a run that a learning rate is to be chosen by failed.
    """
    _require_grid(preset, methods, studies)
    require_writable(out)
    out, methods = out.resolve(), tuple(name for name in METHODS if name in methods)
    _claim(out, preset)
    places, lengths, running = Places(out), EpochLengths(preset, Places(out)), _shares(num_jobs, num_threads)
    used = methods_of(studies, preset, methods) if studies else methods
    trained = [method for method in used if METHODS[method] is not None]
    untuned = [method for method in trained if method not in preset.rates]

    make_kitchens(preset, places, tune=bool(untuned))
    for command in prepare_commands(preset, places, tasks=preset.tasks, tune=bool(untuned)):
        prepare(command)
    to_tune = tuning_cells(
        preset,
        places,
        methods=untuned,
        num_batches={method: lengths(method, tuning=True) for method in untuned},
        num_workers=running.num_workers,
    )
    if only_list and any(stored_outcome(cell, out) is None for cell in to_tune):
        say("the learning rates are chosen by what these reach; when they are through, --list has the cells")
        _list(to_tune)
        return DONE
    tuned, outcomes = _tune(to_tune, places, running)
    rates = {method: tuned[method].lr if method in tuned else preset.rates[method] for method in trained}
    num_batches = {method: lengths(method) for method in trained}
    changes = changes_of(studies, preset, methods)
    make_changed_kitchens(preset, places, [change for _, change in changes])
    left_out = _without_batch(changes, lengths)
    of_studies = {
        name: study_cells(
            name,
            preset,
            places,
            methods=methods,
            rates=rates,
            num_batches=lengths,
            num_workers=running.num_workers,
            left_out=left_out.keys(),
        )
        for name in studies
    }
    cells = list({one.cell.name: one.cell for found in of_studies.values() for one in found}.values())
    if not studies:
        cells = cells_of(
            preset, places, methods=methods, rates=rates, num_batches=num_batches, num_workers=running.num_workers
        )
    if only_list:
        _list(cells)
        return DONE
    outcomes |= _run(cells, places, "cells", running)

    from earmark.cli.bench_results import write_page, write_table
    from earmark.cli.bench_study_results import write_studies

    console = None if as_json else screen()
    if studies:
        content = write_studies(of_studies, preset, places, outcomes, console=console, left_out=left_out)
    else:
        content = write_table(
            out,
            preset,
            cells,
            outcomes,
            methods=methods,
            tuned=tuned,
            rates=rates,
            num_batches=num_batches,
            console=console,
        )
    write_page(out)
    if as_json:
        print_json(content)
    say(f"page: {out / 'report.html'}")
    return FAILED if _say_failed([outcomes[cell.name] for cell in cells]) else DONE


def _without_batch(changes: Sequence[tuple[str, Change]], lengths: EpochLengths) -> dict[tuple[str, Change], str]:
    """Return which changed pretrainings have too few videos for one batch, with the reason; each is named."""
    found: dict[tuple[str, Change], str] = {}
    for method, change in changes:
        try:
            lengths(method, change)
        except NoBatchError as error:
            found[method, change] = str(error)
            say(f"left out of the studies: {error}")
    return found


def _require_grid(preset: BenchPreset, methods: Sequence[str], studies: Sequence[str]) -> None:
    """Refuse seeds and methods that make no grid."""
    if len(set(preset.seeds)) < len(preset.seeds) or any(seed < 0 for seed in preset.seeds):
        raise ConfigError(f"--seeds: must be different numbers of at least 0, got {' '.join(map(str, preset.seeds))}")
    if preset.tuning_seed in preset.seeds:
        raise ConfigError(f"--seeds: {preset.tuning_seed} is the seed that learning rates are chosen with")
    without = [name for name in studies if not changes_of([name], preset, methods)]
    if without:
        pretrained = ", ".join(dict.fromkeys(line for name in without for line in STUDIES[name].methods))
        raise ConfigError(f"--methods: none is pretrained by {', '.join(without)}, which are about {pretrained}")


def _claim(out: Path, preset: BenchPreset) -> None:
    """Write down what a cell is here; refuse a folder whose cells are others."""
    settings = {
        name: value for name, value in dataclasses.asdict(preset).items() if name not in (*NOT_COMPARED, "rates")
    }
    settings = json.loads(json.dumps({"format_version": FORMAT_VERSION, **settings}))
    path = out / "bench.json"
    if path.exists():
        try:
            there = read_json(path, max_bytes=2**20)
        except ValueError as error:
            raise ConfigError(f"{path}: not the description of a benchmark ({error})") from error
        if not isinstance(there, dict):
            raise ConfigError(f"{path}: not the description of a benchmark")
        differing = [name for name in settings.keys() | there.keys() if settings.get(name) != there.get(name)]
        if differing:
            raise ConfigError(
                f"--out: {out} holds a benchmark of other settings ({', '.join(sorted(differing))}); "
                "choose another folder"
            )
        return
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(settings, indent=2) + "\n")


def _shares(num_jobs: int | None, num_threads: int) -> Running:
    """Return how many cells run at a time, with which threads and processes that load data."""
    import torch

    cores, on_gpu = num_cpus(), torch.cuda.is_available()
    if num_jobs is None:
        num_jobs = max(1, min(MAX_JOBS_ON_GPU if on_gpu else cores, cores // num_threads))
    # Without a GPU, a cell's own process reads its clips: it would wait for them anyway.
    return Running(num_jobs, num_threads, max(1, cores // num_jobs - 1) if on_gpu else 0)


def _tune(
    cells: Sequence[Cell], places: Places, running: Running
) -> tuple[dict[str, ChosenRate], dict[str, CellOutcome]]:
    """Choose the learning rate of each method, and say what each rate reached.

    Returns:
        The rates by method, and what became of the runs that they were chosen by.
    """
    if not cells:
        return {}, {}
    outcomes = _run(cells, places, "learning rates", running)
    tuned = chosen_rates(cells, outcomes)
    for method, one in tuned.items():
        tried = ", ".join(f"{lr:g}: {value:.1f} %" for lr, value in one.quality.items())
        say(f"{method}: learning rate {one.lr:g} ({tried}){', at the edge of those tried' if one.on_edge else ''}")
    return tuned, outcomes


def _list(cells: Sequence[Cell]) -> None:
    for cell in cells:
        for command in ([] if cell.pretrain is None else [cell.pretrain]) + list(cell.evaluations.values()):
            print(command)


def _say_failed(outcomes: Sequence[CellOutcome]) -> bool:
    """Say which cells failed and why; return whether any did."""
    failed = [outcome for outcome in outcomes if outcome.problem is not None]
    for outcome in failed:
        say(f"{outcome.name}: {outcome.problem}")
    if failed:
        what = f"{counted(len(failed), 'cell')} of {len(outcomes)} failed"
        say(f"{what}, so the table lacks them; the same command tries them again")
    return bool(failed)


def _run(cells: Sequence[Cell], places: Places, what: str, running: Running) -> dict[str, CellOutcome]:
    """Run cells, and say what became of each."""
    say(f"{what}: {counted(len(cells), 'run')}, {running.num_jobs} at a time; logs are in {places.out / 'logs'}")
    began = time.monotonic()
    outcomes: dict[str, CellOutcome] = {}
    for outcome in run_cells(cells, places.out, num_jobs=running.num_jobs, num_threads=running.num_threads):
        outcomes[outcome.name] = outcome
        if outcome.problem is not None:
            became = f"failed: {outcome.problem}"
        else:
            became = ", ".join(_headline(task, outcome) for task in outcome.found)
            became += f" ({outcome.cpu_seconds:.0f} s of CPU)" if outcome.num_run else " (done before)"
        passed = duration_text(time.monotonic() - began)
        say(visible(f"{len(outcomes)} of {len(cells)} after {passed}: {outcome.name}: {became}"))
    return outcomes


def _headline(task: str, outcome: CellOutcome) -> str:
    label, measure = next(iter(TASKS[task].measures.items()))
    value = outcome.found[task].values.get(label)
    return f"{measure.label} " + ("not measured" if value is None else f"{value:.{measure.decimals}f} {measure.unit}")
