"""Checkpoints made to do harm: each is refused by name by all that read checkpoints, in bounded time and memory."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from earmark.encoders.weights import WeightsError
from earmark.training.checkpoint import CheckpointError
from tests.conftest import ROOT
from tests.helpers.hostile_checkpoints import CASES, NAME, READERS, put, reader_named, write_cases

ERRORS = {
    "load_encoder": {"WeightsError"},
    "evaluate": {"CheckpointError", "DamagedCheckpointError"},
    "resume": {"CheckpointError", "DamagedCheckpointError"},
    "runs": {"ValueError"},  # of the reader in the helper, for what the list of runs says
}
SECONDS = 5  # of processor time for one file


@pytest.fixture(scope="module")
def good(reference: Path) -> Path:
    return reference / "e2cc9bf/run/checkpoints" / NAME


@pytest.fixture(scope="module")
def written(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    write_cases(good, folder)
    return folder


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], object]:
    return reader_named("evaluate", {}, tmp_path_factory.mktemp("evaluate"))


@pytest.mark.parametrize("reader", READERS)
def test_every_hostile_checkpoint_is_refused_by_name(reader: str, good: Path, written: Path, tmp_path: Path) -> None:
    """All of them in one process, which neither crashes, nor runs code, nor takes more memory than it may."""
    source = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.hostile_checkpoints", reader, good, written, tmp_path / "outputs"],
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    ended = f"ended by {signal.Signals(-done.returncode).name}" if done.returncode < 0 else done.stderr[-2000:]
    assert done.returncode == 0, f"{lines[-1] if lines else 'nothing read'}: {ended}"
    found = {line["case"]: line for line in lines if "case" in line}
    assert found.keys() == {"good", *CASES}
    assert (found["good"]["error"], found["good"]["message"]) == ("", "")
    wrong = []
    for case, (_, named) in CASES.items():
        line = found[case]
        told = line["message"].splitlines()[-1] if line["message"] else ""
        if line["error"] not in ERRORS[reader] or NAME not in told or not re.search(named, told):
            wrong.append(f"{case}: {line['error']} {told[:300]}")
        if "weights_only" in told or "add_safe_globals" in line["message"]:
            wrong.append(f"{case}: repeats the advice of torch")
        if line["seconds"] > SECONDS:
            wrong.append(f"{case}: took {line['seconds']:.1f} s")
    assert not wrong, "\n".join(wrong)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("keys", "value", "named"),
    [
        (("backbone",), 5, r"config\.backbone: not values by name"),
        (("backbone", "video"), "x", "does not say which video encoder it holds"),
        (("backbone", "video", "name"), "os.system", "does not say which video encoder it holds .*os.system"),
        (("backbone", "video", "name"), "avid_r2plus1d_34", "its video encoder does not fit this one"),
        (("backbone", "video", "args"), [], "does not say which video encoder it holds"),
        (("backbone", "video", "args", "width"), "4", "does not say which video encoder it holds"),
        (("backbone", "video", "args", "width"), 16, "its video encoder does not fit this one"),
        (("data",), [1], r"config\.data: not values by name"),
        (("data", "args"), "x", r"config\.data\.args: does not say"),
        (("data", "args", "base_path"), {"a": 1}, r"config\.data\.args: does not say"),
        (("prepare", "fps"), "16", r"config\.prepare\.fps: not a number"),
    ],
)
def test_a_configuration_of_the_wrong_kind_is_named_when_it_is_judged(
    evaluate: Callable[[Path], object], good: Path, tmp_path: Path, keys: tuple[str, ...], value: Any, named: str
) -> None:
    """It is plain data and so sound in itself; what it means is known only where an encoder is built from it."""
    path = tmp_path / NAME
    put("config", *keys, value=value)(torch.load(good, weights_only=True), path)
    with pytest.raises((CheckpointError, WeightsError), match=rf"{NAME}: .*{named}"):
        evaluate(path)
