"""From samples to one batch: stacking, and padding where pictures differ in size.

Path of a sample: clips --collation--> batch; `earmark.clips.dataset` describes both.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

__all__ = ["collate", "empty_rows"]


def collate(samples: Sequence[Mapping[str, Any]] | dict[str, Tensor]) -> dict[str, Tensor]:
    """Assemble samples into a batch, padding pictures of different sizes (see `earmark.clips.dataset`).

    Args:
        samples: What the data sets return, all with the same keys; or a batch that a data set read as a whole, which
            is returned as it is.

    Returns:
        The batch: a tensor for each key, and ``video_size`` int64 (B, 2) with each sample's height and width.

    Example:
        >>> small, large = np.ones((2, 4, 6, 3), np.uint8), np.ones((2, 6, 4, 3), np.uint8)
        >>> batch = collate([{"video": small, "index": 0}, {"video": large, "index": 1}])
        >>> batch["video"].shape, batch["video_size"].tolist()
        (torch.Size([2, 2, 6, 6, 3]), [[4, 6], [6, 4]])
    """
    if isinstance(samples, dict):
        return samples
    batch: dict[str, Tensor] = {}
    for name, first in samples[0].items():
        values = [sample[name] for sample in samples]
        if name.startswith("video"):
            batch[name] = _stack_padded(values)
            batch["video_size"] = torch.tensor([value.shape[1:3] for value in values], dtype=torch.int64)
        elif isinstance(first, np.ndarray):
            batch[name] = torch.from_numpy(np.stack(values))
        else:
            batch[name] = torch.tensor(values, dtype=torch.int64)
    return batch


def empty_rows(shape: tuple[int, ...], array_dtype: type[np.generic], pin_memory: bool) -> Tensor:
    """Return a tensor to be filled; in a worker of a DataLoader, in memory shared with the main process."""
    dtype = torch.from_numpy(np.empty(0, array_dtype)).dtype
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype, pin_memory=pin_memory)
    # As torch's own collation does: share_memory_() would copy what is still empty.
    storage = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize, device="cpu")  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=dtype).set_(storage).view(shape)


def _stack_padded(clips: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
    """Stack clips (T, H, W, 3) to (B, T, max H, max W, 3), zeros at the right and the bottom."""
    if len({clip.shape for clip in clips}) == 1:
        return torch.from_numpy(np.stack(clips))
    height, width = (max(clip.shape[axis] for clip in clips) for axis in (1, 2))
    stacked = np.zeros((len(clips), clips[0].shape[0], height, width, 3), np.uint8)
    for row, clip in zip(stacked, clips, strict=True):
        row[:, : clip.shape[1], : clip.shape[2]] = clip
    return torch.from_numpy(stacked)
