"""The command `earmark check`: whether a data set is all there, before anything is prepared.

Beside the path of a sample: calls `earmark.preparation.completeness`. What the command needs is imported when it runs.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from earmark.cli.terminal import DONE, FAILED, OVERRIDES_HELP, num_cpus, positive, print_json, screen

if TYPE_CHECKING:
    from earmark.datasets import DatasetRecords, VideoRecord
    from earmark.preparation.completeness import Completeness, VideoState

__all__ = ["add_arguments", "completeness_of", "lengths_of", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help=OVERRIDES_HELP)
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="a folder with configurations of your own")
    parser.add_argument(
        "--md5",
        type=Path,
        metavar="CSV",
        help="also compare the files with the checksums of this list, in the form of the official downloader's "
        "data/md5.csv; every byte is read",
    )
    parser.add_argument("--workers", type=positive, metavar="N", help="processes (default: one per core)")
    parser.add_argument("--json", action="store_true", help="print JSON: an object with every video and every fault")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check a data set.

    Args:
        options: As parsed.

    Returns:
        The exit code: 1 if no video can be used.
    """
    from earmark.cli.build import open_dataset
    from earmark.cli.config import checked, compose
    from earmark.cli.config_schema import PretrainConfig
    from earmark.datasets import checksums
    from earmark.preparation.completeness import read_states

    values = compose("default_ssrl", options.overrides, config_dir=options.config_dir)
    config = checked(PretrainConfig, values, cuts_clips=False)
    dataset = open_dataset(config.data, config.environment)
    listed, left_out = (None, ()) if options.md5 is None else checksums(options.md5)
    num_workers = options.workers or num_cpus()
    videos = dataset.videos()
    states = read_states(videos, expected_seconds=lengths_of(dataset), num_workers=num_workers)
    report = completeness_of(dataset, videos, states, checksums=listed, left_out=left_out, num_workers=num_workers)
    if options.json:
        print_json(report.as_json())
    else:
        screen().print(report.table())
        screen().print(report.verdict(), soft_wrap=True)
    return DONE if report.num_usable else FAILED


def completeness_of(
    dataset: "DatasetRecords",
    videos: "Sequence[VideoRecord]",
    states: "Sequence[VideoState]",
    *,
    checksums: dict[str, frozenset[str]] | None = None,
    left_out: Sequence[str] = (),
    num_workers: int = 1,
) -> "Completeness":
    """Put together what is there of a data set.

    Args:
        dataset: The data set.
        videos: Its videos.
        states: Their states, or those of some of them.
        checksums: Those to compare; None for none.
        left_out: What of their list was left out.
        num_workers: Files whose checksums are computed side by side.
    """
    from earmark.datasets import DatasetError, EpicKitchens, stray_files
    from earmark.preparation.completeness import Completeness, lost_actions, times_beyond, wrong_checksums

    by_id = {state.video_id: state for state in states}
    actions, problems = {}, list(left_out)
    lengths = lengths_of(dataset)
    doubtful_times: list[str] = []
    for split in dict.fromkeys(video.split for video in videos) if dataset.classes else ():
        try:
            annotated = dataset.actions(split)
        except DatasetError as error:
            problems.append(str(error))
            continue
        actions[split] = (len(annotated), lost_actions(annotated, by_id))
        doubtful_times += times_beyond(annotated, lengths)
    strays: tuple[str, ...] = ()
    if isinstance(dataset, EpicKitchens) and dataset.layout_of(videos) == "videos":
        strays = stray_files(dataset, videos)
    num_compared: int | None = None
    faults: tuple[str, ...] = ()
    if checksums is not None:
        num_compared, faults = wrong_checksums(states, checksums, num_workers=num_workers)
    return Completeness(
        videos=tuple(states),
        actions=actions,
        strays=strays,
        num_lengths=sum(state.video_id in lengths for state in states),
        num_checksums=num_compared,
        checksum_faults=faults,
        problems=(*problems, *dataset.problems),
        doubtful_times=tuple(doubtful_times),
    )


def lengths_of(dataset: "DatasetRecords") -> dict[str, float]:
    """Return how long the videos of a data set last by its own list, where it has one."""
    from earmark.datasets import EpicKitchens

    return dataset.seconds_of_videos() if isinstance(dataset, EpicKitchens) else {}
