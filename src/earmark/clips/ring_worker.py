"""What a worker process of the loader does: read rows of batches into memory that it shares with the caller.

Beside the path of a sample: `earmark.clips.ring` starts these processes, hands out rows and takes batches. Messages are
of one size each and shorter than what a pipe takes or gives as a whole (PIPE_BUF), so that all workers can take their
tasks from one pipe and report to another without a lock, which one that is killed would keep.
"""

import contextlib
import mmap
import os
import pickle
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import DupFd
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

__all__ = [
    "DONE_FORMAT",
    "IGNORED_SIGNALS",
    "TASK_FORMAT",
    "Descriptor",
    "Done",
    "RowClips",
    "SlotLayout",
    "Task",
    "WorkerArguments",
    "in_hand",
    "work",
]

WATCH_SECONDS = 0.5
TASK_FORMAT, DONE_FORMAT = struct.Struct("=8q"), struct.Struct("=3q")
IGNORED_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")

RowShapes = Mapping[str, tuple[tuple[int, ...], npt.DTypeLike]]


@runtime_checkable
class RowClips(Protocol):
    """A data set whose samples can be read one by one into the rows of a batch that lies ready.

    `earmark.clips.stored_clips.StoredClips` is one.

    Attributes:
        same_clips: Further names of a batch's arrays, each with the name that it is an alias of.
    """

    same_clips: Mapping[str, str]

    def visit(self, key: Any) -> tuple[int, int]:
        """Return the index and the seed that a key means."""

    def picture_size(self, indices: Sequence[int] | None = None) -> tuple[int, int]:
        """Return height and width that hold the pictures of some items; None for all."""

    def row_shapes(self, picture_size: tuple[int, int]) -> RowShapes:
        """Return shape and type of a row of each array of a batch, "index" and "seed" among them."""

    def read_row(self, index: int, seed: int, row: Mapping[str, npt.NDArray[Any]]) -> None:
        """Read a sample into the arrays of a row."""

    def describe(self, index: int, seed: int) -> str:
        """Name a sample for errors."""


class Task(NamedTuple):
    """Rows of a batch to be read; the visits stand in the slot already.

    Attributes:
        batch: Number of the batch.
        offset: Byte of the shared memory at which its slot begins.
        capacity: Rows that the slot has room for.
        num_rows: Rows of the batch.
        first: First row to be read.
        stop: Row after the last.
        height: Of the batch's pictures.
        width: Of the batch's pictures.
    """

    batch: int
    offset: int
    capacity: int
    num_rows: int
    first: int
    stop: int
    height: int
    width: int


class Done(NamedTuple):
    """Rows that a worker is done with.

    Attributes:
        batch: Number of the batch.
        num_rows: How many.
        num_failed: 1 if an error was sent, which ended the task; else 0.
    """

    batch: int
    num_rows: int
    num_failed: int


class Descriptor:
    """A file descriptor that travels to a worker with the arguments of its process.

    Args:
        number: The open descriptor, which this object closes.
    """

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        """Return its number; -1 once closed."""
        return self._number

    def close(self) -> None:
        """Close it, if it is open."""
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (DupFd(self._number),)


def _received(sent: Any) -> Descriptor:
    return Descriptor(sent.detach())


