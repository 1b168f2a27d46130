"""Runs the cells of a benchmark in worker processes; what is done already is found by its results.

Beside the path of a sample: `earmark.cli.bench_plan` --> this --> the numbers of each cell. A cell is what its commands
would do if they were typed: the same functions are called, with the same run folder, so that a cell that was killed
goes on from its last checkpoint, and one that was run by hand or on a cluster is taken as it is.
"""

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib

from earmark.atomic import replacing
from earmark.cli.bench_plan import Cell, Command
from earmark.cli.config import ConfigError
from earmark.json_text import read_json
from earmark.training.interrupts import REQUEUE, STOP_SIGNALS
from earmark.wording import visible
from earmark.worker_processes import parallel

__all__ = ["CellOutcome", "Found", "read_cost", "require_same_settings", "run_cell", "run_cells", "stored_outcome"]

MAX_RESULTS_BYTES = 2**26  # a page of results has 100 kB
# What may differ between an evaluation that is found and the command: where it was made, not what was measured.
COMPARED = ("data_augm", "optim", "train_algo", "evaluate")
# Sections of a pretraining that say what is learned, and keys of them that say where and how fast.
LEARNED = ("data", "data_augm", "backbone", "criterion", "optim", "train_algo", "prepare")
NOT_LEARNED = ("data.args.base_path", "data.store", "prepare.workers", "prepare.isolate", "prepare.backend")
STOPPED = (REQUEUE, *(128 + number for number in STOP_SIGNALS), 129)  # exit codes of signals; 129 is SIGHUP


@dataclass(frozen=True, slots=True)
class Found:
    """What an evaluation measured.

    Attributes:
        folder: Of results.json and report.html.
        values: By the label of the row, what the encoder reached.
        trivial: By the label of the row, what an answer reaches that ignores the video.
    """

    folder: str
    values: Mapping[str, float]
    trivial: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class CellOutcome:
    """What became of a cell.

    Attributes:
        name: Of the cell.
        found: By task.
        problem: Why it is not whole, with the file that has more; None if it is.
        num_run: How many of its commands were run, and not found done.
        cpu_seconds: Of processor time that they took, with their workers.
        seconds: That they took.
    """

    name: str
    found: Mapping[str, Found] = field(default_factory=dict)
    problem: str | None = None
    num_run: int = 0
    cpu_seconds: float = 0.0
    seconds: float = 0.0


def run_cells(
    cells: Sequence[Cell],
    out: Path,
    *,
    num_jobs: int,
    num_threads: int = 1,
    run: Callable[[Cell, Path, int], CellOutcome] | None = None,
) -> Iterator[CellOutcome]:
    """Run cells, several at a time, and yield what became of each as it ends.

    Args:
        cells: The cells.
        out: Folder of the benchmark.
        num_jobs: Processes that run a cell each.
        num_threads: Of each of them.
        run: What runs a cell; `run_cell`.
    """
    calls = [joblib.delayed(run or run_cell)(cell, out, num_threads) for cell in cells]
    # No more are handed out than the workers' queue holds: loky, stopped with others, fails in a thread of its own.
    yield from parallel(num_jobs, calls, return_as="generator_unordered", batch_size=1, pre_dispatch="2 * n_jobs")


def run_cell(cell: Cell, out: Path, num_threads: int = 1) -> CellOutcome:
    """Run the commands of a cell that are not done, with what they print in ``OUT/logs/CELL.log``.

    A cell that fails is told, and the others go on.

    Args:
        cell: The cell.
        out: Folder of the benchmark.
        num_threads: Of this process.

    Raises:
        SystemExit: If a signal asked to stop: no failure of the cell, which goes on when it is run again.
    """
    import torch

    torch.set_num_threads(num_threads)
    log = out / "logs" / f"{cell.name}.log"
    found: dict[str, Found] = {}
    num_run, problem = 0, None
    began, cpu_began = time.monotonic(), _cpu_seconds()
    with _printing_to(log):
        try:
            require_same_settings(cell, out)
            for task, command in cell.evaluations.items():
                values = _composed(command)
                there = stored_results(out / "outputs" / cell.name, values)
                if there is None:
                    if cell.pretrain is not None and cell.checkpoint is not None and not cell.checkpoint.exists():
                        _pretrain(cell.pretrain)
                        num_run += 1
                    _evaluate(command, values)
                    num_run += 1
                    there = stored_results(out / "outputs" / cell.name, values)
                    if there is None:
                        raise FileNotFoundError(f"{out / 'outputs' / cell.name}: no results of {task} after {command}")
                found[task] = there
        except (Exception, SystemExit) as error:
            if isinstance(error, SystemExit) and error.code in STOPPED:
                raise
            import traceback

            traceback.print_exc()
            problem = f"{visible(str(error)) or type(error).__name__} ({log} has more)"
    outcome = CellOutcome(
        cell.name, found, problem, num_run, _cpu_seconds() - cpu_began if num_run else 0.0, time.monotonic() - began
    )
    if num_run:
        _add_cost(out, outcome)
    return outcome


