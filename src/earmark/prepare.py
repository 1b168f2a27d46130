"""Turn source videos into prepared videos, a catalog and a table of moments.

Path of a sample: video file --media + prepare--> prepared video + packet index, moments --store--> clip.

A video is decoded once: its picture is scaled, resampled to a fixed rate and written as JPEGs, its sound is searched
for moments at its own sample rate and written as 16 kHz PCM, both on one clock that starts at 0. Every video leaves a
small record of what was made of it, so an interrupted run goes on where it was, and a run over finished videos only
gathers the records. A source that cannot be used is refused: it stays in the catalog, with the reason.
"""

import contextlib
import glob
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg

from earmark.atomic import replacing
from earmark.datasets.records import VideoRecord, printable
from earmark.media import FrameReader, MediaError, Resampler, SoundReader, probe, write_prepared
from earmark.moments import Moment, MomentFinder, moments_table, write_moments
from earmark.store import (
    CATALOG_SCHEMA,
    STORE_VERSION,
    PacketIndex,
    PreparedVideo,
    StoreError,
    prepared_name,
)

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["PrepareError", "PrepareReport", "prepare"]

LEFTOVER_SECONDS = 600.0  # a temporary file untouched for so long has no writer any more


class PrepareError(ValueError):
    """Preparing cannot start; the message says why."""


@dataclass(frozen=True, slots=True)
class PrepareReport:
    """What a run of `prepare` made.

    Attributes:
        root: The store.
        videos: A row for each source, in the order given.
        num_reused: How many were finished by an earlier run.
    """

    root: Path
    videos: tuple[PreparedVideo, ...]
    num_reused: int

    def with_status(self, status: str) -> list[PreparedVideo]:
        """Return the videos of one status: ``ok``, ``degraded`` or ``refused``."""
        return [video for video in self.videos if video.status == status]

    @property
    def hours(self) -> float:
        """Hours of prepared video."""
        return sum(video.duration_seconds for video in self.videos) / 3600

    @property
    def num_moments(self) -> int:
        """Moments found in all."""
        return sum(video.num_moments for video in self.videos)

    @property
    def num_bytes(self) -> int:
        """Size of the prepared files."""
        return sum(video.num_bytes for video in self.videos)

    def table(self) -> "Table":
        """Return the report as a table to print: totals, then each degraded or refused file with its reason."""
        from rich.table import Table
        from rich.text import Text  # names are no markup: [brackets] in them stay

        minutes = self.hours * 60
        rate = f"{self.num_moments / minutes:.1f} a minute" if minutes else "no video"
        table = Table(show_header=False)
        table.add_row("store", Text(str(self.root)))
        table.add_row("videos", f"{len(self.videos)} ({self.num_reused} already done)")
        table.add_row("ok", str(len(self.with_status("ok"))))
        for status in ("degraded", "refused"):
            table.add_row(status, str(len(self.with_status(status))))
        table.add_row("length", f"{minutes:.1f} minutes" if minutes < 120 else f"{self.hours:.1f} hours")
        table.add_row("moments", f"{self.num_moments} ({rate})")
        table.add_row("size", f"{self.num_bytes / 1e6:.1f} MB")
        for status in ("degraded", "refused"):
            for video in self.with_status(status):
                table.add_row(f"  {status}", Text(f"{video.video_id}: {video.reason}"))
        return table


