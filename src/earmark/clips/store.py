"""Read frames and sound of any window of any prepared video, by byte ranges.

Path of a sample: prepared video + packet index --store--> clip (frames, sound). `earmark.preparation` writes
what is read here. Every frame of a prepared video is a JPEG of its own at a known offset and its sound is raw PCM, so a
clip and its sound are one or two `pread` calls and a few JPEG decodes: no demuxing and no seeking.
"""

import contextlib
import hashlib
import json
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
import simplejpeg

from earmark.clips.packets import OpenVideo, SoundPiece, open_video
from earmark.clips.remote import RemoteFolder, is_url
from earmark.media import BYTES_PER_SAMPLE
from earmark.preparation.catalog import TABLES, DamagedTablesError, PreparedVideo, StoreError, index_path, prepared_file
from earmark.preparation.record import in_order, load_record, record_path, row_differences
from earmark.preparation.tables import (
    differing_parameters,
    read_catalog,
    read_moments_of_store,
    read_parameters,
)
from earmark.wording import counted

__all__ = ["PreparedStore"]

TIE_FRAMES = 1e-6  # how far rounding may move a time exactly between two frames
MAX_OPEN_VIDEOS = 256  # file handles that a process keeps open
MAX_INDEX_BYTES = 64 * 1024 * 1024  # memory that their indexes may take: an hour of video has 1.3 MB


_stores: "weakref.WeakSet[PreparedStore]" = weakref.WeakSet()


