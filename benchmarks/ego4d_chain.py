"""The whole chain of docs/ego4d.md on a kitchen, measured: from `earmark kitchen` to valid submissions.

    python benchmarks/ego4d_chain.py --out DIR

runs the commands below "All of it without the data" as they stand, one process after another, in DIR: all tasks in
version 2 on whole videos, and in version 1 on the files of clips. Printed are the seconds of each command, and from
each result what the encoder is above the random one, with the 95 % interval of the gain over videos. Started again,
commands go on where they were. The exit code is 1 if a command fails, or if in version 2, without the sound, the first
numbers of recognition and of state changes are not better than the random encoder's by more than the interval, or
those of anticipation not better than the most frequent class and than the last action, repeated.
"""

import argparse
import json
import sys
from pathlib import Path

from page_commands import commands_of, print_gains, run_commands

REPEATED = ("the most frequent class, repeated", "the last action, repeated")
FIRST = {  # of each task, the rows that decide
    "action_recognition": ("verb top-1", "noun top-1"),
    "oscc_pnr": ("state change", "point of no return"),
    "lta": ("verb ED@20", "noun ED@20"),
}


def decides(result: Path) -> bool:
    """Return whether results.json is of version 2, and of the video encoder alone."""
    content = json.loads(result.read_text())
    return content["config"]["data"]["args"]["version"] != "v1" and not content["config"]["evaluate"]["audio"]


def beats_repeating(result: Path) -> bool:
    """Print what anticipation is below answers that repeat one class; return whether verbs and nouns are, beyond it."""
    content = json.loads(result.read_text())
    found = []
    for column in content["columns"]:
        for other in column["others"]:
            if column["column"] == "action" or other["name"] not in REPEATED:
                continue
            less = other["differences"][column["decoding"]]
            interval = f"{less['low']:.3f} to {less['high']:.3f}"
            print(f"{column['column']}, less {other['name']}: {less['value']:.3f} ({interval})")
            found.append(less["high"] < 0)
    return len(found) == 2 * len(REPEATED) and all(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for all that is made")
    options = parser.parse_args()
    if not run_commands(commands_of("ego4d.md", "All of it without the data"), options.out):
        return 1
    results = sorted(options.out.glob("earmark_data/outputs/*/*/results.json"))
    better = {}
    for path in results:
        task = json.loads(path.read_text())["config"]["evaluate"]["task"]
        good = print_gains(path, labels=FIRST[task])
        if decides(path):
            better[task] = beats_repeating(path) if task == "lta" else good
    for task, good in better.items():
        print(f"{task}: {'better' if good else 'not better'} by more than the interval")
    return int(set(better) != set(FIRST) or not all(better.values()))


if __name__ == "__main__":
    sys.exit(main())
