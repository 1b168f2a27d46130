"""The command `earmark`.

Beside the path of a sample: each command calls one station of it. This file must start fast, so what a command needs
is imported when it runs. `pretrain` and `evaluate` are Hydra applications (`earmark.cli.hydra_app`); the others are
ordinary commands. Exit codes: 0 done, 1 nothing could be done or it failed, 2 wrong usage, 75 stopped by a scheduler's
signal and to be started again, 130 interrupted.
"""

import argparse
import json
import os
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any, get_args

from earmark import __version__
from earmark.datasets.kitchen import KitchenPreset
from earmark.wording import counted

__all__ = ["main", "main_by_config_name"]

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130
KITCHEN_SHARES = {
    "silent_share": "share of the actions that make no sound",
    "off_screen_share": "sounds with no visible cause, per action",
    "idle_motion_share": "how often the hands move in pauses and change nothing",
    "babble_share": "share of the time in which somebody out of sight talks",
    "plan_share": "share of the actions that follow from activities, not from free choice",
}
OVERRIDES_HELP = "KEY=VALUE or GROUP=CHOICE, such as data=folder data.args.base_path=DIR prepare.short_side=128"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The command line without the program's name; None for that of the process.

    Returns:
        The exit code.

    Example:
        >>> main(["moments", "no_such_file.mp4"])
        1
    """
    _let_threads_sleep(os.environ)
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    command = arguments[0] if arguments else ""
    try:
        if command in ("pretrain", "evaluate"):
            return _hydra_command(command, arguments[1:])
        options = _parser().parse_args(arguments)
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        resumes = "; the same command goes on where it was" if command in ("demo", "kitchen", "prepare") else ""
        print(f"earmark {command}: interrupted{resumes}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        return report_error(f"earmark {command}", error)


def main_by_config_name(arguments: Sequence[str]) -> int:
    """Run pretraining, or the linear probe if ``--config-name=default_lincls`` is among the arguments.

    Args:
        arguments: The command line of the original code.

    Returns:
        The exit code.
    """
    from earmark.cli.hydra_app import config_name_of

    command = "evaluate" if config_name_of(arguments) == "default_lincls" else "pretrain"
    return main([command, *arguments])


def report_error(program: str, error: Exception) -> int:
    """Say on standard error what went wrong, in one line where the error is meant for the user.

    Args:
        program: What failed, such as ``earmark pretrain``.
        error: With what.

    Returns:
        The exit code that the process should end with.

    Raises:
        Exception: The error itself, where it is a fault of the program.
    """
    from earmark.cli.config import ConfigError

    own = type(error).__module__.startswith("earmark.")
    if (not own and not isinstance(error, ValueError | OSError)) or "EARMARK_DEBUG" in os.environ:
        raise error
    print(f"{program}: {_in_words(error)}", file=sys.stderr)
    if not own:
        print("(EARMARK_DEBUG=1 shows where this was raised)", file=sys.stderr)
    return WRONG_USAGE if isinstance(error, ConfigError) else FAILED


def _in_words(error: Exception) -> str:
    """Return what an error says; of one of the operating system the file and the reason, without its number."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror.lower()}"
    return str(error) or type(error).__name__


