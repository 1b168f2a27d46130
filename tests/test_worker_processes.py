"""Worker processes end with the process that they work for, whatever ends it."""

import os
import signal
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pytest

from earmark.media import VideoWriter
from earmark.preparation.workers import each_in_order, in_processes
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")

MARK = "EARMARK_TEST_FAMILY"
NUM_BYTES = 2_000_000_000
SLEEPING = """
import time, joblib
from pathlib import Path
from earmark.cli.main import ended_by_signals
from earmark.preparation.workers import each_in_order, in_processes

def sleep(name):
    Path(name).touch()
    time.sleep(600)

calls = [joblib.delayed(sleep)(name) for name in ("one", "two")]
with ended_by_signals():
    list({handed_out})
"""


def family(mark: str) -> set[int]:
    """Return the processes that were started with a mark in their environment, and are not dead."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX":
                    found.add(int(entry.name))
        except OSError:  # ended meanwhile
            continue
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


def end_while_at_work(arguments: list[str], folder: Path, number: int, at_work: Callable[[], bool]) -> None:
    """Start a command, end it by a signal as soon as it is at work, and see all of its processes go."""
    mark = uuid.uuid4().hex
    environment = {**os.environ, MARK: mark, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    environment["TMPDIR"] = str(folder)
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
            # what starts the tests in the background may have had them ignore it, and a process inherits that
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    try:
        assert wait_until(lambda: at_work() or process.poll() is not None)
        assert process.poll() is None, (folder / "output").read_text()
        assert len(family(mark)) >= 3  # it, and two workers
        process.send_signal(number)
        code = process.wait(timeout=60)
        assert code == {signal.SIGTERM: 143, signal.SIGINT: 130}.get(signal.Signals(number), -number)
        # They notice within a second; a busy machine lets them come to it later. Their work would take minutes more.
        assert wait_until(lambda: not family(mark), seconds=20)
    finally:
        for pid in family(mark):
            os.kill(pid, signal.SIGKILL)
    if number != signal.SIGKILL:
        assert "Traceback" not in (folder / "output").read_text()


BENCH = """
import sys, time
from pathlib import Path
from earmark.cli import bench
from earmark.cli.bench_cells import CellOutcome, run_cells
from earmark.cli.bench_plan import Cell
from earmark.cli.main import main

def sleep(cell, out, num_threads):
    (out / cell.name).touch()
    time.sleep(600)
    return CellOutcome(cell.name)

def run(options):
    cells = [Cell(str(number), "replai", number, None, None, None, {}) for number in range(12)]
    return len(list(run_cells(cells, Path.cwd(), num_jobs=2, run=sleep)))

bench.run = run
sys.exit(main(["bench"]))
"""


both = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])


@both
@pytest.mark.parametrize("handed_out", ["in_processes(calls, num_workers=2)", "each_in_order(calls, num_workers=2)"])
def test_calls_handed_out_end_with_who_handed_them_out(number: int, handed_out: str, tmp_path: Path) -> None:
    script = SLEEPING.replace("{handed_out}", handed_out)
    names = tmp_path / "one", tmp_path / "two"
    end_while_at_work(["-c", script], tmp_path, number, lambda: all(name.exists() for name in names))


def test_calls_are_made_in_the_folder_in_which_they_were_handed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """joblib keeps its workers, which know the folder only in which they were started."""
    for name in ("one", "two", "one"):
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / name)
        for found in (
            in_processes([joblib.delayed(os.getcwd)() for _ in range(4)], num_workers=2, backend="loky"),
            each_in_order([joblib.delayed(os.getcwd)() for _ in range(4)], num_workers=2),
        ):
            assert set(found) == {str(tmp_path / name)}


def test_a_call_in_this_process_takes_it_to_no_other_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results come one by one, and what takes them may go to another folder in between."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    found = in_processes([joblib.delayed(os.getcwd)() for _ in range(2)], num_workers=1)
    assert next(found) == str(tmp_path)
    monkeypatch.chdir(tmp_path / "other")
    assert next(found) == str(tmp_path / "other")
    assert Path.cwd() == tmp_path / "other"


@both
def test_no_worker_of_moments_is_left(number: int, tmp_path: Path) -> None:
    names = ["one.wav", "two.wav"]
    for name in names:  # 35 hours of silence, which take up no room
        sound = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16)
        head = struct.pack("<4sI4s", b"RIFF", NUM_BYTES + 36, b"WAVE") + sound + struct.pack("<4sI", b"data", NUM_BYTES)
        (tmp_path / name).write_bytes(head)
        os.truncate(tmp_path / name, NUM_BYTES + len(head))

    def at_work() -> bool:
        heard = [np.fromfile(path) for path in tmp_path.glob("earmark-*/progress")]
        return bool(heard) and len(heard[0]) == len(names) and bool((heard[0] > 0).all())

    end_while_at_work(["-m", "earmark", "moments", *names, "--workers", "2"], tmp_path, number, at_work)
    if number == signal.SIGTERM:
        assert not list(tmp_path.glob("earmark-*"))


@both
def test_no_worker_of_kitchen_is_left_and_the_next_run_removes_what_it_was_writing(number: int, tmp_path: Path) -> None:
    size = ["--kitchens", "1", "--videos", "2", "--width", "64", "--height", "64", "--fps", "8"]
    long = ["-m", "earmark", "kitchen", "k", *size, "--seconds", "300", "--workers", "2"]

    def half_written() -> list[Path]:
        return list((tmp_path / "k").rglob(".*.tmp.MP4"))

    end_while_at_work(long, tmp_path, number, lambda: len(half_written()) == 2)
    again = subprocess.Popen(
        [sys.executable, *long],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    left = set(half_written())
    try:
        assert wait_until(lambda: not left & set(half_written()) and bool(half_written()))
    finally:
        again.terminate()
        again.wait()


@pytest.mark.slow
@both
def test_no_worker_of_prepare_is_left(number: int, tmp_path: Path) -> None:
    frame = np.zeros((48, 64, 3), np.uint8)
    for name in ("one", "two"):
        with VideoWriter(
            tmp_path / f"{name}.mp4", width=64, height=48, fps=1, sample_rate=16000, preset="ultrafast"
        ) as writer:
            for _ in range(7200):
                writer.write_frame(frame)
    arguments = ["-m", "earmark", "prepare", "data=folder", "data.args.base_path=.", "prepare.workers=2"]
    store = tmp_path / "earmark_data"
    end_while_at_work(arguments, tmp_path, number, lambda: len(list(store.rglob(".*.tmp.mov"))) == 2)
    assert not list(store.rglob("videos/*.json"))  # none was done


ENDING = """
import multiprocessing, joblib
from earmark.worker_processes import parallel

def work():
    assert parallel(2, [joblib.delayed(abs)(-number) for number in range(4)]) == [0, 1, 2, 3]

if __name__ == "__main__":
    process = multiprocessing.get_context({method!r}).Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode == 0, process.exitcode
    process.kill()
"""


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_process_that_multiprocessing_started_ends_although_its_workers_wait_for_more(
    tmp_path: Path, method: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(ENDING.format(method=method))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("number", "how"), [(signal.SIGTERM, "terminated"), (signal.SIGINT, "interrupted")])
def test_a_benchmark_is_ended_with_one_line_while_cells_wait(number: int, how: str, tmp_path: Path) -> None:
    end_while_at_work(["-c", BENCH], tmp_path, number, lambda: all((tmp_path / name).exists() for name in "01"))
    assert (tmp_path / "output").read_text() == f"earmark bench: {how}; the same command goes on where it was\n"
