"""The cells of a benchmark, each as the `earmark pretrain` and `earmark evaluate` commands that make it.

Beside the path of a sample: `earmark.cli.bench_presets` --> commands --> `earmark.cli.bench_cells`, which runs them.
"""

import dataclasses
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from earmark.cli.bench_presets import METHODS, TASKS, BenchPreset
from earmark.cli.bench_studies import Change
from earmark.cli.config import path_value

__all__ = [
    "AS_IN_TABLE",
    "Cell",
    "Command",
    "Places",
    "Trained",
    "cells_of",
    "changed_cell",
    "num_epochs",
    "prepare_commands",
    "pretrain_overrides",
    "tuning_cells",
]

AS_IN_TABLE = Change()

TUNED_BY = "action_recognition"  # the task whose probe on held-out training videos the learning rates are chosen by


@dataclass(frozen=True, slots=True)
class Command:
    """An ordinary command of Earmark with overrides.

    Attributes:
        program: Its name.
        overrides: As on its command line.
    """

    program: Literal["prepare", "pretrain", "evaluate"]
    overrides: tuple[str, ...]

    def __str__(self) -> str:
        return f"earmark {self.program} {shlex.join(self.overrides)}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One method with one seed: what is trained, and by what it is judged.

    Attributes:
        name: Of its run folder.
        method: A key of `earmark.cli.bench_presets.METHODS`.
        seed: Of weights, order, crops and head.
        lr: Learning rate of its pretraining; None where nothing is trained.
        checkpoint: That is judged; None where nothing is trained.
        pretrain: The command that makes it.
        evaluations: The commands that judge it, by task.
    """

    name: str
    method: str
    seed: int
    lr: float | None
    checkpoint: Path | None
    pretrain: Command | None
    evaluations: Mapping[str, Command]


@dataclass(frozen=True, slots=True)
class Places:
    """Where a benchmark lies.

    Attributes:
        out: Folder of all of it, absolute.
    """

    out: Path

    @property
    def kitchen(self) -> Path:
        """Of the generated videos."""
        return self.out / "kitchen"

    @property
    def tuning_kitchen(self) -> Path:
        """Of the kitchen of its training videos, on which learning rates are chosen."""
        return self.out / "tuning_kitchen"

    def kitchen_of(self, change: Change) -> Path:
        """Of the kitchen that a changed pretraining reads."""
        names = [f"{name}_{value:g}" for name, value in change.difficulty]
        if change.videos < 1:
            names.append(f"videos_{change.videos:g}")
        return self.out / "kitchens" / "-".join(names) if names else self.kitchen

    def run_folder(self, cell: str) -> Path:
        """Of a cell."""
        return self.out / "outputs" / cell


@dataclass(frozen=True, slots=True)
class Trained:
    """How an encoder of the benchmark is trained, whatever the seed.

    Attributes:
        method: A key of `earmark.cli.bench_presets.METHODS`.
        lr: Learning rate; None where nothing is trained.
        num_batches: Of an epoch.
        change: From what the table has.
    """

    method: str
    lr: float | None
    num_batches: int = 1
    change: Change = AS_IN_TABLE


def prepare_commands(preset: BenchPreset, places: Places, *, tasks: Sequence[str], tune: bool) -> list[Command]:
    """Return the commands that prepare the videos which cells read, so that cells find them prepared.

    Args:
        preset: The preset.
        places: Where it lies.
        tasks: Names of tasks.
        tune: Whether learning rates are chosen, which is done on a kitchen of the training videos.
    """
    data = [_kitchen(places.kitchen)]
    if tune:
        data.append(_kitchen(places.tuning_kitchen))
    if any(TASKS[task].on_ego4d for task in tasks):
        data.append(_ego4d(places))
    # prepare takes what pretrain takes
    return [Command("prepare", (*of_data, *_everywhere(preset, places, num_workers=0))) for of_data in data]


def cells_of(
    preset: BenchPreset,
    places: Places,
    *,
    methods: Sequence[str],
    rates: Mapping[str, float],
    num_batches: Mapping[str, int],
    num_workers: int = 0,
) -> list[Cell]:
    """Return the cells of a grid, seed by seed, so that a benchmark that is stopped has whole seeds.

    Args:
        preset: The preset.
        places: Where it lies.
        methods: The rows of the grid; its columns are the preset's seeds.
        rates: Learning rate of each method that is trained.
        num_batches: Of an epoch of each method that is trained.
        num_workers: Processes that load data, for each cell.
    """
    return [
        _cell(
            preset,
            places,
            Trained(method, rates.get(method), num_batches.get(method, 1)),
            # the rate is part of the name: with another one it is another cell
            name=f"{method}-lr{rates[method]:g}-seed{seed}" if method in rates else f"{method}-seed{seed}",
            seed=seed,
            tasks=preset.tasks,
            num_workers=num_workers,
        )
        for seed in preset.seeds
        for method in methods
    ]


def changed_cell(
    preset: BenchPreset, places: Places, trained: Trained, *, change_name: str, seed: int, num_workers: int = 0
) -> Cell:
    """Return the cell of a method whose pretraining is changed; where nothing is, that is the cell of the table.

    Args:
        preset: The preset.
        places: Where it lies.
        trained: The method and its change.
        change_name: Of the change, for the run folder.
        seed: As of `Cell`.
        num_workers: Processes that load data.
    """
    method, lr = trained.method, trained.lr
    if trained.change == AS_IN_TABLE:
        (cell,) = cells_of(
            dataclasses.replace(preset, seeds=(seed,)),
            places,
            methods=[method],
            rates={} if lr is None else {method: lr},
            num_batches={method: trained.num_batches},
            num_workers=num_workers,
        )
        return cell
    name = f"{method}-lr{lr:g}-{change_name}-seed{seed}"
    return _cell(preset, places, trained, name=name, seed=seed, tasks=preset.tasks, num_workers=num_workers)


def tuning_cells(
    preset: BenchPreset,
    places: Places,
    *,
    methods: Sequence[str],
    num_batches: Mapping[str, int],
    num_workers: int = 0,
) -> list[Cell]:
    """Return the cells that learning rates are chosen by: each method with each rate that is tried.

    Args:
        preset: The preset.
        places: Where it lies.
        methods: Those that are trained are tried.
        num_batches: Of an epoch of each method on the tuning kitchen.
        num_workers: Processes that load data, for each cell.
    """
    return [
        _cell(
            preset,
            places,
            Trained(method, lr, num_batches[method]),
            name=f"tuning-{method}-lr{lr:g}",
            seed=preset.tuning_seed,
            tasks=(TUNED_BY,),
            num_workers=num_workers,
            tuning=True,
        )
        for lr in preset.rates_tried
        for method in methods
        if METHODS[method] is not None
    ]


def num_epochs(preset: BenchPreset, num_batches: int, change: Change = AS_IN_TABLE) -> int:
    """Return how many whole epochs make the preset's number of steps, as nearly as can be."""
    return max(1, round(change.steps * preset.num_steps / num_batches))


