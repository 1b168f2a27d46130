"""One self-contained page about a run: what was trained, how it went, what was learned, what the moments look like.

Path of a sample: checkpoint --evaluation--> numbers --report--> page. The page is a single HTML file with pictures and
sounds inside; it opens from disk, asks nothing of any server, and its own security policy forbids it to. The template
is ``report.html`` beside this file; whatever comes from outside is escaped there.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from matplotlib.image import imsave

from earmark.atomic import replacing
from earmark.clips.transforms import LogMel
from earmark.evaluation.frame_strips import clock_text, strip
from earmark.evaluation.learned_changes import shown_changes
from earmark.evaluation.opposite_verbs import OppositesResult
from earmark.evaluation.report_details import ResultDetails, shown_details
from earmark.evaluation.results import TaskResult
from earmark.media.page import data_uri, render_page, wav_uri
from earmark.wording import counted

__all__ = ["Example", "write_report"]

CURVE_INCHES = (5.2, 2.7)
CLASSES_SHOWN = 500  # in the table of each class's accuracy: all verbs and nouns, but not the pairs that occur
MOST_DRAWN = 1e100  # means and axes of larger numbers overflow
POINTS_SHOWN = 400  # of each curve; longer ones are averaged in bins

# Heading, what it means, and the names in metrics.jsonl with their legend.
CURVES: tuple[tuple[str, str, dict[str, str]], ...] = (
    (
        "Losses",
        "Lower is better.",
        {
            "loss": "total",
            "contrastive_loss": "audio-visual correspondence",
            "state_change_loss": "audible state change",
        },
    ),
    (
        "Similarity of picture and sound",
        "Cosine; the two should part.",
        {"positive_similarity": "same moment", "negative_similarity": "other moments"},
    ),
    (
        "State change told from its reverse",
        "Share of the batch; 0.5 is guessing.",
        {"direction_accuracy": "forward above backward", "state_change_accuracy": "right side of zero"},
    ),
    ("Learning rate", "At each step.", {"lr": "learning rate"}),
    ("Speed", "Samples per second.", {"samples_per_second": "samples/s"}),
    (
        "Where the device's time went",
        "Share of the time of training; what is missing to 1 is the loop's own.",
        {
            "device_busy_share": "busy",
            "data_wait_share": "waiting for data",
            "host_wait_share": "waiting for the host",
            "launch_bound_share": "work or launching",
        },
    ),
    (
        "Share of the device's peak",
        "Operations of convolutions and matrix products, against a large matrix product.",
        {"peak_share": "share of the peak"},
    ),
)


@dataclass(frozen=True, slots=True)
class Example:
    """A moment to show on the page.

    Attributes:
        video_id: Video it was found in.
        time_seconds: When.
        frames_before: Clip before the moment, uint8 ``(T, H, W, 3)`` RGB.
        frames_after: Clip after it, the same.
        sound: Sound centred on the moment, int16 ``(S,)``; empty if there is none.
        sample_rate: Of the sound, Hz.
        caption: What happens, if known; plain text.
        score: Prominence of the moment, if known.
    """

    video_id: str
    time_seconds: float
    frames_before: npt.NDArray[np.uint8]
    frames_after: npt.NDArray[np.uint8]
    sound: npt.NDArray[np.int16]
    sample_rate: int
    caption: str = ""
    score: float | None = None


def write_report(
    path: Path,
    *,
    title: str,
    summary: Mapping[str, str],
    metrics: Sequence[Mapping[str, Any]] | None,
    results: TaskResult[Any] | None,
    examples: Sequence[Example],
    details: ResultDetails | None = None,
    num_damaged_metrics: int = 0,
) -> None:
    """Write the page. The same arguments give the same bytes.

    Args:
        path: HTML file to write; it is replaced as a whole.
        title: Name of the run.
        summary: Facts by name, shown in this order: configuration, versions, machine. Plain text.
        metrics: What the run logged, line by line as it stands in ``metrics.jsonl``; its steps are drawn, the
            last line of each. None, or no step, leaves a sentence instead of curves.
        results: Of the evaluation; None leaves a sentence.
        examples: Moments to show; none leave a sentence.
        details: What else is known of the evaluation: confusions, clips, published results; shown with `results`.
        num_damaged_metrics: How many lines of the run's metrics could not be read; they are counted on the page.

    Raises:
        ValueError: If an example's frames or sound have the wrong shape or type.

    Example:
        >>> import tempfile
        >>> page = Path(tempfile.mkdtemp()) / "report.html"
        >>> write_report(page, title="a <run>", summary={}, metrics=None, results=None, examples=[])
        >>> "<h1>a &lt;run&gt;</h1>" in page.read_text()
        True
    """
    steps, num_unnumbered = _steps(metrics or ())
    details = details or ResultDetails()
    columns = _shown_columns(results)
    as_published = _shown_columns(None if results is None else results.published)
    page = render_page(
        "earmark.evaluation",
        "report.html",
        title=title,
        summary=summary,
        curves=_curves(steps),
        has_metrics=metrics is not None,
        num_damaged_metrics=num_damaged_metrics + num_unnumbered,
        results=results,
        columns=columns,
        as_published=as_published,
        most_classes=CLASSES_SHOWN,
        scales=_scales([*columns, *as_published]),
        details=shown_details(details, results),
        learned=None if details.learned is None else shown_changes(details.learned),
        opposites=_opposites(results),
        curve_size=[round(100 * inches) for inches in CURVE_INCHES],
        examples=[_shown_example(example) for example in examples],
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _steps(metrics: Sequence[Mapping[str, Any]]) -> tuple[dict[int, dict[str, float]], int]:
    """Return the numbers of every step in order, and how many lines say they are a step but not which.

    Later lines win over earlier ones: a resumed run repeats steps.
    """
    lines = [line for line in metrics if line.get("kind") == "step"]
    numbered = [line for line in lines if isinstance(line.get("step"), int) and abs(line["step"]) < 2**53]
    steps = {
        line["step"]: {name: value for name, value in line.items() if isinstance(value, int | float)}
        for line in numbered
    }
    return dict(sorted(steps.items())), len(lines) - len(numbered)


def _curves(steps: Mapping[int, Mapping[str, float]]) -> list[dict[str, str]]:
    """Return a plot for each group of which something was logged."""
    shown = []
    for heading, note, legend in CURVES:
        lines: dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]] = {}
        num_beyond = 0
        for name, label in legend.items():
            logged = [(step, row[name]) for step, row in steps.items() if name in row]
            points = [(step, value) for step, value in logged if abs(value) <= MOST_DRAWN]
            num_beyond += len(logged) - len(points)
            if points:
                lines[label] = _thinned(np.array(points, dtype=np.float64))
        if lines:
            ends = "; ".join(f"{label}: {y[0]:.4g} to {y[-1]:.4g}" for label, (_, y) in lines.items())
            light, dark = (_plot(lines, dark=dark) for dark in (False, True))
            beyond = f" Not drawn: {counted(num_beyond, 'value')} not finite or too large." if num_beyond else ""
            shown.append({"heading": heading, "note": note + beyond, "ends": ends, "light": light, "dark": dark})
    return shown


def _thinned(points: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return steps and values, averaged in bins if there are too many to see."""
    bins = np.array_split(points, min(len(points), POINTS_SHOWN))
    x, y = np.array([rows.mean(axis=0) for rows in bins]).T
    return x, y


