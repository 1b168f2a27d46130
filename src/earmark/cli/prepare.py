"""The command `earmark prepare`.

Beside the path of a sample: calls `earmark.preparation`. What the command
needs is imported when it runs.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from earmark.cli.terminal import DONE, FAILED, OVERRIDES_HELP, say, screen
from earmark.wording import counted, visible

if TYPE_CHECKING:
    from earmark.cli.config_schema import PretrainConfig
    from earmark.preparation import PrepareReport, VerifyReport

__all__ = ["add_arguments", "run"]

MAX_FAULTS_SHOWN = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help=OVERRIDES_HELP)
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="a folder with configurations of your own")
    parser.add_argument(
        "--config-name", default="default_ssrl", metavar="NAME", help="top-level configuration (default: %(default)s)"
    )
    parser.add_argument(
        "--verify", action="store_true", help="prepare nothing: read everything back and say what is damaged"
    )
    parser.add_argument("--repair", action="store_true", help="with --verify: make what is damaged anew")
    parser.set_defaults(run=run, wrong_usage=parser.error)


def run(options: argparse.Namespace) -> int:
    """Prepare a data set, or verify what was prepared.

    Args:
        options: As parsed.

    Returns:
        The exit code: 1 if no video could be used, or if --verify leaves something damaged.
    """
    from earmark.atomic import require_writable
    from earmark.cli.build import prepare_store, store_path
    from earmark.cli.config import checked, compose, unfitting
    from earmark.cli.config_schema import PretrainConfig
    from earmark.preparation import repair

    if options.repair and not options.verify:
        options.wrong_usage("--repair goes with --verify")
    values = compose(options.config_name, options.overrides, config_dir=options.config_dir)
    config = checked(PretrainConfig, values, cuts_clips=False)
    for problem in unfitting(config):
        say(f"note: `earmark pretrain` with these settings would refuse this store: {problem}")
    if options.verify:
        found = _verified(config)
        if not found.faults or not options.repair:
            return FAILED if found.faults else DONE
        repair(found)
    require_writable(store_path(config.data, config.environment, config.prepare))
    if config.data.name == "kitchen" and config.data.args.base_path is None:  # generated there at first use
        require_writable(config.environment.data_dir)
    report = prepare_store(config.data, config.environment, config.prepare)
    screen().print(report.table())
    _say_how_complete(config, report)
    return FAILED if len(report.with_status("refused")) == len(report.videos) else DONE


def _say_how_complete(config: "PretrainConfig", report: "PrepareReport") -> None:
    """Print what of an annotated data set is there, as `earmark check` does, by what was found when it was prepared."""
    from earmark.cli.build import dataset_as_it_is
    from earmark.cli.completeness import completeness_of, lengths_of, print_completeness, sound_of
    from earmark.preparation.completeness import compared

    if config.data.name == "folder" or report.num_elsewhere or config.prepare.part is not None:
        return  # nothing is expected of a folder; of one part of the work, other parts are not known
    dataset = dataset_as_it_is(config.data, config.environment)  # what is wrong with it has been said
    if not dataset.classes:
        return
    states = compared(report.videos, lengths_of(dataset), sound_of(dataset))
    print_completeness(completeness_of(dataset, dataset.videos(), states))


def _verified(config: "PretrainConfig") -> "VerifyReport":
    """Read the store back and print what is wrong."""
    from earmark.cli.build import prepare_workers, store_path
    from earmark.preparation import verify

    root = store_path(config.data, config.environment, config.prepare)
    say(f"reading {root} back")
    report = verify(root, num_workers=prepare_workers(config.prepare), backend=config.prepare.backend)
    console = screen()
    for fault in report.faults[:MAX_FAULTS_SHOWN]:
        console.print(visible(f"{fault.video_id or 'the store'}: {fault.reason}"), soft_wrap=True)
    if len(report.faults) > MAX_FAULTS_SHOWN:
        console.print(f"... and {len(report.faults) - MAX_FAULTS_SHOWN} more")
    for reason in report.not_compared:
        console.print(f"not compared, written by an older version: {reason}", soft_wrap=True)
    console.print(
        f"{visible(root)}: {counted(report.num_videos, 'video')}, {counted(report.num_frames, 'frame')}, "
        f"{report.hours:.2f} h read back; {_sum_up(report)}",
        soft_wrap=True,
    )
    return report


def _sum_up(report: "VerifyReport") -> str:
    """Return what is damaged in words: how many videos, and which files of the whole store."""
    if not report.faults:
        return "all is as it was written"
    files = {"tables": "catalog or moments", "description": "store.json"}
    videos = {fault.video_id for fault in report.faults if fault.damaged not in files}
    damaged = [counted(len(videos), "video")] if videos else []
    damaged += [name for kind, name in files.items() if any(fault.damaged == kind for fault in report.faults)]
    return f"damaged: {', '.join(damaged)}; --repair makes anew"
