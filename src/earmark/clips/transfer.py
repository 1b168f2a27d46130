"""Copying batches to the device while it works on the one before.

Path of a sample: batch in memory --transfer--> batch on the device; `earmark.clips.loading` decides when.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["arrived", "copy_stream", "send"]


def copy_stream(device: torch.device) -> torch.cuda.Stream | None:
    """Return a stream for copies to a CUDA device; None for any other device."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


def send(
    batch: Mapping[str, Tensor], device: torch.device, stream: torch.cuda.Stream | None
) -> tuple[dict[str, Tensor], torch.cuda.Event | None]:
    """Begin to copy a batch to the device; the event marks its end.

    What is on the device already is not copied, and names of one tensor stay names of one.
    """
    copies: dict[int, Tensor] = {}
    if stream is None:
        return {name: copies.setdefault(id(x), x.to(device)) for name, x in batch.items()}, None
    with torch.cuda.stream(stream):
        for tensor in batch.values():
            if id(tensor) not in copies:
                copies[id(tensor)] = tensor.to(device, non_blocking=True)
        return {name: copies[id(tensor)] for name, tensor in batch.items()}, stream.record_event()


def arrived(batch: dict[str, Tensor], event: torch.cuda.Event | None) -> dict[str, Tensor]:
    """Let the work that the caller queues from now on wait for the copy, not the caller itself."""
    if event is not None:
        caller = torch.cuda.current_stream(next(iter(batch.values())).device)
        caller.wait_event(event)
        for tensor in batch.values():
            tensor.record_stream(caller)  # its memory belongs to the other stream, which must not reuse it too early
    return batch
