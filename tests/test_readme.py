"""Every command of the README is one that Earmark takes, and its first Python runs as it stands."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from earmark.cli.config import checked_sweep
from earmark.cli.hydra_app import DEFAULT_CONFIG, SCHEMA
from earmark.cli.main import command_parser
from tests.conftest import ROOT
from tests.helpers.made_store import add_video, finish_store
from tests.helpers.media_clips import click_track, grey_ramp, write_clip

TEXT = (ROOT / "README.md").read_text()
COMMANDS = [shlex.split(line, comments=True) for line in re.findall(r"^    earmark (.+)$", TEXT, re.MULTILINE)]
INLINE = [shlex.split(text) for text in re.findall(r"`earmark ([^`]+)`", TEXT)]


def test_the_readme_has_commands() -> None:
    assert {command[0] for command in COMMANDS} == {"doctor", "moments", "prepare", "pretrain", "evaluate"}


@pytest.mark.parametrize("command", [*COMMANDS, *INLINE], ids=" ".join)
def test_every_command_of_the_readme_is_understood(command: list[str]) -> None:
    name, *arguments = command
    if name in DEFAULT_CONFIG:
        overrides = [text for text in arguments if text != "-m"]
        swept, _ = checked_sweep(SCHEMA[name], DEFAULT_CONFIG[name], overrides)
        assert bool(swept) == ("-m" in arguments)
    elif arguments:
        assert command_parser(name).parse_args(command).run
    else:
        with pytest.raises(SystemExit) as stopped:
            command_parser(name).parse_args([name, "--help"])
        assert stopped.value.code == 0


def test_the_file_tree_of_the_readme_is_that_of_the_package() -> None:
    tree = re.search(r"src/earmark/\n(.*?)\ntests/", TEXT, re.DOTALL)
    assert tree is not None
    named = set(re.findall(r"[\w*]+(?:\.py|/)", tree[1]))
    package = ROOT / "src" / "earmark"
    there = {f"{path.name}/" for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"}
    there |= {path.name for path in package.glob("*.py") if path.name not in ("__init__.py", "__main__.py")}
    assert there == named


def test_the_first_python_of_the_readme_runs_on_a_store_and_a_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Path("earmark_data/prepared/folder-1a2b3c4d")  # as it stands there
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "kitchen.mp4", frames=grey_ramp(16), waves=[click_track(48000, 24000)])
    finish_store(store, [add_video(store, "a", num_frames=1600)], {"a": [10.0 * k + 5 for k in range(10)]})
    section = TEXT.split("## The path of a sample")[1].split("\n## ")[0]
    first, second, *_ = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names: dict[str, Any] = {}
    exec(first, names)
    assert names["sample"]["video_before"].shape == (8, 32, 48, 3)
    exec(second, names)
    assert names["batch"]["video_before"].shape == (2, 8, 32, 48, 3)  # 10 segments in batches of 4: the last one
    assert names["epoch"] == 1
