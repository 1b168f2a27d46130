"""The command `earmark moments`: files in, moments out, as a table, labels, pages, clips and a score.

Beside the path of a sample: it calls the stations for one file at a time, in worker processes where there are several.
What it needs is imported when it runs, so that ``earmark --help`` stays fast.
"""

import argparse
import contextlib
import glob
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from earmark.cli import DONE, FAILED, clock, non_negative, positive
from earmark.cli_moments_score import complain, read_truths, score

if TYPE_CHECKING:
    from earmark.media import MediaInfo, SoundReader
    from earmark.moments_writing import FileMoments

__all__ = ["add_arguments"]

DETECTORS = ("earmark", "replai")  # those of earmark.moments, which is slow to import
SOUND_SUFFIXES = {".aac", ".ac3", ".aif", ".aiff", ".amr", ".au", ".caf", ".eac3", ".flac", ".m4a", ".mka", ".mp3"}
SOUND_SUFFIXES |= {".oga", ".ogg", ".opus", ".w64", ".wav", ".weba", ".wma"}
TABLES, LABELS, PAGES = (".csv", ".json", ".parquet"), (".txt", ".vtt", ".eaf"), (".png", ".html")
_APART_SECONDS = 0.5  # sound and picture that begin or end further apart are worth a line
_STDIN_NAME = "stdin"


@dataclass(frozen=True, slots=True)
class Search:
    """What is searched for, as the command line says it; None leaves it to the detector."""

    detector: str
    min_score: float | None
    min_distance_seconds: float | None
    margin_seconds: float
    max_per_minute: int | None


@dataclass(frozen=True, slots=True)
class Job:
    """One file and what is to be made of it.

    Attributes:
        number: of the file, from 0.
        name: of the files made from it.
        shown: what the user called the file.
        path: where it is.
        search: what is searched for.
        plot: page or picture to write, or None.
        clips: folder of the clips, or None.
        progress: file that holds, for each job, the seconds of sound read so far (float64).
    """

    number: int
    name: str
    shown: str
    path: Path
    search: Search
    plot: Path | None
    clips: Path | None
    progress: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.epilog = (
        "A moment's score is in the detector's own measure, its loudness the level of the 100 ms from it on, in dB "
        "re full scale. Exit code 1 only if no file could be read."
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE|FOLDER|GLOB",
        help="videos or sound files; all of them below a folder; those that match a quoted pattern ('**' goes into "
        "folders); - for a wav from standard input",
    )
    search = parser.add_argument_group("what counts as a moment")
    search.add_argument("--detector", choices=DETECTORS, default=DETECTORS[0], help="default: %(default)s")
    search.add_argument("--min-score", type=non_negative, metavar="SCORE", help="default: the detector's own")
    search.add_argument("--min-distance", type=non_negative, metavar="SECONDS", help="between neighbours")
    search.add_argument("--max-per-minute", type=positive, metavar="N", help="keep the N best of each minute")
    search.add_argument(
        "--margin", type=non_negative, default=0.0, metavar="SECONDS", help="leave out moments nearer to either end"
    )
    output = parser.add_argument_group("what is made of them")
    output.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=".csv, .json, .parquet: one table; .txt (Audacity labels), .vtt (WebVTT), .eaf (ELAN): labels of one "
        "file; those of several go to files of their own, their names put before the suffix",
    )
    output.add_argument(
        "--plot",
        type=Path,
        metavar="FILE|DIR",
        help="draw waveform, spectrogram, curve, moments and frames: a .png or .html; an .html for each file in DIR",
    )
    output.add_argument(
        "--clips", type=Path, metavar="DIR", help="cut each moment as an mp4 with sound, 1 s to each side"
    )
    output.add_argument("--json", action="store_true", help="print JSON: a list with an object for each file")
    output.add_argument(
        "--score",
        type=Path,
        metavar="TRUTH",
        help="compare with onsets: Audible Kitchen's events.parquet, a csv of EPIC-SOUNDS or EPIC-KITCHENS-100, "
        "Audacity labels or a folder of them",
    )
    parser.add_argument("--workers", type=positive, metavar="N", help="files at once (default: one a core)")
    parser.set_defaults(run=_run, wrong_usage=parser.error)


