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
from earmark.cli.bench_plan import Cell, Command, Places, cells_of, prepare_commands, pretrain_overrides, tuning_cells
from earmark.cli.bench_presets import METHODS, PRESETS, TASKS, BenchPreset
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
    num_jobs: int | None = None,
    num_threads: int = 1,
    only_list: bool = False,
    as_json: bool = False,
) -> int:
    """Run the cells that are not done, and write table and page of all.

    Args:
        preset: What is run; with the seeds and tasks that are wanted.
        out: Folder for all that is made; another call for it goes on.
        methods: Rows of the table.
        num_jobs: Cells at a time; None for one per core, or up to four on a GPU.
        num_threads: Of each of them.
        only_list: Print the commands of the cells in place of running them.
        as_json: Print the table as JSON.

    Returns:
        The exit code: 1 if a cell failed.

    Raises:
        ConfigError: If the folder holds a benchmark of other settings, or a seed is given twice.
        ValueError: If a run that a learning rate is to be chosen by failed.
    """
    if len(set(preset.seeds)) < len(preset.seeds) or any(seed < 0 for seed in preset.seeds):
        raise ConfigError(f"--seeds: must be different numbers of at least 0, got {' '.join(map(str, preset.seeds))}")
    if preset.tuning_seed in preset.seeds:
        raise ConfigError(f"--seeds: {preset.tuning_seed} is the seed that learning rates are chosen with")
    require_writable(out)
    out, methods = out.resolve(), tuple(name for name in METHODS if name in methods)
    _claim(out, preset)
    places = Places(out)
    trained = [method for method in methods if METHODS[method] is not None]
    untuned = [method for method in trained if method not in preset.rates]
    running = _shares(num_jobs, num_threads)

    _make_kitchens(preset, places, tune=bool(untuned))
    for command in prepare_commands(preset, places, tasks=preset.tasks, tune=bool(untuned)):
        _prepare(command)
    to_tune = _tuning_cells(preset, places, untuned, running)
    if only_list and any(stored_outcome(cell, out) is None for cell in to_tune):
        say("the learning rates are chosen by what these reach; when they are through, --list has the cells")
        _list(to_tune)
        return DONE
    tuned, outcomes = _tune(to_tune, places, running)
    rates = {method: tuned[method].lr if method in tuned else preset.rates[method] for method in trained}
    num_batches = {method: _num_batches(preset, places, method) for method in trained}
    cells = cells_of(
        preset, places, methods=methods, rates=rates, num_batches=num_batches, num_workers=running.num_workers
    )
    if only_list:
        _list(cells)
        return DONE
    outcomes |= _run(cells, places, "cells", running)

    from earmark.cli.bench_results import show_results, table_of, write_results

    table = table_of(preset, cells, outcomes, methods)
    content = write_results(out, preset, table, cells, outcomes, tuned=tuned, rates=rates, num_batches=num_batches)
    if as_json:
        print_json(content)
    else:
        show_results(screen(), table)
    say(f"page: {out / 'report.html'}")
    return FAILED if _say_failed([outcomes[cell.name] for cell in cells]) else DONE


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


def _make_kitchens(preset: BenchPreset, places: Places, *, tune: bool) -> None:
    from earmark.kitchen import make_kitchen
    from earmark.kitchen.training_part import write_training_part

    if not (places.kitchen / "events.parquet").exists():
        say(f"generating videos in {places.kitchen}")
    made = make_kitchen(
        places.kitchen,
        size=preset.kitchen,
        difficulty=preset.difficulty,
        seed=preset.kitchen_seed,
        test_split=False,  # which nothing here would use
        num_workers=num_cpus(),
        progress=False,
    )
    length = duration_text(made.duration_seconds)
    say(f"kitchen: {counted(made.num_videos, 'video')}, {length}, {counted(made.num_events, 'action')}")
    if tune:
        write_training_part(places.kitchen, places.tuning_kitchen)


def _prepare(command: Command) -> None:
    """Prepare what is not prepared yet, as the command would; what was refused is told."""
    from earmark.cli.build import open_store
    from earmark.cli.config import PretrainConfig, checked, compose

    config = checked(PretrainConfig, compose("default_ssrl", command.overrides), cuts_clips=False)
    open_store(config.data, config.environment, config.prepare)


def _num_batches(preset: BenchPreset, places: Places, method: str, *, tuning: bool = False) -> int:
    """Return how many whole batches an epoch of a method has.

    Raises:
        ConfigError: If there is less than one.
    """
    from earmark.cli.build import open_store
    from earmark.cli.config import PretrainConfig, checked, compose
    from earmark.cli.method import build_clips

    config = checked(PretrainConfig, compose("default_ssrl", pretrain_overrides(preset, places, method, tuning=tuning)))
    clips, _ = build_clips(config, open_store(config.data, config.environment, config.prepare))
    if len(clips) < preset.batch_size:
        raise ConfigError(
            f"{method}: {counted(len(clips), 'segment')} to train on make no batch of {preset.batch_size}"
        )
    return len(clips) // preset.batch_size


def _tuning_cells(preset: BenchPreset, places: Places, methods: Sequence[str], running: Running) -> list[Cell]:
    """Return the cells that the learning rates of methods are chosen by."""
    num_batches = {method: _num_batches(preset, places, method, tuning=True) for method in methods}
    return tuning_cells(preset, places, methods=methods, num_batches=num_batches, num_workers=running.num_workers)


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
