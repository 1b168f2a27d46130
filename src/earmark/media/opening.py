"""Opening a media file, choosing its streams, and its clock: what all readers share."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from earmark.media.plausible import MAX_PIXELS, implausible_stream
from earmark.media.unfinished import lacks_length, missing_index, num_missing_bytes

# FFmpeg also "demuxes" playlists and scripts (hls, dash, concat, sdp, ...), which open other files and addresses.
# Bare H.264 and the like have no time stamps, so no clock.
_CONTAINERS = (
    "matroska,mov,mp4,mpegts,mpeg,avi,webm,asf,dv,flv,ivf,mxf,nut,ogg,rm,wtv,"
    "aac,ac3,aiff,amr,au,caf,eac3,flac,mp3,w64,wav"
)
# PyAV before 19 refuses tags that are not UTF-8 unless given an error handler; 19 always has one.
_TAGS: dict[str, Any] = {"metadata_errors": "surrogateescape"} if int(av.__version__.partition(".")[0]) < 19 else {}
# Time stamps are rounded (to 1 ms in Matroska, to a frame in AVI): only a step beyond this is a gap or an overlap.
JITTER_SECONDS = 0.02
# A clock of 33 bits begins anywhere and wraps: what FFmpeg puts before its zero there was recorded before the wrap.
_WRAPPING_CONTAINERS = {"mpegts", "mpeg"}
# What a header says of sizes is looked at before anything is decoded; what pictures say of their own, the decoder does.
_DECODER_OPTIONS = {"max_pixels": str(MAX_PIXELS)}


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
        if lacks_length(path, b"RF64"):
            options["ignore_length"] = "1"  # FFmpeg knows the placeholders of wav, but not those of RF64
    except OSError as error:
        raise MediaError(f"{path}: {error.strerror}") from error
    try:
        container = av.open(f"file:{path}", options=_DECODER_OPTIONS, container_options=options, **_TAGS)
    except av.FFmpegError as error:
        raise MediaError(f"{path}: not a media file that can be opened ({_reason(path, error)})") from error
    try:
        with container:
            if not container.streams and (reason := missing_index(path)):
                raise MediaError(f"{path}: not a media file that can be opened ({reason})")
            for stream in container.streams.video:
                if stream.codec_context:
                    stream.codec_context.options = _DECODER_OPTIONS
            yield container
    except av.FFmpegError as error:
        raise MediaError(f"{path}: {error.strerror}") from error


def packets_of(container: InputContainer, *streams: Any) -> Iterator[Any]:
    """Yield the packets of some streams of an opened file, and at the end an empty one for each, as PyAV does.

    A broadcast may begin another stream in the middle, at a packet of which PyAV may raise an IndexError: it belongs to
    none of the streams that are asked for, and is passed over.
    """
    while True:
        try:
            yield from container.demux(*streams)
            return
        except IndexError:  # it has been read, and the next call goes on behind it
            continue


def _reason(path: Path, error: av.FFmpegError) -> str:
    if reason := missing_index(path):
        return reason
    if num_bytes := num_missing_bytes(path):
        return f"it is cut: {num_bytes} bytes are missing at its end"
    if isinstance(error, av.ArgumentError):  # what FFmpeg says of a format that is not on the list
        return "a format that is not read, as pictures without sound or time stamps are"
    return str(error.strerror)


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
    """Choose as :func:`choose_stream`, and have the demuxer skip all other streams.

    Raises:
        MediaError: if there is none, or its header claims what is not believed.
    """
    stream = choose_stream(container, kind, number)
    if stream is None:
        name = "sound" if kind == "audio" else "picture"
        raise MediaError(f"{container.name.removeprefix('file:')}: no {name} stream that can be decoded")
    if reason := implausible_stream(stream):
        raise MediaError(f"{container.name.removeprefix('file:')}: {reason}")
    for other in container.streams:
        if other.index != stream.index:
            other.discard = av.stream.Discard.all
    return stream


def time_zero(container: InputContainer) -> float:
    """Return the start of the presentation on the container's own clock, in seconds."""
    streams = decodable_streams(container, "video") + decodable_streams(container, "audio")
    starts = [float(s.start_time * s.time_base) for s in streams if s.start_time is not None]
    first = min(starts, default=0.0)
    return first if container.format.name in _WRAPPING_CONTAINERS else max(0.0, first)


def start_seconds(stream: Any, zero: float) -> float:
    """Return when a stream starts on the file's clock."""
    return 0.0 if stream.start_time is None else float(stream.start_time * stream.time_base) - zero


def says_no_length(container: InputContainer) -> bool:
    """Return whether what a file's header says of lengths is a placeholder, as in AVI that was written to a pipe."""
    return container.format.name == "avi" and lacks_length(Path(container.name.removeprefix("file:")), b"RIFF")


def file_end_seconds(container: InputContainer, zero: float) -> float | None:
    """Return the declared end of the whole file on its clock, or None."""
    if container.duration is None or says_no_length(container):
        return None
    return ((container.start_time or 0) + container.duration) / av.time_base - zero


def end_seconds(stream: Any, zero: float) -> float | None:
    """Return a stream's declared end on the file's clock, or None; Matroska's is a tag, ``00:00:10.381000000``."""
    if says_no_length(stream.container):
        return None
    if stream.duration is not None:
        return start_seconds(stream, zero) + float(stream.duration * stream.time_base)
    try:
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - zero
    except (KeyError, ValueError):
        return None
