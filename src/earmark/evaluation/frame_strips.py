"""Frames of a clip beside each other, as a page shows them, and times as players do.

Path of a sample: frames --here--> pictures that a template shows --> page.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from earmark.media.page import jpeg_uri

__all__ = ["FRAMES_SHOWN", "FRAME_QUALITY", "LARGEST_FRAME", "clock_text", "require_frames", "strip"]

FRAMES_SHOWN = 4  # of each clip, evenly spread: more would be too small to see on a telephone
FRAME_QUALITY = 80  # of their JPEG
LARGEST_FRAME = 128  # pixels of the short side: stores for larger inputs hold larger frames than can be seen here


def require_frames(frames: npt.NDArray[np.uint8], *, where: str) -> None:
    """Refuse what is no clip.

    Raises:
        ValueError: Naming the clip.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or len(frames) == 0 or frames.dtype != np.uint8:
        raise ValueError(f"{where}: frames must be uint8 (T, H, W, 3), got {frames.dtype} {frames.shape}")


def strip(frames: npt.NDArray[np.uint8], *, where: str) -> list[dict[str, Any]]:
    """Return evenly spread frames of a clip, the first and the last among them, as data URIs with width and height.

    Args:
        frames: uint8 ``(T, H, W, 3)`` RGB; larger ones than a page shows are made smaller.
        where: Names the clip in an error.

    Raises:
        ValueError: If they are no frames.
    """
    require_frames(frames, where=where)
    numbers = np.unique(np.linspace(0, len(frames) - 1, FRAMES_SHOWN).round().astype(int))
    shown = _at_most(frames[numbers], LARGEST_FRAME)
    height, width = shown.shape[1:3]
    return [{"uri": jpeg_uri(frame, quality=FRAME_QUALITY), "width": width, "height": height} for frame in shown]


def _at_most(frames: npt.NDArray[np.uint8], short_side: int) -> npt.NDArray[np.uint8]:
    """Return frames whose short side is no longer than that, averaged down where it was."""
    height, width = frames.shape[1:3]
    scale = short_side / min(height, width)
    if scale >= 1:
        return frames
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    smaller = functional.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    return smaller.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def clock_text(seconds: float) -> str:
    """Return a time of a video as players show it.

    Example:
        >>> clock_text(72.5), clock_text(59.999), clock_text(3725.25)
        ('1:12.50', '1:00.00', '1:02:05.25')
    """
    minutes, rest = divmod(round(seconds, 2), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:05.2f}" if hours else f"{minutes}:{rest:05.2f}"
