"""Which tests see GPUs: those marked gpu, asked for by ``-m gpu``, and no others."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import HIDDEN_GPUS, ROOT, asks_for_gpu

COUNT = "import torch; print(torch.cuda.device_count())"
SEES = "import os; print(repr(os.environ.get('CUDA_VISIBLE_DEVICES')))"


def environment_outside() -> dict[str, str]:
    """Return the environment of a shell in which no tests run: without hidden GPUs, and without options for pytest.

    Those of CI would spread the few tests here over processes, and add words to what is said of them.
    """
    return {name: value for name, value in os.environ.items() if name not in {*HIDDEN_GPUS, "PYTEST_ADDOPTS"}}


def pytest_says(*arguments: str, **variables: str) -> str:
    """Run pytest on this file, started from where its variables are not set yet."""
    outside = environment_outside()
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", *arguments, str(Path(__file__).name)]
    done = subprocess.run(
        command, cwd=Path(__file__).parent, env={**outside, **variables}, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("markers", "asked"),
    [
        ("", False),
        ("slow", False),
        ("not gpu", False),
        ("not slow and not gpu", False),
        ("slow or gpu", False),
        ("gpu or slow", False),
        ("gpu", True),
        ("slow and gpu", True),
        ("gpu and not slow", True),
        ("(gpu)", True),
    ],
)
def test_gpus_are_seen_where_gpu_tests_alone_are_asked_for(markers: str, asked: bool) -> None:
    assert asks_for_gpu(markers) == asked


def test_this_test_and_what_it_starts_see_no_gpu() -> None:
    torch = pytest.importorskip("torch")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert torch.cuda.device_count() == 0
    for program, expected in ((COUNT, "0"), (SEES, "''")):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


def test_those_marked_gpu_are_left_out_with_the_way_to_run_them() -> None:
    pytest.importorskip("torch")
    said = pytest_says("-k", "marked_gpu_see")
    assert "GPUs: hidden; the tests that need one are run by -m gpu" in said
    assert "run it with -m gpu" in said
    assert "1 skipped" in said


def test_asked_for_alone_they_keep_the_gpus_that_were_chosen() -> None:
    pytest.importorskip("torch")
    said = pytest_says("-m", "gpu", "-k", "marked_gpu_see", CUDA_VISIBLE_DEVICES="999")  # which no machine has
    assert "GPUs: 0 visible" in said
    assert "hidden" not in said
    assert "needs a CUDA device" in said
    assert "1 skipped" in said


def test_a_checkout_in_a_folder_called_like_a_marker_runs_its_tests(tmp_path: Path) -> None:
    folder = tmp_path / "gpu" / "slow"
    folder.mkdir(parents=True)
    shutil.copy(Path(__file__).parent / "conftest.py", folder)
    (folder / "test_one.py").write_text("def test_one() -> None:\n    pass\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, folder]
    done = subprocess.run(command, cwd=folder, env=environment_outside(), capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_makefile_runs_them_apart() -> None:
    lines = (ROOT / "Makefile").read_text().splitlines()
    at = lines.index(next(line for line in lines if line.startswith("gpu:")))
    assert lines[at + 1].split()[1:3] == ["-m", "gpu"]


@pytest.mark.gpu
def test_tests_marked_gpu_see_one() -> None:
    import torch

    assert "CUDA_VISIBLE_DEVICES" not in os.environ or os.environ["CUDA_VISIBLE_DEVICES"]
    assert torch.cuda.device_count() > 0
    assert torch.ones(3, device="cuda").sum().item() == 3
