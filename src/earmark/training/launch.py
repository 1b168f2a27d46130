"""The processes of a run: how many there are, who starts them, and how they are watched.

Beside the path of a sample: the command line calls `earmark.training.pretrain` in each of them. A run is one process on
the CPU or on one GPU; or several, one per GPU, or on the CPU over gloo. They are started here, by torchrun, or by
SLURM's srun; over several nodes by torchrun, by srun, or in the original's way: the same command on each node, with the
node's rank.
"""

import contextlib
import inspect
import logging
import multiprocessing
import os
import signal
import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

from earmark.atomic import scratch_folder
from earmark.training.interrupts import REQUEUE, STOP_SIGNALS, signals_held, stop_requests
from earmark.wording import counted

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Launch", "LaunchError", "ProcessError", "join_processes", "plan_launch", "run_processes"]

GRACE_SECONDS = 15.0  # after one process failed: for the others to notice; then to end; then they are killed
T = TypeVar("T")


class LaunchError(ValueError):
    """Processes that were asked for in a way that does not fit together."""


class ProcessError(RuntimeError):
    """One of the processes of a run failed; the others were ended."""


@dataclass(frozen=True, slots=True)
class Launch:
    """The processes of a run.

    Attributes:
        accelerator: What each of them computes on.
        num_local: Processes on this node.
        num_nodes: Nodes, each with the same number of processes.
        node_rank: This node's number, from 0.
        local_rank: This process's number on its node, from 0; None if it is the one that starts the others.
        address: Host and port of the first process; None where there is only one.
    """

    accelerator: Literal["cpu", "cuda"]
    num_local: int = 1
    num_nodes: int = 1
    node_rank: int = 0
    local_rank: int | None = 0
    address: tuple[str, int] | None = None

    @property
    def world_size(self) -> int:
        """Number of processes on all nodes."""
        return self.num_local * self.num_nodes

    @property
    def rank(self) -> int:
        """This process's number among all; 0 for one that starts others."""
        return self.node_rank * self.num_local + (self.local_rank or 0)


