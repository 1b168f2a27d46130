"""From a data set's keys to batches on the device, read ahead by worker processes.

Path of a sample: clips (+ sampling) --loading--> batch on the device --transforms--> model inputs.

Worker processes decode pictures straight into memory that they share with the caller (`earmark.clips.ring`), for a GPU
pinned memory, from which a batch is copied to the device while it works on the one before: nothing is pickled or copied
on the way. Data sets that can't be read row by row are read by threads, which Python's lock holds to the speed of two
or three processors.
"""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor

from earmark.clips.ring import BATCHES_AHEAD, StartMethod, WorkerLostError, ring_batches
from earmark.clips.ring_worker import RowClips
from earmark.clips.transfer import arrived, copy_stream, send

__all__ = ["WorkerLostError", "load_batches"]

Key = tuple[int, int]


class Clips(Protocol):
    """A map-style data set whose keys are (index, seed); `read_batch`, if it has one, reads a batch as a whole."""

    def __getitem__(self, key: Key, /) -> Mapping[str, Any]: ...


def load_batches(
    clips: Clips,
    batches: Iterable[list[Key]],
    *,
    collate_fn: Callable[[list[Any]], dict[str, Tensor]],
    num_workers: int,
    device: torch.device,
    start_method: StartMethod | None = None,
) -> Generator[dict[str, Tensor], None, None]:
    """Yield batches on the device, in the order asked for, the same whatever the number of workers.

    An error in a sample is raised when its batch is asked for, as the data set raised it. Closing the iterator ends
    the workers; so does the end of this process, whatever ended it.

    Workers are processes for a data set that is read row by row (`earmark.clips.ring_worker.RowClips`, as `MomentClips`
    and `ActionClips` are), else threads; threads, too, on Windows and in processes that may not start others. A
    script that loads with processes must do so below ``if __name__ == "__main__":``, as always with Python's
    multiprocessing. A batch's memory is used again when the caller has let go of its tensors, and not before.

    Args:
        clips: The data set, such as `earmark.clips.dataset.MomentClips`.
        batches: The keys of each batch.
        collate_fn: Makes a batch of a list of samples, for a data set that is not read row by row or batch by batch.
        num_workers: Workers that read and decode; 0 reads in the calling thread when a batch is asked for.
        device: Where the batches go. To a CUDA device they are copied from pinned memory on a stream of their own.
        start_method: How processes are started; None for what the program has set by
            `multiprocessing.set_start_method`, unless that is ``fork``, and else ``forkserver``. ``fork`` is for
            programs that can't be imported, and safe only as long as they have no other threads.

    Yields:
        The tensors of each batch by name.

    Raises:
        WorkerLostError: If a worker process is killed or does not start.

    Example:
        >>> from earmark.clips.dataset import collate
        >>> squares = {(k, 0): {"index": k * k} for k in range(4)}
        >>> loaded = load_batches(
        ...     squares, [[(0, 0), (3, 0)], [(2, 0)]], collate_fn=collate, num_workers=2, device=torch.device("cpu")
        ... )
        >>> [batch["index"].tolist() for batch in loaded]
        [[0, 9], [4]]
    """
    if num_workers and isinstance(clips, RowClips) and _can_start_processes():
        yield from ring_batches(clips, batches, num_workers=num_workers, device=device, start_method=start_method)
        return
    stream = copy_stream(device)
    read = partial(_read_batch, clips, collate_fn, stream is not None)
    if num_workers == 0:
        for keys in batches:
            yield arrived(*send(read(keys, map), device, stream))
        return
    rows = ThreadPoolExecutor(num_workers, "earmark-read")
    # These wait for the rows of their batch, and copy it. Pinned memory belongs to the current device of its thread,
    # which is the first one by default: every rank would take some of the first GPU's memory.
    on_device = partial(torch.cuda.set_device, stream.device) if stream else None
    ahead = ThreadPoolExecutor(BATCHES_AHEAD, "earmark-batch", initializer=on_device)
    try:
        keys_left = iter(batches)

        def submit(keys: list[Key]) -> Future[tuple[dict[str, Tensor], torch.cuda.Event | None]]:
            return ahead.submit(lambda: send(read(keys, rows.map), device, stream))

        waiting = deque(submit(keys) for keys in islice(keys_left, BATCHES_AHEAD))
        while waiting:
            batch = waiting.popleft().result()
            waiting.extend(submit(keys) for keys in islice(keys_left, 1))
            yield arrived(*batch)
    finally:
        ahead.shutdown(wait=False, cancel_futures=True)
        rows.shutdown(cancel_futures=True)
        ahead.shutdown()


def _read_batch(
    clips: Clips,
    collate_fn: Callable[[list[Any]], dict[str, Tensor]],
    pin_memory: bool,
    keys: list[Key],
    run: Callable[..., Iterable[Any]],
) -> dict[str, Tensor]:
    """Read a batch; `run` is `map`, or that of a pool."""
    if hasattr(clips, "read_batch"):
        batch: dict[str, Tensor] = clips.read_batch(keys, run=run, pin_memory=pin_memory)
        return batch
    batch = collate_fn(list(run(clips.__getitem__, keys)))
    return {name: tensor.pin_memory() for name, tensor in batch.items()} if pin_memory else batch


def _can_start_processes() -> bool:
    return os.name == "posix" and not multiprocessing.current_process().daemon