def prepare(
    videos: Sequence[VideoRecord],
    root: str | os.PathLike[str],
    *,
    fps: int = 16,
    short_side: int = 128,
    quality: int = 90,
    audio_rate: int = 16000,
    segment_seconds: float = 10.0,
    min_prominence: float = 1.0,
    min_distance: int = 10,
    num_workers: int = 1,
    progress: bool = True,
) -> PrepareReport:
    """Prepare videos for training: transcode, find moments, write the catalog.

    Run again after an interruption it goes on where it was; a video whose source has not changed is not done again.

    Args:
        videos: What to prepare; ids must be unique.
        root: Folder of the store; made if missing.
        fps: Frames a second of the prepared picture.
        short_side: Its shorter side in pixels.
        quality: JPEG quality, 1 to 100.
        audio_rate: Sample rate of the prepared sound in Hz.
        segment_seconds: Length of the segments in which moments are searched (see `earmark.moments`).
        min_prominence: Least prominence of a moment.
        min_distance: Least distance of two moments, in frames of the curve.
        num_workers: Processes that work side by side, a video each.
        progress: Whether to show a progress bar on standard error.

    Returns:
        The report: what was prepared, degraded and refused, and why.

    Raises:
        PrepareError: If nothing is given, ids repeat, a parameter is out of range, or the folder holds something else
            or a store made with other parameters.

    Example:
        >>> from earmark.datasets import Folder
        >>> report = prepare(Folder("clips").videos(), "data/prepared/clips")  # doctest: +SKIP
    """
    parameters = {
        "fps": fps,
        "short_side": short_side,
        "quality": quality,
        "audio_rate": audio_rate,
        "segment_seconds": segment_seconds,
        "min_prominence": min_prominence,
        "min_distance": min_distance,
    }
    _check(videos, parameters)
    root = Path(root)
    _claim(root, parameters)
    rows: dict[str, PreparedVideo] = {}
    moments: dict[str, list[Moment]] = {}
    waiting: list[VideoRecord] = []
    for video in videos:
        record = _finished_record(root, video, parameters)
        if record is None:
            waiting.append(video)
        else:
            rows[video.video_id], moments[video.video_id] = record
    num_reused = len(rows)
    for row, found in _in_parallel(waiting, root, parameters, num_workers, progress):
        rows[row.video_id], moments[row.video_id] = row, found
    ordered = tuple(rows[video.video_id] for video in videos)
    _write_tables(root, ordered, moments, parameters)
    return PrepareReport(root, ordered, num_reused)


def prepare_video(video: VideoRecord, root: Path, parameters: dict[str, Any]) -> tuple[PreparedVideo, list[Moment]]:
    """Prepare one video and leave its record; a source that cannot be used gives a refused row, never an exception.

    Args:
        video: Which source.
        root: Folder of the store.
        parameters: As `prepare` wrote them to ``store.json``.

    Returns:
        Its row of the catalog and its moments.

    Raises:
        OSError: If the store itself cannot be written (no space, no permission): that is no fault of the source.
    """
    try:
        name = prepared_name(video.video_id)
    except StoreError as error:
        return _refused(video, str(error)), []
    fingerprint = _source_fingerprint(video.path)
    found: list[Moment] = []
    try:
        row, found = _transcode(video, root / f"{name}.mov", parameters)
    except ValueError as error:  # a MediaError, or what a library says of sizes and rates that it can't take
        row = _refused(video, printable(str(error).removeprefix(f"{video.path}: ")))
    content = {
        "parameters": parameters,
        "source": fingerprint,
        "video": asdict(row),
        "moments": [[m.time_seconds, m.score, m.height, m.segment_id] for m in found],
    }
    with replacing(root / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(content))
    return row, found


def _transcode(video: VideoRecord, target: Path, parameters: dict[str, Any]) -> tuple[PreparedVideo, list[Moment]]:
    info = probe(video.path)
    if info.video is None:
        raise MediaError(f"{video.path}: no picture stream")
    frames = FrameReader(video.path, fps=parameters["fps"], short_side=parameters["short_side"])
    sound = _Sound(video.path, parameters) if info.audio is not None else None
    jpegs = (
        simplejpeg.encode_jpeg(np.ascontiguousarray(frame), quality=parameters["quality"], colorsubsampling="420")
        for _, frame in frames
    )
    _remove_leftovers(target)
    with replacing(target) as temporary:
        write_prepared(
            temporary,
            jpegs,
            fps=parameters["fps"],
            size=frames.size,
            sound=sound,
            sample_rate=parameters["audio_rate"],
        )
        index = PacketIndex.of_file(temporary)
    index.save(target.with_suffix(".index.npz"))
    width, height = frames.size
    num_samples = int(index.sound_sizes.sum()) // 2
    problems = [frames.problem, sound.problem if sound else "no sound stream: left out of pretraining"]
    reason = "; ".join(problem for problem in problems if problem)
    found = sound.moments if sound else []
    row = PreparedVideo(
        video_id=video.video_id,
        path=printable(video.path),
        prepared_path=f"{prepared_name(video.video_id)}.mov",
        split=video.split,
        participant_id=video.participant_id,
        duration_seconds=len(index.frame_offsets) / parameters["fps"],
        source_fps=info.video.fps,
        source_width=info.video.width,
        source_height=info.video.height,
        rotation=info.video.rotation,
        num_frames=len(index.frame_offsets),
        width=width,
        height=height,
        has_audio=num_samples > 0,
        source_audio_rate=info.audio.sample_rate if info.audio else 0,
        num_samples=num_samples,
        num_moments=len(found),
        num_bytes=index.file_size,
        status="degraded" if reason else "ok",
        reason=reason,
    )
    return row, found