def _let_threads_sleep(environ: MutableMapping[str, str]) -> None:
    """Have OpenMP's threads wait for one another asleep, unless the user has said how they wait.

    By default they spin for milliseconds: on a busy machine, while the thread that they wait for has no core, so that
    training slows by far more than its share of the machine (`benchmarks/busy.py`). Read when torch is loaded.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY"} & environ.keys():
        environ["OMP_WAIT_POLICY"] = "passive"
        environ["GOMP_SPINCOUNT"] = "1000"  # rounds of a loop, some microseconds, against 300,000 by default


def _hydra_command(command: str, arguments: list[str]) -> int:
    from earmark.cli.hydra_app import run_application

    if command == "pretrain":
        from earmark.cli.pretrain import run_pretraining

        return run_application(command, arguments, run_pretraining)
    from earmark.cli.evaluate import run_evaluation

    return run_application(command, arguments, run_evaluation)


def _parser() -> argparse.ArgumentParser:
    from earmark.cli.moments import add_arguments
    from earmark.cli.prepare import add_arguments as add_prepare_arguments

    parser = argparse.ArgumentParser(
        prog="earmark",
        description="Learn state-aware video representations from audible interactions.",
        epilog="earmark COMMAND --help says more. Files and runs are written below ./earmark_data.",
    )
    parser.add_argument("--version", action="version", version=f"earmark {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="see all of it work in minutes, with generated videos")
    demo.add_argument("--out", type=Path, default=Path("earmark_data/demo"), metavar="DIR", help="default: %(default)s")
    demo.add_argument("--size", choices=["tiny", "standard"], default="standard", help="default: %(default)s")
    demo.set_defaults(run=_demo)

    kitchen = commands.add_parser("kitchen", help="generate Audible Kitchen, a data set of audible interactions")
    kitchen.add_argument(
        "out", type=Path, nargs="?", metavar="OUT", help="folder to write, in the layout of EPIC-KITCHENS-100"
    )
    kitchen.add_argument(
        "--preset", choices=get_args(KitchenPreset), default="small", help="how much (default: %(default)s)"
    )
    kitchen.add_argument("--seed", type=int, default=0, help="another seed, another kitchen (default: %(default)s)")
    kitchen.add_argument("--kitchens", type=int, metavar="N", help="number of kitchens; this and the next five")
    kitchen.add_argument("--videos", type=int, metavar="N", help="videos of each kitchen: in place of the preset's")
    kitchen.add_argument("--seconds", type=float, help="length of each video")
    kitchen.add_argument("--width", type=int, metavar="PIXELS")
    kitchen.add_argument("--height", type=int, metavar="PIXELS")
    kitchen.add_argument("--fps", type=int, metavar="N", help="frames a second")
    kitchen.add_argument("--workers", type=positive, metavar="N", help="processes (default: one a core)")
    difficulty = kitchen.add_argument_group("difficulty, in place of the preset's")
    for name, what in KITCHEN_SHARES.items():
        difficulty.add_argument(f"--{name.replace('_', '-')}", type=float, metavar="0..1", help=what)
    difficulty.add_argument("--noise-db", type=float, metavar="DB", help="level of the background, against the usual")
    kitchen.add_argument("--json", action="store_true", help="print JSON: an object that says what was made")
    kitchen.add_argument(
        "--contact-sheet",
        type=Path,
        metavar="PNG",
        help="draw each kind of action, before, after and its sound: of the kitchen OUT, or of scenes without OUT",
    )
    kitchen.set_defaults(run=_kitchen, wrong_usage=kitchen.error)

    add_arguments(commands.add_parser("moments", help="list the moments of interaction in videos or sound files"))

    prepare = commands.add_parser(
        "prepare", help="prepare a data set's videos for training, or verify what was prepared"
    )
    add_prepare_arguments(prepare, overrides_help=OVERRIDES_HELP)

    # Hydra parses these two; they stand here for the list of commands.
    commands.add_parser("pretrain", help="train both encoders on the moments of a data set")
    commands.add_parser("evaluate", help="judge a pretrained video encoder by a linear probe")

    runs = commands.add_parser("runs", help="list the runs with their state, epoch, last loss and best probe")
    runs.add_argument("--data-dir", type=Path, default=Path("earmark_data"), help="default: %(default)s")
    runs.add_argument("--json", action="store_true", help="print JSON: a list with an object for each run")
    runs.set_defaults(run=_runs)

    doctor = commands.add_parser("doctor", help="say what this machine has, and what is missing for what")
    doctor.add_argument("--data-dir", type=Path, default=Path("earmark_data"), help="default: %(default)s")
    doctor.add_argument("--json", action="store_true", help="print JSON: a list with an object for each finding")
    doctor.set_defaults(run=_doctor)
    return parser


def non_negative(text: str) -> float:
    """Parse a number of at least 0, for argparse."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from None
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be at least 0, got {text}")
    return value


