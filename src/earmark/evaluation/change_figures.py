"""Pictures of what was learned of changes, as files: nearest moments, maps, evidence.

Path of a sample: what the page shows --sheets--> pictures beside the page, for slides and papers.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch.nn import functional

from earmark.atomic import replacing
from earmark.evaluation.frame_strips import clock_text, require_frames
from earmark.evaluation.learned_changes import (
    EvidenceExample,
    LearnedChanges,
    NeighbourExample,
    ShownMoment,
    evidence_picture,
)
from earmark.evaluation.moment_map import map_figure

__all__ = ["evidence_sheet", "neighbour_sheet", "write_change_figures"]

PIXELS_PER_INCH = 100
QUALITY = 72  # of the sheets' JPEG
FRAME_HEIGHT = 56  # pixels of a frame in the sheet of neighbours
PICTURE_HEIGHT = 128  # of one in the sheet of evidence
GAP, MARGIN, LINE, BASELINE = 6, 12, 17, 12  # pixels
EVIDENCE_COLUMNS = 3
INK, QUIET = "#1c2127", "#57606a"
# of neighbours; green and red that readers without red or green tell apart (Okabe and Ito)
EDGES = {"same": "#009e73", "opposite": "#d55e00", "other": "#c9ced6"}

Frame = npt.NDArray[np.uint8]


class _Sheet:
    """A white sheet on which frames lie pixel by pixel; places are counted from the upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        self.height = height
        size = (width / PIXELS_PER_INCH, height / PIXELS_PER_INCH)
        self.figure = Figure(figsize=size, dpi=PIXELS_PER_INCH, facecolor="white")
        self._renderer = FigureCanvasAgg(self.figure).get_renderer()  # type: ignore[no-untyped-call]
        self.width = width

    def frame(self, picture: Frame, x: int, y: int) -> None:
        self.figure.figimage(picture, x, self.height - y - picture.shape[0], origin="upper")

    def bar(self, x: int, y: int, width: int, height: int, colour: str) -> None:
        rgb = tuple(int(colour[k : k + 2], 16) for k in (1, 3, 5))
        self.frame(np.full((height, width, 3), rgb, np.uint8), x, y)

    def text(self, words: str, x: float, y: float, *, size: float = 9, colour: str = INK, bold: bool = False) -> float:
        """Write words whose line begins at a place, and return where they end."""
        text = self.figure.text(
            x / self.width,
            1 - (y + BASELINE) / self.height,
            words.replace("$", r"\$"),
            fontsize=size,
            color=colour,
            va="baseline",
            ha="left",
            weight="bold" if bold else "normal",
        )
        return float(text.get_window_extent(self._renderer).x1)

    def key(self, entries: Mapping[str, str], note: str, y: int) -> None:
        """Write what colours mean, and a note behind it."""
        x = float(MARGIN)
        for words, colour in entries.items():
            self.bar(round(x), y + 4, 14, 9, colour)
            x = self.text(words, x + 20, y, colour=QUIET) + 3 * GAP
        self.text(note, x, y, colour=QUIET)


def write_change_figures(folder: Path, learned: LearnedChanges) -> list[Path]:
    """Write ``neighbours.jpg``, ``map.png`` and ``evidence.jpg``, as far as there is something to show.

    Args:
        folder: Where to; it exists.
        learned: What is known. Of the maps the first encoder's, by verb.

    Returns:
        The files.

    Raises:
        ValueError: If the frames of a moment have the wrong shape or type.
    """
    drawn: list[tuple[str, Callable[[], Figure]]] = []
    if learned.neighbours:
        drawn.append(("neighbours.jpg", lambda: neighbour_sheet(learned.neighbours)))
    if learned.maps:
        panels = [panel for panel in learned.maps[0][1] if any(panel.groups)][:2]
        if panels:
            drawn.append(("map.png", lambda: map_figure(panels, background="white")))
    if learned.evidence:
        drawn.append(("evidence.jpg", lambda: evidence_sheet(learned.evidence)))
    written = []
    for name, draw in drawn:
        path = folder / name
        is_jpeg = path.suffix == ".jpg"
        with replacing(path) as temporary:
            draw().savefig(
                temporary,
                format="jpeg" if is_jpeg else "png",
                metadata=None if is_jpeg else {"Software": None},
                pil_kwargs={"quality": QUALITY} if is_jpeg else {"optimize": True},
            )
        written.append(path)
    return written