def _run(options: argparse.Namespace) -> int:
    if options.out is not None and options.out.suffix.lower() not in TABLES + LABELS:
        options.wrong_usage(f"--out {options.out}: must end in one of {', '.join(TABLES + LABELS)}")
    page = None if options.plot is None else options.plot.suffix.lower()
    if page and page not in PAGES and not options.plot.is_dir():
        options.wrong_usage(f"--plot {options.plot}: must end in .png or .html, or be a folder")
    truth = None if options.score is None else read_truths(options.score)
    with tempfile.TemporaryDirectory(prefix="earmark-") as scratch:
        paths, problems = _inputs(options.files, _written(options), Path(scratch))
        if page in PAGES and len(paths) > 1:
            options.wrong_usage(f"--plot {options.plot}: is one page, but there are {len(paths)} files; give a folder")
        for text in problems:
            complain(text)
        jobs = _jobs(paths, options, Path(scratch))
        files = [_error_record(text) for text in problems]
        for found in _results(jobs, options.workers, quiet=options.json):
            files.append(found)
            _tell(found, table=not options.json)
            if options.out is not None and options.out.suffix.lower() in LABELS and found.error is None:
                _write_labels(options.out, found, several=len(jobs) > 1)
    read = [found for found in files if found.error is None]
    if read and options.out is not None and options.out.suffix.lower() in TABLES:
        from earmark.moments_writing import write_table

        parameters = {name: value for name, value in asdict(_search(options)).items() if name != "detector"}
        write_table(options.out, files, detector=options.detector, parameters=parameters)
    scores = {} if truth is None else score(read, truth, options.score, stderr=options.json)
    if options.json:
        from earmark.moments_writing import record

        results = [record(found) | ({"scores": scores[found.path]} if found.path in scores else {}) for found in files]
        print(json.dumps(results, indent=2, allow_nan=False))
    return DONE if read else FAILED


# --- which files ---


def _inputs(given: Sequence[str], written: set[Path], scratch: Path) -> tuple[list[tuple[str, Path]], list[str]]:
    """Return (what the user calls it, path) of each file, each once, and what is wrong with what was asked for.

    What is there is taken by its name, even if it looks like a pattern; a file that isn't there is told when it is
    opened. Folders that are written to are not searched.
    """
    from earmark.datasets.records import VIDEO_SUFFIXES

    suffixes = VIDEO_SUFFIXES | SOUND_SUFFIXES
    found: dict[Path, tuple[str, Path]] = {}
    problems = []
    for text in given:
        if text == "-":
            paths = [_from_stdin(scratch)]
        elif Path(text).is_dir():
            paths = sorted(_media_below(Path(text), suffixes, written))
            if not paths:
                problems.append(f"{text}: no video or sound file in this folder")
        elif not os.path.lexists(text) and glob.has_magic(text):
            matches = (Path(match) for match in sorted(glob.glob(text, recursive=True)))  # noqa: PTH207 - Path.glob takes no absolute one
            paths = [path for path in matches if not path.is_dir()]
            if not paths:
                problems.append(f"{text}: no file matches this pattern")
        else:
            paths = [Path(text)]
        for path in paths:
            found.setdefault(path.resolve(), (text if text == "-" else str(path), path))
    return list(found.values()), problems


def _media_below(folder: Path, suffixes: AbstractSet[str], written: set[Path]) -> Iterator[Path]:
    for base, subfolders, names in os.walk(folder):  # links to folders are not followed
        subfolders[:] = [n for n in subfolders if not n.startswith(".") and Path(base, n).resolve() not in written]
        for name in names:
            path = Path(base, name)
            if path.suffix.lower() in suffixes and not name.startswith(".") and path.is_file():
                yield path


def _written(options: argparse.Namespace) -> set[Path]:
    return {path.resolve() for path in (options.clips, options.plot) if path is not None}


def _from_stdin(scratch: Path) -> Path:
    """Keep standard input in a file, since plots and clips need to go back in it."""
    path = scratch / f"{_STDIN_NAME}.wav"
    with path.open("wb") as stream:
        shutil.copyfileobj(sys.stdin.buffer, stream, 2**20)
    return path


