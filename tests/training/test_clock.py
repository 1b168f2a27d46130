"""Where time goes: what the clocks say of a device whose every second is known."""

import pytest
import torch

from earmark.training.clock import HostClock, StepTimes, step_clock_of
from tests.helpers.fake_device import FakeDevice

KERNELS = 10


class Run:
    """Steps as the loop does them: each is queued before the numbers of the one before are read."""

    def __init__(self, device: FakeDevice) -> None:
        self.device, self.clock = device, device.clock()
        self.times: list[StepTimes] = []
        self.ended: list[float] = []

    def step(self, *, reading: float, launch: float, kernel: float, copy: float = 0.0, writing: float = 0.0) -> None:
        """One step: seconds to have a batch, for each of its kernels on host and device, to copy, and after it."""
        device = self.device
        self.clock.ask()
        device.host(reading)
        device.wait_for_copy(device.now + copy)
        self.clock.begin()
        for _ in range(KERNELS):
            device.launch(host=launch, device=kernel)
        self.clock.end()
        self.ended.append(device.free_at)
        if len(self.ended) > 1:
            self.read()
        device.host(writing)

    def read(self) -> None:
        self.device.now = max(self.device.now, self.ended.pop(0))
        self.times.append(self.clock.take())

    def sums(self, first: int) -> StepTimes:
        """Return the times of all steps from the first asked for on, as shares of the whole."""
        whole = StepTimes()
        for times in self.times[first:-1]:  # the last is read at once, so it is not known whether the host was ahead
            whole.add(times)
            assert times.busy + times.data_wait + times.host_wait + times.launch_bound == pytest.approx(times.total)
        shares = {
            part: getattr(whole, part) / whole.total for part in ("busy", "data_wait", "host_wait", "launch_bound")
        }
        return StepTimes(whole.total, **shares)


def steps_of(number: int = 12, *, queue_length: int = 10**9, **seconds: float) -> Run:
    run = Run(FakeDevice(queue_length))
    for _ in range(number):
        run.step(**seconds)
    while run.ended:
        run.read()
    return run


def test_a_device_that_always_has_work_is_busy_and_waits_for_nothing() -> None:
    run = steps_of(reading=0.5, launch=0.1, kernel=1.0, writing=1.0)
    assert run.sums(first=1) == StepTimes(pytest.approx(10 * 10.0), pytest.approx(1.0), 0.0, pytest.approx(0.0), 0.0)
    assert run.times[0].busy == pytest.approx(10.1)  # it began with the first kernel, and had work to its end


def test_a_device_that_has_no_batch_waits_for_data() -> None:
    """15 s for a batch, then 1 s to queue 10 s of work: of each 16 s the device works 10."""
    shares = steps_of(reading=15.0, launch=0.1, kernel=1.0).sums(first=1)
    assert shares.total / 10 == pytest.approx(16.0)
    assert shares.data_wait == pytest.approx(5.9 / 16)  # until the batch is there; then 0.1 s to the first kernel
    assert shares.busy == pytest.approx(10.1 / 16)
    assert (shares.host_wait, shares.launch_bound) == (pytest.approx(0.0), 0.0)


def test_a_copy_that_is_not_there_is_waiting_for_data_although_the_host_is_ahead() -> None:
    shares = steps_of(reading=0.1, launch=0.1, kernel=1.0, copy=16.0).sums(first=1)
    assert shares.busy == pytest.approx(10 * KERNELS / shares.total, rel=0.01)
    assert shares.data_wait == pytest.approx(1 - shares.busy)
    assert shares.data_wait > 0.2


def test_a_host_that_writes_things_down_for_long_is_waited_for() -> None:
    """30 s from the numbers of a step to the next batch: the device has 10 s of work left, and waits 20."""
    shares = steps_of(reading=0.0, launch=0.01, kernel=1.0, writing=30.0).sums(first=1)
    assert shares.busy == pytest.approx(10 / 30, rel=0.02)
    assert shares.launch_bound == pytest.approx(0.1 / 30, rel=0.02)  # it took so long to queue a step
    assert shares.host_wait == pytest.approx(1 - shares.busy - shares.launch_bound)
    assert shares.data_wait == pytest.approx(0.0)


