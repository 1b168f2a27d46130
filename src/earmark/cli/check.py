"""The command `earmark check`: whether a data set is all there, before anything is prepared.

Beside the path of a sample: calls `earmark.preparation.completeness`. What the command needs is imported when it runs.
"""

import argparse
from pathlib import Path

from earmark.cli.completeness import completeness_of, lengths_of, print_completeness, sound_of
from earmark.cli.terminal import DONE, FAILED, OVERRIDES_HELP, num_cpus, positive, print_json

__all__ = ["add_arguments", "run"]


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
    from earmark.datasets import NoVideoFoundError, checksums
    from earmark.preparation.completeness import read_states

    values = compose("default_ssrl", options.overrides, config_dir=options.config_dir)
    config = checked(PretrainConfig, values, cuts_clips=False)
    dataset = open_dataset(config.data, config.environment)
    listed, left_out = (None, ()) if options.md5 is None else checksums(options.md5)
    num_workers = options.workers or num_cpus()
    try:
        videos = dataset.videos()
    except NoVideoFoundError as error:  # what lies there in their place is what is asked
        videos = error.records
    states = read_states(
        videos, expected_seconds=lengths_of(dataset), expected_audio=sound_of(dataset), num_workers=num_workers
    )
    report = completeness_of(dataset, videos, states, checksums=listed, left_out=left_out, num_workers=num_workers)
    if options.json:
        print_json(report.as_json())
    else:
        print_completeness(report)
    return DONE if report.num_usable else FAILED
