"""What the hosted CI and the hooks before a commit call is there and means what it says."""

import importlib.util
import re
import shlex
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return content


@pytest.fixture(scope="module")
def matrix() -> ModuleType:
    spec = importlib.util.spec_from_file_location("matrix", ROOT / ".ci/matrix.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["matrix"] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def test_the_workflow_runs_everything_on_the_oldest_and_newest_python_and_the_oldest_libraries(
    matrix: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = read(".github/workflows/ci.yml")["jobs"]
    commands = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    assert commands["all"] == ["bash .ci/run"]
    assert jobs["all"]["strategy"]["matrix"]["python"] == [matrix.PYTHONS[0], matrix.PYTHONS[-1]]
    assert set(matrix.PYTHONS) <= set(jobs["all"]["steps"][1]["with"]["python-version"].split())
    (oldest,) = commands["oldest"]
    program, script, *arguments = shlex.split(oldest)
    assert (program, ROOT / script) == ("python", Path(matrix.__file__))
    ran = []
    monkeypatch.setattr(matrix, "run_leg", lambda leg, python, scratch, run: ran.append(leg.name))
    monkeypatch.setattr(matrix, "python_command", lambda version: sys.executable)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    assert matrix.main() == 0
    assert ran == ["3.11-oldest"]


def test_what_the_scripts_of_ci_call_is_there(matrix: ModuleType) -> None:
    script = (ROOT / ".ci/run").read_text()
    targets = set(re.findall(r"^make (\w+)", script, re.MULTILINE))
    assert {"check", "demo", "test"} <= targets
    assert targets <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    legs = {f"{python}-{age}" for python in matrix.PYTHONS for age in ("newest", "oldest")}
    assert set(re.findall(r"\d\.\d+-\w+", script)) <= legs


def test_the_hooks_run_the_tools_that_make_check_runs() -> None:
    hooks = {hook["id"]: hook for repo in read(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]}
    assert {"trailing-whitespace", "end-of-file-fixer", "check-added-large-files"} <= set(hooks)
    own = {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in hooks.values() if "entry" in hook}
    makefile = (ROOT / "Makefile").read_text()
    check = makefile.split("\ncheck:")[1].split("\n\n")[0]
    assert own == set(re.findall(r"\$\(BIN\)/(\w+)", check)) == {"ruff", "mypy"}
    dev = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"]
    assert own <= {re.split("[<>=]", text)[0] for text in dev}
