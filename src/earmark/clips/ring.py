"""Batches read ahead by worker processes, straight into a ring of shared memory.

Path of a sample: data set --ring--> batch on the device; `earmark.clips.loading` is the way in. The caller's side has
no threads: between two batches nothing here competes with the caller for the interpreter. It hands rows of the next
batches out to the workers (`earmark.clips.ring_worker`) and, when a batch is asked for, waits for the last of its rows.

The memory has no name and the pipes end with the processes that hold them, so nothing is left behind by a process that
is killed: workers see the end of their caller, the caller that of a worker.
"""

import contextlib
import itertools
import multiprocessing
import os
import pickle
import selectors
import signal
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.connection import Connection
from typing import Any, Literal

import torch
from torch import Tensor

from earmark.clips.fork_server import ensure_fork_server
from earmark.clips.ring_memory import RingMemory, Slot, whole_pages
from earmark.clips.ring_worker import (
    DONE_FORMAT,
    IGNORED_SIGNALS,
    TASK_FORMAT,
    Descriptor,
    Done,
    RowClips,
    Task,
    WorkerArguments,
    in_hand,
    work,
)
from earmark.clips.transfer import arrived, copy_stream, send

__all__ = ["BATCHES_AHEAD", "StartMethod", "WorkerLostError", "ring_batches"]

BATCHES_AHEAD = 2  # read while one is used: enough to even out slow reads, and memory does not grow with the workers
MAX_PINNED_SLOTS = 4  # those ahead, one that is copied and one whose copy has not been seen to end
MAX_ROWS_OF_TASK, MAX_TASKS_OF_BATCH = 8, 256
SECONDS_TO_END, SECONDS_TO_DIE = 1.0, 5.0  # until workers are killed, and until those are given up
NUM_RESTARTS = 3
SMALL_ROW_BYTES = 64  # numbers that somebody may keep; they must not keep the pictures' memory with them

StartMethod = Literal["fork", "forkserver", "spawn"]
Key = Any

_rings: "weakref.WeakSet[_Ring]" = weakref.WeakSet()


class WorkerLostError(RuntimeError):
    """A loader process ended that should not have; the message says which, how, and what it was reading."""


@dataclass(eq=False)
class _Batch:
    """A batch that workers are reading, or have read."""

    number: int
    visits: list[tuple[int, int]]
    slot: Slot | None = None  # None where the keys were wrong already
    size: tuple[int, int] = (0, 0)
    num_rows_left: int = 0
    num_failed: int = 0
    errors: list[tuple[int, BaseException]] = field(default_factory=list)
    sent: tuple[dict[str, Tensor], torch.cuda.Event | None] | None = None

    @property
    def is_read(self) -> bool:
        return self.num_rows_left == 0 and self.num_failed == len(self.errors)


@dataclass(eq=False)
class _Worker:
    """A worker process, as the caller sees it."""

    number: int
    process: Any
    pid: int
    told: Connection
    is_ready: bool = False
    has_ended: bool = False


def ring_batches(
    clips: RowClips,
    batches: Iterable[list[Key]],
    *,
    num_workers: int,
    device: torch.device,
    start_method: StartMethod | None = None,
) -> Generator[dict[str, Tensor], None, None]:
    """Yield batches on the device, read by worker processes; see `earmark.clips.loading.load_batches`.

    Raises:
        WorkerLostError: If a worker is killed or does not start.
    """
    ring = _Ring(clips, num_workers=num_workers, device=device, start_method=start_method)
    try:
        yield from ring.batches(iter(batches))
    finally:
        ring.close()


