"""The command `earmark audio`: the sound of a data set's videos in one HDF5 file, as audio models read it.

Beside the path of a sample: calls `earmark.preparation.audio_file`. What the command needs is imported when it runs.
"""

import argparse
import sys
from pathlib import Path

from earmark.cli.terminal import DONE, OVERRIDES_HELP, num_cpus, positive, say
from earmark.wording import at_most, counted, visible

__all__ = ["add_arguments", "run"]

MAX_NAMED = 50
DEFAULT_RATE = 24000  # of Auditory SlowFast and EPIC-SOUNDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help=OVERRIDES_HELP)
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="a folder with configurations of your own")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="HDF5 file to write")
    parser.add_argument(
        "--rate", type=positive, default=DEFAULT_RATE, metavar="HZ", help="samples per second (default: %(default)s)"
    )
    parser.add_argument("--workers", type=positive, metavar="N", help="processes (default: one per core)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the sound of a data set's videos.

    Args:
        options: As parsed.

    Returns:
        The exit code; videos that are left out are named on standard error.
    """
    from earmark.atomic import require_writable
    from earmark.cli.build import open_dataset, videos_of
    from earmark.cli.config import checked, compose
    from earmark.cli.config_schema import PretrainConfig
    from earmark.datasets import EpicKitchens, absent_annotations
    from earmark.preparation.audio_file import write_audio_file

    values = compose("default_ssrl", options.overrides, config_dir=options.config_dir)
    config = checked(PretrainConfig, values, cuts_clips=False)
    require_writable(options.out.parent)
    dataset = open_dataset(config.data, config.environment)
    videos = videos_of(dataset)
    for line in absent_annotations(dataset) if isinstance(dataset, EpicKitchens) else ():
        say(line)
    say(f"decoding the sound of {counted(len(videos), 'video')} at {options.rate} Hz for {options.out}")
    num_workers = options.workers or num_cpus()
    report = write_audio_file(videos, options.out, sample_rate=options.rate, num_workers=num_workers)
    for kind, faults in (("left out", report.left_out), ("damaged", report.damaged)):
        for line in at_most([f"{name}: {reason}" for name, reason in faults.items()], MAX_NAMED):
            print(visible(f"{kind}: {line}"), file=sys.stderr)
    hours = sum(report.num_samples.values()) / report.sample_rate / 3600
    say(
        f"wrote {options.out}: {counted(len(report.num_samples), 'video')}, {hours:.2f} h at {report.sample_rate} Hz; "
        f"{len(report.left_out)} left out, {len(report.damaged)} damaged"
    )
    return DONE
