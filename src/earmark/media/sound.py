"""Reading sound: contiguous mono blocks on the file's clock, at any rate."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

from earmark.media.decoding import Damage, decode
from earmark.media.evidence import Evidence
from earmark.media.mixing import Mixer
from earmark.media.opening import (
    JITTER_SECONDS,
    MediaError,
    end_seconds,
    only_stream,
    open_media,
    packets_of,
    time_zero,
)
from earmark.media.plausible import implausible_rate
from earmark.media.sound_clock import JUDGED_PIECES, JUDGED_SECONDS, Lookahead, Piece, clock_is_off

# What a codec puts before the first sample (up to 80 ms) is not missing sound.
_MAX_PRIMING_SECONDS = 0.15


def rechunk(blocks: Iterable[NDArray[Any]], size: int) -> Iterator[NDArray[Any]]:
    """Regroup a stream of one-dimensional blocks into blocks of one size.

    Args:
        blocks: arrays of shape ``(S,)``, any lengths.
        size: samples in every block but the last.

    Yields:
        Arrays of shape ``(size,)``; the last one holds the rest, if there is any.

    Example:
        >>> [block.tolist() for block in rechunk([np.arange(3), np.arange(3, 5)], 2)]
        [[0, 1], [2, 3], [4]]
    """
    pending: list[NDArray[Any]] = []
    num_pending = 0
    for block in blocks:
        pending.append(block)
        num_pending += len(block)
        if num_pending >= size:
            joined = np.concatenate(pending)
            num_full = num_pending // size * size
            for start in range(0, num_full, size):
                yield joined[start : start + size]
            pending, num_pending = [joined[num_full:]], num_pending - num_full
    if num_pending:
        yield np.concatenate(pending)


class Resampler:
    """Change the sample rate of a stream of mono blocks by FFmpeg's swresample.

    The delay of its filter is taken back: sample k of the concatenated output is at time k / target_rate, and n samples
    become ``round(n * target_rate / source_rate)``.

    Args:
        source_rate: in Hz.
        target_rate: in Hz.

    Example:
        >>> resampler = Resampler(44100, 16000)
        >>> block = resampler(np.zeros(44100, np.float32))
        >>> len(block) + len(resampler.flush())
        16000
    """

    def __init__(self, source_rate: int, target_rate: int) -> None:
        self._ratio = Fraction(target_rate, source_rate)
        self._source_rate = source_rate
        self._swr = AudioResampler(format="fltp", layout="mono", rate=target_rate)
        self._num_in = 0
        self._num_out = 0

    def __call__(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take in float32 mono ``(S,)`` and return what is ready, float32 mono of any length."""
        if not len(block):
            return np.empty(0, np.float32)
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(block, np.float32)[None], format="fltp", layout="mono")
        frame.sample_rate = self._source_rate
        self._num_in += len(block)
        return self._collect(frame)

    def flush(self) -> NDArray[np.float32]:
        """End the stream: return the rest, so that the whole has its exact length."""
        rest = self._collect(None)
        num_missing = round(self._num_in * self._ratio) - self._num_out
        self._num_out += num_missing
        # The filter's tail is a few samples longer or shorter than the stream.
        return np.pad(rest, (0, num_missing)) if num_missing > 0 else rest[: len(rest) + num_missing]

    def _collect(self, frame: AudioFrame | None) -> NDArray[np.float32]:
        parts = [part.to_ndarray()[0] for part in self._swr.resample(frame)]
        out = np.concatenate(parts) if parts else np.empty(0, np.float32)
        self._num_out += len(out)
        return np.asarray(out, np.float32)