def plan_launch(
    environ: Mapping[str, str],
    *,
    accelerator: Literal["cpu", "cuda"],
    num_local: int,
    num_nodes: int = 1,
    node_rank: int = 0,
    url: str | None = None,
) -> Launch:
    """Return which processes a run has.

    What torchrun or srun has started is taken as it is. Otherwise `num_local` processes are to be started here, and as
    many on each other node.

    Args:
        environ: The environment variables.
        accelerator: What each process computes on.
        num_local: Processes that are wanted on each node.
        num_nodes: Nodes, where neither torchrun nor srun says.
        node_rank: This node's number among them.
        url: ``tcp://HOST:PORT`` of the first node, for several nodes without torchrun or srun.

    Raises:
        LaunchError: If several nodes are asked for without saying where the first is, or node_rank is out of range.

    Example:
        >>> plan_launch({}, accelerator="cpu", num_local=1)
        Launch(accelerator='cpu', num_local=1, num_nodes=1, node_rank=0, local_rank=0, address=None)
        >>> torchrun = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "1"}
        >>> plan_launch({**torchrun, "MASTER_ADDR": "a", "MASTER_PORT": "1"}, accelerator="cpu", num_local=1).node_rank
        1
    """
    if int(environ.get("WORLD_SIZE", "1")) > 1:
        return _torchrun(environ, accelerator)
    if int(environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return _srun(environ, accelerator, num_local)
    if not 0 <= node_rank < num_nodes:
        raise LaunchError(f"node_rank {node_rank} is out of range for {counted(num_nodes, 'node')}, counted from 0")
    if num_nodes > 1:
        parts = urlsplit(url or "")
        if parts.scheme != "tcp" or not parts.hostname or not parts.port:
            raise LaunchError(f"{num_nodes} nodes need tcp://HOST:PORT of the first of them, got {url!r}")
        return Launch(accelerator, num_local, num_nodes, node_rank, None, (parts.hostname, parts.port))
    if num_local == 1:
        return Launch(accelerator)
    return Launch(accelerator, num_local, local_rank=None, address=("127.0.0.1", _free_port()))


def _torchrun(environ: Mapping[str, str], accelerator: Literal["cpu", "cuda"]) -> Launch:
    try:
        world_size, num_local = int(environ["WORLD_SIZE"]), int(environ["LOCAL_WORLD_SIZE"])
        return Launch(
            accelerator,
            num_local,
            world_size // num_local,
            int(environ["GROUP_RANK"]),
            int(environ["LOCAL_RANK"]),
            (environ["MASTER_ADDR"], int(environ["MASTER_PORT"])),
        )
    except KeyError as error:
        raise LaunchError(f"WORLD_SIZE is set, as by torchrun, but {error.args[0]} is not") from error


def _srun(environ: Mapping[str, str], accelerator: Literal["cpu", "cuda"], num_local: int) -> Launch:
    """Several tasks per node are the processes themselves; a single task per node starts its own."""
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

    num_tasks, num_nodes = int(environ["SLURM_STEP_NUM_TASKS"]), int(environ["SLURM_STEP_NUM_NODES"])
    if num_tasks % num_nodes:
        raise LaunchError(
            f"srun started {num_tasks} tasks on {counted(num_nodes, 'node')}; each node must have the same number"
        )
    host = environ.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(environ["SLURM_STEP_NODELIST"])
    port = int(environ.get("MASTER_PORT") or 15000 + int(environ["SLURM_JOB_ID"]) % 10000)
    node_rank, per_node = int(environ["SLURM_NODEID"]), num_tasks // num_nodes
    if per_node == 1 and num_local > 1:
        return Launch(accelerator, num_local, num_nodes, node_rank, None, (host, port))
    return Launch(accelerator, per_node, num_nodes, node_rank, int(environ["SLURM_LOCALID"]), (host, port))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def join_processes(launch: Launch, *, precision: Any = "32-true", sync_batch_norm: bool = True) -> "Fabric":
    """Start Lightning Fabric in one of the processes, and connect it to the others.

    Args:
        launch: With this process's local rank.
        precision: As for Fabric.
        sync_batch_norm: Whether the model's buffers will be the same everywhere by themselves; otherwise the first
            process's go to the others before each step.

    Returns:
        The launched Fabric.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy
    from torch.nn.parallel import DistributedDataParallel

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # the number of processes is reported here

    if launch.address is None:
        fabric = Fabric(
            accelerator=launch.accelerator, devices=1, precision=precision, plugins=[LightningEnvironment()]
        )
    else:
        facts = {
            "MASTER_ADDR": launch.address[0],
            "MASTER_PORT": launch.address[1],
            "WORLD_SIZE": launch.world_size,
            "RANK": launch.rank,
            "LOCAL_RANK": launch.local_rank,
            "GROUP_RANK": launch.node_rank,
        }
        os.environ.update({name: str(value) for name, value in facts.items()})
        options = inspect.signature(DistributedDataParallel).parameters
        name = next(name for name in ("forward_sync_buffers", "broadcast_buffers") if name in options)  # new, old
        buffers: Any = {name: not sync_batch_norm}
        fabric = Fabric(
            accelerator=launch.accelerator,
            devices=launch.num_local,
            num_nodes=launch.num_nodes,
            precision=precision,
            strategy=DDPStrategy(**buffers),
            plugins=[TorchElasticEnvironment()],
        )
    fabric.launch()
    return fabric


def run_processes(launch: Launch, function: Callable[..., T], *arguments: Any) -> T:
    """Start this node's processes, wait for them, and end all of them when one fails.

    Signals that ask to stop are passed on to each, which is then awaited; a second Ctrl-C ends them at once.

    Args:
        launch: Of a process that starts others.
        function: What each runs, as ``function(launch, *arguments)`` with a launch of its own; importable by name.
        arguments: Pickled for each process.

    Returns:
        What the first process of this node returned.

    Raises:
        ProcessError: If one failed: with its traceback if it raised, else it has said why itself. Of several the one is
            named that did not only lose its connection to the others.
        SystemExit: If one left before training, asking to be started again.
        KeyboardInterrupt: After a second Ctrl-C.
    """
    with scratch_folder() as failures:
        return _run_processes(launch, failures, function, *arguments)


def _run_processes(launch: Launch, failures: Path, function: Callable[..., T], *arguments: Any) -> T:
    from torch.multiprocessing.spawn import ProcessExitedException, start_processes

    results = multiprocessing.get_context("spawn").SimpleQueue()
    passed = (launch, results, failures, function, arguments)
    with signals_held():
        processes: Any = start_processes(  # type: ignore[no-untyped-call]
            _process, passed, nprocs=launch.num_local, join=False, start_method="spawn"
        )

    def pass_on(number: int) -> None:
        for pid in processes.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    with stop_requests(talk=False, pass_on=pass_on):
        try:
            while not processes.join(timeout=1.0, grace_period=GRACE_SECONDS):
                pass
        except ProcessExitedException as error:
            exit_codes = [process.exitcode for process in processes.processes]
            index = _cause(error.error_index, exit_codes, failures)
            if exit_codes[index] == REQUEUE:
                raise SystemExit(REQUEUE) from error
            raise ProcessError(_ending(launch, index, exit_codes[index], failures)) from error
        finally:
            for process in processes.processes:
                if process.is_alive():
                    process.kill()
    result: T = results.get()
    return result


def _cause(reported: int, exit_codes: Sequence[int], failures: Path) -> int:
    """Return which process failed first, where the one that was seen to end only lost the connection to it.

    Both are gone by the time anybody looks on a busy machine, and then the one of the lower number is seen.
    """
    lost = {int(path.stem) for path in failures.glob("*.lost")}
    own = [index for index, code in enumerate(exit_codes) if code not in (0, -signal.SIGTERM) and index not in lost]
    return own[0] if reported in lost and own else reported


def _ending(launch: Launch, index: int, exit_code: int, failures: Path) -> str:
    number = launch.node_rank * launch.num_local + index
    raised = failures / f"{index}.raised"
    if raised.exists():
        how = "raised an error"
    elif exit_code >= 0:
        how = f"failed (exit code {exit_code})"
    else:
        names = {int(each): each.name for each in signal.Signals}
        how = f"was ended by {names.get(-exit_code, f'signal {-exit_code}')}"
    message = f"process {number} of {launch.world_size} {how}; the others were ended"
    return f"{message}\n{raised.read_text()}" if raised.exists() else message


def _process(
    local_rank: int, launch: Launch, results: Any, failures: Path, function: Callable[..., Any], arguments: Any
) -> None:
    import torch

    from earmark.training.processes import connection_lost, process_group_left

    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    if "OMP_NUM_THREADS" not in os.environ:  # with one thread per core each, processes would compete for the cores
        torch.set_num_threads(max(1, torch.get_num_threads() // launch.num_local))
    try:
        with process_group_left():
            result = function(replace(launch, local_rank=local_rank), *arguments)
    except (Exception, SystemExit) as error:  # for the parent, which tells the cause from what it caused
        if connection_lost(error.__cause__ or error):
            (failures / f"{local_rank}.lost").touch()
        if isinstance(error, SystemExit):
            raise
        (failures / f"{local_rank}.raised").write_text(traceback.format_exc(), errors="backslashreplace")
        raise SystemExit(1) from error
    if local_rank == 0:
        results.put(result)
