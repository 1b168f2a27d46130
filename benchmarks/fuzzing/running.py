"""Try one damaged input in a process of its own, under limits of memory, time and disk, and say what became of it.

A worker makes what is undamaged once, then forks for each input, so that an input costs no imports, and what kills,
hangs or fills one process is counted and costs nothing else.
"""

import faulthandler
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OUTCOMES = ("accepted", "refused", "nameless", "traceback", "signal", "hang", "memory", "disk", "wrong")
HEADINGS = (
    "accepted",
    "refused by name",
    "refused without a name",
    "traceback",
    "signal",
    "hang",
    "memory over 1 GB",
    "disk over 256 MB",
    "wrong taken for right",
)
FINE = ("accepted", "refused")
MAX_BYTES = 1 << 30
MAX_DISK_BYTES = 256 << 20
WALL_FACTOR = 12  # other work on the machine must not look like a hang
POLL_SECONDS = 0.01


class WrongError(Exception):
    """A damaged input was taken for a good one: what came of it is neither what is there nor a fault with a name."""


class UnhandledError(Exception):
    """A command printed a traceback, or ended with a code that it does not have."""


@dataclass(frozen=True, slots=True)
class Input:
    """One damaged input, made and ready to be tried.

    Attributes:
        what: How it was damaged, in words.
        attempt: Reads it; raises what the code under test raises, or `WrongError`.
        names: A refusal must hold one of these.
    """

    what: str
    attempt: Callable[[], None]
    names: tuple[str, ...]


class Kind(ABC):
    """A kind of input."""

    name: str

    @abstractmethod
    def make(self, folder: Path) -> None:
        """Make what is undamaged, and learn what it holds; the same in every process."""

    @abstractmethod
    def damaged(self, draw: random.Random, folder: Path) -> Input:
        """Write one damaged input below an empty folder; a function of the draws alone."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one input."""

    kind: str
    number: int
    outcome: str
    what: str
    detail: str
    cpu_seconds: float
    num_bytes: int

    @property
    def group(self) -> tuple[str, str, str]:
        """What it has in common with others of the same cause."""
        return self.kind, self.outcome, self.detail.strip().rpartition("\n")[2][:100]


def tried(kind: Kind, seed: int, numbers: Sequence[int], scratch: Path, *, cpu_seconds: int) -> Iterator[Outcome]:
    """Try inputs by their numbers, each in a process of its own."""
    for number in numbers:
        folder = scratch / f"{kind.name}-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "inside").mkdir(parents=True)
        yield _outcome(kind, seed, number, folder, cpu_seconds)
        shutil.rmtree(folder, ignore_errors=True)


def damaged_input(kind: Kind, seed: int, number: int, folder: Path) -> Input:
    return kind.damaged(random.Random(f"{seed}/{kind.name}/{number}"), folder)


def _outcome(kind: Kind, seed: int, number: int, folder: Path, cpu_seconds: int) -> Outcome:
    child = os.fork()
    if child == 0:
        _in_child(kind, seed, number, folder, cpu_seconds)
    usage, status, killed_for, num_bytes = _watched(child, folder, time.monotonic() + WALL_FACTOR * cpu_seconds)
    try:
        said: dict[str, Any] = json.loads((folder / "said.json").read_text())
    except (OSError, ValueError):
        said = {}
    what, outcome, detail = said.get("what", "not made"), said.get("outcome"), said.get("detail", "")
    num_bytes = max(num_bytes, usage.ru_maxrss * 1024)
    if os.WIFSIGNALED(status):
        number_of_signal = os.WTERMSIG(status)
        detail = f"{_crashed_at(folder)}\n{signal.Signals(number_of_signal).name}"
        is_late = usage.ru_utime + usage.ru_stime >= cpu_seconds
        # The kernel sends SIGXCPU, and SIGKILL a second later.
        is_out_of_time = number_of_signal == signal.SIGXCPU or (number_of_signal == signal.SIGKILL and is_late)
        outcome = killed_for or ("hang" if is_out_of_time else "signal")
    elif outcome is None:
        outcome, detail = "signal", f"left with {os.waitstatus_to_exitcode(status)} and said nothing"
    elif num_bytes > MAX_BYTES:
        outcome = "memory"
    elif _written_bytes(folder) > MAX_DISK_BYTES - (1 << 16):
        outcome = "disk"
    elif outcome in FINE and (escaped := sorted({p.name for p in folder.iterdir()} - {"inside", "said.json", "crash"})):
        outcome, detail = "wrong", f"written outside its folder: {escaped}"
    return Outcome(kind.name, number, outcome, what, detail, usage.ru_utime + usage.ru_stime, num_bytes)


