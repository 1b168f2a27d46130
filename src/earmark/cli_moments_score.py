"""`earmark moments --score`: how the moments found meet what is known of the recordings.

Beside the path of a sample; part of :mod:`earmark.cli_moments`.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from earmark.moments_writing import FileMoments

__all__ = ["Truth", "complain", "read_truths", "score"]

SCORE_WINDOWS_SECONDS = (0.05, 0.1)


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of one recording: onsets ``(N,)`` and actions, start and stop ``(M, 2)``, in seconds."""

    onsets: Any
    spans: Any


def complain(text: str) -> None:
    """Say on standard error what is wrong with an input."""
    print(f"earmark moments: {text}", file=sys.stderr, flush=True)


def read_truths(path: Path) -> dict[str, Truth]:
    """Read a file of truth, or all Audacity labels of a folder: name of the recording -> what is known of it.

    Raises:
        ValueError: If a file is none of those known, or damaged.
    """
    from earmark.onset_scores import read_spans, read_truth

    truths: dict[str, Truth] = {}
    for file in sorted(path.glob("*.txt")) if path.is_dir() else [path]:
        spans = read_spans(file)
        truths |= {name: Truth(onsets, spans[name]) for name, onsets in read_truth(file).items()}
    return truths


def score(
    files: "Sequence[FileMoments]", truths: dict[str, Truth], source: Path, *, stderr: bool
) -> dict[str, list[dict[str, Any]]]:
    """Print how the moments of each file, and of all, meet the truth.

    Recall of actions is the share of the annotated ones with a moment within them, idle the share of the moments
    outside all of them; neither is there for labels that are points.

    Args:
        files: What was found.
        truths: What is known, by the name of the recording; a single one is taken for a single file, whatever its name.
        source: Where that is from.
        stderr: Print there, since standard output is taken.

    Returns:
        The same as plain data: path -> a score for each window.
    """
    import numpy as np
    from rich.table import Table

    from earmark.cli_build import screen
    from earmark.datasets.records import printable
    from earmark.onset_scores import idle_share, score_onsets, span_recall

    table = Table("file", title=f"against {source}", title_justify="left")
    for name in ("within", "moments", "onsets", "precision", "recall", "F1", "recall of actions", "idle"):
        table.add_column(name, justify="right")

    def judge(label: str, times: Any, truth: Truth) -> list[dict[str, Any]]:
        annotated: dict[str, float | None] = {"span_recall": None, "idle_share": None}
        if len(truth.spans) and (truth.spans[:, 1] > truth.spans[:, 0]).all():
            annotated = {
                "span_recall": span_recall(times, truth.spans),
                "idle_share": idle_share(times, truth.spans),
            }
        rows = []
        for window in SCORE_WINDOWS_SECONDS:
            met = score_onsets(times, truth.onsets, window_seconds=window)
            shares = (met.precision, met.recall, met.f1, *annotated.values())
            texts = ("" if share is None else f"{share:.3f}" for share in shares)
            table.add_row(label, f"{1000 * window:.0f} ms", str(met.num_moments), str(met.num_truth), *texts)
            rows.append({"window_seconds": window} | asdict(met) | annotated)
        return rows

    scores: dict[str, list[dict[str, Any]]] = {}
    everything: list[tuple[Any, Any, Any]] = []
    offset = 0.0
    only = next(iter(truths.values())) if len(truths) == len(files) == 1 else None
    for found in files:
        truth = truths.get(Path(found.path).stem, only)
        if truth is None:
            complain(f"{found.path}: {source} has no onsets for it")
            continue
        times = np.array([moment.time_seconds for moment in found.moments])
        scores[found.path] = judge(printable(found.path), times, truth)
        everything.append((times + offset, truth.onsets + offset, truth.spans + offset))
        # One file after the other, so far apart that no moment meets another file's onset.
        offset += max([found.duration_seconds, *times, *truth.onsets, *truth.spans.ravel()]) + 10.0
    if len(everything) > 1:
        times, onsets, spans = (np.concatenate(parts) for parts in zip(*everything, strict=True))
        judge("all", times, Truth(onsets, spans))
    if everything:
        screen(stderr=stderr).print(table)
    return scores
