"""Some damaged inputs of every kind, and the fuzzer's own judgement: that it would see what it counts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FUZZ = ROOT / "benchmarks" / "fuzz.py"

PLANTED = """
import os, random, sys, time
from pathlib import Path
from fuzzing.running import Input, Kind, WrongError, on_one_thread, tried

class Planted(Kind):
    name = "planted"

    def make(self, folder):
        pass

    def damaged(self, draw, folder):
        number = draw.random()  # the same for a seed and a number
        path = folder / "input"
        path.write_text(str(number))
        return Input(f"drawn {number}", lambda: ATTEMPTS[NAMES[self.number]](path), (str(path),))

def spin(path):
    while True:
        pass

def fill(path):
    held = bytearray(13 * 10**8)
    held[::4096] = b"x" * len(held[::4096])
    time.sleep(5)

def refuse(path):
    raise ValueError(f"{path}: broken")

def advise(path):
    raise ValueError(f"{path}: set weights_only to False")

def nameless(path):
    raise ValueError("broken")

def crash(path):
    raise TypeError(f"{path}: broken")

def take(path):
    raise WrongError("taken")

def pour(path):
    with open(path, "wb") as file:
        for _ in range(300):
            file.write(bytes(2**20))

ATTEMPTS = {
    "accepted": lambda path: path.read_text(),
    "refused": refuse,
    "nameless": nameless,
    "advice": advise,
    "traceback": crash,
    "signal": lambda path: os.kill(os.getpid(), 11),
    "exit": lambda path: os._exit(3),
    "hang": spin,
    "memory": fill,
    "disk": pour,
    "wrong": take,
    "escaped": lambda path: (path.parent / "../outside").write_text("a"),
}
NAMES = list(ATTEMPTS)
on_one_thread()
kind = Planted()
for kind.number in range(len(NAMES)):
    (outcome,) = tried(kind, 7, [kind.number], Path(sys.argv[1]), cpu_seconds=3)
    print(NAMES[kind.number], outcome.outcome)
assert not list(Path(sys.argv[1]).iterdir())  # nothing is left
"""


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join([str(ROOT / "src"), str(FUZZ.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_each_way_to_fail_is_told_from_the_others(tmp_path: Path) -> None:
    done = run("-c", PLANTED, str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = dict(line.split() for line in done.stdout.splitlines())
    expected = {name: name for name in found} | {"advice": "nameless", "exit": "signal", "escaped": "wrong"}
    assert len(found) == 12
    assert found == expected


@pytest.mark.parametrize(
    "kind", ["media", "store", "checkpoint", "annotations", "config", "runs", "pages", "submissions"]
)
def test_damaged_inputs_are_read_right_or_refused_by_name(kind: str) -> None:
    done = run(str(FUZZ), "--kind", kind, "--count", "25", "--jobs", "1")
    row = re.search(rf"^\| {kind} \| (.*) \|$", done.stdout, re.MULTILINE)
    assert row is not None, done.stderr
    tried, accepted, refused, *faults = map(int, row[1].split(" | "))
    assert (tried, accepted + refused, set(faults)) == (25, 25, {0}), done.stdout
    assert accepted > 0
    assert refused > 0 or kind in ("runs", "pages")  # they tell of anything
    assert done.returncode == 0


def test_an_input_is_the_same_each_time_and_can_be_tried_alone(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    told = [run(str(FUZZ), "--kind", "media", "--only", "3", "--keep", str(folder)) for folder in folders]
    assert told[0].stdout.splitlines()[0] == told[1].stdout.splitlines()[0]
    first, second = ([path.read_bytes() for path in sorted(folder.glob("damaged.*"))] for folder in folders)
    assert first
    assert first == second
