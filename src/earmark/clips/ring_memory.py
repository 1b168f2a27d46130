"""Memory that the loader's processes share, in slots of one batch each.

Beside the path of a sample: `earmark.clips.ring` has a worker read into a slot and copies batches from it.

The memory has no name: it ends with the last process that holds it. Slots are added as batches need them, and one is
used again when its batch is neither being copied to a GPU nor held by anybody.
"""

import contextlib
import mmap
import os
import tempfile
import warnings
import weakref
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from earmark.clips.ring_worker import Descriptor, RowClips, SlotLayout

__all__ = ["RingMemory", "Slot", "whole_pages"]


@dataclass(eq=False)
class Slot:
    """Room for one batch in the shared memory.

    Attributes:
        offset: Byte of the memory at which it begins.
        capacity: Rows that it has room for.
        layout: Where the arrays of a batch lie in it.
        memory: It, as this process sees it.
        lent: The arrays of its last batch.
        copied: When its last batch has been copied to the GPU; None where nothing is copied.
        pinned: Its address, if it is pinned.
    """

    offset: int
    capacity: int
    layout: SlotLayout
    memory: mmap.mmap
    lent: list["weakref.ref[npt.NDArray[Any]]"] = field(default_factory=list)
    copied: torch.cuda.Event | None = None
    pinned: int | None = None

    def is_free(self) -> bool:
        """Return whether the last batch is neither being copied nor held by anybody."""
        is_copied: bool = self.copied is None or self.copied.query()  # type: ignore[no-untyped-call]
        return is_copied and all(array() is None for array in self.lent)


class RingMemory:
    """Memory without a name that grows by slots.

    Args:
        device: Where batches go.
        stream: On which they are copied there; None where they stay. With one, slots are pinned.
    """

    def __init__(self, device: torch.device, stream: torch.cuda.Stream | None) -> None:
        self._device, self._stream = device, stream
        self._num_bytes = 0
        self.descriptor = _unnamed_memory()
        self.slots: list[Slot] = []

    def first(self, num_bytes: int) -> mmap.mmap:
        """Return memory at the beginning, before there are slots; whole pages of it."""
        self._num_bytes = whole_pages(num_bytes)
        os.ftruncate(self.descriptor.fileno(), self._num_bytes)
        return mmap.mmap(self.descriptor.fileno(), self._num_bytes)

    def new_slot(self, clips: RowClips, capacity: int) -> Slot:
        """Add room for a batch of so many rows."""
        layout, offset = SlotLayout.of(clips, capacity), self._num_bytes
        self._num_bytes += layout.num_bytes
        os.ftruncate(self.descriptor.fileno(), self._num_bytes)
        slot = Slot(offset, capacity, layout, mmap.mmap(self.descriptor.fileno(), layout.num_bytes, offset=offset))
        if self._stream is not None:
            slot.pinned = _pin(slot.memory, layout.num_bytes, self._device)
        self.slots.append(slot)
        return slot

    def close(self) -> None:
        """Give the memory back, after the copies from it have ended."""
        pinned = [slot.pinned for slot in self.slots if slot.pinned is not None]
        if pinned and self._stream is not None:
            self._stream.synchronize()
            for address in pinned:
                torch.cuda.cudart().cudaHostUnregister(address)  # type: ignore[no-untyped-call]
        self.descriptor.close()
        self.slots.clear()


def _pin(memory: mmap.mmap, num_bytes: int, device: torch.device) -> int | None:
    """Register memory as pinned, which a GPU copies by itself; return its address, or None with a warning."""
    address = np.frombuffer(memory, np.uint8).ctypes.data
    with torch.cuda.device(device):
        result = torch.cuda.cudart().cudaHostRegister(address, num_bytes, 0)  # type: ignore[no-untyped-call]
        if int(result) == 0:
            return address
        warnings.warn(
            f"{num_bytes / 1e6:.0f} MB of memory for batches can't be pinned (CUDA error {int(result)}): copies to "
            f"{device} are slower and do not run beside its work",
            RuntimeWarning,
            stacklevel=2,
        )
        with contextlib.suppress(RuntimeError):  # else the next kernel would report that error as its own
            torch.zeros(1, device=device)
    return None


def _unnamed_memory() -> Descriptor:
    """Return memory that ends with the last process that holds it."""
    if hasattr(os, "memfd_create"):  # not in /dev/shm, which containers often limit to 64 MB
        return Descriptor(os.memfd_create("earmark-batches"))
    with tempfile.TemporaryFile() as file:
        return Descriptor(os.dup(file.fileno()))


def whole_pages(num_bytes: int) -> int:
    """Return the bytes of as many pages as hold so many; one at least."""
    return max(-(-num_bytes // mmap.ALLOCATIONGRANULARITY), 1) * mmap.ALLOCATIONGRANULARITY
