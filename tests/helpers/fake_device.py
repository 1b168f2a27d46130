"""A device that works by itself what it is given, in order, while the host does other things; and numbers from it."""

from collections import deque
from typing import Any

from torch import Tensor

from earmark.training.clock import DeviceClock


class FakeDevice:
    """Host and device in seconds; `worked` is the truth about the device.

    Args:
        queue_length: Kernels that may wait; the host that launches one more waits itself.
    """

    def __init__(self, queue_length: int = 10**9) -> None:
        self.now = self.free_at = self.worked = 0.0
        self._queue_length = queue_length
        self._ends: deque[float] = deque()

    def host(self, seconds: float) -> None:
        self.now += seconds

    def launch(self, *, host: float, device: float) -> None:
        self.now += host
        while self._ends and self._ends[0] <= self.now:
            self._ends.popleft()
        if len(self._ends) >= self._queue_length:
            self.now = self._ends.popleft()
        self.free_at = max(self.free_at, self.now) + device
        self.worked += device
        self._ends.append(self.free_at)

    def wait_for_copy(self, arrives_at: float) -> None:
        self.free_at = max(self.free_at, arrives_at)

    def event(self) -> "FakeEvent":
        return FakeEvent(self)

    def clock(self) -> DeviceClock:
        return DeviceClock(self.event, lambda: self.now)


class FakeEvent:
    def __init__(self, device: FakeDevice) -> None:
        self._device, self.passed_at = device, float("nan")

    def record(self) -> None:
        self.passed_at = max(self._device.free_at, self._device.now)

    def query(self) -> bool:
        return self._device.now >= self.passed_at

    def synchronize(self) -> None:
        self._device.now = max(self._device.now, self.passed_at)

    def elapsed_time(self, end_event: "FakeEvent") -> float:
        assert self.query(), "asked before the device came to it"
        assert end_event.query(), "asked before the device came to it"
        return 1000 * (end_event.passed_at - self.passed_at)


class LateNumbers:
    """A readback whose numbers are there when they are waited for, and a log of when that is."""

    late = True

    def __init__(self) -> None:
        self.log: list[str] = []
        self._num_sent = 0

    def send(self, values: Tensor) -> Any:
        self._num_sent += 1
        self.log.append(f"queued {self._num_sent}")
        return _Late(self, self._num_sent, values.clone())


class _Late:
    def __init__(self, readback: LateNumbers, number: int, values: Tensor) -> None:
        self._readback, self._number, self._values = readback, number, values

    def wait(self) -> list[float]:
        self._readback.log.append(f"read {self._number}")
        numbers: list[float] = self._values.tolist()
        return numbers
