"""Prepare one video: transcode it, find its moments, leave a record of the result.

Path of a sample: video file --media + prepare_video--> prepared video + packet index, moments.
`earmark.preparation.preparing` calls this in many processes, on one machine or on several.

The prepared file, its index and the record are written in this order, each whole or not at all, and only the record
makes a video count: so a process can be killed anywhere. A video is decoded once, picture and sound in one pass over
the file. With ``around`` among the parameters its sound is read first, and then pictures only near its moments.
"""

import contextlib
import hashlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from math import ceil, floor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import simplejpeg

from earmark.atomic import replacing
from earmark.datasets.records import VideoRecord
from earmark.media import (
    FrameReader,
    MediaError,
    MediaInfo,
    PacketIndex,
    Resampler,
    SoundReader,
    Window,
    media_info,
    read_interleaved,
    write_prepared,
)
from earmark.moments import Moment, detector_from
from earmark.preparation.catalog import PreparedVideo, StoreError, index_path, prepared_file, prepared_name
from earmark.preparation.disk_space import SourceLength, estimated_bytes
from earmark.preparation.isolation import Limits, limited
from earmark.preparation.locks import VideoLock, locked
from earmark.preparation.progress import size_text
from earmark.preparation.record import Record, digest_of_file, load_record, record_path, save_record
from earmark.wording import printable

_Piece = TypeVar("_Piece", bytes, npt.NDArray[np.int16])

__all__ = ["prepare_video", "read_record", "refused_row"]

NO_PRETRAINING = "left out of pretraining"
# Noise takes four times as much as the average picture that the estimate is made of: what grows beyond this many times
# the estimate and so many bytes is not what the file says it is.
MOST_TIMES, MOST_BYTES = 8, 16_000_000
REPORT_SECONDS = 1.0


def prepare_video(
    video: VideoRecord,
    root: Path,
    parameters: dict[str, Any],
    *,
    num_threads: int = 1,
    wait: bool = False,
    limits: Limits | None = None,
) -> PreparedVideo | None:
    """Prepare one video and leave its record; a source that cannot be used gives a refused row, never an exception.

    Args:
        video: Which source.
        root: Folder of the store.
        parameters: As `earmark.preparation.preparing.prepare` wrote them to ``store.json``.
        num_threads: Of the decoder; what is written of an undamaged source does not depend on it.
        wait: Whether to wait while another process works on this video.
        limits: What reading the source may take of this process, which it may end; None for no limits.

    Returns:
        Its row of the catalog, or None if another process works on it.

    Raises:
        OSError: If the store itself cannot be written (no space, no permission), which is not a fault of the source.
    """
    try:
        name = prepared_name(video.video_id)
    except StoreError as error:
        return refused_row(video, str(error))
    with locked(root, video.video_id, wait=wait) as lock:
        if lock is None:
            return None
        fingerprint, checksum = "", None
        found: list[Moment] = []
        try:
            with contextlib.nullcontext() if limits is None else limited(limits, video.path):
                record = read_record(root, video, parameters)
                if record is not None and record[0].status != "refused":  # made by another run in the meantime
                    return record[0]
                fingerprint = _source_fingerprint(video.path)
                record_path(root, video.video_id).unlink(missing_ok=True)  # its files are about to be replaced
                row, found, checksum = _transcode(video, root / f"{name}.mov", parameters, lock, num_threads)
        except MemoryError:
            row = refused_row(video, "reading it takes more memory than there is for one file")
        except ValueError as error:  # a MediaError, or a library's error about sizes and rates that it can't handle
            row = refused_row(video, printable(str(error).removeprefix(f"{video.path}: ")))
        save_record(root, Record(row, tuple(found), parameters, fingerprint, checksum))
        return row


def read_record(
    root: Path, video: VideoRecord, parameters: dict[str, Any]
) -> tuple[PreparedVideo, list[Moment]] | None:
    """Return what an earlier run made of a video, or None if it must be (re)done.

    A source that has been deleted since counts as unchanged.

    Args:
        root: The store.
        video: Which video; its split and participant are put into the row returned.
        parameters: It must have been made with these.

    Returns:
        Its row and its moments; a refused row without.
    """
    try:
        record = load_record(root, video.video_id)
    except StoreError:
        return None
    row = record.video
    if record.parameters != parameters or _source_fingerprint(video.path) not in ("", record.source):
        return None
    if row.status != "refused":
        try:
            if prepared_file(root, row).stat().st_size != row.num_bytes:
                return None
        except (OSError, StoreError):
            return None
    given = {"path": printable(video.path), "split": video.split, "participant_id": video.participant_id}
    return PreparedVideo(**{**asdict(row), **given}), list(record.moments)


