"""`earmark pretrain` and `earmark evaluate` as Hydra applications: overrides, -m sweeps, --cfg, launchers.

Beside the path of a sample: between the command line and `earmark.cli.pretrain` / `earmark.cli.evaluate`. The whole
command line is checked before Hydra runs anything, and each job checks its own configuration again.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from earmark.atomic import require_writable
from earmark.cli.config import (
    SWEEP_NEEDED,
    ConfigError,
    EvaluateConfig,
    PretrainConfig,
    checked,
    checked_sweep,
    quoted,
    quoted_where_needed,
)
from earmark.cli.config_probe import with_probe_defaults
from earmark.cli.streams import BROKEN_PIPE, abandoned_by_reader
from earmark.cli.terminal import INTERRUPTED, report_error

__all__ = ["config_name_of", "run_application"]

DEFAULT_CONFIG = {"pretrain": "default_ssrl", "evaluate": "default_lincls"}
SCHEMA: dict[str, Any] = {"pretrain": PretrainConfig, "evaluate": EvaluateConfig}

MAX_REQUEUES = 1000  # a run that makes no progress between two time limits ends some day

Job = Callable[[Any, dict[str, Any]], object]
"""Called with the checked configuration and the same as plain data."""


def config_name_of(arguments: Sequence[str]) -> str | None:
    """Return what a command line gives for --config-name.

    Example:
        >>> config_name_of(["--config-name=default_lincls", "-m", "optim.epochs=3"])
        'default_lincls'
    """
    from hydra._internal.utils import get_args_parser

    name: str | None = get_args_parser().parse_known_args(list(arguments))[0].config_name
    return name


def run_application(command: str, arguments: Sequence[str], job: Job) -> int:
    """Check a command line, then have Hydra run the job once, or once for each point of a sweep.

    Args:
        command: ``pretrain`` or ``evaluate``.
        arguments: What follows it on the command line.
        job: What to run.

    Returns:
        The exit code.

    Raises:
        ConfigError: If the configuration is not as it should be.
    """
    import hydra
    from hydra._internal.utils import get_args_parser

    arguments = ["environment.force=true" if text == "--force" else text for text in arguments]
    parser = get_args_parser()
    parser.prog = f"earmark {command}"
    options = parser.parse_intermixed_args(list(arguments))
    overrides = quoted_where_needed(options.overrides)
    # Hydra wants all overrides in one run: flags go first
    arguments = [text for text in arguments if text not in options.overrides] + overrides
    swept: tuple[str, ...] = ()
    if not (options.help or options.hydra_help):
        if options.config_path is not None:
            raise ConfigError("--config-path: give a folder of your own configurations with --config-dir")
        name = options.config_name or DEFAULT_CONFIG[command]
        config_dir = None if options.config_dir is None else Path(options.config_dir)
        swept, first = checked_sweep(SCHEMA[command], name, overrides, config_dir=config_dir)
        if swept and not options.multirun and not any(text.startswith("hydra.mode=") for text in options.overrides):
            raise ConfigError("\n".join(SWEEP_NEEDED.format(key=key) for key in swept))
        if options.cfg is None and options.info is None and not options.shell_completion:  # which only print
            require_writable(first["environment"]["data_dir"])
        arguments += submission_overrides(first, overrides)

    def task(config: Any) -> object:
        """Run in the process that Hydra's launcher chose, so all it needs comes with it."""
        return _run_job(command, config, swept, job)

    application = hydra.main(
        version_base="1.3", config_path="pkg://earmark.cli.configs", config_name=DEFAULT_CONFIG[command]
    )(task)
    try:
        with _command_line(f"earmark {command}", arguments):
            application()
    except SystemExit as stop:  # Hydra's way to end, and that of a job
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def submission_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """Return the overrides with which Hydra submits to SLURM, if ``environment.slurm`` asks for it.

    One task is submitted for each node; it starts that node's processes. What the command line says wins.

    Args:
        values: The composed configuration.
        overrides: The command line's.

    Raises:
        ConfigError: If Hydra's submitit launcher is not installed.

    Example:
        >>> submission_overrides({"environment": {"slurm": False}}, [])
        []
    """
    environment = values["environment"]
    if not environment["slurm"]:
        return []
    if find_spec("hydra_plugins") is None or find_spec("hydra_plugins.hydra_submitit_launcher") is None:
        raise ConfigError(
            "environment.slurm: needs Hydra's submitit launcher (pip install 'earmark[slurm]'); or start the command "
            "from a job script of your own, with srun or torchrun"
        )
    wanted = {
        "hydra.mode": "MULTIRUN",  # what a launcher is for
        "hydra/launcher": "submitit_slurm",
        "hydra.launcher.name": values["logging"]["name"],
        "hydra.launcher.partition": environment["slurm_partition"],
        "hydra.launcher.timeout_min": environment["slurm_timeout"],
        "hydra.launcher.nodes": environment["world_size"],
        "hydra.launcher.tasks_per_node": 1,
        "hydra.launcher.gpus_per_node": environment["ngpu"] or None,
        "hydra.launcher.cpus_per_task": max(1, environment["ngpu"]) + environment["workers"],
        "hydra.launcher.exclude": environment["exclude_nodes"],
        "+hydra.launcher.additional_parameters.nodelist": environment["nodelist"],
        "hydra.launcher.max_num_timeout": MAX_REQUEUES,
    }
    given = {text.partition("=")[0] for text in overrides}
    return [
        f"{key}={quoted(value) if isinstance(value, str) and 'hydra.launcher.' in key else value}"
        for key, value in wanted.items()
        if value is not None and key not in given
    ]


def _run_job(command: str, config: Any, swept: Sequence[str], job: Job) -> object:
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import CompactHydraException
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    try:
        composed: Any = OmegaConf.to_container(config, resolve=True)
        values = with_probe_defaults(composed)
        if swept:
            values["logging"]["suffix"] += _sweep_suffix(swept)
        return job(checked(SCHEMA[command], values), values)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        if isinstance(error, BrokenPipeError) and abandoned_by_reader():
            raise SystemExit(BROKEN_PIPE) from None
        code = report_error(f"earmark {command}", error)
        if HydraConfig.get().mode == RunMode.MULTIRUN:  # the other jobs go on; Hydra fails when all are through
            raise CompactHydraException(f"earmark {command}: jobs of the sweep failed, see above") from error
        raise SystemExit(code) from error


def _sweep_suffix(swept: Sequence[str]) -> str:
    """Name a job of a sweep by what was swept over, so that jobs do not share a run folder."""
    from hydra.core.hydra_config import HydraConfig

    named = ("logging.name", "logging.suffix")
    task_overrides = HydraConfig.get().overrides.task
    parts = [text for text in task_overrides if (key := text.partition("=")[0]) in swept and key not in named]
    return "".join("_" + re.sub(r"[^\w.,=+-]", "-", part) for part in parts)


@contextmanager
def _command_line(program: str, arguments: Sequence[str]) -> Iterator[None]:
    """Let Hydra, which reads the process's arguments, see those that are meant for it."""
    saved = sys.argv
    sys.argv = [program, *arguments]
    try:
        yield
    finally:
        sys.argv = saved
