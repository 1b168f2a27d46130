"""How the numbers of a step come from the device to the host, without the host waiting for the step.

In the path of a sample this file stands beside `earmark.training.step`, which sends losses and diagnostics, and the
loop, which reads them. To ask a GPU for a number is to wait until it has done all it was given; then it has nothing to
do until the host has queued more. So there the numbers are copied to pinned memory when the device comes to them, and
read once the next step is queued.
"""

from typing import Protocol

import torch
from torch import Tensor

__all__ = ["AtOnce", "FromCuda", "PendingNumbers", "Readback", "readback_of"]


class PendingNumbers(Protocol):
    """Numbers that are on their way from the device."""

    def wait(self) -> list[float]:
        """Return them, as soon as the device has done what was queued before they were sent."""


class Readback(Protocol):
    """A way from the device to the host.

    Attributes:
        late: Whether numbers are worth more when they are asked for later: the device works on its own.
    """

    @property
    def late(self) -> bool:
        """See above."""

    def send(self, values: Tensor) -> PendingNumbers:
        """Begin to copy a tensor (N,) to the host, after all that is queued so far."""


class _Here:
    def __init__(self, numbers: list[float]) -> None:
        self._numbers = numbers

    def wait(self) -> list[float]:
        return self._numbers


class AtOnce:
    """The way of a device that has done its work when a call returns, such as the CPU.

    Example:
        >>> AtOnce().send(torch.tensor([0.5, 2.0])).wait()
        [0.5, 2.0]
    """

    late = False

    def send(self, values: Tensor) -> PendingNumbers:
        """See `Readback`."""
        return _Here(values.tolist())


class FromCuda:
    """The way of a CUDA device."""

    late = True

    def send(self, values: Tensor) -> PendingNumbers:
        """See `Readback`."""
        return _FromCuda(values)


class _FromCuda:
    def __init__(self, values: Tensor) -> None:
        self._numbers = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        self._numbers.copy_(values, non_blocking=True)
        # blocking: the host sleeps while it waits, and leaves its core to the processes that read
        self._copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call, unused-ignore]
        self._copied.record(torch.cuda.current_stream(values.device))

    def wait(self) -> list[float]:
        self._copied.synchronize()
        numbers: list[float] = self._numbers.tolist()
        return numbers


def readback_of(device: torch.device) -> Readback:
    """Return the way from a device to the host.

    Example:
        >>> readback_of(torch.device("cpu")).late
        False
    """
    return FromCuda() if device.type == "cuda" else AtOnce()
