"""What the processes of a run do together: gather embeddings with their gradients, wait for the first, agree.

In the path of a sample the gathering sits between the heads and the objectives: a process holds B samples, and the
contrastive loss compares them with the M = B x world size samples of the global batch.
"""

import functools
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch import distributed as dist

T = TypeVar("T")


class OtherProcessError(RuntimeError):
    """Another process of the run failed, so this one cannot go on; that one says why."""


def rank() -> int:
    """Return this process's rank, 0 where no process group was started."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes, 1 where no process group was started."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def on_first_rank(function: Callable[[], T]) -> T:
    """Call a function on the first rank alone, while the others wait for as long as it takes.

    Args:
        function: Its result must be picklable.

    Returns:
        Its result, on every rank.

    Raises:
        Exception: What the function raised, on the first rank.
        OtherProcessError: On the others then.

    Example:
        >>> on_first_rank(lambda: 3)
        3
    """
    if world_size() == 1:
        return function()
    outcome: list[Any] = [None, None]  # result, what went wrong
    error: Exception | None = None
    if rank() == 0:
        try:
            outcome[0] = function()
        except Exception as raised:
            error, outcome[1] = raised, f"{type(raised).__name__}: {raised}"
    dist.broadcast_object_list(outcome, group=_patient_group())
    if error is not None:
        raise error
    if outcome[1] is not None:
        raise OtherProcessError(f"the first process failed: {outcome[1]}")
    return cast(T, outcome[0])


def gather_objects(value: T) -> list[T]:
    """Return every rank's value, in order of rank, on every rank.

    Args:
        value: Picklable.

    Example:
        >>> gather_objects("a")
        ['a']
    """
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value, group=_patient_group())
    return values


@contextmanager
def process_group_left() -> Iterator[None]:
    """Leave the process group that is joined inside the block, so that the process can end.

    The threads of a group let go of tensors when they come to it. One that does so while the interpreter shuts down
    aborts the process ("terminate called without an active exception"): a run that succeeded would be told as failed.
    So nobody leaves before all have done their part, and the threads have ended before the block has.

    Example:
        >>> with process_group_left():
        ...     world_size()
        1
    """
    try:
        yield
    except BaseException:
        # The others may be gone, so nobody is waited for; NCCL would wait for them, and the process ends anyway.
        if dist.is_available() and dist.is_initialized() and dist.get_backend() == "gloo":
            _destroy_process_group()
        raise
    if dist.is_available() and dist.is_initialized():
        dist.barrier(group=_patient_group())
        _destroy_process_group()


def _destroy_process_group() -> None:
    _patient_group.cache_clear()
    dist.destroy_process_group()
    gc.collect()  # a group's threads end with the last that holds it: models, whose hooks are cycles


def connection_lost(error: BaseException) -> bool:
    """Return whether an error says no more than that another process of the run is gone.

    Example:
        >>> connection_lost(RuntimeError("[gloo/transport/tcp/pair.cc:537] Connection closed by peer [::1]:1234"))
        True
    """
    if isinstance(error, OtherProcessError | dist.DistBackendError | dist.DistNetworkError):
        return True
    return isinstance(error, RuntimeError) and "gloo/transport" in str(error)


@functools.cache
def _patient_group() -> Any:
    """Processes that wait for one another as long as it takes: preparing a data set can take a day.

    Over gloo, which notices at once when a process is gone.
    """
    return dist.new_group(backend="gloo", timeout=timedelta(days=30))


def gather_with_gradient(x: Tensor) -> Tensor:
    """Concatenate a tensor over all processes along its first axis, in order of rank, with gradients.

    Backward sums over the ranks what each one's loss asks of this rank's rows. With the mean over ranks that
    DistributedDataParallel takes of parameter gradients, the result is the gradient of one process on the global batch.
    The original code gathers without gradients, so its gradient is not that of its loss.

    Every rank must give the same shape.

    Args:
        x: (B, ...) of this process.

    Returns:
        (B x world size, ...); `x` itself where there is one process.

    Example:
        >>> gather_with_gradient(torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """
    if world_size() == 1:
        return x
    # A compiled model breaks its graph here instead of tracing the collective.
    gathered: Tensor = torch.compiler.disable(_Gather.apply)(x)  # type: ignore[no-untyped-call]
    return gathered


def gather_without_gradient(x: Tensor) -> Tensor:
    """Concatenate a tensor over all processes as `gather_with_gradient` does, without gradients for any row.

    As in the original code, the rows of this process get none either, and so it is where there is one process.

    Args:
        x: (B, ...) of this process.

    Returns:
        (B x world size, ...), detached; with one process the values of `x`.

    Example:
        >>> gather_without_gradient(torch.ones(2, 3, requires_grad=True)).requires_grad
        False
    """
    with torch.no_grad():
        return gather_with_gradient(x).detach()


def sum_over_processes(x: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes, without gradients; `x` itself where there is one process.

    Example:
        >>> sum_over_processes(torch.tensor([2.0]))
        tensor([2.])
    """
    if world_size() == 1:
        return x
    total = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        rows = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(rows, x.contiguous())
        return torch.cat(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # all_reduce and a slice instead of reduce_scatter: gloo has it too, and embeddings are small.
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(world_size())[rank()]
