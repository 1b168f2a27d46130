"""The whole chain of docs/epic-kitchens.md on a kitchen, measured: from `earmark kitchen` to valid submissions.

    python benchmarks/epic_chain.py --out DIR

runs the commands below "All of it without the data" as they stand, one process after another, in DIR. Printed are the
seconds of each command, and from the results of action recognition what the encoder is above the random one, with the
95 % interval of the gain over videos. Started again, commands go on where they were. The exit code is 1 if a
command fails, or if verbs or nouns are not above the random encoder by more than the interval.
"""

import argparse
import json
import sys
from pathlib import Path

from page_commands import commands_of, print_gains, run_commands

LABELS = ("verb top-1", "noun top-1")


def is_of_actions(result: Path) -> bool:
    """Return whether results.json is of action recognition."""
    return bool(json.loads(result.read_text())["config"]["evaluate"]["task"] == "action_recognition")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for all that is made")
    options = parser.parse_args()
    if not run_commands(commands_of("epic-kitchens.md", "All of it without the data"), options.out):
        return 1
    results = sorted(options.out.glob("earmark_data/outputs/*/*/results.json"))
    above = [print_gains(path, labels=LABELS) for path in results if is_of_actions(path)]
    return int(not above or not all(above))


if __name__ == "__main__":
    sys.exit(main())
