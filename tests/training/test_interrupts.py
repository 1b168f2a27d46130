"""Signals that ask to stop: what is heard, what is held back, what is put back."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from earmark.training import interrupts
from earmark.training.interrupts import REQUEUE, STOP_SIGNALS, leave_on_signals, signals_held, stop_requests


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_signal_is_the_request_and_the_handlers_are_put_back(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {each: signal.getsignal(each) for each in STOP_SIGNALS}
    passed: list[int] = []
    with stop_requests(pass_on=passed.append) as request:
        assert not request
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)
        assert request
        assert request.signal == number
    assert passed == [number, signal.SIGTERM]
    assert {each: signal.getsignal(each) for each in STOP_SIGNALS} == before
    assert capsys.readouterr().err.startswith(f"{signal.Signals(number).name}: stopping after this step")


def test_a_second_ctrl_c_breaks_off_unless_it_is_the_first_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with stop_requests(talk=False):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # at once: a launcher repeated what the terminal sent
        monkeypatch.setattr(interrupts, "SECONDS_TO_SECOND_INTERRUPT", 0.0)
        time.sleep(0.01)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_other_threads_are_asked_nothing() -> None:
    heard: list[bool] = []

    def work() -> None:
        with leave_on_signals(), stop_requests() as request:
            heard.append(bool(request))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == [False]


def test_before_training_a_schedulers_signal_asks_to_be_started_again_but_keeps_a_handler_that_is_there() -> None:
    with pytest.raises(SystemExit) as left, leave_on_signals():
        signal.raise_signal(signal.SIGTERM)
    assert left.value.code == REQUEUE
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    own: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: own.append(number))
    try:
        with leave_on_signals():
            signal.raise_signal(signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert own == [signal.SIGUSR2]


def test_a_process_started_while_signals_are_held_never_sees_them() -> None:
    with signals_held():
        child = subprocess.Popen(
            [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(0.5)"], stdout=-1
        )
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"
    for number in STOP_SIGNALS:
        os.kill(child.pid, number)
    child.stdout.close()
    assert child.wait() == 0