class PreparedStore:
    """The prepared videos of one folder, read by time.

    Opening reads the catalog and the moments only; a video's file and index are opened at its first use, in each
    process for itself, so that a store can be handed to loader workers however they are started.

    A store in object storage is named by its URL. Its tables are fetched when it is opened, and again when they have
    changed; a video is fetched whole at its first use, once for all processes of a machine (see
    `earmark.clips.remote`).

    Args:
        root: Folder that `earmark.preparation.preparing.prepare` wrote, or the URL of one (``s3://bucket/folder``).
        cache_dir: Where files of a URL are kept; None for ``$EARMARK_CACHE`` or the user's cache folder.

    Attributes:
        root: That folder; of a URL, the local folder that its files are fetched to.
        fps: Frames per second of every prepared video.
        sample_rate: Sample rate of every prepared sound, in Hz.
        parameters: What the videos were prepared with.
        around_seconds: How much of them was kept on each side of a moment; None where all is kept.
        catalog: A row for each source, refused ones included.
        videos: The usable ones (ok or degraded) by id.
        moments: The times of each video's moments in seconds, ascending, float64 (num_moments,).
        scores: Their scores, in the same order.

    Raises:
        StoreError: If the folder is not a store, or one of a newer version.

    Example:
        >>> store = PreparedStore("data/prepared/kitchen")  # doctest: +SKIP
        >>> store.frames("P01_01", [1.0, 1.0625]).shape  # doctest: +SKIP
        (2, 128, 228, 3)
    """

    def __init__(self, root: str | os.PathLike[str], *, cache_dir: Path | None = None) -> None:
        self._remote = RemoteFolder(str(root), cache_dir) if is_url(root) else None
        self.root = self._remote.folder if self._remote else Path(root)
        try:
            self._read_tables()
        except StoreError:
            if not self._remote:
                raise
            self._read_tables(again=True)  # what was kept of them may be damaged
        self._checksums: dict[str, int | None] = {}  # in the records of the videos that were held against theirs
        self._forget_open_files()

    def _read_tables(self, *, again: bool = False) -> None:
        """Read description, catalog and moments, which are held against one another."""
        if self._remote:
            for name in TABLES:
                self._remote.refresh(name, again=again)
        self.parameters = read_parameters(self.root)
        self.fps = float(self.parameters["fps"])
        self.sample_rate = int(self.parameters["audio_rate"])
        is_sparse = self.parameters.get("around") is not None
        self.around_seconds = float(self.parameters["around_seconds"]) if is_sparse else None
        self.catalog = read_catalog(self.root, self.parameters)
        self.videos = {video.video_id: video for video in self.catalog if video.status != "refused"}
        self.moments: dict[str, npt.NDArray[np.float64]] = {}
        self.scores: dict[str, npt.NDArray[np.float64]] = {}
        self._read_moments()

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files and the lock behind: the other process opens its own."""
        of_process = ("_open", "_index_bytes", "_lock")
        return {name: value for name, value in self.__dict__.items() if name not in of_process}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_open_files()

    def _forget_open_files(self) -> None:
        """Start without open files, as each process must: after opening, unpickling and a fork."""
        self._open: OrderedDict[str, OpenVideo] = OrderedDict()
        self._index_bytes = 0
        self._lock = threading.Lock()  # at a fork another thread may have held the old one
        _stores.add(self)

    @property
    def fingerprint(self) -> str:
        """Hex digest of what training on this store depends on; it does not depend on where the store lies."""
        # That of a store whose parameters do not yet name the detector stays what it was.
        named = {name: value for name, value in self.parameters.items() if (name, value) != ("detector", "replai")}
        digest = hashlib.sha256(json.dumps(named, sort_keys=True).encode())
        for video_id in sorted(self.videos):
            video = self.videos[video_id]
            # the size of the file represents its pictures, which nothing else here describes
            content = [video_id, video.split, video.num_frames, video.num_samples, video.num_bytes]
            digest.update(json.dumps(content).encode())
            digest.update(self.moments[video_id].tobytes())
        return digest.hexdigest()

    def frames(self, video_id: str, times_seconds: Sequence[float] | npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
        """Return the prepared frames nearest to given times.

        Args:
            video_id: Which video.
            times_seconds: (T,) times; each must lie inside the picture, to half a frame.

        Returns:
            uint8 (T, H, W, 3), RGB.

        Raises:
            StoreError: If the video is unknown or damaged, or a time lies outside it or outside what was kept of it.
        """
        return self.read(video_id, times_seconds, sound_start_seconds=0.0, num_samples=0)[0]

    def sound(self, video_id: str, start_seconds: float, num_samples: int) -> npt.NDArray[np.int16]:
        """Return a run of sound; what lies before or after a recording that was kept whole is silence.

        Args:
            video_id: Which video.
            start_seconds: Time of the first sample; may be negative.
            num_samples: Length S.

        Returns:
            int16 (S,), mono, at `sample_rate`.

        Raises:
            StoreError: If the video is unknown or damaged, has no sound, or was not kept here.
        """
        return self.read(video_id, [], sound_start_seconds=start_seconds, num_samples=num_samples)[1]

    def read(
        self,
        video_id: str,
        times_seconds: Sequence[float] | npt.NDArray[np.float64],
        *,
        sound_start_seconds: float,
        num_samples: int,
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16]]:
        """Return frames and sound together: neighbouring bytes are fetched by one read.

        Args:
            video_id: Which video.
            times_seconds: (T,) times of the frames, see `frames`.
            sound_start_seconds: Time of the first sample, see `sound`.
            num_samples: Samples of sound; 0 for none.

        Returns:
            Frames uint8 (T, H, W, 3) and sound int16 (S,).

        Raises:
            StoreError: As `frames` and `sound`.
        """
        video = self._video(video_id)
        frames = np.empty((len(times_seconds), video.height, video.width, 3), np.uint8)
        sound = np.empty(num_samples, np.int16)
        self.read_into(list(frames), sound, video_id, times_seconds, sound_start_seconds=sound_start_seconds)
        return frames, sound

    def read_into(
        self,
        frames: Sequence[npt.NDArray[np.uint8]],
        sound: npt.NDArray[np.int16],
        video_id: str,
        times_seconds: Sequence[float] | npt.NDArray[np.float64],
        *,
        sound_start_seconds: float,
    ) -> None:
        """Do what `read` does, into existing arrays such as the rows of a batch.

        Every picture is compared with its checksum. The sound is, too, by runs of half a second, which are read whole.

        Args:
            frames: T arrays uint8 (H, W, 3), contiguous, of the size of the video's pictures.
            sound: int16 (S,); empty for none.
            video_id: Which video.
            times_seconds: (T,) times of the frames, see `frames`.
            sound_start_seconds: Time of the first sample, see `sound`.

        Raises:
            StoreError: As `frames` and `sound`; damage is reported with video, time and file.
            ValueError: If there are not as many frames as times.
        """
        if len(frames) != len(times_seconds):
            raise ValueError(f"{len(times_seconds)} times need as many frames, got {len(frames)}")
        video = self._video(video_id)
        if len(sound) and not video.has_audio:
            raise StoreError(f"{self.root / video.prepared_path}: video {video_id!r} has no sound")
        times = np.asarray(times_seconds, np.float64)
        numbers = self._frame_numbers(video, times)
        first_sample = round(sound_start_seconds * self.sample_rate)
        try:
            opened = self._opened(video)
            index, places = opened.index, opened.frame_places(numbers)
            pieces = opened.sound_pieces(first_sample, len(sound)) if len(sound) else []
            if places.min(initial=0) < 0:
                raise self._not_kept(opened, video_id, float(times[places < 0][0]))
            if self.around_seconds is not None:
                num_recorded = first_sample + len(sound) - max(first_sample, 0)  # what lies before 0 is silence
                if sum(piece.num_samples for piece in pieces) < num_recorded:
                    raise self._not_kept(opened, video_id, sound_start_seconds)
            # plain ints: they are added to by hundreds below, and NumPy's scalars are slow at that
            offsets = index.frame_offsets[places].tolist() + [piece.offset for piece in pieces]
            sizes = index.frame_sizes[places].tolist() + [piece.size for piece in pieces]
            payloads = opened.read_ranges(offsets, sizes)
            for piece in pieces:
                if piece.checksum is None:
                    opened.prove_run(piece.run)
        except StoreError as error:
            at = float(times[0]) if len(times) else sound_start_seconds
            raise StoreError(f"{error} (asked for {video_id} from {at:.3f} s)") from error
        checksums = index.frame_checksums[places].tolist()
        # the payloads of the sound come after those of the frames
        for number, frame, payload, checksum in zip(numbers.tolist(), frames, payloads, checksums, strict=False):
            try:
                _decode_into(frame, payload, checksum)
            except ValueError as error:
                raise StoreError(
                    f"{opened.path}: frame {number} of {video_id} ({number / self.fps:.3f} s) is damaged, "
                    f"or the index is wrong: {error}"
                ) from error
        self._place_sound(sound, opened, pieces, payloads[len(numbers) :], video_id=video_id, first_sample=first_sample)

    def _place_sound(
        self,
        sound: npt.NDArray[np.int16],
        opened: OpenVideo,
        pieces: Sequence[SoundPiece],
        payloads: Sequence[memoryview],
        *,
        video_id: str,
        first_sample: int,
    ) -> None:
        """Compare what was read of the sound with its checksums and put it in its place; the rest is silence."""
        end = 0
        for piece, payload in zip(pieces, payloads, strict=True):
            if piece.checksum is not None and crc32(payload) != piece.checksum:
                at = (first_sample + piece.place) / self.sample_rate
                raise StoreError(
                    f"{opened.path}: sound of {video_id} ({at:.3f} s) is damaged, or the index is wrong: "
                    "its bytes are not those that were written"
                )
            sound[end : piece.place] = 0
            end = piece.place + piece.num_samples
            sound[piece.place : end] = np.frombuffer(payload, "<i2", piece.num_samples, piece.skip * BYTES_PER_SAMPLE)
        sound[end:] = 0

    def _video(self, video_id: str) -> PreparedVideo:
        video = self.videos.get(video_id)
        if video is None:
            refused = next((row for row in self.catalog if row.video_id == video_id), None)
            why = f"was refused: {refused.reason}" if refused else "is not in this store"
            raise StoreError(f"{self.root}: video {video_id!r} {why}")
        return video

    def _frame_numbers(self, video: PreparedVideo, times: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return the numbers, on the recording's clock, of the frames nearest to times."""
        positions = times * self.fps
        num_frames = round(video.duration_seconds * self.fps)
        outside = ~((positions >= -0.5) & (positions <= num_frames))
        if outside.any():
            raise StoreError(
                f"{self.root / video.prepared_path}: {float(times[outside][0]):.3f} s lies outside video "
                f"{video.video_id!r} (0 to {video.duration_seconds:.3f} s)"
            )
        # half up, not half to even, nor as the times were rounded: equally spaced times must give equally spaced frames
        return np.clip(np.floor(positions + 0.5 + TIE_FRAMES), 0, num_frames - 1).astype(np.int64)

    def _not_kept(self, opened: OpenVideo, video_id: str, time_seconds: float) -> StoreError:
        why = f"the store holds only {self.around_seconds} s on each side of each moment"
        if self.around_seconds is None:
            why = "it is shorter than the catalog says"
        return StoreError(f"{opened.path}: nothing of video {video_id!r} is kept at {time_seconds:.3f} s: {why}")

    def _opened(self, video: PreparedVideo) -> OpenVideo:
        with self._lock:
            opened = self._open.get(video.video_id)
            if opened is not None:
                self._open.move_to_end(video.video_id)
                return opened
        opened = self._open_compared(video)
        with self._lock:
            other = self._open.setdefault(video.video_id, opened)
            if other is opened:
                self._index_bytes += opened.num_bytes
            while len(self._open) > 1 and (len(self._open) > MAX_OPEN_VIDEOS or self._index_bytes > MAX_INDEX_BYTES):
                _, oldest = self._open.popitem(last=False)  # closed when its last reader lets go of it
                self._index_bytes -= oldest.num_bytes
        return opened

    def _open_compared(self, video: PreparedVideo) -> OpenVideo:
        """Hold a video against its record and open its files; those kept of a URL are fetched again if they fail."""
        path, is_whole = prepared_file(self.root, video), self.around_seconds is None
        if video.video_id not in self._checksums:  # once in a process
            self._checksums[video.video_id] = self._recorded_checksum(video)
        checksum = self._checksums[video.video_id]
        if not self._remote:
            return open_video(path, video, checksum=checksum, is_whole=is_whole)
        self._fetch(self._remote, video)
        try:
            return open_video(path, video, checksum=checksum, is_whole=is_whole)
        except StoreError:  # damaged here, or those of the video as it was before it was prepared anew
            self._fetch(self._remote, video, again=True)
        return open_video(path, video, checksum=checksum, is_whole=is_whole)

    def _fetch(self, remote: RemoteFolder, video: PreparedVideo, *, again: bool = False) -> None:
        remote.fetch(video.prepared_path, num_bytes=video.num_bytes, again=again)
        with contextlib.suppress(StoreError):  # without it the index is rebuilt
            remote.fetch(index_path(Path(video.prepared_path)).as_posix(), again=again)

    def _recorded_checksum(self, video: PreparedVideo) -> int | None:
        """Hold a video against its record and return the checksum of its packets there."""
        if not self._remote:
            return self._compared(video)
        name = record_path(Path(), video.video_id).as_posix()
        self._remote.fetch(name)
        try:
            return self._compared(video)
        except StoreError:
            self._remote.fetch(name, again=True)
        return self._compared(video)

    def _compared(self, video: PreparedVideo) -> int | None:
        """Raise StoreError where the tables say otherwise of a video than its record; return its checksum."""
        record = load_record(self.root, video.video_id)
        differing = differing_parameters(self.parameters, record.parameters)
        if differing:
            there = ", ".join(differing_parameters(record.parameters, self.parameters))
            raise StoreError(
                f"{self.root / 'store.json'}: {', '.join(differing)}, but {video.video_id!r} was prepared with {there}"
            )
        for difference in row_differences(video, record.video):
            raise StoreError(f"{self.root / 'videos.parquet'}: {video.video_id!r}: {difference}")
        found = np.stack([self.moments[video.video_id], self.scores[video.video_id]])
        if not np.array_equal(in_order(found), in_order(record.moment_columns()[:2]), equal_nan=True):
            raise StoreError(
                f"{self.root / 'moments.parquet'}: the moments of {video.video_id!r} are not those of its record"
            )
        return record.checksum

    def _read_moments(self) -> None:
        table = read_moments_of_store(self.root)
        # names as numbers: a store of 10,000 videos has millions of moments
        names = table["video_id"].combine_chunks()
        number_of = {video_id: number for number, video_id in enumerate(self.videos)}
        elsewhere = len(number_of)  # a video that is not, or no longer, usable
        numbers = np.array([number_of.get(name, elsewhere) for name in names.dictionary.to_pylist()], np.int32)
        numbers = numbers[names.indices.to_numpy()]
        times = table["time_seconds"].to_numpy().astype(np.float64)
        scores = table["score"].to_numpy().astype(np.float64)
        steps = np.diff(numbers)
        if not ((steps > 0) | ((steps == 0) & (np.diff(times) >= 0))).all():  # it is as `earmark prepare` writes it
            order = np.lexsort((times, numbers))
            times, scores, numbers = times[order], scores[order], numbers[order]
        edges = np.searchsorted(numbers, np.arange(elsewhere + 1))
        expected = np.array([video.num_moments for video in self.videos.values()], np.int64)
        if not np.array_equal(np.diff(edges), expected) or edges[-1] != len(numbers):
            raise self._tables_differ(np.diff(edges), expected, set(names.dictionary.to_pylist()))
        bounds = edges.tolist()
        for number, video_id in enumerate(self.videos):
            mine = slice(bounds[number], bounds[number + 1])
            self.moments[video_id], self.scores[video_id] = times[mine], scores[mine]

    def _tables_differ(
        self, counts: npt.NDArray[np.int64], expected: npt.NDArray[np.int64], named: set[str]
    ) -> StoreError:
        """Return the error of a catalog and a table of moments that do not belong together."""
        path = self.root / "moments.parquet"
        for number in np.flatnonzero(counts != expected)[:1].tolist():
            video_id = list(self.videos)[number]
            why = f"{counted(int(counts[number]), 'moment')} of {video_id!r}, the catalog says {expected[number]}"
            return DamagedTablesError(f"{path}: {why}")
        stranger = min(named - self.videos.keys())
        return DamagedTablesError(f"{path}: moments of {stranger!r}, no usable video of the catalog")


def _decode_into(frame: npt.NDArray[np.uint8], jpeg: memoryview, checksum: int) -> None:
    """Decode a picture; raise ValueError if it is not the one that was written."""
    if crc32(jpeg) != checksum:
        raise ValueError("its bytes are not those that were written")
    # colours are repeated to full size, not interpolated: 7 % faster for 0.2 to 0.6 dB of PSNR
    decoded = simplejpeg.decode_jpeg(jpeg, "RGB", buffer=frame, fastupsample=True)
    if decoded.shape != frame.shape:  # a smaller picture would fill a part of the buffer
        raise ValueError(f"a picture of {decoded.shape[1]} x {decoded.shape[0]}")


def _after_fork() -> None:
    for store in list(_stores):
        store._forget_open_files()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
