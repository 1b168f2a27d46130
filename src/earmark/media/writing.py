"""Writing media: H.264 + AAC files, and what all writers share."""

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.codec.context import Flags as CodecFlags
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter
from numpy.typing import NDArray

_BT709 = 1  # the code of ITU-R BT.709 in H.264's own tables: primaries, transfer and matrix alike
_LIMITED_RANGE = 1
_BITEXACT = 0x400  # AVFMT_FLAG_BITEXACT


def open_for_writing(path: Path, container_format: str, options: dict[str, str] | None = None) -> OutputContainer:
    """Open a file of a container format (FFmpeg's name) for writing, with options of FFmpeg's writer."""
    container = av.open(str(path), "w", format=container_format, container_options=options or {})
    # No encoder names, no creation times: the same input gives the same bytes.
    container.flags |= _BITEXACT
    return container


def sound_frame(samples: NDArray[Any], *, sample_format: str, sample_rate: int, start: int) -> AudioFrame:
    """Wrap mono samples ``(S,)`` as the frame that begins at sample ``start`` of its stream."""
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples)[None], format=sample_format, layout="mono")
    frame.sample_rate = sample_rate
    frame.time_base = Fraction(1, sample_rate)
    frame.pts = start
    return frame


class VideoWriter:
    """Write pictures and sound as an ordinary H.264 + AAC ``.mp4``.

    Frame k is shown from k / fps seconds on, sample k heard at k / sample_rate: the encoder's priming is taken back by
    the file's edit list. Picture and sound may be written in any order of calls. The same input gives the same bytes
    (with one FFmpeg build on one kind of machine; no dates are stored).

    Args:
        path: file to write.
        width: of the pictures, in pixels, even.
        height: of the pictures, in pixels, even.
        fps: frames per second.
        sample_rate: of the sound in Hz, one that AAC knows (16000, 24000, 44100, 48000, ...).
        crf: x264's quality: 0 lossless, 23 its default, 51 worst.
        preset: x264's name of speed.
        threads: of the picture encoder.

    Raises:
        ValueError: if a side is odd, or on closing if nothing was written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with VideoWriter(f"{folder}/a.mp4", width=64, height=48, fps=16, sample_rate=16000) as writer:
        ...         writer.write_frame(np.zeros((48, 64, 3), np.uint8))
        ...         writer.write_sound(np.zeros(1000, np.float32))
    """

    def __init__(
        self,
        path: str | Path,
        *,
        width: int,
        height: int,
        fps: int | Fraction,
        sample_rate: int,
        crf: int = 23,
        preset: str = "veryfast",
        threads: int = 1,
    ) -> None:
        if width % 2 or height % 2:
            raise ValueError(f"{path}: H.264 needs even sides, not {width} x {height}")
        self._path = Path(path)
        self._size = (height, width)
        self._fps = Fraction(fps)
        self._sample_rate = sample_rate
        self._num_frames = 0
        self._num_samples = 0
        self._reformatter = VideoReformatter()
        self._container = open_for_writing(self._path, "mp4")
        # x264's macroblock tree gives different bits from run to run (seen with its vector code on one thread); without
        # it the same input gives the same file, as promised.
        options = {"crf": str(crf), "preset": preset, "threads": str(threads), "x264-params": "mbtree=0"}
        self._video = self._container.add_stream("libx264", rate=self._fps, options=options)
        video = self._video.codec_context
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.colorspace = video.color_primaries = video.color_trc = _BT709
        video.color_range = _LIMITED_RANGE
        self._audio = self._container.add_stream("aac", rate=sample_rate, layout="mono")
        for stream in (self._video, self._audio):
            stream.codec_context.flags |= CodecFlags.bitexact

    def write_frame(self, frame: NDArray[np.uint8]) -> None:
        """Append one picture: uint8 RGB ``(H, W, 3)``.

        Raises:
            ValueError: if shape or type differ from what the file was opened for.
        """
        if frame.shape != (*self._size, 3) or frame.dtype != np.uint8:
            raise ValueError(f"{self._path}: expected uint8 {(*self._size, 3)}, got {frame.dtype} {frame.shape}")
        picture = self._reformatter.reformat(
            VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            src_color_range="JPEG",
            dst_color_range="MPEG",
            interpolation="BICUBIC",
            threads=1,
        )
        picture.time_base = 1 / self._fps
        picture.pts = self._num_frames
        self._container.mux(self._video.encode(picture))
        self._num_frames += 1

    def write_sound(self, samples: NDArray[np.float32]) -> None:
        """Append mono sound: float32 ``(S,)`` in -1 to 1, any length.

        Raises:
            ValueError: if it is not one-dimensional float32.
        """
        if samples.ndim != 1 or samples.dtype != np.float32:
            raise ValueError(f"{self._path}: expected float32 (S,), got {samples.dtype} {samples.shape}")
        if not len(samples):
            return
        frame = sound_frame(samples, sample_format="fltp", sample_rate=self._sample_rate, start=self._num_samples)
        self._container.mux(self._audio.encode(frame))
        self._num_samples += len(samples)

    def close(self) -> None:
        """Finish both streams and the file.

        Raises:
            ValueError: if no frame was written; nothing is left behind then.
        """
        if not self._num_frames:
            self._discard()
            raise ValueError(f"{self._path}: a video needs at least one frame")
        self._container.mux(self._video.encode(None))
        if self._num_samples:
            self._container.mux(self._audio.encode(None))
        self._container.close()

    def _discard(self) -> None:
        self._container.close()
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error_type is None:
            self.close()
        else:  # half a file is worse than none
            self._discard()
