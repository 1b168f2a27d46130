"""Opening a media file, choosing its streams, its clock, and decoding past damage: what all readers share."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

# FFmpeg also "demuxes" playlists and scripts (hls, dash, concat, sdp, ...), which open other files and addresses.
# Bare H.264 and the like have no time stamps, so no clock.
_CONTAINERS = (
    "matroska,mov,mp4,mpegts,mpeg,avi,webm,asf,dv,flv,ivf,mxf,nut,ogg,rm,wtv,"
    "aac,ac3,aiff,amr,au,caf,eac3,flac,mp3,w64,wav"
)
# PyAV before 19 refuses tags that are not UTF-8 unless told how to take them; 19 always takes them so.
_TAGS: dict[str, Any] = {"metadata_errors": "surrogateescape"} if int(av.__version__.partition(".")[0]) < 19 else {}
# Time stamps are rounded (to 1 ms in Matroska, to a frame in AVI): only a step beyond this is a gap or an overlap.
JITTER_SECONDS = 0.02
# A longer step between neighbours is a damaged time stamp, not a pause: it would become hours of silence.
MAX_GAP_SECONDS = 3600.0
# A step back by more than this is no disorder of neighbours: the clock was set back, as where recordings were joined.
_MAX_STEP_BACK_SECONDS = 1.0
# A stream that ends this much before its declared end broke off; containers round declared ends to packets.
_BROKE_OFF_SECONDS = 0.25


class MediaError(ValueError):
    """A media file that can't be read: the message names the file and the reason."""


@contextmanager
def open_media(path: str | Path) -> Iterator[InputContainer]:
    """Open a media file; whatever FFmpeg raises inside the block becomes a MediaError."""
    path = Path(path)
    try:
        state = path.stat()
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise MediaError(f"{path}: {reason}") from error
    if not stat.S_ISREG(state.st_mode):
        raise MediaError(f"{path}: {'a directory' if stat.S_ISDIR(state.st_mode) else 'not a regular file'}")
    if not state.st_size:
        raise MediaError(f"{path}: the file is empty")
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
    try:
        container = av.open(f"file:{path}", container_options=options, **_TAGS)
    except av.FFmpegError as error:
        raise MediaError(f"{path}: not a media file that can be opened ({error.strerror})") from error
    try:
        with container:
            yield container
    except av.FFmpegError as error:
        raise MediaError(f"{path}: {error.strerror}") from error


def decodable_streams(container: InputContainer, kind: str) -> list[Any]:
    """Return the decodable streams of a kind, covers left out."""
    attached = av.stream.Disposition.attached_pic
    return [s for s in container.streams if s.type == kind and s.codec_context and not s.disposition & attached]


def choose_stream(container: InputContainer, kind: str, number: int | None) -> Any:
    """Return the ``number``-th stream of a kind, or the container's default; None if it has none of the kind."""
    streams = decodable_streams(container, kind)
    if number is not None:
        if not 0 <= number < len(streams):
            raise MediaError(
                f"{container.name.removeprefix('file:')}: no {kind} stream {number}, it has {len(streams)}"
            )
        return streams[number]
    best = container.streams.best(kind)  # type: ignore[arg-type]
    return best if best in streams else next(iter(streams), None)


def only_stream(container: InputContainer, kind: str, number: int | None) -> Any:
    """Choose as :func:`choose_stream`, and have the demuxer skip all other streams."""
    stream = choose_stream(container, kind, number)
    if stream is None:
        name = "sound" if kind == "audio" else "picture"
        raise MediaError(f"{container.name.removeprefix('file:')}: no {name} stream that can be decoded")
    for other in container.streams:
        if other.index != stream.index:
            other.discard = av.stream.Discard.all
    return stream


def time_zero(container: InputContainer) -> float:
    """Return the start of the presentation on the container's own clock, in seconds."""
    streams = decodable_streams(container, "video") + decodable_streams(container, "audio")
    starts = [float(s.start_time * s.time_base) for s in streams if s.start_time is not None]
    return max(0.0, min(starts, default=0.0))


def start_seconds(stream: Any, zero: float) -> float:
    """Return when a stream starts on the file's clock."""
    return 0.0 if stream.start_time is None else float(stream.start_time * stream.time_base) - zero


def end_seconds(stream: Any, zero: float) -> float | None:
    """Return a stream's declared end on the file's clock, or None; Matroska's is a tag, ``00:00:10.381000000``."""
    if stream.duration is not None:
        return start_seconds(stream, zero) + float(stream.duration * stream.time_base)
    try:
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - zero
    except (KeyError, ValueError):
        return None


@dataclass(slots=True)
class Damage:
    """What went wrong while a stream was decoded."""

    num_skipped: int = 0
    first_seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    entered_seconds: float = float("-inf")  # where decoding began or was taken up again, at a key frame

    def skip(self, seconds: float) -> None:
        """Count a damaged packet at a time; what needs frames before the key frame of entry is not damaged."""
        if seconds < self.entered_seconds:
            return
        if not self.num_skipped:
            self.first_seconds = seconds
        self.num_skipped += 1

    def note(self, text: str) -> None:
        """Remember a defect, once."""
        if text not in self.notes:
            self.notes.append(text)

    def note_end(self, what: str, seconds: float, expected_seconds: float | None) -> None:
        """Note an end well before the declared one (None: none declared)."""
        if expected_seconds is not None and seconds < expected_seconds - _BROKE_OFF_SECONDS:
            self.note(f"the {what} breaks off at {seconds:.2f} s of {expected_seconds:.2f} s")

    def problem(self) -> str | None:
        """Put it in words, or None if all was well."""
        texts = list(self.notes)
        if self.num_skipped:
            packets = "packet" if self.num_skipped == 1 else "packets"
            texts.insert(0, f"{self.num_skipped} damaged {packets} skipped, the first at {self.first_seconds:.2f} s")
        return "; ".join(texts) or None


def decode(packets: Iterator[Any], stream: Any, zero: float, damage: Damage) -> Iterator[tuple[float | None, Any]]:
    """Yield (seconds on the file's clock or None, frame) in presentation order, past whatever is damaged."""
    time_base = float(stream.time_base)
    last_seconds, latest_seconds = 0.0, float("-inf")
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            damage.note(f"reading broke off at {last_seconds:.2f} s ({error.strerror})")
            return
        if packet is None:
            return
        if packet.pts is not None:
            last_seconds = packet.pts * time_base - zero
        if packet.is_corrupt:  # incomplete: the decoder would make something up
            damage.skip(last_seconds)
            continue
        try:
            frames = stream.codec_context.decode(packet)  # the packet may come from another opening of the file
        except av.FFmpegError:
            damage.skip(last_seconds)
            continue
        for frame in frames:
            seconds = None if frame.pts is None else frame.pts * time_base - zero
            if frame.is_corrupt:
                damage.skip(last_seconds if seconds is None else seconds)
                continue
            if seconds is not None:
                latest_seconds = max(latest_seconds, seconds)
                if seconds < latest_seconds - _MAX_STEP_BACK_SECONDS:
                    damage.note(f"the time stamps jump back at {latest_seconds:.2f} s, what repeats a time is not read")
            yield seconds, frame
