"""Each script of examples/ runs as it stands, with nothing to download, and says what it promises."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAST_LINES = {
    "features_of_clips.py": r"12 spans, 64 features each\nmost alike: \S+ \d+-\d+ s and \S+ \d+-\d+ s: [01]\.\d{3}\n",
    "find_moments.py": r"P01_01\.MP4: \d+ moments in 30\.0 s, \d+\.\d per minute\n",
    "own_training_loop.py": r"epoch 4: contrastive loss [0-3]\.\d{3}, state change loss [01]\.\d{3}\n",
}


def test_every_example_is_tested_and_named_in_the_readme() -> None:
    scripts = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert scripts == set(LAST_LINES)
    readme = (ROOT / "README.md").read_text()
    assert {name for name in scripts if f"examples/{name}" in readme} == scripts


@pytest.mark.parametrize("script", sorted(LAST_LINES))
def test_an_example_runs_as_it_stands(script: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(LAST_LINES[script] + r"\Z", done.stdout), done.stdout
    assert not list(tmp_path.iterdir())  # what is made, is made in a temporary folder
