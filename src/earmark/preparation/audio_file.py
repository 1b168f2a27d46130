"""The sound of many videos in one HDF5 file, as audio models of EPIC-KITCHENS and EPIC-SOUNDS read it.

One data set for each video, named by its id: mono, float32 from -1 to 1, at one rate. Auditory SlowFast and the models
of EPIC-SOUNDS ask for 24 kHz. As in their own recipe, samples are of 16 bits; unlike there, sample k is at time
k / rate of the picture's clock, also where the sound begins late.
"""

import hashlib
import importlib.util
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt

from earmark.atomic import remove_abandoned, replacing
from earmark.datasets.listing import is_readable_file
from earmark.datasets.records import VideoRecord
from earmark.media import MediaError, SoundReader
from earmark.preparation.isolation import Limits, in_limits
from earmark.preparation.workers import WorkerDiedError, each_in_order

__all__ = ["AudioFileError", "AudioFileReport", "write_audio_file"]

BLOCK_SAMPLES = 1 << 22


class AudioFileError(ValueError):
    """The file cannot be written; the message says why."""


@dataclass(frozen=True, slots=True)
class AudioFileReport:
    """What was written.

    Attributes:
        path: The file.
        num_samples: By video id, of all videos that are in the file.
        num_reused: How many of them an earlier run had decoded.
        left_out: By video id, why it is not in the file.
        damaged: By video id, what is wrong with sound that is in the file.
        sample_rate: Hz.
    """

    path: Path
    num_samples: dict[str, int]
    num_reused: int
    left_out: dict[str, str]
    damaged: dict[str, str]
    sample_rate: int


def write_audio_file(
    videos: Sequence[VideoRecord], path: str | os.PathLike[str], *, sample_rate: int = 24000, num_workers: int = 1
) -> AudioFileReport:
    """Write the sound of videos into one HDF5 file.

    Each video is decoded into a file of its own below ``PATH.parts``, which needs half the space of the whole; from
    these the whole is written under another name and then renamed, so it is there as a whole or not at all. Stopped and
    started again, this goes on with the videos that are not decoded, and ends with the same bytes.

    Args:
        videos: Which ones; ids must be unique.
        path: The file; one that is there is replaced.
        sample_rate: Hz.
        num_workers: Processes that decode, one video each.

    Returns:
        What was written. A video that is missing, unreadable or without sound stops no other and is named there.

    Raises:
        AudioFileError: If h5py is not installed, an id is given twice, or no video has sound: nothing is written then.

    Example:
        >>> from earmark.datasets import EpicKitchens
        >>> write_audio_file(EpicKitchens("EPIC").videos(), "EPIC_audio.hdf5")  # doctest: +SKIP
    """
    if importlib.util.find_spec("h5py") is None:
        raise AudioFileError("writing HDF5 needs h5py: pip install 'earmark[hdf5]'")
    if len({video.video_id for video in videos}) < len(videos):
        raise AudioFileError("a video id is given twice")
    path = Path(path)
    parts = path.with_name(path.name + ".parts")
    parts.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent)
    left_out: dict[str, str] = {}
    files: dict[str, Path] = {}
    for video in videos:
        if is_readable_file(video.path):
            files[video.video_id] = parts / f"{_key(video, sample_rate)}.pcm"
        else:
            left_out[video.video_id] = f"{video.path}: no such file"
    waiting = [video for video in videos if video.video_id in files and not files[video.video_id].exists()]
    num_reused = len(files) - len(waiting)
    calls = [
        joblib.delayed(in_limits)(Limits(), video.path, _decode, video.path, files[video.video_id], sample_rate)
        for video in waiting
    ]
    for video, fault in zip(waiting, each_in_order(calls, num_workers=num_workers, isolate=True), strict=True):
        if isinstance(fault, WorkerDiedError) or fault is not None:
            left_out[video.video_id] = str(fault)
            del files[video.video_id]
    if not files:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:3])
        raise AudioFileError(f"{path}: no video with sound: nothing is written ({reasons})")
    num_samples = _write_whole(path, files, sample_rate)
    damaged = {name: text for name, part in files.items() if (text := _problem_file(part).read_text("utf-8"))}
    shutil.rmtree(parts)
    return AudioFileReport(path, num_samples, num_reused, left_out, damaged, sample_rate)


def _key(video: VideoRecord, sample_rate: int) -> str:
    """Return what the decoded sound is kept by: another source, rate or length of the file is another sound."""
    status = video.path.stat()
    source = f"{video.video_id}\n{video.path.absolute()}\n{status.st_size}\n{status.st_mtime_ns}\n{sample_rate}"
    return hashlib.sha256(os.fsencode(source)).hexdigest()


def _problem_file(part: Path) -> Path:
    return part.with_suffix(".txt")


def _decode(source: Path, part: Path, sample_rate: int) -> str | None:
    """Decode one video's sound into a file of int16 samples; return why that is not possible."""
    try:
        reader = SoundReader(source, sample_rate=sample_rate)
        with replacing(part) as temporary:
            with _samples_file(temporary) as write:
                for block in reader:
                    write(np.clip(np.rint(block * 32768), -32768, 32767).astype("<i2"))
            _problem_file(part).write_text(reader.problem or "", encoding="utf-8")  # there before the samples are
    except MediaError as error:
        return str(error)
    return None


@contextmanager
def _samples_file(path: Path) -> Iterator[Any]:
    with path.open("wb") as file:
        yield lambda samples: file.write(samples.tobytes())


def _write_whole(path: Path, files: dict[str, Path], sample_rate: int) -> dict[str, int]:
    import h5py

    num_samples = {}
    with replacing(path) as temporary, h5py.File(temporary, "w", libver="earliest") as file:
        for video_id in sorted(files):
            samples = _mapped(files[video_id])
            data = file.create_dataset(video_id, shape=(len(samples),), dtype="<f4", track_times=False)
            for first in range(0, len(samples), BLOCK_SAMPLES):
                block = samples[first : first + BLOCK_SAMPLES]
                data[first : first + len(block)] = block.astype(np.float32) / np.float32(32768)
            data.attrs["sample_rate"] = sample_rate
            num_samples[video_id] = len(samples)
    return num_samples


def _mapped(path: Path) -> npt.NDArray[np.int16]:
    with suppress(ValueError):  # of an empty file, which cannot be mapped
        return np.memmap(path, "<i2", mode="r")
    return np.zeros(0, np.int16)