def _jobs(paths: Sequence[tuple[str, Path]], options: argparse.Namespace, scratch: Path) -> list[Job]:
    for folder in (options.clips, options.plot if options.plot and options.plot.suffix.lower() not in PAGES else None):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)  # better now than after an hour
    progress = scratch / "progress"
    progress.write_bytes(bytes(8 * max(1, len(paths))))
    taken: set[str] = set()
    jobs = []
    for number, (shown, path) in enumerate(paths):
        name, count = path.stem, 1
        while name.lower() in taken:  # some file systems don't tell A from a
            count += 1
            name = f"{path.stem}-{count}"
        taken.add(name.lower())
        plot = options.plot
        if plot is not None and plot.suffix.lower() not in PAGES:
            plot = plot / f"{name}.html"
        plot = None if plot is None else plot.absolute()  # worker processes may stand elsewhere
        clips = None if options.clips is None else options.clips.absolute()
        jobs.append(Job(number, name, shown, path.absolute(), _search(options), plot, clips, progress))
    return jobs


def _search(options: argparse.Namespace) -> Search:
    return Search(options.detector, options.min_score, options.min_distance, options.margin, options.max_per_minute)


# --- one file ---


def _examine(job: Job) -> "FileMoments":
    """Find the moments of a file, and draw and cut what is asked for; all that is wrong with the file is told in it."""
    from dataclasses import replace

    import numpy as np

    from earmark.datasets.records import printable
    from earmark.media import MediaError
    from earmark.moments_writing import FileMoments

    progress = np.memmap(job.progress, np.float64, "r+")

    def heard(seconds: float) -> None:
        progress[job.number] = seconds

    def in_words(error: Exception) -> str:
        text = str(error).replace(str(job.path), job.shown)
        return text if job.shown in text else f"{job.shown}: {text}"

    try:
        found = find(job.path, job.search, heard)
    except (MediaError, OSError) as error:
        return FileMoments(job.name, job.shown, error=in_words(error))
    found = replace(found, name=job.name, path=job.shown)
    try:
        if job.plot is not None:
            from earmark.moments_plot import write_plot

            title = printable(job.shown)
            write_plot(job.plot, job.path, found.moments, title=title, detector=job.search.detector)
        if job.clips is not None:
            from earmark.moments_clips import cut_clips

            cut_clips(job.path, [moment.time_seconds for moment in found.moments], job.clips, name=job.name)
    except (MediaError, OSError) as error:
        found = replace(found, notes=(*found.notes, f"not all could be drawn or cut ({in_words(error)})"))
    return found


def find(path: Path, search: Search, heard: Callable[[float], None]) -> "FileMoments":
    """Find the moments of a file.

    Args:
        path: of the file.
        search: what to look for.
        heard: is told the seconds of sound read so far.

    Raises:
        MediaError: If it can't be read or has no sound.
    """
    import numpy as np

    from earmark.media import SoundReader, probe
    from earmark.moments import MomentStream
    from earmark.moments_writing import FileMoments

    info, reader = probe(path), SoundReader(path)
    peak = 0.0

    def blocks() -> Iterator[Any]:
        nonlocal peak
        for block in reader:
            peak = max(peak, float(np.abs(block).max()))
            heard(reader.num_samples / reader.sample_rate)
            yield block

    stream = MomentStream(blocks(), sample_rate=reader.sample_rate, **asdict(search))
    moments = tuple(stream)
    return FileMoments(
        name=path.stem,
        path=str(path),
        moments=moments,
        duration_seconds=max(info.duration_seconds, stream.duration_seconds),
        notes=tuple(_notes(info, reader, silent=peak == 0)),
    )


