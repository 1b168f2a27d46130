"""What all commands share: counting cores, parsing numbers, telling errors."""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from earmark.cli.terminal import non_negative, positive, report_error
from tests.conftest import ROOT


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to cores")
def test_only_the_cores_that_a_process_may_use_are_counted() -> None:
    code = """if True:
        import os
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        from earmark.cli.terminal import num_cpus
        print(num_cpus())
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize(
    ("parse", "text", "reason"),
    [
        (positive, "0", "must be at least 1, got 0"),
        (positive, "1.5", "must be a whole number, got '1.5'"),
        (non_negative, "-0.1", "must be at least 0, got -0.1"),
        (non_negative, "inf", "must be at least 0, got inf"),
        (non_negative, "nan", "must be at least 0, got nan"),
        (non_negative, "x", "must be a number, got 'x'"),
    ],
)
def test_numbers_out_of_range_are_refused(parse: Callable[[str], float], text: str, reason: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"^{reason}$"):
        parse(text)


def test_an_error_of_the_system_is_reported_by_file_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    error = FileNotFoundError(2, "No such file or directory", "a.mp4")
    assert report_error("earmark moments", error) == 1
    assert capsys.readouterr().err.splitlines()[0] == "earmark moments: a.mp4: no such file or directory"
    with pytest.raises(ZeroDivisionError):
        report_error("earmark moments", ZeroDivisionError())
