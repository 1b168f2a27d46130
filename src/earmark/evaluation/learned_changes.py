"""What an encoder learned of changes, to look at: nearest moments, a map, and where in the picture the evidence lies.

Path of a sample: answers of the task `earmark.evaluation.order.Order` --choice of examples--> frames, maps --> page.
Examples are drawn by the seed, not chosen for how well they look.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from earmark.evaluation.frame_strips import FRAME_QUALITY, clock_text, strip
from earmark.evaluation.moment_map import MapPanel, draw_map, principal_plane, projected
from earmark.evaluation.neighbours import nearest_of_other_videos, opposite_pairs
from earmark.evaluation.opposite_verbs import CHANGE, VIEWS
from earmark.evaluation.order import Order, OrderAnswers
from earmark.evaluation.ranking import unit_vectors
from earmark.media.page import jpeg_uri

__all__ = [
    "EvidenceExample",
    "LearnedChanges",
    "NeighbourExample",
    "ShownMoment",
    "drawn_moments",
    "evidence_picture",
    "map_panels",
    "neighbour_examples",
    "shown_changes",
]

NUM_QUERIES = 6  # moments whose neighbours are shown, each of another verb
NUM_SHOWN = 5  # neighbours of each
MOST_COVERING = 0.65  # opacity of the colour where all of the evidence lies

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ShownMoment:
    """A moment with a frame before and a frame after it.

    Attributes:
        video_id: Its video.
        time_seconds: When.
        frames: uint8 ``(2, H, W, 3)``.
        caption: The annotated verb; empty without one.
    """

    video_id: str
    time_seconds: float
    frames: npt.NDArray[np.uint8]
    caption: str


@dataclass(frozen=True, slots=True)
class NeighbourExample:
    """A moment, and those nearest to it in other videos.

    Attributes:
        query: The moment.
        by_change: Nearest by the change of the features, nearest first.
        by_appearance: Nearest by their mean.
        opposite: The verb that undoes that of the query; empty without one.
    """

    query: ShownMoment
    by_change: tuple[ShownMoment, ...]
    by_appearance: tuple[ShownMoment, ...]
    opposite: str = ""

    def kind(self, near: ShownMoment) -> str:
        """Return ``same``, ``opposite`` or ``other``: what a neighbour shows beside the query."""
        if near.caption and near.caption == self.query.caption:
            return "same"
        return "opposite" if near.caption and near.caption == self.opposite else "other"


@dataclass(frozen=True, slots=True)
class EvidenceExample:
    """Where the evidence of the order of two clips lies.

    Attributes:
        moment: With the pictures as the encoder was shown them.
        margin: Of the probe: above 0 where it is right.
        drops: See `earmark.evaluation.occlusion.occlusion_map`.
    """

    moment: ShownMoment
    margin: float
    drops: Floats


@dataclass(frozen=True, slots=True)
class LearnedChanges:
    """What the page shows.

    Attributes:
        neighbours: Examples of neighbours.
        maps: Name of an encoder, and its panels.
        evidence: Examples of evidence.
    """

    neighbours: Sequence[NeighbourExample] = ()
    maps: Sequence[tuple[str, Sequence[MapPanel]]] = ()
    evidence: Sequence[EvidenceExample] = ()


def drawn_moments(
    labels: npt.NDArray[np.int64], *, number: int, seed: int, classes: Sequence[int] | None = None
) -> list[int]:
    """Draw moments, one of each class.

    Args:
        labels: Class of each moment, ``(N,)``; -1 for none.
        number: How many at most.
        seed: Of the draw.
        classes: Which, in this order; None for the most frequent. Where no moment has a class, any are drawn.

    Example:
        >>> drawn_moments(np.array([3, -1, 3, 5, 5, 5, 8]), number=2, seed=0)
        [4, 2]
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    present, counts = np.unique(labels[labels >= 0], return_counts=True)
    if not len(present):
        chosen: list[int] = order[:number].tolist()
        return chosen
    frequent = present[np.argsort(-counts, kind="stable")]
    wanted = [label for label in (frequent if classes is None else classes) if label in present]
    return [int(order[labels[order] == label][0]) for label in wanted[:number]]


def neighbour_examples(
    task: Order, answers: OrderAnswers, show: Callable[[int], ShownMoment], *, seed: int
) -> list[NeighbourExample]:
    """Return moments with their neighbours; none where no other video has a verb.

    They are of verbs and those that undo them, where both occur; else of the most frequent verbs.

    Args:
        task: The moments.
        answers: The vectors.
        show: Returns a test moment by its number, to show.
        seed: Of the draw of the moments.
    """
    known = np.flatnonzero(task.verbs >= 0)
    if not len(known):
        return []
    verbs = task.verbs[known]
    names = task.test_clips.video_ids if task.test_videos is None else task.test_videos
    _, videos = np.unique(np.asarray(names)[known], return_inverse=True)
    nearest = {view: nearest_of_other_videos(answers.views[view][known], videos, k=NUM_SHOWN) for view in VIEWS[:2]}
    pairs = [pair for pair in opposite_pairs(task.class_names) if np.isin(pair, verbs).all()]
    undone = {task.class_names[one]: task.class_names[other] for pair in pairs for one, other in (pair, pair[::-1])}
    asked = [verb for pair in pairs for verb in pair] or None
    examples = []
    for query in drawn_moments(verbs, number=NUM_QUERIES, seed=seed, classes=asked):
        by_change, by_appearance = (
            tuple(show(int(known[place])) for place in nearest[view][query].tolist() if place >= 0)
            for view in VIEWS[:2]
        )
        if by_change:
            shown = show(int(known[query]))
            examples.append(NeighbourExample(shown, by_change, by_appearance, undone.get(shown.caption, "")))
    return examples