def _remove_leftovers(target: Path) -> None:
    """Remove what killed runs left of this video; a file that is still being written is a few seconds old."""
    for path in target.parent.glob(f".{glob.escape(target.stem)}.*.tmp.mov"):
        with contextlib.suppress(OSError):  # another run may have removed it
            if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                path.unlink()


class _Sound:
    """The sound of a source, once: blocks for the prepared file, and on the way its moments."""

    def __init__(self, path: Path, parameters: dict[str, Any]) -> None:
        self._path = path
        self._parameters = parameters
        self.moments: list[Moment] = []
        self.problem: str | None = None

    def __iter__(self) -> Iterator[npt.NDArray[np.int16]]:
        parameters = self._parameters
        peak = 0.0
        try:
            reader = SoundReader(self._path)
            finder = MomentFinder(
                reader.sample_rate,
                segment_seconds=parameters["segment_seconds"],
                min_prominence=parameters["min_prominence"],
                min_distance=parameters["min_distance"],
            )
            resample = Resampler(reader.sample_rate, parameters["audio_rate"])
            for block in reader:
                peak = max(peak, float(np.abs(block).max(initial=0.0)))
                self.moments += finder.feed(block)
                yield _to_int16(resample(block))
            self.moments += finder.finish()
            yield _to_int16(resample.flush())
            self.problem = reader.problem
        except MediaError as error:  # the picture is still worth having
            self.problem = f"sound: {str(error).removeprefix(f'{self._path}: ')}"
        if not self.problem and peak == 0.0:
            self.problem = "the sound is digital silence: no moments"


def _to_int16(wave: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    samples: npt.NDArray[np.int16] = np.clip(np.rint(wave * 32768.0), -32768, 32767).astype(np.int16)
    return samples


def _check(videos: Sequence[VideoRecord], parameters: dict[str, Any]) -> None:
    if not videos:
        raise PrepareError("no videos to prepare")
    seen: set[str] = set()
    for video in videos:
        if video.video_id in seen:
            raise PrepareError(f"video id {video.video_id!r} is given twice")
        seen.add(video.video_id)
    least = {"fps": 1, "short_side": 16, "quality": 1, "audio_rate": 4000, "segment_seconds": 1, "min_distance": 1}
    for name, value in least.items():
        if parameters[name] < value:
            raise PrepareError(f"{name} must be at least {value}, got {parameters[name]}")
    if parameters["quality"] > 100:
        raise PrepareError(f"quality must be at most 100, got {parameters['quality']}")
    if parameters["short_side"] % 2:
        raise PrepareError(f"short_side must be even, got {parameters['short_side']}")


def _claim(root: Path, parameters: dict[str, Any]) -> None:
    """Make the folder a store of these parameters, or say why it cannot be."""
    path = root / "store.json"
    if path.exists():
        try:
            existing = json.loads(path.read_text())["parameters"]
        except (ValueError, KeyError, TypeError) as error:
            raise PrepareError(f"{path}: not the description of a prepared store ({error})") from error
        differing = [name for name in parameters if existing.get(name) != parameters[name]]
        if differing:
            was = ", ".join(f"{name}={existing.get(name)}" for name in differing)
            now = ", ".join(f"{name}={parameters[name]}" for name in differing)
            raise PrepareError(f"{root}: this store was made with {was}; asked for {now}. Choose another folder.")
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise PrepareError(f"{root}: is not empty and not a prepared store; choose another folder")
    content = {"format_version": STORE_VERSION, "parameters": parameters}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2))


