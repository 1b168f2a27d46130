"""From a decoded frame to an RGB array: scaled, in true colours, the right way up."""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Self

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter
from numpy.typing import NDArray

from earmark.media.opening import packets_of

_NUM_FIRST_PACKETS = 256
_NUM_SIDE_DATA_TYPES = 64  # FFmpeg 8 has 32 kinds, numbered from 0
_UNSPECIFIED_COLOURS = 2  # in H.264's own tables
_HD_HEIGHT = 720
_MAX_PIXEL_ASPECT = 16  # real pixels are far from it; what lies beyond is a damaged header


@dataclass(frozen=True, slots=True)
class PictureGeometry:
    """How the pictures of a stream are scaled and turned.

    Attributes:
        width: to scale the coded picture to, in pixels, before it is turned.
        height: the same.
        mirrored: flip left and right before turning.
        quarter_turns: clockwise, 0 to 3.
    """

    width: int
    height: int
    mirrored: bool
    quarter_turns: int

    @classmethod
    def of(cls, stream: Any, frame: VideoFrame | None) -> Self:
        """Read a stream's display size and orientation; its first frame carries the display matrix."""
        context = stream.codec_context
        width, height = (context.width, context.height) if frame is None else (frame.width, frame.height)
        pixel_aspect = float(stream.sample_aspect_ratio or 1)
        if 1 / _MAX_PIXEL_ASPECT <= pixel_aspect <= _MAX_PIXEL_ASPECT:
            width = max(1, round(width * pixel_aspect))
        mirrored, quarter_turns = _orientation(frame)
        return cls(width, height, mirrored, quarter_turns)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) as displayed."""
        return (self.height, self.width) if self.quarter_turns % 2 else (self.width, self.height)

    def scaled(self, short_side: int | None) -> Self:
        """Return the geometry with the short side as asked for and the other one even; None leaves it."""
        if short_side is None:
            return self
        short, long = sorted((self.width, self.height))
        other = max(2, 2 * round(long * short_side / short / 2))
        width, height = (other, short_side) if self.width >= self.height else (short_side, other)
        return replace(self, width=width, height=height)


def _orientation(frame: VideoFrame | None) -> tuple[bool, int]:
    """Read (mirrored, clockwise quarter turns) from a frame's display matrix.

    The matrix maps (x, y), y downwards, to (a x + c y, b x + d y). A mirror image has a negative determinant; c and d
    are the same with and without the mirror, so that the angle is read from them.
    """
    side_data: Any = None if frame is None else _side_data(frame).get("DISPLAYMATRIX")
    if side_data is None:
        return False, 0
    a, b, _, c, d, *_ = (int(value) for value in np.frombuffer(side_data, "<i4"))
    if not a * d - b * c:
        return False, 0
    return a * d - b * c < 0, round(math.atan2(-c, d) / (math.pi / 2)) % 4


def _side_data(frame: VideoFrame) -> Any:
    """Return what else a frame carries, also if there is something among it that this PyAV has no name for.

    PyAV 18 refuses all of it then (spatial video, EXIF in motion JPEG): a filter takes out what is unknown.
    """
    try:
        return frame.side_data
    except ValueError:
        kinds: Any = SideDataType  # an enumeration of integers, whatever PyAV's type stubs say
        known = {kind.value for kind in kinds}
        graph = av.filter.Graph()
        nodes = [graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))]
        unknown = (number for number in range(_NUM_SIDE_DATA_TYPES) if number not in known)
        nodes += [graph.add("sidedata", mode="delete", type=str(number)) for number in unknown]
        graph.link_nodes(*nodes, graph.add("buffersink")).configure()
        graph.vpush(frame)
        return graph.vpull().side_data


def turned(rgb: NDArray[np.uint8], geometry: PictureGeometry) -> NDArray[np.uint8]:
    """Mirror and turn a picture ``(H, W, 3)`` as the geometry says."""
    if geometry.mirrored:
        rgb = rgb[:, ::-1]
    return np.ascontiguousarray(np.rot90(rgb, -geometry.quarter_turns))


class PictureConverter:
    """Turn decoded frames into uint8 RGB arrays ``(H, W, 3)``.

    swscale scales (bicubic, its kernel widened when shrinking, so without aliasing) and converts colours. Where the
    file does not say which matrix made them, high definition is taken as BT.709 and the rest as BT.601, as players do.
    """

    def __init__(self, geometry: PictureGeometry) -> None:
        self._geometry = geometry
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Convert one frame."""
        matrix = None
        if frame.colorspace == _UNSPECIFIED_COLOURS:
            matrix = Colorspace.ITU709 if frame.height >= _HD_HEIGHT else Colorspace.ITU601
        picture = self._reformatter.reformat(
            frame,
            width=self._geometry.width,
            height=self._geometry.height,
            format="rgb24",
            src_colorspace=matrix,
            interpolation="BICUBIC",
            threads=1,
        )
        return turned(np.asarray(picture.to_ndarray(), np.uint8), self._geometry)


def first_frame(container: InputContainer, stream: Any) -> VideoFrame | None:
    """Decode the first frame that can be decoded, or None if the first packets hold none."""
    for number, packet in enumerate(packets_of(container, stream)):
        try:
            frames = packet.decode()
        except (av.FFmpegError, ValueError):  # PyAV's own is a ValueError: a decoder that gave up its codec
            continue
        if frames:
            frame: VideoFrame = frames[0]
            return frame
        if number >= _NUM_FIRST_PACKETS:
            break
    return None
