"""Write docs/command-line.md from the commands' parsers, the schema of the configuration and its yaml files.

    python docs/write_command_line.py

The words for a key are the comment behind it in the yaml file of its group, and what it may be is the schema's.
`tests/cli/test_reference.py` fails where the page is not what this writes.
"""

import argparse
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from earmark.cli.config import EvaluateConfig, PretrainConfig
from earmark.cli.config_schema import Rule
from earmark.cli.main import COMMANDS, HYDRA_COMMANDS, command_parser

PAGE = Path(__file__).with_name("command-line.md")
CONFIGS = Path(str(files("earmark.cli.configs")))
TOP_LEVEL = {"pretrain": "default_ssrl", "evaluate": "default_lincls"}
SCALARS = {int: "integer", float: "number", bool: "true, false", str: "text"}

INTRODUCTION = """# The command line

<!-- Written by docs/write_command_line.py from the parsers and the configuration: change those, then run it. -->

`earmark COMMAND --help` shows the flags of a command. Exit codes: 0 done; 1 nothing could be done, or it failed; 2
wrong usage; 75 stopped by a scheduler's signal, and to be started again; 130 interrupted; 141 nobody reads the output
any more; 143 terminated. `EARMARK_DEBUG=1` shows where an error was raised.

"""
HYDRA = """`earmark pretrain` and `earmark evaluate` are Hydra applications, and
`python main.py --config-name=default_ssrl|default_lincls` takes the same command lines. They and `earmark prepare` take
`GROUP=CHOICE` and `KEY=VALUE`; a key that does not exist, or a value out of range, is refused with its full name and
the near matches.

| flag | what it does |
|---|---|
| `-m`, `--multirun` | run once for each combination of values, such as `-m optim.args.lr=0.005,0.05` |
| `--force` | of pretrain: go on although settings or data differ from those of the run, as `environment.force=true` |
| `--cfg job` | print the composed configuration and run nothing |
| `--config-name NAME` | another top-level configuration, such as one of your own |
| `--config-dir DIR` | a folder of your own configurations |

"""


@dataclass(frozen=True, slots=True)
class Choice:
    """One yaml file of a group: what it says of itself, its values and the comments behind them, by dotted key."""

    words: str
    values: dict[str, Any]
    comments: dict[str, str]


def page() -> str:
    """Return the whole page."""
    parser = command_parser(*COMMANDS)
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    text = INTRODUCTION + "| command | what it does |\n|---|---|\n"
    text += "".join(f"| [`{name}`](#earmark-{name}) | {what} |\n" for name, what in COMMANDS.items()) + "\n"
    for name, what in COMMANDS.items():
        text += f"## earmark {name}\n\n{_sentence(what)}"
        if name in HYDRA_COMMANDS:
            text += " [Flags](#hydra) and [configuration](#configuration) are below.\n\n"
        else:
            text += f"\n\n{_flags(commands.choices[name])}\n"
    return text + f"## Hydra\n\n{HYDRA}## Configuration\n\n{_configuration()}"


def _flags(parser: argparse.ArgumentParser) -> str:
    lines = ["| argument | default | what it is |", "|---|---|---|"]
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        value = "" if action.nargs == 0 or action.choices else f" {action.metavar or action.dest.upper()}"
        value = f" {{{','.join(action.choices)}}}" if action.choices else value
        shown = ", ".join(action.option_strings) + value if action.option_strings else str(action.metavar)
        default = (
            "" if action.default is None or action.default is False or action.default == [] else f"`{action.default}`"
        )
        words = (action.help or "").replace("%(default)s", str(action.default))
        words = re.sub(r"\s*\(?default: " + re.escape(str(action.default)) + r"\)?$", "", words)
        lines.append(f"| {_code(shown)} | {default} | {_cell(words)} |")
    return "\n".join(lines) + "\n"


def _configuration() -> str:
    schemas = {"pretrain": PretrainConfig, "evaluate": EvaluateConfig}
    chosen = {command: _defaults(CONFIGS / f"{name}.yaml") for command, name in TOP_LEVEL.items()}
    groups: dict[str, tuple[Any, list[str]]] = {}
    for command, schema in schemas.items():
        for group, kind in _groups(schema):
            groups.setdefault(group, (kind, []))[1].append(command)
    text = "Groups, with the choice that stands by default:\n\n| group | of | default |\n|---|---|---|\n"
    for group, (_, commands) in sorted(groups.items()):
        defaults = ", ".join(dict.fromkeys(f"`{chosen[command][group]}`" for command in commands))
        anchor = group.replace("/", "")
        text += f"| [`{group}`](#{anchor}) | {', '.join(commands)} | {defaults} |\n"
    for group, (_, commands) in sorted(groups.items()):
        kinds = [kind for command in commands for name, kind in _groups(schemas[command]) if name == group]
        default = [chosen[command][group] for command in commands]
        text += f"\n### {group}\n\n{_group(group, kinds, default)}"
    return text


