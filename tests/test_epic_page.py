"""The commands of docs/epic-kitchens.md, one after another, on a tiny kitchen in the layout of EPIC-KITCHENS-100."""

import csv
import hashlib
import json
import re
from pathlib import Path

import pytest

from earmark.cli.main import main
from tests.helpers.docs_page import commands_of, text_of

pytestmark = pytest.mark.slow

PAGE = text_of("epic-kitchens.md")
COMMANDS = commands_of("epic-kitchens.md")
# What makes a command small stands behind its own words, and wins over them.
PICTURES = ["prepare.short_side=72", "data_augm.crop_size=64"]
SMALL = {
    "kitchen": [*("--kitchens", "4", "--videos", "3", "--seconds", "12"), *("--width", "96", "--height", "72")],
    "check": ["prepare.short_side=72"],
    "prepare": ["prepare.short_side=72"],
    "audio": [],
    "pretrain": [
        *(*PICTURES, "data_augm.min_short_side=64", "data_augm.max_short_side=80", "environment.workers=0"),
        *("backbone/video=avid_r2plus1d_10", "backbone.video.args.width=4", "backbone.audio.args.width=4"),
        *("optim.epochs=1", "optim.batch_size=4", "logging.save_freq=1"),
    ],
    "evaluate": [*PICTURES, "optim.epochs=2", "environment.workers=0", "evaluate.num_clips=1"],
    "features": ["--workers", "0"],
    "score": [],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data set EPIC, and the downloader's list of checksums."""
    folder = tmp_path_factory.mktemp("page")
    arguments = ["kitchen", str(folder / "EPIC"), "--preset", "demo", "--workers", "1", *SMALL["kitchen"]]
    assert main(arguments) == 0
    with (folder / "md5.csv").open("w", newline="") as file:
        rows = [("md5", "file_remote_path", "version")]
        for path in sorted((folder / "EPIC").glob("P*/videos/*.MP4")):
            rows.append((hashlib.md5(path.read_bytes()).hexdigest(), f"videos/{path.name}", "1"))
        csv.writer(file).writerows(rows)
    return folder


def test_the_page_has_every_station_of_the_chain() -> None:
    assert {command[0] for command in COMMANDS} == set(SMALL)


@pytest.mark.usefixtures("one_thread")
def test_every_command_of_the_page_runs_and_ends_with_valid_submissions(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    for command in COMMANDS:
        line = " ".join(command)
        if command[0] == "audio" and not _has("h5py"):
            continue
        capsys.readouterr()
        code = main([*command, *SMALL[command[0]]])
        out, err = capsys.readouterr()
        assert code == 0, f"earmark {line}\n{out}\n{err}"
        if command[0] == "check" and "--json" not in command:
            assert "complete: 12 of 12 videos found, 12 can be read" in out
    written = re.findall(r"evaluate\.submission=(\S+)", PAGE)
    assert len(written) == 8
    for name in written:
        capsys.readouterr()
        assert main(["score", name, "--annotations", "KITCHEN" if "kitchen" in name else "EPIC", "--json"]) == 0
        scored = json.loads(capsys.readouterr().out)
        assert scored["valid"] is True
        assert scored["metrics"]


def _has(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None
