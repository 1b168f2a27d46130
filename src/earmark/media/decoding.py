"""From packets to frames with times, past whatever is damaged, and a description of what was wrong."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from errno import ENOMEM
from pathlib import Path
from typing import Any

import av

from earmark.media.unfinished import num_missing_bytes

# A step back by more than this is not reordering: the clock was set back, as where recordings were joined.
_MAX_STEP_BACK_SECONDS = 1.0
# A stream that ends this much before its declared end broke off; containers round declared ends to packets.
_BROKE_OFF_SECONDS = 0.25
# Frames that a codec may hold back to put them in order; H.264 and H.265 allow no more.
MAX_REORDERED_FRAMES = 16
# Here a packet is marked as damaged where a part of it was lost; elsewhere only where the file ended within it.
_LOSSY_CONTAINERS = {"mpegts", "mpeg"}


@dataclass(slots=True)
class Damage:
    """What went wrong while a stream was decoded."""

    num_skipped: int = 0
    first_seconds: float = 0.0
    num_not_shown: int = 0
    first_not_shown_seconds: float = 0.0
    left_out_seconds: float = 0.0
    first_left_out_seconds: float = 0.0
    num_not_finite: int = 0
    notes: list[str] = field(default_factory=list)
    is_end_believed: bool = True
    entered_seconds: float = float("-inf")  # where decoding began or was taken up again, at a key frame

    def skip(self, seconds: float) -> None:
        """Count a damaged packet at a time; what needs frames before the key frame of entry is not damaged."""
        if seconds < self.entered_seconds:
            return
        if not self.num_skipped:
            self.first_seconds = seconds
        self.num_skipped += 1

    def not_shown(self, seconds: float) -> None:
        """Count a picture that has no time of its own, after what was shown until ``seconds``."""
        if seconds < self.entered_seconds:
            return
        if not self.num_not_shown:
            self.first_not_shown_seconds = seconds
        self.num_not_shown += 1

    def leave_out(self, length_seconds: float, seconds: float) -> None:
        """Count sound that is left out at a time because other sound is there already."""
        if not self.left_out_seconds:
            self.first_left_out_seconds = seconds
        self.left_out_seconds += length_seconds

    def note(self, text: str) -> None:
        """Remember a defect, once."""
        if text not in self.notes:
            self.notes.append(text)

    def disbelieve(self, text: str) -> None:
        """Note a claim about time that is not believed; then a declared end is not either."""
        self.note(text)
        self.is_end_believed = False

    def note_end(self, what: str, seconds: float, expected_seconds: float | None) -> None:
        """Note an end well before the declared one (None: none declared)."""
        if self.is_end_believed and expected_seconds is not None and seconds < expected_seconds - _BROKE_OFF_SECONDS:
            self.note(f"the {what} breaks off at {seconds:.2f} s of {expected_seconds:.2f} s")

    def note_cut(self, what: str, seconds: float, path: Path) -> None:
        """Note that a file ends before its container says, unless a problem noted before has already said so."""
        if self.problem() is None and (num_bytes := num_missing_bytes(path)):
            self.note(f"the {what} breaks off at {seconds:.2f} s, where the file is cut: {num_bytes} bytes are missing")

    def problem(self) -> str | None:
        """Describe what went wrong, or return None if nothing did."""
        texts = []
        if self.num_skipped:
            packets = "packet" if self.num_skipped == 1 else "packets"
            texts.append(f"{self.num_skipped} damaged {packets} skipped, the first at {self.first_seconds:.2f} s")
        texts += self.notes
        if self.num_not_shown:
            pictures = "picture is" if self.num_not_shown == 1 else "pictures are"
            texts.append(
                f"{self.num_not_shown} {pictures} not shown: by the time stamps no later than the one before, the "
                f"first after {self.first_not_shown_seconds:.2f} s"
            )
        if self.left_out_seconds:
            texts.append(
                f"{self.left_out_seconds:.2f} s of sound left out where time stamps repeat, the first at "
                f"{self.first_left_out_seconds:.2f} s"
            )
        if self.num_not_finite:
            one = self.num_not_finite == 1
            samples = "sample that is not finite was" if one else "samples that are not finite were"
            texts.append(f"{self.num_not_finite} {samples} set to 0")
        return "; ".join(texts) or None


def has_only_decoding_times(stream: Any) -> bool:
    """Return whether a picture stream's container says when packets are decoded, not when pictures are shown.

    What FFmpeg gives as presentation times there is guessed from the order in the file.
    """
    return _counts_frames(stream) or stream.container.format.name in ("asf", "asf_o")


def _counts_frames(stream: Any) -> bool:
    """Return whether the n-th packet is meant for the n-th picture: AVI, and what was taken from it into Matroska."""
    name = stream.container.format.name
    if name == "avi":
        return True
    # Matroska's own codec names have no four-character code; those for Video for Windows do.
    return "matroska" in name and bool(str(stream.codec_context.codec_tag).strip("\0"))


class PictureTimes:
    """When decoded pictures are shown, in ticks of the stream's time base.

    A frame's own presentation time, as long as those ascend. Where they step back more often than the times at which
    the packets were decoded, the latter are meant: this is what FFmpeg calls its best-effort time stamp, which PyAV
    does not give. In containers without presentation times it is so from the first frame on; and where they count
    frames, so that sound goes with the n-th packet, the frames that the codec holds back are no delay of the picture.
    """

    def __init__(self, stream: Any) -> None:
        self._decoding_only = has_only_decoding_times(stream)
        self._counts_frames = _counts_frames(stream)
        self._decoder = stream.codec_context
        self._first_dts: int | None = None  # of the packets sent
        self._step: int | None = None  # from one packet to the next
        self._delay: int | None = None  # known with the first picture
        self._last_pts: int | None = None
        self._last_dts: int | None = None
        self._num_faulty_pts = 0
        self._num_faulty_dts = 0

    def sent(self, packet: Any) -> None:
        """Record a packet that the decoder accepts."""
        if self._delay is not None or packet.dts is None:
            return
        if self._first_dts is None:
            self._first_dts = packet.dts
        elif self._step is None:
            self._step = packet.dts - self._first_dts

    def of(self, frame: Any) -> int | None:
        """Return the time of the next frame; None if it follows the one before."""
        pts, dts = frame.pts, frame.dts
        if self._decoding_only:
            if self._delay is None:
                num_held_back = self._decoder.reorder_depth if self._counts_frames else 0
                self._delay = num_held_back * max(0, self._step or 0)
                if dts is None:  # all come out behind the last packet
                    return pts if self._first_dts is None else self._first_dts
            return None if dts is None else dts - self._delay
        if dts is not None:
            self._num_faulty_dts += self._last_dts is not None and dts <= self._last_dts
            self._last_dts = dts
        if pts is not None:
            self._num_faulty_pts += self._last_pts is not None and pts <= self._last_pts
            self._last_pts = pts
        # The last frames come out after the last packet, so without a decoding time.
        if pts is not None and (self._last_dts is None or self._num_faulty_pts <= self._num_faulty_dts):
            return int(pts)
        return None if dts is None else int(dts)


def decode(packets: Iterator[Any], stream: Any, zero: float, damage: Damage) -> Iterator[tuple[float | None, Any]]:
    """Yield (seconds on the file's clock or None, frame) in presentation order, past whatever is damaged.

    The frame is None where an empty packet says that the picture stays.
    """
    latest_seconds = float("-inf")
    stays: deque[float] = deque()  # until when pictures stay; those that are shown before may still be in the decoder
    for seconds, frame in _decoded(packets, stream, zero, damage):
        if frame is None:
            if seconds is not None:
                stays.append(seconds)
            continue
        if seconds is not None:
            latest_seconds = max(latest_seconds, seconds)
            if seconds < latest_seconds - _MAX_STEP_BACK_SECONDS:
                damage.note(f"the time stamps jump back at {latest_seconds:.2f} s, what repeats a time is not read")
            stayed = None
            while stays and stays[0] < seconds:
                stayed = stays.popleft()
            if stayed is not None:
                yield stayed, None
        yield seconds, frame
    if stays:
        yield stays[-1], None


def _decoded(packets: Iterator[Any], stream: Any, zero: float, damage: Damage) -> Iterator[tuple[float | None, Any]]:
    """Yield (seconds, frame) as they come out of the decoder, (seconds, None) for an empty packet."""
    time_base = float(stream.time_base)
    pictures = PictureTimes(stream) if stream.type == "video" else None
    # Samples that are not compressed are whole up to where the file ends: without a length in its header, as in what
    # was piped, that is where it was meant to end.
    cut_is_whole = stream.codec_context.name.startswith("pcm_") and (
        stream.container.format.name not in _LOSSY_CONTAINERS
    )
    for packet, packet_seconds in _timed(packets, time_base, zero, damage):
        if not packet.size and not (packet.pts is None and packet.dts is None):  # at the end both are: the last frames
            if pictures is not None:
                yield packet_seconds, None
            continue
        if packet.is_corrupt and not cut_is_whole:  # incomplete: the decoder would make something up
            damage.skip(packet_seconds)
            continue
        try:
            frames = stream.codec_context.decode(packet)  # the packet may come from another opening of the file
        except (av.FFmpegError, ValueError) as error:  # PyAV's own is a ValueError: a decoder that gave up its codec
            if isinstance(error, av.FFmpegError) and error.errno == ENOMEM:
                raise MemoryError(f"{error.strerror} at {packet_seconds:.2f} s") from error
            damage.skip(packet_seconds)
            continue
        if pictures is not None:
            pictures.sent(packet)
        for frame in frames:
            ticks = frame.pts if pictures is None else pictures.of(frame)
            seconds = None if ticks is None else ticks * time_base - zero
            if frame.is_corrupt and not cut_is_whole:
                damage.skip(packet_seconds if seconds is None else seconds)
                continue
            yield seconds, frame


def _timed(packets: Iterator[Any], time_base: float, zero: float, damage: Damage) -> Iterator[tuple[Any, float]]:
    """Yield packets and their times (the previous one's where it has none), up to where reading breaks off."""
    seconds = 0.0
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            damage.note(f"reading broke off at {seconds:.2f} s ({error.strerror})")
            return
        if packet is None:
            return
        if packet.pts is not None:
            seconds = packet.pts * time_base - zero
        yield packet, seconds
