"""The command `earmark`: from the words of a command line to the function that does them.

Beside the path of a sample: each command calls one station of it. This file must start fast, so only the module of the
command that was named is imported. `pretrain` and `evaluate` are Hydra applications (`earmark.cli.hydra_app`); the
others are ordinary commands. Exit codes: 0 done, 1 nothing could be done or it failed, 2 wrong usage, 75 stopped by a
scheduler's signal and to be started again, 130 interrupted, 141 nobody reads the output any more, 143 terminated.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from types import FrameType

from earmark import __version__
from earmark.cli.streams import BROKEN_PIPE, abandoned_by_reader, prepare_streams
from earmark.cli.terminal import INTERRUPTED, report_error
from earmark.cli.torch_environment import set_torch_environment

__all__ = ["COMMANDS", "HYDRA_COMMANDS", "command_parser", "main", "main_by_config_name"]

COMMANDS = {  # each has a module of its name in this package, with `add_arguments(parser)`
    "demo": "see all of it work in minutes, with generated videos",
    "kitchen": "generate Audible Kitchen, a data set of audible interactions",
    "moments": "list the moments of interaction in videos or sound files",
    "prepare": "prepare a data set's videos for training, or verify what was prepared",
    "check": "say whether a data set is all there: missing, unreadable, cut short, without sound",
    "audio": "write the sound of a data set's videos into one HDF5 file, as audio models read it",
    "pretrain": "train both encoders on the moments of a data set",
    "evaluate": "judge pretrained encoders by a task: actions, sounds, what comes next",
    "score": "validate a file of predictions for a challenge, and score it with the official measures",
    "bench": "compare methods over seeds on one generated data set: which idea brings what",
    "features": "write the features of whole videos: of windows, of moments or of annotated actions",
    "runs": "list the runs with their state, epoch, last loss and best probe",
    "doctor": "say what this machine has, and what is missing for what",
}
HYDRA_COMMANDS = ("pretrain", "evaluate")  # Hydra parses their arguments
LISTS = ("files", "inputs", "overrides")  # what a command takes any number of; none takes two of them
ENDED = {128 + 15: "terminated", 128 + 1: "terminated: the terminal is gone"}  # by SIGTERM and SIGHUP
RESUMABLE = ("demo", "kitchen", "prepare", "audio", "features", "bench")


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
    prepare_streams()
    set_torch_environment(os.environ)
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    command = arguments[0] if arguments else ""
    try:
        try:
            code = _run_command(command, arguments)
        except SystemExit as stop:  # of --help, of wrong usage, of a signal
            sys.stdout.flush()
            if stop.code in ENDED:
                _say_stopped(command, ENDED[stop.code])
            raise
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        _say_stopped(command, "interrupted")
        return INTERRUPTED
    except BrokenPipeError as error:
        if abandoned_by_reader():  # who has seen enough
            return BROKEN_PIPE
        return report_error(f"earmark {command}", error)
    except Exception as error:
        return report_error(f"earmark {command}", error)


def _say_stopped(command: str, how: str) -> None:
    """Say in a line that a signal ended the command, if there is still somebody to read it."""
    resumes = "; the same command goes on where it was" if command in RESUMABLE else ""
    with suppress(OSError):
        print(f"earmark {command}: {how}{resumes}", file=sys.stderr, flush=True)


def main_by_config_name(arguments: Sequence[str]) -> int:
    """Run pretraining, or the linear probe if ``--config-name=default_lincls`` is among the arguments.

    Pretraining is in float32 unless the arguments say otherwise, as the original's is.

    Args:
        arguments: The command line of the original code.

    Returns:
        The exit code.
    """
    from earmark.cli.hydra_app import config_name_of

    if config_name_of(arguments) == "default_lincls":
        return main(["evaluate", *arguments])
    named = ("environment.precision=", "environment=")
    chosen = any(text.lstrip("+").startswith(named) for text in arguments)
    return main(["pretrain", *([] if chosen else ["environment.precision=32-true"]), *arguments])


def command_parser(*named: str) -> argparse.ArgumentParser:
    """Return the parser of the command line.

    Args:
        named: The commands whose own arguments it has, for which their modules are imported; all are listed.

    Example:
        >>> command_parser("runs").parse_args(["runs", "--json"]).json
        True
    """
    parser = argparse.ArgumentParser(
        prog="earmark",
        description="Learn state-aware video representations from audible interactions.",
        epilog="earmark COMMAND --help says more. Files and runs are written below ./earmark_data.",
    )
    parser.add_argument("--version", action="version", version=f"earmark {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, what in COMMANDS.items():
        of_command = commands.add_parser(name, help=what)
        if name in named and name not in HYDRA_COMMANDS:
            import_module(f"earmark.cli.{name}").add_arguments(of_command)
    return parser


def parsed(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line whose files and overrides may stand anywhere between its flags.

    argparse itself takes one run of them only, and calls those after a flag unrecognized.

    Example:
        >>> parsed(command_parser("check"), ["check", "data=folder", "--json", "data.args.base_path=DIR"]).overrides
        ['data=folder', 'data.args.base_path=DIR']
    """
    options, others = parser.parse_known_args(arguments)
    lists = [found for name in LISTS if isinstance(found := getattr(options, name, None), list)]
    if others and (not lists or any(text.startswith("-") for text in others)):
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    for found in lists:
        found.extend(others)
    return options


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end the command by an exception, so that its workers and temporary files go with it.

    A second one ends it at once. A handler that is there already stays, as does that of nohup.

    Example:
        >>> with ended_by_signals():
        ...     signal.raise_signal(signal.SIGTERM)
        Traceback (most recent call last):
        ...
        SystemExit: 143
    """

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise SystemExit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    ours = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        ours = []
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _run_command(command: str, arguments: Sequence[str]) -> int:
    if command in HYDRA_COMMANDS:
        return _hydra_command(command, list(arguments[1:]))
    options = parsed(command_parser(command), arguments)
    with ended_by_signals():
        code: int = options.run(options)
    return code


def _hydra_command(command: str, arguments: list[str]) -> int:
    from earmark.cli.hydra_app import run_application

    if command == "pretrain":
        from earmark.cli.pretrain import run_pretraining

        return run_application(command, arguments, run_pretraining)
    from earmark.cli.evaluate import run_evaluation

    return run_application(command, arguments, run_evaluation)