def neighbour_sheet(examples: Sequence[NeighbourExample]) -> Figure:
    """Return a row for each moment: it, the nearest by change, the nearest by appearance; before above after.

    Args:
        examples: At least one.

    Raises:
        ValueError: If frames have the wrong shape or type.
    """
    rows = [(example.query, *example.by_change, *example.by_appearance) for example in examples]
    frames = [[_scaled(moment, FRAME_HEIGHT) for moment in row] for row in rows]
    width = max(picture.shape[2] for row in frames for picture in row)
    most = max(max(len(example.by_change), len(example.by_appearance)) for example in examples)
    step, apart = width + GAP, 3 * GAP  # the three groups stand apart
    starts = (MARGIN, MARGIN + step + apart, MARGIN + step + apart + most * step + apart)
    row_height = 2 * FRAME_HEIGHT + 5 + LINE + GAP + 4
    top = MARGIN + 2 * LINE
    sheet = _Sheet(starts[2] + most * step - GAP + MARGIN, top + len(rows) * row_height + LINE + MARGIN)
    headings = ("moment", "nearest in other videos by change", "nearest in other videos by appearance")
    for heading, x in zip(headings, starts, strict=True):
        sheet.text(heading, x, MARGIN, size=10, bold=True)
    for number, (example, pictures) in enumerate(zip(examples, frames, strict=True)):
        y = top + number * row_height
        places = [starts[0]]
        for start, group in ((starts[1], example.by_change), (starts[2], example.by_appearance)):
            places += [start + step * k for k in range(len(group))]
        for place, (x, moment, (before, after)) in enumerate(zip(places, rows[number], pictures, strict=True)):
            sheet.text(moment.caption or "no verb", x, y, size=8.5, bold=place == 0)
            sheet.frame(before, x, y + LINE)
            sheet.frame(after, x, y + LINE + FRAME_HEIGHT + 1)
            if place:
                bar = EDGES[example.kind(moment)]
                sheet.bar(x, y + LINE + 2 * FRAME_HEIGHT + 2, width, 4, bar)
    meaning = {"same verb": EDGES["same"], "the verb that undoes it": EDGES["opposite"], "another verb": EDGES["other"]}
    note = "upper picture before the moment, lower picture after it"
    sheet.key(meaning, note, top + len(rows) * row_height)
    return sheet.figure


def evidence_sheet(examples: Sequence[EvidenceExample]) -> Figure:
    """Return for each moment the pictures before and after, and where the evidence of their order lies.

    Args:
        examples: At least one.

    Raises:
        ValueError: If frames have the wrong shape or type.
    """
    cells = [
        [*_scaled(example.moment, PICTURE_HEIGHT), _resized(evidence_picture(example)[None], PICTURE_HEIGHT)[0]]
        for example in examples
    ]
    width = max(picture.shape[1] for cell in cells for picture in cell)
    columns = min(EVIDENCE_COLUMNS, len(cells))
    cell_width, cell_height = 3 * (width + 2) + 3 * GAP, PICTURE_HEIGHT + LINE + 2 * GAP
    num_rows = -(-len(cells) // columns)
    sheet = _Sheet(2 * MARGIN + columns * cell_width - 3 * GAP, 2 * MARGIN + num_rows * cell_height + LINE)
    for number, (example, pictures) in enumerate(zip(examples, cells, strict=True)):
        x, y = MARGIN + number % columns * cell_width, MARGIN + number // columns * cell_height
        moment = example.moment
        verdict = "right" if example.margin > 0 else "wrong" if example.margin < 0 else "a guess"
        where = f"{moment.video_id}, {clock_text(moment.time_seconds)}"
        sheet.text(f"{moment.caption or 'no verb'}   {where}   margin {example.margin:+.1f}: {verdict}", x, y, size=8.5)
        for place, picture in enumerate(pictures):
            sheet.frame(picture, x + place * (width + 2), y + LINE)
    meaning = {"carries the right order": "#ff8c00", "speaks against it": "#285aff"}
    note = "before, after, and how much the margin falls where a square is covered"
    sheet.key(meaning, note, sheet.height - MARGIN - LINE + 4)
    return sheet.figure


def _scaled(moment: ShownMoment, height: int) -> Frame:
    """Return the first and the last frame of a moment at a height, ``(2, H, W, 3)``."""
    require_frames(moment.frames, where=f"{moment.video_id} at {moment.time_seconds:.2f} s")
    return _resized(moment.frames[[0, -1]], height)


def _resized(frames: Frame, height: int) -> Frame:
    size = (height, max(1, round(frames.shape[2] * height / frames.shape[1])))
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    resized = functional.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
