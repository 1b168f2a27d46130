"""Which videos `earmark features` is about: files, folders and patterns, or a data set; prepared if they are not yet.

Part of :mod:`earmark.cli.features`.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from earmark.cli.build import (
    dataset_as_it_is,
    open_store,
    prepare_records,
    say_left_out,
    store_of_files,
)
from earmark.cli.config import ConfigError, PretrainConfig, quoted
from earmark.cli.moments_inputs import inputs
from earmark.cli.terminal import say, screen
from earmark.datasets.records import DatasetError, VideoRecord
from earmark.wording import printable

if TYPE_CHECKING:
    from earmark.clips.store import PreparedStore
    from earmark.datasets import ActionRecord

__all__ = ["Given", "actions_of_splits", "given_inputs", "open_given"]

_OVERRIDE = re.compile(r"[+~]{0,2}[A-Za-z_][\w./@-]*=.*", re.DOTALL)
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Given:
    """What was given on the command line.

    Attributes:
        overrides: Of the configuration; those that a single folder stands for among them.
        files: Videos that were given otherwise, to be prepared by themselves; empty for a data set or a folder.
    """

    overrides: tuple[str, ...]
    files: tuple[Path, ...]


def given_inputs(texts: Sequence[str], *, out: Path) -> Given:
    """Tell videos from overrides: KEY=VALUE is an override unless there is a file of that name.

    Args:
        texts: As given.
        out: Folder that the command writes to, which is not searched.

    Raises:
        ConfigError: If videos are given beside a data set, or none is found.
    """
    overrides = [text for text in texts if _OVERRIDE.fullmatch(text) and not os.path.lexists(text)]
    paths = [text for text in texts if text not in overrides]
    if not paths:
        return Given(tuple(overrides), ())
    chosen = [text for text in overrides if text.startswith(("data=", "data.args.base_path=", "data.store="))]
    if chosen:
        raise ConfigError(f"{chosen[0]}: a data set and {paths[0]} are both given; give one of them")
    if len(paths) == 1 and os.path.isdir(paths[0]):  # noqa: PTH112 - up to 3.13 Path.is_dir raises where access is denied
        folder = quoted(str(Path(paths[0]).absolute()))
        return Given(("data=folder", f"data.args.base_path={folder}", *overrides), ())
    if "-" in paths:
        raise ConfigError("-: a video is read from a file or a folder, not from standard input")
    found, problems = inputs(paths, {out}, out)
    say_left_out(problems)
    if not found:
        raise ConfigError("; ".join(problems) or "no video is given")
    # any folder: the configuration of one is asked for by what is prepared
    base = quoted(str(Path.cwd()))
    files = tuple(path.absolute() for _, path in found)
    return Given(("data=folder", f"data.args.base_path={base}", *overrides), files)


def open_given(given: Given, config: PretrainConfig) -> "PreparedStore":
    """Open the prepared videos, preparing those that were not before."""
    if not given.files:
        return open_store(config.data, config.environment, config.prepare)
    from earmark.clips.store import PreparedStore

    root = store_of_files(given.files, config.environment, config.prepare)
    report = prepare_records(_records(given.files), root, config.prepare)
    if report.num_reused < len(report.videos):
        screen(stderr=True).print(report.table())
    return PreparedStore(root)


def actions_of_splits(config: PretrainConfig, split: str) -> "list[ActionRecord]":
    """Return the annotated actions of a split, or of all that there are.

    Raises:
        ConfigError: If the data set has none.
        earmark.datasets.DatasetError: If its files are damaged, or there is no such split.
    """
    if config.data.name == "folder":
        raise ConfigError("--of actions: videos have no annotated actions by themselves; choose a data set, data=NAME")
    dataset = dataset_as_it_is(config.data, config.environment)
    names = (split,) if split != "all" else getattr(dataset, "splits", SPLITS)
    actions: list[ActionRecord] = []
    faults: list[DatasetError] = []
    for name in names:
        try:
            actions += dataset.actions(name)
        except DatasetError as error:
            if split != "all":
                raise
            faults.append(error)
            say(f"split {name}: {error}")
    if faults and not actions:
        raise faults[0]
    say_left_out(dataset.problems)
    return actions


def _records(files: Sequence[Path]) -> list[VideoRecord]:
    """Name videos by their paths below the folder that holds all, without the suffix unless two would be the same."""
    base = Path(os.path.commonpath([path.parent for path in files]))
    names = {path: path.relative_to(base) for path in files}
    shared = Counter(name.with_suffix("") for name in names.values())
    shared.update(names.values())
    return [
        VideoRecord(
            printable((name if shared[name.with_suffix("")] > 1 else name.with_suffix("")).as_posix()), path, "all"
        )
        for path, name in sorted(names.items())
    ]
