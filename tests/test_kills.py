"""Each command is killed at random points and run again; and the judgement of that sees what it counts."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("kills")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the first command makes the videos for all."""
    return tmp_path_factory.mktemp("kills")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["prepare", "kitchen", "pretrain", "moments"])
def test_a_command_that_was_killed_ends_as_an_undisturbed_one(folder: Path, command: str) -> None:
    arguments = ["--command", command, "--trials", "2", "--seed", "3", "--folder", str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "kills.py"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    row = re.search(rf"^\| {command} \| (.*) \|$", done.stdout, re.MULTILINE)
    assert row is not None, done.stderr
    trials, killed, ended_before, *faults = map(int, row[1].split(" | "))
    assert (trials, killed + ended_before, set(faults)) == (2, 2, {0}), done.stdout
    assert killed > 0
    assert done.returncode == 0


def test_what_is_missing_changed_or_more_is_seen(kills: ModuleType, tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "a").write_text("a")
    assert kills.files_in(tmp_path / "one") == kills.files_in(tmp_path / "other")
    (tmp_path / "other" / ".b.tmp").touch()
    (tmp_path / "other" / "empty").mkdir()
    assert kills.files_in(tmp_path / "other").keys() - kills.files_in(tmp_path / "one").keys() == {".b.tmp", "empty/"}
    (tmp_path / "other" / "sub" / "a").write_text("b")
    assert not kills.same_files(tmp_path / "one", tmp_path / "other")


def test_a_process_that_outlives_the_one_that_started_it_is_seen_and_ended(
    kills: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kills, "ORPHAN_SECONDS", 0.2)
    script = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    process = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    process.wait()
    assert len(kills.members(process.pid)) == 1
    assert len(kills.end_session(process.pid)) == 1
    assert kills.end_session(process.pid) == []
