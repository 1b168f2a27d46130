"""Every command of the README is one that Earmark takes."""

import re
import shlex

import pytest

from conftest import ROOT
from earmark.cli import _parser
from earmark.cli_hydra import DEFAULT_CONFIG, SCHEMA
from earmark.config import swept_keys

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
        assert bool(swept_keys(SCHEMA[name], DEFAULT_CONFIG[name], overrides)) == ("-m" in arguments)
    elif arguments:
        assert _parser().parse_args(command).run
    else:
        with pytest.raises(SystemExit) as stopped:
            _parser().parse_args([name, "--help"])
        assert stopped.value.code == 0


def test_the_file_tree_of_the_readme_is_that_of_the_package() -> None:
    tree = re.search(r"src/earmark/\n(.*?)\ntests/", TEXT, re.DOTALL)
    assert tree is not None
    named = set(re.findall(r"[\w*]+(?:\.py|/)", tree[1]))
    package = ROOT / "src" / "earmark"
    there = {f"{path.name}/" for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"}
    there |= {path.name for path in package.glob("*.py") if path.name not in ("__init__.py", "__main__.py")}
    commands = {name for name in there if name.startswith("cli_")}
    assert there - commands | {"cli_*.py"} == named
