"""Hostile overrides and configuration files for `earmark pretrain` and `evaluate`, up to where a job would start.

It is right where each number that was asked for is the one in the configuration, all numbers are finite, and nothing
that a configuration names is run: a canary file that several inputs ask for must not be there.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from earmark.cli.config import compose
from fuzzing.mutations import NUMBERS, TEXTS, edited_bytes, edited_text, edited_tree, json_text
from fuzzing.running import Input, Kind, UnhandledError, WrongError, run_command

CANARY = "canary"
NAMES = {"pretrain": "default_ssrl", "evaluate": "default_lincls"}
GROUPS = ("data", "backbone/video", "backbone/audio", "criterion", "optim", "environment", "logging", "prepare",
          "model", "hydra/launcher", "hydra/job_logging", "nothing")  # fmt: skip
CODE = (  # each would make the canary, if anything did what it says
    ("+_target_=os.mkdir", "+path=canary"),
    ("+hydra.callbacks.a._target_=os.mkdir", "+hydra.callbacks.a.path=canary"),
    ("+hydra.callbacks.a={_target_: os.mkdir, path: canary}",),
    ("hydra.launcher._target_=os.mkdir", "+hydra.launcher.path=canary"),
    ("hydra.sweeper._target_=os.mkdir", "+hydra.sweeper.path=canary"),
    ("+hydra.job_logging.handlers.a={'()': os.mkdir, path: canary}",),
    ("+hydra.job_logging.handlers.a={class: logging.FileHandler, filename: canary}",),
    ("+backbone.video._target_=os.mkdir", "+backbone.video.path=canary"),
    ("logging.name=${oc.env:HOME}",),
    ("+x=${hydra:runtime.cwd}",),
    ("logging.name=$(mkdir canary)",),
    ("logging.name=`mkdir canary`",),
    ("logging.name='; mkdir canary'",),
)
SYNTAX = (
    *("=", "==", "a", "~", "~optim", "~optim.epochs", "+", "++optim.epochs=3", "@", "optim@x=sgd", "a=b=c", "[", "{"),
    *("optim.epochs=[", "optim.epochs={a:", "optim.epochs=1,2", "optim.epochs=range(1,3)", "optim.epochs=choice(1,2)"),
    *("optim=null", "optim.args=null", "optim={}", "data.args={base_path:a}", "hydra.mode=MULTIRUN", "--cfg", "--no"),
    *("hydra.run.dir=../../escaped", "hydra.sweep.dir=../../escaped", "--config-dir=/nowhere", "--config-name=../x"),
    *("--config-path=/", "optim.epochs=${optim.epochs}", "optim.epochs=${nothing}", "optim.epochs=???"),
)


@dataclass(frozen=True, slots=True)
class Line:
    """What follows the command; what names its fault if it has one; numbers that are asked for by their keys."""

    overrides: tuple[str, ...]
    names: tuple[str, ...] = ("",)
    asked: Mapping[str, float] = field(default_factory=dict)
    what: str = ""


class Configs(Kind):
    """Command lines."""

    name = "config"

    def make(self, folder: Path) -> None:
        self._values = {command: compose(name, []) for command, name in NAMES.items()}
        self._leaves = {command: _leaves(values) for command, values in self._values.items()}

    def damaged(self, draw: random.Random, folder: Path) -> Input:
        command = draw.choice(tuple(NAMES))
        how = draw.choice(("value", "value", "value", "group", "code", "syntax", "file", "key"))
        if how == "value":
            line = _with_values(self._leaves[command], draw)
        elif how == "file":
            line = _with_file(folder / "configs", draw)
        elif how == "group":
            group = draw.choice(GROUPS)
            line = Line((f"{group}={draw.choice((*TEXTS, 'kitchen', 'default', 'sgd'))}",), (group,))
        elif how == "code":
            line = Line(draw.choice(CODE))
        elif how == "syntax":
            line = Line((draw.choice(SYNTAX),))
        else:
            line = Line((f"{draw.choice(('', '+', '++', '~'))}{draw.choice(TEXTS)}={draw.choice(TEXTS)}",))
        overrides = [text.replace("\x00", "") for text in line.overrides]  # no process can be given one
        told = f"{command} {how}: {line.what or ' '.join(overrides)[:100]!r}"

        return Input(told, lambda: _attempt([command, *overrides], line.asked, folder), line.names)


def _attempt(arguments: list[str], asked: Mapping[str, float], folder: Path) -> None:
    code, out, err = run_command([*arguments, "--cfg", "job", "--resolve"], folder)
    if any(CANARY in path.name for path in folder.iterdir()):
        raise WrongError("ran what a configuration names")
    if "\x1b" in err:
        raise WrongError("control characters reach the terminal")
    if code == 1 and not err.strip():
        raise UnhandledError("failed without a word")
    if code != 0:
        raise ValueError(err.strip())
    values = yaml.safe_load(out) if "usage:" not in out else {}
    found = _leaves(values) if isinstance(values, dict) else {}
    for key, value in asked.items():
        if key in found and not _same(found[key], value):
            raise WrongError(f"{key.rpartition('.')[2]} is not the number that was asked for")
    if any(isinstance(value, float) and not math.isfinite(value) for value in found.values()):
        raise WrongError("a number that is none is accepted")


def _leaves(values: Any, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= _leaves(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _text_of(value: Any) -> str:
    if isinstance(value, int) and abs(value) > 2**64:
        return f"{'-' if value < 0 else ''}1{'0' * (len(hex(value)) * 1204 // 1000)}"  # str() refuses so many digits
    return str(value)


def _same(found: Any, asked: float) -> bool:
    if isinstance(found, bool):
        return False
    if isinstance(found, int | float):
        return found == asked or (math.isnan(asked) and math.isnan(found))
    return str(found) == _text_of(asked)  # where a text is wanted


def _with_values(leaves: Mapping[str, Any], draw: random.Random) -> Line:
    keys = draw.sample(sorted(leaves), draw.choice((1, 1, 2)))
    values = [draw.choice((draw.choice(NUMBERS), draw.choice(TEXTS), "null", "true", "[1,2]", "{a:1}")) for _ in keys]
    asked = {key: value for key, value in zip(keys, values, strict=True) if isinstance(value, int | float)}
    overrides = tuple(f"{key}={_text_of(value)}" for key, value in zip(keys, values, strict=True))
    return Line(overrides, tuple(keys), asked)


def _with_file(folder: Path, draw: random.Random) -> Line:
    group, damage = _damaged_file(folder, draw)
    overrides = ("--config-dir", str(folder), f"{'+' if group == 'hydra' else ''}{group}=mine")
    return Line(overrides, ("mine", "configs:", f"{group}.", f"{group}:"), what=f"{group}/mine.yaml: {damage}")


def _damaged_file(folder: Path, draw: random.Random) -> tuple[str, str]:
    group = draw.choice(("data", "optim", "hydra"))
    path = folder / group / "mine.yaml"
    path.parent.mkdir(parents=True)
    if group == "hydra":
        path.write_text(draw.choice((
            "# @package _global_\nhydra:\n  callbacks:\n    a:\n      _target_: os.mkdir\n      path: canary\n",
            "# @package _global_\nhydra:\n  job_logging:\n    handlers:\n      a: {(): os.mkdir, path: canary}\n",
            "# @package _global_\nhydra:\n  launcher:\n    _target_: os.mkdir\n    path: canary\n",
        )))  # fmt: skip
        return group, "a target"
    tree = compose("default_ssrl", [])[group]
    how = draw.choice(("tree", "text", "bytes", "made"))
    if how == "tree":
        changed, told = edited_tree(tree, draw)
        path.write_text(json_text(changed))
    elif how == "text":
        text, told = edited_text(yaml.safe_dump(tree), draw)
        path.write_text(text, errors="surrogatepass")
    elif how == "bytes":
        data, told = edited_bytes(yaml.safe_dump(tree).encode(), draw)
        path.write_bytes(data)
    else:
        from fuzzing.runs import CONFIGS

        # A bomb of aliases would be the user's own: such folders are trusted (SECURITY.md), and Hydra reads them.
        told = draw.choice(sorted(CONFIGS.keys() - {"an alias bomb"}))
        path.write_text(CONFIGS[told])
    return group, told


KIND = Configs()
