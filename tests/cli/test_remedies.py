"""The library's errors name no config keys; the command line adds which ones help."""

import ast
import pickle
import re
from pathlib import Path

import pytest

from earmark.cli.remedies import REMEDIES, remedy
from earmark.cli.terminal import report_error
from earmark.datasets.epic_kitchens import AmbiguousLayoutError
from earmark.preparation.catalog import SparseStoreError
from earmark.preparation.preparing import DiskSpaceError, prepare
from tests.conftest import ROOT
from tests.helpers.clicking import make_video

SOURCE = ROOT / "src" / "earmark"
SECTIONS = "criterion|data_augm|environment|evaluate|logging|optim|prepare|train_algo"
KEY = re.compile(
    rf"\b({SECTIONS})\.[a-z_]+=|\bdata\.(args|store|clip_seconds|clip_fps|audio_seconds)\b|(?<!\w)--[a-z]{{3,}}"
)


def test_no_string_below_the_command_line_names_a_config_key_or_a_flag() -> None:
    found = []
    for path in SOURCE.rglob("*.py"):
        if "cli" in path.relative_to(SOURCE).parts:
            continue
        tree = ast.parse(path.read_text())
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in docstrings:
                continue
            if KEY.search(node.value):
                found.append(f"{path.relative_to(SOURCE)}:{node.lineno}: {node.value!r}")
    assert found == []


def test_each_remedy_is_for_an_error_that_the_library_has() -> None:
    classes = {
        name for path in SOURCE.rglob("*.py") for name in re.findall(r"^class (\w+Error)\(", path.read_text(), re.M)
    }
    assert set(REMEDIES) <= classes


def test_a_store_that_keeps_too_little_comes_with_the_keys_that_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert report_error("earmark pretrain", SparseStoreError("a: holds only 1 s", needed_seconds=1.25)) == 1
    told = capsys.readouterr().err
    assert told.startswith("earmark pretrain: a: holds only 1 s; prepare with prepare.around_seconds=1.25 or more")
    assert report_error("earmark evaluate", SparseStoreError("a: holds only 1 s")) == 1
    assert capsys.readouterr().err == "earmark evaluate: a: holds only 1 s; prepare with prepare.around=null\n"
    assert remedy(ValueError("a: holds only 1 s")) is None


def test_a_full_disk_carries_its_numbers_and_comes_with_the_keys_that_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from earmark.datasets import Folder

    make_video(tmp_path / "videos" / "a.mp4")
    monkeypatch.setattr("earmark.preparation.preparing.free_bytes", lambda root: 1000)
    with pytest.raises(DiskSpaceError, match=r"1\.0 kB are free$|1000 B are free$|are free$") as caught:
        prepare(Folder(tmp_path / "videos").videos(), tmp_path / "store")
    assert caught.value.free_bytes == 1000
    assert caught.value.needed_bytes > 1000
    assert "prepare.short_side" not in str(caught.value)
    assert "prepare.short_side" in str(remedy(caught.value))


def test_errors_with_facts_survive_the_way_from_a_worker_process() -> None:
    sparse = pickle.loads(pickle.dumps(SparseStoreError("a", needed_seconds=2.0)))
    assert (str(sparse), sparse.needed_seconds) == ("a", 2.0)
    full = pickle.loads(pickle.dumps(DiskSpaceError("b", needed_bytes=7, free_bytes=3)))
    assert (str(full), full.needed_bytes, full.free_bytes) == ("b", 7, 3)


def test_two_kinds_of_cuts_come_with_the_key_that_chooses(capsys: pytest.CaptureFixture[str]) -> None:
    assert report_error("earmark check", AmbiguousLayoutError("EPIC: both segments and action_segments")) == 1
    told = capsys.readouterr().err
    assert told.startswith("earmark check: EPIC: both segments and action_segments; data.args.layout=segments or ")
