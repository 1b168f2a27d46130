"""`earmark kitchen`: writes Audible Kitchen, the generated data set, or a contact sheet of it.

Beside the path of a sample: calls `earmark.kitchen`, which is imported when the command runs.
"""

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

from earmark.atomic import require_writable
from earmark.cli.terminal import DONE, clock, num_cpus, positive, print_json
from earmark.datasets.kitchen import KitchenPreset
from earmark.wording import counted, visible

__all__ = ["add_arguments", "run"]

SHARES = {
    "silent_share": "share of the actions that make no sound",
    "off_screen_share": "sounds with no visible cause, per action",
    "idle_motion_share": "how often the hands move in pauses and change nothing",
    "babble_share": "share of the time in which somebody out of sight talks",
    "plan_share": "share of the actions that follow from activities, not from free choice",
    "idle_share": "share of the time without any action, from 0.2 to 0.8",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument(
        "out", type=Path, nargs="?", metavar="OUT", help="folder to write, in the layout of EPIC-KITCHENS-100"
    )
    parser.add_argument(
        "--preset", choices=get_args(KitchenPreset), default="small", help="how much (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="another seed, another kitchen (default: %(default)s)"
    )
    size = parser.add_argument_group("size, in place of the preset's")
    size.add_argument("--kitchens", type=int, metavar="N", help="number of kitchens")
    size.add_argument("--videos", type=int, metavar="N", help="videos per kitchen")
    size.add_argument("--seconds", type=float, metavar="SECONDS", help="length of each video")
    size.add_argument("--width", type=int, metavar="PIXELS", help="of the picture")
    size.add_argument("--height", type=int, metavar="PIXELS", help="of the picture")
    size.add_argument("--fps", type=int, metavar="N", help="frames per second")
    difficulty = parser.add_argument_group("difficulty, in place of the preset's")
    for name, what in SHARES.items():
        difficulty.add_argument(f"--{name.replace('_', '-')}", type=float, metavar="0..1", help=what)
    difficulty.add_argument("--noise-db", type=float, metavar="DB", help="level of the background, against the usual")
    parser.add_argument("--workers", type=positive, metavar="N", help="processes (default: one per core)")
    parser.add_argument("--json", action="store_true", help="print JSON: an object that says what was made")
    parser.add_argument(
        "--contact-sheet",
        type=Path,
        metavar="PNG",
        help="draw each kind of action, before, after and its sound: of the kitchen OUT, or of scenes without OUT",
    )
    parser.set_defaults(run=run, wrong_usage=parser.error)


def run(options: argparse.Namespace) -> int:
    """Generate a kitchen, draw a contact sheet, or both.

    Args:
        options: As parsed.

    Returns:
        The exit code.

    Raises:
        earmark.kitchen.KitchenError: If the folder holds something else, or a size is out of range.
    """
    if options.out is None and options.contact_sheet is None:
        options.wrong_usage("the folder OUT is missing")
    finished = options.out is not None and (options.out / "events.parquet").exists()
    if options.out is not None and not (finished and options.contact_sheet):
        _make_kitchen(options)
    if options.contact_sheet:
        require_writable(options.contact_sheet.absolute().parent)
        from earmark.kitchen.contact_sheet import draw_contact_sheet

        shown = draw_contact_sheet(options.contact_sheet, kitchen=options.out, seed=options.seed)
        kinds = counted(shown, "kind of action and of sound", "kinds of action and of sound")
        print(f"{visible(options.contact_sheet)}: {kinds}", file=sys.stderr)
    return DONE


def _make_kitchen(options: argparse.Namespace) -> None:
    from earmark.kitchen import PRESETS, make_kitchen

    def given(**values: float | None) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value is not None}

    if not options.out.is_file():  # which is refused for what it is
        require_writable(options.out)
    size, difficulty = PRESETS[options.preset]
    counts = given(num_kitchens=options.kitchens, videos_per_kitchen=options.videos, video_seconds=options.seconds)
    picture = given(width=options.width, height=options.height, fps=options.fps)
    shares = given(noise_db=options.noise_db, **{name: getattr(options, name) for name in SHARES})
    made = make_kitchen(
        options.out,
        size=replace(size, **counts, **picture),
        difficulty=replace(difficulty, **shares),
        seed=options.seed,
        num_workers=options.workers or num_cpus(),
        progress=not options.json,
    )
    if options.json:
        print_json(asdict(made))
    else:
        print(
            f"{visible(made.path)}: {counted(made.num_videos, 'video')} ({made.num_new_videos} new) of "
            f"{counted(made.num_kitchens, 'kitchen')}, {clock(made.duration_seconds)} in all, "
            f"{counted(made.num_events, 'action')}"
        )