def _plot(
    lines: Mapping[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]],
    *,
    dark: bool,
) -> str:
    """Return curves over steps as a data URI; two pictures, for an embedded one cannot follow the page's colours."""
    ink, grid = ("#b9bec6", "#343a43") if dark else ("#57606a", "#e4e7eb")
    colors = ("#7fb2ff", "#ffb454", "#5fd0a5", "#e59bd0") if dark else ("#1f5fbf", "#c26a00", "#0b7a55", "#9c2f7f")
    with mpl.rc_context({"svg.hashsalt": "earmark", "svg.fonttype": "path", "font.size": 9}):
        figure = Figure(figsize=CURVE_INCHES, layout="constrained", facecolor="none")
        axes = figure.add_subplot(facecolor="none")
        for (label, (x, y)), color in zip(lines.items(), colors[: len(lines)], strict=True):
            axes.plot(x, y, color=color, linewidth=1.6, label=label, marker="o" if len(x) == 1 else None)
        axes.set_xlabel("step", color=ink)
        axes.tick_params(colors=ink, length=0)
        axes.grid(color=grid, linewidth=0.8)
        axes.spines[:].set_visible(False)
        axes.margins(x=0.01)
        if len(lines) > 1:
            axes.legend(frameon=False, labelcolor=ink, fontsize=8, ncols=len(lines), loc="lower center",
                        bbox_to_anchor=(0.5, 1.0), handlelength=1.2, columnspacing=1.2)  # fmt: skip
        picture = io.BytesIO()
        figure.savefig(picture, format="svg", metadata={"Date": None})
    return data_uri("image/svg+xml", picture.getvalue())


