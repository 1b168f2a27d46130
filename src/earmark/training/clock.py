"""Where the time of a run goes: what the device worked, what it waited for data, what it waited for the host.

In the path of a sample this file stands beside the loop, which tells a clock when it asks for a batch, when it begins
to queue a step and when the step is queued. `HostClock` is for a device that does at once what it is told, such as the
CPU. `DeviceClock` is for one that works by itself: it goes by the device's own clock, and never makes the host wait.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch

__all__ = ["DeviceClock", "DeviceEvent", "HostClock", "StepClock", "StepTimes", "step_clock_of"]

STEPS_COMPARED = 16  # so many of the last steps say how long the device's work takes
MILLISECONDS = 1000.0


@dataclass(slots=True)
class StepTimes:
    """Where the time between the end of a step and the end of the next went, or the sum over steps, in seconds.

    Attributes:
        total: All of it.
        busy: The device worked.
        data_wait: It had nothing to do until the batch was there.
        host_wait: It had nothing to do for another reason: the host was writing things down, or slow to queue work.
        launch_bound: It worked or waited for the host, and which cannot be told (see `DeviceClock`).
    """

    total: float = 0.0
    busy: float = 0.0
    data_wait: float = 0.0
    host_wait: float = 0.0
    launch_bound: float = 0.0

    def add(self, other: "StepTimes") -> None:
        """Add the times of other steps."""
        for name in (field.name for field in fields(self)):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def shares(self, parts: Sequence[str]) -> dict[str, float]:
        """Return parts as shares of the whole, under the names that a run's metrics have for them.

        Example:
            >>> StepTimes(total=8.0, busy=6.0, data_wait=2.0).shares(["busy", "data_wait"])
            {'device_busy_share': 0.75, 'data_wait_share': 0.25}
        """
        names = {"busy": "device_busy_share"}
        whole = self.total or 1.0
        return {names.get(part, f"{part}_share"): getattr(self, part) / whole for part in parts}


class StepClock(Protocol):
    """Takes the times of steps. For each step: `ask`, `begin`, `end`, and `take` once its numbers were read.

    Attributes:
        parts: Names of the parts of `StepTimes` that it tells apart.
    """

    @property
    def parts(self) -> tuple[str, ...]:
        """See above."""

    def restart(self) -> None:
        """Leave out the time since the last step: something else was done."""

    def ask(self) -> None:
        """The host asks for the next batch."""

    def begin(self) -> None:
        """The batch is there, and the host begins to queue what is done with it; the last call before `end` counts."""

    def end(self) -> None:
        """The step is queued."""

    def take(self) -> StepTimes:
        """Return the times of the oldest step that was not taken yet; the device must be done with it."""


class HostClock:
    """The clock of a device that has done its work when a call returns.

    Args:
        now: Returns seconds.

    Example:
        >>> seconds = iter([0.0, 1.0, 2.0, 6.0])
        >>> clock = HostClock(lambda: next(seconds))
        >>> clock.ask(), clock.begin(), clock.end()
        (None, None, None)
        >>> clock.take()
        StepTimes(total=6.0, busy=4.0, data_wait=1.0, host_wait=0.0, launch_bound=0.0)
    """

    parts = ("busy",)  # the loop's own sums have the waiting for data, over a resume too; the rest is writing down

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._asked = self._began = 0.0
        self._ended = now()
        self._times: deque[StepTimes] = deque()

    def restart(self) -> None:
        """See `StepClock`."""
        self._ended = self._asked = self._now()

    def ask(self) -> None:
        """See `StepClock`."""
        self._asked = self._now()

    def begin(self) -> None:
        """See `StepClock`."""
        self._began = self._now()

    def end(self) -> None:
        """See `StepClock`."""
        before, self._ended = self._ended, self._now()
        self._times.append(StepTimes(self._ended - before, self._ended - self._began, self._began - self._asked))

    def take(self) -> StepTimes:
        """See `StepClock`."""
        return self._times.popleft()


class DeviceEvent(Protocol):
    """A mark in what a device is given to do; `torch.cuda.Event(enable_timing=True)` is one."""

    def record(self) -> None:
        """Put it after all that the device was given so far."""

    def query(self) -> bool:
        """Return whether the device has come to it."""

    def synchronize(self) -> None:
        """Wait until the device has come to it."""

    def elapsed_time(self, end_event: Any, /) -> float:
        """Return the milliseconds from here to a later mark, on the device's clock."""