@dataclass(frozen=True)
class SlotLayout:
    """Where the arrays of a batch lie in its slot: each at a place with room for the largest rows.

    Attributes:
        starts: Byte within the slot at which each array begins.
        num_bytes: Size of the slot, whole pages.
    """

    starts: Mapping[str, int]
    num_bytes: int

    @staticmethod
    def of(clips: RowClips, capacity: int) -> "SlotLayout":
        """Return the layout for so many rows of any of the data set's items."""
        starts, end = {}, 0
        for name, (shape, dtype) in clips.row_shapes(clips.picture_size()).items():
            starts[name] = end
            num_bytes = capacity * int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            end += -(-num_bytes // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        return SlotLayout(starts, max(end, mmap.ALLOCATIONGRANULARITY))

    def arrays(self, memory: mmap.mmap, shapes: RowShapes, num_rows: int) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays of a batch; they keep the memory mapped."""
        return {
            name: np.ndarray((num_rows, *shape), dtype, buffer=memory, offset=self.starts[name])
            for name, (shape, dtype) in shapes.items()
        }


def in_hand(memory: mmap.mmap, num_workers: int) -> npt.NDArray[np.int64]:
    """Return what each worker has in hand, int64 (num_workers, 2): number of the batch from 1 on, and the row."""
    return np.ndarray((num_workers, 2), np.int64, buffer=memory)


@dataclass(frozen=True, kw_only=True)
class WorkerArguments:
    """What a worker is given.

    Attributes:
        number: Which worker, from 0 on.
        num_workers: How many there are.
        caller: Process id of the one that it works for.
        clips: The data set, where it was inherited; None where it is pickled in the shared memory.
        pickled: Bytes of the shared memory with the pickled data set, from and to.
        memory: The shared memory.
        tasks: Pipe to take tasks from.
        done: Pipe for what is done.
        told: Pipe of this worker alone, for errors; its end is the end of the worker.
    """

    number: int
    num_workers: int
    caller: int
    clips: RowClips | None
    pickled: tuple[int, int]
    memory: Descriptor
    tasks: Descriptor
    done: Descriptor
    told: Connection


def work(arguments: WorkerArguments) -> None:
    """Read rows until there are no more tasks, or nobody who would take them."""
    for name in IGNORED_SIGNALS:  # one sent to all processes of a run is the caller's to obey, after its step
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_end_with_caller, args=[arguments.caller], name="watch caller", daemon=True).start()
    with contextlib.suppress(BrokenPipeError):  # the caller has closed its ends
        try:
            reader = _Reader(arguments)
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(1)
        except BaseException as error:
            arguments.told.send((-1, 0, _portable(error)))
            os._exit(1)
        arguments.told.send(None)  # ready
        while message := os.read(arguments.tasks.fileno(), TASK_FORMAT.size):
            done = reader.do(Task(*TASK_FORMAT.unpack(message)))
            os.write(arguments.done.fileno(), DONE_FORMAT.pack(*done))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(0)  # taking down an interpreter that has imported torch would keep the caller waiting


class _Reader:
    """Reads rows into the shared memory."""

    def __init__(self, arguments: WorkerArguments) -> None:
        self._descriptor, self._told = arguments.memory.fileno(), arguments.told
        start, stop = arguments.pickled
        header = mmap.mmap(self._descriptor, stop or mmap.ALLOCATIONGRANULARITY)
        self._in_hand = in_hand(header, arguments.num_workers)[arguments.number]
        self._clips: RowClips = arguments.clips or pickle.loads(memoryview(header)[start:stop])
        self._slots: dict[tuple[int, int], tuple[SlotLayout, mmap.mmap]] = {}

    def do(self, task: Task) -> Done:
        """Read the rows of a task up to the first that fails."""
        num_failed = 0
        for row, arrays in self._rows(task):
            self._in_hand[:] = task.batch + 1, row
            try:
                self._clips.read_row(int(arrays["index"]), int(arrays["seed"]), arrays)
            except BaseException as error:
                self._told.send((task.batch, row, _portable(error)))
                num_failed = 1
                break
        self._in_hand[:] = 0
        return Done(task.batch, task.stop - task.first, num_failed)

    def _rows(self, task: Task) -> Iterator[tuple[int, dict[str, npt.NDArray[Any]]]]:
        slot = (task.offset, task.capacity)
        if slot not in self._slots:
            layout = SlotLayout.of(self._clips, task.capacity)
            self._slots[slot] = layout, mmap.mmap(self._descriptor, layout.num_bytes, offset=task.offset)
        layout, memory = self._slots[slot]
        arrays = layout.arrays(memory, self._clips.row_shapes((task.height, task.width)), task.num_rows)
        for row in range(task.first, task.stop):
            yield row, {name: array[row, ...] for name, array in arrays.items()}


def _portable(error: BaseException) -> bytes:
    """Return an exception pickled, with its traceback as a note; one that can't be is told by its type and text."""
    told = "".join(traceback.format_exception(error))
    error.add_note(f"in a loader process:\n{told}")
    try:
        pickled = pickle.dumps(error)
        again = pickle.loads(pickled)
        if type(again) is type(error) and str(again) == str(error):
            return pickled
    except Exception:  # whatever its own methods raise
        pass
    instead = RuntimeError(f"{type(error).__qualname__}: {error}")
    instead.add_note(f"in a loader process:\n{told}")
    return pickle.dumps(instead)


def _end_with_caller(caller: int) -> None:
    """End this process as soon as the one that it works for is gone, whatever it is waiting for."""
    parent = parent_process()
    assert parent is not None  # this is a worker
    # A fork inherits the other end of its brothers' sentinels, so that those alone would keep one another alive.
    is_child = os.getppid() == caller
    while not wait([parent.sentinel], WATCH_SECONDS):
        if is_child and os.getppid() != caller:
            break
    os._exit(1)  # nobody is left to read for