def refused_row(video: VideoRecord, reason: str) -> PreparedVideo:
    """Return the row of a source that cannot be used."""
    return PreparedVideo(
        video_id=video.video_id,
        path=printable(video.path),
        split=video.split,
        participant_id=video.participant_id,
        status="refused",
        reason=reason,
    )


def _source_fingerprint(path: Path) -> str:
    """Return a digest of the source's size and modification time, by which a change is seen; empty if it is missing."""
    try:
        state = path.stat()
    except OSError:
        return ""
    return hashlib.sha256(f"{state.st_size} {state.st_mtime_ns}".encode()).hexdigest()[:16]


def _transcode(
    video: VideoRecord, target: Path, parameters: dict[str, Any], lock: VideoLock, num_threads: int
) -> tuple[PreparedVideo, list[Moment], int]:
    info = media_info(video.path)
    if info.video is None:
        raise MediaError(f"{video.path}: {info.problem or 'no picture stream'}")
    sound = _Sound(video.path, info, parameters)
    windows = sound.windows_around_moments() if "around" in parameters else None
    frames = FrameReader(
        video.path,
        fps=parameters["fps"],
        short_side=parameters["short_side"],
        num_threads=num_threads,
        windows=None if windows is None else [(w.first_frame, w.first_frame + w.num_frames) for w in windows],
    )
    with replacing(target) as temporary, contextlib.ExitStack() as stack:
        if sound.reader is None:
            pictures, prepared_sound = iter(frames), None
        elif windows is None:
            pictures, blocks = stack.enter_context(read_interleaved(frames, sound.reader))
            prepared_sound = sound.prepared(blocks)
        else:
            pictures, prepared_sound = iter(frames), sound.in_windows(windows)
        budget = _Budget(info, frames, parameters)
        write_prepared(
            temporary,
            map(budget.spent, _jpegs(pictures, parameters["quality"], lock)),
            fps=parameters["fps"],
            size=frames.size,
            sound=None if prepared_sound is None else map(budget.spent, prepared_sound),
            sample_rate=parameters["audio_rate"],
            windows=windows,
        )
        index = PacketIndex.of_file(temporary)
        file_digest = digest_of_file(temporary)
    index.save(index_path(target))
    row = replace(_row(video, info, frames, sound, index, parameters), file_digest=file_digest)
    return row, sound.moments, index.checksum


class _Budget:
    """How much a prepared video may grow to, by the length that its source says and that is believed."""

    def __init__(self, info: MediaInfo, frames: FrameReader, parameters: dict[str, Any]) -> None:
        self._path, self._seconds = info.path, info.duration_seconds
        length = SourceLength(info.duration_seconds, max(frames.size) / max(1, min(frames.size)))
        self._most = MOST_BYTES + MOST_TIMES * estimated_bytes([length], parameters)
        self._num_bytes = 0

    def spent(self, piece: _Piece) -> _Piece:
        """Count a piece of the prepared video and return it.

        Raises:
            MediaError: If it is too much.
        """
        self._num_bytes += len(piece) if isinstance(piece, bytes) else piece.nbytes
        if self._num_bytes > self._most:
            raise MediaError(
                f"{self._path}: stopped, since it grew to {size_text(self._num_bytes)}, far more than the "
                f"{self._seconds:.2f} s that it says it lasts can take; nothing of it is kept"
            )
        return piece


def _row(
    video: VideoRecord,
    info: MediaInfo,
    frames: FrameReader,
    sound: "_Sound",
    index: PacketIndex,
    parameters: dict[str, Any],
) -> PreparedVideo:
    assert info.video is not None
    problems = [frames.problem, sound.problem]
    reason = "; ".join(problem for problem in problems if problem)
    return PreparedVideo(
        video_id=video.video_id,
        path=printable(video.path),
        prepared_path=f"{prepared_name(video.video_id)}.mov",
        split=video.split,
        participant_id=video.participant_id,
        duration_seconds=_num_frames_of_recording(info, index, parameters) / parameters["fps"],
        source_fps=info.video.fps,
        source_width=info.video.width,
        source_height=info.video.height,
        rotation=info.video.rotation,
        num_frames=index.num_frames,
        width=frames.size[0],
        height=frames.size[1],
        has_audio=index.num_samples > 0,
        source_audio_rate=sound.reader.sample_rate if sound.reader else 0,
        num_samples=index.num_samples,
        num_moments=len(sound.moments),
        num_bytes=index.file_size,
        status="degraded" if reason else "ok",
        reason=reason,
        index_digest=index.digest,
    )


def _num_frames_of_recording(info: MediaInfo, index: PacketIndex, parameters: dict[str, Any]) -> int:
    """Return the length of the recording's picture in frames; where parts were kept, what lies between them counts."""
    first, count = index.windows[:, 0], index.windows[:, 1]
    seen = int((first + count)[count > 0].max())
    picture = info.video
    if "around" not in parameters or picture is None or picture.duration_seconds is None:
        return seen
    if not count.all():
        return seen  # it ended before the last window began
    declared: int = ceil((picture.start_seconds + picture.duration_seconds) * float(parameters["fps"]) - 1e-6)
    return max(seen, declared)