@dataclass(slots=True)
class _Marks:
    """Of one step.

    `queued_ahead`: all of the step was queued before the device came to it. `caught_up`: the device was done with it
    when the host came back for the next batch; None as long as it did not.
    """

    asked: DeviceEvent
    began: DeviceEvent
    ended: DeviceEvent
    before: DeviceEvent | None
    queued_ahead: bool
    queueing_seconds: float
    caught_up: bool | None = None


class DeviceClock:
    """The clock of a device that works by itself what it is given, in order.

    Between the end of a step and the beginning of the next one, both on the device's clock, the device had nothing to
    do. It waited for the host until the host asked for the batch, and for data from there on: until the host had the
    batch, and its copy had arrived. A host that is ahead is never waited for, whatever it does meanwhile.

    Within a step a slow host is not seen on the device's clock: it makes the step longer. So a step counts as work

    - if all of it was queued before the device came to it; the last 16 such steps say how long the work takes;
    - else up to that time, and what is beyond it is waiting for the host;
    - else, as long as no step was queued so early, if the device still had work when the host came back for a batch.

    Otherwise the device may have kept pace with the host, as it does when kernels are small or a model is compiled.
    Then as much of the step as the host took to queue it is `launch_bound`, and what is beyond that is work.

    What it cannot see: of a run that never gets ahead, a stretch in the middle of a step in which the device waited, if
    the host was ahead again at the end of the step. It takes steps for alike, as a run's batches are. Work on other
    streams, and that of other processes on the same device, is not counted, but makes steps longer.

    Args:
        new_event: Makes a mark.
        now: Returns seconds of the host's clock.
    """

    parts = ("busy", "data_wait", "host_wait", "launch_bound")

    def __init__(self, new_event: Callable[[], DeviceEvent], now: Callable[[], float] = time.perf_counter) -> None:
        self._new_event, self._now = new_event, now
        self._steps: deque[_Marks] = deque()
        self._last: _Marks | None = None
        self._before: DeviceEvent | None = None
        self._asked: DeviceEvent | None = None
        self._began: DeviceEvent | None = None
        self._began_to_queue = 0.0
        self._work_seconds: deque[float] = deque(maxlen=STEPS_COMPARED)

    def restart(self) -> None:
        """See `StepClock`."""
        self._before = None
        self._asked = self._mark()

    def ask(self) -> None:
        """See `StepClock`."""
        if self._last is not None and self._last.caught_up is None:
            self._last.caught_up = self._last.ended.query()
        self._asked = self._mark()

    def begin(self) -> None:
        """See `StepClock`."""
        self._began, self._began_to_queue = self._mark(), self._now()

    def end(self) -> None:
        """See `StepClock`."""
        ended = self._mark()
        began = self._began or ended
        queued_ahead = self._before is not None and not self._before.query()
        self._last = _Marks(
            asked=self._asked or began,
            began=began,
            ended=ended,
            before=self._before,
            queued_ahead=queued_ahead,
            queueing_seconds=self._now() - self._began_to_queue,
        )
        self._steps.append(self._last)
        self._before = ended

    def take(self) -> StepTimes:
        """See `StepClock`."""
        marks = self._steps.popleft()
        marks.ended.synchronize()  # its numbers, which have been read, were sent just before
        seconds = _seconds(marks.began, marks.ended)
        unknown = 0.0
        if marks.queued_ahead:
            self._work_seconds.append(seconds)
            busy = seconds
        elif self._work_seconds:
            busy = min(seconds, statistics.median(self._work_seconds))
        else:
            unknown = 0.0 if marks.caught_up is False else min(seconds, marks.queueing_seconds)
            busy = seconds - unknown
        data_wait = _seconds(marks.asked, marks.began)
        before = 0.0 if marks.before is None else _seconds(marks.before, marks.asked)
        host_wait = before + seconds - busy - unknown
        return StepTimes(before + data_wait + seconds, busy, data_wait, host_wait, unknown)

    def _mark(self) -> DeviceEvent:
        event = self._new_event()
        event.record()
        return event


def _seconds(first: DeviceEvent, last: DeviceEvent) -> float:
    return float(first.elapsed_time(last)) / MILLISECONDS


def step_clock_of(device: torch.device) -> StepClock:
    """Return the clock for the steps of a device, which must be the current one.

    Example:
        >>> step_clock_of(torch.device("cpu")).parts
        ('busy',)
    """
    if device.type == "cuda":
        return DeviceClock(lambda: torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call, unused-ignore]
    return HostClock()