def _shown_columns(results: TaskResult[Any] | None) -> list[dict[str, Any]]:
    """Return the rows of each target, and what only targets with classes have."""
    return [
        {
            "name": getattr(column, "column", ""),
            "rows": column.rows(),
            "is_shares": all(row.unit == "%" for row in column.rows()),
            "num_classes": getattr(column, "num_classes", None),
            "classes": getattr(column, "classes", ()),
        }
        for column in (results.columns if results is not None else ())
    ]


def _opposites(results: TaskResult[Any] | None) -> OppositesResult | None:
    """Return what was measured of verbs and those that undo them; None where that was not."""
    columns = () if results is None else results.columns
    return next((column for column in columns if isinstance(column, OppositesResult)), None)


def _scales(columns: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the right end of the bars by unit: of shares the next multiple of 10 % above everything shown.

    Of other units it is the greatest number shown, rounded up to two digits.
    """
    highest: dict[str, float] = {"%": 0.0}
    for column in columns:
        for row in column["rows"]:
            for estimate in (row.score.encoder, row.score.baseline, row.score.majority):
                if estimate is not None:
                    highest[row.unit] = max(highest.get(row.unit, 0.0), estimate.high)
    scales = {unit: _rounded_up(high) for unit, high in highest.items()}
    return scales | {"%": min(100, 10 * math.ceil((highest["%"] + 1e-9) / 10)) if highest["%"] else 100}


def _rounded_up(number: float) -> float:
    if number <= 0:
        return 1.0
    step = 10.0 ** (math.floor(math.log10(number)) - 1)
    return step * math.ceil(number / step)


def _shown_example(example: Example) -> dict[str, Any]:
    """Return an example as the template shows it."""
    where = f"{example.video_id} at {example.time_seconds:.2f} s"
    if example.sound.ndim != 1 or example.sound.dtype != np.int16:
        raise ValueError(f"{where}: sound must be int16 (S,), got {example.sound.dtype} {example.sound.shape}")
    spectrogram = _spectrogram(example.sound, example.sample_rate)
    return {
        "video_id": example.video_id,
        "time": clock_text(example.time_seconds),
        "caption": example.caption,
        "score": example.score,
        "before": strip(example.frames_before, where=where),
        "after": strip(example.frames_after, where=where),
        "spectrogram": spectrogram,
        "wave": wav_uri(example.sound, example.sample_rate) if spectrogram else "",
        "half_seconds": len(example.sound) / example.sample_rate / 2,
        "top_kilohertz": example.sample_rate / 2000,
    }


def _spectrogram(sound: npt.NDArray[np.int16], sample_rate: int) -> str:
    """Return the log-mel spectrogram as a data URI, low tones below; "" if the sound is too short for one window."""
    log_mel = LogMel(sample_rate=sample_rate)
    if len(sound) < log_mel.window_length:
        return ""
    levels = log_mel(torch.from_numpy(sound.copy())[None])[0, 0].numpy().T[::-1]  # (mel, time)
    quiet, loud = np.quantile(levels, [0.05, 0.999])
    picture = io.BytesIO()
    imsave(picture, levels, vmin=quiet, vmax=max(loud, quiet + 1e-6), cmap="magma", format="png", metadata={})
    return data_uri("image/png", picture.getvalue())
