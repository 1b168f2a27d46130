"""What the processes of a run do together beside the step: wait for the first, agree, and leave.

What a method gathers in a step is in `earmark.methods.gathering`.
"""

import functools
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

from torch import distributed as dist

from earmark.methods.gathering import rank, world_size

__all__ = ["OtherProcessError", "connection_lost", "gather_objects", "on_first_rank", "process_group_left"]

T = TypeVar("T")


class OtherProcessError(RuntimeError):
    """Another process of the run failed, so this one cannot go on; that one says why."""


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