class _Ring:
    def __init__(
        self, clips: RowClips, *, num_workers: int, device: torch.device, start_method: StartMethod | None
    ) -> None:
        self._clips, self._num_workers, self._device = clips, num_workers, device
        self._stream = copy_stream(device)
        self._pid, self._is_closed = os.getpid(), False
        self._starting: tuple[int, Connection] | None = None  # the thread that starts a worker, and what it will tell
        self._workers: list[_Worker] = []
        self._ahead: deque[_Batch] = deque()
        self._numbers = itertools.count()
        self._unsent: deque[bytes] = deque()
        self._selector = selectors.PollSelector()  # needs no descriptor, which a fork would inherit
        # At exit, before multiprocessing waits for all children, which would wait for tasks.
        self._at_exit = util.Finalize(None, _close_at_exit, args=(weakref.ref(self),), exitpriority=100)
        method = start_method or _default_start_method()
        if method == "forkserver":  # has no effect where the program has started that server already
            forkserver.set_forkserver_preload(["earmark.clips.dataset", "earmark.clips.ring_worker"])
        self._context: Any = multiprocessing.get_context(method)
        self._restarts_left = NUM_RESTARTS
        tasks, tasks_to, done_from, done = map(Descriptor, (*os.pipe(), *os.pipe()))
        self._memory = RingMemory(device, self._stream)
        self._ends, self._worker_ends = [tasks_to, done_from], [tasks, done]
        self._tasks, self._done = tasks_to, done_from
        _rings.add(self)
        try:
            for end in self._ends:
                os.set_blocking(end.fileno(), False)
            self._share(inherited=method == "fork")
            for number in range(num_workers):
                self._start(number)
            self._selector.register(self._done.fileno(), selectors.EVENT_READ, self._read_done)
        except BaseException:
            self.close()
            raise

    # -- Start and end ------------------------------------------------------------------------------------------------

    def _share(self, *, inherited: bool) -> None:
        """Put what all workers have in hand, and the data set unless they inherit it, at the memory's beginning."""
        pickled = b""
        if not inherited:
            try:
                pickled = pickle.dumps(self._clips, protocol=5)
            except Exception as error:
                name = type(self._clips).__name__
                raise ValueError(
                    f"{name} can't be handed to loader processes: {error}; num_workers=0 or start_method='fork' "
                    "does without that"
                ) from error
        start = whole_pages(16 * self._num_workers)
        header = self._memory.first(start + len(pickled))
        header[start : start + len(pickled)] = pickled
        self._in_hand = in_hand(header, self._num_workers)
        self._pickled = (start, start + len(pickled))
        self._inherited = self._clips if inherited else None

    def _start(self, number: int) -> None:
        told_from, told = multiprocessing.Pipe(duplex=False)
        tasks, done = self._worker_ends
        arguments = WorkerArguments(
            number=number,
            num_workers=self._num_workers,
            caller=self._pid,
            clips=self._inherited,
            pickled=self._pickled,
            memory=self._memory.descriptor,
            tasks=tasks,
            done=done,
            told=told,
        )
        process = self._context.Process(target=work, args=(arguments,), name=f"earmark-loader-{number}", daemon=True)
        self._starting = threading.get_ident(), told_from
        try:
            with _signals_held(self._context.get_start_method()):
                process.start()
        except (EOFError, ConnectionError) as error:
            raise WorkerLostError(f"loader worker {number} could not be started: the fork server ended") from error
        finally:
            self._starting = None
            told.close()
        worker = _Worker(number, process, process.pid, told_from)
        self._workers.append(worker)
        self._selector.register(told_from.fileno(), selectors.EVENT_READ, partial(self._read_told, worker))

    def close(self) -> None:
        """End the workers, those that do not end by themselves by force, and give the memory back."""
        if self._is_closed or self._pid != os.getpid():
            return
        self._is_closed = True
        self._at_exit.cancel()
        for end in (*self._ends, *self._worker_ends):
            end.close()  # a worker finds nobody to take what it has read, at the latest after the rows in hand
        for seconds in (SECONDS_TO_END, SECONDS_TO_DIE):
            self._wait_for_ends(seconds)
            for worker in self._workers:
                if not worker.has_ended:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker.pid, signal.SIGKILL)
        for worker in self._workers:
            worker.told.close()
            worker.process.join(SECONDS_TO_DIE)
            with contextlib.suppress(ValueError):  # it hangs in the kernel
                worker.process.close()
        self._selector.close()
        self._memory.close()
        self._ahead.clear()

    def _wait_for_ends(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        with selectors.PollSelector() as selector:
            for worker in self._workers:
                if not worker.has_ended:
                    selector.register(worker.told, selectors.EVENT_READ, worker)
            while selector.get_map() and (left := deadline - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    # bytes, not messages: a worker may be killed, or stand still, in the middle of one
                    if not os.read(key.fd, 1 << 16):
                        key.data.has_ended = True
                        selector.unregister(key.fileobj)

    def abandon(self) -> None:
        """In a process forked from the caller's: let go of what would keep workers from seeing the caller's end."""
        thread, told_from = self._starting or (None, None)
        is_worker = thread == threading.get_ident()
        for end in self._ends if is_worker else (*self._ends, *self._worker_ends, self._memory.descriptor):
            end.close()
        for told in (told_from, *(worker.told for worker in self._workers)):
            if told is not None:
                told.close()

    # -- Messages -----------------------------------------------------------------------------------------------------

    def _collect(self, seconds: float | None) -> None:
        """Take in what workers have said, waiting for some of it so long; None for as long as it takes."""
        for key, _ in self._selector.select(seconds):
            key.data()

    def _read_done(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for message in DONE_FORMAT.iter_unpack(os.read(self._done.fileno(), 64 * DONE_FORMAT.size)):
                done = Done(*message)
                batch = self._batch(done.batch)
                batch.num_rows_left -= done.num_rows
                batch.num_failed += done.num_failed

    def _read_told(self, worker: _Worker) -> None:
        try:
            told = worker.told.recv()
        except (EOFError, OSError):
            self._lost(worker)
            return
        if told is None:
            worker.is_ready = True
            return
        number, row, pickled = told
        error = pickle.loads(pickled)
        if number >= 0:
            self._batch(number).errors.append((row, error))
            return
        name = type(self._clips).__name__
        raise WorkerLostError(f"loader worker {worker.number} can't read {name}: {error}") from error

    def _batch(self, number: int) -> _Batch:
        return next(batch for batch in self._ahead if batch.number == number)

    def _lost(self, worker: _Worker) -> None:
        """Raise for a worker that is gone, unless one that only a signal to all processes ended can be replaced."""
        worker.has_ended = True
        self._selector.unregister(worker.told.fileno())
        worker.process.join(SECONDS_TO_DIE)
        code = worker.process.exitcode
        by_signal = code == 255 or (code is not None and code < 0)  # 255: the fork server, which would know, is gone
        if not worker.is_ready and by_signal and code != -signal.SIGKILL and self._restarts_left:
            self._restarts_left -= 1
            self._workers.remove(worker)
            worker.told.close()
            with warnings.catch_warnings():  # the signal has ended Python's tracker of resources, too, which holds none
                warnings.filterwarnings("ignore", "resource_tracker: process died unexpectedly")
                self._start(worker.number)
            return
        raise WorkerLostError(f"loader worker {worker.number} (process {worker.pid}) {self._ending(worker, code)}")

    def _ending(self, worker: _Worker, code: int | None) -> str:
        how = f"ended with exit code {code}" if code not in (None, 255) else "ended"
        if code is not None and code < 0:
            names = {int(each): each.name for each in signal.Signals}
            how = f"was killed by {names.get(-code, f'signal {-code}')}"
        if code == -signal.SIGKILL:
            how += " (by somebody, or because memory ran out)"
        if not worker.is_ready:
            return (
                f"{how} before it could read. Did the program's main module start to load batches when the worker "
                "imported it? A script must do so below `if __name__ == '__main__':` only, or with num_workers=0"
            )
        number, row = self._in_hand[worker.number].tolist()
        batch = next((batch for batch in self._ahead if batch.number == number - 1), None)
        if batch is None:
            return f"{how}; it was not reading"
        index, seed = batch.visits[row]
        return f"{how} while it read sample {index}: {self._clips.describe(index, seed)}"

    # -- Batches ------------------------------------------------------------------------------------------------------

    def batches(self, keys_left: Iterator[list[Key]]) -> Generator[dict[str, Tensor], None, None]:
        """Yield the batches; it is this object's only user."""
        self._publish(keys_left)
        while self._ahead:
            self._collect(0)
            while not self._ahead[0].is_read:
                self._collect(None)
            batch = self._ahead.popleft()
            if batch.errors:
                raise min(batch.errors, key=lambda place: place[0])[1]
            self._send(batch)
            self._publish(keys_left)
            if self._stream is not None and self._ahead and self._ahead[0].is_read and not self._ahead[0].errors:
                self._send(self._ahead[0])
            assert batch.sent is not None
            sent, batch.sent = batch.sent, None
            yield arrived(*sent)
            del sent, batch  # the memory is the caller's alone
            self._publish(keys_left)

    def _publish(self, keys_left: Iterator[list[Key]]) -> None:
        """Hand out the next batches, as far as there is room."""
        while sum(batch.sent is None for batch in self._ahead) < BATCHES_AHEAD:
            free = [slot for slot in self._memory.slots if slot.is_free() and not self._is_ahead(slot)]
            if self._stream is not None and not free and len(self._memory.slots) >= MAX_PINNED_SLOTS:
                break  # its copies will have ended when the next batch is asked for
            keys = next(keys_left, None)
            if keys is None:
                break
            self._ahead.append(self._begun(keys, free))
        self._write_tasks()

    def _is_ahead(self, slot: Slot) -> bool:
        return any(batch.slot is slot for batch in self._ahead)

    def _begun(self, keys: list[Key], free: list[Slot]) -> _Batch:
        """Queue the tasks of a batch; keys that mean nothing are told when it is asked for."""
        try:
            visits = [self._clips.visit(key) for key in keys]
            size = self._clips.picture_size([index for index, _ in visits])
        except Exception as error:
            return _Batch(next(self._numbers), [], num_failed=1, errors=[(0, error)])
        num_rows = len(keys)
        slot = next((slot for slot in free if slot.capacity >= num_rows), None)
        if slot is None:
            slot = self._memory.new_slot(self._clips, num_rows)
        slot.lent, slot.copied = [], None
        batch = _Batch(next(self._numbers), visits, slot, size, num_rows)
        arrays = slot.layout.arrays(slot.memory, self._clips.row_shapes(size), num_rows)
        arrays["index"][:], arrays["seed"][:] = zip(*visits, strict=True)
        step = max(-(-num_rows // MAX_TASKS_OF_BATCH), min(MAX_ROWS_OF_TASK, num_rows // (4 * self._num_workers)), 1)
        for first in range(0, num_rows, step):
            stop = min(first + step, num_rows)
            task = Task(batch.number, slot.offset, slot.capacity, num_rows, first, stop, *size)
            self._unsent.append(TASK_FORMAT.pack(*task))
        return batch

    def _write_tasks(self) -> None:
        """Write as many tasks as the pipe takes, and have the rest written when workers have taken some."""
        number = self._tasks.fileno()
        try:
            while self._unsent:
                os.write(number, self._unsent[0])
                self._unsent.popleft()
        except BlockingIOError:
            pass
        is_registered = number in self._selector.get_map()
        if self._unsent and not is_registered:
            self._selector.register(number, selectors.EVENT_WRITE, self._write_tasks)
        elif not self._unsent and is_registered:
            self._selector.unregister(number)

    def _send(self, batch: _Batch) -> None:
        """Begin to copy a batch to the device, unless that has begun; on the CPU it stays where it was read."""
        slot = batch.slot
        if batch.sent is not None or slot is None:
            return
        arrays = slot.layout.arrays(slot.memory, self._clips.row_shapes(batch.size), len(batch.visits))
        slot.lent = [weakref.ref(array) for array in arrays.values()]
        tensors = {}
        for name, array in arrays.items():
            # From memory that is not pinned, a copy to a GPU would have the caller wait for those before it.
            may_be_kept = self._stream is None and array.nbytes <= SMALL_ROW_BYTES * len(array)
            tensors[name] = torch.from_numpy(array.copy() if may_be_kept else array)
        tensors |= {name: tensors[clip] for name, clip in self._clips.same_clips.items()}
        batch.sent = send(tensors, self._device, self._stream)
        slot.copied = batch.sent[1]


def _default_start_method() -> StartMethod:
    """Return how workers are started: as the program has set, or from a server that has imported what they need."""
    chosen = multiprocessing.get_start_method(allow_none=True)
    if chosen in ("spawn", "forkserver"):  # "fork" is also what multiprocessing itself writes down at its first use
        return "spawn" if chosen == "spawn" else "forkserver"
    return "forkserver"


@contextlib.contextmanager
def _signals_held(start_method: StartMethod) -> Iterator[None]:
    """Hold back signals that ask to stop: a process that is started in the block gets none before it ignores them."""
    if start_method != "fork":
        resource_tracker.ensure_running()  # which would let signals through when started with the first process
    if start_method == "forkserver":
        ensure_fork_server()  # what others start from it must not be deaf to signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [getattr(signal, name) for name in IGNORED_SIGNALS])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _close_at_exit(reference: "weakref.ref[_Ring]") -> None:
    ring = reference()
    if ring is not None:
        ring.close()


def _after_fork() -> None:
    for ring in list(_rings):
        ring.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
