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
UNITS = {"mAUC": "share", "ED@": "share", "AUED": "share", "seconds": "s"}  # of measures that are not in %


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        help="the json of a submission, or a zip file with it as test.json: action_recognition or action_anticipation "
        "of EPIC-KITCHENS-100, audio_based_interaction_recognition or _detection of EPIC-SOUNDS, state changes (OSCC), "
        "points of no return (PNR) or long-term anticipation (LTA) of Ego4D",
    )
    parser.add_argument(
        "--annotations",
        metavar="DIR|FILE",
        type=Path,
        required=True,
        help="folder of the official csv or json files, or the one to compare with; tail classes, unseen participants, "
        "Ego4D's taxonomy and the training split are looked for beside it. Of an Ego4D download the top will do: the "
        "version and the split are those that have the file's clips",
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
    table.add_column("measure")
    others = dict(score.baselines)
    if score.majority:
        source = "" if score.majority_source is None else score.majority_source.name
        others = {f"majority of {source}": score.majority} | others
    for name in ("score", *others):
        table.add_column(visible(name), justify="right")
    table.add_column("unit")
    for name, value in score.metrics.items():
        values = [value, *(of_others.get(name) for of_others in others.values())]
        table.add_row(name, *("" if each is None else _shown(name, each) for each in values), _unit(name))
    return table


def _shown(name: str, value: float) -> str:
    return f"{value:.2f}" if _unit(name) == "%" else f"{value:.4f}"


def _unit(name: str) -> str:
    return next((unit for measure, unit in UNITS.items() if measure in name), "%")


def _counts(score: "ChallengeScore") -> str:
    counts = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in score.counts.items())
    levels = ", ".join(f"{name} {level}" for name, level in score.levels.items())
    return f"valid: {counts}" + (f"; {levels}" if levels else "")
