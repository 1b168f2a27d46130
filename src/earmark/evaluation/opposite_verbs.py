"""Whether the nearest moments tell a verb from the one that undoes it: whether open finds open, not close.

Path of a sample: features before and after --views: change, appearances--> whitened --nearest of other videos, among
moments of the verb and of its opposite--> share of the same verb, mean over verbs --> result.

The mean is that over verbs, not over moments: where two of three moments are openings, an answer that looks at nothing
is right for two of three moments, and so are nearly as many neighbours drawn at random; of the mean over verbs both
have 50 %.
A change has to beat the appearances: what is seen before, after, or in both clips.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from earmark.evaluation.neighbours import chance_precision, nearest_of_other_videos, neighbour_precision
from earmark.evaluation.probe_grid import edge_of, held_out_rows
from earmark.evaluation.resampling import (
    Measure,
    class_mean_recall_measure,
    compare_measures,
    estimate_measure,
    numbered_groups,
)
from earmark.evaluation.results import Estimate, Row, Score
from earmark.evaluation.whitening import WHITENING_SHRINKAGES, Whitening, fit_whitenings

__all__ = [
    "CHANGE",
    "NUM_NEIGHBOURS",
    "VIEWS",
    "OppositesResult",
    "choose_whitening",
    "measure_opposites",
    "opposite_precision",
    "views_of",
]

NUM_NEIGHBOURS = 5
CHANGE = "change"
VIEWS = (CHANGE, "appearance", "clip before", "clip after", "both clips")  # of a moment; appearance: mean of both clips

Floats = npt.NDArray[np.float64]
Pairs = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class OppositesResult:
    """How often the nearest moments among those of a verb and of its opposite have the same verb.

    Attributes:
        column: What it is about.
        pairs: Names of the verbs, such as ``open / close``.
        num_test_moments: Test moments of these verbs that other videos have moments of.
        num_test_videos: Videos that these lie in; None where videos were not given.
        precisions: By view of `VIEWS`: share of the five nearest with the same verb, mean over verbs, in %.
        by_pair: By view and pair: the same of the pair's two verbs alone.
        change_gains: By view other than the change: by change minus by this view, on the same moments, in points.
        baseline_change_gains: The same of the baseline encoder; empty without one.
    """

    column: str
    pairs: tuple[str, ...]
    num_test_moments: int
    num_test_videos: int | None
    precisions: dict[str, Score]
    by_pair: dict[str, dict[str, Estimate]]
    change_gains: dict[str, Estimate]
    baseline_change_gains: dict[str, Estimate]

    def rows(self) -> list[Row]:
        """Return a row for each view, that of the change first."""
        return [
            Row(
                f"{self.column}, nearest by {view}, P@{NUM_NEIGHBOURS}",
                score,
                self.num_test_moments,
                self.num_test_videos,
                majority_name="most frequent verb",
            )
            for view, score in self.precisions.items()
        ]

    def sentence(self) -> str:
        """Return how far the change is above each appearance."""
        gains = ", ".join(f"{view} {gain.signed()}" for view, gain in self.change_gains.items())
        return f"{self.column}: by change minus by what is seen, points [95 % interval, paired]: {gains}"


def views_of(features: npt.NDArray[np.floating]) -> dict[str, Floats]:
    """Return what moments can be compared by, of `VIEWS`.

    Args:
        features: Of the clips before and after, ``(N, 2, D)``.

    Returns:
        ``(N, D)`` each; of both clips ``(N, 2 D)``.

    Example:
        >>> views = views_of(np.array([[[1.0], [3.0]]]))
        >>> [views[name].tolist() for name in VIEWS]
        [[[2.0]], [[2.0]], [[1.0]], [[3.0]], [[1.0, 3.0]]]
    """
    clips = np.asarray(features, np.float64)
    before, after = clips[:, 0], clips[:, 1]
    vectors = (after - before, (before + after) / 2, before, after, np.concatenate([before, after], axis=1))
    return dict(zip(VIEWS, vectors, strict=True))


def opposite_precision(
    vectors: Floats, labels: npt.NDArray[np.int64], videos: npt.NDArray[np.int64], pairs: Pairs
) -> Floats:
    """Return the share of each moment's nearest of its verb and the opposite that have its verb.

    Args:
        vectors: ``(N, D)``.
        labels: Verb of each moment, ``(N,)``; -1 for none.
        videos: Number of each moment's video, ``(N,)``.
        pairs: Verbs that undo one another.

    Returns:
        Shape ``(N,)``; NaN for other verbs, and where no other video has a moment of the two.

    Example:
        >>> changes, verbs = np.array([[1.0], [-1.0], [1.0], [-1.0]]), np.array([3, 5, 3, 3])
        >>> opposite_precision(changes, verbs, np.array([0, 0, 1, 2]), [(3, 5)]).round(2).tolist()
        [1.0, 0.0, 0.67, 0.67]
    """
    found = np.full(len(labels), np.nan)
    for gallery in (np.flatnonzero(np.isin(labels, pair)) for pair in pairs):
        if len(gallery):
            nearest = nearest_of_other_videos(vectors[gallery], videos[gallery], k=NUM_NEIGHBOURS)
            found[gallery] = neighbour_precision(nearest, labels[gallery])
    return found


def choose_whitening(
    vectors: Floats,
    labels: npt.NDArray[np.int64],
    *,
    train_videos: Sequence[str],
    pairs: Pairs,
    centred: bool,
    held_out: float = 0.2,
    seed: int = 0,
) -> tuple[Whitening, dict[str, float]]:
    """Choose the shrinkage by which neighbours in held-out training videos best tell verbs from their opposites.

    Args:
        vectors: Of training moments, ``(N, D)``.
        labels: Verb of each, ``(N,)``; -1 for none.
        train_videos: Video of each.
        pairs: Verbs that undo one another.
        centred: As `earmark.evaluation.whitening.fit_whitenings`.
        held_out: Share of the videos to hold out.
        seed: Of the division.

    Returns:
        The whitening, fitted on all moments, and what was chosen: ``shrinkage``, of equals the largest;
        ``held_out_accuracy`` in %, the mean over verbs, of ``held_out_moments``; ``shrinkage_on_edge``, which is -1 for
        the smallest of those tried, else 0. Where no held-out moment has such a verb in two videos, the shrinkage is
        the largest, and nothing was chosen.

    Raises:
        ValueError: As `earmark.evaluation.whitening.fit_whitenings`, or if there are fewer than two videos.
    """
    rows = held_out_rows(train_videos, share=held_out, seed=seed)
    judged, (videos, _) = labels[rows], numbered_groups(np.asarray(train_videos)[rows], int(rows.sum()))
    qualities: list[float] = []
    num_moments = 0
    for whitening in fit_whitenings(vectors[~rows], centred=centred):
        shares = opposite_precision(whitening(vectors[rows]), judged, videos, pairs)
        has_others = ~np.isnan(shares)
        num_moments = int(has_others.sum())
        if not num_moments:
            break
        qualities.append(_class_mean(shares[has_others], judged[has_others]))
    best = int(np.argmax(qualities)) if qualities else 0
    shrinkage = WHITENING_SHRINKAGES[best]
    (whitening,) = fit_whitenings(vectors, centred=centred, shrinkages=[shrinkage])
    if not qualities:
        return whitening, {"shrinkage": shrinkage}
    return whitening, {
        "shrinkage": shrinkage,
        "held_out_accuracy": 100 * qualities[best],
        "held_out_moments": float(num_moments),
        "shrinkage_on_edge": min(0.0, edge_of(shrinkage, WHITENING_SHRINKAGES)),  # the largest is none at all
    }


def measure_opposites(
    ours: Sequence[Mapping[str, Floats]],
    theirs: Sequence[Mapping[str, Floats]],
    *,
    labels: npt.NDArray[np.int64],
    videos: npt.NDArray[np.str_] | None,
    class_names: Sequence[str],
    pairs: Pairs,
) -> OppositesResult | None:
    """Measure every view of the test moments, and how far the change is above the others.

    Args:
        ours: Whitened views of the judged encoder, for each seed.
        theirs: Those of the baseline encoder; empty without one.
        labels: Verb of each test moment, ``(N,)``; -1 for none.
        videos: Video of each test moment; None takes them as independent.
        class_names: Names of the verbs by id.
        pairs: Verbs that undo one another.

    Returns:
        The result; None where no test moment has such a verb, or no other video has one.
    """
    numbers, _ = numbered_groups(videos, len(labels))
    chance = np.full(len(labels), np.nan)
    for gallery in (np.flatnonzero(np.isin(labels, pair)) for pair in pairs):
        if len(gallery):
            chance[gallery] = chance_precision(labels[gallery], numbers[gallery])
    kept = ~np.isnan(chance)
    if not kept.any():
        return None
    verbs = labels[kept]
    groups, num_groups = numbered_groups(None if videos is None else videos[kept], len(verbs))

    def shares(views: Sequence[Mapping[str, Floats]], view: str) -> list[Floats]:
        return [opposite_precision(of[view], labels, numbers, pairs)[kept] for of in views]

    def measure(of: Floats, rows: npt.NDArray[np.bool_] | None = None) -> Measure:
        chosen = np.ones(len(verbs), bool) if rows is None else rows
        return class_mean_recall_measure(of[chosen], verbs[chosen], groups[chosen], num_groups=num_groups, scale=100.0)

    def mean(of: Sequence[Floats], rows: npt.NDArray[np.bool_] | None = None) -> Measure:
        return measure(np.mean(of, axis=0), rows)  # over seeds, of each moment

    def gains(of: Mapping[str, Sequence[Floats]]) -> dict[str, Estimate]:
        by_change = mean(of[CHANGE])
        found = {}
        for view in VIEWS[1:]:
            by_view = mean(of[view])
            found[view] = estimate_measure(
                lambda counts, by_view=by_view: by_change(counts) - by_view(counts),  # type: ignore[misc]
                num_groups,
                bounds=(-100.0, 100.0),
            )
        return found

    encoder = {view: shares(ours, view) for view in VIEWS}
    baseline = {view: shares(theirs, view) for view in VIEWS} if theirs else {}
    present = [pair for pair in pairs if np.isin(verbs, pair).any()]
    names = {pair: " / ".join(class_names[verb].partition("(")[0].strip("_ ") for verb in pair) for pair in present}
    fifty = Estimate(50.0, 50.0, 50.0)  # of one verb all right, of its opposite none, whatever the videos are
    precisions = {
        view: replace(
            compare_measures(
                [measure(of) for of in encoder[view]],
                baseline=[measure(of) for of in baseline.get(view, ())],
                majority=lambda counts: np.full(len(counts), 50.0),
                chance=100 * _class_mean(chance[kept], verbs),
                num_groups=num_groups,
            ),
            majority=fifty,
        )
        for view in VIEWS
    }
    return OppositesResult(
        column="verb, not its opposite",
        pairs=tuple(names.values()),
        num_test_moments=len(verbs),
        num_test_videos=None if videos is None else num_groups,
        precisions=precisions,
        by_pair={
            view: {
                name: estimate_measure(mean(of, np.isin(verbs, pair)), num_groups, bounds=(0.0, 100.0))
                for pair, name in names.items()
            }
            for view, of in encoder.items()
        },
        change_gains=gains(encoder),
        baseline_change_gains=gains(baseline) if baseline else {},
    )


def _class_mean(values: Floats, labels: npt.NDArray[np.int64]) -> float:
    return float(np.mean([values[labels == label].mean() for label in np.unique(labels)]))
