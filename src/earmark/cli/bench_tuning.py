"""The learning rate of each method of a benchmark, chosen on training videos that are held out.

Beside the path of a sample: numbers of the tuning cells (`earmark.cli.bench_plan.tuning_cells`) --> rates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from earmark.cli.bench_cells import CellOutcome
from earmark.cli.bench_plan import TUNED_BY, Cell
from earmark.cli.bench_presets import TASKS

__all__ = ["ChosenRate", "chosen_rates"]


@dataclass(frozen=True, slots=True)
class ChosenRate:
    """The learning rate of a method.

    Attributes:
        lr: The rate.
        quality: What each rate that was tried reached on held-out training videos: the mean over the measures of
            action recognition, in %.
        on_edge: Whether it is the least or the greatest of those tried, so that one beyond might be better.
    """

    lr: float
    quality: Mapping[float, float]
    on_edge: bool


def chosen_rates(cells: Sequence[Cell], outcomes: Mapping[str, CellOutcome]) -> dict[str, ChosenRate]:
    """Return the rate of each method that was right most often on held-out training videos; the least of equals.

    Args:
        cells: Of `earmark.cli.bench_plan.tuning_cells`.
        outcomes: What became of them, by name.

    Raises:
        ValueError: If one of them has no numbers: each method gets the same number of tries.
    """
    quality: dict[str, dict[float, float]] = {}
    for cell in cells:
        outcome = outcomes.get(cell.name)
        if outcome is None or outcome.problem is not None or cell.lr is None:
            reason = "it was not run" if outcome is None else outcome.problem
            raise ValueError(f"{cell.name}: no learning rate can be chosen for {cell.method} ({reason})")
        values = outcome.found[TUNED_BY].values
        quality.setdefault(cell.method, {})[cell.lr] = fmean(values[label] for label in TASKS[TUNED_BY].measures)
    chosen = {}
    for method, tried in quality.items():
        best = min(tried, key=lambda lr: (-tried[lr], lr))
        chosen[method] = ChosenRate(
            best, dict(sorted(tried.items())), len(tried) > 1 and best in (min(tried), max(tried))
        )
    return chosen