def _finished_record(
    root: Path, video: VideoRecord, parameters: dict[str, Any]
) -> tuple[PreparedVideo, list[Moment]] | None:
    """Return what an earlier run made of a video, or None if it must be (re)done.

    A source that has been deleted since is as good as unchanged; one that was refused is tried again, for its fault may
    have been this program's.
    """
    try:
        name = prepared_name(video.video_id)
        content = json.loads((root / f"{name}.json").read_text())
        row = PreparedVideo(**content["video"])
        found = [Moment(*values) for values in content["moments"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    source = _source_fingerprint(video.path)
    if row.status == "refused" or content.get("parameters") != parameters or source not in ("", content.get("source")):
        return None
    target = root / row.prepared_path
    if not target.is_file() or target.stat().st_size != row.num_bytes:
        return None
    given = {"path": printable(video.path), "split": video.split, "participant_id": video.participant_id}
    return PreparedVideo(**{**asdict(row), **given}), found


def _source_fingerprint(path: Path) -> str:
    """Return what tells a changed source: its size and time of change; empty when it is not there."""
    try:
        state = path.stat()
    except OSError:
        return ""
    return hashlib.sha256(f"{state.st_size} {state.st_mtime_ns}".encode()).hexdigest()[:16]


def _refused(video: VideoRecord, reason: str) -> PreparedVideo:
    return PreparedVideo(
        video_id=video.video_id,
        path=printable(video.path),
        split=video.split,
        participant_id=video.participant_id,
        status="refused",
        reason=reason,
    )


def _in_parallel(
    videos: Sequence[VideoRecord], root: Path, parameters: dict[str, Any], num_workers: int, progress: bool
) -> Iterator[tuple[PreparedVideo, list[Moment]]]:
    """Prepare videos in worker processes, yielding each as it is done."""
    if not videos:
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("preparing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("videos, {task.fields[minutes]:.1f} min of video"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not progress) as bar:
        task = bar.add_task("preparing", total=len(videos), minutes=0.0)
        minutes = 0.0
        for row, found in _each(videos, root, parameters, num_workers):
            minutes += row.duration_seconds / 60
            bar.update(task, advance=1, minutes=minutes)
            yield row, found


def _each(
    videos: Sequence[VideoRecord], root: Path, parameters: dict[str, Any], num_workers: int
) -> Iterator[tuple[PreparedVideo, list[Moment]]]:
    """Yield what is made of each video; one that kills its process (memory, a fault in a codec) stops no other."""
    import joblib

    job = joblib.delayed(prepare_video)
    waiting = {video.video_id: video for video in videos}
    with contextlib.suppress(BrokenProcessPool):
        parallel = joblib.Parallel(n_jobs=min(num_workers, len(videos)), return_as="generator_unordered")
        for row, found in parallel(job(video, root, parameters) for video in videos):
            del waiting[row.video_id]
            yield row, found
    for video in waiting.values():  # which one did it is not told: each by itself
        try:
            # two jobs: a single one would run in this process
            made = (
                _finished_record(root, video, parameters)
                or joblib.Parallel(n_jobs=2)([job(video, root, parameters)])[0]
            )
        except BrokenProcessPool:  # leaves no record, so that the next run tries again
            made = _refused(video, "the process that read it was killed: out of memory, or a fault in a codec"), []
        yield made


def _write_tables(
    root: Path,
    rows: Sequence[PreparedVideo],
    moments: dict[str, list[Moment]],
    parameters: dict[str, Any],
) -> None:
    catalog = pa.Table.from_pylist([asdict(row) for row in rows], schema=CATALOG_SCHEMA)
    with replacing(root / "videos.parquet") as temporary:
        pq.write_table(catalog, temporary)
    searched = {name: parameters[name] for name in ("segment_seconds", "min_prominence", "min_distance")}
    table = moments_table({row.video_id: moments[row.video_id] for row in rows}, detector="replai", parameters=searched)
    write_moments(root / "moments.parquet", table)
