"""What `earmark moments` does with one file: find its moments, note what is unusual about it, draw it and cut clips.

Part of :mod:`earmark.cli.moments`, which calls it in worker processes.
"""

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark.wording import counted, visible

if TYPE_CHECKING:
    from earmark.media import MediaInfo, SoundReader
    from earmark.moments.writing import FileMoments

__all__ = ["Job", "OutputFailure", "Search", "examine", "find"]

_APART_SECONDS = 0.5  # sound and picture that begin or end further apart are worth a line


@dataclass(frozen=True, slots=True)
class Search:
    """What is searched for; None leaves it to the detector, or for the track to the file."""

    detector: str
    min_score: float | None
    min_distance_seconds: float | None
    margin_seconds: float
    max_per_minute: int | None
    track: int | None = None  # of several sound tracks, counted from 1

    @property
    def audio_stream(self) -> int | None:
        """The same counted from 0, as `earmark.media` does."""
        return None if self.track is None else self.track - 1


@dataclass(frozen=True, slots=True)
class Job:
    """One file and what is to be made of it.

    Attributes:
        number: of the file, from 0.
        name: of the files made from it.
        shown: what the user called the file.
        path: where it is.
        search: what is searched for.
        plot: page or picture to write, or None.
        index: page beside it that leads to those of all files, or None.
        clips: folder of the clips, or None.
        progress: file that holds, for each job, the seconds of sound read so far (float64).
    """

    number: int
    name: str
    shown: str
    path: Path
    search: Search
    plot: Path | None
    index: Path | None
    clips: Path | None
    progress: Path


@dataclass(frozen=True, slots=True)
class OutputFailure:
    """A file that could not be written.

    Attributes:
        text: Its name and the reason.
        disk_is_full: Whether nothing else can be written either.
    """

    text: str
    disk_is_full: bool


def examine(job: Job) -> "tuple[FileMoments, list[str], OutputFailure | None]":
    """Find the moments of a file, and draw and cut what is asked for; faults of the file are reported in the result.

    Returns:
        What was found, what was written, and what could not be.
    """
    from dataclasses import replace

    import numpy as np

    from earmark.media import MediaError
    from earmark.moments.writing import FileMoments

    progress = np.memmap(job.progress, np.float64, "r+")

    def heard(seconds: float) -> None:
        progress[job.number] = seconds

    def in_words(error: Exception) -> str:
        text = str(error).replace(str(job.path), job.shown)
        return text if job.shown in text else f"{job.shown}: {text}"

    try:
        found = find(job.path, job.search, heard)
    except (MediaError, OSError) as error:
        return FileMoments(job.name, job.shown, error=in_words(error)), [], None
    found = replace(found, name=job.name, path=job.shown)
    written: list[str] = []
    try:
        for text in _drawn_and_cut(job, found):
            written.append(text)
    except MediaError as error:
        found = replace(found, notes=(*found.notes, f"not all could be drawn or cut ({in_words(error)})"))
    except OSError as error:
        target = job.shown if error.filename is None else os.fsdecode(error.filename)
        reason = (error.strerror or str(error)).lower()
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return found, written, OutputFailure(f"{target}: cannot be written: {reason}", is_full)
    return found, written, None


def _drawn_and_cut(job: Job, found: "FileMoments") -> Iterator[str]:
    """Draw a file and cut its clips; yield what was written as soon as it is."""
    if job.plot is not None:
        from earmark.moments.plotting import write_plot

        write_plot(
            job.plot,
            job.path,
            found.moments,
            title=visible(job.shown),
            detector=job.search.detector,
            audio_stream=job.search.audio_stream,
            index=None if job.index is None else os.path.relpath(job.index, job.plot.parent),
        )
        yield str(job.plot)
    if job.clips is not None and found.moments:
        from earmark.moments.cutting import cut_clips

        times = [moment.time_seconds for moment in found.moments]
        cut = cut_clips(job.path, times, job.clips, name=job.name, audio_stream=job.search.audio_stream)
        yield str(cut[0]) if len(cut) == 1 else f"{job.clips / job.name}_*.mp4 ({len(cut)} clips)"


def find(path: Path, search: Search, heard: Callable[[float], None]) -> "FileMoments":
    """Find the moments of a file.

    Args:
        path: of the file.
        search: what to look for.
        heard: is called with the seconds of sound read so far.

    Raises:
        MediaError: If it can't be read or has no sound.
    """
    import numpy as np

    from earmark.media import MediaError, SoundReader, media_info
    from earmark.moments import MomentStream
    from earmark.moments.writing import FileMoments

    info = media_info(path)
    if search.track is not None and search.track > info.num_audio_streams > 0:
        raise MediaError(
            f"{path}: no sound track {search.track}, there {'is' if info.num_audio_streams == 1 else 'are'} only "
            f"{counted(info.num_audio_streams, 'track')}"
        )
    reader = SoundReader(path, audio_stream=search.audio_stream)
    if search.track is not None:
        info = media_info(path, audio_stream=search.audio_stream)
    peak = 0.0

    def blocks() -> Iterator[Any]:
        nonlocal peak
        for block in reader:
            peak = max(peak, float(np.abs(block).max()))
            heard(reader.num_samples / reader.sample_rate)
            yield block

    options = {name: value for name, value in asdict(search).items() if name != "track"}
    stream = MomentStream(blocks(), sample_rate=reader.sample_rate, **options)
    moments = tuple(stream)
    return FileMoments(
        name=path.stem,
        path=str(path),
        moments=moments,
        duration_seconds=max(info.duration_seconds, stream.duration_seconds),
        notes=tuple(_notes(info, reader, silent=peak == 0, chosen=search.track is not None)),
    )


def _notes(info: "MediaInfo", reader: "SoundReader", *, silent: bool, chosen: bool) -> Iterator[str]:
    """Yield what a person should know about the sound before trusting the moments."""
    end = reader.num_samples / reader.sample_rate
    if info.audio is not None and info.num_audio_streams > 1 and not chosen:
        yield f"{info.num_audio_streams} sound tracks, number {info.audio.number + 1} is listened to (--track chooses)"
    if reader.problem:
        yield reader.problem
    if info.problem:
        yield info.problem
    if silent:
        yield "the sound is digital silence"
    if end < 0.1:
        yield f"only {1000 * end:.0f} ms of sound"
    if info.video is not None and info.audio is not None:
        sound_start, picture_start = info.audio.start_seconds, info.video.start_seconds
        if abs(sound_start - picture_start) > _APART_SECONDS:
            yield f"the sound starts at {sound_start:.2f} s, the picture at {picture_start:.2f} s"
        if info.video.duration_seconds is not None:
            picture_end = picture_start + info.video.duration_seconds
            if abs(end - picture_end) > _APART_SECONDS:
                yield f"the sound ends at {end:.2f} s, the picture at {picture_end:.2f} s"
