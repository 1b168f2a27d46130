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
from earmark.evaluation.moment_map import MapPanel, draw_map, principal_plane
from earmark.evaluation.neighbours import nearest_of_other_videos
from earmark.evaluation.order import Order, OrderAnswers
from earmark.media.page import jpeg_uri

__all__ = [
    "EvidenceExample",
    "LearnedChanges",
    "NeighbourExample",
    "ShownMoment",
    "drawn_moments",
    "map_panels",
    "neighbour_examples",
    "shown_changes",
]

NUM_QUERIES = 5  # moments whose neighbours are shown, each of another verb
NUM_SHOWN = 4  # neighbours of each
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
    """

    query: ShownMoment
    by_change: tuple[ShownMoment, ...]
    by_appearance: tuple[ShownMoment, ...]


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


def drawn_moments(labels: npt.NDArray[np.int64], *, number: int, seed: int) -> list[int]:
    """Draw moments, one of each of the most frequent classes; where none has a class, any.

    Args:
        labels: Class of each moment, ``(N,)``; -1 for none.
        number: How many at most.
        seed: Of the draw.

    Example:
        >>> drawn_moments(np.array([3, -1, 3, 5, 5, 5, 8]), number=2, seed=0)
        [4, 2]
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    classes, counts = np.unique(labels[labels >= 0], return_counts=True)
    if not len(classes):
        chosen: list[int] = order[:number].tolist()
        return chosen
    frequent = classes[np.argsort(-counts, kind="stable")[:number]]
    return [int(order[labels[order] == label][0]) for label in frequent]


def neighbour_examples(
    task: Order, answers: OrderAnswers, show: Callable[[int], ShownMoment], *, seed: int
) -> list[NeighbourExample]:
    """Return moments of the most frequent verbs with their neighbours; none where no other video has a verb.

    Args:
        task: The moments.
        answers: The vectors.
        show: Returns a test moment by its number, to show.
        seed: Of the draw of the moments.
    """
    known = np.flatnonzero(task.verbs >= 0)
    if not len(known):
        return []
    names = task.test_clips.video_ids if task.test_videos is None else task.test_videos
    _, videos = np.unique(np.asarray(names)[known], return_inverse=True)
    nearest = {
        what: nearest_of_other_videos(vectors[known], videos, k=NUM_SHOWN)
        for what, vectors in (("change", answers.changes), ("appearance", answers.appearances))
    }
    examples = []
    for query in drawn_moments(task.verbs[known], number=NUM_QUERIES, seed=seed):
        by_change, by_appearance = (
            tuple(show(int(known[place])) for place in nearest[what][query].tolist() if place >= 0)
            for what in ("change", "appearance")
        )
        if by_change:
            examples.append(NeighbourExample(show(int(known[query])), by_change, by_appearance))
    return examples


def map_panels(task: Order, answers: OrderAnswers) -> list[MapPanel]:
    """Return the maps of one encoder: appearance and change by verb, and changes with their reverses.

    Args:
        task: Verbs of the test moments.
        answers: The vectors.
    """
    verbs = [task.class_names[verb] if verb >= 0 else "" for verb in task.verbs.tolist()]
    panels = []
    for title, vectors in (("appearance, by verb", answers.appearances), ("change, by verb", answers.changes)):
        points, shares = principal_plane(vectors)
        panels.append(MapPanel(title, points, shares, verbs))
    both = np.concatenate([answers.changes, -answers.changes])
    points, shares = principal_plane(both, centred=False)
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
                    {"what": what, "moments": [_shown(of, like=example.query.caption) for of in nearest]}
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


def _shown(moment: ShownMoment, *, like: str | None = None) -> dict[str, Any]:
    where = f"{moment.video_id} at {moment.time_seconds:.2f} s"
    return {
        "video_id": moment.video_id,
        "time": clock_text(moment.time_seconds),
        "frames": strip(moment.frames, where=where),
        "caption": moment.caption,
        "same": like is not None and moment.caption == like,
    }


def _shown_evidence(example: EvidenceExample) -> dict[str, Any]:
    """Return the pictures of both clips, and the one after with the evidence in colour."""
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
    grey = example.moment.frames[1].mean(axis=2, keepdims=True).repeat(3, axis=2)
    covered = (grey * (1 - opacity) + colour * opacity).round().astype(np.uint8)
    shown = _shown(example.moment)
    height, width = size
    shown["frames"].append({"uri": jpeg_uri(covered, quality=FRAME_QUALITY), "width": width, "height": height})
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