def positive(text: str) -> int:
    """Parse a whole number of at least 1, for argparse."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def _demo(options: argparse.Namespace) -> int:
    from earmark.cli.demo import run_demo

    run_demo(options.out, size=options.size)
    return DONE


def _kitchen(options: argparse.Namespace) -> int:
    if options.out is None and options.contact_sheet is None:
        options.wrong_usage("the folder OUT is missing")
    finished = options.out is not None and (options.out / "events.parquet").exists()
    if options.out is not None and not (finished and options.contact_sheet):
        _make_kitchen(options)
    if options.contact_sheet:
        from earmark.kitchen.contact_sheet import draw_contact_sheet

        shown = draw_contact_sheet(options.contact_sheet, kitchen=options.out, seed=options.seed)
        kinds = counted(shown, "kind of action and of sound", "kinds of action and of sound")
        print(f"{options.contact_sheet}: {kinds}", file=sys.stderr)
    return DONE


def _make_kitchen(options: argparse.Namespace) -> None:
    from dataclasses import asdict, replace

    from earmark.cli.build import num_cpus
    from earmark.kitchen import PRESETS, make_kitchen

    def given(**values: float | None) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value is not None}

    size, difficulty = PRESETS[options.preset]
    counts = given(num_kitchens=options.kitchens, videos_per_kitchen=options.videos, video_seconds=options.seconds)
    picture = given(width=options.width, height=options.height, fps=options.fps)
    shares = given(noise_db=options.noise_db, **{name: getattr(options, name) for name in KITCHEN_SHARES})

    made = make_kitchen(
        options.out,
        size=replace(size, **counts, **picture),
        difficulty=replace(difficulty, **shares),
        seed=options.seed,
        num_workers=options.workers or num_cpus(),
        progress=not options.json,
    )
    if options.json:
        print(json.dumps(asdict(made) | {"path": str(made.path)}, indent=2))
    else:
        print(
            f"{made.path}: {counted(made.num_videos, 'video')} ({made.num_new_videos} new) of "
            f"{counted(made.num_kitchens, 'kitchen')}, {clock(made.duration_seconds)} in all, "
            f"{counted(made.num_events, 'action')}"
        )


def clock(time_seconds: float) -> str:
    """Return a time as minutes, seconds and milliseconds.

    Example:
        >>> clock(83.4567)
        '1:23.457'
    """
    minutes, milliseconds = divmod(round(time_seconds * 1000), 60_000)
    return f"{minutes}:{milliseconds // 1000:02d}.{milliseconds % 1000:03d}"


def _runs(options: argparse.Namespace) -> int:
    from earmark.cli.runs import list_runs

    return DONE if list_runs(options.data_dir, as_json=options.json) else FAILED


def _doctor(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from earmark.cli.doctor import examine

    findings = examine(options.data_dir)
    missing = [finding for finding in findings if finding.required and not finding.ok]
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
        return FAILED if missing else DONE
    from rich.table import Table
    from rich.text import Text

    from earmark.cli.build import screen

    table = Table("", "what", "found", "for", "mended by", title=f"earmark {__version__}", title_justify="left")
    table.columns[2].overflow = "fold"
    for finding in findings:
        mark = ("ok", "green") if finding.ok else ("missing", "red") if finding.required else ("absent", "yellow")
        table.add_row(Text(*mark), finding.name, finding.found, finding.needed_for, finding.install)
    console = screen()
    console.print(table)
    if missing:
        names = ", ".join(finding.name for finding in missing)
        console.print(Text.assemble(("missing for the core:", "red"), f" {names}"))
    else:
        console.print("Everything that the core needs is here.")
    return FAILED if missing else DONE
