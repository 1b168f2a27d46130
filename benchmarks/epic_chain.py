"""The whole chain of docs/epic-kitchens.md on a kitchen, measured: from `earmark kitchen` to valid submissions.

    python benchmarks/epic_chain.py --out DIR

runs the commands below "All of it without the data" as they stand, one process after another, in DIR. Printed are the
seconds of each command, and from the results of action recognition what the encoder is above the random one, with the
95 % interval of the gain over videos. Started again, commands go on where they were. The exit code is 1 if a
command fails, or if verbs or nouns are not above the random encoder by more than the interval.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/epic-kitchens.md"
HEADING = "## All of it without the data"
BLOCK = re.compile(r"^    earmark ([a-z].*)$", re.MULTILINE)
LABELS = ("verb", "noun")


def commands() -> list[list[str]]:
    """Return the commands of the section, in their order."""
    section = PAGE.read_text(encoding="utf-8").split(HEADING)[1].partition("\n## ")[0]
    return [shlex.split(line) for line in BLOCK.findall(section)]


def is_of_actions(result: Path) -> bool:
    """Return whether results.json is of action recognition."""
    return bool(json.loads(result.read_text())["config"]["evaluate"]["task"] == "action_recognition")


def is_above_random(result: Path) -> bool:
    """Print what results.json says of verbs and nouns; return whether both are above the random encoder."""
    content = json.loads(result.read_text())
    above = True
    print(f"\n{result}\n\n| | encoder | random encoder | gain | its 95 % interval |\n|---|---|---|---|---|")
    for column in content["columns"]:
        if column["column"] not in LABELS:
            continue
        top1 = column["top1"]
        row = [top1[name]["value"] for name in ("encoder", "baseline", "gain")]
        low, high = top1["gain"]["low"], top1["gain"]["high"]
        above &= low > 0
        print(
            f"| {column['column']} top-1 | {' | '.join(f'{number:.1f}' for number in row)} | {low:.1f} to {high:.1f} |"
        )
    return above


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for all that is made")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print("| command | s |\n|---|---|")
    for command in commands():
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "earmark", *command], cwd=options.out, check=False)
        print(f"| `earmark {' '.join(command)[:100]}` | {time.monotonic() - began:.0f} |", flush=True)
        if done.returncode:
            return 1
    results = sorted(options.out.glob("earmark_data/outputs/*/*/results.json"))
    above = [is_above_random(path) for path in results if is_of_actions(path)]
    return int(not above or not all(above))


if __name__ == "__main__":
    sys.exit(main())
