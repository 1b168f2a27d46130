"""What the server of loader processes leaves in the folder for temporary files: nothing, however its process ends."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytest.importorskip("torch")

pytestmark = pytest.mark.skipif(os.name != "posix", reason="no fork server here")

SCRIPT = """
import os, signal, sys
from multiprocessing import get_context

from earmark.clips.fork_server import ensure_fork_server

if __name__ == "__main__":
    ensure_fork_server()
    ensure_fork_server()
    worker = get_context("forkserver").Process(target=print, args=("worked",))
    worker.start()
    worker.join()
    if sys.argv[1] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Return a folder of a short name: a socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="fork-", dir="/tmp") as name:
        yield Path(name)


def run(temporary: Path, script: Path, how: str) -> int:
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(temporary)}
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script, how], env=environ, capture_output=True, text=True, check=False)
    assert done.stdout == "worked\n", done.stderr
    assert "Traceback" not in done.stderr
    return done.returncode


def test_nothing_is_left_by_a_process_that_ends(temporary: Path, tmp_path: Path) -> None:
    assert run(temporary, tmp_path / "script.py", "ends") == 0
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next(temporary: Path, tmp_path: Path) -> None:
    assert run(temporary, tmp_path / "script.py", "killed") == -signal.SIGKILL
    (left,) = temporary.iterdir()
    assert left.name.startswith("earmark-")
    assert run(temporary, tmp_path / "script.py", "ends") == 0
    assert list(temporary.iterdir()) == []


def test_a_folder_too_long_for_another_below_it_is_used_as_it_is(temporary: Path, tmp_path: Path) -> None:
    long = temporary / ("x" * 50)
    long.mkdir()
    assert run(long, tmp_path / "script.py", "ends") == 0
    assert list(long.iterdir()) == []