def batch_size_of(preset: BenchPreset, change: Change = AS_IN_TABLE) -> int:
    """Return the samples of a step."""
    return max(1, round(change.batch * preset.batch_size))


def pretrain_overrides(
    preset: BenchPreset, places: Places, method: str, *, change: Change = AS_IN_TABLE, tuning: bool = False
) -> tuple[str, ...]:
    """Return what says which clips a method is trained on, without rate, seed and length."""
    data = _kitchen(places.tuning_kitchen if tuning else places.kitchen_of(change))
    overrides = (*data, *_everywhere(preset, places, num_workers=0), *preset.pretrain, *(METHODS[method] or ()))
    return _replaced(overrides, change.overrides)


def _replaced(overrides: Iterable[str], others: Sequence[str]) -> tuple[str, ...]:
    """Return overrides with others in the place of those of the same keys."""
    keys = {text.partition("=")[0] for text in others}
    return (*(text for text in overrides if text.partition("=")[0] not in keys), *others)


def _cell(
    preset: BenchPreset,
    places: Places,
    trained: Trained,
    *,
    name: str,
    seed: int,
    tasks: Sequence[str],
    num_workers: int,
    tuning: bool = False,
) -> Cell:
    judged_on = _kitchen(places.tuning_kitchen if tuning else places.kitchen)
    data = judged_on if tuning else _kitchen(places.kitchen_of(trained.change))
    method, lr, change = trained.method, trained.lr, trained.change
    everywhere = (*_everywhere(preset, places, num_workers=num_workers), f"logging.name={name}")
    checkpoint, pretrain = None, None
    chosen = METHODS[method]
    if chosen is not None:
        if lr is None:
            raise ValueError(f"{method}: no learning rate is known")
        epochs = num_epochs(preset, trained.num_batches, change)
        checkpoint = places.run_folder(name) / "checkpoints" / f"checkpoint_{epochs:04d}.pt"
        overrides = (
            *chosen,
            *data,
            *everywhere,
            *preset.pretrain,
            f"environment.seed={seed}",
            f"optim.batch_size={batch_size_of(preset, change)}",
            f"optim.args.lr={lr:g}",
            "optim.lr_scheduler_args.first_step=0",
            f"optim.epochs={epochs}",
            f"logging.save_freq={epochs}",
            "logging.save_freq_mints=5",
            "logging.log_tb=false",
        )
        pretrain = Command("pretrain", _replaced(overrides, change.overrides))
    judged = "none" if checkpoint is None else path_value(checkpoint)
    evaluations = {
        task: Command(
            "evaluate",
            (
                *(_ego4d(places) if TASKS[task].on_ego4d else judged_on),
                *everywhere,
                *preset.evaluate,
                *TASKS[task].overrides,
                *preset.of_tasks.get(task, ()),
                f"environment.seed={seed}",
                "logging.suffix=''",
                f"evaluate.checkpoint={judged}",
                "evaluate.baseline=false",
            ),
        )
        for task in tasks
    }
    return Cell(name, method, seed, lr if chosen is not None else None, checkpoint, pretrain, evaluations)


def _everywhere(preset: BenchPreset, places: Places, *, num_workers: int) -> tuple[str, ...]:
    return (*preset.shared, f"environment.data_dir={path_value(places.out)}", f"environment.workers={num_workers}")


def _kitchen(folder: Path) -> tuple[str, ...]:
    return ("data=kitchen", f"data.args.base_path={path_value(folder)}")


def _ego4d(places: Places) -> tuple[str, ...]:
    return ("data=ego4d", f"data.args.base_path={path_value(places.kitchen / 'ego4d')}")