def _groups(schema: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, kind in get_type_hints(schema, include_extras=True).items():
        if (CONFIGS / prefix / name).is_dir() and any((CONFIGS / prefix / name).glob("*.yaml")):
            yield f"{prefix}{name}", kind
        else:
            yield from _groups(kind, f"{prefix}{name}/")


def _defaults(path: Path) -> dict[str, str]:
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))["defaults"]
    return {group: choice for entry in entries if isinstance(entry, dict) for group, choice in entry.items()}


def _group(group: str, kinds: list[Any], default: list[str]) -> str:
    names = sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
    names = [*dict.fromkeys(default), *(name for name in names if name not in default)]
    choices = {name: _choice(group, name) for name in names}
    text = ""
    if len(choices) > 1 or any(choice.words for choice in choices.values()):
        text += "".join(f"- `{name}`{': ' + _cell(one.words) if one.words else ''}\n" for name, one in choices.items())
        text += "\n"
    section = group.replace("/", ".")
    lines = ["| key | default | may be | what it is |", "|---|---|---|---|"]
    allowed = {key: words for kind in kinds for key, words in _allowed(kind)}
    for key, words in allowed.items():
        having = {name: one for name, one in choices.items() if key in one.values}
        if (key == "name" and set(default) != {"default"}) or not having:
            continue
        comment = next((one.comments[key] for one in having.values() if key in one.comments), "")
        if not comment:
            raise SystemExit(f"{group}: {key} has no comment in {', '.join(having)}")
        only = "" if len(having) == len(choices) else f" (of {', '.join(f'`{name}`' for name in having)})"
        lines.append(f"| `{section}.{key}` | {_default(key, having)} | {_cell(words)} | {_cell(comment)}{only} |")
    return text + "\n".join(lines) + "\n"


def _default(key: str, having: Mapping[str, Choice]) -> str:
    """Return the default, and behind it those of the choices that have another."""
    by_value: dict[str, list[str]] = {}
    for name, one in having.items():
        by_value.setdefault(_yaml(one.values[key]), []).append(name)
    first, *others = by_value
    return f"`{first}`" + "".join(f"; `{value}` with {', '.join(by_value[value])}" for value in others)


def _yaml(value: Any) -> str:
    return (
        {None: "null", True: "true", False: "false", "": '""'}.get(value, str(value)) if _plain(value) else str(value)
    )


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | str)


def _choice(group: str, name: str) -> Choice:
    """Read a choice of a group, with those of the same group that it takes over."""
    text = (CONFIGS / group / f"{name}.yaml").read_text(encoding="utf-8")
    loaded = yaml.safe_load(text)
    values: dict[str, Any] = {}
    comments: dict[str, str] = {}
    for entry in loaded.pop("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            base = _choice(group, entry)
            values |= base.values
            comments |= base.comments
    header = re.match(r"(?:# @package .*\n)?((?:# .*\n)*)", text)
    words = " ".join(line.removeprefix("# ") for line in header[1].splitlines()) if header else ""
    prefix = f"{group}." if "@package _global_" in text else ""
    for key, value in _leaves(loaded):
        if key.startswith(prefix):
            values[key.removeprefix(prefix)] = value
    stack: list[str] = []
    for line in text.splitlines():
        found = re.match(r"( *)([\w-]+):(?: ([^#]*?))?(?: +# (.*))?$", line)
        if found is None:
            continue
        stack = [*stack[: len(found[1]) // 2], found[2]]
        if found[4]:
            comments[".".join(stack).removeprefix(prefix)] = found[4]
    return Choice(words, values, comments)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _allowed(kind: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield each key of a section with what its value may be."""
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        hint = hints[field.name]
        if is_dataclass(hint):
            yield from _allowed(hint, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, _words(hint)


def _words(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return ", ".join("null" if part is type(None) else _words(part) for part in get_args(hint))
    if get_origin(hint) is Annotated:
        kind, *rules = get_args(hint)
        texts = [rule.words for rule in rules if isinstance(rule, Rule)]
        return f"{SCALARS[kind]} {', '.join(texts)}"
    if get_origin(hint) is Literal:
        return ", ".join(str(value).lower() if isinstance(value, bool) else str(value) for value in get_args(hint))
    if get_origin(hint) is list:
        return f"list: {_words(get_args(hint)[0])}"
    return SCALARS[hint]


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
