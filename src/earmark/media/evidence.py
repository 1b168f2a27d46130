"""What bears out the time stamps and the lengths that a file declares; the rule is `earmark.media.plausible`'s."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from earmark.media.opening import decodable_streams, end_seconds, file_end_seconds, open_media, packets_of
from earmark.media.plausible import BYTES_PER_SECOND, STEP_SECONDS, PacketTimes, believed_end

# Of more a header may claim too little: then what follows is looked at. Below it the transcoded file is small, too.
_MANY_BYTES, _MANY_BYTES_PER_SECOND = 1_000_000, 500_000


class Evidence:
    """What bears out the time stamps of one stream of a file.

    Nothing is read until a step is so long that it needs bearing out; then the packets of the whole file are walked
    once, and nothing is decoded.

    Args:
        path: of the file.
        index: of the stream in its container.
        zero: the time of the file's start on the container's own clock, in seconds.
    """

    def __init__(self, path: Path, index: int, zero: float) -> None:
        self._path, self._index, self._zero = path, index, zero
        self._end: float | None = None

    def believes(self, since_seconds: float, until_seconds: float) -> bool:
        """Return whether the stream may have nothing new from one time on the file's clock to another."""
        if until_seconds - since_seconds <= STEP_SECONDS:
            return True
        # What is not believed comes more than a step later; decoding may shift what is by less.
        return until_seconds <= self.end_seconds() + STEP_SECONDS / 2

    def end_seconds(self) -> float:
        """Return until when, on the file's clock, the time stamps are believed."""
        if self._end is None:
            self._end = _end_of(_walked(self._path, self._zero), self._index)
        return self._end


def plausible_end(path: Path, container: InputContainer, stream: Any, zero: float) -> float | None:
    """Return as much as is believed of the end that a stream's header declares, in seconds on the file's clock.

    Args:
        path: of the file.
        container: the same, opened; nothing is read from it.
        stream: of it.
        zero: the time of the file's start on the container's own clock, in seconds.

    Returns:
        None where nothing is declared.
    """
    return _checked(path, container, stream, zero, end_seconds(stream, zero))


def plausible_file_end(path: Path, container: InputContainer, stream: Any, zero: float) -> float | None:
    """Return the same of the end that the header declares for the whole file, held against one of its streams."""
    return _checked(path, container, stream, zero, file_end_seconds(container, zero))


def walked_end(path: Path, zero: float) -> float:
    """Return when the last of a file's packets ends on its clock, as far as their time stamps are believed."""
    walked = _walked(path, zero)
    return max((_end_of(walked, index) for index in walked), default=0.0)


def _goes_on_after(path: Path, index: int, end: float, zero: float) -> bool:
    """Return whether a stream has data well after its declared end, as where a header was never brought up to date."""
    return any(seconds > end + STEP_SECONDS for seconds in _times_from(path, index, end, zero))


def _checked(path: Path, container: InputContainer, stream: Any, zero: float, declared: float | None) -> float | None:
    """Return a declared end if data bears it out, else the end that the packets bear out."""
    if declared is not None and path.stat().st_size > _MANY_BYTES + declared * _MANY_BYTES_PER_SECOND:
        if _goes_on_after(path, stream.index, declared, zero):
            return Evidence(path, stream.index, zero).end_seconds()
        return declared
    if declared is None or declared <= STEP_SECONDS:
        return declared
    if path.stat().st_size >= declared * BYTES_PER_SECOND:  # of less there is no telling without a walk
        others = [other for kind in ("video", "audio") for other in decodable_streams(container, kind)]
        ends = [end_seconds(other, zero) for other in others if other.index != stream.index]
        if any(end is not None and abs(end - declared) <= STEP_SECONDS for end in ends):
            return declared
        if _has_data_near(path, stream.index, declared, zero):
            return declared
    return min(declared, Evidence(path, stream.index, zero).end_seconds())


def _has_data_near(path: Path, index: int, end: float, zero: float) -> bool:
    """Return whether a stream has data around its declared end."""
    since = max(0.0, end - STEP_SECONDS / 2)  # where nothing follows, not every container can be sought in
    return any(abs(seconds - end) <= STEP_SECONDS for seconds in _times_from(path, index, since, zero))


def _times_from(path: Path, index: int, seconds: float, zero: float) -> Iterator[float]:
    """Yield the times of a stream's packets from around a time on; none where it can't be sought."""
    with open_media(path) as container:
        stream: Any = container.streams[index]
        for other in container.streams:
            if other.index != index:
                other.discard = av.stream.Discard.all
        try:
            container.seek(int((seconds + zero) / stream.time_base), stream=stream)
            for packet in packets_of(container, stream):
                ticks = packet.dts if packet.pts is None else packet.pts
                if packet.size and ticks is not None:
                    yield float(ticks * packet.time_base) - zero
        except (av.FFmpegError, OverflowError):  # the walk finds out
            return


def _walked(path: Path, zero: float) -> dict[int, PacketTimes]:
    """Read the times of all packets of picture and sound, by the streams' indices."""
    with open_media(path) as container:
        streams = decodable_streams(container, "video") + decodable_streams(container, "audio")
        walked = {stream.index: PacketTimes() for stream in streams}
        packets = packets_of(container, *streams)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:  # where reading breaks off there is nothing more
                break
            if packet is None:
                break
            ticks = packet.dts if packet.pts is None else packet.pts
            if ticks is not None:
                length = float((packet.duration or 0) * packet.time_base)
                walked[packet.stream.index].add(float(ticks * packet.time_base) - zero, length, packet.size)
    return walked


def _end_of(walked: dict[int, PacketTimes], index: int) -> float:
    return believed_end(walked[index], [times for other, times in walked.items() if other != index])
