"""The commands of docs/ego4d.md, one after another, on a tiny kitchen in the layout of Ego4D, in both its versions."""

import json
import re
from pathlib import Path

import pytest

from earmark.cli.main import main
from tests.helpers.docs_page import commands_of, text_of

pytestmark = pytest.mark.slow

PAGE = text_of("ego4d.md")
COMMANDS = [command for command in commands_of("ego4d.md") if command[0] != "kitchen"]
TASKS = ("action_recognition", "oscc_pnr", "lta")
# What makes a command small stands behind its own words, and wins over them.
PICTURES = ["prepare.short_side=36", "data_augm.crop_size=32"]
ENCODERS = ["backbone/video=avid_r2plus1d_10", "backbone.video.args.width=4", "backbone.audio.args.width=4"]
SMALL = {
    "check": ["prepare.short_side=36"],
    "prepare": ["prepare=default", "prepare.short_side=36", "prepare.workers=1"],
    "pretrain": [
        *("prepare=default", *PICTURES, "data_augm.min_short_side=32", "data_augm.max_short_side=40", *ENCODERS),
        *("optim.epochs=1", "optim.batch_size=16", "logging.save_freq=1", "environment.workers=0"),
    ],
    "evaluate": [
        *("prepare=default", *PICTURES, "optim.epochs=1", "environment.workers=0", "evaluate.num_clips=1"),
    ],
    "score": [],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the kitchen KITCHEN, whose Ego4D files are the data set EGO4D."""
    folder = tmp_path_factory.mktemp("page")
    size = ["--kitchens", "3", "--videos", "2", "--seconds", "105", "--width", "86", "--height", "64", "--fps", "4"]
    assert main(["kitchen", str(folder / "KITCHEN"), "--preset", "demo", "--workers", "1", *size]) == 0
    (folder / "EGO4D").symlink_to("KITCHEN/ego4d")
    return folder


def task_of(command: list[str]) -> str:
    named = [word.partition("=")[2] for word in command if word.startswith("evaluate.task=")]
    return named[0] if named else TASKS[0]


def small(command: list[str]) -> list[str]:
    """Return the words that make a command small, those of its task among them."""
    words = SMALL[command[0]]
    if task_of(command) == "oscc_pnr":
        return [*words, "evaluate.train_parts=1"]
    is_transformer = task_of(command) == "lta" and not any("aggregator" in word for word in command)
    return [*words, "evaluate.num_layers=1"] if is_transformer else words


def test_the_page_has_every_task_in_either_version() -> None:
    judged = [command for command in COMMANDS if command[0] == "evaluate"]
    assert {command[0] for command in COMMANDS} == set(SMALL)
    for version in ("data.args.version=v1", "prepare.short_side=72"):
        assert {task_of(command) for command in judged if version in command} == set(TASKS)


@pytest.mark.usefixtures("one_thread")
def test_every_command_of_the_page_runs_and_ends_with_valid_submissions(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    for command in COMMANDS:
        capsys.readouterr()
        code = main([*command, *small(command)])
        out, err = capsys.readouterr()
        assert code == 0, f"earmark {' '.join(command)}\n{out}\n{err}"
        if command[0] == "check" and "--json" not in command and "data.args.layout=clips" not in command:
            assert "complete: 6 of 6 videos found, 6 can be read" in out
    written = re.findall(r"earmark score (\S+)", PAGE)
    assert len(written) == 6
    for name in written:
        capsys.readouterr()
        assert main(["score", name, "--annotations", "KITCHEN/ego4d", "--json"]) == 0
        scored = json.loads(capsys.readouterr().out)
        assert scored["valid"] is True
        assert scored["metrics"]
    for path in folder.glob("earmark_data/outputs/*/*/results.json"):
        result = json.loads(path.read_text())
        assert [row["label"] for row in result["rows"]]
        seen = {seen["by"]: seen["num_videos"] for seen in result["seen"]}
        assert seen["pretraining saw"] == 0  # in clips or in the whole
