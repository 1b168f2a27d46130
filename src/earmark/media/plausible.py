"""What is believed of what a file claims: how long it lasts, its rates, its sizes.

A few damaged bytes in a header or a time stamp claim hours, a picture of gigabytes or two thousand million samples a
second. One rule for all readers says what of that is believed, so that nothing grows to what only a number asks for:

- A step in time of up to a minute without new data is always believed: a slide, a time-lapse, a rest.
- A longer one is believed where another stream of the file goes on meanwhile: a still picture over an hour of sound.
- What no other stream bears out is a pause. It is believed up to an hour, and all pauses of a stream together up to
  what its data makes plausible (`_believed_pauses`): a break in a long recording is, hours between three packets not.
- Rates and sizes are believed up to what is recorded anywhere, the constants below.

What is not believed is left out, and named: in a reader's ``problem``, in that of :class:`earmark.media.MediaInfo`, or
in the :class:`earmark.media.MediaError` where nothing is left. `earmark.media.evidence` applies the rule to files.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

# What stays for as long needs nobody else to bear it out: slides, time-lapses, pictures sent only when they change.
STEP_SECONDS = 60.0
# A longer pause is a damaged time stamp: it would become hours of silence.
_MAX_PAUSE_SECONDS = 3600.0
# All pauses of a stream together: a quarter of an hour, in which a single slide may stay;
_PAUSE_SECONDS = 900.0
# ten times as long as it has data for, as where a camera writes only when something moves;
_PAUSES_PER_SECOND = 10.0
# and a second for so many bytes: a slide that stays for minutes, and nobody speaks, has a hundred kilobytes.
BYTES_PER_SECOND = 300

# Cameras of 12K have 80 million pixels; a picture of more takes gigabytes to decode.
MAX_PIXELS = 100_000_000
# The sides of panoramas and of walls of lamps differ by less.
_MAX_ASPECT = 100
# Converters for music and for bats end at 768 kHz; below 100 Hz nothing is heard.
_MIN_SAMPLE_RATE, _MAX_SAMPLE_RATE = 100, 768_000
# Telephones that slow motion down take 960 frames per second.
_MAX_FPS = 1000
# Opus has the most of all codecs that are read.
_MAX_CHANNELS = 255


def implausible_stream(stream: Any) -> str | None:
    """Say what the header of a picture or sound stream claims that is not believed; None if nothing is."""
    context = stream.codec_context
    if stream.type == "video":
        # Elsewhere a rate is only a time base; there it is the clock of the pictures.
        if stream.container.format.name == "avi" and (stream.average_rate or 0) > _MAX_FPS:
            return (
                f"the picture claims {float(stream.average_rate):.0f} frames per second, more than {_MAX_FPS} are not "
                "believed"
            )
        return implausible_size(context.width, context.height)
    if context.channels > _MAX_CHANNELS:
        return f"the sound claims {context.channels} channels, more than {_MAX_CHANNELS} are not believed"
    return implausible_rate(context.sample_rate)


def implausible_rate(sample_rate: int) -> str | None:
    """Say why a sample rate in Hz is not believed; None if it is, or is not known (0).

    Example:
        >>> implausible_rate(384_000), implausible_rate(2**31 - 1)
        (None, 'the sound claims 2147483647 Hz, only 100 to 768000 Hz are believed')
    """
    if not sample_rate or _MIN_SAMPLE_RATE <= sample_rate <= _MAX_SAMPLE_RATE:
        return None
    return f"the sound claims {sample_rate} Hz, only {_MIN_SAMPLE_RATE} to {_MAX_SAMPLE_RATE} Hz are believed"


def implausible_size(width: int, height: int, *, known: bool = False) -> str | None:
    """Say why a size of pictures in pixels is not believed; None if it is.

    Args:
        width: in pixels; 0 where it is not known, which may come with the first picture.
        height: the same.
        known: whether the first picture has been looked for. FFmpeg forgets a size that is more than it is allowed.

    Example:
        >>> implausible_size(7680, 4320), implausible_size(16000, 16000)
        (None, 'the picture claims 16000 x 16000 pixels, more than 100 million are not believed')
    """
    if known and not (width and height):
        return f"the picture has no size, or one of more than {MAX_PIXELS // 10**6} million pixels"
    claim = f"the picture claims {width} x {height} pixels"
    if width * height > MAX_PIXELS:
        return f"{claim}, more than {MAX_PIXELS // 10**6} million are not believed"
    if max(width, height) > _MAX_ASPECT * max(1, min(width, height)):
        return f"{claim}, sides that differ by more than a factor of {_MAX_ASPECT} are not believed"
    return None


@dataclass(slots=True)
class PacketTimes:
    """When the packets of a stream begin and end, in seconds on the file's clock.

    Attributes:
        starts: of the packets with data.
        ends: of the same; where one claims to last for more than a step, its start.
        claimed_end: the latest end that any packet claims; also an empty one, which says that what was shown stays.
        num_bytes: of all of them.
    """

    starts: "array[float]" = field(default_factory=lambda: array("d"))
    ends: "array[float]" = field(default_factory=lambda: array("d"))
    claimed_end: float = 0.0
    num_bytes: int = 0

    def add(self, start_seconds: float, length_seconds: float, num_bytes: int) -> None:
        """Take in a packet."""
        self.claimed_end = max(self.claimed_end, start_seconds + length_seconds)
        if num_bytes:
            self.starts.append(start_seconds)
            self.ends.append(start_seconds + (length_seconds if length_seconds <= STEP_SECONDS else 0.0))
            self.num_bytes += num_bytes


def believed_end(stream: PacketTimes, others: Sequence[PacketTimes]) -> float:
    """Return until when the time stamps of a stream are believed, in seconds on the file's clock.

    Args:
        stream: which one.
        others: the other streams of the file.

    Example:
        >>> picture, sound = PacketTimes(), PacketTimes()
        >>> for hour in range(3):
        ...     picture.add(3600.0 * hour, 0.1, 500)
        >>> believed_end(picture, [sound])
        0.1
        >>> for second in range(7200):
        ...     sound.add(float(second), 1.0, 500)
        >>> believed_end(picture, [sound])
        7200.1
    """
    starts = sorted(stream.starts)
    covered = [_covered(other) for other in others]
    allowed = _believed_pauses(starts, stream.num_bytes)
    believed = 0.0
    for start in [*starts, stream.claimed_end]:
        if start - believed > STEP_SECONDS:
            pause = min((_bare_seconds(believed, start, parts) for parts in covered), default=start - believed)
            if pause > STEP_SECONDS:
                if pause > min(allowed, _MAX_PAUSE_SECONDS):
                    break
                allowed -= pause
        believed = max(believed, start)
    ends = (end for start, end in zip(stream.starts, stream.ends, strict=True) if start <= believed)
    return max(believed, max(ends, default=0.0))


def _believed_pauses(starts: Sequence[float], num_bytes: int) -> float:
    """Return how many seconds of pauses a stream's data makes plausible."""
    steps = (later - earlier for earlier, later in pairwise(starts))
    with_data = sum(step for step in steps if step <= STEP_SECONDS)
    return _PAUSE_SECONDS + _PAUSES_PER_SECOND * with_data + num_bytes / BYTES_PER_SECOND


def _covered(packets: PacketTimes) -> list[tuple[float, float]]:
    """Return when a stream goes on without a step that would need bearing out: (start, end), ascending and apart."""
    covered: list[tuple[float, float]] = []
    for start, end in sorted(zip(packets.starts, packets.ends, strict=True)):
        if covered and start - covered[-1][1] <= STEP_SECONDS:
            covered[-1] = (covered[-1][0], max(end, covered[-1][1]))
        else:
            covered.append((start, end))
    return covered


def _bare_seconds(since: float, until: float, covered: list[tuple[float, float]]) -> float:
    """Return how much of a time lies outside of what is covered."""
    bare = until - since
    for start, end in covered[bisect_left(covered, since, key=lambda part: part[1]) :]:
        if start >= until:
            break
        bare -= min(end, until) - max(start, since)
    return bare
