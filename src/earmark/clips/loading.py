"""From a data set's keys to batches on the device, read ahead by threads.

Path of a sample: clips (+ sampling) --loading--> batch on the device --transforms--> model inputs.

Reading a sample is a system call and a few JPEG decodes, both of which let other threads run, so threads do what loader
processes would, without the cost of handing every batch from one process to the other: pictures are decoded straight
into the batch, for a GPU in pinned memory, and copied from there to the device while it works on the batch before.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["load_batches"]

BATCHES_AHEAD = 2  # read while one is used: enough to even out slow reads, and memory does not grow with the threads

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
) -> Generator[dict[str, Tensor], None, None]:
    """Yield batches on the device, in the order asked for, whatever the number of threads.

    An error in a sample is raised when its batch is asked for, as the data set raised it. Closing the iterator ends
    the threads.

    Args:
        clips: The data set, such as `earmark.clips.dataset.MomentClips`.
        batches: The keys of each batch.
        collate_fn: Makes a batch of a list of samples, for a data set without `read_batch`.
        num_workers: Threads that read and decode; 0 reads in the calling thread when a batch is asked for.
        device: Where the batches go. To a CUDA device they are copied from pinned memory on a stream of their own.

    Yields:
        The tensors of each batch by name.

    Example:
        >>> from earmark.clips.dataset import collate
        >>> squares = {(k, 0): {"index": k * k} for k in range(4)}
        >>> loaded = load_batches(
        ...     squares, [[(0, 0), (3, 0)], [(2, 0)]], collate_fn=collate, num_workers=2, device=torch.device("cpu")
        ... )
        >>> [batch["index"].tolist() for batch in loaded]
        [[0, 9], [4]]
    """
    pin_memory = device.type == "cuda"
    stream = torch.cuda.Stream(device) if pin_memory else None  # type: ignore[no-untyped-call]
    read = partial(_read_batch, clips, collate_fn, pin_memory)
    if num_workers == 0:
        for keys in batches:
            yield _arrived(*_send(read(keys, map), device, stream))
        return
    rows = ThreadPoolExecutor(num_workers, "earmark-read")
    # These wait for the rows of their batch, and copy it. Pinned memory belongs to the current device of its thread,
    # which is the first one by default: every rank would take some of the first GPU's memory.
    on_device = partial(torch.cuda.set_device, stream.device) if stream else None
    ahead = ThreadPoolExecutor(BATCHES_AHEAD, "earmark-batch", initializer=on_device)
    try:
        keys_left = iter(batches)

        def submit(keys: list[Key]) -> Future[tuple[dict[str, Tensor], torch.cuda.Event | None]]:
            return ahead.submit(lambda: _send(read(keys, rows.map), device, stream))

        waiting = deque(submit(keys) for keys in islice(keys_left, BATCHES_AHEAD))
        while waiting:
            batch = waiting.popleft().result()
            waiting.extend(submit(keys) for keys in islice(keys_left, 1))
            yield _arrived(*batch)
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


def _send(
    batch: dict[str, Tensor], device: torch.device, stream: torch.cuda.Stream | None
) -> tuple[dict[str, Tensor], torch.cuda.Event | None]:
    """Begin to copy a batch to the device; the event marks its end."""
    if stream is None:
        return {name: tensor.to(device) for name, tensor in batch.items()}, None
    with torch.cuda.stream(stream):
        sent = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
        return sent, stream.record_event()


def _arrived(batch: dict[str, Tensor], event: torch.cuda.Event | None) -> dict[str, Tensor]:
    """Let the work that the caller queues from now on wait for the copy, not the caller itself."""
    if event is not None:
        caller = torch.cuda.current_stream(next(iter(batch.values())).device)
        caller.wait_event(event)
        for tensor in batch.values():
            tensor.record_stream(caller)  # its memory belongs to the other stream, which must not reuse it too early
    return batch