def stored_outcome(cell: Cell, out: Path) -> CellOutcome | None:
    """Return the outcome of a cell that is done; None where something of it is missing.

    Args:
        cell: The cell.
        out: Folder of the benchmark.

    Raises:
        ConfigError: As `require_same_settings`.
    """
    found: dict[str, Found] = {}
    require_same_settings(cell, out)
    for task, command in cell.evaluations.items():
        there = stored_results(out / "outputs" / cell.name, _composed(command))
        if there is None:
            return None
        found[task] = there
    return CellOutcome(cell.name, found)


def require_same_settings(cell: Cell, out: Path) -> None:
    """Refuse a run folder of the cell's name that holds a run of other settings, whose results are not the cell's.

    Keys that only one of them has are not compared: a run of before may lack those that came later.

    Args:
        cell: The cell.
        out: Folder of the benchmark.

    Raises:
        ConfigError: Naming the settings.
    """
    from omegaconf import OmegaConf

    path = out / "outputs" / cell.name / "config.yaml"
    if cell.pretrain is None or not path.exists():
        return
    there = _flat(OmegaConf.to_container(OmegaConf.load(path)))
    apart = ("environment.", "logging.")  # of each cell its own; the same for all of them that are composed once
    wanted = _learned(tuple(text for text in cell.pretrain.overrides if not text.startswith(apart)))
    differing = [
        f"{key} is {there[key]}, not {value}" for key, value in wanted.items() if key in there and there[key] != value
    ]
    if differing:
        raise ConfigError(
            f"{path.parent}: holds a run of other settings ({', '.join(differing)}); remove it, or give what is to be "
            "run another name"
        )


@functools.lru_cache(maxsize=64)
def _learned(overrides: tuple[str, ...]) -> dict[str, Any]:
    values = _flat(_composed(Command("pretrain", overrides)))
    return {key: value for key, value in values.items() if key.split(".")[0] in LEARNED and key not in NOT_LEARNED}


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested values by their full names."""
    if not isinstance(values, Mapping):
        return {prefix: values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def stored_results(folder: Path, values: Mapping[str, Any]) -> Found | None:
    """Return what an evaluation of these settings measured, if it is in a run folder.

    Args:
        folder: Of the run.
        values: The composed configuration of the evaluation.

    Returns:
        The numbers; None if there are none, or only of other settings.
    """
    for path in sorted(folder.glob("*/results.json")):
        try:
            content = read_json(path, max_bytes=MAX_RESULTS_BYTES)
            if _asked(content["config"]) != _asked(values):
                continue
            rows = content["rows"]
            return Found(
                str(path.parent),
                {row["label"]: float(row["score"]["encoder"]["value"]) for row in rows},
                {row["label"]: float(row["score"]["majority"]["value"]) for row in rows},
            )
        except (OSError, ValueError, LookupError, TypeError):
            continue  # damaged, or none of ours: it is made anew
    return None


def _asked(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a configuration the numbers depend on, beside encoder and videos."""
    asked: dict[str, Any] = {section: values[section] for section in COMPARED}
    checkpoint = values["evaluate"]["checkpoint"]  # the same run may lie elsewhere by now
    asked["evaluate"] = {**values["evaluate"], "checkpoint": None if checkpoint is None else Path(checkpoint).name}
    asked["seed"] = values["environment"]["seed"]
    asked["data"] = {name: values["data"][name] for name in ("name", "clip_seconds", "clip_fps", "audio_seconds")}
    return asked


def _composed(command: Command) -> dict[str, Any]:
    from earmark.cli.config import compose

    return compose("default_lincls" if command.program == "evaluate" else "default_ssrl", command.overrides)


def _pretrain(command: Command) -> None:
    from earmark.cli.config import PretrainConfig, checked
    from earmark.cli.pretrain import run_pretraining

    print(command, file=sys.stderr, flush=True)
    values = _composed(command)
    run_pretraining(checked(PretrainConfig, values), values)


def _evaluate(command: Command, values: dict[str, Any]) -> None:
    from earmark.cli.config import EvaluateConfig, checked
    from earmark.cli.evaluate import evaluate

    print(command, file=sys.stderr, flush=True)
    evaluate(checked(EvaluateConfig, values), values)


@contextmanager
def _printing_to(path: Path) -> Iterator[None]:
    """Have all that this process prints go to the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(number) for number in (1, 2)]
    try:
        with path.open("ab") as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, number)
            os.close(copy)


def _cpu_seconds() -> float:
    """Return the processor time of this process and of those of its children that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _add_cost(out: Path, outcome: CellOutcome) -> None:
    """Add what a cell took to what it had taken before it was stopped."""
    cpu_seconds, seconds = read_cost(out, outcome.name)
    target = out / "costs" / f"{outcome.name}.json"
    content = {"cpu_seconds": cpu_seconds + outcome.cpu_seconds, "seconds": seconds + outcome.seconds}
    with replacing(target) as temporary:
        temporary.write_text(json.dumps(content) + "\n")


def read_cost(out: Path, name: str) -> tuple[float, float]:
    """Return what a cell took in all that was written down: seconds of processor time, and seconds."""
    try:
        content = read_json(out / "costs" / f"{name}.json", max_bytes=2**16)
        return float(content["cpu_seconds"]), float(content["seconds"])
    except (OSError, ValueError, LookupError, TypeError):
        return 0.0, 0.0
