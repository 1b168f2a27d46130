"""Signals that ask a run to stop: the current step is finished, a checkpoint is written, the process exits.

They come from Ctrl-C (SIGINT), from a scheduler that reclaims its machine (SIGTERM), from SLURM shortly before its time
limit (SIGUSR1) and from submitit (SIGUSR2).
"""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType

__all__ = ["REQUEUE", "STOP_SIGNALS", "StopRequest", "leave_on_signals", "signals_held", "stop_requests"]

REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: stopped by a signal with a checkpoint written; start it again to go on
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)
SECONDS_TO_SECOND_INTERRUPT = 0.5  # a launcher passes on the Ctrl-C that the terminal has sent already: that is one


class StopRequest:
    """Whether a signal asked this process to stop.

    Attributes:
        signal: The first that did; None as long as none did.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.time_seconds = 0.0

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def stop_requests(*, talk: bool = True, pass_on: Callable[[int], None] | None = None) -> Iterator[StopRequest]:
    """Turn the signals that ask a run to stop into a request, which the loop looks at after each step.

    A second Ctrl-C is a KeyboardInterrupt. Outside the main thread, where Python handles no signals, there are no
    requests.

    Args:
        talk: Confirm the request on standard error.
        pass_on: Called with the number of every such signal.

    Yields:
        The request.

    Example:
        >>> with stop_requests(talk=False) as request:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     request.signal
        <Signals.SIGTERM: 15>
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if pass_on is not None:
            pass_on(number)
        if request.signal is None:
            request.signal, request.time_seconds = signal.Signals(number), time.monotonic()
            if talk:
                again = "; Ctrl-C again stops it at once" if number == signal.SIGINT else ""
                print(f"{request.signal.name}: stopping after this step{again}", file=sys.stderr, flush=True)
        elif number == signal.SIGINT and time.monotonic() - request.time_seconds > SECONDS_TO_SECOND_INTERRUPT:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, ask) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def leave_on_signals() -> Iterator[None]:
    """Have a scheduler's signals end the process at once, with the exit code that asks to be started again.

    For the time before training, when there is nothing to save. A handler that is there already, submitit's, stays.

    Example:
        >>> with leave_on_signals():
        ...     signal.raise_signal(signal.SIGUSR1)
        Traceback (most recent call last):
        ...
        SystemExit: 75
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(REQUEUE)

    ours = [number for number in STOP_SIGNALS if signal.getsignal(number) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold back the signals that ask to stop; processes started in the block see none until they ask for them.

    A terminal and SLURM send signals to every process of a run. One that is still starting must not die of one. What
    arrives here meanwhile is delivered when the block ends.

    Example:
        >>> with stop_requests(talk=False) as request:
        ...     with signals_held():
        ...         signal.raise_signal(signal.SIGTERM)
        ...         held = request.signal
        ...     held, request.signal
        (None, <Signals.SIGTERM: 15>)
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which would let signals through when started with the first process
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