def test_a_step_whose_pace_is_the_launching_is_never_called_work() -> None:
    """A kernel takes the host 1 s and the device 0.3: from the device's clock alone it looks like work throughout."""
    shares = steps_of(reading=0.0, launch=1.0, kernel=0.3, writing=0.5).sums(first=0)
    assert shares.busy < 0.03  # the last kernel
    assert shares.launch_bound > 0.9


def test_slow_launching_between_steps_that_were_queued_ahead_is_waiting_for_the_host() -> None:
    """What the work takes is known from those, so that the share is the truth."""
    run = Run(FakeDevice())
    for number in range(40):
        run.step(reading=0.0, launch=0.05 if number < 20 else 2.0, kernel=1.0, writing=0.5)
    while run.ended:
        run.read()
    late = run.times[25:]
    total, busy = sum(times.total for times in late), sum(times.busy for times in late)
    assert busy / total == pytest.approx(len(late) * KERNELS / total, rel=0.02)
    assert sum(times.host_wait for times in late) == pytest.approx(total - busy)
    assert all(times.launch_bound == 0.0 for times in run.times)


def test_a_host_held_up_by_a_full_queue_is_ahead_all_the_same() -> None:
    """No step is queued before the device comes to it, for the queue is shorter than a step; yet it never runs dry."""
    run = steps_of(30, queue_length=4, reading=0.1, launch=0.01, kernel=1.0, writing=0.5)
    shares = run.sums(first=1)
    assert shares.busy == pytest.approx(1.0)
    assert run.device.worked == pytest.approx(30 * KERNELS)


def test_what_is_no_part_of_training_is_left_out() -> None:
    run = Run(FakeDevice())
    for _ in range(5):
        run.step(reading=0.1, launch=0.1, kernel=1.0)
    while run.ended:
        run.read()
    run.device.launch(host=1.0, device=500.0)  # a probe
    run.device.now = run.device.free_at
    run.clock.restart()
    for _ in range(5):
        run.step(reading=0.1, launch=0.1, kernel=1.0)
    while run.ended:
        run.read()
    assert sum(times.total for times in run.times) == pytest.approx(100, abs=1.0)


def test_a_device_of_the_host_works_or_waits_for_data_and_the_rest_is_the_loops() -> None:
    seconds = iter([0.0, 2.0, 5.0, 6.0, 16.0, 17.0, 18.0, 20.0])
    clock = HostClock(lambda: next(seconds))
    clock.restart()
    for _ in range(2):
        clock.ask()
        clock.begin()
        clock.end()
    assert [clock.take(), clock.take()] == [StepTimes(14.0, 10.0, 1.0), StepTimes(4.0, 2.0, 1.0)]


@pytest.mark.gpu
def test_a_gpu_that_is_held_up_by_its_host_says_so() -> None:
    """Products of some ms: queued ahead the GPU works all the time; with pauses it waits for the host, or for data."""
    import time

    device = torch.device("cuda", torch.cuda.current_device())
    left = torch.randn(4096, 4096, device=device)

    def shares(*, reading: float, writing: float) -> StepTimes:
        clock, times, ended = step_clock_of(device), [], []
        for _ in range(12):
            clock.ask()
            time.sleep(reading)
            clock.begin()
            for _ in range(20):
                left @ left
            clock.end()
            event = torch.cuda.Event()
            event.record()
            ended.append(event)
            if len(ended) > 1:
                ended.pop(0).synchronize()
                times.append(clock.take())
            time.sleep(writing)
        whole = StepTimes()
        for each in times[2:]:
            whole.add(each)
        return StepTimes(1.0, *(getattr(whole, part) / whole.total for part in clock.parts))

    left @ left
    torch.cuda.synchronize()
    assert shares(reading=0.0, writing=0.0).busy > 0.9
    assert shares(reading=0.5, writing=0.0).data_wait > 0.5
    assert shares(reading=0.0, writing=0.5).host_wait > 0.5
