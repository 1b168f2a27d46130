"""Any bytes as input: damaged files of every kind, tried under limits, and counted by what became of them.

Each input is a function of (seed, kind, number). It is tried in a process of its own that may take 1 GB of memory,
256 MB of disk and some seconds of CPU time, and counts as

- accepted: read, and what was read is what is there (each kind's module says how that is known);
- refused by name: an error that is meant for the user and holds the name of the file, entry or key;
- everything else, of which there should be none.

    python benchmarks/fuzz.py --count 200                      every kind, 200 inputs each
    python benchmarks/fuzz.py --kind media --count 3000 --jobs 2
    python benchmarks/fuzz.py --kind media --only 17 --keep DIR   one input again, with its traceback; keeps its files
"""

import argparse
import gc
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import import_module
from pathlib import Path

from fuzzing.running import FINE, HEADINGS, OUTCOMES, Kind, Outcome, damaged_input, judged, on_one_thread, tried

KINDS = {  # the module that has each, with `KIND`
    "media": "media",
    "store": "stores",
    "checkpoint": "checkpoints",
    "annotations": "annotations",
    "config": "configs",
    "runs": "runs",
    "pages": "pages",
    "submissions": "submissions",
}
CHUNK = 25  # inputs that a worker takes at a time
MAX_SHOWN = 40

_made: dict[str, Kind] = {}


def kind_in(name: str, scratch: Path) -> Kind:
    """Return a kind with what is undamaged made, once in each process."""
    if name not in _made:
        kind: Kind = import_module(f"fuzzing.{KINDS[name]}").KIND
        base = scratch / f"{name}-undamaged-{os.getpid()}"
        base.mkdir(parents=True)
        kind.make(base)
        # A fork must not collect what was opened here: threads of its decoders exist in this process only.
        gc.collect()
        gc.freeze()
        _made[name] = kind
    return _made[name]


def chunk_tried(name: str, seed: int, numbers: range, scratch: Path, cpu_seconds: int) -> list[Outcome]:
    kind = kind_in(name, scratch)
    return list(tried(kind, seed, numbers, scratch / str(os.getpid()), cpu_seconds=cpu_seconds))


def outcomes(names: list[str], options: argparse.Namespace, scratch: Path) -> Iterator[Outcome]:
    # A worker that is started afresh has no threads that a fork would lose.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context) as pool:
        calls = [
            pool.submit(
                chunk_tried,
                name,
                options.seed,
                range(first, min(first + CHUNK, options.first + options.count)),
                scratch,
                options.seconds,
            )
            for name in names
            for first in range(options.first, options.first + options.count, CHUNK)
        ]
        for call in as_completed(calls):
            yield from call.result()


def table(names: list[str], found: list[Outcome]) -> str:
    lines = [f"| kind | tried | {' | '.join(HEADINGS)} |", "|" + "---|" * (len(HEADINGS) + 2)]
    counts = {name: Counter(one.outcome for one in found if one.kind == name) for name in names}
    rows = [*counts.items(), ("all", sum(counts.values(), Counter()))] if len(names) > 1 else list(counts.items())
    for name, count in rows:
        lines.append(f"| {name} | {count.total()} | {' | '.join(str(count[outcome]) for outcome in OUTCOMES)} |")
    return "\n".join(lines)


def findings(found: list[Outcome]) -> Iterator[str]:
    """Yield a line for each cause of what should not be: how many, the first one's number, and how it was damaged."""
    groups: dict[tuple[str, str, str], list[Outcome]] = {}
    for one in sorted(found, key=lambda one: one.number):
        if one.outcome not in FINE:
            groups.setdefault(one.group, []).append(one)
    for (kind, outcome, told), members in sorted(groups.items(), key=lambda item: -len(item[1])):
        first = members[0]
        yield f"{kind} {outcome} x{len(members)}: {told} (--only {first.number}: {first.what[:120]})"


def try_one(name: str, options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="earmark-fuzz-") as scratch:
        kind = kind_in(name, Path(scratch))
        folder = (options.keep or Path(scratch) / "only").absolute()
        folder.mkdir(parents=True)
        damaged = damaged_input(kind, options.seed, options.only, folder)
        print(damaged.what, flush=True)
        os.chdir(folder)
        outcome, told = judged(damaged)
        print(f"{outcome}: {told}")
        return int(outcome not in FINE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS, action="append", help="may be given several times; default: all")
    parser.add_argument("--count", type=int, default=100, help="inputs of each kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=10, help="CPU time that an input may take")
    parser.add_argument("--only", type=int, metavar="N", help="try input N of one kind in this process, without limits")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="with --only: keep its files here")
    options = parser.parse_args()
    on_one_thread()
    names = options.kind or list(KINDS)
    if options.only is not None:
        return try_one(names[0], options)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="earmark-fuzz-") as scratch:
        found = []
        for outcome in outcomes(names, options, Path(scratch)):
            found.append(outcome)
            if outcome.outcome not in FINE:
                print(f"{outcome.kind} {outcome.number} {outcome.outcome}: {outcome.what[:100]}", file=sys.stderr)
                if outcome.outcome == "signal":  # alone it may not come again
                    print(outcome.detail, file=sys.stderr)
    print(table(names, found))
    most = max(found, key=lambda one: one.num_bytes)
    longest = max(found, key=lambda one: one.cpu_seconds)
    print(
        f"\nseed {options.seed}, {time.monotonic() - began:.0f} s, {options.jobs} at once; at most "
        f"{most.num_bytes / 2**20:.0f} MiB ({most.kind} {most.number}) and {longest.cpu_seconds:.1f} s of CPU time "
        f"({longest.kind} {longest.number})"
    )
    lines = list(findings(found))
    print("\n".join(["", *lines[:MAX_SHOWN], *([f"and {len(lines) - MAX_SHOWN} more"] * (len(lines) > MAX_SHOWN))]))
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