def _crashed_at(folder: Path) -> str:
    """Return where python was when a signal came, as `faulthandler` wrote it."""
    try:
        return (folder / "crash").read_text()[:2000]
    except OSError:
        return ""


def _in_child(kind: Kind, seed: int, number: int, folder: Path, cpu_seconds: int) -> None:
    """Try an input, write down what happened, and leave; never returns."""
    os.setpgid(0, 0)
    silence = os.open(folder / "inside" / ".printed", os.O_RDWR | os.O_CREAT)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    said = {"what": "not made"}
    crash = (folder / "crash").open("w")  # stays open as long as the process
    faulthandler.enable(crash)
    try:
        damaged = damaged_input(kind, seed, number, folder / "inside")
        said["what"] = damaged.what
        (folder / "said.json").write_text(json.dumps(said))
        _limit(cpu_seconds)
        os.chdir(folder / "inside")
        said["outcome"], said["detail"] = judged(damaged)
    except BaseException:
        said["outcome"], said["detail"] = "traceback", f"the fuzzer itself: {traceback.format_exc()}"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    (folder / "said.json").write_text(json.dumps(said))
    os._exit(0)


def judged(damaged: Input) -> tuple[str, str]:
    """Try an input in this process; return the outcome and what tells it from others."""
    try:
        damaged.attempt()
    except WrongError as error:
        return "wrong", str(error)
    except MemoryError as error:
        return "memory", _told(error)
    except Exception as error:
        own = type(error).__module__.startswith("earmark.")
        if isinstance(error, UnhandledError) or not (own or isinstance(error, ValueError | OSError)):
            return "traceback", _told(error)
        message = str(error)
        advice = "weights_only" in message and "False" in message
        named = any(name in message for name in damaged.names) and not advice
        return ("refused" if named else "nameless"), _told(error)
    return "accepted", ""


def _told(error: BaseException) -> str:
    """Return an error with its traceback; the last line tells it from others: its type, place and beginning."""
    frames = traceback.extract_tb(error.__traceback__)
    inner = [frame for frame in frames if "/earmark/" in frame.filename] or frames
    place = f"{Path(inner[-1].filename).name}:{inner[-1].name}" if inner else ""
    text = "".join(traceback.format_exception(error))[-3000:]
    message = re.sub(r"/[^ ]*/", "", str(error))[:70]
    return f"{text}\n{type(error).__name__} in {place}: {message!r}"


def _limit(cpu_seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_DISK_BYTES, resource.RLIM_INFINITY))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _watched(child: int, folder: Path, deadline: float) -> tuple[Any, int, str | None, int]:
    """Wait for a process and kill its group if it takes too much; return usage, status, what for, most memory seen."""
    killed_for, most = None, 0
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            _kill_group(child)  # what it may have started
            return usage, status, killed_for, most
        most = max(most, _resident_bytes(child))
        if killed_for is None and (most > MAX_BYTES or time.monotonic() > deadline):
            killed_for = "memory" if most > MAX_BYTES else "hang"
            _kill_group(child)
        time.sleep(POLL_SECONDS)


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _resident_bytes(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):  # has ended, or not Linux: the usage at the end is left
        return 0


def _written_bytes(folder: Path) -> int:
    total = 0
    for base, _, names in os.walk(folder):
        total += sum(os.lstat(os.path.join(base, name)).st_size for name in names)  # noqa: PTH118 - names may be odd
    return total


def run_command(arguments: Sequence[str], printed: Path) -> tuple[int, str, str]:
    """Run `earmark` in this process; return the code and what it printed on standard output and error."""
    import contextlib
    import io

    from earmark.cli.main import main

    # What the library and others print goes to sys.stdout; bytes, as a terminal or a pipe would get them.
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode("utf-8", "backslashreplace"))  # type: ignore[attr-defined]
    if "Traceback (most recent call last)" in texts[1] or code not in (0, 1, 2):
        raise UnhandledError(f"code {code}: {texts[1].strip()[-300:]}")
    return code, texts[0], texts[1]


def on_one_thread() -> None:
    """Have the libraries start no threads, which a fork would lose."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ARROW_NUM_THREADS"):
        os.environ[name] = "1"
    if "torch" in sys.modules:
        raise RuntimeError("call this before torch is imported")
