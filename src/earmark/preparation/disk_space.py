"""How much a run will write, and how much space is free.

Beside the path of a sample: `earmark.preparation.prepare` asks before it starts.
"""

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from earmark.datasets.records import VideoRecord
from earmark.media import MediaError, declared

__all__ = ["SourceLength", "estimated_bytes", "free_bytes", "source_lengths"]

# Bytes of a JPEG per pixel by quality, the mean of 11 real clips at a short side of 128 pixels; at 256 there were 0.72
# times as many per pixel.
_QUALITIES = (50, 75, 90, 95, 100)
_BYTES_PER_PIXEL = (0.115, 0.171, 0.282, 0.399, 0.777)
_BYTES_PER_FRAME = 650  # headers and tables of a JPEG, its entries in the file's own index and in ours
_NUM_THREADS = 16  # opening files is mostly waiting


@dataclass(frozen=True, slots=True)
class SourceLength:
    """What the header of a source declares.

    Attributes:
        seconds: Its length, as far as it is believed; 0 where there is no picture, or the file cannot be opened.
        aspect: The long side of the picture over the short one.
    """

    seconds: float
    aspect: float


def source_lengths(videos: Sequence[VideoRecord]) -> dict[str, SourceLength]:
    """Read the headers of sources.

    Args:
        videos: Which ones.

    Returns:
        By video id.
    """
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        return dict(zip((video.video_id for video in videos), threads.map(_length, videos), strict=True))


def _length(video: VideoRecord) -> SourceLength:
    try:
        seconds, width, height = declared(video.path)
    except (MediaError, MemoryError):
        return SourceLength(0.0, 1.0)
    return SourceLength(seconds, max(width, height) / max(1, min(width, height)))


def estimated_bytes(lengths: Sequence[SourceLength], parameters: dict[str, Any]) -> int:
    """Estimate the size of prepared videos.

    Args:
        lengths: Of the sources.
        parameters: Of the store. Windows around moments are not known beforehand, so whole videos are assumed.

    Returns:
        Bytes, for average pictures and sound.

    Example:
        >>> parameters = {"fps": 16, "short_side": 128, "quality": 90, "audio_rate": 16000}
        >>> estimated_bytes([SourceLength(3600.0, 16 / 9)], parameters) // 10**6
        625
    """
    per_pixel = float(np.interp(parameters["quality"], _QUALITIES, _BYTES_PER_PIXEL))
    per_pixel *= sqrt(128 / parameters["short_side"])
    total = 0.0
    for length in lengths:
        frame = per_pixel * parameters["short_side"] ** 2 * length.aspect + _BYTES_PER_FRAME
        total += length.seconds * (frame * parameters["fps"] + 2 * parameters["audio_rate"])
    return round(total)


def free_bytes(folder: Path) -> int:
    """Return the free space on the disk of a folder, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
