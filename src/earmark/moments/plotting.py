"""Pictures of where the moments of a recording are: a PNG, or a page with sound that opens from disk.

On top is the whole recording: waveform, spectrogram and
the detector's curve, whose peaks the moments are; below it the moments that stand out most, each with its spectrogram
and, where there is a picture, a frame before and after. The page is one self-contained HTML file (template
``moments.html``) that loads nothing from a server.
"""

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray
from scipy.signal import ShortTimeFFT, resample_poly
from scipy.signal.windows import hann

from earmark.atomic import replacing
from earmark.media import MediaError, SoundReader, media_info, read_frames
from earmark.media.page import data_uri, jpeg_uri, render_page, wav_uri
from earmark.moments.detector import Moment
from earmark.moments.options import DETECTORS

__all__ = ["write_plot"]

SHOWN_PNG, SHOWN_HTML = 12, 60  # moments shown by themselves, those of the highest score
AROUND_SECONDS = 1.0  # of sound, to each side of a moment
FRAME_SECONDS = 0.5  # from the moment to the frame before it and to the one after
_MAX_COLUMNS = 2400  # of the overview: more than a screen has pixels
_NUM_BANDS, _LOWEST_HZ, _HIGHEST_HZ = 96, 60.0, 20000.0
_RANGE_DB = 75.0
_FRAME_SIDE = 180
_FRAME_QUALITY = 85  # of its JPEG
_PAGE_RATE = 24000
_MARK_SECONDS = 0.03  # a detector's moment may be so far from the curve's peak
_MAX_LINES = 60
_NOTHING_DB = 10 * math.log10(1e-9)  # level of digital silence, so that it is a number
_DARKEST_TOP_DB = _NOTHING_DB + 25  # what is below is drawn dark even where nothing else is heard


@dataclass(frozen=True, slots=True)
class Style:
    """Colours of what is drawn around the spectrograms.

    Attributes:
        ground: behind everything; "none" lets the page through.
        ink: of text and ticks.
        line: of waveform and curve.
        mark: of moments.
    """

    ground: str
    ink: str
    line: str
    mark: str


_PICTURE = Style("white", "#30363d", "#1f5fbf", "#d1242f")
_IN_PAGE = Style("none", "#7c858f", "#4184e4", "#e5534b")  # to be read on a light page and on a dark one


