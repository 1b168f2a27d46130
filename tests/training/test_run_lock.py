"""Only one process trains in a run folder, once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from earmark.training.run_lock import RunBusyError, holder_of, run_lock

SOURCE = Path(sys.modules["earmark"].__file__ or "").parents[1]


def test_a_folder_in_use_is_refused_with_the_name_of_the_process(tmp_path: Path) -> None:
    code = "import sys; from earmark.training.run_lock import run_lock\nwith run_lock(sys.argv[1]): pass"
    command = [sys.executable, "-c", code, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with run_lock(tmp_path):
        other = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert f"RunBusyError: {tmp_path}: process {os.getpid()} on " in other.stderr
        assert holder_of(tmp_path) is not None
        with pytest.raises(RunBusyError, match=f"process {os.getpid()} on "), run_lock(tmp_path):
            pytest.fail("taken twice")
        assert holder_of(tmp_path) is not None
    subprocess.run(command, env=environment, check=True)
    assert holder_of(tmp_path) is None


def test_an_error_lets_go_of_the_folder(tmp_path: Path) -> None:
    assert holder_of(tmp_path / "not there") is None
    with pytest.raises(ZeroDivisionError), run_lock(tmp_path / "new"):
        raise ZeroDivisionError
    with run_lock(tmp_path / "new"):
        pass
    assert issubclass(RunBusyError, RuntimeError)