def map_panels(task: Order, answers: OrderAnswers) -> list[MapPanel]:
    """Return the maps of one encoder: appearance and change by verb, and changes with their reverses.

    As neighbours are, moments are told apart by direction: all have length 1. Those by verb lie in the plane in which
    the verbs of the training moments differ most, where these have verbs; see `earmark.evaluation.order.OrderAnswers`.

    Args:
        task: Verbs of the test moments.
        answers: The vectors.
    """
    verbs = [task.class_names[verb] if verb >= 0 else "" for verb in task.verbs.tolist()]
    undoes = {task.class_names[other]: task.class_names[one] for one, other in opposite_pairs(task.class_names)}
    panels = []
    for view in reversed(VIEWS[:2]):
        units, axes = unit_vectors(answers.views[view]), answers.planes.get(view)
        points, shares = principal_plane(units) if axes is None else projected(units, axes)
        panels.append(MapPanel(f"{view}, by verb", points, shares, verbs, undoes))
    changes = unit_vectors(answers.views[CHANGE])
    points, shares = principal_plane(np.concatenate([changes, -changes]), centred=False)
    order = ["after minus before"] * len(verbs) + ["before minus after"] * len(verbs)
    panels.append(MapPanel("change, by the order of the clips", points, shares, order))
    return panels


def shown_changes(learned: LearnedChanges) -> dict[str, Any]:
    """Return what the template shows.

    Args:
        learned: What is known.

    Raises:
        ValueError: If the frames of a moment have the wrong shape or type.
    """
    return {
        "neighbours": [
            {
                "query": _shown(example.query),
                "rows": [
                    {"what": what, "moments": [_shown(of) | {"kind": example.kind(of)} for of in nearest]}
                    for what, nearest in (("change", example.by_change), ("appearance", example.by_appearance))
                ],
            }
            for example in learned.neighbours
        ],
        "maps": [
            {"name": name, "light": draw_map(panels, dark=False), "dark": draw_map(panels, dark=True)}
            for name, panels in learned.maps
        ],
        "evidence": [_shown_evidence(example) for example in learned.evidence],
    }


def _shown(moment: ShownMoment) -> dict[str, Any]:
    where = f"{moment.video_id} at {moment.time_seconds:.2f} s"
    return {
        "video_id": moment.video_id,
        "time": clock_text(moment.time_seconds),
        "frames": strip(moment.frames, where=where),
        "caption": moment.caption,
    }


def evidence_picture(example: EvidenceExample) -> npt.NDArray[np.uint8]:
    """Return the last picture after the moment, in grey, with the evidence in colour: uint8 ``(H, W, 3)``.

    Args:
        example: Where it lies.
    """
    size = example.moment.frames.shape[1:3]
    rows, columns = (
        np.clip((np.arange(side) + 0.5) / side * number - 0.5, 0, number - 1)
        for side, number in zip(size, example.drops.shape, strict=True)
    )
    drops = _interpolated(example.drops, rows, columns)
    largest = float(np.abs(example.drops).max()) or 1.0
    opacity = (MOST_COVERING * np.abs(drops) / largest)[..., None]
    # for the order as it is: orange, against it: blue, which readers without red or green tell apart
    colour = np.where((drops > 0)[..., None], [255.0, 140.0, 0.0], [40.0, 90.0, 255.0])
    grey = example.moment.frames[-1].mean(axis=2, keepdims=True).repeat(3, axis=2)
    covered: npt.NDArray[np.uint8] = (grey * (1 - opacity) + colour * opacity).round().astype(np.uint8)
    return covered


def _shown_evidence(example: EvidenceExample) -> dict[str, Any]:
    """Return the pictures of both clips, and the one after with the evidence in colour."""
    height, width = example.moment.frames.shape[1:3]
    shown = _shown(example.moment)
    uri = jpeg_uri(evidence_picture(example), quality=FRAME_QUALITY)
    shown["frames"].append({"uri": uri, "width": width, "height": height})
    return {**shown, "margin": example.margin}


def _interpolated(values: Floats, rows: Floats, columns: Floats) -> Floats:
    """Return values at fractional rows and columns, bilinear."""
    top, left = (np.floor(places).astype(int) for places in (rows, columns))
    below, right = (np.minimum(first + 1, number - 1) for first, number in zip((top, left), values.shape, strict=True))
    down, across = (rows - top)[:, None], (columns - left)[None]
    upper = values[top][:, left] * (1 - across) + values[top][:, right] * across
    lower = values[below][:, left] * (1 - across) + values[below][:, right] * across
    interpolated: Floats = upper * (1 - down) + lower * down
    return interpolated
