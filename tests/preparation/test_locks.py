import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from earmark.preparation.locks import clear_leftovers, left_behind, locked, running_seconds

HOLD = """
import sys, time; from pathlib import Path; from earmark.preparation.locks import locked
with locked(Path(sys.argv[1]), "a/b") as lock:
    lock.report(12.5); print("held", flush=True); time.sleep(60)
"""


def held_elsewhere(root: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_is_held_once_and_given_up_by_a_killed_process(tmp_path: Path) -> None:
    process = held_elsewhere(tmp_path)
    try:
        with locked(tmp_path, "a/b") as lock:
            assert lock is None
        with locked(tmp_path, "other") as lock:
            assert lock is not None
        assert left_behind(tmp_path, ["a/b", "other"]) == set()
        assert running_seconds(tmp_path, {"a/b"}) == 12.5
        assert running_seconds(tmp_path, {"other"}) == 0.0
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert left_behind(tmp_path, ["a/b", "other"]) == {"a/b"}
    assert left_behind(tmp_path, ["a/b"]) == set()  # told once
    with locked(tmp_path, "a/b", wait=True) as lock:
        assert lock is not None


def test_half_written_files_of_the_living_stay(tmp_path: Path) -> None:
    half = tmp_path / "videos/a/.b.77-0123abcd.tmp.mov"
    half.parent.mkdir(parents=True)
    half.touch()
    process = held_elsewhere(tmp_path)
    try:
        clear_leftovers(tmp_path)
        assert half.exists()
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    clear_leftovers(tmp_path)
    assert not half.exists()


def test_tables_that_are_being_written_stay_and_old_ones_go(tmp_path: Path) -> None:
    fresh, old = tmp_path / ".videos.1-0123abcd.tmp.parquet", tmp_path / ".videos.2-0123abcd.tmp.parquet"
    for path in (fresh, old):
        path.touch()
    os.utime(old, (time.time() - 3600,) * 2)
    clear_leftovers(tmp_path)
    assert (fresh.exists(), old.exists()) == (True, False)


def test_a_lock_that_its_holder_removed_is_made_anew(tmp_path: Path) -> None:
    with locked(tmp_path, "a"):
        pass
    assert not list((tmp_path / ".running").iterdir())
    with locked(tmp_path, "a") as lock:
        assert lock is not None
        assert lock.exclusive


def test_who_waits_for_a_lock_gets_it_when_its_holder_is_killed(tmp_path: Path) -> None:
    process = held_elsewhere(tmp_path)
    waiter = subprocess.Popen(
        [sys.executable, "-c", HOLD.replace('"a/b"', '"a/b", wait=True'), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert waiter.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert waiter.stdout is not None
        assert waiter.stdout.readline() == "held\n"
        assert left_behind(tmp_path, ["a/b"]) == set()  # the living one holds it, not the dead one
    finally:
        waiter.kill()
        waiter.communicate()


def test_no_module_needs_what_only_posix_has() -> None:
    source = Path(sys.modules["earmark"].__file__ or "").parent
    for path in source.rglob("*.py"):
        modules = re.findall(r"^(?:import|from) (\w+)", path.read_text(), re.MULTILINE)
        assert not {"fcntl", "grp", "pwd", "resource", "termios"} & set(modules), path
