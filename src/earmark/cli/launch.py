"""How `earmark pretrain` is run: in which processes, and how their signals and errors are handled.

Beside the path of a sample: between `earmark.cli.pretrain`, which does the work in each process, and
`earmark.training.launch`, which starts and watches them.
"""

import os
import signal
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from earmark.cli.build import usable_gpus
from earmark.cli.config import ConfigError
from earmark.cli.config_schema import Environment
from earmark.cli.terminal import FAILED, INTERRUPTED, report_error, say
from earmark.training.interrupts import REQUEUE, leave_on_signals
from earmark.training.launch import Launch, plan_launch, run_processes
from earmark.wording import counted

__all__ = ["leave_for_requeue", "processes_of", "run_in_processes"]

T = TypeVar("T")


def processes_of(environment: Environment) -> Launch:
    """Return which processes a configuration asks for and this machine can run, with a note where they are fewer.

    Raises:
        ConfigError: If a GPU is asked for and there is none.
        earmark.training.launch.LaunchError: If nodes or the variables of torchrun or srun do not go together.
    """
    num_gpus = usable_gpus(environment)
    on_gpu = bool(num_gpus and environment.ngpu and environment.accelerator != "cpu")
    accelerator: Literal["cpu", "cuda"] = "cuda" if on_gpu and environment.force_processes is None else "cpu"
    if environment.force_processes is not None:
        num_local = environment.force_processes
    else:
        alone = environment.distributed is False or environment.multiprocessing_distributed is False
        num_local = min(environment.ngpu, num_gpus, 1 if alone else num_gpus) if accelerator == "cuda" else 1
        if environment.ngpu > max(1, num_local):
            if environment.accelerator == "cpu":
                why = "environment.accelerator=cpu"
            elif num_gpus >= environment.ngpu:
                why = "environment.distributed=false"
            else:
                why = f"this machine has {counted(num_gpus, 'usable GPU')}"
            used = f"{num_local} of them" if accelerator == "cuda" else "one process on the CPU"
            say(f"environment.ngpu={environment.ngpu}: {why}; {used} is used")
    launch = plan_launch(
        os.environ,
        accelerator=accelerator,
        num_local=num_local,
        num_nodes=environment.world_size,
        node_rank=environment.rank,
        url=environment.dist_url,
    )
    if accelerator == "cuda" and launch.num_local > num_gpus:  # as torchrun or srun may have started them
        raise ConfigError(
            f"{launch.num_local} processes were started on this node, which has {counted(num_gpus, 'usable GPU')}: "
            "start one per GPU, or give environment.accelerator=cpu"
        )
    return launch


def run_in_processes(launch: Launch, function: Callable[..., T], *arguments: Any) -> T:
    """Call ``function(launch, *arguments)`` in each process of a run that is to be started here, or else in this one.

    Args:
        launch: Which processes.
        function: Importable by name.
        arguments: Picklable.

    Returns:
        What it returned; of several processes, what the first on this node did.

    Raises:
        earmark.training.launch.ProcessError: If a started process failed; it has said why.
        SystemExit: In one of several processes that failed, with its exit code.
    """
    if launch.local_rank is None:
        result: T = run_processes(launch, _reporting, function, *arguments)
        return result
    if launch.world_size > 1:  # torchrun or srun started this one
        return _reporting(launch, function, *arguments)
    return function(launch, *arguments)


def _reporting(launch: Launch, function: Callable[..., T], *arguments: Any) -> T:
    """Call a function in one of several processes; say what went wrong where the others cannot, and end the process."""
    from earmark.training.processes import connection_lost, process_group_left

    os.environ["RANK"] = str(launch.rank)
    try:
        with leave_on_signals(), process_group_left():
            return function(launch, *arguments)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        if connection_lost(error):
            code = FAILED  # the process that failed says why
        elif isinstance(error, ConfigError) and launch.rank > 0:
            code = FAILED  # it is the same for all, and the first says it
        else:
            code = report_error(f"earmark pretrain (process {launch.rank} of {launch.world_size})", error)
        raise SystemExit(code) from error


def leave_for_requeue(stopped_by: signal.Signals) -> None:
    """End a process that a scheduler asked to stop, so that it is started again.

    Submitit, which has a handler of its own for its signal, puts the job back into SLURM's queue there.

    Raises:
        SystemExit: With the exit code that asks to be started again.
        KeyboardInterrupt: If it was Ctrl-C.
    """
    if stopped_by == signal.SIGINT:
        raise KeyboardInterrupt
    if callable(signal.getsignal(stopped_by)):
        signal.raise_signal(stopped_by)
    raise SystemExit(REQUEUE)
