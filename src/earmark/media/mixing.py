"""From decoded sound to one channel."""

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

from earmark.media.opening import MediaError

# An FFmpeg frame has room for as many planes; PyAV (18 and 19) finds their number by looking for an empty one behind
# them, so that with that many or more it reads past the planes, and the process dies.
_NUM_PLANES = 8
# What swresample makes of formats that are planar or that PyAV knows no arrays of: no narrower, and packed.
_PACKED = {
    "u8p": "u8",
    "s16p": "s16",
    "s32p": "s32",
    "fltp": "flt",
    "dblp": "dbl",
    "s64": "dbl",
    "s64p": "dbl",
}
_READ_BY_PYAV = {"u8", "s16", "s32", "flt", "dbl", "u8p", "s16p", "s32p", "fltp", "dblp"}
_MAX_LEVEL = 1e6  # times full scale: no recording is so loud, and squares and sums of what is overflow


class Mixer:
    """Take the arithmetic mean of a frame's channels, whatever their number and format.

    Example:
        >>> frame = AudioFrame.from_ndarray(np.array([[16384, 0, -32768, 0]], np.int16), format="s16", layout="stereo")
        >>> Mixer()(frame).tolist()
        [0.25, -0.5]
    """

    def __init__(self) -> None:
        self._packer: AudioResampler | None = None
        self._packed_of: tuple[str, str, int] | None = None

    def __call__(self, frame: AudioFrame) -> NDArray[np.float32]:
        """Return the mean of a frame's channels, ``(S,)``, full scale -1 to 1.

        Raises:
            MediaError: If samples of its format can't be read.
        """
        num_channels = frame.layout.nb_channels
        if frame.format.name not in _READ_BY_PYAV or (frame.format.is_planar and num_channels >= _NUM_PLANES):
            array = np.concatenate([part.to_ndarray() for part in self._packed(frame)], axis=1)
            planar = False
        else:
            array = frame.to_ndarray()
            planar = frame.format.is_planar
        if not planar:
            array = array.reshape(-1, num_channels).T
        # 16-bit sums are exact in float32, wider ones are not.
        exact = np.float32 if array.dtype.itemsize <= 2 or array.dtype == np.float32 else np.float64
        with np.errstate(over="ignore", invalid="ignore"):  # infinite samples, or such as make the sum so
            mean = np.add.reduce(array, axis=0, dtype=exact) / num_channels
        if array.dtype.kind == "f":
            mean = np.where(np.abs(mean) <= _MAX_LEVEL, mean, np.nan)  # which the reader counts and silences
        else:
            mean /= 2 ** (8 * array.dtype.itemsize - 1)
        if array.dtype.kind == "u":
            mean -= 1  # unsigned samples rest at half their scale
        return np.asarray(mean, np.float32)

    def _packed(self, frame: AudioFrame) -> list[AudioFrame]:
        """Convert to a packed format, the channels as they are."""
        name = frame.format.name
        if name not in _PACKED:
            raise MediaError(f"sound samples of the format {name} can't be read")
        kind = (name, frame.layout.name, frame.sample_rate)
        if self._packer is None or kind != self._packed_of:
            self._packer, self._packed_of = AudioResampler(format=_PACKED[name]), kind
        try:
            return self._packer.resample(frame)
        except (av.FFmpegError, ValueError) as error:
            raise MediaError(
                f"sound of {frame.layout.nb_channels} channels ({frame.layout.name}) in the format {name} can't be read"
            ) from error