class Columns:
    """Keep the greatest of a stream of values in equal steps of time, in flat memory: the step doubles as needed.

    Args:
        step_seconds: the first step.

    Example:
        >>> columns = Columns(1.0)
        >>> columns.add(np.array([0.2, 0.7, 3.5]), np.array([[5.0], [2.0], [7.0]]))
        >>> columns.values()[:, 0].tolist(), columns.step_seconds
        ([5.0, -inf, -inf, 7.0], 1.0)
    """

    def __init__(self, step_seconds: float) -> None:
        self.step_seconds = step_seconds
        self._kept: NDArray[np.float32] | None = None
        self._num_steps = 0

    def add(self, times_seconds: NDArray[np.float64], values: NDArray[Any]) -> None:
        """Take in values ``(N, K)`` at times ``(N,)``, which ascend from call to call too."""
        if not len(times_seconds):
            return
        if self._kept is None:
            self._kept = np.full((2 * _MAX_COLUMNS, values.shape[1]), -np.inf, np.float32)
        while times_seconds[-1] // self.step_seconds >= len(self._kept):
            halved = self._kept.reshape(_MAX_COLUMNS, 2, -1).max(axis=1)
            self._kept = np.concatenate([halved, np.full_like(halved, -np.inf)])
            self.step_seconds *= 2
        steps = (times_seconds // self.step_seconds).astype(int)
        firsts = np.flatnonzero(np.diff(steps, prepend=-1))
        greatest = np.maximum.reduceat(values, firsts, axis=0)
        self._kept[steps[firsts]] = np.maximum(self._kept[steps[firsts]], greatest)
        self._num_steps = int(times_seconds[-1] // self.step_seconds) + 1

    def values(self) -> NDArray[np.float32]:
        """Return the greatest value of each step so far ``(T, K)``; -inf where there was none."""
        return np.empty((0, 1), np.float32) if self._kept is None else self._kept[: self._num_steps]


@dataclass(frozen=True, slots=True)
class Overview:
    """A whole recording, coarse enough to draw.

    Attributes:
        duration_seconds: of the sound.
        wave: least and greatest sample of each step of time.
        levels: level of each band of frequency in dB, ``_NUM_BANDS`` of them.
        curve: the detector's curve.
        curve_name: what that is.
        edges_hz: of the bands, one more than these.
    """

    duration_seconds: float
    wave: Columns
    levels: Columns
    curve: Columns
    curve_name: str
    edges_hz: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shown:
    """A moment shown by itself.

    Attributes:
        number: among all moments, counted from 1.
        moment: the moment.
        wave: sound around it, float32 ``(S,)``, ``AROUND_SECONDS`` to each side.
        frames: uint8 ``(2, H, W, 3)``, before and after; None without a picture.
        frame_offsets: seconds from the moment to each of them, less than half a second where the picture has an end.
    """

    number: int
    moment: Moment
    wave: NDArray[np.float32]
    frames: NDArray[np.uint8] | None
    frame_offsets: tuple[float, float]


def write_plot(
    out: str | Path,
    path: str | Path,
    moments: Sequence[Moment],
    *,
    title: str,
    detector: str,
    audio_stream: int | None = None,
    index: str | None = None,
) -> None:
    """Draw a recording and its moments; memory does not grow with the recording's length.

    Args:
        out: file to write, ``.png`` or ``.html``; the whole file or nothing.
        path: the recording.
        moments: of it, in order of time.
        title: its heading, plain text.
        detector: name of what found them, of `earmark.moments.DETECTORS`; its curve is drawn.
        audio_stream: the n-th sound stream, from 0; None for the container's default.
        index: path of a page that this one leads back to, relative to its folder; None for none.

    Raises:
        MediaError: if the recording can't be read or has no sound.
        ValueError: if ``out`` ends in another suffix.

    Example:
        >>> import tempfile, scipy.io.wavfile
        >>> wave = np.zeros(16000, np.int16)
        >>> wave[8000:8100] = 9000
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     scipy.io.wavfile.write(f"{folder}/a.wav", 8000, wave)
        ...     page, moments = Path(folder, "a.html"), [Moment(1.0, 2.0, 3.0, 0)]
        ...     write_plot(page, f"{folder}/a.wav", moments, title="a", detector="earmark")
        ...     "<h1>a</h1>" in page.read_text()
        True
    """
    suffix = Path(out).suffix.lower()
    if suffix not in (".png", ".html"):
        raise ValueError(f"{out}: a picture of moments ends in .png or .html, not {suffix!r}")
    best = sorted(range(len(moments)), key=lambda k: -moments[k].score)[: SHOWN_PNG if suffix == ".png" else SHOWN_HTML]
    reader = SoundReader(path, audio_stream=audio_stream)
    overview, waves = _listen(reader, detector, [moments[k].time_seconds for k in sorted(best)])
    frames = _frames(path, [moments[k].time_seconds for k in sorted(best)])
    shown = [
        Shown(k + 1, moments[k], wave, pair, offsets)
        for k, wave, (offsets, pair) in zip(sorted(best), waves, frames, strict=True)
    ]
    rate = reader.sample_rate
    heading = f"{len(moments)} {'moment' if len(moments) == 1 else 'moments'} in {_clock(overview.duration_seconds)}"
    heading += f", detector {detector}"
    if len(shown) < len(moments):
        heading += f"; below, the {len(shown)} of the highest score"
    with replacing(out) as temporary:
        if suffix == ".png":
            _figure(overview, moments, shown, rate, heading=f"{title}\n{heading}").savefig(
                temporary, dpi=110, format="png", metadata={"Software": None}
            )
        else:
            page = _page(overview, moments, shown, rate, title=title, heading=heading, index=index)
            temporary.write_text(page, encoding="utf-8")


# --- listening ---


def _listen(
    reader: SoundReader, detector_name: str, times_seconds: Sequence[float]
) -> tuple[Overview, list[NDArray[np.float32]]]:
    """Read the sound once: the overview, and the sound around the given times, silence beyond its ends."""
    rate = reader.sample_rate
    edges = np.geomspace(_LOWEST_HZ, min(_HIGHEST_HZ, rate / 2), _NUM_BANDS + 1)
    overview = (Columns(0.002), Columns(0.01), Columns(0.002))
    spectrum = _spectrum(rate)
    half = round(AROUND_SECONDS * rate)
    waves = [np.zeros(2 * half, np.float32) for _ in times_seconds]
    starts = [round(time * rate) - half for time in times_seconds]
    detector = DETECTORS[detector_name](rate)
    detector.on_curve = lambda times, values: overview[2].add(times, values[:, None])
    tail, position = np.zeros(0, np.float32), 0  # sound that the next block's spectrum needs, number of the next sample
    for block in reader:
        overview[0].add((position + np.arange(len(block))) / rate, np.stack([block, -block], axis=1))
        for wave, start in zip(waves, starts, strict=True):
            first, stop = max(start, position), min(start + 2 * half, position + len(block))
            if first < stop:
                wave[first - start : stop - start] = block[first - position : stop - position]
        joined = np.concatenate([tail, block])
        if len(joined) >= spectrum.m_num:
            levels = _levels(joined, spectrum, edges)
            centres = position - len(tail) + np.arange(len(levels)) * spectrum.hop + spectrum.m_num / 2
            overview[1].add(centres / rate, levels)
            tail = joined[len(levels) * spectrum.hop :]
        else:
            tail = joined
        detector.feed(block, copy=False)
        position += len(block)
    detector.finish()
    return Overview(position / rate, *overview, curve_name=detector.curve_name, edges_hz=edges), waves


def _spectrum(sample_rate: int) -> ShortTimeFFT:
    size = max(32, round(0.032 * sample_rate))
    return ShortTimeFFT(hann(size, sym=False), hop=max(1, size // 4), fs=sample_rate, scale_to="magnitude")


def _levels(wave: NDArray[np.float32], spectrum: ShortTimeFFT, edges_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the levels of the bands in dB ``(T, F)``, one row for each window that lies in the wave."""
    size = spectrum.m_num
    windows = np.lib.stride_tricks.sliding_window_view(wave, size)[:: spectrum.hop]
    power = np.abs(np.fft.rfft(windows * spectrum.win, axis=1)) ** 2
    bins = np.fft.rfftfreq(size, 1 / spectrum.fs)
    first = np.searchsorted(bins, edges_hz[:-1])
    last = np.maximum(np.searchsorted(bins, edges_hz[1:]), first + 1).clip(max=len(bins))
    first = np.minimum(first, last - 1)  # a narrow band takes the bin next to it
    total = np.concatenate([np.zeros((len(power), 1)), power.cumsum(axis=1)], axis=1)
    mean = (total[:, last] - total[:, first]) / (last - first)
    return np.asarray(10 * np.log10(np.maximum(mean, 0) + 10 ** (_NOTHING_DB / 10)))


def _frames(
    path: str | Path, times_seconds: Sequence[float]
) -> Iterator[tuple[tuple[float, float], NDArray[np.uint8] | None]]:
    """Yield, for each time, how far from it the frames before and after are in seconds, and the two.

    They are nearer where the picture begins or ends, and on the same side where it is not there yet or no more.
    """
    info = media_info(path)
    for time in times_seconds:
        offsets = (-FRAME_SECONDS, FRAME_SECONDS)
        if info.video is None:
            yield offsets, None
            continue
        first = info.video.start_seconds
        length = info.video.duration_seconds
        last = max(first, (info.duration_seconds if length is None else first + length) - 1 / info.video.fps)
        times = np.clip([time - FRAME_SECONDS, time + FRAME_SECONDS], first, last)
        offsets = (float(times[0]) - time, float(times[1]) - time)
        try:
            yield offsets, read_frames(path, times, short_side=_FRAME_SIDE)
        except MediaError:  # the sound can be shown all the same
            yield offsets, None


def frame_label(offset_seconds: float) -> str:
    """Return how far from its moment a frame is.

    Example:
        >>> frame_label(-0.5), frame_label(0.163), frame_label(0.0)
        ('0.5 s before', '0.16 s after', 'at the moment')
    """
    length = f"{abs(offset_seconds):.2f}".rstrip("0").rstrip(".")
    if length == "0":
        return "at the moment"
    return f"{length} s {'before' if offset_seconds < 0 else 'after'}"


# --- drawing ---


def _figure(
    overview: Overview, moments: Sequence[Moment], shown: Sequence[Shown], sample_rate: int, *, heading: str
) -> Figure:
    """Draw the overview and, below it, the shown moments."""
    columns, style = 4, _PICTURE
    with_frames = any(one.frames is not None for one in shown)
    rows = -(-len(shown) // columns)
    row_inches = 2.8 if with_frames else 1.9
    figure = Figure(figsize=(15, 5.6 + rows * row_inches), layout="constrained", facecolor=style.ground)
    parts = figure.subfigures(
        2 if rows else 1, 1, height_ratios=[5.6, rows * row_inches] if rows else None, squeeze=False
    )
    _draw_overview(parts[0, 0], overview, moments, shown, style)
    parts[0, 0].suptitle(heading, fontsize=11, color=style.ink, parse_math=False)
    if rows:
        cells = parts[1, 0].subfigures(rows, columns, squeeze=False)
        for cell, one in zip(cells.flat, shown, strict=False):
            _draw_moment(cell, one, overview.edges_hz, sample_rate, style, with_frames=with_frames)
    return figure


def _draw_overview(
    figure: Any, overview: Overview, moments: Sequence[Moment], shown: Sequence[Shown], style: Style
) -> None:
    axes = figure.subplots(3, 1, sharex=True, height_ratios=[1, 1.6, 1])
    for panel in (axes[0], axes[2]):
        panel.set_facecolor(style.ground)
    end = max(overview.duration_seconds, 1e-3)
    wave = overview.wave.values()
    times = np.arange(len(wave)) * overview.wave.step_seconds
    if len(wave):
        axes[0].fill_between(times, -wave[:, 1], wave[:, 0], color=style.line, linewidth=0.4)
    axes[0].set_ylabel("waveform")
    levels = overview.levels.values()
    _draw_levels(axes[1], levels, len(levels) * overview.levels.step_seconds, 0.0, overview.edges_hz)
    axes[1].set_ylabel("kHz")
    curve = overview.curve.values()
    if len(curve):
        curve_times = (np.arange(len(curve)) + 0.5) * overview.curve.step_seconds
        there = np.isfinite(curve[:, 0])
        axes[2].plot(curve_times[there], curve[there, 0], color=style.line, linewidth=0.7)
        reach = max(1, round(_MARK_SECONDS / overview.curve.step_seconds))
        tops = [
            curve[max(0, k - reach) : k + reach + 1, 0].max()
            for k in (min(len(curve) - 1, int(m.time_seconds / overview.curve.step_seconds)) for m in moments)
        ]
        axes[2].plot([m.time_seconds for m in moments], tops, "v", color=style.mark, markersize=4, clip_on=False)
    axes[2].set_ylabel(overview.curve_name)
    axes[2].set_xlabel("time, min:s", fontsize=8, color=style.ink)
    axes[2].xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: _clock(seconds, end)))
    # Lines through few moments, ticks for many, which would hide what they mark.
    depth = 1.0 if len(moments) <= _MAX_LINES else 0.08
    for panel in (axes[0], axes[1]):
        panel.vlines([m.time_seconds for m in moments], 1 - depth, 1, transform=panel.get_xaxis_transform(),
                     color=style.mark, linewidth=0.8, alpha=0.7)  # fmt: skip
    last = -end
    for one in shown:
        if one.moment.time_seconds - last < 0.015 * end:  # the numbers would run into each other
            continue
        last = one.moment.time_seconds
        axes[0].annotate(str(one.number), (last, 1), xycoords=axes[0].get_xaxis_transform(), ha="center", va="bottom",
                         fontsize=7, color=style.mark, annotation_clip=False)  # fmt: skip
    axes[0].set_xlim(0, end)
    for panel in axes:
        _plain(panel, style)


def _draw_levels(
    axes: Axes, levels: NDArray[np.float32], seconds: float, start_seconds: float, edges_hz: NDArray[np.float64]
) -> None:
    """Draw levels (T, F) as an image, frequency on a logarithmic scale."""
    axes.set_facecolor("black")
    finite = levels[np.isfinite(levels)]
    if len(finite):
        top = max(float(finite.max()), _DARKEST_TOP_DB)
        bottom = max(top - _RANGE_DB, min(float(np.quantile(finite, 0.05)), top - 1))  # the noise is dark
        extent = (start_seconds, start_seconds + seconds, 0, _NUM_BANDS)
        image = np.where(np.isfinite(levels), levels, finite.min()).T
        axes.imshow(image, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=bottom, vmax=top,
                    interpolation_stage="data")  # fmt: skip
    marks = [hertz for hertz in (100, 300, 1000, 3000, 10000) if hertz < edges_hz[-1]]
    places = np.log(np.array(marks) / edges_hz[0]) / np.log(edges_hz[-1] / edges_hz[0]) * _NUM_BANDS
    axes.set_yticks(places, [f"{hertz / 1000:g}" for hertz in marks])
    axes.set_ylim(0, _NUM_BANDS)


def _draw_moment(
    figure: Any, one: Shown, edges_hz: NDArray[np.float64], sample_rate: int, style: Style, *, with_frames: bool
) -> None:
    figure.suptitle(f"{one.number}: {_caption(one.moment)}", fontsize=9, color=style.ink)
    rows = figure.subfigures(2, 1, height_ratios=[1.2, 1], squeeze=False)[:, 0] if with_frames else [figure]
    if with_frames:
        panels = rows[0].subplots(1, 2)
        for number, (panel, offset) in enumerate(zip(panels, one.frame_offsets, strict=True)):
            panel.axis("off")
            if one.frames is not None:
                panel.imshow(one.frames[number])
                panel.set_title(frame_label(offset), fontsize=7, color=style.ink, pad=2)
    _draw_around(rows[-1].subplots(), one, edges_hz, sample_rate, style)


def _draw_around(axes: Axes, one: Shown, edges_hz: NDArray[np.float64], sample_rate: int, style: Style) -> None:
    """Draw the spectrogram around a moment."""
    spectrum = _spectrum(sample_rate)
    levels = _levels(one.wave, spectrum, edges_hz).astype(np.float32)
    step = spectrum.hop / sample_rate
    start = (spectrum.m_num - spectrum.hop) / 2 / sample_rate - AROUND_SECONDS
    _draw_levels(axes, levels, len(levels) * step, start, edges_hz)
    axes.axvline(0, color="white", linestyle="--", linewidth=0.9)
    axes.set_xlim(-AROUND_SECONDS, AROUND_SECONDS)
    axes.set_xticks([-1, -0.5, 0, 0.5, 1], ["-1 s", "", "", "", "1 s"])
    _plain(axes, style)


def _plain(axes: Axes, style: Style) -> None:
    axes.tick_params(colors=style.ink, labelsize=7, length=2)
    axes.yaxis.label.set(color=style.ink, fontsize=8)
    axes.spines[:].set_visible(False)


def _page(
    overview: Overview,
    moments: Sequence[Moment],
    shown: Sequence[Shown],
    sample_rate: int,
    *,
    title: str,
    heading: str,
    index: str | None,
) -> str:
    figure = Figure(figsize=(15, 5.4), layout="constrained", facecolor=_IN_PAGE.ground)
    _draw_overview(figure, overview, moments, shown, _IN_PAGE)
    cards = []
    for one in shown:
        small = Figure(figsize=(4.6, 1.5), layout="constrained", facecolor=_IN_PAGE.ground)
        _draw_around(small.subplots(), one, overview.edges_hz, sample_rate, _IN_PAGE)
        card = {"number": one.number, "caption": _caption(one.moment), "spectrogram": _png(small), "frames": []}
        if one.frames is not None:
            labels = map(frame_label, one.frame_offsets)
            card["frames"] = [
                (jpeg_uri(frame, quality=_FRAME_QUALITY), label)
                for frame, label in zip(one.frames, labels, strict=True)
            ]
        card["sound"] = _wav(one.wave, sample_rate)
        cards.append(card)
    rows = [(_clock(m.time_seconds), f"{m.score:.2f}", f"{m.loudness_db:.1f}") for m in moments]
    return render_page(
        "earmark.moments",
        "moments.html",
        title=title,
        heading=heading,
        overview=_png(figure),
        cards=cards,
        rows=rows,
        index=index,
    )


def _wav(wave: NDArray[np.float32], sample_rate: int) -> str:
    """Return sound that browsers play, at a rate that keeps a page of many moments small."""
    rate = min(sample_rate, _PAGE_RATE)
    heard = wave if rate == sample_rate else resample_poly(wave, rate, sample_rate)
    return wav_uri(np.round(np.clip(heard, -1, 1) * 32767).astype(np.int16), rate)


def _png(figure: Figure) -> str:
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110, format="png", metadata={"Software": None})
    return data_uri("image/png", picture.getvalue())


def _caption(moment: Moment) -> str:
    return f"{_clock(moment.time_seconds)}, score {moment.score:.2f}, {moment.loudness_db:.1f} dB"


def _clock(seconds: float, whole_seconds: float = 0.0) -> str:
    """Return a time as minutes and seconds; without the fraction on the axis of a long recording."""
    minutes, rest = divmod(round(seconds, 2), 60)
    return f"{int(minutes)}:{rest:02.0f}" if whole_seconds > 20 else f"{int(minutes)}:{rest:05.2f}"
