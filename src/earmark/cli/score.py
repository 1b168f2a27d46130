"""`earmark score`: a file of predictions for a challenge, validated and scored with the official measures.

Beside the path of a sample: it judges what any model wrote, by `earmark.evaluation.challenges`.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from earmark.cli.terminal import DONE, FAILED, print_json, screen
from earmark.wording import at_most, visible

if TYPE_CHECKING:
    from rich.table import Table

    from earmark.evaluation.challenges import ChallengeScore

__all__ = ["add_arguments"]

MAX_FAULTS_NAMED = 20
UNITS = {"mAUC": "share"}  # of measures that are not in %


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        help="the json of a submission, or a zip file with it as test.json: action_recognition or action_anticipation "
        "of EPIC-KITCHENS-100, audio_based_interaction_recognition or _detection of EPIC-SOUNDS",
    )
    parser.add_argument(
        "--annotations",
        metavar="DIR|CSV",
        type=Path,
        required=True,
        help="folder of the official csv files, or the one to compare with; tail classes, unseen participants and the "
        "training split are looked for beside it",
    )
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command.

    Returns:
        The exit code: 1 for a file that is not valid.
    """
    from earmark.evaluation.challenges import score_submission
    from earmark.evaluation.submission_files import SubmissionError

    try:
        score = score_submission(options.file, options.annotations)
    except SubmissionError as error:
        for line in at_most(error.faults, MAX_FAULTS_NAMED):
            print(f"earmark score: {visible(line)}", file=sys.stderr, flush=True)
        if options.json:
            print_json({"valid": False, "faults": error.faults})
        return FAILED
    for note in score.notes:
        print(f"earmark score: {visible(note)}", file=sys.stderr, flush=True)
    if options.json:
        print_json({"valid": True} | asdict(score))
        return DONE
    console = screen()
    if score.metrics:
        console.print(_table(score))
    console.print(_counts(score))
    return DONE


def _table(score: "ChallengeScore") -> "Table":
    from rich.table import Table

    table = Table(title=f"{score.challenge}, against {visible(score.annotations)}", title_justify="left")
    table.add_column("official name")
    table.add_column("score", justify="right")
    if score.majority:
        source = "" if score.majority_source is None else visible(score.majority_source.name)
        table.add_column(f"majority of {source}", justify="right")
    table.add_column("unit")
    for name, value in score.metrics.items():
        row = [name, f"{value:.2f}" if _unit(name) == "%" else f"{value:.4f}"]
        if score.majority:
            other = score.majority.get(name)
            row.append("" if other is None else f"{other:.2f}" if _unit(name) == "%" else f"{other:.4f}")
        table.add_row(*row, _unit(name))
    return table


def _unit(name: str) -> str:
    return next((unit for measure, unit in UNITS.items() if measure in name), "%")


def _counts(score: "ChallengeScore") -> str:
    counts = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in score.counts.items())
    levels = ", ".join(f"{name} {level}" for name, level in score.levels.items())
    return f"valid: {counts}; {levels}"
