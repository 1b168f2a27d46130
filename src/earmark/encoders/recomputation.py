"""Activations that are computed again in the backward pass and not kept, for GPUs of little memory.

In the path of a sample this stands inside the encoders: a stage's input is kept, and what lies between is made anew
when its gradient is asked for. That costs one more forward pass, about a third of a step, and leaves the numbers alone.
"""

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

__all__ = ["recomputed"]


def recomputed(stage: nn.Module, *inputs: Any) -> Any:
    """Call a stage, and keep only its inputs for the backward pass.

    Random draws, such as dropout, are repeated as they were. Buffers are changed once: the second pass works on copies
    of them, so that batch norm's running statistics are those of one pass.

    Args:
        stage: A part of an encoder.
        inputs: Its inputs.

    Returns:
        What the stage returns.

    Example:
        >>> stage = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        >>> recomputed(stage, torch.randn(4, 2)).sum().backward()
        >>> stage[1].num_batches_tracked
        tensor(1)
    """
    if torch.compiler.is_compiling():  # the compiler keeps changes of buffers out of what it computes again
        return checkpoint(stage, *inputs, use_reentrant=False)
    called = False

    def run(*inputs: Any) -> Any:
        nonlocal called
        if not called:
            called = True
            return stage(*inputs)
        copies = {name: buffer.clone() for name, buffer in stage.named_buffers()}
        return torch.func.functional_call(stage, copies, inputs)

    return checkpoint(run, *inputs, use_reentrant=False)