def _notes(info: "MediaInfo", reader: "SoundReader", *, silent: bool) -> Iterator[str]:
    """Yield what a person should know of the sound before trusting the moments."""
    end = reader.num_samples / reader.sample_rate
    if reader.problem:
        yield reader.problem
    if silent:
        yield "the sound is digital silence"
    if end < 0.1:
        yield f"only {1000 * end:.0f} ms of sound"
    if info.video is not None and info.audio is not None:
        sound_start, picture_start = info.audio.start_seconds, info.video.start_seconds
        if abs(sound_start - picture_start) > _APART_SECONDS:
            yield f"the sound starts at {sound_start:.2f} s, the picture at {picture_start:.2f} s"
        if info.video.duration_seconds is not None:
            picture_end = picture_start + info.video.duration_seconds
            if abs(end - picture_end) > _APART_SECONDS:
                yield f"the sound ends at {end:.2f} s, the picture at {picture_end:.2f} s"


# --- all files ---


def _results(jobs: Sequence[Job], workers: int | None, *, quiet: bool) -> "Iterator[FileMoments]":
    """Yield what each job found, in their order; one that kills its process stops no other."""
    import joblib

    from earmark.cli_build import num_cpus
    from earmark.moments_writing import FileMoments

    num_workers = min(workers or num_cpus(), len(jobs))
    with _progress_bar(jobs, quiet):
        if num_workers <= 1:
            yield from map(_examine, jobs)
            return
        task = joblib.delayed(_examine)
        done = 0
        with contextlib.suppress(BrokenProcessPool):
            for found in joblib.Parallel(num_workers, return_as="generator")(task(job) for job in jobs):
                done += 1
                yield found
        for job in jobs[done:]:  # which one did it is not told: each by itself
            try:
                (found,) = joblib.Parallel(2)([task(job)])  # of one worker it would be this process
            except BrokenProcessPool:
                reason = "the process that read it was killed: out of memory, or a fault in a codec"
                found = FileMoments(job.name, job.shown, error=f"{job.shown}: {reason}")
            yield found


@contextlib.contextmanager
def _progress_bar(jobs: Sequence[Job], quiet: bool) -> Iterator[None]:
    """Show how much of all sound has been read, on a terminal; the workers leave word in the jobs' progress file."""
    if quiet or not jobs or not sys.stderr.isatty():
        yield
        return
    import numpy as np
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from earmark.cli_build import screen
    from earmark.media import MediaError, probe

    def duration(job: Job) -> float:
        try:
            return probe(job.path).duration_seconds
        except (MediaError, OSError):
            return 0.0

    totals = np.array([duration(job) for job in jobs])
    heard, stopped = np.memmap(jobs[0].progress, np.float64, "r"), Event()
    columns = (TextColumn("listening"), BarColumn(), TextColumn("{task.fields[done]} of {task.fields[all]} of sound"))
    whole = clock(totals.sum())
    with Progress(*columns, TimeRemainingColumn(), console=screen(stderr=True), transient=True) as bar:
        line = bar.add_task("", total=totals.sum() or None, done=clock(0), all=whole)

        def watch() -> None:
            while not stopped.wait(0.2):
                seconds = float(np.minimum(heard, totals).sum())
                bar.update(line, completed=seconds, done=clock(seconds))

        watcher = Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stopped.set()
            watcher.join()


def _error_record(text: str) -> "FileMoments":
    from earmark.moments_writing import FileMoments

    return FileMoments("", text.partition(": ")[0], error=text)


def _tell(found: "FileMoments", *, table: bool) -> None:
    if found.error is not None:
        complain(found.error)
        return
    for note in found.notes:
        complain(f"{found.path}: {note}")
    if not table:
        return
    from rich.table import Table
    from rich.text import Text

    from earmark.cli_build import screen
    from earmark.datasets.records import printable

    console = screen()
    count = "1 moment" if len(found.moments) == 1 else f"{len(found.moments)} moments"
    console.print(Text(f"{printable(found.path)}: {count} in {clock(found.duration_seconds)}"), soft_wrap=True)
    if found.moments:
        columns = Table()
        for name in ("time", "score", "loudness, dB"):
            columns.add_column(name, justify="right")
        for moment in found.moments:
            columns.add_row(clock(moment.time_seconds), f"{moment.score:.2f}", f"{moment.loudness_db:.1f}")
        console.print(columns)


def _write_labels(out: Path, found: "FileMoments", *, several: bool) -> None:
    from earmark.moments_writing import write_labels

    write_labels(out.with_name(f"{out.stem}-{found.name}{out.suffix}") if several else out, found)
