"""The figure of a study of a benchmark, as SVG.

Path of a sample: `earmark.evaluation.benchmark_studies` --> one panel for each measure --> page.
"""

import io
import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from earmark.evaluation.benchmark import BenchmarkTable, Entry, Measure
from earmark.evaluation.benchmark_studies import BenchmarkStudy
from earmark.evaluation.benchmark_tables import TRIVIAL, heading, number

__all__ = ["study_svg"]

PANEL_INCHES = (3.5, 2.6)
INCHES_OF_CATEGORY = 0.24  # of one method at one of them
INCHES_OF_TEXT = 0.15  # of a line of a label
LABEL_CHARACTERS = 22  # of such a line; longer ones would take the panel's place
MAX_COLUMNS = 3
INK = "#7a828c"  # which can be read on white and on black
COLOURS = ("#2f7de1", "#e07b1a", "#2fa36b", "#a066d3", "#d64f6b", "#8a7a3d")
BAND_ALPHA = 0.18


def study_svg(study: BenchmarkStudy) -> str:
    """Return the figure of a study as SVG without a background; the same study gives the same text.

    Means over seeds with their 95 % intervals: as lines with bands where the factor is a number, else as points with
    bars. A dashed line with its band is a method beside the points.

    Args:
        study: What was found; measures without any number have no panel.
    """
    measures = [
        measure
        for measure in study.measures
        if any(label == measure.label for table in study.lines.values() for _, label in table.entries)
    ]
    num_columns = max(1, min(MAX_COLUMNS, len(measures)))
    num_rows = max(1, math.ceil(len(measures) / num_columns))
    width, height = PANEL_INCHES
    if not study.is_curve:
        of_marks = INCHES_OF_CATEGORY * (0.5 + len(study.lines))
        of_label = INCHES_OF_TEXT * max(text.count("\n") + 2 for text in _wrapped(study.places))
        height = 1.1 + max(of_marks, of_label) * len(study.places)
    style: dict[Any, Any] = {
        **{"svg.hashsalt": "earmark", "font.size": 8.5, "text.color": INK, "axes.labelcolor": INK},
        **{"axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False},
        **{"axes.spines.right": False, "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6},
    }
    with mpl.rc_context(style):
        figure = Figure((width * num_columns, height * num_rows + 0.4), layout="constrained")
        axes = figure.subplots(num_rows, num_columns, squeeze=False).ravel().tolist()
        for measure, ax in zip(measures, axes, strict=False):
            if study.is_curve:
                _draw_curves(ax, study, measure)
            else:
                _draw_categories(ax, study, measure)
            _draw_beside(ax, study, measure)
            _entitle(ax, study, measure)
        for ax in axes[len(measures) :]:
            ax.remove()
        figure.legend(handles=_legend(study), loc="outside upper left", ncols=6, frameon=False)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue()


def _colour(study: BenchmarkStudy, line: str) -> str:
    return COLOURS[list(study.lines).index(line) % len(COLOURS)]


def _entries(table: BenchmarkTable, labels: Sequence[str], measure: Measure) -> dict[str, Entry]:
    """Return what was measured, by label of the point."""
    found = {label: table.entries.get((label, measure.label)) for label in labels}
    return {label: entry for label, entry in found.items() if entry is not None}


def _ends(entry: Entry) -> tuple[float, float]:
    """Return the ends of the interval; the mean itself with one seed, of which there is none."""
    over = entry.over_seeds
    return (over.mean if over.low is None else over.low, over.mean if over.high is None else over.high)


def _draw_curves(ax: Axes, study: BenchmarkStudy, measure: Measure) -> None:
    on_axis = {label: place for label, place in study.places.items() if place is not None}
    for line, table in study.lines.items():
        entries = _entries(table, list(on_axis), measure)
        places = [on_axis[label] for label in entries]
        colour = _colour(study, line)
        ends = [_ends(entry) for entry in entries.values()]
        ax.fill_between(
            places, [low for low, _ in ends], [high for _, high in ends], color=colour, alpha=BAND_ALPHA, linewidth=0
        )
        ax.plot(places, [entry.over_seeds.mean for entry in entries.values()], "o-", color=colour, markersize=3.5)
    if study.log and min(on_axis.values()) > 0:
        ax.set_xscale("log")
    ax.set_xticks(
        list(on_axis.values()),
        labels=[f"{place:.3g}" if place < 1000 else f"{place:.0f}" for place in on_axis.values()],
    )
    ax.xaxis.set_minor_locator(NullLocator())
    for reference in {table.reference for table in study.lines.values()} & on_axis.keys():
        ax.axvline(on_axis[reference], color=INK, linewidth=0.5, alpha=0.6, zorder=0)
    ax.set_xlabel(study.axis)


def _draw_categories(ax: Axes, study: BenchmarkStudy, measure: Measure) -> None:
    labels = list(study.places)
    for number_of_line, (line, table) in enumerate(study.lines.items()):
        shift = 0.6 * ((number_of_line + 0.5) / len(study.lines) - 0.5)
        for label, entry in _entries(table, labels, measure).items():
            (low, high), place, colour = _ends(entry), labels.index(label) + shift, _colour(study, line)
            ax.plot([low, high], [place, place], color=colour, linewidth=2.2, alpha=0.45, solid_capstyle="round")
            ax.plot([entry.over_seeds.mean], [place], "o", color=colour, markersize=4.5)
    ax.set_yticks(range(len(labels)), labels=_wrapped(labels))
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def _wrapped(labels: Iterable[str]) -> list[str]:
    return [textwrap.fill(label, LABEL_CHARACTERS) for label in labels]


def _draw_beside(ax: Axes, study: BenchmarkStudy, measure: Measure) -> None:
    line, span = (ax.axhline, ax.axhspan) if study.is_curve else (ax.axvline, ax.axvspan)
    for entry in _entries(study.beside, study.beside.methods, measure).values():
        low, high = _ends(entry)
        line(entry.over_seeds.mean, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0.5)
        span(low, high, color=INK, alpha=0.12, linewidth=0, zorder=0.4)


def _entitle(ax: Axes, study: BenchmarkStudy, measure: Measure) -> None:
    trivial = study.beside.trivial.get(measure.label)
    ax.set_title(heading(measure), loc="left", fontsize=9, pad=6 if trivial is None else 14)
    if trivial is not None:
        words = f"{TRIVIAL}: {number(trivial, measure)}"
        ax.text(0, 1.02, words, transform=ax.transAxes, fontsize=7, verticalalignment="bottom")


def _legend(study: BenchmarkStudy) -> list[Line2D]:
    lines = [Line2D([], [], color=_colour(study, line), marker="o", markersize=4, label=line) for line in study.lines]
    beside = [
        Line2D([], [], color=INK, linestyle=(0, (4, 3)), linewidth=0.9, label=method) for method in study.beside.methods
    ]
    return [*lines, *beside]