class SoundReader:
    """Read a file's sound as contiguous mono blocks.

    Iterating yields float32 blocks ``(S,)``, the mean of the channels. Sample k of their concatenation is at time
    k / sample_rate on the file's clock: a late start and gaps are silence, overlaps are cut; where its time stamps
    contradict its length throughout, samples are counted. Each iteration reads the file again; memory does not grow
    with its length.

    Args:
        path: the file.
        sample_rate: in Hz; None for the file's own.
        block_seconds: length of every block but the last; one second still fits a processor's cache.
        audio_stream: the n-th sound stream instead of the container's default.

    Attributes:
        path: the file.
        stream_number: the n-th sound stream, or None for the container's default.
        sample_rate: of the blocks, in Hz.
        num_samples: yielded so far.
        problem: None, or what is wrong with the sound: damaged packets, an early end, samples that are not finite.
            Complete after the last block.

    Raises:
        MediaError: on construction, if the file can't be opened or has no sound; while iterating, if nothing of it
            could be decoded.

    Example:
        >>> import tempfile, scipy.io.wavfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     scipy.io.wavfile.write(f"{folder}/a.wav", 800, np.zeros((800, 2), np.int16))
        ...     [block.shape for block in SoundReader(f"{folder}/a.wav", block_seconds=0.75)]
        [(600,), (200,)]
    """

    def __init__(
        self,
        path: str | Path,
        *,
        sample_rate: int | None = None,
        block_seconds: float = 1.0,
        audio_stream: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.stream_number = audio_stream
        with open_media(path) as container:
            own_rate = only_stream(container, "audio", audio_stream).codec_context.sample_rate
        if not (sample_rate or own_rate):
            raise MediaError(f"{path}: the sound has no sample rate")
        self.sample_rate = int(sample_rate or own_rate)
        self._block_size = round(block_seconds * self.sample_rate)
        if self._block_size < 1:
            raise ValueError(f"block_seconds={block_seconds} is less than a sample at {self.sample_rate} Hz")
        self.num_samples = 0
        self._damage = Damage()
        self._clock_is_believed = True

    @property
    def problem(self) -> str | None:
        """What is wrong with the sound read so far, or None."""
        return self._damage.problem()

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Read the sound from its start."""
        with open_media(self.path) as container:
            stream = only_stream(container, "audio", self.stream_number)
            yield from self.read(packets_of(container, stream), stream, time_zero(container))

    def read(self, packets: Iterator[Any], stream: Any, zero: float) -> Iterator[NDArray[np.float32]]:
        """Yield the blocks of a stream that somebody else opened (see :func:`earmark.media.read_interleaved`).

        Args:
            packets: all packets of the stream, in order.
            stream: of the opened file.
            zero: the time of the file's start on the stream's own clock, in seconds.
        """
        self.num_samples = 0
        self._damage = Damage()
        self._clock_is_believed = True
        for block in rechunk(self._at_one_rate(self._on_the_clock(packets, stream, zero)), self._block_size):
            self.num_samples += len(block)
            yield block
        if not self.num_samples:
            raise MediaError(f"{self.path}: no sound could be decoded ({self.problem or 'the stream is empty'})")
        if self._clock_is_believed:
            self._damage.note_end("sound", self.num_samples / self.sample_rate, end_seconds(stream, zero))
        self._damage.note_cut("sound", self.num_samples / self.sample_rate, self.path)

    def _on_the_clock(
        self, packets: Iterator[Any], stream: Any, zero: float
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield (rate, samples) without gap or overlap from time 0 on."""
        tolerance = max(JITTER_SECONDS, float(stream.time_base))
        # AVI counts its sound by a rate in its header: where that is wrong, there are no gaps but too high a count.
        only_overlaps = stream.container.format.name != "avi"
        pieces = Lookahead(self._pieces(packets, stream, zero))
        evidence = Evidence(self.path, stream.index, zero)
        believed = True
        num_judged = 0  # of the pieces to come, how many were looked at already
        base_seconds, num_samples, rate = 0.0, 0, 0  # the position is base_seconds + num_samples / rate
        for piece in pieces:
            if piece.rate != rate:
                base_seconds, num_samples, rate = base_seconds + num_samples / (rate or 1), 0, piece.rate
            position = base_seconds + num_samples / rate
            samples = piece.samples
            # The first sample is put where it belongs, later ones only moved when they are off by more than rounding.
            step = piece.seconds - position if believed and piece.seconds is not None else 0.0
            is_off = abs(step) > (tolerance if position else 0.0)
            if is_off and position and not num_judged and (step < 0 or not only_overlaps):
                window = [piece, *pieces.ahead(JUDGED_SECONDS, JUDGED_PIECES)]
                if clock_is_off(window, only_slow=only_overlaps):
                    believed, is_off = False, False
                    self._damage.note(
                        f"the sound's time stamps do not fit its length from {position:.2f} s on: its samples are "
                        "counted instead"
                    )
                num_judged = len(window)
            num_judged = max(0, num_judged - 1)
            if is_off and not evidence.believes(position, position + step):
                self._damage.disbelieve(
                    f"the time stamps jump from {position:.2f} s to {piece.seconds:.2f} s, which nothing else in the "
                    "file bears out: the rest is not read"
                )
                return
            if is_off:
                num_silent = round(step * rate)
                while num_silent > 0:  # in pieces: an hour of silence is not held in memory
                    part = min(num_silent, 10 * rate)
                    yield rate, np.zeros(part, np.float32)
                    num_samples += part
                    num_silent -= part
                num_cut = min(-num_silent, len(samples))
                if num_cut > (0 if position else rate * _MAX_PRIMING_SECONDS):
                    self._damage.leave_out(num_cut / rate, position)
                samples = samples[num_cut:]
            yield rate, samples
            num_samples += len(samples)
        self._clock_is_believed = believed

    def _pieces(self, packets: Iterator[Any], stream: Any, zero: float) -> Iterator[Piece]:
        mixer = Mixer()
        for seconds, frame in decode(packets, stream, zero, self._damage):
            if implausible_rate(frame.sample_rate):  # another than its header says
                self._damage.skip(seconds or 0.0)
                continue
            try:
                samples = mixer(frame)
            except MediaError as error:
                raise MediaError(f"{self.path}: {error}") from error
            finite = np.isfinite(samples)
            if not finite.all():
                self._damage.num_not_finite += int(len(finite) - finite.sum())
                samples = np.where(finite, samples, np.float32(0))
            yield Piece(seconds, frame.sample_rate, samples)

    def _at_one_rate(self, parts: Iterable[tuple[int, NDArray[np.float32]]]) -> Iterator[NDArray[np.float32]]:
        """Resample what is not at the reader's rate; the rate may change within a stream."""
        for rate, run in groupby(parts, key=lambda part: part[0]):
            blocks = (samples for _, samples in run)
            if rate == self.sample_rate:
                yield from blocks
                continue
            resampler = Resampler(rate, self.sample_rate)
            # A codec's frames are short; one second at a time keeps the cost per call low.
            for block in rechunk(blocks, rate):
                yield resampler(block)
            yield resampler.flush()
