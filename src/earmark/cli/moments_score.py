"""`earmark moments --score`: how well the moments found match the ground truth of the recordings.

Part of :mod:`earmark.cli.moments`.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark.cli.terminal import screen
from earmark.datasets.listing import reason_of
from earmark.wording import at_most, visible

if TYPE_CHECKING:
    from rich.table import Table

    from earmark.moments.writing import FileMoments

__all__ = ["Truth", "complain", "read_truths", "score"]

SCORE_WINDOWS_SECONDS = (0.05, 0.1)
MAX_ROWS_NAMED = 20  # of a file's that can't be used


@dataclass(frozen=True, slots=True)
class Truth:
    """The ground truth of one recording.

    Attributes:
        onsets: when something is heard, in seconds ``(N,)``; None where only actions are known.
        spans: actions, start and stop in seconds ``(M, 2)``.
    """

    onsets: Any
    spans: Any


def complain(text: str) -> None:
    """Report a fault of an input on standard error."""
    print(f"earmark moments: {visible(text)}", file=sys.stderr, flush=True)


def read_truths(path: Path) -> dict[str, Truth]:
    """Read a file of ground truth, or all Audacity labels of a folder: name of the recording -> its ground truth.

    Rows that can't be used are named on standard error and left out.

    Raises:
        earmark.moments.scoring.TruthError: If a file is of an unknown format, missing or damaged, or a folder can't be
            read or holds no labels.
    """
    from earmark.moments.scoring import TruthError, read_ground_truth

    files = [path]
    if path.is_dir():
        try:
            files = sorted(file for file in path.iterdir() if file.suffix == ".txt")
        except OSError as error:
            raise TruthError(f"{path}: {reason_of(error)}") from error
        if not files:
            raise TruthError(f"{path}: no Audacity labels (.txt) in this folder")
    truths: dict[str, Truth] = {}
    for file in files:
        known = read_ground_truth(file)
        for line in at_most(known.problems, MAX_ROWS_NAMED):
            complain(f"left out: {line}")
        for name, spans in known.spans.items():
            truths[name] = Truth(None if known.onsets is None else known.onsets[name], spans)
    return truths


def score(
    files: "Sequence[FileMoments]", truths: dict[str, Truth], source: Path, *, stderr: bool
) -> dict[str, list[dict[str, Any]]]:
    """Print how well the moments of each file, and of all, match the ground truth.

    Recall of actions is the share of the annotated ones with a moment within them, idle the share of the moments
    outside all of them; neither is there for labels that are points. Where only actions are known (EPIC-KITCHENS-100)
    there is nothing else to score: they begin before they are heard.

    Args:
        files: What was found.
        truths: What is known, by the name of the recording; a single one is taken for a single file, whatever its name.
        source: Where that is from.
        stderr: Print there, since standard output is taken.

    Returns:
        The same as plain data: path -> a score for each window, or a single one of actions.
    """
    import numpy as np

    only = next(iter(truths.values())) if len(truths) == len(files) == 1 else None
    known: list[tuple[FileMoments, Any, Truth]] = []
    for found in files:
        truth = truths.get(Path(found.path).stem, only)
        if truth is None:
            complain(f"{found.path}: {source} has no entry for it")
        else:
            known.append((found, np.array([moment.time_seconds for moment in found.moments]), truth))
    if not known:
        return {}
    of_actions = known[0][2].onsets is None  # all of one source
    judge = _of_actions if of_actions else _of_onsets
    rows = [(visible(found.path), judge(times, truth)) for found, times, truth in known]
    scores = {found.path: scored for (found, _, _), (_, scored) in zip(known, rows, strict=True)}
    if len(known) > 1:
        rows.append(("all", judge(*_joined(known))))
    screen(stderr=stderr).print(_table(rows, source, of_actions=of_actions))
    return scores


def _joined(known: "Sequence[tuple[FileMoments, Any, Truth]]") -> tuple[Any, Truth]:
    """Put the recordings one after the other, so far apart that no moment meets what is known of another."""
    import numpy as np

    moments, onsets, spans = [], [], []
    offset = 0.0
    for found, times, truth in known:
        heard = np.zeros(0) if truth.onsets is None else truth.onsets
        moments.append(times + offset)
        onsets.append(heard + offset)
        spans.append(truth.spans + offset)
        offset += max([found.duration_seconds, *times, *heard, *truth.spans.ravel()]) + 10.0
    only_actions = known[0][2].onsets is None
    return np.concatenate(moments), Truth(None if only_actions else np.concatenate(onsets), np.concatenate(spans))


def _of_onsets(times: Any, truth: Truth) -> list[dict[str, Any]]:
    from earmark.moments.scoring import score_onsets

    shares = {"span_recall": None, "idle_share": None}
    if len(truth.spans) and (truth.spans[:, 1] > truth.spans[:, 0]).all():
        shares = _shares_of_actions(times, truth)
    return [
        {"window_seconds": window} | asdict(score_onsets(times, truth.onsets, window_seconds=window)) | shares
        for window in SCORE_WINDOWS_SECONDS
    ]


def _of_actions(times: Any, truth: Truth) -> list[dict[str, Any]]:
    return [{"num_moments": len(times), "num_actions": len(truth.spans)} | _shares_of_actions(times, truth)]


def _shares_of_actions(times: Any, truth: Truth) -> dict[str, Any]:
    from earmark.moments.scoring import idle_share, span_recall

    return {"span_recall": span_recall(times, truth.spans), "idle_share": idle_share(times, truth.spans)}


def _table(rows: Sequence[tuple[str, list[dict[str, Any]]]], source: Path, *, of_actions: bool) -> "Table":
    from rich.table import Table

    caption, shown = None, visible(source)
    columns = {"moments": "num_moments", "onsets": "num_truth", "precision": "precision", "recall": "recall"}
    columns |= {"F1": "f1", "recall of actions": "span_recall", "idle": "idle_share"}
    if of_actions:
        columns = {"moments": "num_moments", "actions": "num_actions", "recall of actions": "span_recall"}
        columns["idle"] = "idle_share"
        caption = (
            f"{shown} says when actions begin and end, not when they are heard, so precision can't be computed. "
            "Recall of actions: the share of them with a moment within; idle: the share of the moments outside all."
        )
    table = Table("file", title=f"against {shown}", title_justify="left", caption=caption, caption_justify="left")
    for name in (*([] if of_actions else ["within"]), *columns):
        table.add_column(name, justify="right")
    for label, scores in rows:
        for scored in scores:
            window = [] if of_actions else [f"{1000 * scored['window_seconds']:.0f} ms"]
            table.add_row(label, *window, *(_cell(scored[key]) for key in columns.values()))
    return table


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.3f}"
