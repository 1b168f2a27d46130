"""Is anything lost, changed or left over when a command is killed? SIGKILL at random points, then the same again.

Each trial starts `earmark kitchen`, `prepare`, `moments` (with a table and clips), `features` or `pretrain` in a folder
of its own, kills it at a random point of its time, and runs it again to its end. It must then hold what an undisturbed
run made, byte for byte (of checkpoints and metrics: all but times), and nothing else, in its folder and in the one for
temporary files. In every other trial only the process that was started is killed, and what it had started must end by
itself within seconds.

    python benchmarks/kills.py [--command prepare] [--trials 25] [--seed 0] [--folder DIR]
"""

import argparse
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from earmark.kitchen import KitchenSize, make_kitchen
from faults import SMALL, end_of, equal

ORPHAN_SECONDS = 5.0  # in which the workers of a killed command must end
EARMARK = [sys.executable, "-m", "earmark"]
PF_EXITING = 0x4  # linux/sched.h
IGNORED = ("tensorboard/", ".hydra/")  # of a run: event files have dates in their names


@dataclass(frozen=True)
class Command:
    """A command line that writes into the folder it is run in, and how to compare what is there."""

    arguments: Callable[[Path], list[str]]
    same: Callable[[Path, Path], bool]


@dataclass
class Count:
    """What became of the trials of one command."""

    killed: int = 0
    ended_before: int = 0
    failed: int = 0
    differ: int = 0
    orphans: int = 0
    left_over: int = 0
    told: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not (self.failed or self.differ or self.orphans or self.left_over)


def kitchen(sources: Path) -> list[str]:
    size = ["--kitchens", "1", "--videos", "2", "--seconds", "6", "--width", "96", "--height", "64", "--fps", "8"]
    return ["kitchen", "made", *size, "--workers", "2"]


def prepare(sources: Path) -> list[str]:
    small = ["prepare.short_side=32", "prepare.workers=2"]
    return ["prepare", "data=folder", f"data.args.base_path={sources}/P01", "environment.data_dir=data", *small]


def moments(sources: Path) -> list[str]:
    return ["moments", f"{sources}/P01", "--out", "moments.csv", "--clips", "clips", "--workers", "2", "--quiet"]


def features(sources: Path) -> list[str]:
    model = ["--model", "avid_r2plus1d_10", "--random", "0", "--width", "4", "--crop", "32"]
    how = ["--stride", "0.02", "--batch-size", "16", "--workers", "2", "--out", "out"]
    small = ["environment.data_dir=data", "prepare.short_side=32", "prepare.workers=2"]
    return ["features", f"{sources}/P01", *small, *model, *how]


def pretrain(sources: Path) -> list[str]:
    where = [f"data.args.base_path={sources}", "environment.data_dir=data", "logging.name=run"]
    return ["pretrain", *where, *SMALL, "optim.epochs=2", "environment.workers=1"]


def files_in(folder: Path) -> dict[str, str]:
    """Return a digest of every file below a folder by its path; folders that are empty count as files."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            if not any(path.iterdir()):
                found[f"{name}/"] = ""
        elif not any(part in name for part in IGNORED):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def same_files(one: Path, other: Path) -> bool:
    first, second = files_in(one), files_in(other)
    return all(first[name] == second[name] for name in first.keys() & second.keys())


def same_run(one: Path, other: Path) -> bool:
    return equal(*(end_of(folder / "data" / "outputs" / "run") for folder in (one, other)))


COMMANDS = {
    "prepare": Command(prepare, same_files),
    "kitchen": Command(kitchen, same_files),
    "pretrain": Command(pretrain, same_run),
    "moments": Command(moments, same_files),
    "features": Command(features, same_files),
}


def start(arguments: list[str], folder: Path, temporary: Path) -> "subprocess.Popen[bytes]":
    folder.mkdir(parents=True, exist_ok=True)
    temporary.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*EARMARK, *arguments],
        cwd=folder,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=(folder.parent / f"{folder.name}.err").open("wb"),
    )


def members(session: int) -> list[int]:
    """Return the processes of a session that have not ended and are not being ended by the system."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, *rest = stat.read_text().rpartition(")")[2].split()
            if int(rest[2]) == session and state != "Z" and not is_being_ended(stat.parent, flags=int(rest[5])):
                found.append(int(stat.parent.name))
        except OSError:
            continue
    return found


