"""`earmark moments --score`: how the moments found meet onsets that are known.

Beside the path of a sample; part of :mod:`earmark.cli_moments`.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from earmark.moments_writing import FileMoments

__all__ = ["complain", "read_truths", "score"]

SCORE_WINDOWS_SECONDS = (0.05, 0.1)


def complain(text: str) -> None:
    """Say on standard error what is wrong with an input."""
    print(f"earmark moments: {text}", file=sys.stderr, flush=True)


def read_truths(path: Path) -> dict[str, Any]:
    """Read the onsets of a file of truth, or of all label files of a folder: name of the recording -> seconds."""
    from earmark.onset_scores import read_truth

    if not path.is_dir():
        return dict(read_truth(path))
    return {name: onsets for file in sorted(path.glob("*.txt")) for name, onsets in read_truth(file).items()}


def score(
    files: "Sequence[FileMoments]", truth: dict[str, Any], source: Path, *, stderr: bool
) -> dict[str, list[dict[str, Any]]]:
    """Print how the moments of each file, and of all, meet the truth; return the same as plain data by path."""
    import numpy as np
    from rich.table import Table

    from earmark.cli_build import screen
    from earmark.onset_scores import score_onsets

    table = Table("file", title=f"against {source}", title_justify="left")
    for name in ("within", "moments", "onsets", "precision", "recall", "F1"):
        table.add_column(name, justify="right")
    scores: dict[str, list[dict[str, Any]]] = {}
    everything: list[tuple[Any, Any]] = []
    offset = 0.0
    only = next(iter(truth.values())) if len(truth) == len(files) == 1 else None

    def judge(label: str, times: Any, onsets: Any) -> list[dict[str, Any]]:
        rows = []
        for window in SCORE_WINDOWS_SECONDS:
            met = score_onsets(times, onsets, window_seconds=window)
            counts = (f"{1000 * window:.0f} ms", str(met.num_moments), str(met.num_truth))
            table.add_row(label, *counts, *(f"{value:.3f}" for value in (met.precision, met.recall, met.f1)))
            rows.append({"window_seconds": window} | asdict(met))
        return rows

    for found in files:
        onsets = truth.get(Path(found.path).stem, only)
        if onsets is None:
            complain(f"{found.path}: {source} has no onsets for it")
            continue
        times = np.array([moment.time_seconds for moment in found.moments])
        scores[found.path] = judge(found.path, times, np.asarray(onsets))
        everything.append((times + offset, np.asarray(onsets) + offset))
        # One file after the other, so far apart that no moment meets another file's onset.
        offset += max([found.duration_seconds, *times, *onsets]) + 10.0
    if len(everything) > 1:
        judge("all", *(np.concatenate(parts) for parts in zip(*everything, strict=True)))
    if everything:
        screen(stderr=stderr).print(table)
    return scores
