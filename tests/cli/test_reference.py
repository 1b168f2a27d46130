"""docs/command-line.md has every flag and every key, as the parsers and the configuration have them."""

import argparse
import runpy
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any, get_type_hints

from earmark.cli.config import EvaluateConfig, PretrainConfig
from earmark.cli.main import COMMANDS, command_parser
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
CHOICE_NAMES = {  # chosen by GROUP=CHOICE, never by a key
    f"{group}.name"
    for group in ("backbone.audio", "backbone.video", "criterion", "data", "data_augm", "optim", "train_algo")
}


NO_CHOICE_HAS = "backbone.video.args.num_mels"  # options of all encoders share one class


def keys(kind: Any, prefix: str = "") -> Iterator[str]:
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint):
            yield from keys(hint, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_the_page_is_what_the_script_writes() -> None:
    written = runpy.run_path(str(ROOT / "docs" / "write_command_line.py"))["page"]()
    assert written == PAGE, "run: python docs/write_command_line.py"


def test_the_page_has_every_key_of_the_configuration_with_words() -> None:
    rows = {row.split("`")[1]: row.split(" | ") for row in PAGE.splitlines() if row.startswith("| `")}
    wanted = {*keys(PretrainConfig), *keys(EvaluateConfig)} - CHOICE_NAMES - {NO_CHOICE_HAS}
    assert len(wanted) > 100
    assert wanted <= rows.keys()
    for key in wanted:
        assert len(rows[key]) == 4
        assert all(cell.strip(" |") for cell in rows[key]), rows[key]


def test_the_page_has_every_flag_of_every_command_with_words() -> None:
    (commands,) = (
        action for action in command_parser(*COMMANDS)._actions if isinstance(action, argparse._SubParsersAction)
    )
    assert set(commands.choices) == set(COMMANDS)
    for name, parser in commands.choices.items():
        section = PAGE.split(f"\n## earmark {name}\n")[1].split("\n## ")[0]
        for action in parser._actions:
            for flag in action.option_strings:
                assert flag in ("-h", "--help") or flag in section, (name, flag)
            assert action.help
