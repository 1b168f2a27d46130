"""Is anything left behind when a loader's worker or its caller is killed? SIGKILL at random points, and a look around.

Each trial starts a program that loads batches by worker processes, and kills at a random point of its first seconds,
in turns, one of its workers or the program itself. A program whose worker was killed must end with the error that
names it; after either, no process of the trial, no file in /dev/shm and no memory may be left, within seconds.

    python benchmarks/loader_kills.py [--trials 50] [--workers 2] [--seed 0]
"""

import argparse
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from earmark.datasets import Folder
from earmark.kitchen import KitchenSize, make_kitchen
from earmark.preparation import prepare

SECONDS_TO_END = 10.0
LOADING = """
import multiprocessing, sys, torch
from earmark.clips.dataset import MomentClips, collate
from earmark.clips.loading import load_batches
from earmark.clips.store import PreparedStore

if __name__ == "__main__":
    clips = MomentClips(PreparedStore(sys.argv[1]))
    keys = ([(k % len(clips), k + place) for place in range(32)] for k in range(10**9))
    batches = load_batches(
        clips,
        keys,
        collate_fn=collate,
        num_workers=int(sys.argv[2]),
        device=torch.device("cpu"),
        start_method=sys.argv[3],
    )
    for number, _ in enumerate(batches):
        if number == 0:
            print(*(process.pid for process in multiprocessing.active_children()), flush=True)
"""


def session_members(session: int) -> list[int]:
    """Return the living processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def shared_memory_kb() -> int:
    """Return how much memory of the machine is shared: files in memory, named or not."""
    found = re.search(r"^Shmem:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def trial(store: Path, *, whom: str, start_method: str, num_workers: int, draw: random.Random) -> tuple[str, float]:
    """Kill once; return what was wrong, or an empty text, and the seconds until all had ended."""
    program = subprocess.Popen(
        [sys.executable, "-c", LOADING, str(store), str(num_workers), start_method],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    workers = [int(pid) for pid in program.stdout.readline().split()]
    if len(workers) != num_workers:
        program.kill()
        return f"did not start: {program.communicate()[1][-300:]}", 0.0
    time.sleep(draw.uniform(0.0, 0.5))
    started = time.monotonic()
    os.kill(program.pid if whom == "caller" else draw.choice(workers), signal.SIGKILL)
    wrong = ""
    try:
        told = program.communicate(timeout=SECONDS_TO_END)[1]
        if whom == "worker" and not re.search(r"WorkerLostError: loader worker \d+ .* was killed by SIGKILL", told):
            wrong = f"no error that names the worker: {told[-300:]}"
    except subprocess.TimeoutExpired:
        wrong = "the program goes on"
    while session_members(program.pid) and time.monotonic() - started < SECONDS_TO_END:
        time.sleep(0.01)
    seconds = time.monotonic() - started
    left = session_members(program.pid)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return wrong or (f"{len(left)} processes left" if left else ""), seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as scratch:
        size = KitchenSize(1, 2, 40.0, width=228, height=128, fps=16, sample_rate=16000)
        make_kitchen(Path(scratch) / "kitchen", size=size, progress=False)
        store = Path(scratch) / "store"
        prepare(Folder(Path(scratch) / "kitchen").videos(), store, num_workers=1, progress=False)
        named = Path("/dev/shm")
        files, memory = set(named.iterdir()), shared_memory_kb()
        print("| start method | killed | trials | with a fault | seconds until all had ended, median (longest) |")
        print("|---|---|---|---|---|")
        faults: Counter[str] = Counter()
        kinds = [(method, whom) for method in ("forkserver", "fork", "spawn") for whom in ("worker", "caller")]
        for kind, (method, whom) in enumerate(kinds):
            seconds, wrong = [], 0
            for _ in range(kind, options.trials, len(kinds)):
                fault, took = trial(store, whom=whom, start_method=method, num_workers=options.workers, draw=draw)
                seconds.append(took)
                wrong += bool(fault)
                faults[fault] += bool(fault)
            ends = f"{statistics.median(seconds):.2f} ({max(seconds):.2f})"
            print(f"| {method} | {whom} | {len(seconds)} | {wrong} | {ends} |", flush=True)
        left = set(named.iterdir()) - files
        print(f"files left in /dev/shm: {len(left)}; shared memory of the machine: {shared_memory_kb() - memory:+d} kB")
    for fault, count in (+faults).items():
        print(f"{count} x {fault}")
    return int(bool(+faults) or bool(left))


if __name__ == "__main__":
    sys.exit(main())
