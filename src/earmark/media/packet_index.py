"""The packet index of a prepared video: where every picture and all sound lie in its file.

Path of a sample: prepared video --index--> byte ranges of its clips. The index is saved beside the video
(``.index.npz``). It can be rebuilt from the ``.mov`` at any time.
"""

import hashlib
import io
import json
import math
import os
import zipfile
from array import array
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from earmark.atomic import replacing
from earmark.media.opening import MediaError, choose_stream, open_media, packets_of
from earmark.media.prepared import WINDOWS_KEY

__all__ = ["BYTES_PER_SAMPLE", "PacketIndex"]

BYTES_PER_SAMPLE = 2  # PCM s16le, mono
MAX_NUMBER = 1 << 52  # of a frame or a sample, two million years of sound: sums of such numbers stay far from overflow


@dataclass(frozen=True, slots=True)
class PacketIndex:
    """Where every packet of a prepared video lies.

    Attributes:
        frame_offsets: int64 (num_frames,), byte offset of each JPEG.
        frame_sizes: int64 (num_frames,), its size in bytes.
        sound_offsets: int64 (num_chunks,), byte offset of each run of PCM samples.
        sound_sizes: int64 (num_chunks,), its size in bytes.
        frame_checksums: uint32 (num_frames,), CRC-32 of each JPEG.
        sound_checksums: uint32 (num_chunks,), CRC-32 of each run of PCM samples.
        windows: int64 (num_windows, 4): the number of a first frame and of how many follow one another from it on, of
            a first sample and of how many; numbered on the recording's clock. The file holds these parts of the
            recording one after the other; it holds all of it where there is one window that begins at 0.
        file_size: Size of the ``.mov`` that the index belongs to.
    """

    frame_offsets: NDArray[np.int64]
    frame_sizes: NDArray[np.int64]
    sound_offsets: NDArray[np.int64]
    sound_sizes: NDArray[np.int64]
    frame_checksums: NDArray[np.uint32]
    sound_checksums: NDArray[np.uint32]
    windows: NDArray[np.int64]
    file_size: int

    @staticmethod
    def of_file(path: str | Path) -> "PacketIndex":
        """Find every picture and all sound of a prepared video by demuxing it; nothing is decoded.

        Args:
            path: a file that :func:`earmark.media.write_prepared` wrote.

        Raises:
            MediaError: if the file can't be opened or is not a prepared video: other codecs, a frame missing or late, a
                gap in the sound.

        Example:
            >>> import tempfile, simplejpeg
            >>> from earmark.media import write_prepared
            >>> picture = simplejpeg.encode_jpeg(np.zeros((64, 96, 3), np.uint8))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     write_prepared(
            ...         f"{folder}/a.mov", [picture] * 4, fps=16, size=(96, 64), sound=None, sample_rate=16000
            ...     )
            ...     index = PacketIndex.of_file(f"{folder}/a.mov")
            >>> index.frame_sizes.tolist() == [len(picture)] * 4
            True
        """
        path = Path(path)
        other = f"{path}: not a prepared video"
        frames = array("q")  # not objects: a long video has many
        num_frames = 0
        runs: list[list[int]] = []
        num_sound_bytes = 0
        with open_media(path) as container:
            video, audio = choose_stream(container, "video", None), choose_stream(container, "audio", None)
            if video is None or video.codec_context.name != "mjpeg" or not video.average_rate:
                raise MediaError(f"{other}: its pictures are not JPEG at a fixed rate")
            if audio and (audio.codec_context.name != "pcm_s16le" or audio.codec_context.channels != 1):
                raise MediaError(f"{other}: its sound is not 16-bit mono PCM")
            fps = video.average_rate
            for packet in packets_of(container, *(stream for stream in (video, audio) if stream)):
                if packet.pos is None or packet.pts is None:
                    continue  # the empty packets at the end
                seconds = packet.pts * packet.time_base
                if packet.stream_index == video.index:
                    if seconds * fps != num_frames:
                        raise MediaError(f"{other}: frame {num_frames} is at {float(seconds):.3f} s")
                    frames.extend((packet.pos, packet.size, crc32(packet)))
                    num_frames += 1
                else:
                    if seconds * audio.codec_context.sample_rate * BYTES_PER_SAMPLE != num_sound_bytes:
                        raise MediaError(f"{other}: a gap in the sound at {float(seconds):.3f} s")
                    num_sound_bytes += packet.size
                    if runs and runs[-1][0] + runs[-1][1] == packet.pos:
                        runs[-1][1] += packet.size
                        runs[-1][2] = crc32(packet, runs[-1][2])
                    else:
                        runs.append([packet.pos, packet.size, crc32(packet)])
            windows = _windows(path, container, num_frames, num_sound_bytes // BYTES_PER_SAMPLE)
        frame_array = np.array(frames, np.int64).reshape(-1, 3)
        run_array = np.array(runs, np.int64).reshape(-1, 3)
        index = PacketIndex(
            frame_offsets=frame_array[:, 0].copy(),
            frame_sizes=frame_array[:, 1].copy(),
            sound_offsets=run_array[:, 0].copy(),
            sound_sizes=run_array[:, 1].copy(),
            frame_checksums=frame_array[:, 2].astype(np.uint32),
            sound_checksums=run_array[:, 2].astype(np.uint32),
            windows=windows,
            file_size=path.stat().st_size,
        )
        try:
            index._check_columns()
        except ValueError as error:
            raise MediaError(f"{other}: {error}") from error
        return index

    def save(self, path: Path) -> None:
        """Write the index as an ``.npz`` file, atomically."""
        columns: dict[str, Any] = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        with replacing(path) as temporary:
            np.savez(temporary, allow_pickle=False, **columns)

    @staticmethod
    def load(path: Path, *, max_bytes: int | None = None) -> "PacketIndex":
        """Read an index; its size is all the memory it takes, whatever it claims to hold.

        Args:
            path: The ``.npz`` file.
            max_bytes: Most that it may have; None for any size.

        Raises:
            MediaError: If the file is not an index, or one that no file of the size it names can have.
            FileNotFoundError: If there is none.
        """
        try:
            with path.open("rb") as file:
                num_bytes = os.fstat(file.fileno()).st_size
                if max_bytes is not None and num_bytes > max_bytes:
                    raise ValueError(f"{num_bytes} bytes, more than an index of that file can have ({max_bytes})")
                with zipfile.ZipFile(file) as archive:
                    columns = {
                        column.name: _read_column(archive, column.name, num_bytes) for column in fields(PacketIndex)
                    }
            index = PacketIndex(**{**columns, "file_size": columns["file_size"].item()})
            index._check_columns()
            return index
        except FileNotFoundError:
            raise
        except Exception as error:  # zipfile and NumPy report damage in a dozen ways
            raise MediaError(f"{path}: not a packet index ({error or type(error).__name__})") from error

    @property
    def num_frames(self) -> int:
        """Frames in the file."""
        return len(self.frame_offsets)

    @property
    def num_samples(self) -> int:
        """Samples of sound in the file."""
        return int(self.sound_sizes.sum()) // BYTES_PER_SAMPLE

    @property
    def num_bytes(self) -> int:
        """Memory that the columns take."""
        return sum(getattr(self, column.name).nbytes for column in fields(self) if column.name != "file_size")

    @property
    def checksum(self) -> int:
        """One number for all the checksums of the packets."""
        return crc32(self.sound_checksums.tobytes(), crc32(self.frame_checksums.tobytes()))

    @property
    def digest(self) -> str:
        """Hex digest of all that it says: places, sizes, checksums, windows, the size of the file."""
        content = hashlib.sha256()
        for column in fields(self):
            values = np.asarray(getattr(self, column.name))
            content.update(f"{column.name} {values.shape} ".encode())
            content.update(np.ascontiguousarray(values, "<u4" if "checksums" in column.name else "<i8").tobytes())
        return content.hexdigest()

    def _check_columns(self) -> None:
        """Raise ValueError where columns do not go together, or cannot be those of a file of this size."""
        for offsets, sizes, checksums in (
            (self.frame_offsets, self.frame_sizes, self.frame_checksums),
            (self.sound_offsets, self.sound_sizes, self.sound_checksums),
        ):
            if offsets.ndim != 1 or not offsets.shape == sizes.shape == checksums.shape:
                shapes = f"{offsets.shape}, sizes {sizes.shape} and checksums {checksums.shape}"
                raise ValueError(f"offsets {shapes} do not go together")
        if not 0 <= self.file_size <= MAX_NUMBER:
            raise ValueError(f"it is of a file of {self.file_size} bytes")
        offsets = np.concatenate([self.frame_offsets, self.sound_offsets])
        sizes = np.concatenate([self.frame_sizes, self.sound_sizes])
        # each by itself before their sum, which could overflow
        inside = (offsets >= 0) & (sizes > 0) & (offsets <= self.file_size) & (sizes <= self.file_size)
        inside[inside] = (offsets + sizes)[inside] <= self.file_size
        if not inside.all():
            wrong = int(np.flatnonzero(~inside)[0])
            place = f"{sizes[wrong]} bytes at byte {offsets[wrong]}"
            raise ValueError(f"it points outside the file of {self.file_size} bytes: {place}")
        order = np.argsort(offsets, kind="stable")
        overlapping = offsets[order][1:] < (offsets + sizes)[order][:-1]
        if overlapping.any():
            raise ValueError(f"two packets overlap at byte {offsets[order][1:][overlapping][0]}")
        if (self.sound_sizes % BYTES_PER_SAMPLE).any():
            raise ValueError("a run of sound ends within a sample")
        windows = self.windows
        if windows.ndim != 2 or windows.shape[1] != 4 or (windows < 0).any() or (windows > MAX_NUMBER).any():
            raise ValueError(f"windows of shape {windows.shape}, not (W, 4), or with a negative or too large a number")
        for column, total in ((1, self.num_frames), (3, self.num_samples)):
            if windows[:, column].sum() != total:
                raise ValueError("its windows do not add up to its frames and samples")
            if (np.diff(windows[:, column - 1]) < windows[:-1, column]).any():
                raise ValueError("its windows overlap")


def _read_column(archive: zipfile.ZipFile, name: str, num_bytes: int) -> NDArray[Any]:
    """Read a column of an ``.npz`` file; what its header claims is believed only where the bytes are there."""
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type != zipfile.ZIP_STORED or not entry.file_size == entry.compress_size <= num_bytes:
        raise ValueError(f"{name}: {entry.file_size} bytes, compressed to {entry.compress_size}, in {num_bytes}")
    content = archive.read(entry)
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"{name}: an array of format {version}")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    of_checksums = "checksums" in name
    if dtype.kind != ("u" if of_checksums else "i") or dtype.itemsize > (4 if of_checksums else 8):
        raise ValueError(f"{name}: numbers of type {dtype}")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
        raise ValueError(f"{name}: an array of shape {shape} in {len(content) - stream.tell()} bytes")
    values = np.frombuffer(content, dtype, offset=stream.tell()).reshape(shape, order="F" if is_fortran else "C")
    return values.astype(np.uint32 if of_checksums else np.int64, order="C")


def _windows(path: Path, container: InputContainer, num_frames: int, num_samples: int) -> NDArray[np.int64]:
    """Read which parts of the recording a file holds; the last ones may be shorter than was planned, or empty."""
    text = container.metadata.get(WINDOWS_KEY)
    if text is None:
        return np.array([[0, num_frames, 0, num_samples]], np.int64)
    try:
        windows = np.array(json.loads(text), np.int64).reshape(-1, 4)
    except (ValueError, TypeError, OverflowError) as error:
        raise MediaError(f"{path}: not a prepared video: its windows cannot be read ({error})") from error
    for column, total in ((1, num_frames), (3, num_samples)):
        before = np.cumsum(windows[:, column]) - windows[:, column]
        windows[:, column] = np.clip(total - before, 0, windows[:, column])
        if windows[:, column].sum() != total or (np.diff(windows[:, column - 1]) < windows[:-1, column]).any():
            raise MediaError(f"{path}: not a prepared video: its windows do not fit what it holds")
    return windows