def _jpegs(pictures: Iterable[tuple[float, npt.NDArray[np.uint8]]], quality: int, lock: VideoLock) -> Iterator[bytes]:
    reported = time.monotonic()
    for seconds, picture in pictures:
        if time.monotonic() - reported > REPORT_SECONDS:
            reported = time.monotonic()
            lock.report(seconds)
        yield simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality=quality, colorsubsampling="420")


class _Sound:
    """The sound of a source: reading it also finds its moments and what is wrong with it.

    Attributes:
        reader: None where there is no sound.
        moments: Found so far.
        problem: None, or what is wrong. A fault of the sound does not end the picture.
    """

    def __init__(self, path: Path, info: MediaInfo, parameters: dict[str, Any]) -> None:
        self._path = path
        self._parameters = parameters
        self.reader: SoundReader | None = None
        self.moments: list[Moment] = []
        self.problem: str | None = None
        if not info.num_audio_streams:
            self.problem = f"no sound stream: {NO_PRETRAINING}"
            return
        try:
            self.reader = SoundReader(path, audio_stream=parameters.get("audio_stream"))
        except MediaError as error:
            self._note(error)

    def prepared(self, blocks: Iterable[npt.NDArray[np.float32]]) -> Iterator[npt.NDArray[np.int16]]:
        """Read all sound, find its moments, and yield it as it is stored."""
        yield from self._stored(self._listened(blocks))

    def windows_around_moments(self) -> list[Window]:
        """Read all sound and return the windows to keep.

        Raises:
            MediaError: If there is no moment.
        """
        if self.reader is not None:
            for _ in self._listened(self.reader):
                pass
        if not self.moments:
            raise MediaError(f"nothing to keep around moments: {self.problem or 'there are none'}")
        fps, rate, around = (self._parameters[name] for name in ("fps", "audio_rate", "around_seconds"))
        spans: list[list[int]] = []
        for moment in self.moments:
            first = max(0, floor((moment.time_seconds - around) * fps))
            stop = ceil((moment.time_seconds + around) * fps) + 1  # the last picture of a clip is rounded up
            if spans and first <= spans[-1][1]:
                spans[-1][1] = stop
            else:
                spans.append([first, stop])
        samples = [(first * rate // fps, -(-stop * rate // fps)) for first, stop in spans]
        return [
            Window(first, stop - first, begin, end - begin)
            for (first, stop), (begin, end) in zip(spans, samples, strict=True)
        ]

    def in_windows(self, windows: Iterable[Window]) -> Iterator[npt.NDArray[np.int16]]:
        """Yield the sound of windows as it is stored, silent where the recording has ended."""
        assert self.reader is not None
        remaining = list(windows)
        position = 0  # of the block's first sample
        for block in self._stored(self.reader):
            while remaining:
                begin, end = remaining[0].first_sample, remaining[0].first_sample + remaining[0].num_samples
                here, there = max(begin, position), min(end, position + len(block))
                if here < there:
                    yield block[here - position : there - position]
                if end > position + len(block):
                    break
                remaining.pop(0)
            position += len(block)
        for window in remaining:
            num_given = max(0, position - window.first_sample)
            yield np.zeros(window.num_samples - num_given, np.int16)

    def _listened(self, blocks: Iterable[npt.NDArray[np.float32]]) -> Iterator[npt.NDArray[np.float32]]:
        assert self.reader is not None
        finder = detector_from(self._parameters, self.reader.sample_rate)
        peak = 0.0
        try:
            for block in blocks:
                peak = max(peak, float(np.abs(block).max(initial=0.0)))
                self.moments += finder.feed(block)
                yield block
        except MediaError as error:  # the picture is still worth having
            self._note(error)
            return
        self.moments += finder.finish()
        self.problem = self.reader.problem
        if not self.problem and peak == 0.0:
            self.problem = "the sound is digital silence: no moments"

    def _stored(self, blocks: Iterable[npt.NDArray[np.float32]]) -> Iterator[npt.NDArray[np.int16]]:
        assert self.reader is not None
        resample = Resampler(self.reader.sample_rate, self._parameters["audio_rate"])
        for block in blocks:
            yield _to_int16(resample(block))
        yield _to_int16(resample.flush())

    def _note(self, error: MediaError) -> None:
        self.problem = f"sound: {str(error).removeprefix(f'{self._path}: ')}"
        if self.reader is None or not self.reader.num_samples:
            self.problem += f": {NO_PRETRAINING}"


def _to_int16(wave: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    samples: npt.NDArray[np.int16] = np.clip(np.rint(wave * 32768.0), -32768, 32767).astype(np.int16)
    return samples
