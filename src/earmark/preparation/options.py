"""How videos are prepared: settings that travel together, and what ``store.json`` says of them.

Beside the path of a sample: `earmark.preparation.prepare` is given these.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from earmark.moments import DEFAULT_DETECTOR, detector_parameters

__all__ = ["MomentSearch", "Transcoding", "store_parameters"]


@dataclass(frozen=True, slots=True)
class Transcoding:
    """What is kept of a source: size, rate and quality of the picture, the sound, the parts around moments.

    Attributes:
        fps: Frames per second of the prepared picture.
        short_side: Its shorter side in pixels; even.
        quality: JPEG quality, 1 to 100.
        audio_rate: Sample rate of the prepared sound in Hz.
        audio_stream: The n-th sound stream of each video, from 0; None for its container's default. A video that has
            fewer is prepared without sound, and its row of the catalog says so.
        around: ``"moments"`` keeps nothing but windows around the moments; None keeps all.
        around_seconds: How much is kept on each side of a moment: at least gap and clip, and half of the sound.

    Raises:
        ValueError: If a value is out of range.

    Example:
        >>> Transcoding(short_side=256).fps
        16
        >>> Transcoding(quality=101)
        Traceback (most recent call last):
        ValueError: quality must be at most 100, got 101
    """

    fps: int = 16
    short_side: int = 128
    quality: int = 90
    audio_rate: int = 16000
    audio_stream: int | None = None
    around: Literal["moments"] | None = None
    around_seconds: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (("fps", 1), ("short_side", 16), ("quality", 1), ("audio_rate", 4000)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.quality > 100:
            raise ValueError(f"quality must be at most 100, got {self.quality}")
        if self.short_side % 2:
            raise ValueError(f"short_side must be even, got {self.short_side}")
        if self.audio_stream is not None and self.audio_stream < 0:
            raise ValueError(f"audio_stream must be at least 0, got {self.audio_stream}")
        if self.around not in (None, "moments"):
            raise ValueError(f"around must be 'moments' or None, got {self.around!r}")
        if self.around_seconds <= 0:
            raise ValueError(f"around_seconds must be above 0, got {self.around_seconds}")


@dataclass(frozen=True, slots=True)
class MomentSearch:
    """What finds the moments, and how they are counted; None leaves an option to the detector's default.

    Attributes:
        detector: ``earmark``, or ``replai``, the original code's.
        segment_seconds: Length of the segments of which an epoch visits one moment each (see
            `earmark.moments.segment_number`).
        min_score: Only for ``earmark``: least score of a moment; None for 3.
        min_distance_seconds: Only for ``earmark``: least distance between two moments; None for 0.05.
        min_prominence: Only for ``replai``: least prominence of a moment; None for 1.
        min_distance: Only for ``replai``: least distance between two moments, in windows of the curve; None for 10.

    Raises:
        ValueError: If there is no such detector, an option is another detector's, or a value is out of range.

    Example:
        >>> MomentSearch("replai", min_prominence=2.0).parameters
        {'detector': 'replai', 'segment_seconds': 10.0, 'min_prominence': 2.0, 'min_distance': 10}
    """

    detector: str = DEFAULT_DETECTOR
    segment_seconds: float = 10.0
    min_score: float | None = None
    min_distance_seconds: float | None = None
    min_prominence: float | None = None
    min_distance: int | None = None

    def __post_init__(self) -> None:
        if self.segment_seconds < 1:
            raise ValueError(f"segment_seconds must be at least 1, got {self.segment_seconds}")
        _ = self.parameters  # detector_parameters checks the options

    @property
    def parameters(self) -> dict[str, Any]:
        """What moments depend on, defaults filled in, as `earmark.moments.detector_parameters` returns it."""
        return detector_parameters(**asdict(self))


def store_parameters(transcoding: Transcoding, search: MomentSearch) -> dict[str, Any]:
    """Return all that the content of a store depends on, as ``store.json`` has it.

    Args:
        transcoding: What is kept of a source.
        search: What finds the moments.

    Returns:
        Plain data. ``audio_stream`` and ``around`` are there only where they are not None, as in stores that were made
        before these options were.

    Example:
        >>> sorted(store_parameters(Transcoding(around="moments"), MomentSearch()).keys() - {"fps", "short_side"})
        ['around', 'around_seconds', 'audio_rate', 'detector', 'detector_version', 'min_distance_seconds', \
'min_score', 'quality', 'segment_seconds']
    """
    parameters = {name: getattr(transcoding, name) for name in ("fps", "short_side", "quality", "audio_rate")}
    parameters |= search.parameters
    if transcoding.audio_stream is not None:
        parameters["audio_stream"] = transcoding.audio_stream
    if transcoding.around is not None:
        parameters |= {"around": transcoding.around, "around_seconds": transcoding.around_seconds}
    return parameters
