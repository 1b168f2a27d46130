"""What the page of an evaluation shows beside the table of its numbers: confusions, frequency, clips, others' results.

Path of a sample: answers, clips, published results --here--> what the template ``report_details.html`` shows --> page.
Names come from outside, and the template escapes them; nothing here makes HTML.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from earmark.datasets.annotation_files import num_left_out
from earmark.evaluation.answers import (
    Confusion,
    TargetAnswers,
    confused_classes,
    confusion,
    frequency_bins,
    largest_confusions,
)
from earmark.evaluation.frame_strips import clock_text, strip
from earmark.evaluation.judged_clips import JudgedClip
from earmark.evaluation.learned_changes import LearnedChanges
from earmark.evaluation.published_results import WITH_AUDIO, PublishedTable
from earmark.evaluation.results import Estimate, TaskResult

__all__ = ["ResultDetails", "shown_details"]

CONFUSIONS_SHOWN = 12  # pairs of classes in the table
LEFT_OUT_SHOWN = 200  # lines; all are counted
PLOT_LEFT, PLOT_RIGHT, PLOT_TOP, PLOT_BOTTOM = 40.0, 470.0, 12.0, 232.0  # of the scatter plot, in its own pixels
NEVER_SEEN_WIDTH = 34.0  # at its left end, for classes without a training sample, which have no logarithm
SOME_NAME_OR_NUMBER = re.compile(r"'[^']*'|\d[\d.,:]*")


@dataclass(frozen=True)
class ResultDetails:
    """What is known of an evaluation beside its numbers.

    Attributes:
        sample: What a test sample is called, in the singular.
        measured: What the numbers are, in which unit.
        statements: How it was measured, in sentences by heading, such as what pretraining saw; plain text.
        answers: Scores of the label columns, to show confusions and accuracy against frequency.
        answers_of: Whose answers these are where there are several, such as "seed 0"; empty else.
        clips: Test samples to show, those that were answered right and those answered wrong.
        published: Tables of published results to show beside these.
        not_published: Why published results are not shown; empty where there are none of this kind.
        learned: What was learned of changes, to look at; None for other tasks than `earmark.evaluation.order.Order`.
        left_out: Id and reason of what could not be used, by heading.
    """

    sample: str = "action"
    measured: str = "Action recognition with a linear probe on frozen features, % of the test actions"
    statements: Mapping[str, str] = field(default_factory=dict)
    answers: Sequence[TargetAnswers] = ()
    answers_of: str = ""
    clips: Sequence[JudgedClip] = ()
    published: Sequence[PublishedTable] = ()
    not_published: str = ""
    learned: LearnedChanges | None = None
    left_out: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)


def shown_details(details: ResultDetails, results: TaskResult[Any] | None) -> dict[str, Any]:
    """Return what the template shows, by name.

    Args:
        details: What is known.
        results: The numbers, to stand beside published ones.

    Raises:
        ValueError: If the frames of a clip have the wrong shape or type.
    """
    return {
        "sample": details.sample,
        "measured": details.measured,
        "statements": details.statements,
        "answers_of": details.answers_of,
        "confusions": [_shown_confusion(target) for target in details.answers if target.labelled.any()],
        "frequencies": [_shown_frequency(target) for target in details.answers if target.labelled.any()],
        "clips": _shown_clips(details.clips),
        "published": [_shown_published(table, results) for table in details.published],
        "not_published": details.not_published,
        "left_out": [_shown_left_out(heading, lines) for heading, lines in details.left_out.items() if lines],
        "left_out_shown": LEFT_OUT_SHOWN,
    }


def _shown_confusion(target: TargetAnswers) -> dict[str, Any]:
    """Return the confusion matrices of both encoders, with the same rows and columns, and the largest confusions."""
    labelled = target.labelled
    labels, predictions = target.labels[labelled], target.predictions[labelled]
    baseline = None if target.baseline_predictions is None else target.baseline_predictions[labelled]
    classes = confused_classes(labels, [predictions, *([] if baseline is None else [baseline])])

    def named(table: Confusion) -> dict[str, Any]:
        others = [f"other ({table.num_others})"] if table.num_others else []
        names = [*(target.names[label] for label in classes), *others]
        rows = zip(names, table.counts.tolist(), table.shares.tolist(), strict=True)
        return {
            "names": names,
            "rows": [
                {"name": name, "total": sum(counts), "cells": list(zip(counts, shares, strict=True))}
                for name, counts, shares in rows
            ],
            "num_others": table.num_others,
            "num_classes": len(classes),
        }

    def counted_pairs(of: npt.NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        for pair in largest_confusions(labels, of, number=CONFUSIONS_SHOWN):
            yield {
                "true": target.names[pair.true],
                "predicted": target.names[pair.predicted],
                "count": pair.count,
                "num_true": pair.num_true,
                "percent": 100 * pair.count / pair.num_true,
                "baseline": None
                if baseline is None
                else int(np.count_nonzero((labels == pair.true) & (baseline == pair.predicted))),
            }

    num_classes = len(target.names)
    return {
        "column": target.column,
        "encoder": named(confusion(labels, predictions, classes, num_classes=num_classes)),
        "baseline": None if baseline is None else named(confusion(labels, baseline, classes, num_classes=num_classes)),
        "num_wrong": int(np.count_nonzero(labels != predictions)),
        "num_samples": len(labels),
        "largest": list(counted_pairs(predictions)),
    }


def _shown_frequency(target: TargetAnswers) -> dict[str, Any]:
    """Return the points, lines and ticks of accuracy against number of training samples, and its bins as numbers."""
    labels = target.labels[target.labelled]
    present, num_test = np.unique(labels, return_counts=True)
    num_train = target.train_counts[present]

    def accuracies(predictions: npt.NDArray[np.int64] | None) -> npt.NDArray[np.float64] | None:
        if predictions is None:
            return None
        right = predictions[target.labelled] == labels
        return np.array([100 * right[labels == label].mean() for label in present])

    accuracy, baseline = accuracies(target.predictions), accuracies(target.baseline_predictions)
    assert accuracy is not None
    bins = frequency_bins(num_train, num_test, accuracy, baseline)
    num_decades = max(1.0, float(np.ceil(2 * np.log10(int(num_train.max()) + 1)) / 2))
    highest = max(values.max() for values in (accuracy, baseline) if values is not None)
    top_percent = 25 * max(1, int(np.ceil(highest / 25)))
    never_seen = bool((num_train == 0).any())
    left = PLOT_LEFT + (NEVER_SEEN_WIDTH if never_seen else 0)

    def across(number: float) -> float:
        if number < 1:
            return PLOT_LEFT + NEVER_SEEN_WIDTH / 2
        return float(left + (PLOT_RIGHT - left) * min(1.0, np.log10(number) / num_decades))

    def down(percent: float) -> float:
        return PLOT_BOTTOM - (PLOT_BOTTOM - PLOT_TOP) * percent / top_percent

    points = []
    for kind, values in (("baseline", baseline), ("encoder", accuracy)):
        if values is None:
            continue
        for label, train, test, percent in zip(present, num_train, num_test, values, strict=True):
            title = f"{target.names[label]}: {percent:.1f} % of {test:,} test, {train:,} training"
            points.append({"kind": kind, "x": across(train), "y": down(percent), "title": title})
    lines = []
    for kind in ("baseline", "encoder"):
        for part in bins:
            mean = part.accuracy if kind == "encoder" else part.baseline_accuracy
            if mean is not None:
                start, stop = (across(part.low), across(part.high + 1)) if part.low else (PLOT_LEFT, left)
                lines.append({"kind": kind, "x1": start, "x2": stop, "y": down(mean)})
    ticks = [(across(10**power), f"{10**power:,}") for power in range(int(num_decades) + 1)]
    return {
        "column": target.column,
        "points": points,
        "lines": lines,
        "x_ticks": [*([(across(0), "0")] if never_seen else []), *ticks],
        "y_ticks": [(down(percent), percent) for percent in range(0, top_percent + 1, 25)],
        "box": {"left": PLOT_LEFT, "right": PLOT_RIGHT, "top": PLOT_TOP, "bottom": PLOT_BOTTOM},
        "bins": bins,
        "has_baseline": baseline is not None,
        "num_never_seen": int(np.count_nonzero(num_train == 0)),
    }


def _shown_clips(clips: Sequence[JudgedClip]) -> list[dict[str, Any]]:
    """Return the clips in two groups, those answered right and those answered wrong."""
    groups = []
    for heading, right in (("Answered right", True), ("Answered wrong", False)):
        group = [
            {
                "video_id": clip.video_id,
                "start": clock_text(clip.start_seconds),
                "stop": clock_text(clip.stop_seconds),
                "frames": strip(clip.frames, where=f"{clip.video_id} at {clip.start_seconds:.2f} s"),
                "answers": clip.answers,
                "confident": clip.confident,
            }
            for clip in clips
            if clip.right == right
        ]
        groups.append({"heading": heading, "clips": group})
    return groups if clips else []


def _shown_published(table: PublishedTable, results: TaskResult[Any] | None) -> dict[str, Any]:
    """Return the rows of a table of published results, below those of this evaluation."""

    def here(kind: str, name: str, note: str, of: TaskResult[Any] | None) -> dict[str, Any] | None:
        heard = WITH_AUDIO if of is not None and "audio" in of.options.get("modalities", ()) else ""
        scores = {row.label + heard: row.score for column in (of.columns if of else ()) for row in column.rows()}
        estimates: list[Estimate | None] = [
            getattr(scores[measure.label], kind) if measure.label in scores else None for measure in table.measures
        ]
        if all(estimate is None for estimate in estimates):
            return None
        cells = [
            None
            if estimate is None
            else {
                "value": f"{estimate.value:.{measure.decimals}f}",
                "interval": f"{estimate.low:.{measure.decimals}f} to {estimate.high:.{measure.decimals}f}",
            }
            for measure, estimate in zip(table.measures, estimates, strict=True)
        ]
        return {"name": name, "note": note, "cells": cells, "kind": kind}

    published = [
        {
            "name": row.name,
            "note": row.note,
            "kind": "published",
            "cells": [
                None if value is None else {"value": f"{value:.{measure.decimals}f}", "interval": ""}
                for measure, value in zip(table.measures, row.values, strict=True)
            ],
        }
        for row in table.rows
    ]
    as_published = None if results is None else results.published
    labels = {measure.label.removesuffix(WITH_AUDIO) for measure in table.measures}
    shown = [row for column in (results.columns if results else ()) for row in column.rows() if row.label in labels]
    trivial = " or ".join(dict.fromkeys(row.majority_name for row in shown if row.majority_name))
    ours = [
        here("encoder", "encoder", "judged here", results),
        here("baseline", "random encoder", "never trained", results),
        here("majority", trivial or "most frequent classes", "" if trivial else "of the training labels", results),
        here("encoder", "encoder", "by the published protocol", as_published),
        here("baseline", "random encoder", "by the published protocol", as_published),
    ]
    return {
        "table": table,
        "rows": [row for row in ours if row is not None],
        "published": published,
        "has_lower": any(not measure.higher_is_better for measure in table.measures),
    }


def _shown_left_out(heading: str, lines: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return how often each kind of reason stands, the first lines, and how many more there are."""
    kinds: Counter[str] = Counter()
    for _, reason in lines:
        kinds[SOME_NAME_OR_NUMBER.sub("…", reason)] += num_left_out([reason])
    return {
        "heading": heading,
        "number": kinds.total(),
        "kinds": kinds.most_common(10),
        "num_more_kinds": max(0, len(kinds) - 10),
        "lines": lines[:LEFT_OUT_SHOWN],
        "num_more": max(0, len(lines) - LEFT_OUT_SHOWN),
    }
