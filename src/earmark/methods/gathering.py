"""Gather embeddings over the processes of a run, with their gradients.

In the path of a sample this file stands between the heads and the objectives: a process holds B samples, and a
contrastive loss compares them with the M = B x world size samples of the global batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

__all__ = [
    "counted_alone",
    "gather_with_gradient",
    "gather_without_gradient",
    "rank",
    "sum_over_processes",
    "world_size",
]

_alone = False


@contextmanager
def counted_alone() -> Iterator[None]:
    """Have a model in the block take this process for the only one, to try it out without the others.

    Example:
        >>> with counted_alone():
        ...     world_size()
        1
    """
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def rank() -> int:
    """Return this process's rank, 0 where no process group was started."""
    return dist.get_rank() if _in_group() else 0


def world_size() -> int:
    """Return the number of processes, 1 where no process group was started."""
    return dist.get_world_size() if _in_group() else 1


def _in_group() -> bool:
    return not _alone and dist.is_available() and dist.is_initialized()


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
