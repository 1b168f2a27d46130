"""The Makefile's `.venv`, with the installation of packages left out."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def install(folder: Path) -> str:
    done = subprocess.run(["make", "install"], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.slow
def test_a_broken_or_moved_environment_is_made_anew_and_a_good_one_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "first"
    folder.mkdir()
    lines = (ROOT / "Makefile").read_text().splitlines()
    assert sum(line.startswith("\t$(PIP) ") for line in lines) == 2  # the package, and what its tests need
    lines = ["\t@echo packages" if line.startswith("\t$(PIP) ") else line for line in lines]
    (folder / "Makefile").write_text("\n".join(lines))
    for name in ("pyproject.toml", "constraints.txt"):
        (folder / name).touch()
    assert "packages" in install(folder)
    assert "packages" not in install(folder)

    python = folder / ".venv/bin/python"
    for path in python.parent.glob("python*"):
        path.unlink()
    python.symlink_to("/no/such/python")
    assert "packages" in install(folder)
    subprocess.run([python, "-c", ""], check=True)

    moved = folder.rename(tmp_path / "second")
    assert "packages" in install(moved)
    done = subprocess.run([moved / ".venv/bin/pip", "--version"], capture_output=True, text=True, check=True)
    assert f"from {moved}/" in done.stdout
