"""`benchmarks/gpu.py`: each of its sections in the smallest size on the CPU, and what it leaves where one fails."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytest.importorskip("torch")


def gpu_benchmark(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    # without the options of CI for pytest: they would spread the one file of its tests over processes
    outside = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/gpu.py"), *arguments],
        env={**outside, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = gpu_benchmark("--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "no GPU that torch can use here; --cpu tries every line" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_section_that_fails_keeps_what_was_measured_before_and_is_told(tmp_path: Path) -> None:
    (tmp_path / "step.md").write_text("| a | 1 | 2.5 |\n")  # of an earlier call
    done = gpu_benchmark("--cpu", "--sections", "loader", "--out", str(tmp_path), "--folder", str(tmp_path / "empty"))
    assert done.returncode == 1
    told = (tmp_path / "gpu.md").read_text()
    assert told.index("## step") < told.index("| a | 1 | 2.5 |") < told.index("## loader")
    assert "**ended with exit code 1**; took" in told
    assert "to try this script, not to measure" in told


@pytest.mark.slow
def test_every_section_writes_its_part(tmp_path: Path) -> None:
    done = gpu_benchmark(
        *("--cpu", "--workers", "2", "--seconds", "1", "--out", str(tmp_path / "out"), "--folder", str(tmp_path / "k"))
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = (tmp_path / "out" / "gpu.md").read_text()
    headings = ["tests", "step", "transforms", "kitchen", "loader", "features", "end to end"]
    assert re.findall(r"^## (.*)$", told, re.MULTILINE) == headings
    assert told.count("```") % 2 == 0
    for line in (
        r"`pytest -m gpu --run-slow`: 1 skipped",
        r"\| plain \| [\d.]+ .*\| [\d.]+ \| 1\.00 \(1\.00 to 1\.00\) \|",
        r"- 0\.02 hours, 6 segments",
        r"\| 2 \| \d+ \| \d+ \|",
        r"\| features, workers' start included \| \d+ \|",
        r"\| as it is by default \| 2 \| \d+ \| \d+ \|",
        r"100 epochs of EPIC-KITCHENS-100 \(27,000 segments of 10 s\) would take [\d.]+ hours",
        r"End to end / step alone: \d+ / \d+ = [\d.]+\.",
    ):
        assert re.search(line, told), (line, told)
