"""The cells of the studies of a benchmark.

Beside the path of a sample: `earmark.cli.bench_studies` --> cells --> `earmark.cli.bench_cells`, which runs them.
"""

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass

from earmark.cli.bench_plan import AS_IN_TABLE, Cell, Places, Trained, changed_cell
from earmark.cli.bench_presets import METHODS, BenchPreset
from earmark.cli.bench_studies import STUDIES, Change, Curve, Study

__all__ = ["StudyCell", "StudyPoint", "changes_of", "methods_of", "points_of", "study_cells"]


@dataclass(frozen=True, slots=True)
class StudyPoint:
    """One setting of a factor.

    Attributes:
        label: What it is called in figures and tables.
        name: Part of that of the run folder.
        value: What the factor is set to; None for one that is no number.
        method: The method of the table that is pretrained.
        change: In what its pretraining differs from that of the table.
    """

    label: str
    name: str
    value: float | None
    method: str
    change: Change


@dataclass(frozen=True, slots=True)
class StudyCell:
    """A cell in its place in a study.

    Attributes:
        line: The method that the line of the figure is of.
        label: Of the point; None for a method beside the points.
        cell: What is run.
    """

    line: str
    label: str | None
    cell: Cell


def points_of(study: Study, line: str, preset: BenchPreset) -> list[StudyPoint]:
    """Return the points of a study, in the order of the axis or of the variants.

    Args:
        study: The study.
        line: One of its methods.
        preset: Its own value of the factor is one of them.
    """
    factor = study.factor
    if isinstance(factor, Curve):
        own = factor.of_preset(preset)
        return [
            StudyPoint(f"{value:g}", f"{value:g}", value, line, AS_IN_TABLE if value == own else factor.change(value))
            for value in sorted({*factor.values, own})
        ]
    return [
        StudyPoint(
            variant.shown or name,
            name,
            None,
            method,
            variant.change if method == line or variant.method else AS_IN_TABLE,
        )
        for name, variant in factor.variants.items()
        for method in [variant.method or dict(variant.methods).get(line, line)]
    ]


def reference_of(study: Study, preset: BenchPreset) -> str:
    """Return the label of the point that the others of a study are compared with."""
    factor = study.factor
    if isinstance(factor, Curve):
        return f"{factor.of_preset(preset):g}"
    return factor.variants[factor.reference].shown or factor.reference


def _lines(study: Study, methods: Collection[str]) -> list[str]:
    return [line for line in study.methods if line in methods]


def methods_of(names: Sequence[str], preset: BenchPreset, methods: Collection[str]) -> list[str]:
    """Return the methods of the table that studies pretrain or show, in the order of the table.

    Args:
        names: Of the studies.
        preset: The preset.
        methods: Those that lines are drawn of.
    """
    needed = {
        method
        for name in names
        for line in _lines(STUDIES[name], methods)
        for method in (*(point.method for point in points_of(STUDIES[name], line, preset)), *STUDIES[name].beside)
    }
    return [method for method in METHODS if method in needed]


def changes_of(names: Sequence[str], preset: BenchPreset, methods: Collection[str]) -> list[tuple[str, Change]]:
    """Return what studies pretrain: (method, change), each once."""
    return list(
        dict.fromkeys(
            (point.method, point.change)
            for name in names
            for line in _lines(STUDIES[name], methods)
            for point in points_of(STUDIES[name], line, preset)
        )
    )


def study_cells(
    name: str,
    preset: BenchPreset,
    places: Places,
    *,
    methods: Collection[str],
    rates: Mapping[str, float],
    num_batches: Callable[[str, Change], int],
    num_workers: int = 0,
    left_out: Set[tuple[str, Change]] = frozenset(),
) -> list[StudyCell]:
    """Return the cells of a study, seed by seed; those that the table has, too, are the same.

    Args:
        name: A key of `STUDIES`.
        preset: The preset.
        places: Where it lies.
        methods: Those that lines are drawn of.
        rates: Learning rate of each method that is trained.
        num_batches: Of an epoch, by method and change.
        num_workers: Processes that load data, for each cell.
        left_out: Of `changes_of`, those that can't be pretrained; their points have no cells.
    """
    study = STUDIES[name]

    def cell_of(trained: Trained, change_name: str, seed: int) -> Cell:
        return changed_cell(preset, places, trained, change_name=change_name, seed=seed, num_workers=num_workers)

    lines = {line: points_of(study, line, preset) for line in _lines(study, methods)}
    cells = []
    for seed in preset.seeds:
        for line, points in lines.items():
            for point in points:
                if (point.method, point.change) in left_out:
                    continue
                trained = Trained(
                    point.method, rates[point.method], num_batches(point.method, point.change), point.change
                )
                cells.append(StudyCell(line, point.label, cell_of(trained, f"{name}_{point.name}", seed)))
        for method in study.beside if lines else ():
            trained = Trained(method, rates.get(method))
            if METHODS[method] is not None:
                trained = Trained(method, rates[method], num_batches(method, AS_IN_TABLE))
            cells.append(StudyCell(method, None, cell_of(trained, "", seed)))
    return cells
