"""The commands of a section of a docs page, run one after another and measured: what the chains of data sets share."""

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

__all__ = ["commands_of", "print_gains", "run_commands"]

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^    earmark ([a-z].*)$", re.MULTILINE)


def commands_of(page: str, heading: str) -> list[list[str]]:
    """Return the commands of a section of a page, without ``earmark``, in their order."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    section = text.split(f"## {heading}\n")[1].partition("\n## ")[0]
    return [shlex.split(line) for line in BLOCK.findall(section)]


def run_commands(commands: list[list[str]], folder: Path) -> bool:
    """Run commands in a folder, one process after another, and print their seconds; return whether all ended well.

    Started again, commands go on where they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    print("| command | s |\n|---|---|")
    for command in commands:
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "earmark", *command], cwd=folder, check=False)
        print(f"| `earmark {' '.join(command)[:100]}` | {time.monotonic() - began:.0f} |", flush=True)
        if done.returncode:
            return False
    return True


def print_gains(result: Path, *, labels: Collection[str] | None = None) -> bool:
    """Print the rows of a results.json with a gain over the random encoder; return whether all are better beyond it.

    Args:
        result: The file.
        labels: Of the rows that are printed; None for all.

    Returns:
        Whether each gain's 95 % interval is on the better side of 0.
    """
    content = json.loads(result.read_text())
    task = content["config"]["evaluate"]["task"]
    print(f"\n{result.parent.name} ({task})\n\n| | encoder | random encoder | gain | its 95 % interval | trivial |")
    print("|---|---|---|---|---|---|")
    all_better = True
    for row in content["rows"]:
        score, decimals = row["score"], row["decimals"]
        if score["gain"] is None or (labels is not None and row["label"] not in labels):
            continue
        names = ("encoder", "baseline", "gain", "majority")
        encoder, baseline, gain, trivial = (f"{score[name]['value']:.{decimals}f}" for name in names)
        low, high = score["gain"]["low"], score["gain"]["high"]
        all_better &= low > 0 if row["higher_is_better"] else high < 0
        interval = f"{low:.{decimals}f} to {high:.{decimals}f}"
        unit = f", {row['unit']}" if row["unit"] else ""
        print(f"| {row['label']}{unit} | {encoder} | {baseline} | {gain} | {interval} | {trivial} |")
    return all_better