def is_being_ended(process: Path, *, flags: int) -> bool:
    """Return whether the system is ending a process: a busy one takes seconds to take back the memory of a killed one.

    Args:
        process: Its folder in ``/proc``.
        flags: The kernel's, as ``stat`` has them.
    """
    pending = re.findall(r"^(?:SigPnd|ShdPnd):\s*([0-9a-f]+)$", (process / "status").read_text(), re.MULTILINE)
    return bool(flags & PF_EXITING) or any(int(mask, 16) >> (signal.SIGKILL - 1) & 1 for mask in pending)


def end_session(session: int) -> list[int]:
    """Wait for what a killed process had started; kill and return what does not end by itself."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    while (left := members(session)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in left:
        os.kill(process, signal.SIGKILL)
    return left


def trial(name: str, sources: Path, undisturbed: Path, folder: Path, seconds: float, *, alone: bool) -> Iterator[str]:
    """Kill a command after some seconds and run it again; yield what is not as it should be."""
    command, temporary = COMMANDS[name], folder / "tmp"
    process = start(command.arguments(sources), folder / "work", temporary)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        if alone:
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        yield "killed"
    process.wait()
    if orphans := end_session(process.pid):
        yield f"orphans: {len(orphans)} still there"
    again = start(command.arguments(sources), folder / "work", temporary)
    if again.wait() != 0:
        yield f"failed: {(folder / 'work.err').read_text()[-300:]}"
        return
    expected, found = files_in(undisturbed / "work"), files_in(folder / "work")
    if expected.keys() - found.keys() or not command.same(undisturbed / "work", folder / "work"):
        different = [path for path in expected if found.get(path) != expected[path]]
        yield f"differ: {different[:3]}"
    if extra := sorted(found.keys() - expected.keys()):
        yield f"left over: {extra[:3]}"
    usual = {path.name for path in (undisturbed / "tmp").iterdir()}  # torch's cache of compiled code
    if extra := sorted({path.name for path in temporary.iterdir()} - usual):
        yield f"left over in the folder for temporary files: {extra[:3]}"


def trials(name: str, sources: Path, folder: Path, number: int, draw: random.Random) -> Count:
    undisturbed, count = folder / name / "undisturbed", Count()
    began = time.monotonic()
    process = start(COMMANDS[name].arguments(sources), undisturbed / "work", undisturbed / "tmp")
    if process.wait() != 0:
        raise RuntimeError((undisturbed / "work.err").read_text())
    whole = time.monotonic() - began
    for k in range(number):
        alone = k % 2 == 1
        seconds = draw.uniform(0.02, 1.0) * whole
        said = list(trial(name, sources, undisturbed, folder / name / str(k), seconds, alone=alone))
        kinds = Counter(text.partition(":")[0].partition(" in ")[0] for text in said)
        count.killed += kinds["killed"]
        count.ended_before += not kinds["killed"]
        count.failed += kinds["failed"]
        count.differ += kinds["differ"]
        count.orphans += kinds["orphans"]
        count.left_over += kinds["left over"] > 0
        place = f"{name} {k}, {'only it' if alone else 'its group'} killed after {seconds:.2f} of {whole:.2f} s"
        count.told += [f"{place}: {text}" for text in said if text != "killed"]
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--command", choices=COMMANDS, action="append", help="default: all")
    parser.add_argument("--trials", type=int, default=25, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep all files here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as scratch:
        folder = (options.folder or Path(scratch)).absolute()
        sources = folder / "sources"
        size = KitchenSize(2, 3, 12.0, width=96, height=64, fps=16, sample_rate=16000)
        make_kitchen(sources, size=size, progress=False)
        print("| command | trials | killed | ended before | failed | differ | with orphans | with left-over files |")
        print("|---|---|---|---|---|---|---|---|", flush=True)
        counts = []
        for name in options.command or COMMANDS:
            draw = random.Random(f"{options.seed}/{name}")
            counts.append(count := trials(name, sources, folder, options.trials, draw))
            numbers = (count.killed, count.ended_before, count.failed, count.differ, count.orphans, count.left_over)
            print(f"| {name} | {options.trials} | {' | '.join(map(str, numbers))} |", flush=True)
        print("\n".join(["", *(text for count in counts for text in count.told)]))
    return int(not all(count.is_clean for count in counts))


if __name__ == "__main__":
    sys.exit(main())
